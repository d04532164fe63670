"""What the jobs of every library do: each start and end is one line, one O_APPEND write, so a killed process leaves no half line.

Runs inside each library's own environment: nothing but the standard library here. `end` is written after the work, before the library
hears of it: a job whose process dies in between has had its effect, and has it twice when it runs again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

QUEUES = ("high", "default", "low")
URL = os.environ.get("VERSUS_URL", "redis://localhost:6379/0")
WORK_S = 0.01

_log = os.open(os.environ.get("VERSUS_EFFECTS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def write(word: str, name: str) -> None:
    os.write(_log, f"{word} {name} {os.getpid()} {time.monotonic_ns()}\n".encode())


def note(name: str) -> None:
    """A job that does nothing but say so."""
    write("start", name)
    write("end", name)


def work(name: str) -> None:
    """A job of ten milliseconds."""
    write("start", name)
    time.sleep(WORK_S)
    write("end", name)


async def awork(name: str) -> None:
    write("start", name)
    await asyncio.sleep(WORK_S)
    write("end", name)


def poison(name: str) -> None:
    """Kills the process that runs it, as the out-of-memory killer would."""
    write("start", name)
    os.kill(os.getpid(), signal.SIGKILL)
