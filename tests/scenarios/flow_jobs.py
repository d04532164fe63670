"""Tasks of the flow scenarios: limits, groups, unique keys, deadlines. Each start and end is one line of the ledger."""

from __future__ import annotations

import asyncio
import os
import select
import time
from pathlib import Path

from headrace import Headrace, JobCancelled, Limit, RetryIn, Unique, current_job

app = Headrace()


def note(word: str, *values: object) -> None:
    line = " ".join(str(value) for value in (word, *values)) + "\n"
    handle = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


@app.task(limits=Limit("narrow", concurrency=2))
def narrow(number: int, seconds: float) -> int:
    note("start", number, time.monotonic())
    select.select([], [], [], seconds)
    note("end", number, time.monotonic())
    return number


@app.task(limits=Limit("narrow", concurrency=2))
async def anarrow(number: int, seconds: float) -> int:
    note("start", number, time.monotonic())
    await asyncio.sleep(seconds)
    note("end", number, time.monotonic())
    return number


@app.task(limits=Limit("rate:{service}", rate="50/s"))
def send(number: int, service: str) -> int:
    note("start", number, time.monotonic())
    return number


@app.task(limits=Limit("shut:{service}", rate="1000/s", burst=100))
def asks(number: int, service: str, gate: str) -> int:
    note("start", number, time.monotonic())
    if current_job().attempt == 1 and not Path(gate).exists():
        Path(gate).touch()
        raise RetryIn(1.0, "429", limit="shut:{service}")
    return number


@app.task(group="tenant-{tenant}")
def turn(tenant: str, number: int) -> None:
    note("start", number, tenant)


@app.task(unique=Unique("number", until="start"))
def once(number: int, gate: str) -> int:
    note("start", number, os.getpid())
    while not Path(gate).exists():
        select.select([], [], [], 0.005)
    return number


@app.task
def stubborn(number: int) -> None:
    note("start", number, os.getpid())
    while True:
        try:
            while True:
                select.select([], [], [], 0.02)
        except JobCancelled:
            note("asked", number)


@app.task
def parent(number: int) -> str:
    note("start", number, os.getpid())
    return narrow.enqueue(number + 1, 0).id


@app.task
def sleeps(number: int) -> None:
    note("start", number, os.getpid())
    time.sleep(60)
