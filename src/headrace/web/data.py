"""What the pages show, read through the engine's own functions. Each read is shared by all viewers, and kept for a second; longer, the
more commands all reads together take: so viewers, pages and queues, however many, cost the server no more of them a second than few.

No read's cost depends on how many jobs there are.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import msgspec

from headrace.app import Headrace
from headrace.core.filters import Filter
from headrace.core.record import State, decode, waits_since_ms
from headrace.core.tally import Sums, add, times_in
from headrace.engine import admin, index, ops, stats
from headrace.engine.admin import QueueCounts, Worker
from headrace.engine.call import Call, Op, Steps, command
from headrace.engine.clients import AsyncClient
from headrace.engine.keys import QueueKeys, check_job_id, queue_keys, queues_key
from headrace.engine.search import Found, find_jobs
from headrace.engine.stats import History, Unit
from headrace.errors import HeadraceError, ServerError, ServerUnreachable, UsageError
from headrace.web.details import Details, read_details

T = TypeVar("T")
_commands: ContextVar[list[None]] = ContextVar("commands")
"""Of the read that is under way: one item for each."""

KEPT_S = 1.0
S_A_COMMAND = 0.25
"""What is read again and again is read so seldom that all of it together takes at most four commands a second."""
MOST_BEHIND_S = 15.0
"""So long at most one read waits for the share of others; for its own it may wait longer."""
SEARCH_KEPT_S = 3.0
MOST_SUGGESTED = 50
STATISTICS_KEPT_S = 5.0
"""Workers send them every 10 s."""
MOST_KEPT = 500
MOST_RECORDS = 1_000
PAGE_JOBS = 50
RATE_MINUTES = 5
READ_WITHIN_S = 8.0
TABS: dict[str, tuple[State, ...]] = {
    "running": (State.RUNNING,),
    "queued": (State.QUEUED,),
    "later": (State.SCHEDULED, State.RETRYING),
    "waiting": (State.WAITING,),
    "failed": (State.FAILED,),
    "ended": (State.SUCCEEDED, State.CANCELLED, State.EXPIRED),
}
SPANS: dict[str, tuple[Unit, int]] = {
    "1h": (Unit.MINUTE, 60),
    "24h": (Unit.HOUR, 24),
    "7d": (Unit.HOUR, 168),
    "30d": (Unit.DAY, 30),
}


def tab_counts(counts: QueueCounts) -> dict[str, int]:
    """How many jobs stand behind each tab."""
    return {
        "running": counts.running,
        "queued": counts.queued,
        "later": counts.delayed,
        "waiting": counts.parked + counts.waiting,
        "failed": counts.dead,
        "ended": counts.done,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class Overview:
    """All queues and workers at about one instant. `oldest_s`: how long the next job in line of each queue has waited.

    `memory_share`: of what the server may take, how much it takes; None: it may take any. `clock_apart_s`: by how much its
    clock is ahead of this machine's.
    """

    queues: list[QueueCounts]
    workers: list[Worker]
    oldest_s: dict[str, float]
    memory_share: float | None = None
    clock_apart_s: float = 0.0

    @property
    def totals(self) -> dict[str, int]:
        found = dict.fromkeys(TABS, 0)
        for counts in self.queues:
            add(found, tab_counts(counts))
        return found

    @property
    def busy(self) -> int:
        return sum(int(worker.info.get("running", 0)) for worker in self.workers)

    @property
    def slots(self) -> int:
        return sum(int(w.info.get("slots", 1)) * int(w.info.get("children", 1)) for w in self.workers)

    def workers_of(self, queue: str) -> list[Worker]:
        return [worker for worker in self.workers if queue in worker.info.get("queues", ())]


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """One bucket of a chart, of all its queues."""

    at_ms: int
    queue: Sums
    tasks: Sums


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """What became of jobs in a span. `failing`: (task, failed attempts), the worst first."""

    span: str
    width_ms: int
    points: list[Point]
    failing: list[tuple[str, int]]

    def total(self, name: str) -> int:
        """As the queues tell it: enqueued, succeeded, failed, retried."""
        return sum(point.queue.get(name, 0) for point in self.points)

    def a_minute(self, name: str) -> float:
        """How many of the queues' jobs in a minute: of the last five whole ones, in a chart of minutes."""
        last = self.points[-1 - RATE_MINUTES : -1]
        return sum(point.queue.get(name, 0) for point in last) / max(len(last), 1)

    @property
    def peak(self) -> int:
        """The highest bar."""
        return max((p.queue.get("succeeded", 0) + p.queue.get("failed", 0) for p in self.points), default=0)

    def quantile_s(self, kind: str, share: float) -> float | None:
        together: Sums = {}
        for point in self.points:
            add(together, point.tasks)
        return times_in(together, kind).quantile_s(share)


