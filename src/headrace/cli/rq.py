"""`headrace rq`: RQ's command line over `headrace.contrib.rq`, for service files that call `rq worker`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from headrace.cli import rq_migrate
from headrace.cli.settings import NOT_FOUND, OK, talk
from headrace.contrib.rq.connections import connection_to
from headrace.contrib.rq.exceptions import InvalidJobOperation
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.registry import FailedJobRegistry, StartedJobRegistry
from headrace.contrib.rq.worker import DequeueStrategy, Worker

EPILOG = """\b
Examples:
  headrace rq worker high default low -u redis://localhost:6379/0
  headrace rq worker --burst -P src
  headrace rq info
  headrace rq requeue --queue default --all
  headrace rq migrate --from redis://localhost:6379/0 --dry-run
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """RQ's commands, for programs that move in from it: worker, info, requeue, empty; and migrate, for its jobs."""


rq_migrate.add_to(command)


def _shared(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The options that all of RQ's commands have."""
    url = click.option(
        "-u", "--url", envvar=["RQ_REDIS_URL", "HEADRACE_URL"], show_envvar=True,
        default="redis://localhost:6379/0", show_default=True, help="The server.",
    )  # fmt: skip
    path = click.option("-P", "--path", multiple=True, default=["."], help="Where the jobs' modules are.")
    serializer = click.option("-S", "--serializer", default="pickle", help="pickle, json, or a dotted path.")
    return url(path(serializer(fn)))


def _connect(url: str, path: tuple[str, ...]) -> Any:
    sys.path[:0] = [place for place in path if place not in sys.path]
    return connection_to(url)


@command.command("worker", epilog="\b\nExample:\n  headrace rq worker high default low --name one")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@_shared
@click.option("-b", "--burst", is_flag=True, help="End when the queues are empty.")
@click.option("-n", "--name", help="What the worker is called.")
@click.option("--logging_level", "--logging-level", "logging_level", default="INFO", show_default=True)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option("-q", "--quiet", is_flag=True, help="Log less.")
@click.option("-s", "--with-scheduler", is_flag=True, help="Scheduled jobs are run with it and without it.")
@click.option(
    "-ds", "--dequeue-strategy", type=click.Choice([one.value for one in DequeueStrategy]), default="default",
    show_default=True, help="default: strict order; the others give each queue the same share.",
)  # fmt: skip
def work(
    queues: tuple[str, ...], url: str, path: tuple[str, ...], serializer: str, burst: bool, name: str | None,
    logging_level: str, verbose: bool, quiet: bool, with_scheduler: bool, dequeue_strategy: str,
) -> int:  # fmt: skip
    """Run the jobs of these queues, "default" without any."""
    connection = _connect(url, path)
    level = "DEBUG" if verbose else "WARNING" if quiet else logging_level
    worker = Worker(list(queues) or ["default"], name=name, connection=connection, serializer=serializer)
    worker.work(burst, level, with_scheduler=with_scheduler, dequeue_strategy=dequeue_strategy)
    return OK


@command.command("info", epilog="\b\nExample:\n  headrace rq info high")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@_shared
def info(queues: tuple[str, ...], url: str, path: tuple[str, ...], serializer: str) -> int:
    """Print each queue with its queued, started and failed jobs. It changes nothing."""
    connection = _connect(url, path)
    for queue in [Queue(name, connection) for name in queues] or Queue.all(connection):
        started, failed = StartedJobRegistry(queue=queue), FailedJobRegistry(queue=queue)
        click.echo(f"{queue.name}\t{queue.count} queued\t{started.count} started\t{failed.count} failed")
    return OK


@command.command("requeue", epilog="\b\nExample:\n  headrace rq requeue --queue default --all")
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@_shared
@click.option("--queue", "queue_name", required=True, help="Whose failed jobs.")
@click.option("-a", "--all", "is_all", is_flag=True, help="All that have failed.")
def requeue(
    job_ids: tuple[str, ...], url: str, path: tuple[str, ...], serializer: str, queue_name: str, is_all: bool
) -> int:
    """Run failed jobs again. Prints the ids of those that could not be: they have not failed."""
    failed = FailedJobRegistry(queue_name, _connect(url, path), serializer=serializer)
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
@_shared
@click.option("-a", "--all", "is_all", is_flag=True, help="All queues.")
def empty(queues: tuple[str, ...], url: str, path: tuple[str, ...], serializer: str, is_all: bool) -> int:
    """Delete the jobs that wait in these queues. Prints how many."""
    connection = _connect(url, path)
    if not queues and not is_all:
        raise click.UsageError("name the queues, or pass --all")
    for queue in Queue.all(connection) if is_all else [Queue(name, connection) for name in queues]:
        click.echo(f"{queue.name}\t{queue.empty()}")
    return OK
