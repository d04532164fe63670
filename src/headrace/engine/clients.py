"""Who sends Calls: a sync and an asyncio client over redis-py's connections, and the doorbells that wake idle workers.

A connection that timed out, was cancelled, or lost a reply is closed: replies never shift. redis-py's own retries are
off; ours repeat a call only because every call of ours may be sent twice.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import select
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import hiredis
import redis
from redis.exceptions import NoScriptError

from headrace import crash
from headrace.engine import ops
from headrace.engine.call import Call, Op, command
from headrace.engine.connect import (
    Address,
    ServerConfig,
    ServerInfo,
    SlotMap,
    Target,
    async_connection,
    certificate_problem,
    is_worth_a_probe,
    masked_url,
    parse_info,
    parse_target,
    probe_port,
    read_info,
    redirection,
    sync_connection,
    translate,
)
from headrace.engine.keys import queue_keys
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

__all__ = [
    "AsyncClient", "AsyncDoorbell", "Doorbell", "ServerConfig", "ServerInfo", "SyncClient", "backoff_s", "masked_url",
]  # fmt: skip

T = TypeVar("T")
_INFO: Call[dict[str, str]] = command("INFO", decode=parse_info)
_SENT_ERRORS = (redis.RedisError, OSError, hiredis.HiredisError)


def _may_pass(problem: HeadraceError) -> bool:
    """Whether the same call may work a little later."""
    return isinstance(problem, ServerUnreachable | ServerBusy) and not isinstance(problem, ServerUntrusted)


def backoff_s(attempt: int, cap_s: float) -> float:
    """Full jitter: uniform in 0 to min(cap, 20 ms × 2^attempt) (AWS Architecture Blog, "Exponential Backoff And Jitter")."""
    return random.uniform(0.005, min(cap_s, 0.02 * 2.0 ** min(attempt, 20)))


def _pack(call: Call[Any], *, whole: bool = False) -> bytes:
    found = call.script
    if found is None:
        return cast(bytes, hiredis.pack_command(tuple(call.args)))  # type: ignore[arg-type]
    if whole:
        return cast(bytes, hiredis.pack_command((b"EVAL", found.source, len(call.keys), *call.keys, *call.args)))  # type: ignore[arg-type]
    return cast(bytes, hiredis.pack_command((b"EVALSHA", found.sha, len(call.keys), *call.keys, *call.args)))  # type: ignore[arg-type]


def _write(call: Call[Any], *, whole: bool = False) -> bytes:
    """What goes out in one write: the call, and the command that waits for its effect."""
    packed = _pack(call, whole=whole)
    return packed + cast(bytes, hiredis.pack_command(tuple(call.wait))) if call.wait else packed  # type: ignore[arg-type]


def _reach(call: Call[Any], phase: str) -> None:
    """A crash point: this call, a script's, is at this phase of its round trip."""
    if call.script is not None:
        name = call.script.name
        crash.at(f"{'claim' if name == 'settle' and len(call.args) == 4 else name}.{phase}")


