"""The programs of a system as processes: workers and web servers, started as a person would, and stopped in order."""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
STOPS_WITHIN_S = 40.0
_PR_SET_PDEATHSIG = 1


class Program:
    """One of them, and what it said."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_it_says(self, pattern: str, timeout_s: float = 30.0) -> None:
        """Raises RuntimeError, with what it did say, when it ends first or does not say it in time."""
        ends = time.monotonic() + timeout_s
        while not re.search(pattern, self.said):
            code = self.process.poll()
            if code is not None or time.monotonic() > ends:
                raise RuntimeError(f"{self.log.stem} (exit code {code}) did not say {pattern!r}:\n{self.said[-3000:]}")
            select.select([], [], [], 0.02)

    def stop(self) -> None:
        """TERM, and KILL when that is not enough."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """End it, and all it started, as `kill -9` does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def end_with_starter(number: signal.Signals) -> Callable[[], None] | None:
    """What a child runs before exec, so that it gets this signal when its starter dies, however it dies (on Linux)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def run() -> None:
        prctl(_PR_SET_PDEATHSIG, number)

    return run


@contextmanager
def running(
    words: Sequence[str], *, log: Path, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> Iterator[Program]:
    """`python -m WORDS` in the folder above `systems`, away from this terminal's Ctrl-C."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            pass_fds=pass_fds,
            preexec_fn=end_with_starter(signal.SIGTERM),
        )
    program = Program(process, log)
    try:
        yield program
    finally:
        program.stop()


@contextmanager
def worker(app: str, *arguments: str, log: Path, environment: Mapping[str, str]) -> Iterator[Program]:
    """A `headrace worker`, started: it takes jobs as soon as its processes are there."""
    with running(["headrace", "worker", "-A", app, *arguments], log=log, environment=environment) as program:
        program.wait_until_it_says(r"task\(s\)")
        yield program


@contextmanager
def web_server(
    module: str, *, log: Path, environment: Mapping[str, str], host: str = "127.0.0.1", port: int = 0
) -> Iterator[tuple[Program, str]]:
    """An application under uvicorn, and its URL. It listens before it starts, so no request is refused meanwhile."""
    with socket.create_server((host, port), backlog=2048) as listening:
        url = f"http://{host}:{listening.getsockname()[1]}"
        fd = listening.fileno()
        words = [
            "uvicorn",
            module,
            "--fd",
            str(fd),
            "--no-access-log",
            "--log-level",
            "warning",
            "--timeout-keep-alive",
            "75",
        ]
        with running(words, log=log, environment=environment, pass_fds=[fd]) as program:
            yield program, url


def until(done: Callable[[], object], timeout_s: float, what: str) -> None:
    """Look ten times a second until `done()` is true; raises TimeoutError."""
    ends = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > ends:
            raise TimeoutError(f"not in {timeout_s:g} s: {what}")
        select.select([], [], [], 0.1)
