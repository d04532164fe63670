"""The tutorial's programs run as they stand, and lose nothing."""

from __future__ import annotations

import random
import signal

import psutil
import pytest
from rq_bench import Bench
from rq_jobs import note
from scenario_lab import until

from headrace.contrib.rq import Connection, Queue, Worker, get_current_connection, pop_connection, push_connection
from headrace.contrib.rq.connections import NoRedisConnectionException
from headrace.contrib.rq.job import JobStatus


def test_a_worker_inside_connection_serves_every_queue_of_a_map(bench: Bench) -> None:
    """`Worker(map(Queue, listen))` keeps the first queue; results and statuses are read as in RQ."""
    bench.start("tutorial_worker.py")
    jobs = [
        Queue(name, connection=bench.connection).enqueue(note, n) for n, name in enumerate(("high", "default", "low"))
    ]
    for n, job in enumerate(jobs):
        assert job.wait(60)
        assert job.get_status() == JobStatus.FINISHED == "finished"
        assert n == job.result == job.return_value()


def test_without_a_connection_the_one_pushed_last_counts(bench: Bench) -> None:
    """Of this thread; inside `with Connection`, that one; and none at all is an error of RQ's type."""
    with pytest.raises(NoRedisConnectionException, match="Could not resolve a Redis connection"):
        Queue()
    push_connection(bench.connection)
    assert get_current_connection() is Queue().connection is bench.connection
    assert pop_connection() is bench.connection
    with Connection(bench.connection):
        worker = Worker(map(Queue, ["high", "low"]))
    assert worker.queue_names() == ["high", "low"]
    assert get_current_connection() is None


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("count", "kills"), [(150, 3), pytest.param(4_000, 40, marks=pytest.mark.long)], ids=["3 kills", "40 kills"]
)
def test_ten_worker_processes_lose_no_job(bench: Bench, count: int, kills: int) -> None:
    """Ten processes on three queues, SIGTERMs and SIGKILLs: every job runs, and its result is there."""
    chance = random.Random(7)
    ten = bench.start("tutorial_ten.py")
    until(lambda: "pids" in bench.log_of(ten), timeout_s=60)
    queues = [Queue(name, connection=bench.connection) for name in ("high", "default", "low")]
    jobs = [queues[n % 3].enqueue(note, n, 0.05, result_ttl=3600) for n in range(count)]
    line = next(line for line in bench.log_of(ten).splitlines() if line.startswith("pids"))
    pids = [int(word) for word in line.split()[1:]]
    for turn in range(kills):
        until(lambda due=turn * count // (kills + 1): len(bench.ran()) > due, timeout_s=120)
        place = chance.randrange(len(pids))
        pid = pids.pop(place)
        bench.children_of(pid)
        psutil.Process(pid).send_signal(chance.choice([signal.SIGTERM, signal.SIGKILL]))
        pids.append(bench.start("tutorial_worker.py").pid)
    until(lambda: set(bench.ran()) == set(range(count)), timeout_s=240, what="every job ran")
    assert all(job.wait(120) for job in jobs)
    assert list(range(count)) == [job.return_value() for job in jobs]