class _Link:
    """The connections of one thread: one to a single server, one a node on a cluster. Not thread-safe."""

    def __init__(self, target: Target, slots: SlotMap, *, reply_timeout_s: float | None = None) -> None:
        self.target = target
        self.slots = slots
        self.pid = os.getpid()
        self.producer = secrets.token_hex(6)
        self.number = 0
        self._reply_timeout_s = reply_timeout_s or target.reply_timeout_s
        self._open: dict[Address | None, Any] = {}

    def close(self) -> None:
        for connection in self._open.values():
            connection.disconnect()
        self._open.clear()

    def send(self, call: Call[T]) -> T:
        """One round trip (a few when a cluster's slots move)."""
        for _ in range(6):
            connection = self._open.get(None) or self._connection(call.keys[0] if call.keys else b"")
            try:
                return call.decode(self._exchange(connection, call))
            except redis.ResponseError as error:
                found = redirection(error)
                if found is None:
                    if type(error).__name__ == "ReadOnlyError":
                        self.close()  # a failover: ask again who is primary
                        self.slots.forget()
                    raise
                if self.target.mode != "cluster":
                    raise ServerUnsupported(_NOT_CLUSTER.format(masked_url(self.target.url))) from None
                address = (found.host or connection.host, found.port)
                if found.is_ask:
                    asked = self._connect(address)
                    asked.send_packed_command([_ASKING])
                    asked.read_response()
                    return call.decode(self._exchange(asked, call))
                self.slots.moved(found.slot, address)
            except _SENT_ERRORS as error:
                if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
                    self.close()
                    self.slots.forget()
                raise
        raise ServerBusy("the cluster's slots move too fast; try again")

    def _exchange(self, connection: Any, call: Call[Any]) -> Any:
        done = False
        try:
            if crash.IS_ON:
                _reach(call, "before_send")
            if call.wait:
                reply = self._exchange_both(connection, call)
                done = True
                return reply
            connection.send_packed_command([_pack(call)])
            if crash.IS_ON:
                _reach(call, "after_send")
            try:
                reply = connection.read_response()
            except NoScriptError:
                connection.send_packed_command([_pack(call, whole=True)])
                reply = connection.read_response()
            if crash.IS_ON:
                _reach(call, "after_reply")
            done = True
            return reply
        except redis.ResponseError:
            done = True
            raise
        finally:
            if not done:
                self._open = {address: other for address, other in self._open.items() if other is not connection}
                connection.disconnect()

    def _exchange_both(self, connection: Any, call: Call[Any]) -> tuple[Any, Any]:
        """Two replies, each read whatever the other is; raises the first one's error."""
        connection._sock.settimeout(self._reply_timeout_s + call.wait_ms / 1000)
        for whole in (False, True):
            connection.send_packed_command([_write(call, whole=whole)])
            if crash.IS_ON:
                _reach(call, "after_send")
            first, second = _reply_or_error(connection), _reply_or_error(connection)
            if not isinstance(first, NoScriptError):
                break
        connection._sock.settimeout(self._reply_timeout_s)
        if crash.IS_ON:
            _reach(call, "after_reply")
        if isinstance(first, redis.ResponseError):
            raise first
        return first, str(second) if isinstance(second, redis.ResponseError) else second

    def _connection(self, key: bytes | str) -> Any:
        mode = self.target.mode
        if mode == "cluster":
            if not self.slots.is_known:
                self._learn_slots()
            return self._connect(self.slots.node_for(key))
        found = self._open.get(None)
        if found is None:
            found = self._open[None] = self._made(self._primary() if mode != "unix" else None)
        return found

    def _connect(self, address: Address) -> Any:
        found = self._open.get(address)
        if found is None:
            found = self._open[address] = self._made(address)
        return found

    def _made(self, address: Address | None) -> Any:
        connection = sync_connection(self.target, address)
        self._greet(connection, address)
        connection._sock.settimeout(self._reply_timeout_s)
        return connection

    def _greet(self, connection: Any, address: Address | None) -> None:
        """Connect and log in, both within the connect timeout: also where a stopped server's kernel still accepts."""
        try:
            connection.connect()
        except _SENT_ERRORS as error:
            problem: HeadraceError | None = certificate_problem(self.target, error)
            if problem is None and address is not None and is_worth_a_probe(self.target, error):
                problem = probe_port(self.target, address)
            if problem is None:
                raise
            raise problem from error

    def _primary(self) -> Address:
        if self.target.mode != "sentinel":
            return self.target.nodes[0]
        ask = command("SENTINEL", "get-master-addr-by-name", self.target.master, decode=_master_address)
        return cast(Address, self._ask_any(ask))

    def _learn_slots(self) -> None:
        def read(reply: list[Any], node: Address) -> None:
            self.slots.fill(reply, node)

        self._ask_any(command("CLUSTER", "SLOTS", decode=list), read)

    def _ask_any(self, call: Call[Any], then: Callable[[Any, Address], Any] | None = None) -> Any:
        """Ask the nodes of the URL in turn; the first answer counts."""
        problem: BaseException | None = None
        for node in self.target.nodes:
            connection = sync_connection(self.target, node, **self.target.asking)
            try:
                self._greet(connection, node)
                reply = call.decode(self._exchange(connection, call))
                return then(reply, node) if then else reply
            except (*_SENT_ERRORS, HeadraceError) as error:
                problem = error
            finally:
                connection.disconnect()
        raise problem or ServerUnreachable(f"no node in {masked_url(self.target.url)}")


