"""The tasks that are tortured. Each start and end is one line, one O_APPEND write: a killed process leaves no half line."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.app import Headrace
from headrace.context import current_job
from headrace.core.retry import Retry
from headrace.torture.ledger import Ledger
from headrace.torture.names import QUEUES

MOST_MEMORY_BYTES = 2 << 30
KEPT_S = 40 * 86_400
"""A record must outlast the hours that the server's clock jumps ahead, or a call that is sent again is not known any more."""

app = Headrace(queues=QUEUES, result_ttl=KEPT_S)
_audit = os.open(os.environ["HEADRACE_TORTURE_AUDIT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_ledger = Ledger(os.environ["HEADRACE_TORTURE_LEDGER"])
_name = os.environ["HEADRACE_TORTURE_NAME"]
resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _write(word: str) -> None:
    job = current_job()
    os.write(_audit, f"{word} {job.id} {job.fence} {os.getpid()} {_name} {time.monotonic():.3f}\n".encode())


@contextmanager
def _run() -> Iterator[None]:
    """One run of a job; its effect, when it comes to its end. No line follows the start of one whose process was killed."""
    _write("start")
    try:
        yield
        _ledger.count(current_job())
    except BaseException:
        _write("left")
        raise
    _write("end")


@app.task
def work(seconds: float) -> None:
    """A job of the common kind."""
    with _run():
        time.sleep(seconds)


@app.task
async def awork(seconds: float) -> None:
    with _run():
        await asyncio.sleep(seconds)


@app.task(retry=Retry(8, delay=0.2, factor=1))
def fails(chance: float) -> None:
    """Raises now and then, and is retried."""
    with _run():
        if random.random() < chance:
            raise ConnectionError("the other side hung up")


@app.task(retry=Retry(8, delay=0.2, factor=1), timeout=1.0)
def hangs(chance: float) -> None:
    """Runs into its timeout now and then; half the time so that only a kill ends it."""
    with _run():
        if random.random() < chance:
            if random.random() < 0.5:
                sum(range(10**12))
            time.sleep(3600)


@app.task(retry=Retry(8, delay=0.2, factor=1))
def swells(chance: float) -> None:
    """Asks for more memory than its process may have, now and then."""
    with _run():
        if random.random() < chance:
            bytearray(2 * MOST_MEMORY_BYTES)


@app.task
def dies(chance: float) -> None:
    """Takes its process with it now and then, as a fault in a library written in C would."""
    with _run():
        if random.random() < chance:
            os.kill(os.getpid(), signal.SIGKILL)
