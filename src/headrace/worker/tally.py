"""What this process has run, counted until it is sent: every 10 s, with a round trip of its own, and never per job.

A crash loses what was not sent; so does a reply that is lost, since counting twice would be worse.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

from headrace.core.tally import STEPS_US, Sums
from headrace.engine import stats
from headrace.engine.call import Call
from headrace.engine.keys import QueueKeys
from headrace.engine.ops import Kind
from headrace.errors import ServerError
from headrace.worker.board import ChildRow

logger = logging.getLogger("headrace.worker")

SEND_EVERY_NS = 10_000_000_000
MINUTE_NS = 60_000_000_000
MOST_UNSENT = 2_000
MOST_MARKS = 1_000
NAMES = {
    Kind.SUCCEEDED: "succeeded", Kind.DROPPED: "succeeded", Kind.FAILED: "failed", Kind.RETRY: "retried",
    Kind.CANCELLED: "cancelled",
}  # fmt: skip

Mark: TypeAlias = "tuple[str, str, Kind, int, int, int]"
"""Queue, task, what became of it, monotonic ns of start and end, Unix ms of its creation (0: it has run before)."""
_kind_of = itemgetter(0, 1, 2)
_CELLS = {
    "succeeded": ChildRow.SUCCEEDED, "failed": ChildRow.FAILED, "retried": ChildRow.RETRIED, "cancelled": ChildRow.CANCELLED,
}  # fmt: skip


class Tally:
    """Shared by the consumers of a process, which append to `marks` and look at `due_ns` without a call: they do so for every batch.

    Args:
        row: where the process's own counts are shown to its supervisor.
    """

    def __init__(self, row: ChildRow) -> None:
        self._row = row
        self.marks: list[Mark] = []
        """Always the same list: what is counted is taken from its front, so that none that comes meanwhile is lost."""
        self.due_ns = time.monotonic_ns() + SEND_EVERY_NS
        self._lock = threading.Lock()
        self._sums: dict[tuple[int, str, str], Sums] = {}

    def count(self) -> None:
        """Turn the marks into sums: those of one minute, queue, task and end together, since that takes a third of the time."""
        epoch_us = (time.time_ns() - time.monotonic_ns()) // 1_000
        with self._lock:
            marks = self.marks[:]
            del self.marks[: len(marks)]
            for minute, in_it in _by_minute(marks):
                for (queue, task, kind), alike in groupby(in_it, _kind_of):
                    self._add((minute, queue, task), kind, list(alike), epoch_us)

    def _add(self, place: tuple[int, str, str], kind: Kind, marks: list[Mark], epoch_us: int) -> None:
        name = NAMES.get(kind)
        if name is None:
            return
        runs_us = [(ended_ns - started_ns) // 1_000 for _, _, _, started_ns, ended_ns, _ in marks]
        row = self._row
        row.cells[row.at + _CELLS[name]] += len(marks)
        row.run_us += sum(runs_us)
        sums = self._sums.get(place)
        if sums is None and len(self._sums) >= MOST_UNSENT:
            return
        if sums is None:
            sums = self._sums[place] = {"run_us": 0, "wait_us": 0}
        sums[name] = sums.get(name, 0) + len(marks)
        _spread(sums, "r", "run_us", runs_us)
        waits = [epoch_us + started_ns // 1_000 - at_ms * 1_000 for _, _, _, started_ns, _, at_ms in marks if at_ms]
        _spread(sums, "w", "wait_us", waits if not waits or min(waits) >= 0 else [max(0, wait) for wait in waits])

    def take(self, queues: Iterable[QueueKeys]) -> list[Call[int]]:
        """What is to be sent now, forgotten here."""
        self.count()
        with self._lock:
            sums, self._sums = self._sums, {}
            self.due_ns = time.monotonic_ns() + SEND_EVERY_NS
        minute = time.monotonic_ns() // MINUTE_NS
        calls: list[Call[int]] = []
        for queue in queues:
            rows = [
                stats.Added(minute - at, task, found) for (at, name, task), found in sums.items() if name == queue.name
            ]
            for first in range(0, len(rows), stats.MOST_ROWS_A_CALL):
                calls.append(stats.tally(queue, rows[first : first + stats.MOST_ROWS_A_CALL]))
        return calls


def _by_minute(marks: list[Mark]) -> Iterable[tuple[int, list[Mark]]]:
    """Nearly always all of one: they are counted at least every 10 s."""
    minutes = {ended_ns // MINUTE_NS for _, _, _, _, ended_ns, _ in marks}
    if len(minutes) == 1:
        return [(minutes.pop(), marks)]
    return [(minute, [mark for mark in marks if mark[4] // MINUTE_NS == minute]) for minute in minutes]


def _spread(sums: Sums, letter: str, total: str, times_us: list[int]) -> None:
    """Add times to their sum and to their histogram."""
    sums[total] += sum(times_us)
    for after, count in Counter([bisect_right(STEPS_US, time_us) for time_us in times_us]).items():
        step = f"{letter}{after - 1}"
        sums[step] = sums.get(step, 0) + count


def send(run: Callable[[Call[int]], Any], calls: Iterable[Call[int]]) -> None:
    """Send what was counted; what the server does not take is lost."""
    try:
        for call in calls:
            run(call)
    except ServerError as error:
        logger.info("some statistics were not kept: %s", error)
