"""A producer of the soak: enqueues every kind of job at a steady rate until its stdin ends, then prints what was accepted.

`python benchmarks/soak_load.py JOBS_A_SECOND sync|async`
"""

from __future__ import annotations

import asyncio
import json
import random
import select
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import soak_tasks as tasks
from headrace import DuplicateJob, Headrace, Job, JobNotFound
from headrace.queue import Queue

TICK_S = 0.05
MEASURE_EVERY_S = 30.0
# Cancelled jobs are kept for a day: with more of them a queue would be over the 10,000 ended jobs that it keeps, and then forget
# results before their time.
KINDS = {
    "nothing": 40, "anothing": 6, "kept": 15, "flaky": 10, "delayed": 8, "breaks": 4, "reports": 5, "awaited": 2,
    "cancelled": 0.4, "limited": 2, "unique": 2, "overdue": 0.2, "patient": 0.2,
}  # fmt: skip
SHARES = {"prefork": 45, "threads": 25, "asyncio": 25, "fork": 5}
CANCEL_AFTER = 20


class Load:
    """Which job comes next, and how many of each kind were accepted; `gone`: results that were not there any more;
    `late`: jobs that had ended when they were to be cancelled; `in_use`: seconds, and what this process had in use then."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        self.gone = self.late = 0
        self.to_cancel: deque[Job[object]] = deque()
        self.in_use: list[tuple[float, int, int]] = []
        self._number = 0
        self._random = random.Random(20)

    def batches(self, rate: float) -> Iterator[list[tuple[str, Queue, object, int]]]:
        """What is to be enqueued now, tick by tick; of a delay, a second's jobs at most are made good."""
        began = last = time.monotonic()
        owed = 0.0
        while not select.select([sys.stdin], [], [], 0)[0]:
            now = time.monotonic()
            owed = min(owed + rate * (now - last), rate)
            last = now
            if now - began >= MEASURE_EVERY_S * (len(self.in_use) + 1):
                self.in_use.append((now - began, *tasks.in_use()))
            yield [self._next() for _ in range(int(owed))]
            owed -= int(owed)

    def _next(self) -> tuple[str, Queue, object, int]:
        self._number += 1
        (kind,) = self._random.choices(list(KINDS), list(KINDS.values()))
        (queue,) = self._random.choices(list(SHARES), list(SHARES.values()))
        place = tasks.app.queue(queue)
        if kind == "delayed":
            return kind, place.options(delay=self._random.uniform(1, 300)), tasks.nothing, self._number
        if kind == "cancelled":
            return kind, place.options(delay=3600), tasks.nothing, self._number
        if kind == "unique":
            return kind, place, tasks.unique, self._random.randrange(20)
        return kind, place, tasks.kept if kind == "awaited" else getattr(tasks, kind), self._number

    def note(self, kind: str, job: Job[object]) -> None:
        self.accepted[kind] += 1
        if kind in ("cancelled", "patient"):
            self.to_cancel.append(job)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Count a result that was no longer kept when it was asked for."""
        try:
            yield
        except JobNotFound:
            self.gone += 1


def produce(load: Load, app: Headrace, rate: float) -> None:
    for batch in load.batches(rate):
        ends = time.monotonic() + TICK_S
        for kind, queue, task, number in batch:
            try:
                job = queue.enqueue(task, number)  # type: ignore[call-overload]
            except DuplicateJob:
                continue
            load.note(kind, job)
            if kind == "awaited":
                with load.noted():
                    job.result(timeout=60)
        cancel(load, CANCEL_AFTER)
        select.select([], [], [], max(0.0, ends - time.monotonic()))
    cancel(load, 0)


def cancel(load: Load, leave: int) -> None:
    while len(load.to_cancel) > leave:
        with suppress(JobNotFound):  # it had ended long ago
            load.late += not load.to_cancel.popleft().cancel()


async def aproduce(load: Load, app: Headrace, rate: float) -> None:
    async def one(kind: str, queue: Queue, task: object, number: int) -> None:
        try:
            job = await queue.aenqueue(task, number)  # type: ignore[call-overload]
        except DuplicateJob:
            return
        load.note(kind, job)
        if kind == "awaited":
            waiting.append(asyncio.create_task(aresult(job)))

    async def aresult(job: Job[object]) -> None:
        with load.noted():
            await job.aresult(timeout=60)

    waiting: deque[asyncio.Task[None]] = deque()
    for batch in load.batches(rate):
        ends = time.monotonic() + TICK_S
        await asyncio.gather(*(one(*call) for call in batch))
        await acancel(load, CANCEL_AFTER)
        while waiting and waiting[0].done():
            await waiting.popleft()
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
    await acancel(load, 0)
    await asyncio.gather(*waiting)
    await app.aclose()


async def acancel(load: Load, leave: int) -> None:
    while len(load.to_cancel) > leave:
        with suppress(JobNotFound):
            load.late += not await load.to_cancel.popleft().acancel()


def main() -> int:
    rate, how = float(sys.argv[1]), sys.argv[2]
    load = Load()
    with tasks.app as app:
        if how == "async":
            asyncio.run(aproduce(load, app, rate))
        else:
            produce(load, app, rate)
    print(json.dumps({"accepted": load.accepted, "gone": load.gone, "late": load.late, "in_use": load.in_use}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
