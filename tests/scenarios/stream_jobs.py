"""Generator tasks that stand at a gate in the middle of their first run. Who stood there is in the ledger."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from headrace import Headrace, Retry, current_job

ITEMS = 1_200
app = Headrace()


def note(*values: object) -> None:
    handle = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, (" ".join(map(str, values)) + "\n").encode())
    finally:
        os.close(handle)


def is_open() -> bool:
    return (Path(os.environ["LEDGER"]).parent / "open").exists()


@app.task(retry=Retry(3, delay=0.1, factor=1))
def items() -> Iterator[int]:
    """Begins anew in each run."""
    current_job().log("a run")
    for n in range(ITEMS):
        if n == ITEMS // 2 and not is_open():
            note("stands", os.getpid())
            while not is_open():
                select.select([], [], [], 0.01)
        yield n


@app.task(retry=Retry(3, delay=0.1, factor=1))
async def aitems() -> AsyncIterator[int]:
    """Goes on at the last checkpoint."""
    job = current_job()
    job.log("a run")
    done = job.saved or 0
    note("begin", done)
    job.resume_at(done)
    for n in range(done, ITEMS):
        if n == ITEMS // 2 and not is_open():
            note("stands", os.getpid())
            while not is_open():
                await asyncio.sleep(0.01)
        yield n
        if n % 100 == 99:
            await job.asave(n + 1)
