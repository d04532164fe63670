"""Enqueueing and reading jobs with RQ's names, over real workers."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import rq_jobs
from rq_bench import Bench

import headrace.contrib.rq as rq
from headrace.contrib.rq import Callback, Queue, Retry, cancel_job, command, get_current_job, requeue_job
from headrace.contrib.rq.decorators import job
from headrace.contrib.rq.exceptions import (
    DeserializationError,
    DuplicateJobError,
    InvalidJobDependency,
    InvalidJobOperation,
    NoSuchJobError,
    TimeoutFormatError,
)
from headrace.contrib.rq.job import Job, JobStatus
from headrace.contrib.rq.registry import (
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
)
from headrace.contrib.rq.serializers import JSONSerializer, PickleSerializer, pack, resolve_serializer, unpack
from headrace.contrib.rq.utils import parse_timeout as seconds


@pytest.fixture
def queue(bench: Bench) -> Queue:
    return Queue(connection=bench.connection)


def test_all_kinds_of_callables_run(bench: Bench, queue: Queue) -> None:
    """Functions, paths, methods, objects, built-ins, coroutine functions; pickled arguments come through as they are."""
    counter = rq_jobs.Counter(40)
    jobs = {
        queue.enqueue("rq_jobs.same", {1, 2}): {1, 2},
        queue.enqueue(rq_jobs.same, (1, 2)): (1, 2),
        queue.enqueue(counter.plus, 2): 42,
        queue.enqueue(counter, 2): 80,
        queue.enqueue(max, 3, 7): 7,
        queue.enqueue(rq_jobs.later, 1): 2,
        queue.enqueue(rq_jobs.same, kwargs={"timeout": 1, "description": "mine"}): {
            "timeout": 1,
            "description": "mine",
        },
        queue.enqueue_call(rq_jobs.same, args=(5,), timeout="1h"): 5,
    }
    assert len(queue) == queue.count == 8
    assert bench.work()
    assert list(jobs.values()) == [job.return_value(refresh=True) for job in jobs]
    assert queue.is_empty()


def test_a_job_knows_itself_and_what_it_was_enqueued_with(bench: Bench, queue: Queue) -> None:
    """`get_current_job()` inside, `Job.fetch` outside; outside a job there is none."""
    job = queue.enqueue(rq_jobs.about_me, job_id="my-own_1", meta={"who": "me"})
    assert bench.work()
    fetched = Job.fetch("my-own_1", bench.connection)
    assert fetched == job and fetched.return_value() == ("my-own_1", "me")
    assert get_current_job() is None
    assert Job.exists("my-own_1", bench.connection) and not Job.exists("another", bench.connection)
    assert queue.fetch_job("my-own_1") == job and Queue("low", bench.connection).fetch_job("my-own_1") is None


def test_a_failed_job_tells_why_and_is_requeued(bench: Bench, queue: Queue) -> None:
    """`exc_info` is its traceback; only a failed job can be requeued; a job that kills its process fails, too."""
    job = queue.enqueue(rq_jobs.divide, 1, 0)
    with pytest.raises(InvalidJobOperation):
        job.requeue()
    assert bench.work()
    assert job.get_status() is JobStatus.FAILED and job.is_failed and job.return_value() is None
    assert "ZeroDivisionError" in (job.exc_info or "")
    assert requeue_job(job.id, bench.connection).get_status() is JobStatus.QUEUED


def test_retries_wait_and_are_counted_raised_or_returned(bench: Bench, queue: Queue) -> None:
    """Both run again as often as the policy says, and then have failed."""
    raised = queue.enqueue(rq_jobs.divide, 1, 0, retry=Retry(2))
    returned = queue.enqueue(rq_jobs.ask_again)
    bench.start("tutorial_worker.py")
    assert raised.wait(60) and returned.wait(60)
    assert raised.is_failed and returned.is_failed
    assert len(raised.handle.errors) == 3 and len(returned.handle.errors) == 2
    assert "MaxRetriesExceeded" in (returned.exc_info or "")
    assert Retry(3, [10, 30, 60]).delays == [10, 30, 60] and Retry(3, 5).delays == [5, 5, 5]


def test_later_after_others_and_cancelled(bench: Bench, queue: Queue) -> None:
    """`enqueue_in`, `enqueue_at`, `depends_on` and `cancel` show RQ's statuses."""
    first = queue.enqueue(rq_jobs.same, 1)
    after = queue.enqueue(rq_jobs.same, 2, depends_on=first)
    soon = queue.enqueue_in(timedelta(hours=1), rq_jobs.same, 3)
    at = queue.enqueue_at(datetime.now() + timedelta(days=2), rq_jobs.same, 4)
    gone = queue.enqueue(rq_jobs.same, 5)
    assert after.is_deferred and soon.is_scheduled and at.is_scheduled
    cancel_job(gone.id, bench.connection)
    assert gone.is_canceled
    with pytest.raises(InvalidJobOperation):
        gone.cancel()
    assert bench.work()
    assert first.is_finished and gone.is_canceled and soon.is_scheduled
    soon.delete()
    with pytest.raises(InvalidJobOperation, match="status"):
        soon.get_status()
    with pytest.raises(NoSuchJobError):
        Job.fetch(soon.id, bench.connection)


