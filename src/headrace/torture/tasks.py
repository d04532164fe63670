"""The tasks that are tortured. Each start and end is one line, one O_APPEND write: a killed process leaves no half line."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

from headrace.app import Headrace
from headrace.context import current_job
from headrace.core.retry import Retry
from headrace.torture.ledger import Ledger
from headrace.torture.names import QUEUES

app = Headrace(queues=QUEUES)
_audit = os.open(os.environ["HEADRACE_TORTURE_AUDIT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_ledger = Ledger(os.environ["HEADRACE_TORTURE_LEDGER"])


def _write(word: str) -> None:
    job = current_job()
    os.write(_audit, f"{word} {job.id} {job.fence} {os.getpid()}\n".encode())


def _end() -> None:
    _ledger.count(current_job())
    _write("end")


@app.task
def work(seconds: float) -> None:
    """A job of the common kind."""
    _write("start")
    time.sleep(seconds)
    _end()


@app.task
async def awork(seconds: float) -> None:
    _write("start")
    await asyncio.sleep(seconds)
    _end()


@app.task(retry=Retry(8, delay=0.2, factor=1))
def fails(chance: float) -> None:
    """Raises now and then, and is retried."""
    _write("start")
    if random.random() < chance:
        raise ConnectionError("the other side hung up")
    _end()


@app.task(retry=Retry(8, delay=0.2, factor=1), timeout=1.0)
def hangs(chance: float) -> None:
    """Runs into its timeout now and then; half the time so that only a kill ends it."""
    _write("start")
    if random.random() < chance:
        if random.random() < 0.5:
            sum(range(10**12))
        time.sleep(3600)
    _end()


@app.task
def dies(chance: float) -> None:
    """Takes its process with it now and then, as the out-of-memory killer would."""
    _write("start")
    if random.random() < chance:
        os.kill(os.getpid(), signal.SIGKILL)
    _end()
