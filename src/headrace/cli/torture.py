"""`headrace torture`: every fault that can be made here, on real workers, and what came of the jobs."""

from __future__ import annotations

import random
import signal
from typing import Any

import click

from headrace.cli.output import print_rows
from headrace.cli.settings import FAILED, OK, settings, store_json, talk
from headrace.torture.run import Plan, Report, torture

COLUMNS = ("figure", "value")

EPILOG = """\b
Examples:
  headrace torture --seconds 60
  headrace torture --seconds 600 --seed 11 --server-program /usr/bin/redis-server
  headrace torture --url redis://localhost:6379/9
"""


@store_json
@click.command(epilog=EPILOG)
@click.option(
    "--seconds", type=click.FloatRange(5, 86_400), default=60, show_default=True, help="How long faults are made."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31), help="Replays a schedule of faults. Default: at random, and shown."
)
@click.option("--server-program", metavar="PATH", help="Instead of the embedded Valkey.")
@click.option("--ledger", metavar="URL", default="", help="postgresql://… of an empty database. Default: SQLite.")
@click.option("--keep", is_flag=True, help="Keep the logs, and say where.")
def command(seconds: float, seed: int | None, server_program: str | None, ledger: str, keep: bool) -> int:
    """Torture workers of all four pools, and judge what became of every job.

    Starts a server (or takes --url, which is then neither killed nor paused), producers that retry, and workers on three
    queues; kills children and workers, pauses them beyond their leases, cuts and garbles their links; kills, stops and
    fills the server, and moves its clock.
    Exit code 0 only if every acknowledged job had its effect exactly once, or failed for a reason that is told.
    """
    signal.signal(signal.SIGTERM, _terminate)
    plan = Plan(
        seconds, random.randrange(10_000) if seed is None else seed, settings().url, server_program, ledger, keep
    )
    report = torture(plan, talk)
    print_rows(list(rows_of(report)), COLUMNS)
    for text in (
        *report.verdict.violations[:20],
        *report.verdict.doubled[:20],
        *(f"lost: {job_id}" for job_id in report.verdict.lost[:20]),
    ):
        talk(text, is_error=True)
    if report.folder:
        talk(f"logs: {report.folder}")
    talk("all well" if report.is_good else "NOT WELL")
    return OK if report.is_good else FAILED


def _terminate(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def rows_of(report: Report) -> list[dict[str, Any]]:
    """The report as figures, a row each."""
    found = report.verdict
    figures: list[tuple[str, object]] = [
        ("server", report.server),
        ("seed", report.seed),
        ("seconds", report.seconds),
        ("faults", sum(report.faults.values())),
        *((f"  {name}", count) for name, count in sorted(report.faults.items(), key=lambda pair: -pair[1])),
        ("workers started again", report.restarts),
        ("enqueues that failed and were sent again", report.enqueues_again),
        ("enqueues that a full server refused", report.enqueues_refused),
        ("jobs acknowledged", found.acked),
        ("runs started", found.starts),
        ("runs ended", found.ends),
        ("runs again", found.extra_runs),
        ("runs begun while an older one went on", found.beside),
        ("  of these, beside a healthy worker's", len(found.doubled)),
        ("succeeded", found.succeeded),
        *((f"failed: {reason}"[:100], count) for reason, count in found.failed.most_common(10)),
        ("lost", len(found.lost)),
        ("ran without being acknowledged", len(found.unknown)),
        ("effects, counted naively", found.naive),
        ("effects, counted under the fence", found.fenced),
        ("jobs with an effect", found.effects),
        ("broken invariants", len(found.violations)),
        ("drained within s", "no" if report.drain_s is None else round(report.drain_s, 1)),
    ]
    return [{"figure": name, "value": value} for name, value in figures]
