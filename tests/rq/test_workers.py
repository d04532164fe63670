"""How a worker works: its own methods and handlers, when it ends, what it tells of itself, and what it can be told."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import rq_jobs
from rq_bench import HERE, Bench
from scenario_lab import until

from headrace.contrib.rq import Callback, Queue, SimpleWorker, Worker
from headrace.contrib.rq.command import (
    send_command,
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_execution_command,
    send_stop_job_command,
)
from headrace.contrib.rq.exceptions import InvalidJobOperation
from headrace.contrib.rq.job import JobStatus
from headrace.contrib.rq.suspension import is_suspended, resume, suspend
from headrace.contrib.rq.worker import (
    BaseWorker,
    HerokuWorker,
    RandomWorker,
    RoundRobinWorker,
    SpawnWorker,
    WorkerStatus,
)
from headrace.contrib.rq.worker_registration import clean_worker_registry, get_keys

BURST = json.dumps({"burst": True})


@pytest.fixture
def queue(bench: Bench) -> Queue:
    return Queue(connection=bench.connection)


def test_a_workers_own_methods_handlers_and_classes_are_used(bench: Bench, queue: Queue) -> None:
    """Also those of __main__: jobs run in forks of the program. A handler that returns False ends the chain."""
    good = queue.enqueue(rq_jobs.same, 1)
    bad = queue.enqueue(rq_jobs.divide, 1, 0)
    own = bench.start("own_worker.py", BURST, json.dumps({"name": "mine"}))
    assert own.wait(60) == 0 and good.is_finished and bad.is_failed, bench.log_of(own)
    assert bench.told(own) == [
        "execute OwnJob default False",
        "wrapped perform_job True",
        "perform rq_jobs.same",
        "success finished",
        "execute OwnJob default False",
        "wrapped perform_job True",
        "perform rq_jobs.divide",
        "wrapped handle_exception ",
        "first rq_jobs.divide ZeroDivisionError True",
        "second",
        "failure ZeroDivisionError: division by zero",
        "performed False True mine 1",
    ]
    log = bench.log_of(own)
    assert "changes nothing" in log and f"Worker mine: default: rq_jobs.divide(1, 0) ({bad.id})" in log


def test_a_worker_ends_after_so_many_jobs_or_so_long_without(bench: Bench, queue: Queue) -> None:
    """`max_jobs` leaves the rest where it is; `max_idle_time` waits for none; `work()` tells whether there was any."""
    for number in range(3):
        queue.enqueue(rq_jobs.note, number)
    two = bench.start("own_worker.py", json.dumps({"max_jobs": 2}))
    assert two.wait(60) == 0 and bench.ran() == [0, 1] and "worked True" in bench.log_of(two)
    rest = bench.start("own_worker.py", json.dumps({"max_idle_time": 1}))
    assert rest.wait(60) == 0 and bench.ran() == [0, 1, 2] and "worked True" in bench.log_of(rest)
    none = bench.start("own_worker.py", json.dumps({"max_idle_time": 1}))
    assert none.wait(60) == 0 and "worked False" in bench.log_of(none)


def test_what_forks_a_workers_processes_is_replaced_when_it_dies(bench: Bench, queue: Queue) -> None:
    """Both its children are killed, the one that forks and the one that works: jobs run again."""
    worker = bench.start("own_worker.py", "{}")
    assert queue.enqueue(rq_jobs.note, 1).wait(60)
    for child in bench.children_of(worker.pid):
        child.kill()
    assert queue.enqueue(rq_jobs.note, 2).wait(60)
    assert "the spawner ended" in bench.log_of(worker)


def test_who_has_killed_a_jobs_process_is_told(bench: Bench, queue: Queue) -> None:
    """Each time: the job is run again, alone, and has failed the third time."""
    job = queue.enqueue(rq_jobs.die)
    own = bench.start("own_worker.py", BURST)
    assert own.wait(60) == 0 and job.is_failed
    assert [line for line in bench.told(own) if line.startswith("killed")] == [f"killed {job.id} True 9 True"] * 3


def test_a_worker_tells_of_itself_and_is_told_what_to_do(bench: Bench, queue: Queue) -> None:
    """Name, state, what it runs and its counts; one job stopped, one killed with its process, the worker shut down."""
    connection = bench.connection
    process = bench.start("own_worker.py", "{}", json.dumps({"name": "one"}))
    until(lambda: Worker.count(connection) == 1, timeout_s=60)
    (worker,) = Worker.all(queue=queue)
    assert (worker.name, worker.pid, worker.queue_names()) == ("one", process.pid, ["default"])
    assert Worker.all_keys(connection) == ["rq:worker:one"] == list(get_keys(queue)) and not get_keys(
        Queue("no", connection)
    )
    assert f"{worker.get_state()}" == "idle" and worker.python_version and worker.last_heartbeat is not None
    assert worker.birth_date is not None and worker.birth_date < datetime.now(UTC)
    with pytest.raises(ValueError, match="active worker named 'one'"):
        Worker(["default"], name="one", connection=connection).register_birth()

    stopped = queue.enqueue(rq_jobs.note, 1, 60.0, on_stopped=Callback(rq_jobs.tell_stopped))
    until(lambda: Worker.all(connection)[0].get_state() == WorkerStatus.BUSY, timeout_s=30)
    worker.refresh()
    assert worker.get_current_job_id() == stopped.id and worker.get_current_job() == stopped
    with pytest.raises(InvalidJobOperation):
        send_stop_execution_command(connection, stopped.id, "another")
    (execution,) = stopped.get_executions()
    send_stop_execution_command(connection, stopped.id, execution.id)
    until(lambda: stopped.get_status() is JobStatus.STOPPED, timeout_s=30)
    assert bench.ran() == [2001]
    with pytest.raises(InvalidJobOperation):
        send_stop_job_command(connection, stopped.id)

    killed = queue.enqueue(rq_jobs.note, 2, 60.0)
    until(lambda: killed.is_started, timeout_s=30)
    send_kill_horse_command(connection, "one")
    assert killed.wait(30) and killed.is_failed and "an operator killed" in (killed.exc_info or "")
    good = [queue.enqueue(rq_jobs.same, 1) for _ in range(2)]
    assert all(job.wait(30) for job in good)

    def counts() -> tuple[int, float]:
        worker.refresh()
        return worker.successful_job_count, worker.total_working_time

    until(lambda: counts() > (2, 0.0), timeout_s=30)
    send_command(connection, "nobody", "shutdown")
    send_shutdown_command(connection, "one")
    assert process.wait(30) == 0 and Worker.count(connection) == 0
    assert Worker.find_by_key("rq:worker:one", connection) is None
    clean_worker_registry(queue)
    with pytest.raises(ValueError, match="unknown command"):
        send_command(connection, "one", "dance")


def test_workers_that_are_suspended_begin_no_job(bench: Bench, queue: Queue) -> None:
    """Also one that starts then; until somebody resumes, or the time is over. A burst ends at once."""
    connection = bench.connection
    suspend(connection)
    assert is_suspended(connection)
    job = Queue("late", connection).enqueue(rq_jobs.note, 1)
    early = bench.start("own_worker.py", BURST, json.dumps({"queues": ["late"]}))
    assert early.wait(60) == 0 and "worked False" in bench.log_of(early)
    assert job.is_queued and resume(connection) == 1 and resume(connection) == 0
    assert bench.start("own_worker.py", BURST, json.dumps({"queues": ["late"]})).wait(60) == 0 and job.is_finished
    suspend(connection, ttl=1)
    last = queue.enqueue(rq_jobs.note, 2)
    bench.start("own_worker.py", "{}")
    assert last.wait(30) and not is_suspended(connection)
    with pytest.raises(ValueError, match="ttl"):
        suspend(connection, ttl=-1)


def test_a_method_that_is_never_called_cannot_be_overridden(bench: Bench) -> None:
    """Whoever makes such a worker is told, and so is who calls one of these."""

    class Own(Worker):
        def reorder_queues(self, reference_queue: object) -> None: ...

    with pytest.raises(NotImplementedError, match=r"Own\.reorder_queues would never be called.*dequeue_strategy"):
        Own(["default"], connection=bench.connection)
    worker = Worker(["default"], connection=bench.connection)
    with pytest.raises(NotImplementedError, match="kill_horse"):
        worker.kill_horse()
    with pytest.raises(AttributeError, match=r"no Worker\.nothing_of_rq"):
        worker.nothing_of_rq()


def test_a_worker_that_is_wrong_says_so_when_it_is_made(bench: Bench) -> None:
    """RQ's exception types, before anything runs."""
    connection = bench.connection
    with pytest.raises(TypeError, match="Could not resolve a Redis connection"):
        Worker(["default"])
    with pytest.raises(TypeError, match="no queue"):
        Worker([5], connection=connection)
    with pytest.raises(NotImplementedError, match="disable_default_exception_handler"):
        Worker(["default"], connection=connection, disable_default_exception_handler=True)
    with pytest.raises(TypeError, match="exception handler"):
        Worker(["default"], connection=connection, exception_handlers=["no"])
    worker = Worker("default", connection=connection)
    with pytest.raises(ValueError, match="Dequeue strategy"):
        worker.work(dequeue_strategy="slow")
    with pytest.raises(ValueError, match="logging_level"):
        worker.work(logging_level="loud")
    with pytest.raises(ValueError, match="worker key"):
        Worker.find_by_key("one", connection)
    with pytest.raises(ValueError, match="one queue or more"):
        Worker([], connection=connection).work()
    with pytest.warns(DeprecationWarning, match="get_state"):
        assert worker.state == "starting"
    with pytest.warns(DeprecationWarning, match="worker_ttl"):
        assert Worker("default", connection=connection, default_worker_ttl=9).worker_ttl == 9


