"""What every command shares: where the server and the app are, how to talk, and what the exit codes mean."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from headrace import errors

if TYPE_CHECKING:
    from headrace.app import Headrace
    from headrace.engine.clients import SyncClient

OK, FAILED, WRONG_USE, NOT_FOUND, REFUSED = 0, 1, 2, 3, 4
UNREACHABLE, OUR_BUG, TIMED_OUT = 69, 70, 124

_CODES: tuple[tuple[type[errors.HeadraceError], int], ...] = (
    (errors.JobExists, REFUSED),
    (errors.ScheduleExists, REFUSED),
    (errors.ScheduleNotFound, NOT_FOUND),
    (errors.UsageError, WRONG_USE),
    (errors.JobNotFound, NOT_FOUND),
    (errors.ResultTimeout, TIMED_OUT),
    (errors.ServerUnreachable, UNREACHABLE),
    (errors.ServerBusy, UNREACHABLE),
    (errors.HeadraceError, FAILED),
)


def exit_code_of(error: errors.HeadraceError) -> int:
    return next(code for kind, code in _CODES if isinstance(error, kind))


class Ended(click.ClickException):
    """End the command with one sentence and a code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        talk(self.message, is_error=True)


def not_found(message: str) -> NoReturn:
    raise Ended(message, NOT_FOUND)


def refuse(message: str) -> NoReturn:
    raise Ended(message, REFUSED)


def talk(text: str, *, is_error: bool = False) -> None:
    """A line for people: on stderr, so that stdout holds data only."""
    context = click.get_current_context(silent=True)
    settings = context.find_object(Settings) if context else None
    if is_error or not (settings and settings.quiet):
        click.echo(f"headrace: {text}" if is_error else text, err=True)


@dataclasses.dataclass
class Settings:
    """What the shared options said, before or after the command; the nearer to the command wins."""

    app_path: str | None = None
    url: str | None = None
    prefix: str | None = None
    color: str | None = None
    quiet: bool | None = None
    is_json: bool | None = None
    url_is_from_environment: bool = False

    @property
    def explicit_url(self) -> str | None:
        """--url as it was typed: it goes before what an app says of itself, $HEADRACE_URL comes after that."""
        return None if self.url_is_from_environment else self.url

    def app(self) -> Headrace:
        """The app named by -A, else one that only knows the server."""
        if self.app_path is None:
            return self.bare_app()
        from headrace.worker.loading import load_app

        return load_app(self.app_path)

    def bare_app(self) -> Headrace:
        """An app without tasks, which knows where the server is."""
        from headrace import Headrace

        return Headrace(self.url, prefix=self.prefix or "hr")

    def client(self, *, budget_s: float = 2.0) -> SyncClient:
        """A client for one command: it gives up sooner than a producer would. With --url no user code is loaded."""
        from headrace.engine.clients import SyncClient

        config = (self.app() if self.url is None else self.bare_app()).server_config
        changes: dict[str, Any] = {"retry_budget_s": budget_s}
        if self.url is not None:
            changes["url"] = self.url
        if self.prefix is not None:
            changes["prefix"] = self.prefix
        return SyncClient(dataclasses.replace(config, **changes), retry=budget_s > 0)


def settings() -> Settings:
    return click.get_current_context().ensure_object(Settings)


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    kept = ctx.ensure_object(Settings)
    name = param.name or ""
    if value is None or (value is False and getattr(kept, name) is not None):
        return
    is_from_environment = ctx.get_parameter_source(name) is click.core.ParameterSource.ENVIRONMENT
    if not (is_from_environment and getattr(kept, name) is not None):
        setattr(kept, name, value)
        if name == "url":
            kept.url_is_from_environment = is_from_environment


def _option(*names: str, **options: Any) -> click.Option:
    return click.Option(names, expose_value=False, callback=_store, **options)


def shared_options(*, with_json: bool) -> list[click.Option]:
    """The options that every command takes, before its name or after it."""
    options = [
        _option("-A", "--app", "app_path", metavar="MODULE:APP", envvar="HEADRACE_APP", show_envvar=True,
                help="The app: module:variable, module, or a path such as app.py."),
        _option("--url", metavar="URL", envvar="HEADRACE_URL", show_envvar=True,
                help="The server. Default: the running `headrace dev`, else redis://localhost:6379/0."),
        _option("--prefix", metavar="TEXT", help="What all keys start with. Default: the app's, else hr."),
        _option("--color", type=click.Choice(["auto", "always", "never"]),
                help="Colours on stdout; NO_COLOR and FORCE_COLOR work too."),
        _option("-q", "--quiet", is_flag=True, default=None, help="No talk on stderr, errors aside."),
    ]  # fmt: skip
    if with_json:
        text = "JSON on stdout: one document for one thing, a line each (NDJSON) for lists."
        options.append(_option("--json", "is_json", is_flag=True, default=None, help=text))
    return options


C = TypeVar("C", bound=click.Command)


def store_settings(command: C) -> C:
    """Add the shared options to a command."""
    command.params += shared_options(with_json=False)
    return command


def store_json(command: C) -> C:
    """Add the shared options and --json: for commands that print data."""
    command.params += shared_options(with_json=True)
    return command


def subcommand(group: click.Group, name: str, **options: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """`@subcommand(group, "ls")`: a command of a group that prints data and takes the shared options."""

    def add(fn: Callable[..., Any]) -> click.Command:
        return store_json(group.command(name, **options)(fn))

    return add


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; without a terminal and without --yes, refuse."""
    if yes:
        return
    if not sys.stdin.isatty():
        refuse(f"{question} Not asked, as this is no terminal: pass --yes to do it.")
    if not click.confirm(question, err=True):
        refuse("nothing was done")
