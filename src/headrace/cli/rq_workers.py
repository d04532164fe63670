"""`headrace rq worker`, `worker-pool` and `cron`: RQ's commands that stay until they are stopped."""

from __future__ import annotations

import os
from typing import Any

import click

from headrace.cli.rq_settings import Setup, shared
from headrace.cli.settings import OK, talk
from headrace.contrib.rq.cron import CronScheduler
from headrace.contrib.rq.defaults import (
    DEFAULT_JOB_MONITORING_INTERVAL,
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
    DEFAULT_MAINTENANCE_TASK_INTERVAL,
    DEFAULT_RESULT_TTL,
    DEFAULT_WORKER_TTL,
)
from headrace.contrib.rq.logutils import setup_loghandlers
from headrace.contrib.rq.suspension import is_suspended
from headrace.contrib.rq.utils import import_attribute
from headrace.contrib.rq.worker import DequeueStrategy
from headrace.contrib.rq.worker_pool import WorkerPool

_queues = click.argument("queues", nargs=-1, metavar="[QUEUE]...")
_burst = click.option("-b", "--burst", is_flag=True, help="End when the queues are empty.")
_handlers = click.option("--exception-handler", multiple=True, metavar="PATH", help="Called for each job that raises.")
_verbose = click.option("-v", "--verbose", is_flag=True, help="Log more.")
_quiet = click.option("-q", "--quiet", is_flag=True, help="Log less.")
_log_format = click.option("--log-format", default=DEFAULT_LOGGING_FORMAT, help="Of RQ's log lines.")
_date_format = click.option("--date-format", default=DEFAULT_LOGGING_DATE_FORMAT, help="In them.")


def add_to(group: click.Group) -> None:
    for each in (work, pool, cron):
        group.add_command(each)


@click.command("worker", epilog="\b\nExample:\n  headrace rq worker high default low --name one")
@_queues
@shared
@_burst
@click.option("-n", "--name", help="What the worker is called.")
@click.option("--logging_level", "--logging-level", "logging_level", default=None, help="Default: INFO.")
@_log_format
@_date_format
@click.option("--results-ttl", type=int, default=DEFAULT_RESULT_TTL, help="Of jobs that do not say, in seconds.")
@click.option("--worker-ttl", type=int, default=DEFAULT_WORKER_TTL, help="Taken, and not used: leases do that.")
@click.option("--maintenance-interval", type=int, default=DEFAULT_MAINTENANCE_TASK_INTERVAL, help="Likewise.")
@click.option("--job-monitoring-interval", type=int, default=DEFAULT_JOB_MONITORING_INTERVAL, help="Likewise.")
@click.option("--disable-job-desc-logging", is_flag=True, help="Log a job's id without its arguments.")
@_verbose
@_quiet
@_handlers
@click.option("--pid", metavar="FILE", help="Write the process's id there.")
@click.option("-d", "--disable-default-exception-handler", is_flag=True, help="Refused: a failed job is kept.")
@click.option("--max-jobs", type=click.IntRange(1), help="End after so many.")
@click.option("--max-idle-time", type=click.IntRange(1), help="End when there was none for so many seconds.")
@click.option("-s", "--with-scheduler", is_flag=True, help="Scheduled jobs are run with it and without it.")
@click.option(
    "-ds", "--dequeue-strategy", type=click.Choice([one.value for one in DequeueStrategy]), default="default",
    show_default=True, help="default: strict order; the others give each queue the same share.",
)  # fmt: skip
def work(
    setup: Setup, queues: tuple[str, ...], pid: str | None, exception_handler: tuple[str, ...], **given: Any
) -> int:
    """Run the jobs of these queues, of QUEUES in the settings, or of "default"."""
    level = _level(given.pop("verbose"), given.pop("quiet"), given.pop("logging_level"))
    if pid:
        with open(os.path.expanduser(pid), "w") as file:
            file.write(str(os.getpid()))
    if is_suspended(setup.connection):
        raise click.ClickException('workers are suspended: run "headrace rq resume" first')
    name = given.pop("name") or setup.settings.get("NAME")
    made = {
        "worker_ttl": given.pop("worker_ttl"),
        "default_result_ttl": given.pop("results_ttl"),
        "maintenance_interval": given.pop("maintenance_interval"),
        "job_monitoring_interval": given.pop("job_monitoring_interval"),
        "disable_default_exception_handler": given.pop("disable_default_exception_handler"),
        "log_job_description": not given.pop("disable_job_desc_logging"),
    }
    worker = setup.worker_class(
        [setup.queue(queue) for queue in setup.queue_names(queues)], name=name, connection=setup.connection,
        exception_handlers=_imported(exception_handler), job_class=setup.job_class, queue_class=setup.queue_class,
        serializer=setup.serializer, **made,
    )  # fmt: skip
    worker.work(logging_level=level, **given)
    return OK


@click.command("worker-pool", epilog="\b\nExample:\n  headrace rq worker-pool high default -n 4")
@_queues
@shared
@_burst
@click.option("-l", "--logging-level", default="INFO", show_default=True)
@_handlers
@_verbose
@_quiet
@_log_format
@_date_format
@click.option("-n", "--num-workers", type=click.IntRange(1), default=1, show_default=True, help="How many workers.")
def pool(
    setup: Setup, queues: tuple[str, ...], burst: bool, logging_level: str, exception_handler: tuple[str, ...],
    verbose: bool, quiet: bool, log_format: str, date_format: str, num_workers: int,
) -> int:  # fmt: skip
    """Run several workers, each with a supervisor of its own; `headrace worker --processes` does with one."""
    level = _level(verbose, quiet, logging_level) or "INFO"
    setup_loghandlers(level, date_format, log_format)
    found = WorkerPool(
        setup.queue_names(queues), setup.connection, num_workers, setup.worker_class, setup.serializer, setup.job_class,
        setup.queue_class, _imported(exception_handler),
    )  # fmt: skip
    found.start(burst, level)
    return OK


@click.command("cron", epilog="\b\nExample:\n  headrace rq cron cron_config.py")
@click.argument("config_path")
@shared
@click.option(
    "-l", "--logging-level", default="INFO", show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], case_sensitive=False),
)  # fmt: skip
def cron(setup: Setup, config_path: str, logging_level: str) -> int:
    """Make the jobs of a file of cron jobs, whose calls of `cron.register` say what runs when."""
    scheduler = CronScheduler(setup.connection, logging_level)
    try:
        scheduler.load_config_from_file(config_path)
    except (FileNotFoundError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    scheduler.start()
    talk("stopped")
    return OK


def _level(verbose: bool, quiet: bool, level: str | None) -> str | None:
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet: give one of them")
    return "DEBUG" if verbose else "WARNING" if quiet else level


def _imported(paths: tuple[str, ...]) -> list[Any] | None:
    try:
        return [import_attribute(path) for path in paths] or None
    except (ImportError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="--exception-handler") from error
