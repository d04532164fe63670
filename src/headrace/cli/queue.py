"""`headrace queue`: list, show, pause, resume, bound and purge."""

from __future__ import annotations

from typing import Any

import click

from headrace import limits
from headrace.cli.output import instant, print_fields, print_rows
from headrace.cli.settings import OK, confirm, not_found, settings, subcommand, talk
from headrace.cli.values import duration_s
from headrace.core.record import State
from headrace.engine import admin, index
from headrace.engine.admin import QueueCounts
from headrace.engine.clients import SyncClient
from headrace.engine.keys import QueueKeys, queue_keys

COLUMNS = (
    "queue",
    "queued",
    "running",
    "delayed",
    "waiting",
    "failed",
    "done",
    "paused",
)
PURGEABLE = [state.value for state in State if state not in (State.RUNNING, State.WAITING)]


def summary(counts: QueueCounts) -> dict[str, Any]:
    """A queue's row: stable keys."""
    return {
        "queue": counts.name,
        "queued": counts.queued,
        "running": counts.running,
        "delayed": counts.delayed,
        "waiting": counts.parked + counts.waiting,
        "suspects": counts.suspects,
        "failed": counts.dead,
        "done": counts.done,
        "enqueued": counts.totals.get("enqueued", 0),
        "paused": counts.paused,
        "paused_at": instant(counts.paused_at_ms),
        "paused_until": instant(counts.paused_until_ms),
        "max_running": counts.max_running,
        "max_length": counts.max_length,
        "overflow": counts.overflow,
        "ageing": None if counts.ageing_ms is None else counts.ageing_ms / 1000,
        "sessions": counts.sessions,
        "overdue_sessions": counts.overdue_sessions,
        "totals": counts.totals,
    }


def known_queue(client: SyncClient, name: str) -> QueueKeys:
    """The keys of a queue that exists."""
    keys = queue_keys(name, client.prefix)
    names = client.run(admin.queue_names(client.prefix))
    if name not in names and not client.run(admin.count_jobs(keys)).totals:
        not_found(f"no queue {name!r}; queues: {', '.join(names) or 'none yet'}")
    return keys


@click.group(epilog="\b\nExamples:\n  headrace queue ls\n  headrace queue pause mail --reason 'provider is down'")
def command() -> None:
    """List, show, pause, resume, bound, index and purge queues."""


@subcommand(command, "ls", epilog="\b\nExample:\n  headrace queue ls --json | jq .queue")
def list_queues() -> int:
    """List all queues, with how many jobs stand where.

    In a pipe: queue, queued, running, delayed, waiting, failed, done, reason of a pause.
    """
    client = settings().client()
    names = client.run(admin.queue_names(client.prefix))
    rows = [summary(client.run(admin.count_jobs(queue_keys(name, client.prefix)))) for name in names]
    print_rows(rows, COLUMNS, empty="no queue yet")
    return OK


@subcommand(command, "show", epilog="\b\nExample:\n  headrace queue show default")
@click.argument("name")
def show(name: str) -> int:
    """Show one queue."""
    client = settings().client()
    print_fields(summary(client.run(admin.count_jobs(known_queue(client, name)))))
    return OK


@subcommand(
    command,
    "pause",
    epilog="\b\nExamples:\n  headrace queue pause mail --reason 'provider is down'\n  headrace queue pause mail --for 10m",
)
@click.argument("name")
@click.option(
    "--reason",
    default="paused by an operator",
    show_default=True,
    help="Why; shown wherever it matters.",
)
@click.option("--for", "for_s", type=duration_s, default="0", metavar="DURATION", help="Go on by itself after so long.")
def pause(name: str, reason: str, for_s: float) -> int:
    """Take no more jobs from a queue. Running jobs go on; jobs can still be enqueued."""
    client = settings().client()
    is_new = client.run(admin.pause(known_queue(client, name), reason, int(for_s * 1000)))
    talk(f"queue {name} {'is paused' if is_new else 'was paused already; the reason is noted'}")
    return OK


@subcommand(command, "resume", epilog="\b\nExample:\n  headrace queue resume mail")
@click.argument("name")
def resume(name: str) -> int:
    """Take jobs from a paused queue again."""
    client = settings().client()
    was_paused = client.run(admin.resume(known_queue(client, name)))
    talk(f"queue {name} {'goes on' if was_paused else 'was not paused'}")
    return OK


@subcommand(
    command, "index", epilog="\b\nExamples:\n  headrace queue index orders\n  headrace queue index orders --off"
)
@click.argument("name")
@click.option("--off", is_flag=True, help="Keep none any more, and delete what there is.")
def keep_index(name: str, off: bool) -> int:
    """Keep an index of a queue's jobs, so that they are found at once by task, tag, error and declared arguments.

    Each enqueue and each end then costs the server more. Workers go on meanwhile.
    """
    client = settings().client()
    client.run((index.end if off else index.start)(known_queue(client, name)))
    talk(f"queue {name} keeps {'no index any more' if off else 'an index of its jobs'}")
    return OK


@subcommand(command, "bound", epilog="\b\nExample:\n  headrace queue bound mail --max-running 5 --max-length 10000")
@click.argument("name")
@click.option(
    "--max-running", type=click.IntRange(1), metavar="N", help="Jobs that may run at once; left out: any number."
)
@click.option(
    "--max-length", type=click.IntRange(1), metavar="N", help="Jobs that have not ended; left out: any number."
)
@click.option(
    "--overflow",
    type=click.Choice(("refuse", "drop_oldest")),
    default="refuse",
    show_default=True,
    help="What a full queue does: refuse new jobs, or end those that have waited longest as cancelled.",
)
@click.option(
    "--ageing",
    type=float,
    metavar="SECONDS",
    help="A job rises by one priority for each so long that it waits; left out: never.",
)
def bound(name: str, max_running: int | None, max_length: int | None, overflow: str, ageing: float | None) -> int:
    """Bound a queue, or let its jobs age. What is left out is unbounded from now on."""
    client = settings().client()
    call = limits.bound(known_queue(client, name), max_running, max_length, overflow, ageing)
    client.run(call)
    told = [f"at most {max_running} running"] if max_running else []
    told += [f"at most {max_length} jobs, then {overflow}"] if max_length else []
    told += [f"one priority more each {ageing:g} s"] if ageing else []
    talk(f"queue {name}: {', '.join(told) or 'no bounds'}")
    return OK


@subcommand(
    command,
    "purge",
    epilog="\b\nExample:\n  headrace queue purge mail --state scheduled --dry-run",
)
@click.argument("name")
@click.option(
    "--state",
    type=click.Choice(PURGEABLE),
    default="queued",
    show_default=True,
    help="Which jobs.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
def purge(name: str, state: str, yes: bool, dry_run: bool) -> int:
    """Delete all jobs of a queue that are in one state. Running jobs cannot be purged.

    Prints how many were deleted.
    """
    client = settings().client()
    keys = known_queue(client, name)
    wanted = State(state)
    if wanted is State.QUEUED:
        count = client.run(admin.count_jobs(keys)).queued
    else:
        count = len(client.run(admin.find_jobs(keys, wanted)))
    if dry_run:
        talk(f"{count} {state} jobs of queue {name} would be deleted")
        click.echo(count)
        return OK
    if count:
        confirm(f"Delete {count} {state} jobs of queue {name} for good?", yes=yes)
    deleted = client.run(admin.purge(keys, wanted))
    talk(f"deleted {deleted} {state} jobs of queue {name}")
    click.echo(deleted)
    return OK