def _reply_or_error(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


_ASKING = cast(bytes, hiredis.pack_command(("ASKING",)))
_ASK: Call[Any] = command("ASKING", decode=bool)
_NOT_CLUSTER = "{} is a node of a Redis Cluster: use redis+cluster://HOST:PORT"


def _master_address(reply: list[bytes] | None) -> Address:
    if not reply:
        raise ServerUnreachable("the Sentinel knows no such master; check the name after the last / of the URL")
    return reply[0].decode(), int(reply[1])


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
        self._links: set[_Link] = set()
        self._lock = threading.Lock()

    def _link(self) -> _Link:
        link: _Link | None = getattr(self._local, "link", None)
        if link is None or link.pid != os.getpid():
            link = self._local.link = _Link(self.target, self._slots)
            with self._lock:
                self._links.add(link)
        return link

    def run(self, op: Op[T]) -> T:
        """Send a Call, or drive a generator of Calls to its result.

        Raises:
            HeadraceError: what the server, or the way to it, made of it; never an error of redis-py.
        """
        if isinstance(op, Call):
            return self._send(op)
        return self._drive(op)

    def _drive(self, steps: Generator[Call[Any], Any, T]) -> T:
        try:
            call = next(steps)
            while True:
                try:
                    reply = self._send(call)
                except HeadraceError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(reply)
        except StopIteration as stop:
            return cast(T, stop.value)

    def _send(self, call: Call[T], link: _Link | None = None) -> T:
        try:
            return (link or self._link()).send(call)
        except (*_SENT_ERRORS, HeadraceError) as error:
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
            except (*_SENT_ERRORS, HeadraceError) as error:
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
        link = _Link(self.target, self._slots, reply_timeout_s=timeout_s + self.config.command_timeout_s)
        try:
            return link.send(call)
        except (*_SENT_ERRORS, HeadraceError) as error:
            problem = self._translated(error)
            raise problem from (None if problem is error else error)
        finally:
            link.close()

    def line(self, timeout_s: float) -> Line:
        """A connection for blocking commands of up to `timeout_s` each, one after another."""
        return Line(self, _Link(self.target, self._slots, reply_timeout_s=timeout_s + self.config.command_timeout_s))

    def check_server(self) -> ServerInfo:
        """Ask the server what it is.

        Raises:
            ServerUnsupported: too old, a Sentinel, or a policy that deletes queues.
            ServerBusy: it is a replica now.
        """
        info = read_info(self.run(_INFO), self.config.url)
        if info.is_cluster and not self.is_cluster:
            raise ServerUnsupported(_NOT_CLUSTER.format(masked_url(self.config.url)))
        return info

    def close(self) -> None:
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            if link.pid == os.getpid():
                link.close()
        self._local = threading.local()


class Line:
    """A connection of its own for blocking commands. Not thread-safe."""

    def __init__(self, client: SyncClient, link: _Link) -> None:
        self._client = client
        self._link = link

    def run(self, call: Call[T]) -> T:
        """Send one; raises ServerUnreachable also when the server answers nothing in time."""
        try:
            return self._link.send(call)
        except (*_SENT_ERRORS, HeadraceError) as error:
            problem = self._client._translated(error)
            raise problem from (None if problem is error else error)

    def close(self) -> None:
        self._link.close()


class _AsyncLink:
    """The asyncio twin of `_Link`; one call at a time."""

    def __init__(self, target: Target, slots: SlotMap, *, reply_timeout_s: float | None = None) -> None:
        self.target = target
        self.slots = slots
        self.producer = secrets.token_hex(6)
        self.number = 0
        self._reply_timeout_s = reply_timeout_s or target.reply_timeout_s
        self._connect_timeout_s: float = target.kwargs["socket_connect_timeout"]
        self._open: dict[Address | None, Any] = {}
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        opened, self._open = self._open, {}
        for connection in opened.values():
            with suppress(redis.RedisError, OSError):
                await connection.disconnect()

    async def send(self, call: Call[T]) -> T:
        async with self._lock:
            return await self._send(call)

    async def _send(self, call: Call[T]) -> T:
        for _ in range(6):
            connection = await self._connection(call.keys[0] if call.keys else b"")
            try:
                return call.decode(await self._exchange(connection, call))
            except redis.ResponseError as error:
                found = redirection(error)
                if found is None:
                    if type(error).__name__ == "ReadOnlyError":
                        await self.close()
                        self.slots.forget()
                    raise
                if self.target.mode != "cluster":
                    raise ServerUnsupported(_NOT_CLUSTER.format(masked_url(self.target.url))) from None
                address = (found.host or connection.host, found.port)
                if found.is_ask:
                    asked = await self._connect(address)
                    await self._exchange(asked, _ASK)
                    return call.decode(await self._exchange(asked, call))
                self.slots.moved(found.slot, address)
            except _SENT_ERRORS as error:
                if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
                    await self.close()
                    self.slots.forget()
                raise
        raise ServerBusy("the cluster's slots move too fast; try again")

    async def _exchange(self, connection: Any, call: Call[Any], timeout_s: float | None = None) -> Any:
        done = False
        try:
            reply = await _within(timeout_s or self._reply_timeout_s + call.wait_ms / 1000, _ask(connection, call))
            done = True
            return reply
        except redis.ResponseError:
            done = True
            raise
        finally:
            if not done:
                # Also when cancelled: a reply that is still to come must never be read as another call's.
                self._open = {address: other for address, other in self._open.items() if other is not connection}
                await connection.disconnect(nowait=True)

    async def _connection(self, key: bytes | str) -> Any:
        mode = self.target.mode
        if mode == "cluster":
            if not self.slots.is_known:
                await self._learn_slots()
            return await self._connect(self.slots.node_for(key))
        found = self._open.get(None)
        if found is None:
            found = await self._made(await self._primary() if mode != "unix" else None)
            self._open[None] = found
        return found

    async def _connect(self, address: Address) -> Any:
        found = self._open.get(address)
        if found is None:
            found = self._open[address] = await self._made(address)
        return found

    async def _made(self, address: Address | None) -> Any:
        connection = async_connection(self.target, address)
        await self._greet(connection, address)
        return connection

    async def _greet(self, connection: Any, address: Address | None) -> None:
        """As `_Link._greet`; a connection that is given up is closed."""
        done = False
        try:
            await _within(self._connect_timeout_s, connection.connect())
            done = True
        except _SENT_ERRORS as error:
            problem: HeadraceError | None = certificate_problem(self.target, error)
            if problem is None and address is not None and is_worth_a_probe(self.target, error):
                problem = await asyncio.to_thread(probe_port, self.target, address)
            if problem is None:
                raise
            raise problem from error
        finally:
            if not done:
                await connection.disconnect(nowait=True)

    async def _primary(self) -> Address:
        if self.target.mode != "sentinel":
            return self.target.nodes[0]
        ask = command("SENTINEL", "get-master-addr-by-name", self.target.master, decode=_master_address)
        return cast(Address, await self._ask_any(ask))

    async def _learn_slots(self) -> None:
        def read(reply: list[Any], node: Address) -> None:
            self.slots.fill(reply, node)

        await self._ask_any(command("CLUSTER", "SLOTS", decode=list), read)

    async def _ask_any(self, call: Call[Any], then: Callable[[Any, Address], Any] | None = None) -> Any:
        problem: BaseException | None = None
        for node in self.target.nodes:
            connection = async_connection(self.target, node, **self.target.asking)
            try:
                await self._greet(connection, node)
                reply = call.decode(await self._exchange(connection, call, self._connect_timeout_s))
                return then(reply, node) if then else reply
            except (*_SENT_ERRORS, HeadraceError) as error:
                problem = error
            finally:
                await connection.disconnect(nowait=True)
        raise problem or ServerUnreachable(f"no node in {masked_url(self.target.url)}")


async def _within(timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """Wait so long at most, and let a cancellation through whenever it comes.

    The async connections have no timeouts of their own, since redis-py's go through asyncio.wait_for, which in Python
    3.11 forgets a cancellation that comes as its work ends (https://github.com/python/cpython/issues/86296).
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise redis.TimeoutError(f"no reply in {timeout_s:g} s") from None


async def _ask(connection: Any, call: Call[Any]) -> Any:
    if crash.IS_ON:
        _reach(call, "before_send")
    if call.wait:
        return await _ask_both(connection, call)
    await connection.send_packed_command(_pack(call))
    if crash.IS_ON:
        _reach(call, "after_send")
    try:
        reply = await connection.read_response()
    except NoScriptError:
        await connection.send_packed_command(_pack(call, whole=True))
        reply = await connection.read_response()
    if crash.IS_ON:
        _reach(call, "after_reply")
    return reply


async def _ask_both(connection: Any, call: Call[Any]) -> tuple[Any, Any]:
    for whole in (False, True):
        await connection.send_packed_command(_write(call, whole=whole))
        if crash.IS_ON:
            _reach(call, "after_send")
        first, second = await _areply_or_error(connection), await _areply_or_error(connection)
        if not isinstance(first, NoScriptError):
            break
    if crash.IS_ON:
        _reach(call, "after_reply")
    if isinstance(first, redis.ResponseError):
        raise first
    return first, str(second) if isinstance(second, redis.ResponseError) else second


async def _areply_or_error(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except redis.ResponseError as error:
        return error


class AsyncLine:
    """The asyncio twin of `Line`."""

    def __init__(self, client: AsyncClient, link: _AsyncLink) -> None:
        self._client = client
        self._link = link

    async def run(self, call: Call[T]) -> T:
        try:
            return await self._link.send(call)
        except (*_SENT_ERRORS, HeadraceError) as error:
            problem = self._client._translated(error)
            raise problem from (None if problem is error else error)

    async def aclose(self) -> None:
        await self._link.close()


class AsyncClient(_Settings):
    """The asyncio twin of `SyncClient`; belongs to the event loop that first uses it, and follows to another.

    Concurrent `enqueue` calls to one queue go out together: one script call takes all that came while the last was
    under way.
    """

    def __init__(self, config: ServerConfig, *, retry: bool = True) -> None:
        super().__init__(config, retry=retry)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: _AsyncLink | None = None
        self._producers: dict[str | tuple[str, str], _Coalescer] = {}

    def _link(self) -> _AsyncLink:
        loop = asyncio.get_running_loop()
        if self._main is None or self._loop is not loop:
            self._loop, self._main = loop, _AsyncLink(self.target, self._slots)
            self._producers = {}
        return self._main

    async def run(self, op: Op[T]) -> T:
        """Send a Call, or drive a generator of Calls to its result."""
        if isinstance(op, Call):
            return await self._send(op, self._link())
        return await self._drive(op)

    async def _drive(self, steps: Generator[Call[Any], Any, T]) -> T:
        try:
            call = next(steps)
            while True:
                try:
                    reply = await self._send(call, self._link())
                except HeadraceError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(reply)
        except StopIteration as stop:
            return cast(T, stop.value)

    async def _send(self, call: Call[T], link: _AsyncLink) -> T:
        ends = time.monotonic() + self.config.retry_budget_s
        attempt = 0
        while True:
            try:
                return await link.send(call)
            except (*_SENT_ERRORS, HeadraceError) as error:
                problem = self._translated(error)
                attempt += 1
                pause = backoff_s(attempt, 1.0)
                if not self._retry or not _may_pass(problem) or time.monotonic() + pause > ends:
                    raise problem from (None if problem is error else error)
            await asyncio.sleep(pause)

    async def enqueue(self, queue: str, jobs: Sequence[ops.NewJob], durability: str = "memory") -> dict[str, str]:
        """Store up to 1,000 jobs of one queue; as `SyncClient.enqueue`."""
        self._link()
        name = queue if durability == "memory" else (queue, durability)
        coalescer = self._producers.get(name)
        if coalescer is None:
            coalescer = self._producers[name] = _Coalescer(self, queue, durability)
        return await coalescer.add(jobs)

    async def block(self, call: Call[T | None], timeout_s: float) -> T | None:
        """Send a blocking command on a connection of its own."""
        link = _AsyncLink(self.target, self._slots, reply_timeout_s=timeout_s + self.config.command_timeout_s)
        try:
            return await link.send(call)
        except (*_SENT_ERRORS, HeadraceError) as error:
            problem = self._translated(error)
            raise problem from (None if problem is error else error)
        finally:
            await link.close()

    def line(self, timeout_s: float) -> AsyncLine:
        """As `SyncClient.line`."""
        timeout_s += self.config.command_timeout_s
        return AsyncLine(self, _AsyncLink(self.target, self._slots, reply_timeout_s=timeout_s))

    async def check_server(self) -> ServerInfo:
        """As `SyncClient.check_server`."""
        info = read_info(await self.run(_INFO), self.config.url)
        if info.is_cluster and not self.is_cluster:
            raise ServerUnsupported(_NOT_CLUSTER.format(masked_url(self.config.url)))
        return info

    async def aclose(self) -> None:
        link, self._main = self._main, None
        producers, self._producers = list(self._producers.values()), {}
        if link is not None and self._loop is asyncio.get_running_loop():
            for producer in producers:
                await producer.close()
            await link.close()


class _Coalescer:
    """Sends the jobs of concurrent callers together: one numbered call in flight.

    Where it waits for a replica or a disk it has a link of its own, so that nobody else waits.
    """

    def __init__(self, client: AsyncClient, queue: str, durability: str) -> None:
        self._client = client
        self._keys = queue_keys(queue, client.prefix)
        self._durability = durability
        self.link = client._link() if durability == "memory" else _AsyncLink(client.target, client._slots)
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
            if taken and (count > ops.MOST_JOBS_A_CALL or size > 4 << 20):
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


def _wake_calls(keys: Sequence[bytes], is_cluster: bool) -> list[Call[bool]]:
    groups = [[key] for key in keys] if is_cluster else [list(keys)]
    return [Call(None, group, ["BZPOPMIN", *group, 0], bool) for group in groups]


class Doorbell:
    """One BZPOPMIN parked on the markers of some queues, on connections of its own (one a queue on Cluster).

    The ring carries no job: who hears it claims. A ring may be lost; who waits must look by itself now and then.
    """

    def __init__(self, config: ServerConfig, wake_keys: Sequence[bytes]) -> None:
        self._config = config
        target = parse_target(config)
        self._calls = _wake_calls(wake_keys, target.mode == "cluster")
        self._slots = SlotMap()
        self._target = target
        self._parked: list[Any | None] = [None] * len(self._calls)
        self._idle: list[Any | None] = [None] * len(self._calls)
        self._links = [_Link(target, self._slots) for _ in self._calls]

    def arm(self) -> None:
        """Park a BZPOPMIN wherever none is parked.

        Raises:
            ServerUnreachable, ServerBusy, …
        """
        for n, call in enumerate(self._calls):
            if self._parked[n] is None:
                try:
                    connection = self._links[n]._connection(call.keys[0])
                    connection.send_packed_command([_pack(call)])
                except (*_SENT_ERRORS, HeadraceError) as error:
                    self.disarm()
                    raise translate(error, self._config.url) from error
                self._parked[n] = connection

    def fds(self) -> list[int]:
        """File descriptors that become readable when it rings."""
        return [connection._sock.fileno() for connection in self._parked if connection is not None]

    def rang(self) -> bool:
        """Read what has come, without waiting; True when it rang.

        Raises:
            ServerUnreachable, ServerBusy: the connection ended, or was unblocked by a failover; it is closed.
        """
        heard = False
        for n, connection in enumerate(self._parked):
            if connection is None or not select.select([connection._sock], [], [], 0)[0]:
                continue
            self._parked[n] = None
            try:
                connection.read_response()
                heard = True
            except _SENT_ERRORS as error:
                self.disarm()
                raise translate(error, self._config.url) from error
        return heard

    def disarm(self) -> None:
        """Close the connections: nothing is parked any more."""
        self._parked = [None] * len(self._calls)
        for link in self._links:
            link.close()
        self._slots.forget()

    close = disarm


PARKED_S = 86_400.0


class AsyncDoorbell:
    """The asyncio twin of `Doorbell`: the parked commands outlive a wait that timed out."""

    def __init__(self, config: ServerConfig, wake_keys: Sequence[bytes]) -> None:
        self._config = config
        target = parse_target(config)
        self._calls = _wake_calls(wake_keys, target.mode == "cluster")
        self._links = [_AsyncLink(target, SlotMap(), reply_timeout_s=PARKED_S) for _ in self._calls]
        self._parked: dict[int, asyncio.Task[bool]] = {}

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a ring, at most `timeout_s`; True when it rang.

        Raises:
            ServerUnreachable, ServerBusy: a connection ended; the next wait connects again.
        """
        for n, call in enumerate(self._calls):
            if n not in self._parked:
                self._parked[n] = asyncio.create_task(self._links[n].send(call))
        done, _ = await asyncio.wait(self._parked.values(), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for n in [n for n, task in self._parked.items() if task in done]:
            error = self._parked.pop(n).exception()
            if error is not None:
                raise translate(error, self._config.url) from error
        return bool(done)

    async def aclose(self) -> None:
        parked, self._parked = list(self._parked.values()), {}
        for task in parked:
            task.cancel()
        await asyncio.gather(*parked, return_exceptions=True)
        for link in self._links:
            await link.close()
