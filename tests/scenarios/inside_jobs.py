"""Tasks that tell how far they are and save where they are. What they did is in the ledger."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator
from pathlib import Path

from headrace import Headrace, Retry, current_job, track

STEPS = 6
app = Headrace()


def note(*values: object) -> None:
    handle = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, (" ".join(map(str, values)) + "\n").encode())
    finally:
        os.close(handle)


def gate(name: str) -> Path:
    """The file whose appearance opens the gate."""
    return Path(os.environ["LEDGER"]).parent / name


@app.task(retry=Retry(3, delay=0.1, factor=1))
def steps(number: int) -> list[int]:
    """Goes on where an earlier run was; stands at a gate in the middle of the first run."""
    job = current_job()
    done: list[int] = job.saved or []
    note("begin", number, os.getpid(), len(done))
    for step in range(len(done), STEPS):
        note("step", number, step)
        done.append(step)
        job.save(done)
        if step == STEPS // 2 - 1 and not gate("open").exists():
            note("stands", number, os.getpid())
            while not gate("open").exists():
                select.select([], [], [], 0.01)
            raise ConnectionError("the other side hung up")
    return done


@app.task(retry=Retry(3, delay=0.1, factor=1))
async def asteps(number: int) -> list[int]:
    job = current_job()
    done: list[int] = job.saved or []
    note("begin", number, os.getpid(), len(done))
    for step in range(len(done), STEPS):
        note("step", number, step)
        done.append(step)
        await job.asave(done)
        if step == STEPS // 2 - 1 and not gate("open").exists():
            note("stands", number, os.getpid())
            while not gate("open").exists():
                await asyncio.sleep(0.01)
            raise ConnectionError("the other side hung up")
    return done


@app.task
def counts(most: int) -> None:
    """Tells of each of many quick items, then of the last, and stands there until the gate opens."""
    for item in track(range(most), text="items"):
        if item == most - 1:
            current_job().progress(0.75, "nearly")
            while not gate("open").exists():
                select.select([], [], [], 0.01)


@app.task
async def acounts(most: int) -> None:
    async def items() -> AsyncIterator[int]:
        for item in range(most):
            yield item

    async for item in track(items(), total=most, text="items"):
        if item == most - 1:
            current_job().progress(0.75, "nearly")
            while not gate("open").exists():
                await asyncio.sleep(0.01)


@app.task
async def saves_wrongly() -> None:
    current_job().save(1)
