"""What `headrace top` shows and what a key means there: values, without a terminal and without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.core.failures import error_of
from headrace.core.record import State
from headrace.engine.admin import QueueCounts, Row, Worker

TABS = ("queues", "workers", "jobs")
KEYS = {
    "queues": "p pause or resume",
    "workers": "p quiet or resume",
    "jobs": "r retry   c cancel",
}
ENDED = (State.FAILED, State.CANCELLED, State.EXPIRED)


class Look(NamedTuple):
    """What there is at one instant. `jobs`: only while they are shown; `rates`: jobs a second that came and ended, by queue."""

    queues: Sequence[QueueCounts]
    workers: Sequence[Worker]
    jobs: Sequence[Row]
    oldest_s: Mapping[str, float]
    rates: Mapping[str, tuple[float, float]]
    at_ms: int


class Act(NamedTuple):
    """Something to be done. `what`: pause, resume, quiet, work, retry or cancel."""

    what: str
    queue: str = ""
    id: str = ""


@dataclass
class View:
    """What is shown: which tab, which row, which filter; and what was said last."""

    tab: str = "queues"
    at: dict[str, int] = field(default_factory=dict)
    wanted: str = ""
    is_typing: bool = False
    asked: Act | None = None
    told: str = ""
    is_over: bool = False

    @property
    def row(self) -> int:
        return self.at.get(self.tab, 0)

    def columns(self) -> tuple[str, ...]:
        return {
            "queues": (
                "queue",
                "queued",
                "running",
                "later",
                "waiting",
                "failed",
                "in/s",
                "out/s",
                "latency",
                "workers",
                "",
            ),
            "workers": ("worker", "state", "pool", "queues", "running", "places", "jobs"),
            "jobs": ("id", "queue", "task", "state", "attempt", "age", "error"),
        }[self.tab]

    def rows(self, look: Look) -> list[tuple[str, ...]]:
        """The rows of the tab that the filter lets through: each holds the words of the filter somewhere."""
        words = self.wanted.lower().split()
        return [row for row in self._all(look) if all(word in " ".join(row).lower() for word in words)]

    def _all(self, look: Look) -> list[tuple[str, ...]]:
        if self.tab == "queues":
            return [_queue_row(counts, look) for counts in look.queues]
        if self.tab == "workers":
            return [_worker_row(worker) for worker in look.workers]
        return [_job_row(row, look.at_ms) for row in look.jobs]

    def press(self, key: str, look: Look) -> Act | None:
        """Take a key; what is to be done because of it."""
        if self.is_typing:
            self._type(key)
            return None
        asked, self.asked = self.asked, None
        if key in ("q", "\x03", "\x04"):
            self.is_over = True
        elif key in ("\t", "1", "2", "3"):
            self.tab = TABS[(TABS.index(self.tab) + 1) % len(TABS)] if key == "\t" else TABS[int(key) - 1]
            self.told = ""
        elif key in ("up", "k", "down", "j"):
            last = max(0, len(self.rows(look)) - 1)
            self.at[self.tab] = min(last, max(0, self.row + (1 if key in ("down", "j") else -1)))
        elif key == "/":
            self.is_typing, self.told = True, ""
        elif key == "\x1b":
            self.wanted = ""
        elif key in ("p", "r", "c"):
            act = self._act(key, look)
            if act is not None and act.what == "cancel" and act != asked:
                self.asked, self.told = act, f"cancel job {act.id}? c again does it"
                return None
            return act
        return None

    def _type(self, key: str) -> None:
        if key in ("\r", "\n", "\x1b"):
            self.is_typing = False
            self.wanted = "" if key == "\x1b" else self.wanted
        elif key in ("\x7f", "\x08"):
            self.wanted = self.wanted[:-1]
        elif len(key) == 1 and key.isprintable():
            self.wanted += key
            self.at[self.tab] = 0

    def _act(self, key: str, look: Look) -> Act | None:
        rows = self.rows(look)
        if self.row >= len(rows):
            return None
        name = rows[self.row][0]
        if self.tab == "queues" and key == "p":
            counts = next(each for each in look.queues if each.name == name)
            return Act("pause" if counts.paused is None else "resume", name)
        if self.tab == "workers" and key == "p":
            worker = next(each for each in look.workers if each.id == name)
            return Act("quiet" if worker.info.get("state", "running") == "running" else "work", id=name)
        if self.tab == "jobs" and key in ("r", "c"):
            job = next(each for each in look.jobs if each.id == name)
            if (key == "r") == (job.state in ENDED):
                return Act("retry" if key == "r" else "cancel", job.queue, job.id)
            self.told = f"job {job.id} is {job.state.value}: there is nothing to {'retry' if key == 'r' else 'cancel'}"
        return None


def span(seconds: float) -> str:
    """A length of time in one glance: 0.3 s, 12 s, 5 min, 3 h, 2 d."""
    for limit, unit, word in ((10, 1, "s"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {word}" if limit == 10 else f"{seconds / unit:.0f} {word}"
    return f"{seconds / 86_400:.0f} d"


def _queue_row(counts: QueueCounts, look: Look) -> tuple[str, ...]:
    came, ended = look.rates.get(counts.name, (0.0, 0.0))
    oldest_s = look.oldest_s.get(counts.name)
    served = sum(counts.name in worker.info.get("queues", ()) for worker in look.workers)
    numbers = (counts.queued, counts.running, counts.delayed, counts.parked + counts.waiting, counts.dead)
    return (
        counts.name, *(str(number) for number in numbers), f"{came:.1f}", f"{ended:.1f}",
        "" if oldest_s is None else span(oldest_s), str(served), "" if counts.paused is None else f"paused: {counts.paused}",
    )  # fmt: skip


def _worker_row(worker: Worker) -> tuple[str, ...]:
    info = worker.info
    places = int(info.get("slots", 1)) * int(info.get("children", 1))
    return (
        worker.id, str(info.get("state", "running")), str(info.get("pool", "")), ", ".join(info.get("queues", ())),
        str(info.get("running", 0)), str(places), ", ".join(info.get("jobs", ())[:3]),
    )  # fmt: skip


def _job_row(row: Row, now_ms: int) -> tuple[str, ...]:
    record = row.record
    kind, message = error_of(record) if record.errors or row.state is State.FAILED else ("", "")
    error = f"{kind}: {message}".splitlines()[0] if kind else ""
    age = span(max(0.0, (now_ms - record.created_at_ms) / 1000))
    return (row.id, row.queue, record.task, row.state.value, str(record.attempt), age, error)
