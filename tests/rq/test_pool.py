"""Several workers of one program, and a scheduler of one's own."""

from __future__ import annotations

import signal
from datetime import timedelta

import psutil
import pytest
import rq_jobs
from rq_bench import Bench
from scenario_lab import until

from headrace.contrib.rq import Queue, Worker
from headrace.contrib.rq.exceptions import SchedulerNotFound
from headrace.contrib.rq.scheduler import RQScheduler
from headrace.contrib.rq.worker_pool import WorkerPool


def test_a_pool_runs_what_is_there_and_ends(bench: Bench) -> None:
    """With `burst`, as no job is left."""
    queue = Queue(connection=bench.connection)
    jobs = [queue.enqueue(rq_jobs.note, number) for number in range(10)]
    pool = bench.start("pool_here.py", "burst")
    assert pool.wait(60) == 0 and "ended STARTED 0" in bench.log_of(pool), bench.log_of(pool)
    assert sorted(bench.ran()) == list(range(10)) and all(job.is_finished for job in jobs)


def test_a_pool_replaces_a_worker_that_died_and_stops_with_all_of_them(bench: Bench) -> None:
    """SIGKILL for one of two: two again. SIGTERM for the pool: what runs may finish."""
    pool = bench.start("pool_here.py")
    until(lambda: Worker.count(bench.connection) == 2, timeout_s=60)
    first = {worker.pid for worker in Worker.all(bench.connection)}
    bench.children_of(pool.pid)
    psutil.Process(first.pop()).kill()
    until(lambda: len({worker.pid for worker in Worker.all(bench.connection)} - first) == 2, timeout_s=60)
    bench.children_of(pool.pid)
    job = Queue(connection=bench.connection).enqueue(rq_jobs.note, 1, 2.0)
    until(lambda: job.is_started, timeout_s=30)
    pool.send_signal(signal.SIGTERM)
    assert pool.wait(60) == 0 and job.is_finished and "ended STOPPED 0" in bench.log_of(pool)


def test_a_pool_that_is_wrong_says_so(bench: Bench) -> None:
    """Before anything is started."""
    with pytest.raises(ValueError, match="num_workers"):
        WorkerPool(["default"], bench.connection, num_workers=0)
    with pytest.raises(TypeError, match="Redis connection"):
        WorkerPool(["default"])
    pool = WorkerPool(["a", Queue("b", bench.connection)], bench.connection)
    assert [queue.name for queue in pool.queues] == ["a", "b"] and pool.all_workers_have_stopped()


def test_a_scheduler_puts_due_jobs_in_line(bench: Bench) -> None:
    """As every worker does: nobody needs a lock, nor is there one to find."""
    queue = Queue(connection=bench.connection)
    due = queue.enqueue_in(timedelta(milliseconds=1), rq_jobs.same, 1)
    later = queue.enqueue_in(timedelta(hours=1), rq_jobs.same, 2)
    scheduler = RQScheduler([queue, "other"], bench.connection)
    assert scheduler.status == "stopped" and scheduler.acquire_locks() == {"default", "other"}

    def is_queued() -> bool:
        scheduler.enqueue_scheduled_jobs()
        return due.is_queued

    until(is_queued, timeout_s=10)
    assert later.is_scheduled and scheduler.status == scheduler.Status.STARTED and not scheduler.should_reacquire_locks
    with pytest.raises(SchedulerNotFound, match="by themselves"):
        RQScheduler.fetch(scheduler.name, bench.connection)
    scheduler.stop()
    assert scheduler.status == "stopped" and not scheduler.acquired_locks
    with pytest.raises(ValueError, match="interval"):
        RQScheduler([queue], bench.connection, interval=0)


def test_a_scheduler_works_in_a_process_until_it_is_stopped(bench: Bench) -> None:
    """`start()` forks one; SIGTERM ends it."""
    queue = Queue(connection=bench.connection)
    scheduler = RQScheduler([queue], bench.connection, interval=0.1)
    process = scheduler.start()
    due = queue.enqueue_in(timedelta(milliseconds=50), rq_jobs.same, 1)
    until(lambda: due.is_queued, timeout_s=30)
    process.terminate()
    process.join(30)
    assert process.exitcode == 0
