"""The tasks that the benchmarks run: nothing, and a stamp of when it started."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from headrace import Batch, Headrace

app = Headrace(queues=["bench"])
_file = os.environ.get("HEADRACE_BENCH_STAMPS")
_stamps = os.open(_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if _file else -1


if _calls := os.environ.get("HEADRACE_BENCH_CALLS"):
    counted = 0

    def _count(frame: Any, event: str, _: Any) -> None:
        global counted
        if event == "call" and "/headrace/" in frame.f_code.co_filename:
            counted += 1

    @app.on_start
    def begin_to_count() -> None:
        """From here on each Python call of headrace's own in the thread that runs jobs."""
        sys.setprofile(_count)

    @app.on_stop
    def tell_count() -> None:
        sys.setprofile(None)
        with open(str(_calls), "w") as file:
            file.write(str(counted))


@app.task(queue="bench", result_ttl=0)
def noop(url: str) -> None:
    """Do nothing, keep nothing."""


@app.task(queue="bench", result_ttl=0, batch=Batch(max=256, wait=0.01))
def noop_batch(urls: list[str]) -> None:
    """Do nothing for many at once, keep nothing."""


@app.task(queue="bench")
def noop_kept(url: str) -> None:
    """Do nothing; that it succeeded is kept."""


@app.task(queue="bench", result_ttl=0)
def stamp(sent_ns: int) -> None:
    """Write how long after `sent_ns` (CLOCK_MONOTONIC) the body began, in µs."""
    os.write(_stamps, b"%d\n" % ((time.monotonic_ns() - sent_ns) // 1000))


@app.task(queue="bench")
def hold() -> None:
    """Write who started, and when; then run until the process ends."""
    os.write(_stamps, b"%d %d\n" % (os.getpid(), time.monotonic_ns()))
    time.sleep(3600)
