"""Who sends Calls: a sync and an asyncio client. They repeat a call while the server is away, as every call of ours may be sent twice."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import select
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from headrace.engine import ops
from headrace.engine.call import Call, Op, Steps, Store, command
from headrace.engine.connect import (
    ServerConfig,
    ServerInfo,
    SlotMap,
    masked_url,
    parse_info,
    parse_target,
    read_info,
    translate,
)
from headrace.engine.keys import queue_keys
from headrace.engine.links import NOT_CLUSTER, SENT_ERRORS, AsyncLink, Link
from headrace.errors import (
    HeadraceError,
    JobExists,
    NotDurable,
    QueueFull,
    ServerBusy,
    ServerError,
    ServerUnreachable,
    ServerUnsupported,
    ServerUntrusted,
)

__all__ = ["AsyncClient", "ServerConfig", "ServerInfo", "SyncClient", "backoff_s", "masked_url"]

T = TypeVar("T")
_INFO: Call[dict[str, str]] = command("INFO", decode=parse_info)


def _may_pass(problem: HeadraceError) -> bool:
    """Whether the same call may work a little later."""
    return isinstance(problem, ServerUnreachable | ServerBusy) and not isinstance(problem, ServerUntrusted)


def backoff_s(attempt: int, cap_s: float) -> float:
    """Full jitter: uniform in 0 to min(cap, 20 ms × 2^attempt) (AWS Architecture Blog, "Exponential Backoff And Jitter")."""
    return random.uniform(0.005, min(cap_s, 0.02 * 2.0 ** min(attempt, 20)))


class _Settings:
    """What both clients share."""

    def __init__(self, config: ServerConfig, *, retry: bool = True) -> None:
        self.config = config
        self.target = parse_target(config)
        self.prefix = config.prefix
        self.is_cluster = self.target.mode == "cluster"
        self._retry = retry
        self._slots = SlotMap()

    @property
    def changes(self) -> int:
        """How often it may have become another server that answers: one that took over, after a link broke or a slot moved."""
        return self._slots.changes

    def _translated(self, error: BaseException) -> HeadraceError:
        return translate(error, self.config.url)


class SyncClient(_Settings):
    """Sends Calls, each thread on a connection of its own. Usable after a fork: the child connects anew.

    Args:
        retry: repeat a call within `config.retry_budget_s` while the server is away or busy. Workers say False and
            do their own back-off.
    """

    def __init__(self, config: ServerConfig, *, retry: bool = True) -> None:
        super().__init__(config, retry=retry)
        self._local = threading.local()
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()  # a thread that ends takes its connection with it
        self._lock = threading.Lock()

    def _link(self) -> Link:
        link: Link | None = getattr(self._local, "link", None)
        if link is None or link.pid != os.getpid():
            link = self._local.link = Link(self.target, self._slots)
            with self._lock:
                self._links.add(link)
        return link

    def run(self, op: Op[T]) -> T:
        """Send a Call, or drive steps to their result.

        Raises:
            HeadraceError: what the server, or the way to it, made of it; never an error of redis-py.
        """
        if isinstance(op, Call):
            return self._send(op)
        return self._drive(op)

    def _drive(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Store):
                        reply: Any = self.enqueue(step.queue, step.jobs, step.durability)
                    else:
                        reply = self._send(step)
                except HeadraceError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            return cast(T, stop.value)

    def _send(self, call: Call[T], link: Link | None = None) -> T:
        try:
            return (link or self._link()).send(call)
        except (*SENT_ERRORS, HeadraceError) as error:
            problem = self._translated(error)
            if not self._retry or not _may_pass(problem):
                raise problem from (None if problem is error else error)
        return self._send_again(call, problem)

    def _send_again(self, call: Call[T], problem: HeadraceError) -> T:
        ends = time.monotonic() + self.config.retry_budget_s
        attempt = 0
        while True:
            attempt += 1
            pause = backoff_s(attempt, 1.0)
            if time.monotonic() + pause > ends:
                raise problem
            select.select([], [], [], pause)
            try:
                return self._link().send(call)
            except (*SENT_ERRORS, HeadraceError) as error:
                problem = self._translated(error)
                if not _may_pass(problem):
                    raise problem from (None if problem is error else error)

    def enqueue(self, queue: str, jobs: Sequence[ops.NewJob], durability: str = "memory") -> dict[str, str]:
        """Store up to 1,000 jobs of one queue in one round trip: all or none, once even when a reply is lost.

        Returns:
            For each job whose unique key was taken: its id, and that of the job there is instead.

        Raises:
            JobExists: a chosen id is taken; nothing was written.
            DuplicateJob, QueueFull: nothing was written.
            NotDurable: stored, but not confirmed as `durability` ("replicated", "fsync") wants it.
            ServerFull, ServerUnreachable, …
        """
        link = self._link()
        link.number += 1
        call = ops.enqueue(queue_keys(queue, self.prefix), jobs, link.producer, link.number)
        if durability != "memory":
            call = ops.durable(call, jobs, durability, self.config.durability_timeout_ms)
        return self._send(call, link)

    def block(self, call: Call[T | None], timeout_s: float) -> T | None:
        """Send a blocking command on a connection of its own; None when the server answers nothing in time."""
        link = Link(self.target, self._slots, reply_timeout_s=timeout_s + self.config.command_timeout_s)
        try:
            return link.send(call)
        except (*SENT_ERRORS, HeadraceError) as error:
            problem = self._translated(error)
            raise problem from (None if problem is error else error)
        finally:
            link.close()

    def line(self, timeout_s: float) -> Line:
        """A connection for blocking commands of up to `timeout_s` each, one after another."""
        return Line(self, Link(self.target, self._slots, reply_timeout_s=timeout_s + self.config.command_timeout_s))

    def check_server(self) -> ServerInfo:
        """Ask the server what it is.

        Raises:
            ServerUnsupported: too old, a Sentinel, or a policy that deletes queues.
            ServerBusy: it is a replica now.
        """
        info = read_info(self.run(_INFO), self.config.url)
        if info.is_cluster and not self.is_cluster:
            raise ServerUnsupported(NOT_CLUSTER.format(masked_url(self.config.url)))
        return info

    def close(self) -> None:
        with self._lock:
            links = list(self._links)
            self._links.clear()
        for link in links:
            if link.pid == os.getpid():
                link.close()
        self._local = threading.local()


class Line:
    """A connection of its own for blocking commands. Not thread-safe."""

    def __init__(self, client: SyncClient, link: Link) -> None:
        self._client = client
        self._link = link

    def run(self, call: Call[T]) -> T:
        """Send one; raises ServerUnreachable also when the server answers nothing in time."""
        try:
            return self._link.send(call)
        except (*SENT_ERRORS, HeadraceError) as error:
            problem = self._client._translated(error)
            raise problem from (None if problem is error else error)

    def close(self) -> None:
        self._link.close()


class AsyncLine:
    """The asyncio twin of `Line`."""

    def __init__(self, client: AsyncClient, link: AsyncLink) -> None:
        self._client = client
        self._link = link

    async def run(self, call: Call[T]) -> T:
        try:
            return await self._link.send(call)
        except (*SENT_ERRORS, HeadraceError) as error:
            problem = self._client._translated(error)
            raise problem from (None if problem is error else error)

    async def aclose(self) -> None:
        await self._link.close()


class AsyncClient(_Settings):
    """The asyncio twin of `SyncClient`: each event loop has a connection of its own, which goes when the loop is closed.

    Concurrent `enqueue` calls to one queue go out together: one script call takes all that came while the last was
    under way.
    """

    def __init__(self, config: ServerConfig, *, retry: bool = True) -> None:
        super().__init__(config, retry=retry)
        self._loops: dict[asyncio.AbstractEventLoop, _OfLoop] = {}
        self._current: _OfLoop | None = None  # of the loop that asked last: mostly there is one
        self._lock = threading.Lock()

    def _of_loop(self) -> _OfLoop:
        loop = asyncio.get_running_loop()
        current = self._current
        if current is None or current.loop is not loop:
            current = self._current = self._enter(loop)
        return current

    def _enter(self, loop: asyncio.AbstractEventLoop) -> _OfLoop:
        with self._lock:
            for gone in [one for one in self._loops if one.is_closed()]:
                self._loops.pop(gone).shut()
            found = self._loops.get(loop)
            if found is None:
                found = self._loops[loop] = _OfLoop(loop, AsyncLink(self.target, self._slots))
            return found

    def _link(self) -> AsyncLink:
        return self._of_loop().link

    async def run(self, op: Op[T]) -> T:
        """Send a Call, or drive steps to their result."""
        if isinstance(op, Call):
            return await self._send(op, self._link())
        return await self._drive(op)

    async def _drive(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Store):
                        reply: Any = await self.enqueue(step.queue, step.jobs, step.durability)
                    else:
                        reply = await self._send(step, self._link())
                except HeadraceError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            return cast(T, stop.value)

    async def _send(self, call: Call[T], link: AsyncLink) -> T:
        ends = time.monotonic() + self.config.retry_budget_s
        attempt = 0
        while True:
            try:
                return await link.send(call)
            except (*SENT_ERRORS, HeadraceError) as error:
                problem = self._translated(error)
                attempt += 1
                pause = backoff_s(attempt, 1.0)
                if not self._retry or not _may_pass(problem) or time.monotonic() + pause > ends:
                    raise problem from (None if problem is error else error)
            await asyncio.sleep(pause)

    async def enqueue(self, queue: str, jobs: Sequence[ops.NewJob], durability: str = "memory") -> dict[str, str]:
        """Store up to 1,000 jobs of one queue; as `SyncClient.enqueue`."""
        producers = self._of_loop().producers
        name = queue if durability == "memory" else (queue, durability)
        coalescer = producers.get(name)
        if coalescer is None:
            coalescer = producers[name] = _Coalescer(self, queue, durability)
        return await coalescer.add(jobs)

    async def block(self, call: Call[T | None], timeout_s: float) -> T | None:
        """Send a blocking command on a connection of its own."""
        link = AsyncLink(self.target, self._slots, reply_timeout_s=timeout_s + self.config.command_timeout_s)
        try:
            return await link.send(call)
        except (*SENT_ERRORS, HeadraceError) as error:
            problem = self._translated(error)
            raise problem from (None if problem is error else error)
        finally:
            await link.close()

    def line(self, timeout_s: float) -> AsyncLine:
        """As `SyncClient.line`."""
        timeout_s += self.config.command_timeout_s
        return AsyncLine(self, AsyncLink(self.target, self._slots, reply_timeout_s=timeout_s))

    async def check_server(self) -> ServerInfo:
        """As `SyncClient.check_server`."""
        info = read_info(await self.run(_INFO), self.config.url)
        if info.is_cluster and not self.is_cluster:
            raise ServerUnsupported(NOT_CLUSTER.format(masked_url(self.config.url)))
        return info

    async def aclose(self) -> None:
        with self._lock:
            loops, self._loops, self._current = self._loops, {}, None
        mine = loops.pop(asyncio.get_running_loop(), None)
        for other in loops.values():
            other.shut()
        if mine is not None:
            await mine.close()


class _OfLoop:
    """What an `AsyncClient` has for one event loop: its connection, and a producer for each queue."""

    __slots__ = ("link", "loop", "producers")

    def __init__(self, loop: asyncio.AbstractEventLoop, link: AsyncLink) -> None:
        self.loop = loop
        self.link = link
        self.producers: dict[str | tuple[str, str], _Coalescer] = {}

    async def close(self) -> None:
        for producer in self.producers.values():
            await producer.close()
        await self.link.close()

    def shut(self) -> None:
        """As `close`, from outside of the loop."""
        for producer in self.producers.values():
            producer.link.shut()
        self.link.shut()


class _Coalescer:
    """Sends the jobs of concurrent callers together: one numbered call in flight.

    Where it waits for a replica or a disk it has a link of its own, so that nobody else waits.
    """

    def __init__(self, client: AsyncClient, queue: str, durability: str) -> None:
        self._client = client
        self._keys = queue_keys(queue, client.prefix)
        self._durability = durability
        self.link = client._link() if durability == "memory" else AsyncLink(client.target, client._slots)
        self._number = 0
        self._producer = secrets.token_hex(6)
        self._waiting: list[tuple[Sequence[ops.NewJob], asyncio.Future[dict[str, str]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, jobs: Sequence[ops.NewJob]) -> dict[str, str]:
        future: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._waiting.append((jobs, future))
        if self._task is None:
            self._task = asyncio.create_task(self._flush())
        return await future

    async def close(self) -> None:
        """Give up what is under way; who still waits for it is told so."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.link.close()

    async def _flush(self) -> None:
        batch: list[tuple[Sequence[ops.NewJob], asyncio.Future[dict[str, str]]]] = []
        try:
            while self._waiting:
                batch = self._take()
                try:
                    same = await self._store([job for jobs, _ in batch for job in jobs])
                except (JobExists, QueueFull):
                    await self._one_by_one(batch)
                except NotDurable as error:
                    for jobs, future in batch:
                        _fail([(jobs, future)], NotDurable(str(error), [job.id for job in jobs]))
                except ServerError as error:
                    _fail(batch, error)
                else:
                    for _, future in batch:
                        if not future.done():
                            future.set_result(same)
        except BaseException as error:
            _fail([*batch, *self._waiting], error)
            raise
        finally:
            self._task = None

    def _take(self) -> list[tuple[Sequence[ops.NewJob], asyncio.Future[dict[str, str]]]]:
        """As many callers as fit into one call of 1,000 jobs and about 4 MiB."""
        count = taken = size = 0
        for jobs, _ in self._waiting:
            count += len(jobs)
            size += sum(len(job.record) for job in jobs)
            if taken and (count > ops.MOST_JOBS_A_CALL or size > ops.MOST_BYTES_A_CALL):
                break
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return batch

    async def _store(self, jobs: Sequence[ops.NewJob]) -> dict[str, str]:
        self._number += 1
        call = ops.enqueue(self._keys, jobs, self._producer, self._number)
        if self._durability != "memory":
            call = ops.durable(call, jobs, self._durability, self._client.config.durability_timeout_ms)
        return await self._client._send(call, self.link)

    async def _one_by_one(self, batch: list[tuple[Sequence[ops.NewJob], asyncio.Future[dict[str, str]]]]) -> None:
        """A chosen id is taken, or there is no room: nothing of the batch was written; only its own caller is refused."""
        for jobs, future in batch:
            try:
                same = await self._store(jobs)
            except (ServerError, JobExists, QueueFull) as error:
                _fail([(jobs, future)], error)
            else:
                if not future.done():
                    future.set_result(same)


def _fail(batch: list[tuple[Sequence[ops.NewJob], asyncio.Future[dict[str, str]]]], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
