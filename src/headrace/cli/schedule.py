"""`headrace schedule`: list, show, change, pause, resume, skip, run and remove schedules."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import click

from headrace.cli.output import print_fields, print_rows
from headrace.cli.settings import OK, confirm, settings, subcommand, talk
from headrace.cli.values import duration_s
from headrace.core.schedule import OVERLAPS, check_schedule
from headrace.engine import schedules
from headrace.engine.call import Steps
from headrace.engine.schedules import Found
from headrace.schedules import Schedule, who_is_here

COLUMNS = ("name", "queue", "state", "when", "next", "last", "fired", "changed")

_queue = click.option("--queue", "-Q", metavar="NAME", help="Its queue, if two queues have one of that name.")


def summary(found: Schedule) -> dict[str, Any]:
    """A schedule's row: stable keys. Instants show the schedule's own clock, with its offset from UTC."""
    return {
        "name": found.name,
        "queue": found.queue,
        "state": found.state,
        "when": when(found.now),
        "next": _instant(found.next_tick),
        "last": _instant(found.last_tick),
        "last_job": found.last_job_id,
        "fired": found.fired,
        "skipped": found.skipped,
        "is_waiting": found.is_waiting,
        "is_declared": found.is_declared,
        "pause_reason": found.pause_reason,
        "changed": ", ".join(f"{word}={value}" for word, value in _plain(found.changed).items()),
    }


def details(found: Schedule) -> dict[str, Any]:
    """All of a schedule: what is declared, what was changed, and what holds; and the next ticks."""
    return {
        **summary(found),
        "now": _plain(found.now),
        "declared": _plain(found.declared),
        "changed": _plain(found.changed),
        "changed_by": found.changed_by,
        "changed_at": _instant(found.changed_at),
        "next_ticks": [_instant(at) for at in found.next_ticks(5)],
    }


def when(spec: dict[str, Any]) -> str:
    """`0 2 * * * Europe/Berlin`, or `every 30 s`."""
    return f"{spec['cron']} {spec['tz']}" if spec["cron"] else f"every {spec['every']:g} s"


def _plain(words: dict[str, Any]) -> dict[str, Any]:
    return {
        word: _instant(value) if isinstance(value, datetime.datetime) else value
        for word, value in words.items()
        if value is not None
    }


def _instant(at: datetime.datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds" if at.microsecond else "seconds")


def _act(name: str, queue: str | None, act: Callable[[Found], Steps[Found]] | None = None) -> Schedule:
    """The schedule of that name, after something was done with it."""
    client = settings().client()
    row = client.run(schedules.find(client.prefix, name, queue))
    return Schedule(row if act is None else client.run(act(row)))


def _tell_next(found: Schedule) -> None:
    talk(f"schedule {found.name} is {found.state}" + (f", next {_instant(found.next_tick)}" if found.next_tick else ""))


@click.group(
    epilog="\b\nExamples:\n  headrace schedule ls\n  headrace schedule next nightly -n 5\n"
    "  headrace schedule pause nightly --reason 'the database moves'"
)
def command() -> None:
    """List, show, change, pause, resume, skip, run and remove schedules."""


@subcommand(command, "ls", epilog="\b\nExample:\n  headrace schedule ls --json | jq 'select(.state != \"active\")'")
@click.option("--queue", "-Q", metavar="NAME", help="Of this queue only.")
def list_schedules(queue: str | None) -> int:
    """List schedules, with the next and the last tick.

    In a pipe: name, queue, state, when, next, last, fired, what was changed at run time.
    """
    client = settings().client()
    rows = [summary(Schedule(row)) for row in client.run(schedules.list_schedules(client.prefix, queue))]
    print_rows(rows, COLUMNS, empty="no schedule yet: declare one with @app.cron or @app.every, and start a worker")
    return OK


@subcommand(command, "show", epilog="\b\nExample:\n  headrace schedule show nightly")
@click.argument("name")
@_queue
def show(name: str, queue: str | None) -> int:
    """Show one schedule: what code declares, what was changed at run time, and the next five ticks."""
    print_fields(details(_act(name, queue)))
    return OK


@subcommand(command, "next", epilog="\b\nExample:\n  headrace schedule next nightly -n 10")
@click.argument("name")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many.")
@_queue
def next_ticks(name: str, count: int, queue: str | None) -> int:
    """Print the next ticks, on the schedule's own clock and in UTC."""
    found = _act(name, queue)
    rows = [{"next": _instant(at), "utc": _instant(at.astimezone(datetime.UTC))} for at in found.next_ticks(count)]
    print_rows(rows, ("next", "utc"), empty=f"schedule {name} is {found.state}: no tick is to come")
    return OK


