"""Real workers for the scenarios: processes started as users start them, a ledger of what ran, and waits on signals."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import redis

from headrace import Headrace
from headrace.engine.keys import queue_keys

HERE = Path(__file__).parent
QUEUES = ("high", "default", "low")


def until(done: Callable[[], Any], *, timeout_s: float = 30.0, what: str = "") -> Any:
    """Poll each 5 ms until `done()` is true, and return it."""
    ends = time.monotonic() + timeout_s
    while True:
        found = done()
        if found:
            return found
        assert time.monotonic() < ends, f"not in {timeout_s:g} s: {what or done}"
        select.select([], [], [], 0.005)


class Worker:
    """One `headrace worker`, its processes, and what it said."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str, timeout_s: float = 15.0) -> re.Match[str]:
        """Wait until it has said something that matches."""

        def look() -> re.Match[str] | None:
            assert self.process.poll() is None or re.search(pattern, self.said), (
                f"ended with {self.process.returncode}:\n{self.said[-3000:]}"
            )
            return re.search(pattern, self.said)

        try:
            found: re.Match[str] = until(look, timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"no {pattern!r}: {error}\n{self.said[-3000:]}") from None
        return found

    def descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def terminate(self, timeout_s: float = 40.0) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


class Lab:
    """One server, one ledger, any number of workers on `ledger:app`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.workers: list[Worker] = []
        self.app = Headrace(url)
        self.redis: Any = redis.Redis.from_url(url, decode_responses=True) if "+" not in url else None

    def start(self, *args: str, ready: int = 1, app: str = "ledger:app", wait: bool = True) -> Worker:
        """Start a worker; wait until `ready` consumers have their sessions."""
        log = self.folder / f"worker{len(self.workers)}.log"
        before = self.sessions()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace", "worker", *args, "-A", app],
                cwd=HERE, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "HEADRACE_URL": self.url, "LEDGER": str(self.ledger), "PYTHONWARNINGS": "error"},
            )  # fmt: skip
        worker = Worker(process, log)
        self.workers.append(worker)
        if wait:

            def is_ready() -> bool:
                assert process.poll() is None, f"ended with {process.returncode}:\n{worker.said}"
                return len(self.sessions() - before) >= ready

            until(is_ready, timeout_s=30, what=f"{ready} sessions")
        return worker

    def sessions(self, queue: str = "default") -> set[str]:
        if self.redis is None:
            key = queue_keys(queue).sessions
            from headrace.engine.call import command

            return set(self.app.client.run(command("ZRANGE", key, 0, -1, key=key, decode=list)))
        try:
            return set(self.redis.zrange(queue_keys(queue).sessions, 0, -1))
        except redis.RedisError:
            return set()

    def lines(self, word: str) -> list[list[str]]:
        """The ledger's lines that begin with `word`, without it."""
        rows = (line.split() for line in self.ledger.read_text().splitlines())
        return [row[1:] for row in rows if row and row[0] == word]

    def starts(self) -> Counter[int]:
        return Counter(int(row[0]) for row in self.lines("start"))

    def ends(self) -> Counter[int]:
        return Counter(int(row[0]) for row in self.lines("end"))

    def pid_of(self, number: int) -> int:
        """Who started this job last; waits for the start."""
        until(lambda: self.starts()[number], what=f"start of {number}")
        return [int(row[2]) for row in self.lines("start") if int(row[0]) == number][-1]

    def live_jobs(self) -> dict[str, int]:
        """What is left anywhere, by place."""
        left: dict[str, int] = {}
        for name in QUEUES:
            keys = queue_keys(name)
            held = sum(self.redis.scard(key) for key in self.redis.scan_iter(f"{keys.base}held:*"))
            counts = {
                "ready": self.redis.llen(keys.ready), "priority": self.redis.zcard(keys.priority),
                "delayed": self.redis.zcard(keys.delayed), "suspects": self.redis.llen(keys.suspects), "held": held,
            }  # fmt: skip
            left |= {f"{name} {place}": count for place, count in counts.items() if count}
        return left

    def close(self) -> None:
        for worker in self.workers:
            descendants = worker.descendants()
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait(10)
            for child in descendants:
                if child.is_running():
                    child.kill()
        self.app.close()
        if self.redis is not None:
            self.redis.close()
