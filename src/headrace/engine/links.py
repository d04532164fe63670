"""The connections that Calls go over: of one thread, and of one event loop; to one server, a Sentinel's primary, or a cluster's nodes.

A connection that timed out, was cancelled, or lost a reply is closed: replies never shift. Nothing is sent twice here; who repeats
is the client.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

import hiredis
import redis
from redis.exceptions import NoScriptError

from headrace import crash
from headrace.engine.call import Call, command
from headrace.engine.connect import (
    Address,
    SlotMap,
    Target,
    async_connection,
    certificate_problem,
    is_worth_a_probe,
    masked_url,
    probe_port,
    redirection,
    sync_connection,
)
from headrace.errors import HeadraceError, ServerBusy, ServerUnreachable, ServerUnsupported

__all__ = ["NOT_CLUSTER", "SENT_ERRORS", "AsyncLink", "Link", "pack"]

T = TypeVar("T")
SENT_ERRORS = (redis.RedisError, OSError, hiredis.HiredisError)
NOT_CLUSTER = "{} is a node of a Redis Cluster: use redis+cluster://HOST:PORT"
_ASKING = cast(bytes, hiredis.pack_command(("ASKING",)))
_ASK: Call[Any] = command("ASKING", decode=bool)


def pack(call: Call[Any], *, whole: bool = False) -> bytes:
    found = call.script
    if found is None:
        return cast(bytes, hiredis.pack_command(tuple(call.args)))  # type: ignore[arg-type]
    if whole:
        return cast(bytes, hiredis.pack_command((b"EVAL", found.source, len(call.keys), *call.keys, *call.args)))  # type: ignore[arg-type]
    return cast(bytes, hiredis.pack_command((b"EVALSHA", found.sha, len(call.keys), *call.keys, *call.args)))  # type: ignore[arg-type]


def _write(call: Call[Any], *, whole: bool = False) -> bytes:
    """What goes out in one write: the call, and the command that waits for its effect."""
    packed = pack(call, whole=whole)
    return packed + cast(bytes, hiredis.pack_command(tuple(call.wait))) if call.wait else packed  # type: ignore[arg-type]


def _reach(call: Call[Any], phase: str) -> None:
    """A crash point: this call, a script's, is at this phase of its round trip."""
    if call.script is not None:
        name = call.script.name
        crash.at(f"{'claim' if name == 'settle' and len(call.args) == 4 else name}.{phase}")


class Link:
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

    def __del__(self) -> None:
        # Its thread has ended: the server is told now, not when the garbage is collected.
        with suppress(Exception):  # at the interpreter's end half of what this needs may be gone
            self.close()

    def send(self, call: Call[T]) -> T:
        """One round trip (a few when a cluster's slots move)."""
        for _ in range(6):
            connection = self._open.get(None) or self.connection(call.keys[0] if call.keys else b"")
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
                    raise ServerUnsupported(NOT_CLUSTER.format(masked_url(self.target.url))) from None
                address = (found.host or connection.host, found.port)
                if found.is_ask:
                    asked = self._connect(address)
                    asked.send_packed_command([_ASKING])
                    asked.read_response()
                    return call.decode(self._exchange(asked, call))
                self.slots.moved(found.slot, address)
            except SENT_ERRORS as error:
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
            connection.send_packed_command([pack(call)])
            if crash.IS_ON:
                _reach(call, "after_send")
            try:
                reply = connection.read_response()
            except NoScriptError:
                connection.send_packed_command([pack(call, whole=True)])
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

    def connection(self, key: bytes | str) -> Any:
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
        except SENT_ERRORS as error:
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
            except (*SENT_ERRORS, HeadraceError) as error:
                problem = error
            finally:
                connection.disconnect()
        raise problem or ServerUnreachable(f"no node in {masked_url(self.target.url)}")


def _reply_or_error(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _master_address(reply: list[bytes] | None) -> Address:
    if not reply:
        raise ServerUnreachable("the Sentinel knows no such master; check the name after the last / of the URL")
    return reply[0].decode(), int(reply[1])


class AsyncLink:
    """The asyncio twin of `Link`; one call at a time."""

    def __init__(self, target: Target, slots: SlotMap, *, reply_timeout_s: float | None = None) -> None:
        self.target = target
        self.slots = slots
        self.pid = os.getpid()
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

    def shut(self) -> None:
        """Close from outside of its event loop, which may be gone: the server sees the end at once, the loop when it reads."""
        opened, self._open = self._open, {}
        for connection in opened.values():
            found = connection._writer and connection._writer.get_extra_info("socket")
            if found is not None and self.pid == os.getpid():  # a forked child has but a copy
                with suppress(OSError):
                    found.shutdown(socket.SHUT_RDWR)

    async def send(self, call: Call[T]) -> T:
        async with self._lock:
            return await self._send(call)

    async def _send(self, call: Call[T]) -> T:
        for _ in range(6):
            connection = await self.connection(call.keys[0] if call.keys else b"")
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
                    raise ServerUnsupported(NOT_CLUSTER.format(masked_url(self.target.url))) from None
                address = (found.host or connection.host, found.port)
                if found.is_ask:
                    asked = await self._connect(address)
                    await self._exchange(asked, _ASK)
                    return call.decode(await self._exchange(asked, call))
                self.slots.moved(found.slot, address)
            except SENT_ERRORS as error:
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

    async def connection(self, key: bytes | str) -> Any:
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
        """As `Link._greet`; a connection that is given up is closed."""
        done = False
        try:
            await _within(self._connect_timeout_s, connection.connect())
            done = True
        except SENT_ERRORS as error:
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
            except (*SENT_ERRORS, HeadraceError) as error:
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
    await connection.send_packed_command(pack(call))
    if crash.IS_ON:
        _reach(call, "after_send")
    try:
        reply = await connection.read_response()
    except NoScriptError:
        await connection.send_packed_command(pack(call, whole=True))
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
