"""`headrace dead`: failed jobs by what went wrong; retry or purge a whole group."""

from __future__ import annotations

import click

from headrace.cli.job import queues_of, read_filter, search
from headrace.cli.output import instant, print_rows
from headrace.cli.settings import OK, confirm, settings, subcommand, talk
from headrace.core.failures import fingerprint
from headrace.core.filters import HELP
from headrace.core.record import State
from headrace.engine import admin, ops
from headrace.engine.clients import SyncClient
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.errors import JobNotFound

COLUMNS = ("error_id", "count", "queue", "task", "error", "last_at")

_queue = click.option("--queue", "-Q", metavar="NAME", help="Look in this queue only.")
_filter = click.option("--filter", "filter_text", metavar="FILTER", help=HELP)
_all = click.option("--all", "is_all", is_flag=True, help="All failed jobs.")
_error = click.argument("error_ids", nargs=-1, metavar="[ERROR_ID]...")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say how many.")


@click.group(epilog="\b\nExamples:\n  headrace dead ls\n  headrace dead retry 3f2a90c1\n  headrace dead purge --all")
def command() -> None:
    """Failed jobs by what went wrong: list, retry, purge."""


@subcommand(command, "ls", epilog="\b\nExample:\n  headrace dead ls --queue mail")
@_queue
def list_dead(queue: str | None) -> int:
    """List what failed, grouped by task and error.

    In a pipe: error id, count, queue, task, error, last time.
    """
    client = settings().client()
    rows = [
        {
            "error_id": group.fingerprint,
            "count": group.count,
            "queue": group.queue,
            "task": group.task,
            "error": f"{group.type}: {group.message}".splitlines()[0] if group.type else group.message,
            "last_at": instant(group.last_at_ms),
            "example": group.example,
        }
        for keys in queues_of(client, queue)
        for group in client.run(admin.group_failures(keys))
    ]
    print_rows(rows, COLUMNS, empty="no failed job")
    return OK


def _targets(
    client: SyncClient,
    error_ids: tuple[str, ...],
    queue: str | None,
    filter_text: str | None,
    is_all: bool,
) -> dict[QueueKeys, list[str]]:
    if sum((bool(error_ids), bool(filter_text), is_all)) != 1:
        raise click.UsageError("say which: error ids (headrace dead ls shows them), --filter, or --all")
    wanted = read_filter(filter_text, queue=queue, states={State.FAILED})
    found: dict[QueueKeys, list[str]] = {}
    for row in search(client, queues_of(client, wanted.queue), wanted):
        if row.state is State.FAILED and (not error_ids or fingerprint(row.record) in error_ids):
            found.setdefault(queue_keys(row.queue, client.prefix), []).append(row.id)
    return found


@subcommand(command, "retry", epilog="\b\nExample:\n  headrace dead retry 3f2a90c1 --dry-run")
@_error
@_queue
@_filter
@_all
@_yes
@_dry_run
def retry(
    error_ids: tuple[str, ...],
    queue: str | None,
    filter_text: str | None,
    is_all: bool,
    yes: bool,
    dry_run: bool,
) -> int:
    """Put failed jobs back in their queues, attempts counted from zero. Prints how many."""
    client = settings().client()
    targets = _targets(client, error_ids, queue, filter_text, is_all)
    count = sum(map(len, targets.values()))
    if dry_run or not count:
        talk(f"{count} failed jobs would be retried")
        click.echo(count)
        return OK
    confirm(f"Retry {count} failed jobs?", yes=yes)
    retried = 0
    for keys, ids in targets.items():
        for job_id in ids:
            try:
                retried += client.run(ops.retry(keys, job_id)) == "queued"
            except JobNotFound:
                talk(f"job {job_id} is no longer kept")
    talk(f"{retried} jobs are queued again")
    click.echo(retried)
    return OK


@subcommand(
    command,
    "purge",
    epilog="\b\nExample:\n  headrace dead purge --filter 'task:mail.send' --yes",
)
@_error
@_queue
@_filter
@_all
@_yes
@_dry_run
def purge(
    error_ids: tuple[str, ...],
    queue: str | None,
    filter_text: str | None,
    is_all: bool,
    yes: bool,
    dry_run: bool,
) -> int:
    """Delete failed jobs for good. Prints how many."""
    client = settings().client()
    targets = _targets(client, error_ids, queue, filter_text, is_all)
    count = sum(map(len, targets.values()))
    if dry_run or not count:
        talk(f"{count} failed jobs would be deleted")
        click.echo(count)
        return OK
    confirm(f"Delete {count} failed jobs for good?", yes=yes)
    deleted = sum(client.run(admin.purge_jobs(keys, "dead", ids)) for keys, ids in targets.items())
    talk(f"deleted {deleted} failed jobs")
    click.echo(deleted)
    return OK
