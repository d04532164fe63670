"""`headrace top`: queues, workers and jobs, live; keys act on the chosen row. Lines in a pipe."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from headrace.cli.output import instant, print_rows
from headrace.cli.settings import OK, WRONG_USE, Ended, settings, store_json
from headrace.cli.top_view import KEYS, TABS, Act, Look, View
from headrace.cli.values import duration_s
from headrace.core.record import State
from headrace.engine import admin, ops
from headrace.engine.admin import QueueCounts, Row
from headrace.engine.clients import SyncClient
from headrace.engine.connect import masked_url
from headrace.engine.keys import queue_keys
from headrace.errors import HeadraceError, ServerError
from headrace.observe.metrics import read_oldest_s

COLUMNS = (
    "at",
    "queue",
    "queued",
    "running",
    "later",
    "waiting",
    "failed",
    "in_s",
    "out_s",
    "latency_s",
    "workers",
    "paused",
)
JOBS_A_QUEUE = 20
JOB_STATES = ((State.RUNNING,), (State.QUEUED, State.RETRYING, State.SCHEDULED), (State.FAILED,))
ENDS = ("succeeded", "failed", "cancelled", "expired")
_ARROWS = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down"}


@store_json
@click.command(
    epilog="\b\nExamples:\n  headrace top\n  headrace top --interval 1s | grep mail\n  headrace top --json --looks 1"
)
@click.option(
    "--interval", type=duration_s, default="2s", show_default=True, metavar="DURATION", help="Between two looks."
)
@click.option("--looks", type=click.IntRange(1), metavar="N", help="End after so many.")
def command(interval: float, looks: int | None) -> int:
    """Show queues, workers and jobs as they change.

    On a terminal: Tab or 1 2 3 for queues, workers, jobs; arrows choose a row; p pauses or resumes a queue, or quiets a
    worker; r retries and c cancels a job; / filters; q ends. In a pipe: a line a queue at each look.
    """
    if interval < 0.1:
        raise click.UsageError("--interval: at least 0.1 s, or the server is kept busy by looking")
    reader = Reader(settings().client())
    if settings().is_json or not (sys.stdout.isatty() and sys.stdin.isatty()):
        _print_lines(reader, interval, looks)
    else:
        _show(reader, interval, looks)
    return OK


class Reader:
    """Looks at the server; what came and went between two looks is told a second."""

    def __init__(self, client: SyncClient) -> None:
        self.client = client
        self._before: dict[str, tuple[float, int, int]] = {}

    def look(self, *, with_jobs: bool = False) -> Look:
        """Three calls a queue while jobs are shown, else two; whatever the number of jobs."""
        client = self.client
        names = client.run(admin.queue_names(client.prefix))
        queues = [client.run(admin.count_jobs(queue_keys(name, client.prefix))) for name in names]
        oldest_s = {each.name: client.run(read_oldest_s(client.prefix, each)) for each in queues if each.queued}
        rates = {each.name: self._rate(each) for each in queues}
        jobs: list[Row] = []
        for states in JOB_STATES if with_jobs else ():
            for name in names:
                jobs += client.run(admin.list_jobs(queue_keys(name, client.prefix), states, limit=JOBS_A_QUEUE)).rows
        at_ms = max((each.server_ms for each in queues), default=int(time.time() * 1000))
        return Look(queues, client.run(admin.list_workers(client.prefix)), jobs, oldest_s, rates, at_ms)

    def _rate(self, counts: QueueCounts) -> tuple[float, float]:
        came, ended = counts.totals.get("enqueued", 0), sum(counts.totals.get(name, 0) for name in ENDS)
        now = time.monotonic()
        then, came_then, ended_then = self._before.get(counts.name, (now, came, ended))
        self._before[counts.name] = (now, came, ended)
        passed_s = now - then
        return ((came - came_then) / passed_s, (ended - ended_then) / passed_s) if passed_s > 0 else (0.0, 0.0)

    def act(self, act: Act) -> str:
        """Do it, and say what came of it."""
        client, keys = self.client, queue_keys(act.queue or "default", self.client.prefix)
        if act.what == "pause":
            client.run(admin.pause(keys, "paused in headrace top"))
            return f"queue {act.queue} is paused"
        if act.what == "resume":
            client.run(admin.resume(keys))
            return f"queue {act.queue} goes on"
        if act.what in ("quiet", "work"):
            command = "quiet" if act.what == "quiet" else "resume"
            is_told = client.run(admin.send_command(client.prefix, act.id, command))
            return (
                f"worker {act.id} hears it with its next beat, within 5 s" if is_told else f"worker {act.id} has gone"
            )
        answer = client.run(ops.retry(keys, act.id) if act.what == "retry" else ops.cancel(keys, act.id))
        told = {
            "queued": "is queued again",
            "cancelled": "is cancelled",
            "asked": "runs; its worker was told to stop it",
        }
        return f"job {act.id} {told.get(answer, 'has changed meanwhile: nothing was done')}"


def _print_lines(reader: Reader, interval_s: float, looks: int | None) -> None:
    for _ in _turns(looks):
        look = reader.look()
        rows = [_line_of(counts, look) for counts in look.queues]
        print_rows(rows, COLUMNS, empty="no queue yet")
        sys.stdout.flush()
        if looks != 1:
            select.select([], [], [], interval_s)


def _turns(looks: int | None) -> Iterator[int]:
    yield from range(looks) if looks is not None else iter(int, 1)


def _line_of(counts: QueueCounts, look: Look) -> dict[str, Any]:
    came, ended = look.rates[counts.name]
    return {
        "at": instant(look.at_ms), "queue": counts.name, "queued": counts.queued, "running": counts.running,
        "later": counts.delayed, "waiting": counts.parked + counts.waiting, "failed": counts.dead,
        "in_s": round(came, 2), "out_s": round(ended, 2), "latency_s": round(look.oldest_s.get(counts.name, 0.0), 3),
        "workers": sum(counts.name in worker.info.get("queues", ()) for worker in look.workers), "paused": counts.paused,
    }  # fmt: skip


# On a terminal


def _show(reader: Reader, interval_s: float, looks: int | None) -> None:
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        raise Ended("headrace top on a terminal needs rich: pip install 'headrace[cli]'; `headrace top | cat` does without", WRONG_USE) from None  # fmt: skip
    console = Console(no_color=settings().color == "never" or None)
    view, look = View(), reader.look()
    place = masked_url(reader.client.config.url)
    with _single_keys() as read_key, Live(console=console, screen=True, auto_refresh=False) as live:
        left = looks
        while not view.is_over and left != 0:
            live.update(_screen(view, look, place, console.height), refresh=True)
            next_s = time.monotonic() + interval_s
            while not view.is_over and (key := read_key(next_s - time.monotonic())):
                look = _press(reader, view, key, look)
                live.update(_screen(view, look, place, console.height), refresh=True)
            if not view.is_over:
                look = _look_again(reader, view, look)
                left = None if left is None else left - 1


def _press(reader: Reader, view: View, key: str, look: Look) -> Look:
    tab = view.tab
    act = view.press(key, look)
    if act is not None:
        try:
            view.told = reader.act(act)
        except HeadraceError as error:
            view.told = str(error)
    return _look_again(reader, view, look) if act is not None or view.tab != tab else look


def _look_again(reader: Reader, view: View, look: Look) -> Look:
    try:
        return reader.look(with_jobs=view.tab == "jobs")
    except ServerError as error:
        view.told = f"trying again: {error}"
        return look


def _screen(view: View, look: Look, place: str, height: int) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tabs = Text(no_wrap=True, overflow="ellipsis")
    for number, name in enumerate(TABS, 1):
        tabs.append(f" {number} {name} ", style="reverse" if name == view.tab else "")
    running = sum(int(worker.info.get("running", 0)) for worker in look.workers)
    tabs.append(
        f"   {place}   {len(look.queues)} queues   {len(look.workers)} workers   {running} running", style="dim"
    )
    rows = view.rows(look)
    room = max(1, height - 6)
    first = max(0, min(view.row - room // 2, len(rows) - room))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for n, name in enumerate(view.columns()):
        is_number = all(row[n].replace(".", "", 1).isdigit() for row in rows if row[n]) and bool(rows)
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
    for n, row in enumerate(rows[first : first + room], first):
        table.add_row(*(Text(cell) for cell in row), style="reverse" if n == view.row else "")
    keys = f"Tab 1 2 3   ↑ ↓   {KEYS[view.tab]}   / filter   q quit"
    bottom = Text(f"/{view.wanted}▏" if view.is_typing else view.told or keys, no_wrap=True, overflow="ellipsis")
    if view.wanted and not view.is_typing:
        bottom.append(f"   filter: {view.wanted} (Esc clears it)", style="dim")
    if not rows:
        return Group(tabs, table, Text(f"no {view.tab} here", style="dim"), bottom)
    return Group(tabs, table, bottom)


@contextmanager
def _single_keys() -> Iterator[Callable[[float], str]]:
    """Keys one by one, unechoed: `read(timeout_s)` gives the next, "" when the time is over; the end of input is `q`."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    left = ""

    def read(timeout_s: float) -> str:
        nonlocal left
        if not left:
            if not select.select([fd], [], [], max(0.0, timeout_s))[0]:
                return ""
            left = os.read(fd, 1024).decode("utf8", "ignore") or "q"
        for code, name in _ARROWS.items():
            if left.startswith(code):
                left = left[len(code) :]
                return name
        key, left = left[0], left[1:]
        return key

    tty.setcbreak(fd)
    try:
        yield read
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
