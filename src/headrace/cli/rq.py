"""`headrace rq`: RQ's command line over `headrace.contrib.rq`, for service files that call `rq worker`."""

from __future__ import annotations

import time
from datetime import datetime
from shutil import get_terminal_size
from typing import Any

import click

from headrace.cli import rq_enqueue, rq_migrate, rq_workers
from headrace.cli.rq_settings import Setup, shared
from headrace.cli.settings import NOT_FOUND, OK, talk
from headrace.contrib.rq.exceptions import InvalidJobOperation
from headrace.contrib.rq.registry import FailedJobRegistry
from headrace.contrib.rq.suspension import resume as resume_workers
from headrace.contrib.rq.suspension import suspend as suspend_workers

BAR_CHARS = 20
_COLORS = {"busy": "red", "idle": "green", "suspended": "yellow"}

EPILOG = """\b
Examples:
  headrace rq worker high default low -u redis://localhost:6379/0
  headrace rq worker --burst -P src -c settings
  headrace rq enqueue app.send_mail an@example.com n:=3
  headrace rq info --interval 1
  headrace rq requeue --queue default --all
  headrace rq migrate --from redis://localhost:6379/0 --dry-run
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """RQ's commands, for programs that move in from it; and migrate, for its jobs."""


rq_migrate.add_to(command)
rq_workers.add_to(command)
rq_enqueue.add_to(command)


@command.command("info", epilog="\b\nExamples:\n  headrace rq info high\n  headrace rq info --only-workers --by-queue")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@shared
@click.option("-i", "--interval", type=click.FloatRange(0.1), help="Look again every so many seconds.")
@click.option("-r", "--raw", is_flag=True, help="No bars, no colours, no sums.")
@click.option("-Q", "--only-queues", is_flag=True, help="Without the workers.")
@click.option("-W", "--only-workers", is_flag=True, help="Without the queues.")
@click.option("-R", "--by-queue", is_flag=True, help="The workers of each queue.")
def info(
    setup: Setup, queues: tuple[str, ...], interval: float | None, raw: bool, only_queues: bool, only_workers: bool,
    by_queue: bool,
) -> int:  # fmt: skip
    """Print queues with how many jobs wait, run, have finished and failed; and workers. It changes nothing."""
    while True:
        if interval:
            click.clear()
        found = setup.queues(queues)
        if not only_workers:
            _print_queues(found, raw)
        if not only_workers and not only_queues and not raw:
            click.echo()
        if not only_queues:
            _print_workers(setup, found, bool(queues), raw, by_queue)
        if not raw and not only_queues and not only_workers:
            click.echo(f"\nUpdated: {datetime.now()}")
        if not interval:
            return OK
        time.sleep(interval)


def _print_queues(queues: list[Any], raw: bool) -> None:
    counts = {queue: queue.counts() for queue in queues}
    most = max([20, *(found.queued for found in counts.values())])
    room = max(1, min(BAR_CHARS, get_terminal_size().columns - 20))
    for queue, found in counts.items():
        finished = queue.finished_job_registry.count
        rest = f"{found.queued}, {found.running} executing, {finished} finished, {found.dead} failed"
        bar = click.style("|" + "█" * (room * found.queued // most), fg="green")
        click.echo(f"queue {queue.name} {rest}" if raw else f"{queue.name:<12} {bar} {rest}")
    if not raw:
        click.echo(f"{len(queues)} queues, {sum(found.queued for found in counts.values())} jobs total")


def _print_workers(setup: Setup, queues: list[Any], is_named: bool, raw: bool, by_queue: bool) -> None:
    every = setup.worker_class.all(setup.connection)
    names = {queue.name for queue in queues}
    workers = [one for one in every if not is_named or names & set(one.queue_names())]
    if by_queue:
        width = max((len(queue.name) for queue in queues), default=0) + 1
        for queue in queues:
            serving = [f"{one.name} ({_state(one, raw)})" for one in workers if queue.name in one.queue_names()]
            click.echo(f"{queue.name + ':':<{width}} {', '.join(sorted(serving)) or '–'}")
    else:
        for one in workers:
            who = f"{one.name} ({one.hostname} {one.pid})"
            queue_names = ", ".join(one.queue_names())
            jobs = f"jobs: {one.successful_job_count} finished, {one.failed_job_count} failed"
            head = f"worker {who}" if raw else f"{who}:"
            click.echo(f"{head} {_state(one, raw)} {queue_names}. {jobs}")
    if not raw:
        click.echo(f"{len(workers)} workers, {len(queues)} queues")


def _state(worker: Any, raw: bool) -> str:
    state = str(worker.get_state())
    return state if raw else click.style(state, fg=_COLORS.get(state))


@command.command("requeue", epilog="\b\nExample:\n  headrace rq requeue --queue default --all")
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@shared
@click.option("--queue", "queue_name", required=True, help="Whose failed jobs.")
@click.option("-a", "--all", "is_all", is_flag=True, help="All that have failed.")
def requeue(setup: Setup, job_ids: tuple[str, ...], queue_name: str, is_all: bool) -> int:
    """Run failed jobs again. Prints the ids of those that could not be: they have not failed."""
    failed = FailedJobRegistry(queue_name, setup.connection, job_class=setup.job_class, serializer=setup.serializer)
    wanted = failed.get_job_ids() if is_all else list(job_ids)
    refused = []
    for job_id in wanted:
        try:
            failed.requeue(job_id)
        except InvalidJobOperation:
            refused.append(job_id)
    talk(f"requeued {len(wanted) - len(refused)} of {len(wanted)} jobs of queue {queue_name}")
    for job_id in refused:
        click.echo(job_id)
    return NOT_FOUND if refused else OK


@command.command("empty", epilog="\b\nExample:\n  headrace rq empty low")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@shared
@click.option("-a", "--all", "is_all", is_flag=True, help="All queues.")
def empty(setup: Setup, queues: tuple[str, ...], is_all: bool) -> int:
    """Delete the jobs that wait in these queues. Prints how many."""
    if not queues and not is_all:
        raise click.UsageError("name the queues, or pass --all")
    for queue in setup.queues(() if is_all else queues):
        click.echo(f"{queue.empty()} jobs removed from {queue.name} queue")
    return OK


@command.command("suspend", epilog="\b\nExample:\n  headrace rq suspend --duration 600")
@shared
@click.option("--duration", type=click.IntRange(1), help="For so many seconds. Default: until somebody resumes.")
def suspend(setup: Setup, duration: int | None) -> int:
    """Let no worker begin another job: every queue is paused. What runs goes on."""
    suspend_workers(setup.connection, duration)
    talk(f"suspended{f' for {duration} s' if duration else ', until headrace rq resume'}")
    return OK


@command.command("resume", epilog="\b\nExample:\n  headrace rq resume")
@shared
def resume(setup: Setup) -> int:
    """Let workers go on that were suspended. Queues that were paused otherwise stay so."""
    talk("workers go on" if resume_workers(setup.connection) else "no worker was suspended")
    return OK
