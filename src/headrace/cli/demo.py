"""`headrace demo`: run the demo, show it live, and print the table of counts and what was seen."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from headrace.cli.output import print_rows
from headrace.cli.settings import FAILED, OK, settings, store_json, talk
from headrace.demo.run import Tally, Watch, run_demo

COLUMNS = ("page", "language", "jobs", "words", "expected", "right")


@store_json
@click.command(
    epilog="\b\nExamples:\n  headrace demo\n  headrace demo --jobs 10000\n  HEADRACE_URL=redis://… headrace demo"
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 30_000),
    default=240,
    show_default=True,
    help="How many jobs.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 200),
    default=10,
    show_default=True,
    help="Processes of the worker.",
)
def command(jobs: int, processes: int) -> int:
    """Run the tutorial's system for real, and check it.

    Starts an embedded Valkey (or takes --url), a site with pages, a web app that enqueues a job for each page, and a
    worker with ten processes on the queues high, default and low. One process is killed with SIGKILL on the way. Exit
    code 0 only if no job was lost and every count is right. Leaves no process, port or file behind.
    """
    signal.signal(signal.SIGTERM, _terminate)
    tally = run_demo(jobs=jobs, processes=processes, url=settings().url, say=talk, watch=_watch)
    if settings().is_json or not settings().quiet:
        print_rows(list(_table(tally)), COLUMNS)
    _report(tally)
    return OK if tally.is_good else FAILED


def _terminate(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _table(tally: Tally) -> Iterator[dict[str, Any]]:
    for page in tally.pages:
        ended = [tally.ended.get(job.id) for job in tally.sent if job.path == page.path]
        words = sorted({str(end.words) if end and end.words is not None else "-" for end in ended})
        if ended:
            yield {
                "page": page.path,
                "language": page.language,
                "title": page.title,
                "jobs": len(ended),
                "words": " ".join(words),
                "expected": page.words,
                "right": words == [str(page.words)],
            }


def _report(tally: Tally) -> None:
    talk("")
    if tally.killed:
        talk(tally.killed)
    talk(
        f"{len(tally.sent)} enqueued, {tally.ran} ran, {tally.ran_again} ran again, {tally.lost} lost, "
        f"{tally.failed} failed; {tally.right} of {len(tally.sent)} counts are right"
    )
    each_ms = tally.requests_s * 1000 / max(tally.requests, 1)
    talk(
        f"the {tally.requests} requests took {tally.requests_s * 1000:.0f} ms in all ({each_ms:.1f} ms each); "
        f"the jobs took {tally.jobs_s:.1f} s in all, {tally.wall_s:.1f} s by the clock"
    )
    errors = sorted({end.error for end in tally.ended.values() if end.error})
    for error in errors[:3]:
        talk(f"a job failed: {error}")
    talk("whole systems to open in a browser: `make systems` in headrace's repository (systems/README.md)")


@contextmanager
def _watch() -> Iterator[Watch]:
    """Live progress on stderr: bars with rich on a terminal, a line a second elsewhere."""
    if settings().quiet:
        yield lambda _: None
    elif sys.stderr.isatty() and not os.environ.get("NO_COLOR") and (bars := _rich_bars()) is not None:
        with bars[0]:
            yield bars[1]
    else:
        yield _lines()


def _rich_bars() -> tuple[Any, Watch] | None:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    except ImportError:
        return None
    columns = (TextColumn("{task.description:>8}"), BarColumn(40), MofNCompleteColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    rows: dict[str, Any] = {}

    def show(queues: dict[str, tuple[int, int]]) -> None:
        for name, (ended, total) in queues.items():
            if name not in rows:
                rows[name] = progress.add_task(name, total=total)
            progress.update(rows[name], completed=ended, total=total)

    return progress, show


def _lines() -> Callable[[dict[str, tuple[int, int]]], None]:
    last = -1.0

    def show(queues: dict[str, tuple[int, int]]) -> None:
        nonlocal last
        is_done = all(ended == total for ended, total in queues.values())
        if is_done or time.monotonic() - last >= 1:
            last = time.monotonic()
            talk("  ".join(f"{name} {ended}/{total}" for name, (ended, total) in queues.items()))

    return show
