"""The tasks that the benchmarks run: nothing, and a stamp of when it started."""

from __future__ import annotations

import os
import time

from headrace import Headrace

app = Headrace(queues=["bench"])
_file = os.environ.get("HEADRACE_BENCH_STAMPS")
_stamps = os.open(_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if _file else -1


@app.task(queue="bench", result_ttl=0)
def noop(url: str) -> None:
    """Do nothing, keep nothing."""


@app.task(queue="bench")
def noop_kept(url: str) -> None:
    """Do nothing; that it succeeded is kept."""


@app.task(queue="bench", result_ttl=0)
def stamp(sent_ns: int) -> None:
    """Write how long after `sent_ns` (CLOCK_MONOTONIC) the body began, in µs."""
    os.write(_stamps, b"%d\n" % ((time.monotonic_ns() - sent_ns) // 1000))
