"""A server whose clock tests can move: libfaketime under the real server, so that the clock path of production is tested."""

from __future__ import annotations

import glob
import os
import select
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from headrace.server import EmbeddedServer, embedded_binary

_PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")
NEAR_MS = 2_000


def shared_object() -> str | None:
    """Where libfaketime is, if it is installed."""
    return next((path for place in _PLACES for path in glob.glob(place)), None)


class ServerClock:
    """The clock of one server: it only goes forward."""

    def __init__(self, url: str, file: Path) -> None:
        self._redis: Any = redis.Redis.from_url(url)
        self._file = file
        self._ahead_s = 0

    def advance(self, seconds: int) -> None:
        """Move it, and wait until the server tells the new time."""
        self._ahead_s += seconds
        new = self._file.with_suffix(".new")
        new.write_text(f"+{self._ahead_s}\n")
        os.replace(new, self._file)
        ends = time.monotonic() + 30
        while abs(self.now_ms() - self._ahead_s * 1000 - time.time() * 1000) > NEAR_MS:
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
    file = folder / "clock"
    file.write_text("+0\n")
    wrapper = folder / "server"
    settings = f"FAKETIME_TIMESTAMP_FILE={shlex.quote(str(file))} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
    wrapper.write_text(
        f'#!/bin/sh\nexec env LD_PRELOAD={shlex.quote(found)} {settings} {shlex.quote(embedded_binary())} "$@"\n'
    )
    wrapper.chmod(0o700)
    with EmbeddedServer(binary=str(wrapper)) as server:
        clock = ServerClock(server.url, file)
        try:
            yield server.url, clock
        finally:
            clock.close()