@subcommand(command, "pause", epilog="\b\nExample:\n  headrace schedule pause nightly --reason 'the database moves'")
@click.argument("name")
@click.option("--reason", default="paused by an operator", show_default=True, help="Why; shown wherever it matters.")
@_queue
def pause(name: str, reason: str, queue: str | None) -> int:
    """Make no jobs until it is resumed."""
    _tell_next(_act(name, queue, lambda row: schedules.pause(row, reason)))
    return OK


@subcommand(command, "resume", epilog="\b\nExample:\n  headrace schedule resume nightly")
@click.argument("name")
@_queue
def resume(name: str, queue: str | None) -> int:
    """Go on with the next tick after now."""
    _tell_next(_act(name, queue, schedules.resume))
    return OK


@subcommand(command, "skip", epilog="\b\nExample:\n  headrace schedule skip nightly -n 2")
@click.argument("name")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many ticks.")
@_queue
def skip(name: str, count: int, queue: str | None) -> int:
    """Leave out the next ticks."""
    _tell_next(_act(name, queue, lambda row: schedules.skip(row, count)))
    return OK


@subcommand(command, "run", epilog="\b\nExample:\n  headrace job wait $(headrace schedule run nightly)")
@click.argument("name")
@_queue
def run(name: str, queue: str | None) -> int:
    """Make a job now, beside the ticks, also of a paused schedule. Prints the job's id."""
    client = settings().client()
    job_id, _ = client.run(schedules.run_now(client.run(schedules.find(client.prefix, name, queue))))
    click.echo(job_id)
    return OK


@subcommand(command, "change", epilog="\b\nExample:\n  headrace schedule change nightly --cron '0 5 * * *'")
@click.argument("name")
@click.option("--cron", metavar="EXPR", help="Five fields: minute hour day-of-month month day-of-week.")
@click.option("--every", metavar="DURATION", help="Such as 30, 10m, 2h; in place of --cron.")
@click.option("--tz", metavar="ZONE", help="Such as Asia/Ho_Chi_Minh.")
@click.option("--jitter", metavar="DURATION", help="Start each job up to that much later.")
@click.option("--catch-up", metavar="skip|one|all|N", help="How many of the ticks that were missed to make.")
@click.option("--overlap", type=click.Choice(list(OVERLAPS)), help="When the last job has not ended.")
@_queue
def change(name: str, queue: str | None, **options: str | None) -> int:
    """Override what code declares, until `reset`. A deploy does not undo it."""
    given: dict[str, Any] = {word: value for word, value in options.items() if value is not None}
    if not given:
        raise click.UsageError("nothing to change: --cron, --every, --tz, --jitter, --catch-up, --overlap")
    for word in ("every", "jitter"):
        if word in given:
            given[word] = duration_s(given[word])
    if given.get("catch_up", "").isdigit():
        given["catch_up"] = int(given["catch_up"])
    fields = check_schedule(given, "headrace schedule change")
    _tell_next(_act(name, queue, lambda row: schedules.change(row, fields, who_is_here())))
    return OK


@subcommand(command, "reset", epilog="\b\nExample:\n  headrace schedule reset nightly")
@click.argument("name")
@_queue
def reset(name: str, queue: str | None) -> int:
    """Drop what was changed at run time: what code declares holds again."""
    _tell_next(_act(name, queue, schedules.reset))
    return OK


@subcommand(command, "rm", epilog="\b\nExample:\n  headrace schedule rm nightly --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_queue
def remove(name: str, yes: bool, queue: str | None) -> int:
    """Remove a schedule that no running code declares; jobs it has made stay."""
    client = settings().client()
    row = client.run(schedules.find(client.prefix, name, queue))
    confirm(f"Remove schedule {name} of queue {row.queue.name} for good?", yes=yes)
    client.run(schedules.remove(row))
    talk(f"removed schedule {name}")
    return OK
