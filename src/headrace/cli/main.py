"""`headrace`: the list of commands, and how any command ends. Each command's module is imported when it runs."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from typing import NoReturn

import click

from headrace import errors
from headrace.cli.settings import OK, OUR_BUG, exit_code_of, store_settings, talk

# name -> (module, one line of help): the help page needs none of the modules.
COMMANDS = {
    "demo": (
        "demo",
        "See it work: a server, a site, ten processes, one of them killed; nothing left behind.",
    ),
    "dev": (
        "dev",
        "Develop: embedded Valkey, a worker that reloads when you save, the dashboard.",
    ),
    "worker": ("worker", "Run jobs."),
    "server": ("server", "Run the embedded Valkey alone, for development."),
    "enqueue": ("enqueue", "Enqueue one job."),
    "status": ("status", "One screen: server, queues, workers, what needs attention."),
    "top": ("top", "Queues, workers and jobs, live; keys pause, retry and cancel."),
    "queue": ("queue", "List, show, pause, resume, bound and purge queues."),
    "job": ("job", "List, show, retry, cancel, delete and wait for jobs; their logs."),
    "why": ("why", "Tell why a job is not running."),
    "flow": ("flow", "List, show, retry, cancel and signal flows."),
    "limit": ("limit", "List, set, reset and hold limits."),
    "schedule": ("schedule", "List, show, change, pause, skip, run and remove schedules."),
    "dead": ("dead", "Failed jobs by what went wrong: list, retry, purge."),
    "workers": ("workers", "List running workers; make them quiet, or stop them."),
    "web": ("web", "Show the dashboard in a browser."),
    "metrics": ("metrics", "Queues, workers and schedules as Prometheus text; --serve for a scraper."),
    "outbox": ("outbox", "Bring jobs enqueued in a database's transactions to the server."),
    "rq": ("rq", "RQ's commands, for programs that moved in from it: worker, info, requeue, empty."),
    "ping": ("ping", "Does the server answer?"),
    "check": ("check", "Check the server's settings and every queue's data."),
    "torture": ("torture", "Make every fault there is, and judge what became of the jobs."),
}

EXAMPLES = """\b
Examples:
  headrace demo
  headrace dev app.py
  headrace worker high default low -A app:app
  headrace enqueue app.resize cat.png width:=400 --wait
  headrace status --json

\b
Exit codes: 0 done, 1 it failed, 2 wrong use, 3 not found, 4 refused,
69 server unreachable, 70 our bug, 124 timed out, 130 Ctrl-C.
"""


class Commands(click.Group):
    """A group whose commands are imported when they are run, and whose errors end in one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"headrace.cli.{COMMANDS[cmd_name][0]}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}; commands: {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> NoReturn:
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, SystemExit):
            raise
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            # Who read our output has enough (`| head`); the flush at exit must not complain either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(128 + signal.SIGPIPE)
        except errors.HeadraceError as error:
            talk(str(error) or type(error).__doc__ or type(error).__name__, is_error=True)
            ctx.exit(exit_code_of(error))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            talk(
                "this is a bug in headrace; please report it with the lines above",
                is_error=True,
            )
            ctx.exit(OUR_BUG)
        ctx.exit(code if isinstance(code, int) else OK)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"headrace {importlib.import_module('headrace').__version__}")
        ctx.exit()


@store_settings
@click.command(
    cls=Commands,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version.",
)
def command() -> None:
    """A job queue on Redis and Valkey: simple to use, quick, and no job is lost."""


def main() -> NoReturn:
    """The `headrace` program."""
    command.main(prog_name="headrace")