def test_a_queue_lists_what_waits_and_is_emptied(bench: Bench, queue: Queue) -> None:
    """In order, front first; a queue is true though it is empty, and equal to another of its name."""
    one, two = queue.enqueue(rq_jobs.same, 1), queue.enqueue(rq_jobs.same, 2)
    front = queue.enqueue(rq_jobs.same, 0, at_front=True)
    assert queue.job_ids == [front.id, one.id, two.id] and queue.get_job_ids(1, 1) == [one.id]
    assert queue.get_job_position(two) == 2 and [0, 1, 2] == [job.args[0] for job in queue.jobs]
    assert one.get_call_string() == "rq_jobs.same(1)" == one.description
    assert 3 == queue.empty() and not len(queue) and queue
    assert queue in Queue.all(bench.connection) and Queue("a", bench.connection) < queue


def test_an_id_is_used_again_only_when_its_job_has_ended(bench: Bench, queue: Queue) -> None:
    """While the first lives, and with `unique` as long as it is kept, the second is a DuplicateJobError."""
    queue.enqueue(rq_jobs.same, 1, job_id="once")
    with pytest.raises(DuplicateJobError):
        queue.enqueue(rq_jobs.same, 2, job_id="once")
    assert bench.work()
    with pytest.raises(DuplicateJobError):
        queue.enqueue(rq_jobs.same, 2, job_id="once", unique=True)
    again = queue.enqueue(rq_jobs.same, 2, job_id="once")
    assert bench.work() and again.return_value() == 2


def test_json_carries_plain_data(bench: Bench) -> None:
    """A queue and a worker with `serializer="json"`."""
    job = Queue(connection=bench.connection, serializer="json").enqueue(rq_jobs.same, [1, "a"])
    assert bench.work("json")
    assert job.return_value() == [1, "a"]
    assert resolve_serializer("json") is JSONSerializer and resolve_serializer() is PickleSerializer


