"""`headrace workers`: list running workers; make them quiet, or stop them, from afar."""

from __future__ import annotations

from typing import Any

import click

from headrace.cli.output import instant, print_rows
from headrace.cli.settings import OK, not_found, settings, subcommand, talk
from headrace.engine import admin
from headrace.engine.admin import Worker
from headrace.engine.clients import SyncClient

COLUMNS = ("id", "host", "pid", "pool", "queues", "running", "succeeded", "failed", "seen_at")


@click.group(epilog="\b\nExamples:\n  headrace workers ls\n  headrace workers stop --all")
def command() -> None:
    """List running workers; make them quiet, or stop them."""


def summary(worker: Worker) -> dict[str, Any]:
    """A worker's row: what it tells of itself, with its id and when it was seen."""
    return {**worker.info, "id": worker.id, "seen_at": instant(worker.beat_at_ms)}


@subcommand(command, "ls", epilog="\b\nExample:\n  headrace workers ls --json")
def list_workers() -> int:
    """List the workers that have shown themselves in the last 30 s."""
    client = settings().client()
    rows = [summary(worker) for worker in client.run(admin.list_workers(client.prefix))]
    print_rows(rows, COLUMNS, empty="no worker is running")
    return OK


def _send(worker_ids: tuple[str, ...], is_all: bool, name: str, told: str) -> int:
    client: SyncClient = settings().client()
    if bool(worker_ids) == is_all:
        raise click.UsageError("name workers (headrace workers ls shows them), or --all")
    ids = worker_ids or tuple(worker.id for worker in client.run(admin.list_workers(client.prefix)))
    missing = [worker_id for worker_id in ids if not client.run(admin.send_command(client.prefix, worker_id, name))]
    for worker_id in ids:
        if worker_id not in missing:
            click.echo(worker_id)
    if missing:
        not_found(f"no worker {', '.join(missing)}")
    talk(f"{told} with the next beat, within 5 s" if ids else "no worker is running")
    return OK


_ids = click.argument("worker_ids", nargs=-1, metavar="[WORKER]...")
_all = click.option("--all", "is_all", is_flag=True, help="All workers.")


@subcommand(command, "quiet", epilog="\b\nExample:\n  headrace workers quiet --all")
@_ids
@_all
def quiet(worker_ids: tuple[str, ...], is_all: bool) -> int:
    """Let workers finish what they run and claim nothing more. Prints their ids."""
    return _send(worker_ids, is_all, "quiet", "they go quiet")


@subcommand(command, "resume", epilog="\b\nExample:\n  headrace workers resume --all")
@_ids
@_all
def resume(worker_ids: tuple[str, ...], is_all: bool) -> int:
    """Let quiet workers claim jobs again. Prints their ids."""
    return _send(worker_ids, is_all, "resume", "they go on")


@subcommand(command, "stop", epilog="\b\nExample:\n  headrace workers stop web1-4711")
@_ids
@_all
def stop(worker_ids: tuple[str, ...], is_all: bool) -> int:
    """Stop workers as SIGTERM does: running jobs may finish within the grace. Prints their ids."""
    return _send(worker_ids, is_all, "stop", "they stop")


@subcommand(command, "kill", epilog="\b\nExample:\n  headrace workers kill web1-4711")
@_ids
@_all
def kill(worker_ids: tuple[str, ...], is_all: bool) -> int:
    """Kill what workers run: those jobs fail, or are retried as they say; the workers go on. Prints their ids."""
    return _send(worker_ids, is_all, "kill", "they kill what they run")


@subcommand(command, "stacks", epilog="\b\nExample:\n  headrace workers stacks web1-4711")
@_ids
@_all
def stacks(worker_ids: tuple[str, ...], is_all: bool) -> int:
    """Let workers write the stack of every process to their logs. Prints their ids."""
    return _send(worker_ids, is_all, "stacks", "they write their stacks")
