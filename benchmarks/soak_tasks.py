"""The jobs of the soak: each kind that a day's work is made of, for every pool."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time

from headrace import Headrace, Limit, Retry, Unique, current_job

POOLS = ("prefork", "threads", "asyncio", "fork")

app = Headrace(queues=list(POOLS))


@app.task(result_ttl=0)
def nothing(number: int) -> None:
    """Done at once, and forgotten."""


@app.task(result_ttl=0)
async def anothing(number: int) -> None:
    """The same, as a coroutine."""
    await asyncio.sleep(0)


@app.task(result_ttl=600)
def kept(number: int) -> bytes:
    """Its result is kept for ten minutes."""
    return number.to_bytes(8, "big") * 25


@app.task(retry=Retry(3, delay=20, factor=1))
def flaky(number: int) -> int:
    """Succeeds at its first, second or third attempt."""
    if current_job().attempt <= number % 3:
        raise ConnectionError(f"attempt {current_job().attempt}")
    return number


@app.task
def breaks(number: int) -> None:
    """Fails."""
    raise ValueError(f"number {number}")


@app.task(timeout=2.0)
def overdue(number: int) -> None:
    """Runs into its timeout."""
    while True:
        time.sleep(0.1)


@app.task(result_ttl=60)
def reports(number: int) -> int:
    """Tells how far it is."""
    job = current_job()
    for step in range(3):
        job.progress(step / 3, f"step {step}")
        job.log(f"step {step} of {number}")
    return number


@app.task(result_ttl=60)
def patient(number: int) -> str:
    """Goes on for ten seconds, or until it is asked to stop."""
    for _ in range(100):
        if current_job().is_cancelled:
            return "stopped"
        time.sleep(0.1)
    return "went on"


@app.task(result_ttl=0, limits=Limit("narrow", concurrency=2))
def limited(number: int) -> None:
    """At most two at a time."""
    time.sleep(0.05)


@app.task(result_ttl=0, unique=Unique("number", on_conflict="raise"))
def unique(number: int) -> None:
    """One of each number at a time."""


class Mallinfo(ctypes.Structure):
    """What glibc's mallinfo2 returns (malloc.h)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def in_use() -> tuple[int, int]:
    """What this process has in use: how many of Python's blocks, and how many bytes of the C library's."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Mallinfo
    found = ask()
    return sys.getallocatedblocks(), found.uordblks + found.hblkhd


@app.task(result_ttl=7_200)
def measures() -> tuple[int, int, int, int]:
    """Its process, the parent of that (which it was forked from, in a pool that forks for each job), and what is in use."""
    return os.getpid(), os.getppid(), *in_use()
