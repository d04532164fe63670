"""A link to the server that can be made to fail: late, slow, silent, reset, refused, or with one chosen reply lost.

A TCP proxy on loopback, in a thread of its own, so that sync and async code can use it. It reads RESP just well
enough to tell one message from the next: a trap can then take exactly the reply of a chosen request. Where a stream
is something else (TLS, a replica's copy), it is passed on as it comes, and traps see nothing of it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from headrace.engine.call import script

T = TypeVar("T")
Matches = Callable[[bytes], bool]
Ways = Literal["up", "down", "both"]

_READ_BYTES = 1 << 16
_SLICE_S = 0.01
_RESET = struct.pack("ii", 1, 0)


def runs(name: str) -> Matches:
    """Matches the requests that run this script of headrace: `runs("enqueue")`."""
    found = script(name)
    return lambda request: found.sha in request or found.source in request


class Trap:
    """Waits for requests that match, and spoils them; `hits` says how many it has had."""

    def __init__(
        self, matches: Matches, spoils: Literal["request", "reply"], keep_bytes: int, times: int | None
    ) -> None:
        self._matches = matches
        self.spoils = spoils
        self.keep_bytes = keep_bytes
        self._left = times
        self._changed = threading.Condition()
        self.hits = 0

    def takes(self, request: bytes) -> bool:
        """Whether this request is one to spoil; counts it."""
        with self._changed:
            if self._left == 0 or not self._matches(request):
                return False
            if self._left is not None:
                self._left -= 1
            return True

    def missed(self) -> None:
        """The request it took was not done after all: it waits for another."""
        with self._changed:
            if self._left is not None:
                self._left += 1

    def sprung(self) -> None:
        with self._changed:
            self.hits += 1
            self._changed.notify_all()

    def wait(self, hits: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until it has been hit so often.

        Raises:
            TimeoutError
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.hits >= hits, timeout_s):
                raise TimeoutError(f"the trap was hit {self.hits} times in {timeout_s:g} s, not {hits}")

    def disarm(self) -> None:
        """Spoil no more."""
        with self._changed:
            self._matches, self._left = _never, 0


class FaultProxy:
    """Stands between clients and one server.

        with FaultProxy("redis://localhost:6379/0") as link:
            app = Headrace(link.url)
            trap = link.lose_reply(runs("enqueue"))

    Args:
        upstream: the server: its URL, or (host, port).
        seed: makes jitter and chances repeatable.

    Attributes:
        url: the server's URL by way of this proxy.
        latency_s, jitter_s: each message waits so long, and up to so much more.
        bytes_per_s: how fast bytes pass, each way of each connection; None: as fast as they can.
    """

    def __init__(self, upstream: str | tuple[str, int], *, seed: int | None = None) -> None:
        self._parts = None if isinstance(upstream, tuple) else urlsplit(upstream)
        self._upstream = upstream if isinstance(upstream, tuple) else _address(upstream)
        self._random = random.Random(seed)
        self.latency_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s: float | None = None
        self.port = 0
        self.accepted = 0
        self._traps: list[Trap] = []
        self._pipes: set[_Pipe] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._is_open = {"up": asyncio.Event(), "down": asyncio.Event()}

    # Life

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Listen on a free port of loopback."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        for event in self._is_open.values():
            self._loop.call_soon_threadsafe(event.set)
        self.accept()
        return self

    def close(self) -> None:
        """Refuse, end every connection, and stop."""
        self.refuse()
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        if self._parts is None:
            return f"redis://127.0.0.1:{self.port}/0"
        login, at, _ = self._parts.netloc.rpartition("@")
        return urlunsplit(self._parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}"))

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._pipes)

    @property
    def upstream(self) -> tuple[str, int]:
        """Where new connections go. Those that are open stay where they are: `reset_all` ends them."""
        return self._upstream

    @upstream.setter
    def upstream(self, address: tuple[str, int]) -> None:
        self._upstream = address

    # Faults

    def cut(self, way: Ways = "both") -> None:
        """A black hole: bytes to the server ("up"), to clients ("down"), or both stay under way, and nobody is told.

        New connections are made, and hear nothing. `heal` lets through what has waited, as TCP would: also the
        requests of clients that have gone meanwhile.
        """
        for one in _each(way):
            self._loop.call_soon_threadsafe(self._is_open[one].clear)
        self._do(_nothing())

    def heal(self) -> None:
        """End a black hole."""
        for event in self._is_open.values():
            self._loop.call_soon_threadsafe(event.set)
        self._do(_nothing())

    def go_silent(self) -> int:
        """Leave every open connection half-open: nothing passes on it any more, and nobody is told; how many there were.

        New connections work. `reset_all` ends the silent ones.
        """
        return self._do(self._go_silent())

    def reset_all(self) -> int:
        """Reset (RST) every open connection on both sides; how many there were."""
        return self._do(self._reset_all())

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        self._do(self._stop_listening())

    def accept(self) -> None:
        """Take new connections again, on the same port."""
        self._do(self._listen())

    def lose_reply(self, matches: Matches, *, times: int | None = 1, chance: float = 1.0) -> Trap:
        """The server gets the request and does it; its reply is lost, and the connection reset.

        Args:
            matches: says of a request's bytes whether it is one of them.
            times: how many of them; None: all.
            chance: of each that matches.
        """
        return self._set(matches, "reply", 0, times, chance)

    def tear_reply(self, matches: Matches, *, after_bytes: int, times: int | None = 1, chance: float = 1.0) -> Trap:
        """As `lose_reply`, but the reply's first bytes get through (all but the last byte when it is short)."""
        return self._set(matches, "reply", after_bytes, times, chance)

    def lose_request(self, matches: Matches, *, times: int | None = 1, chance: float = 1.0) -> Trap:
        """The request never reaches the server, and the connection is reset."""
        return self._set(matches, "request", 0, times, chance)

    # Inside the loop

    def _set(
        self, matches: Matches, spoils: Literal["request", "reply"], keep_bytes: int, times: int | None, chance: float
    ) -> Trap:
        def wanted(request: bytes) -> bool:
            return matches(request) and (chance >= 1.0 or self._random.random() < chance)

        trap = Trap(wanted, spoils, keep_bytes, times)
        self._traps.append(trap)
        return trap

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _go_silent(self) -> int:
        pipes = [pipe for pipe in self._pipes if pipe.is_heard.is_set()]
        for pipe in pipes:
            pipe.is_heard.clear()
        return len(pipes)

    async def _reset_all(self) -> int:
        pipes = list(self._pipes)
        for pipe in pipes:
            pipe.reset()
        return len(pipes)

    async def _end(self) -> None:
        """End every task, also those of connections that were being accepted."""
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.sleep(0)  # by now each has begun, and cleans up after itself
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed in the next turn

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            await self._is_open["up"].wait()
            with suppress(OSError):
                far = await asyncio.open_connection(*self._upstream)
                pipe = _Pipe(self, (reader, writer), far)
                self._pipes.add(pipe)
                try:
                    await pipe.run()
                finally:
                    self._pipes.discard(pipe)
        except asyncio.CancelledError:
            return  # the proxy is closed
        finally:
            _abort(writer)

    def trap_for(self, request: bytes) -> Trap | None:
        """The first trap that takes this request."""
        return next((trap for trap in self._traps if trap.takes(request)), None)

    async def pass_on(self, way: Literal["up", "down"], data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write, as late and as slowly as the link is just now."""
        if self.latency_s or self.jitter_s:
            await asyncio.sleep(self.latency_s + self._random.uniform(0.0, self.jitter_s))
        rate = self.bytes_per_s
        step = len(data) if rate is None else max(1, int(rate * _SLICE_S))
        for at in range(0, len(data), step):
            await self._is_open[way].wait()
            writer.write(data[at : at + step])
            await writer.drain()
            if rate is not None:
                await asyncio.sleep(len(data[at : at + step]) / rate)

    async def until_open(self, way: Literal["up", "down"]) -> None:
        await self._is_open[way].wait()


class _Pipe:
    """One connection: two streams, and which replies are to be spoiled."""

    def __init__(
        self,
        proxy: FaultProxy,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._near_reader, self._near_writer = near
        self._far_reader, self._far_writer = far
        self._due: deque[Trap | None] = deque()  # one a request whose reply has not come
        self._is_resp = True
        self.is_heard = asyncio.Event()
        self.is_heard.set()

    async def run(self) -> None:
        """Until one side ends; then the other is told."""
        ways = [asyncio.ensure_future(self._up()), asyncio.ensure_future(self._down())]
        try:
            await asyncio.gather(*ways)
        except OSError:
            return  # a side was reset: so is the other
        finally:
            for way in ways:
                way.cancel()
            _abort(self._far_writer)  # before it waits: it may be cancelled there
            await asyncio.gather(*ways, return_exceptions=True)

    def reset(self) -> None:
        for writer in (self._near_writer, self._far_writer):
            _abort(writer)

    async def _up(self) -> None:
        waiting = b""
        while data := await self._near_reader.read(_READ_BYTES):
            waiting += data
            messages, waiting = self._split(waiting)
            for message in messages:
                await self.is_heard.wait()
                trap = self._proxy.trap_for(message) if self._is_resp else None
                if trap is not None and trap.spoils == "request":
                    trap.sprung()
                    self.reset()
                    return
                if self._is_resp:
                    self._due.append(trap)
                    if b"SYNC\r\n" in message[:24].upper():
                        self._is_resp = False  # a replica: what follows are no replies
                await self._proxy.pass_on("up", message, self._far_writer)
        await self.is_heard.wait()
        await self._proxy.until_open("up")
        if waiting:
            self._far_writer.write(waiting)
        if self._far_writer.can_write_eof():
            self._far_writer.write_eof()

    async def _down(self) -> None:
        waiting = b""
        while data := await self._far_reader.read(_READ_BYTES):
            waiting += data
            messages, waiting = self._split(waiting)
            for message in messages:
                await self.is_heard.wait()
                is_reply = self._is_resp and message[:1] != b">"  # a push answers nothing
                trap = self._due.popleft() if is_reply and self._due else None
                if trap is not None and message.startswith(b"-NOSCRIPT"):
                    trap.missed()  # the client will send the script's text, and that reply is the one
                elif trap is not None:
                    if trap.keep_bytes:
                        kept = message[: min(trap.keep_bytes, len(message) - 1)]
                        await self._proxy.pass_on("down", kept, self._near_writer)
                    trap.sprung()
                    self.reset()
                    return
                await self._proxy.pass_on("down", message, self._near_writer)
        await self.is_heard.wait()
        await self._proxy.until_open("down")
        self._near_writer.write(waiting)
        self._near_writer.close()

    def _split(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The whole messages, and the rest."""
        messages, at = [], 0
        try:
            while self._is_resp and (end := message_end(data, at)):
                messages.append(data[at:end])
                at = end
        except ValueError:
            self._is_resp = False
        if not self._is_resp:
            return [*messages, data[at:]], b""
        return messages, data[at:]


def message_end(data: bytes, at: int) -> int:
    """Where the RESP message that begins at `at` ends; 0 when it is not all there.

    https://valkey.io/topics/protocol/

    Raises:
        ValueError: this is not RESP.
    """
    pending = 1
    while pending:
        line_end = data.find(b"\r\n", at)
        if at >= len(data) or line_end < 0:
            if at < len(data) and data[at] not in _KINDS:
                raise ValueError("no RESP")
            return 0
        kind, rest = data[at], data[at + 1 : line_end]
        at = line_end + 2
        pending -= 1
        if kind in b"$=!":
            length = int(rest)
            if length >= 0:
                at += length + 2
        elif kind in b"*~>":
            pending += max(0, int(rest))
        elif kind in b"%|":
            pending += 2 * int(rest) + (kind in b"|")
        elif kind not in b"+-:_#,(":
            raise ValueError("no RESP")
    return at if at <= len(data) else 0


_KINDS = b"$=!*~>%|+-:_#,("


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, not with a goodbye."""
    transport = writer.transport
    if not transport.is_closing():
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "localhost", parts.port or 6379


def _never(_: bytes) -> bool:
    return False


def _each(way: Ways) -> list[Literal["up", "down"]]:
    return ["up", "down"] if way == "both" else [way]


async def _nothing() -> None:
    return None