def test_nothing_unsigned_is_unpickled_where_there_is_a_key(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job enqueued without the key fails and does not run; one with the key runs."""
    unsigned = queue.enqueue(rq_jobs.note, 1)
    monkeypatch.setenv("HEADRACE_SECRET_KEY", "a key")
    signed = queue.enqueue(rq_jobs.note, 2)
    assert bench.work()
    assert unsigned.is_failed and "DeserializationError" in (unsigned.exc_info or "")
    assert signed.return_value() == 2 and bench.ran() == [2]
    data = pack(PickleSerializer, 1)
    assert unpack(PickleSerializer, data) == 1
    with pytest.raises(DeserializationError, match="not signed"):
        unpack(PickleSerializer, data[:-1] + b"x")


def test_bad_input_is_refused_as_rq_does(bench: Bench, queue: Queue) -> None:
    """RQ's exception types, at the call; nothing is stored."""

    def in_main() -> None: ...

    in_main.__module__ = "__main__"
    with pytest.raises(ValueError, match="__main__"):
        queue.enqueue(in_main)
    with pytest.raises(ValueError, match="0 timeout"):
        queue.enqueue(rq_jobs.same, job_timeout=0)
    with pytest.raises(ValueError, match="ttl"):
        queue.enqueue(rq_jobs.same, ttl=0)
    with pytest.raises(ValueError, match="letters"):
        queue.enqueue(rq_jobs.same, job_id="a b")
    with pytest.raises(TypeError, match="ID must be a string"):
        queue.enqueue(rq_jobs.same, job_id=1)
    with pytest.raises(TimeoutFormatError):
        queue.enqueue(rq_jobs.same, job_timeout="soon")
    with pytest.raises(TypeError, match="callable"):
        queue.enqueue(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidJobDependency):
        queue.enqueue(rq_jobs.same, depends_on="nobody")
    with pytest.raises(Exception, match=r"pickle|local object"):
        queue.enqueue(rq_jobs.same, lambda: 1)
    with pytest.raises(ValueError, match="max"):
        Retry(0)
    assert queue.is_empty()
    assert [seconds("1h"), seconds("23m"), seconds("10s"), seconds("2d"), seconds("7"), seconds(-1)] == [
        3600, 1380, 10, 172_800, 7, -1,
    ]  # fmt: skip


def test_what_is_not_offered_says_so(queue: Queue) -> None:
    """Nothing is taken and then ignored; a name that RQ has is there, and says what to do instead as it is called."""
    with pytest.raises(NotImplementedError, match="pipeline"):
        queue.enqueue(rq_jobs.same, pipeline=object())
    with pytest.raises(NotImplementedError, match=r"no Queue\.acquire_maintenance_lock: every worker"):
        queue.acquire_maintenance_lock()
    with pytest.raises(AttributeError, match=r"headrace\.contrib\.rq has no Queue\.of_nobody"):
        queue.of_nobody  # noqa: B018


def test_callbacks_are_told_and_change_nothing(bench: Bench, queue: Queue) -> None:
    """One that raises is logged: its job has finished, and ran once."""
    good = queue.enqueue(rq_jobs.note, 1, on_success=Callback(rq_jobs.tell_success))
    bad = queue.enqueue(rq_jobs.divide, 3, 0, on_failure="rq_jobs.tell_failure")
    assert bench.work()
    assert good.is_finished and bad.is_failed and sorted(bench.ran()) == [1, 101, 1003]
    assert "a callback that raises" in bench.log_of(bench.processes[-1])


def test_registries_hold_the_jobs_of_their_state(bench: Bench, queue: Queue) -> None:
    """Ids, counts and membership; reading changes nothing; a failed job is requeued or deleted there."""
    good, bad = queue.enqueue(rq_jobs.same, 1), queue.enqueue(rq_jobs.divide, 1, 0)
    later = queue.enqueue_in(timedelta(hours=1), rq_jobs.same, 1)
    waits = queue.enqueue(rq_jobs.same, 2, depends_on=later)
    assert bench.work()
    failed = FailedJobRegistry(queue=queue)
    assert FinishedJobRegistry("default", bench.connection).get_job_ids() == [good.id]
    assert len(failed) == failed.count == 1 and bad in failed and good.id not in failed
    assert later in ScheduledJobRegistry(queue=queue) and waits in DeferredJobRegistry(queue=queue)
    with pytest.raises(InvalidJobOperation):
        failed.requeue(good)
    failed.requeue(bad)
    assert not len(failed) and bad.is_queued and bench.work() and bad in failed
    failed.remove(bad, delete_job=True)
    assert not Job.exists(bad.id, bench.connection)


def test_the_decorator_enqueues(bench: Bench) -> None:
    """`.delay` stores a call; RQ's three words are taken out of it; a plain call stays one."""
    same = job("default", connection=bench.connection, timeout=9, result_ttl=60)(rq_jobs.same)
    stored = same.delay(7, job_id="by-delay")
    assert bench.work() and stored.id == "by-delay" and stored.return_value() == 7 and same(8) == 8


def test_a_missing_name_says_so_when_called() -> None:
    """It can be imported, so that a program gets to the place where it is used."""
    with pytest.raises(NotImplementedError, match="handle_command: a supervisor takes commands by itself"):
        command.handle_command(None, {})
    with pytest.raises(AttributeError, match="nothing_of_rq"):
        rq.nothing_of_rq  # noqa: B018
