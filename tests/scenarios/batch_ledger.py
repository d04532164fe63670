"""The batch tasks of the scenarios: an app of its own, which writes into the same ledger.

`batch PID NUMBERS` as a handler begins, `end NUMBER` for each item it is done with.
"""

from __future__ import annotations

import os
import signal

from ledger import wait, write

from headrace import Batch, Headrace, Retry, current_batch

app = Headrace(queues=["high", "default", "low"])


def begin(numbers: list[int]) -> None:
    write("batch", os.getpid(), *numbers)
    for number, job in zip(numbers, current_batch().jobs, strict=True):
        write("start", number, job.attempt, os.getpid())


def finish(numbers: list[int]) -> list[int]:
    for number in numbers:
        write("end", number)
    return numbers


@app.task(batch=Batch(max=3, wait=10))
def three(numbers: list[int]) -> list[int]:
    """Waits long for the third."""
    begin(numbers)
    return finish(numbers)


@app.task(batch=Batch(max=1000, wait=10))
def many(numbers: list[int]) -> list[int]:
    """Waits long for very many."""
    begin(numbers)
    return finish(numbers)


@app.task(batch=Batch(max=1000, wait=0.3))
def soon(numbers: list[int]) -> list[int]:
    begin(numbers)
    return finish(numbers)


@app.task(batch=Batch(max=1000, wait=0.2))
async def asoon(numbers: list[int]) -> list[int]:
    begin(numbers)
    return finish(numbers)


@app.task(batch=Batch(max=5, wait=10))
def gated(items: list[tuple[int, str]]) -> list[int]:
    """Goes on when the first item's file is there."""
    numbers = [number for number, _ in items]
    begin(numbers)
    while not os.path.exists(items[0][1]):
        wait(0.01)
    return finish(numbers)


@app.task(batch=Batch(max=5, wait=10))
def dies_of_three(numbers: list[int]) -> list[int]:
    """Number 3 takes the process with it."""
    begin(numbers)
    if 3 in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    return finish(numbers)


@app.task(batch=Batch(max=3, wait=10), timeout=0.3, retry=Retry(1, delay=0.05))
def too_long(numbers: list[int]) -> None:
    begin(numbers)
    for _ in range(2_000):
        wait(0.01)


@app.task(batch=Batch(max=3, wait=10), timeout=0.3)
def holds_the_gil(numbers: list[int]) -> None:
    begin(numbers)
    sum(range(10**12))


@app.task
def plain(number: int) -> int:
    write("plain", number)
    return number
