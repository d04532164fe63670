"""`headrace worker`: read what is asked for into a `WorkerConfig`, and hand it to the supervisor."""

from __future__ import annotations

import os

import click

from headrace.cli.settings import Settings, settings, store_settings
from headrace.cli.values import duration_s, size_bytes
from headrace.engine.keys import check_queue_name
from headrace.errors import AppNotFound
from headrace.worker import supervisor
from headrace.worker.config import POOLS, WorkerConfig, new_worker_id

SLOTS = {"prefork": 1, "fork": 1, "threads": 10, "asyncio": 100}
RENEWALS_A_LEASE = 4

EPILOG = """\b
Examples:
  headrace worker -A app:app                         the app's queues, a process for each core
  headrace worker high default low -A app:app        strict order: high first, always
  headrace worker --weighted high=6 default=3 low=1  a share for each
  headrace worker -A app:app --pool asyncio --slots 200
  headrace worker -A app:app --burst                 run what is there, then end

\b
Signals: TERM or INT stops (jobs get --grace, a second one gives them back at once); TSTP goes quiet, CONT goes on;
USR1 writes every stack; HUP loads the code anew.
"""


@store_settings
@click.command(epilog=EPILOG)
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@click.option("--weighted", is_flag=True, help="Queues are NAME=SHARE: each gets its share of claims.")
@click.option(
    "--pool",
    type=click.Choice(POOLS),
    default="prefork",
    show_default=True,
    envvar="HEADRACE_POOL",
    show_envvar=True,
    help="How jobs run: processes, threads, one event loop, or a fresh process a job.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1000),
    envvar="HEADRACE_PROCESSES",
    show_envvar=True,
    help="Default: the cores; 1 for threads and asyncio.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 10_000),
    envvar="HEADRACE_SLOTS",
    show_envvar=True,
    help="Jobs side by side in a process. Default: 10 for threads, 100 for asyncio.",
)
@click.option(
    "--grace",
    type=duration_s,
    default="25s",
    show_default=True,
    metavar="DURATION",
    help="When stopped: how long running jobs may go on.",
)
@click.option(
    "--kill-after",
    type=duration_s,
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="From a job's timeout to SIGKILL.",
)
@click.option(
    "--lease",
    type=duration_s,
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="How long after its machine's death a job is taken over.",
)
@click.option("--max-jobs", type=click.IntRange(0), default=0, metavar="N", help="Renew a process after N jobs.")
@click.option(
    "--max-memory", type=size_bytes, default="0", metavar="SIZE", help="Renew a process that is larger, e.g. 500M."
)
@click.option("--burst", is_flag=True, help="End when the queues are empty.")
@click.option(
    "--max-idle", type=duration_s, default="0", metavar="DURATION", help="End when nothing has run for so long."
)
@click.option("--reload", is_flag=True, help="Load the code anew when a file changes (development).")
@click.option(
    "--name",
    metavar="TEXT",
    envvar="HEADRACE_NAME",
    show_envvar=True,
    help="What the worker is called. Default: the host's name.",
)
@click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    envvar="HEADRACE_HEALTH_PORT",
    show_envvar=True,
    help="Answer /livez, /readyz and /metrics there.",
)
@click.option(
    "--health-host",
    default="127.0.0.1",
    show_default=True,
    envvar="HEADRACE_HEALTH_HOST",
    show_envvar=True,
    help="Where to listen; 0.0.0.0 in a container. Whoever reaches it may look.",
)
@click.option("--allow", multiple=True, metavar="MODULE", help="Also run the plain functions of this module.")
@click.option(
    "--start",
    type=click.Choice(["fork", "spawn"]),
    default="fork",
    show_default=True,
    help="spawn: each process imports the app itself; for apps that start threads on import.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default=lambda: "debug" if os.environ.get("DEBUG_INVOCATION") == "1" else "info",
    show_default="info; debug when systemd asks for it",
    envvar="HEADRACE_LOG_LEVEL",
    show_envvar=True,
    help="What is logged. debug: with tracebacks, which may tell what jobs were given.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    envvar="HEADRACE_LOG_FORMAT",
    show_envvar=True,
    help="How.",
)
def command(
    queues: tuple[str, ...],
    weighted: bool,
    pool: str,
    processes: int | None,
    slots: int | None,
    grace: float,
    kill_after: float,
    lease: float,
    max_jobs: int,
    max_memory: int,
    burst: bool,
    max_idle: float,
    reload: bool,
    name: str | None,
    health_port: int | None,
    health_host: str,
    allow: tuple[str, ...],
    start: str,
    log_level: str,
    log_format: str,
) -> int:
    """Run jobs. Queues are taken in strict order; without names, the app's queues."""
    if slots is not None and pool in ("prefork", "fork") and slots != 1:
        raise click.UsageError(
            f"--slots is for the pools threads and asyncio; {pool} runs one job a process: --processes"
        )
    if lease < 1:
        raise click.UsageError("--lease: at least 1 s, or jobs of healthy workers are taken over")
    shared = settings()
    weights = _parse_weights(queues) if weighted else None
    config = WorkerConfig(
        app_path=required_app(shared),
        worker_id=new_worker_id(name),
        pool=pool,
        children=processes or default_processes(pool),
        slots=slots or SLOTS[pool],
        queues=list(weights or (check_queue_name(queue) for queue in queues)),
        weights=weights,
        allow=list(allow),
        url=shared.explicit_url,
        prefix=shared.prefix,
        lease_ms=int(lease * 1000),
        renew_ms=int(lease * 1000 / RENEWALS_A_LEASE),
        kill_after_ms=int(kill_after * 1000),
        grace_ms=int(grace * 1000),
        max_jobs=max_jobs,
        max_memory_bytes=max_memory,
        burst=burst,
        max_idle_ms=int(max_idle * 1000),
        name=name or "",
        start=start,
        reload=reload,
        log_level="warning" if shared.quiet and log_level == "info" else log_level,
        log_format=log_format,
        health_host=health_host,
        health_port=health_port,
    )
    return supervisor.run(config)


def required_app(shared: Settings) -> str:
    if shared.app_path is None:
        raise AppNotFound("which app? Pass -A module:app or -A app.py, or set HEADRACE_APP")
    return shared.app_path


def default_processes(pool: str) -> int:
    return 1 if pool in ("threads", "asyncio") else len(os.sched_getaffinity(0))


def _parse_weights(words: tuple[str, ...]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for word in words:
        name, _, share = word.partition("=")
        if not share.isdigit() or int(share) < 1:
            raise click.UsageError(f"--weighted: {word!r} is not NAME=SHARE, e.g. high=6")
        weights[check_queue_name(name)] = int(share)
    if not weights:
        raise click.UsageError("--weighted: name the queues and their shares, e.g. high=6 default=3 low=1")
    return weights
