"""What the measurements share: a server, a worker, and counters read from the server."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from headrace.engine.keys import queue_keys

HERE = Path(__file__).parent
QUEUE = queue_keys("bench")
URL = "https://example.com/some/path/to/a/page?with=query&and=more"


def pause(seconds: float) -> None:
    select.select([], [], [], seconds)


def until(done: Callable[[], Any], *, timeout_s: float = 120.0, every_s: float = 0.005) -> None:
    """Poll until `done()` is true.

    Raises:
        TimeoutError
    """
    ends = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > ends:
            raise TimeoutError(f"not done in {timeout_s:g} s")
        pause(every_s)


class Server:
    """A client for counters; CPU is that of the server's main thread, in seconds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis: Any = redis.Redis.from_url(url, protocol=2)

    def reset(self) -> None:
        self.redis.flushall()

    def cpu_s(self) -> float:
        info = self.redis.info("cpu")
        return float(info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])

    def memory(self) -> int:
        return int(self.redis.info("memory")["used_memory"])

    def calls(self) -> dict[str, int]:
        return {name[8:]: int(row["calls"]) for name, row in self.redis.info("commandstats").items()}

    def succeeded(self) -> int:
        return int(self.redis.hget(QUEUE.stats, "succeeded") or 0)

    def pause(self) -> None:
        self.redis.hset(QUEUE.meta, "paused", "benchmark")

    def resume(self) -> None:
        self.redis.hdel(QUEUE.meta, "paused")
        self.redis.zadd(QUEUE.wake, {"1": 0})


@contextmanager
def worker(
    server: Server, *args: str, consumers: int = 1, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker, as its users start it; ready when all its sessions are open."""
    command = [sys.executable, "-m", "headrace", "worker", "-A", "tasks:app", "--log-level", "warning", *args]
    process = subprocess.Popen(
        command, cwd=HERE, env={**os.environ, "HEADRACE_URL": server.url, **(env or {})}, stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: server.redis.zcard(QUEUE.sessions) >= consumers or process.poll() is not None, timeout_s=30)
        if process.poll() is not None:
            raise RuntimeError(f"the worker ended with {process.returncode}: {' '.join(command)}")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