def server_health(prefix: str) -> Steps[tuple[int, float | None]]:
    """The server's clock, ms, and which share of its memory is taken; None: it may take any."""
    text: str = yield command("INFO", "memory", key="", decode=_info_text)
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    most = int(fields.get("maxmemory", 0))
    server_ms: int = yield admin.server_time_ms(queues_key(prefix))
    return server_ms, int(fields["used_memory"]) / most if most else None


def _info_text(reply: Any) -> str:
    return str(reply.decode() if isinstance(reply, bytes) else reply)


@dataclasses.dataclass(slots=True)
class _Kept:
    """A read, and until when it is given to others."""

    task: asyncio.Task[Any]
    until_s: float


class Source:
    """The dashboard's one reader and writer of a server."""

    def __init__(self, app: Headrace) -> None:
        self.app = app
        self.config = dataclasses.replace(app.server_config, retry_budget_s=0.5, connect_timeout_s=2.0)
        self.prefix = app.prefix
        self._client: AsyncClient | None = None
        self._kept: dict[tuple[object, ...], _Kept] = {}
        self._paid_until_s = 0.0
        self.errors = 0
        """How often the server did not do what was asked of it."""

    def queue(self, name: str) -> QueueKeys:
        return queue_keys(name, self.prefix)

    async def run(self, op: Op[T]) -> T:
        """Raises ServerError when the server does not answer in time."""
        try:
            return await asyncio.wait_for(self._connected().run(_counted(op, _commands.get([]))), READ_WITHIN_S)
        except TimeoutError:
            self.errors += 1
            raise ServerUnreachable("the server did not answer within 8 s") from None
        except ServerError:
            self.errors += 1
            raise

    def _connected(self) -> AsyncClient:
        if self._client is None:
            self._client = AsyncClient(self.config)
        return self._client

    async def enqueue(self, queue: str, job: ops.NewJob) -> None:
        """Store one job; its queue may be new.

        Raises:
            ServerError, QueueFull
        """
        await self.run(ops.announce_queues(self.prefix, [queue]))
        await self._connected().enqueue(queue, [job])

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def forget(self) -> None:
        """After a write: the next page shows what it did."""
        self._kept.clear()

    async def shared(self, key: tuple[object, ...], op: Op[T], least_s: float = KEPT_S) -> T:
        """As `run`, of what others may have read a moment ago: `key` tells what."""
        return await self._shared(key, lambda: self.run(op), least_s)

    async def _shared(self, key: tuple[object, ...], read: Callable[[], Awaitable[T]], least_s: float = KEPT_S) -> T:
        """One read for all who ask while it is kept, also while it is under way."""
        now = time.monotonic()
        loop = asyncio.get_running_loop()
        found = self._kept.get(key)
        if found is None or (found.task.done() and now >= found.until_s) or found.task.get_loop() is not loop:
            if len(self._kept) >= MOST_KEPT:
                self._kept = {k: kept for k, kept in self._kept.items() if not kept.task.done()}

            async def work() -> T:
                sent: list[None] = []
                _commands.set(sent)
                try:
                    return await read()
                finally:
                    # In turn: who is read again now is read next when all others that are asked for have had their share.
                    share_s = S_A_COMMAND * len(sent)
                    self._paid_until_s = min(max(self._paid_until_s, now) + share_s, now + max(share_s, MOST_BEHIND_S))
                    fresh.until_s = max(now + least_s, self._paid_until_s)

            fresh = found = self._kept[key] = _Kept(loop.create_task(work()), now + least_s)
        # Who goes away must not take the read from the others.
        return cast(T, await asyncio.shield(found.task))

    async def overview(self) -> Overview:
        return await self._shared(("overview",), self._overview)

    async def _overview(self) -> Overview:
        names = await self.run(admin.queue_names(self.prefix))
        queues = [await self.run(admin.count_jobs(self.queue(name))) for name in names]
        oldest: dict[str, float] = {}
        for counts in queues:
            if counts.queued:
                page = await self.run(admin.list_jobs(self.queue(counts.name), (State.QUEUED,), limit=1))
                if page.rows:
                    oldest[counts.name] = max(0.0, (counts.server_ms - waits_since_ms(page.rows[0].record)) / 1000)
        workers = await self.run(admin.list_workers(self.prefix))
        before_s = time.time()
        server_ms, memory_share = await self.run(server_health(self.prefix))
        apart_s = server_ms / 1000 - (before_s + time.time()) / 2
        return Overview(queues, workers, oldest, memory_share, apart_s)

    async def chart(self, span: str, queue: str | None = None) -> Chart:
        return await self._shared(("chart", span, queue), lambda: self._chart(span, queue))

    async def histories(self, span: str) -> list[History]:
        """Those of all queues: one read for all charts of that span."""

        async def read() -> list[History]:
            unit, count = SPANS[span]
            names = await self.run(admin.queue_names(self.prefix))
            return [await self.run(stats.read_history(self.queue(name), unit, count)) for name in names]

        return await self._shared(("histories", span), read, STATISTICS_KEPT_S)

    async def _chart(self, span: str, queue: str | None) -> Chart:
        unit, count = SPANS[span]
        sums: dict[int, tuple[Sums, Sums]] = {}
        failed: Sums = {}
        for history in await self.histories(span):
            if queue is not None and history.queue != queue:
                continue
            for bucket in history.buckets:
                of_queues, of_tasks = sums.setdefault(bucket.at_ms, ({}, {}))
                add(of_queues, bucket.queue)
                add(of_tasks, bucket.all_tasks)
                for task, found in bucket.tasks.items():
                    bad = found.get("failed", 0) + found.get("retried", 0) if task else 0
                    if bad:
                        add(failed, {task: bad})
        failing = sorted(failed.items(), key=lambda item: -item[1])[:5]
        points = [Point(at_ms, *sums[at_ms]) for at_ms in sorted(sums)][-count:]
        return Chart(span, unit.ms, points, failing)

    async def tasks_of(self, jobs: Sequence[str]) -> dict[str, str]:
        """The tasks of jobs that workers run: `queue/id` -> its name."""
        by_queue: dict[str, list[str]] = {}
        for each in sorted(jobs):
            queue, _, job_id = each.partition("/")
            by_queue.setdefault(queue, []).append(job_id)

        async def read() -> dict[str, str]:
            found: dict[str, str] = {}
            for queue, ids in by_queue.items():
                for first in range(0, len(ids), MOST_RECORDS):
                    some = ids[first : first + MOST_RECORDS]
                    records = await self.run(admin.read_records(self.queue(queue), some))
                    found |= {f"{queue}/{i}": decode(data).task for i, data in zip(some, records, strict=True) if data}
            return found

        return await self._shared(("tasks", *sorted(jobs)), read)

    async def search(self, queues: Sequence[str], wanted: Filter, cursor: str, limit: int = PAGE_JOBS) -> Found:
        """Jobs that match, in these queues; bounded: what is found says how far was looked."""
        places = [self.queue(name) for name in queues]
        # The instant from which jobs are meant moves on: who asks again within a few seconds gets the same answer.
        since_ms = wanted.since_ms and wanted.since_ms // 10_000
        key = ("search", *queues, msgspec.structs.replace(wanted, since_ms=since_ms), cursor, limit)

        async def read() -> Found:
            return await self.run(find_jobs(places, wanted, cursor=cursor, limit=limit, names=self.names))

        return await self._shared(key, read, KEPT_S if wanted.takes_all else SEARCH_KEPT_S)

    async def known_terms(self, queues: Sequence[str]) -> list[str]:
        """Tags of jobs, in queues that keep an index."""

        async def read() -> list[str]:
            found = set[str]()
            for name in queues[:MOST_SUGGESTED]:
                found |= set(await self.run(index.names_like(self.queue(name), "tag:", MOST_SUGGESTED)))
            return sorted(found)[:MOST_SUGGESTED]

        return await self._shared(("terms", *queues), read, STATISTICS_KEPT_S)

    async def job(self, queue: str, job_id: str) -> Details:
        """Raises JobNotFound."""
        return await self._shared(
            ("job", queue, job_id), lambda: self.run(read_details(self.queue(queue), job_id, self.names))
        )

    def names(self, task: str) -> Sequence[str]:
        """Of a task's positional parameters, where this app has the task."""
        found = self.app.tasks.get(task)
        return () if found is None else found.signature.names

    async def find(self, job_id: str) -> str | None:
        """The queue of a job; None: there is no such job."""
        try:
            check_job_id(job_id)
        except UsageError:
            return None
        for name in await self.run(admin.queue_names(self.prefix)):
            if await self.run(ops.look(self.queue(name), job_id)) is not None:
                return name
        return None

    async def totals(self) -> dict[str, dict[str, Sums]]:
        """By queue and task, the sums since they began."""

        async def read() -> dict[str, dict[str, Sums]]:
            names = await self.run(admin.queue_names(self.prefix))
            return {name: await self.run(stats.read_totals(self.queue(name))) for name in names}

        return await self._shared(("totals",), read)


def _counted(op: Op[T], sent: list[None]) -> Op[T]:
    """The same; each command that it sends is noted."""
    if isinstance(op, Call):
        sent.append(None)
        return op
    return _counted_steps(op, sent)


def _counted_steps(steps: Steps[T], sent: list[None]) -> Steps[T]:
    try:
        call = next(steps)
        while True:
            sent.append(None)
            try:
                reply = yield call
            except HeadraceError as error:
                call = steps.throw(error)
            else:
                call = steps.send(reply)
    except StopIteration as stop:
        return cast(T, stop.value)


def in_words(error: HeadraceError) -> str:
    return str(error) or type(error).__doc__ or type(error).__name__