def test_the_kinds_of_workers_differ_in_little(bench: Bench) -> None:
    """Each is a BaseWorker; equal by name; a handler is pushed and popped."""
    kinds = [Worker, SimpleWorker, HerokuWorker, RoundRobinWorker, RandomWorker]
    workers = [kind(["a", "b"], name="same", connection=bench.connection) for kind in kinds]
    assert all(isinstance(one, BaseWorker) and one == workers[0] for one in workers) and len(set(workers)) == 1
    assert [one._config(False, None, None, None, one.strategy or "default").grace_ms for one in workers] == [
        25_000, 25_000, 6_000, 25_000, 25_000,
    ]  # fmt: skip
    workers[0].push_exc_handler(print)
    assert workers[0].pop_exc_handler() is print
    with pytest.raises(TypeError, match="Cannot compare"):
        assert workers[0] == 1
    assert workers[0].key == "rq:worker:same" and workers[0].queue_keys() == ["rq:queue:a", "rq:queue:b"]


def test_a_spawn_worker_runs_each_job_in_a_fresh_interpreter(bench: Bench, queue: Queue) -> None:
    """With the classes and handlers that it can import; those of __main__ are refused."""
    jobs = [queue.enqueue(rq_jobs.whereabouts) for _ in range(2)]
    bad, left = queue.enqueue(rq_jobs.divide, 1, 0), queue.enqueue(rq_jobs.note, 9)
    done = bench.rq(
        "worker", "--max-jobs", "3", "-w", "rq.SpawnWorker", "-P", str(HERE), "-n", "apart", "--exception-handler", "rq_jobs.handle"
    )  # fmt: skip
    assert done.returncode == 0 and bad.is_failed and left.is_queued and bench.ran() == [3001], done.stderr
    first, second = (job.return_value(refresh=True) for job in jobs)
    assert first[0] != second[0] and first[1:] == ("apart", jobs[0].id, "headrace.worker.spawner")
    with pytest.raises(NotImplementedError, match="work_horse_killed_handler"):
        SpawnWorker(["a"], connection=bench.connection, work_horse_killed_handler=print).bootstrap()
    worker = SpawnWorker(["a"], connection=bench.connection)

    def here() -> None: ...

    here.__module__ = "__main__"
    worker.push_exc_handler(here)
    with pytest.raises(ValueError, match="__main__"):
        worker.bootstrap()
