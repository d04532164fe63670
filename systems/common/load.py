"""A load of HTTP requests, and how long their answers took.

`full_speed`: each connection asks again as soon as it is answered: how much can it do? `steady`: requests are due at
fixed instants, and an answer's time counts from there, so that waiting for a slow server counts too ("coordinated
omission", Gil Tene, "How NOT to Measure Latency", 2015).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

ANSWER_WITHIN_S = 60.0
FIGURES = "SYSTEMS_FIGURES"
"""A file, for `systems.load`, which makes the table of all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: there was none. `due_s` counts from the start of the load."""

    due_s: float
    took_s: float
    status: int
    body: bytes


class Connection:
    """One HTTP/1.1 connection that is kept, and opened again when it breaks."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, more: str = "") -> tuple[int, bytes]:
        """The answer's status and body; 0 and b"" when there is none in time. `more`: lines of the head."""
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\nUser-Agent: load\r\n{more}\r\n"
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                if self._streams is not None and self._streams[0].at_eof():
                    await self.close()  # it was idle for longer than the server keeps one: nothing was asked yet
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._host, self._port)
                reader, writer = self._streams
                writer.write(head.encode() + body)
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().splitlines()
                headers = dict(line.split(": ", 1) for line in lines if line)
                return int(first.split()[1]), await reader.readexactly(int(headers["content-length"]))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            await self.close()
            return 0, b""

    async def closed_by_server(self) -> None:
        """Wait until the server has closed it, unasked."""
        if self._streams is not None:
            assert not await self._streams[0].read(1), "a server speaks when it is asked"

    async def close(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()


class Load:
    """`connections` that post to `path` what `make_body(n)` gives, n = 0, 1, …; the answers as they come in `answers`.

    Args:
        path: one for all, or what gives that of request n.
        rate: requests a second; None: as many as there can be.
    """

    def __init__(
        self,
        url: str,
        path: str | Callable[[int], str],
        make_body: Callable[[int], bytes],
        *,
        connections: int,
        rate: float | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.answers: list[Answer] = []
        self._url, self._path, self._make_body = url, path, make_body
        self._connections, self._rate = connections, rate
        self._more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._numbers = itertools.count()
        self._is_stopped = False

    def stop(self) -> None:
        """Let what is asked be answered, and end; from any thread."""
        self._is_stopped = True

    async def run(self, seconds: float = float("inf")) -> list[Answer]:
        """Post for so long, or until `stop`; all the answers."""
        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as senders:
            for _ in range(self._connections):
                senders.create_task(self._send(began_s, seconds))
        return self.answers

    async def _send(self, began_s: float, seconds: float) -> None:
        connection = Connection(self._url)
        while True:
            number, now_s = next(self._numbers), time.perf_counter() - began_s
            due_s = now_s if self._rate is None else number / self._rate
            if due_s >= seconds or self._is_stopped:
                break
            if due_s > now_s:
                await asyncio.sleep(due_s - now_s)
            path = self._path if isinstance(self._path, str) else self._path(number)
            status, body = await connection.post(path, self._make_body(number), self._more)
            self.answers.append(Answer(due_s, time.perf_counter() - began_s - due_s, status, body))
        await connection.close()


def quantile_ms(answers: Sequence[Answer], part: float) -> float:
    """The time within which this part of them had come."""
    times = sorted(answer.took_s for answer in answers)
    return times[min(len(times) - 1, int(part * len(times)))] * 1000 if times else 0.0


def keep_figure(system: str, what: str, figure: str) -> None:
    """For the table of all systems, if one is made."""
    if path := os.environ.get(FIGURES):
        with open(path, "a") as out:
            out.write(json.dumps([system, what, figure]) + "\n")
