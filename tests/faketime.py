"""A server whose clock tests can move forward, and see moved."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from headrace.server import EmbeddedServer, embedded_binary
from headrace.testing.clock import MovableClock

NEAR_MS = 2_000


class ServerClock:
    """The clock of one server: it only goes forward."""

    def __init__(self, url: str, clock: MovableClock) -> None:
        self._redis: Any = redis.Redis.from_url(url)
        self._clock = clock

    def advance(self, seconds: int) -> None:
        """Move it, and wait until the server tells the new time."""
        self._clock.move_to(self._clock.ahead_s + seconds)
        ends = time.monotonic() + 30
        while abs(self.now_ms() - (self._clock.ahead_s + time.time()) * 1000) > NEAR_MS:
            assert time.monotonic() < ends, "the server's clock did not move"
            select.select([], [], [], 0.001)

    def now_ms(self) -> int:
        seconds, micros = self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def close(self) -> None:
        self._redis.close()


@contextmanager
def server_with_clock(folder: Path, found: str) -> Iterator[tuple[str, ServerClock]]:
    """A Valkey under libfaketime, its URL and its clock."""
    movable = MovableClock(folder, found, embedded_binary())
    with EmbeddedServer(binary=movable.program) as server:
        clock = ServerClock(server.url, movable)
        try:
            yield server.url, clock
        finally:
            clock.close()
