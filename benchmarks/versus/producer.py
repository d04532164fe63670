"""The program that enqueues, in a library's own environment: reads orders from its input, notes each answer in a log.

    python producer.py ADAPTER LOG < orders

An order is one line of JSON: {"task", "kind", "first", "count", "every_ms"}. Each call is one line of the log, written when it has returned:
`ok NAME BEGAN_NS ENDED_NS` or `no NAME BEGAN_NS ENDED_NS ERROR`. A refused call is not tried again. Job N goes to queue N modulo 3.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from effects import QUEUES


def calls(order: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """(name, queue, when to call, on the monotonic clock) of each job of an order."""
    begins = time.monotonic()
    for at in range(order["count"]):
        number = order["first"] + at
        yield f"{order['kind']}-{number:06}", QUEUES[number % len(QUEUES)], begins + at * order["every_ms"] / 1000


def note(log: int, name: str, began_ns: int, error: BaseException | None) -> None:
    ended_ns = time.monotonic_ns()
    said = "" if error is None else f" {type(error).__name__}: {error}"[:300].encode("unicode_escape").decode()
    os.write(log, f"{'ok' if error is None else 'no'} {name} {began_ns} {ended_ns}{said}\n".encode())


def run(adapter: Any, log: int) -> None:
    for line in sys.stdin:
        order = json.loads(line)
        for name, queue, at in calls(order):
            time.sleep(max(at - time.monotonic(), 0))
            began_ns = time.monotonic_ns()
            try:
                adapter.enqueue(order["task"], name, queue)
            except Exception as error:
                note(log, name, began_ns, error)
            else:
                note(log, name, began_ns, None)


async def arun(adapter: Any, log: int) -> None:
    await adapter.connect()
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        for name, queue, at in calls(order):
            await asyncio.sleep(max(at - time.monotonic(), 0))
            began_ns = time.monotonic_ns()
            try:
                await adapter.enqueue(order["task"], name, queue)
            except Exception as error:
                note(log, name, began_ns, error)
            else:
                note(log, name, began_ns, None)


def main() -> None:
    adapter = importlib.import_module(f"adapters.{sys.argv[1]}")
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    if inspect.iscoroutinefunction(adapter.enqueue):
        asyncio.run(arun(adapter, log))
    else:
        run(adapter, log)


if __name__ == "__main__":
    main()
