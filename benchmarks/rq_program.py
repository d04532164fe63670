"""The program of `rq_side_by_side.py`, as a user of RQ writes it; $RQ_PACKAGE says whose names it takes.

rq_program.py work | enqueue COUNT SECONDS | enqueue-nothing COUNT | run-forking COUNT | run-simple COUNT | fates
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import Any

import redis

rq: Any = importlib.import_module(os.environ["RQ_PACKAGE"])
registry: Any = importlib.import_module(f"{rq.__name__}.registry")

listen = ["high", "default", "low"]
conn = redis.from_url(os.environ["REDISTOGO_URL"])


def note(number: int, seconds: float) -> int:
    time.sleep(seconds)
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    os.write(ledger, f"{number}\n".encode())
    os.close(ledger)
    return number


def nothing() -> None: ...


def main(word: str, *given: str) -> None:
    import rq_program  # the functions of __main__ cannot be enqueued

    queues = [rq.Queue(name, connection=conn) for name in listen]
    began = time.perf_counter()
    if word == "work":
        rq.Worker(queues, connection=conn).work()
    elif word == "enqueue":
        for number in range(int(given[0])):
            queues[number % 3].enqueue(rq_program.note, number, float(given[1]), result_ttl=3600)
    elif word == "enqueue-nothing":
        for _ in range(int(given[0])):
            queues[1].enqueue(rq_program.nothing)
    elif word in ("run-forking", "run-simple"):
        kind = rq.Worker if word == "run-forking" else rq.SimpleWorker
        kind([queues[1]], connection=conn).work(burst=True, logging_level="WARNING")
        assert queues[1].count == 0
    elif word == "fates":
        tell_fates(queues)
    print("seconds", time.perf_counter() - began, flush=True)


def tell_fates(queues: list[Any]) -> None:
    """A line for each job that has not ended well: it failed, or still waits."""
    places = {
        "failed": registry.FailedJobRegistry,
        "waiting": registry.StartedJobRegistry,
        "scheduled": registry.ScheduledJobRegistry,
    }
    for queue in queues:
        for word, kind in places.items():
            for job_id in kind(queue=queue).get_job_ids():
                print("fate", job_id, "waiting" if word == "scheduled" else word)
        for job_id in queue.job_ids:
            print("fate", job_id, "waiting")


if __name__ == "__main__":
    main(*sys.argv[1:])
