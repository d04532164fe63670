"""Tasks that add to the flow they are of. What ran is in the ledger."""

from __future__ import annotations

import os
import select
from pathlib import Path

from headrace import Headrace, Retry, StaleRun, current_flow, current_job, group

app = Headrace(queues=["default", "other"])


def note(*values: object) -> None:
    handle = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, (" ".join(map(str, ("start", *values))) + "\n").encode())
    finally:
        os.close(handle)


@app.task
def leaf(name: str) -> str:
    note("leaf", name)
    return name


@app.task(queue="other", result_ttl=0)
def far(name: str) -> str:
    note("far", name)
    return name


@app.task
def join(names: list[str]) -> str:
    note("join", ",".join(names))
    return "".join(names)


@app.task
def end(what: object = None) -> str:
    note("end")
    return "end"


@app.task
def crawl(name: str, depth: int, width: int) -> int:
    """Adds a tree of jobs below itself, all of which the step `end` waits for."""
    note("crawl", name)
    for n in range(width if depth else 0):
        current_flow().add(crawl.call(f"{name}{n}", depth - 1, width), before=end)
    current_flow().add(far.call(name), before=end)
    return depth


@app.task
async def acrawl(name: str) -> str:
    await current_flow().aadd(group(leaf.call(f"{name}{n}") for n in range(3)) >> join, before="growing_jobs.end")
    return name


@app.task(retry=Retry(3, delay=0))
def twice(name: str, gate: str) -> int:
    """Adds, fails, and adds the same again."""
    flow = current_flow()
    first = flow.add(far.call(name), before=end)
    second = flow.add(leaf.call(f"{name}-after"), after=first, before=end)
    keyed = flow.add(leaf.call(f"{name}-{current_job().attempt}"), key="one", before=end)
    note("added", first.is_new, second.is_new, keyed.is_new)
    if current_job().attempt < 3:
        raise ValueError("again")
    return 1


@app.task
def stalls(gate: str) -> int:
    """Its first run wakes up when it has been taken for dead."""
    is_first = not Path(gate + ".first").exists()
    Path(gate + ".first").touch()
    note("stalls", os.getpid())
    while is_first and not Path(gate).exists():
        select.select([], [], [], 0.005)
    try:
        current_flow().add(leaf.call("stale" if is_first else "fresh"), before=end)
        note("grew", is_first)
    except StaleRun:
        note("refused")
    return 1
