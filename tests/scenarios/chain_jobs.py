"""Tasks of the chain and flow scenarios. What they ran with is in the ledger."""

from __future__ import annotations

import os
import select
from pathlib import Path

from headrace import Headrace, current_job

app = Headrace(queues=["default", "other"])


def note(*values: object) -> None:
    handle = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, (" ".join(map(str, ("start", *values))) + "\n").encode())
    finally:
        os.close(handle)


@app.task
def one(number: int) -> int:
    note("one", number)
    return number + 1


@app.task(queue="other", result_ttl=0)
def double(number: int) -> int:
    note("double", number)
    return number * 2


@app.task
def text(number: int, unit: str = "") -> str:
    note("text", number, unit)
    return f"{number}{unit}"


@app.task
def total(numbers: list[int]) -> int:
    note("total", len(numbers))
    return sum(number or 0 for number in numbers)


@app.task
async def atotal(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def breaks(number: int, gate: str = "") -> int:
    note("breaks", number)
    if gate and Path(gate).exists():
        return number
    raise ValueError("broken")


@app.task
def says(what: object) -> object:
    note("says", what)
    return what


@app.task
def holds(gate: str) -> int:
    note("holds", current_job().id, os.getpid())
    while not Path(gate).exists():
        select.select([], [], [], 0.005)
    return 1


@app.task
def adds(number: int, *results: int) -> int:
    """One more than what it is given together."""
    note("adds", number)
    return 1 + sum(results)


@app.task(queue="other")
def adds_far(number: int, *results: int) -> int:
    note("adds", number)
    return 1 + sum(results)
