"""`headrace outbox`: make the table, relay its jobs to the server, and look at what cannot go."""

from __future__ import annotations

import importlib
import logging
import os
import random
import select
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

import click

from headrace.cli.output import instant, print_rows
from headrace.cli.settings import OK, settings, subcommand, talk
from headrace.engine.clients import SyncClient
from headrace.errors import ServerBusy, ServerFull, ServerUnreachable, UsageError
from headrace.outbox import create_tables
from headrace.relay import Relayed, problems, relay_to, take_back, waiting

COLUMNS = ("seq", "queue", "id", "at", "is_set_aside", "problem")
EVERY_S = 0.5
PAUSE_MAX_S = 10.0

_database = click.option(
    "--database", metavar="URL", required=True, envvar="HEADRACE_DATABASE", show_envvar=True,
    help="postgresql://… or sqlite:///FILE.",
)  # fmt: skip


@click.group(
    epilog="\b\nExamples:\n  headrace outbox init --database postgresql://shop@db/shop\n  headrace outbox relay"
)
def command() -> None:
    """Bring jobs that were enqueued in a database's transactions to the server."""


class Database:
    """A connection of the relay's own, opened when it is needed, and again after an error."""

    def __init__(self, url: str) -> None:
        self._open, self.errors, self.lost_errors = _opener(url)
        self._connection: Any = None

    def connection(self) -> Any:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _opener(url: str) -> tuple[Callable[[], Any], tuple[type[Exception], ...], tuple[type[Exception], ...]]:
    """How to connect; every error of the driver; those after which another try may work."""
    kind, _, rest = url.partition("://")
    if kind == "sqlite" and rest.startswith("/") and len(rest) > 1:
        path = rest.removeprefix("/")
        return lambda: sqlite3.connect(path, timeout=30), (sqlite3.Error,), (sqlite3.OperationalError,)
    if kind not in ("postgresql", "postgres"):
        raise UsageError("--database: expected postgresql://… or sqlite:///FILE")
    try:
        psycopg = importlib.import_module("psycopg")
    except ImportError:
        raise UsageError("PostgreSQL needs psycopg: pip install 'headrace[postgres]'") from None
    connect = psycopg.connect
    lost = (psycopg.OperationalError, psycopg.InterfaceError)
    return lambda: connect(url, connect_timeout=5, application_name="headrace outbox"), (psycopg.Error,), lost


@subcommand(command, "init", epilog="\b\nExample:\n  headrace outbox init --database sqlite:///shop.sqlite")
@_database
def init(database: str) -> int:
    """Make the table headrace_outbox, if it is not there. (Or put headrace.outbox.DDL into your migrations.)"""
    _with(database, create_tables)
    talk("the table headrace_outbox is there")
    return OK


@subcommand(
    command, "relay",
    epilog="\b\nExamples:\n  headrace outbox relay --database postgresql://shop@db/shop\n"
    "  headrace outbox relay --database sqlite:///shop.sqlite --once",
)  # fmt: skip
@_database
@click.option(
    "--every", "every_s", type=click.FloatRange(0.01, 60), default=EVERY_S, show_default=True,
    help="How often to look, in seconds, when there is nothing.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Bring what is there, and end.")
def relay(database: str, every_s: float, once: bool) -> int:
    """Bring jobs to the server, each once, until SIGTERM or Ctrl-C. Run as many as you like; kill them as you like.

    A row that cannot be read is set aside (`headrace outbox ls`) and holds up nothing.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    client = settings().client()
    source = Database(database)
    try:
        if once:
            _relay_what_is_there(source, client)
        else:
            _relay_until_stopped(source, client, every_s)
    finally:
        source.close()
        client.close()
    return OK


def _relay_what_is_there(source: Database, client: SyncClient) -> None:
    total = Relayed()
    try:
        while not (done := relay_to(source.connection(), client)).is_idle:
            total = Relayed(*(a + b for a, b in zip(_numbers(total), _numbers(done), strict=True)))
    except source.errors as error:
        raise UsageError(_told(error)) from error
    click.echo(f"{total.sent} sent, {total.set_aside} set aside, {total.put_off} put off")


def _numbers(done: Relayed) -> tuple[int, int, int, int]:
    return done.sent, done.known, done.set_aside, done.put_off


def _relay_until_stopped(source: Database, client: SyncClient, every_s: float) -> None:
    stop = _Stop()
    talk("relaying; Ctrl-C ends it")
    failures = 0
    while not stop.is_asked:
        try:
            pause_s = every_s if relay_to(source.connection(), client).is_idle else 0.0
            failures = 0
        except (ServerUnreachable, ServerBusy, ServerFull) as error:
            failures += 1
            talk(str(error), is_error=True)
            pause_s = _pause_s(failures)
        except source.lost_errors as error:
            failures += 1
            talk(_told(error), is_error=True)
            source.close()
            pause_s = _pause_s(failures)
        except source.errors as error:
            raise UsageError(_told(error)) from error
        stop.wait(pause_s)


def _pause_s(failures: int) -> float:
    return random.uniform(0.1, min(PAUSE_MAX_S, 0.5 * 2.0 ** min(failures, 10)))


def _told(error: Exception) -> str:
    return f"the database: {str(error).strip() or type(error).__name__}"


class _Stop:
    """Whether SIGTERM or Ctrl-C came; a wait that ends when one comes."""

    def __init__(self) -> None:
        self.is_asked = False
        self._ear, mouth = os.pipe()
        for end in (self._ear, mouth):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.is_asked = True

    def wait(self, seconds: float) -> None:
        if not self.is_asked:
            select.select([self._ear], [], [], seconds)


@subcommand(command, "ls", epilog="\b\nExample:\n  headrace outbox ls --json")
@_database
def list_problems(database: str) -> int:
    """List the rows that are set aside, and those whose queue takes none; tell how many rows there are."""
    prefix = settings().client().prefix

    def look(connection: Any) -> tuple[int, list[dict[str, Any]]]:
        return waiting(connection, prefix), problems(connection, prefix)

    count, found = _with(database, look)
    print_rows([{**row, "at": instant(row["at_ms"])} for row in found], COLUMNS, empty="no row has a problem")
    talk(f"{count} rows in the outbox")
    return OK


@subcommand(command, "retry", epilog="\b\nExample:\n  headrace outbox retry")
@_database
def retry(database: str) -> int:
    """Let the rows that are set aside be tried again."""
    prefix = settings().client().prefix
    talk(f"{_with(database, lambda connection: take_back(connection, prefix))} rows go back")
    return OK


def _with(url: str, do: Callable[[Any], Any]) -> Any:
    source = Database(url)
    try:
        return do(source.connection())
    except source.errors as error:
        raise UsageError(_told(error)) from error
    finally:
        source.close()
