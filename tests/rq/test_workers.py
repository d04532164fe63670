"""How a worker works: when it ends, and what it tells of itself."""

from __future__ import annotations

import json

import rq_jobs
from rq_bench import Bench

from headrace.contrib.rq import Queue


def test_a_worker_ends_after_so_many_jobs_or_so_long_without(bench: Bench) -> None:
    """`max_jobs` leaves the rest where it is; `max_idle_time` waits for none; `work()` tells whether there was any."""
    queue = Queue(connection=bench.connection)
    for number in range(3):
        queue.enqueue(rq_jobs.note, number)
    two = bench.start("own_worker.py", json.dumps({"max_jobs": 2}))
    assert two.wait(60) == 0 and bench.ran() == [0, 1] and "worked True" in bench.log_of(two)
    rest = bench.start("own_worker.py", json.dumps({"max_idle_time": 1}))
    assert rest.wait(60) == 0 and bench.ran() == [0, 1, 2] and "worked True" in bench.log_of(rest)
    none = bench.start("own_worker.py", json.dumps({"max_idle_time": 1}))
    assert none.wait(60) == 0 and "worked False" in bench.log_of(none)


def test_what_forks_a_workers_processes_is_replaced_when_it_dies(bench: Bench) -> None:
    """Both its children are killed, the one that forks and the one that works: jobs run again."""
    worker = bench.start("own_worker.py", "{}")
    queue = Queue(connection=bench.connection)
    assert queue.enqueue(rq_jobs.note, 1).wait(60)
    for child in bench.children_of(worker.pid):
        child.kill()
    assert queue.enqueue(rq_jobs.note, 2).wait(60)
    assert "the spawner ended" in bench.log_of(worker)
