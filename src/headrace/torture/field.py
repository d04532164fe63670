"""What is tortured: a server, its links, producers and workers of every pool, each a real process that comes back when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headrace.testing.proxy import FaultProxy
from headrace.torture.names import QUEUES

POOLS: tuple[tuple[str, ...], ...] = (
    ("prefork", "--processes", "2"),
    ("threads", "--slots", "4"),
    ("asyncio", "--slots", "10"),
    ("fork", "--processes", "2"),
)
LEASE_S = 2
WORKER_ARGUMENTS = ("--lease", str(LEASE_S), "--grace", "2", "--kill-after", "1", "--log-level", "warning")


@dataclass(frozen=True, slots=True)
class Files:
    """Where everything is written; `ledger` is a path, or a URL of PostgreSQL."""

    folder: Path
    ledger: str

    @property
    def audit(self) -> Path:
        return self.folder / "audit"

    def environment(self, name: str, url: str) -> dict[str, str]:
        names = {
            "HEADRACE_URL": url,
            "HEADRACE_TORTURE_AUDIT": str(self.audit),
            "HEADRACE_TORTURE_LEDGER": self.ledger,
            "HEADRACE_TORTURE_NAME": name,
        }
        return {**os.environ, **names}


class Member:
    """One process of the field, behind a link of its own. What it says goes to a file."""

    def __init__(self, name: str, arguments: Sequence[str], files: Files, link: FaultProxy) -> None:
        self.name = name
        self.link = link
        self._arguments = [sys.executable, "-m", *arguments]
        self.log = files.folder / f"{name}.log"
        self._files = files
        self.starts = 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._arguments, env=self._files.environment(self.name, self.link.url), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def come_back(self) -> bool:
        """Start it again if it has ended; True then."""
        if self.is_running:
            return False
        self.process = self._start()
        return True

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def children(self) -> list[int]:
        """All processes below the first: its spawner, and those that run jobs."""
        return descendants(self.process.pid)

    def signal_all(self, number: int) -> None:
        for pid in (self.process.pid, *self.children()):
            send(pid, number)

    def largest(self) -> int:
        """The process that the kernel would kill first if memory ran out (Linux: its oom_score; else the first one)."""
        return max((self.process.pid, *self.children()), key=_oom_score)

    def stop(self, timeout_s: float) -> int:
        """SIGTERM, and SIGKILL when that takes too long; its exit code."""
        self.signal_all(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.signal_all(signal.SIGKILL)
            return self.process.wait()


def make_worker(pool: Sequence[str], files: Files, link: FaultProxy) -> Member:
    arguments = ["headrace", "worker", *QUEUES, "-A", "headrace.torture.tasks:app", "--pool", *pool, *WORKER_ARGUMENTS]
    return Member(f"worker-{pool[0]}", arguments, files, link)


def make_producer(number: int, seed: int, files: Files, link: FaultProxy) -> Member:
    name = f"p{number}"
    arguments = [
        "headrace.torture.producer",
        link.url,
        str(files.folder / f"{name}.acked"),
        name,
        str(seed * 1000 + number),
    ]
    return Member(f"producer-{number}", arguments, files, link)


def send(pid: int, number: int) -> None:
    assert pid > 0, "0 would be this process's own group"
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _oom_score(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/oom_score").read_text())
    except OSError:
        return -1  # it has ended


def descendants(pid: int) -> list[int]:
    """Every process below this one (Linux: from /proc), also those that changed their group."""
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found
