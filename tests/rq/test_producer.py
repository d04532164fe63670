"""What RQ's users say of jobs beside the call: repeats, callbacks, webhooks, groups, limits, classes; and what they read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import rq_jobs
from rq_bench import Bench
from scenario_lab import until

from headrace.contrib.rq import Callback, Queue, RateLimit, Repeat, Retry, Webhook
from headrace.contrib.rq.decorators import job as decorate
from headrace.contrib.rq.exceptions import (
    DuplicateJobError,
    InvalidJobOperation,
    NoRedisConnectionException,
    NoSuchGroupError,
    NoSuchJobError,
)
from headrace.contrib.rq.group import Group
from headrace.contrib.rq.job import Dependency, Job, JobStatus
from headrace.contrib.rq.results import Result
from headrace.contrib.rq.timeouts import JobTimeoutException, TimerDeathPenalty, UnixSignalDeathPenalty


@pytest.fixture
def queue(bench: Bench) -> Queue:
    return Queue(connection=bench.connection)


def test_a_job_that_succeeds_runs_again_as_often_as_it_repeats(bench: Bench, queue: Queue) -> None:
    """Between the runs it is scheduled; what fails on the way is retried as often as its Retry says, and then it has failed."""
    repeats = queue.enqueue(rq_jobs.note, 1, repeat=Repeat(2))
    mixed = queue.enqueue(rq_jobs.fail_once, 2, repeat=Repeat(1), retry=Retry(1))
    fails = queue.enqueue(rq_jobs.divide, 1, 0, repeat=Repeat(5), retry=Retry(2))
    hourly = queue.enqueue(rq_jobs.note, 3, repeat=Repeat(2, [3600, 7200]))
    assert bench.work()
    assert sorted(bench.ran()) == [1, 1, 1, 2, 2, 2, 3]
    assert repeats.is_finished and repeats.repeats_left == 0 and repeats.return_value() == 1
    assert [(one.type.name, one.return_value) for one in repeats.results()] == [("SUCCESSFUL", 1)] * 3
    assert mixed.is_finished and (mixed.retries_left, mixed.repeats_left) == (0, 0)
    assert fails.is_failed and (fails.retries_left, fails.repeats_left) == (0, 5) and "Zero" in fails._exc_info
    assert hourly.is_scheduled and hourly.repeats_left == 1
    due_in = queue.scheduled_job_registry.get_scheduled_time(hourly) - datetime.now(UTC)
    assert timedelta(minutes=50) < due_in <= timedelta(hours=1)


def test_results_tell_what_runs_came_to(bench: Bench, queue: Queue) -> None:
    """The last first; of one that returned its Retry, each of those; what is wrong is read without waiting."""
    good, bad = queue.enqueue(rq_jobs.same, 7), queue.enqueue(rq_jobs.divide, 1, 0)
    asks = queue.enqueue(rq_jobs.ask_again)
    assert good.latest_result() is None and good.results() == [] and good.get_executions() == []
    assert bench.work()
    latest = good.latest_result(timeout=5)
    assert (
        latest is not None
        and latest.type is Result.Type.SUCCESSFUL
        and latest.return_value == 7
        and latest.job_id == good.id
    )
    assert good.started_at is not None and good.ended_at is not None
    assert latest.execution_started_at == good.started_at <= good.ended_at == latest.created_at
    [failed] = bad.results()
    assert failed.type is Result.Type.FAILED and "ZeroDivisionError" in (failed.exc_string or "")
    assert [one.type.name for one in asks.results()] == ["MAX_RETRIES_EXCEEDED", "RETRIED"]
    assert asks.number_of_retries == 1 and Result.count(asks) == 2


def test_a_job_that_is_stopped_says_so(bench: Bench, queue: Queue) -> None:
    """`cancel()` while it runs: its on_stopped is called, and it can be run again; while it runs it has an execution."""
    job = queue.enqueue(
        rq_jobs.until_stopped, 5, on_stopped=Callback(rq_jobs.tell_stopped), on_failure=rq_jobs.tell_failure
    )
    worker = bench.start("tutorial_worker.py")
    until(lambda: bench.ran() == [5], timeout_s=60)
    [execution] = job.get_executions()
    assert job.is_started and execution.job == job and execution.composite_key == f"{job.id}:{execution.id}"
    assert queue.started_job_registry.get_job_and_execution_ids() == [(job.id, execution.id)]
    assert (
        execution.worker_name == job.worker_name
        and execution.worker_name.endswith(tuple("0123456789abcdef"))
        and len(queue.started_job_registry) == 1
    )
    job.cancel()
    assert job.wait(30) and job.is_stopped and not job.is_canceled and bench.ran() == [5, 2005]
    assert [one.type for one in job.results()] == [Result.Type.STOPPED] and job.get_executions() == []
    worker.terminate()
    assert worker.wait(30) is not None
    assert job.requeue().is_queued and queue.remove(job) == 1 == queue.canceled_job_registry.count and job.is_canceled


class _Told(BaseHTTPRequestHandler):
    heard: list[tuple[str, str, str | None, dict[str, object]]]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.heard.append((self.command, self.path, self.headers.get("X-Mine"), json.loads(body or b"{}")))
        self.send_response(500 if self.path == "/broken" else 200)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def site() -> Iterator[HTTPServer]:
    _Told.heard = []
    server = HTTPServer(("127.0.0.1", 0), _Told)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_ends_are_told_by_webhooks_and_callbacks_in_their_time(bench: Bench, queue: Queue, site: HTTPServer) -> None:
    """A webhook for its end, once a job has failed for good; a site that is broken, and a callback that takes too long, change nothing."""
    base = f"http://127.0.0.1:{site.server_port}"
    post = Webhook(f"{base}/post", "failed", method="POST", headers={"X-Mine": "yes"})
    good = queue.enqueue(
        rq_jobs.same, 1, webhooks=[Webhook(f"{base}/broken", "finished"), Webhook(f"{base}/no", "failed")],
        on_success=Callback(rq_jobs.too_slow, timeout=1),
    )  # fmt: skip
    bad = queue.enqueue(
        rq_jobs.divide, 1, 0, retry=Retry(1), webhooks=[post, Webhook("http://127.0.0.1:9/none", "failed")]
    )
    assert bad.webhooks[0] == post and good.success_callback is rq_jobs.too_slow and good.success_callback_timeout == 1
    assert bench.work()
    log = bench.log_of(bench.processes[-1])
    assert (
        good.is_finished
        and bad.is_failed
        and "Task exceeded maximum timeout value (1 seconds)" in log
        and "/none" in log
    )
    [first, second] = sorted(_Told.heard, key=lambda heard: heard[1])
    assert first == ("GET", "/broken", None, {})
    assert second[:3] == ("POST", "/post", "yes") and second[3]["job_id"] == bad.id and second[3]["status"] == "failed"
    assert "ZeroDivisionError" in str(second[3]["exc_info"]) and second[3]["func_name"] == "rq_jobs.divide"


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (("ftp://a", "failed"), ValueError), (("http://", "failed"), ValueError), (("http://a", "started"), ValueError),
        ((7, "failed"), ValueError),
    ],
)  # fmt: skip
def test_a_webhook_that_cannot_be_sent_is_refused(args: tuple[str, str], kind: type[Exception]) -> None:
    """Where it is written."""
    with pytest.raises(kind):
        Webhook(*args)  # type: ignore[arg-type]


def test_drafts_are_stored_as_they_say(bench: Bench, queue: Queue) -> None:
    """`Job.create`, `create_job`, `enqueue_job`, `schedule_job`; a stored job is not stored again until it has ended."""
    draft = Job.create(rq_jobs.same, (1,), {"a": 2}, bench.connection, description="mine", meta={"m": 1}, id="my-id")
    assert draft.get_status(refresh=False) is JobStatus.CREATED and draft.perform() == {"a": 2}
    with pytest.raises(NoSuchJobError):
        Job.fetch("my-id", bench.connection)
    draft.kwargs = {}
    assert queue.enqueue_job(draft) is draft and draft.is_queued and draft.get_position() == 0
    with pytest.raises(InvalidJobOperation, match="queued in queue"):
        queue.enqueue_job(draft)
    with pytest.raises(NotImplementedError, match="only the meta"):
        draft.args = (2,)
    fetched = Job.fetch("my-id", bench.connection)
    assert (fetched.description, fetched.meta, fetched.args, fetched.timeout) == ("mine", {"m": 1}, (1,), 180)
    assert fetched.data == draft.data and fetched.enqueued_at is not None and fetched.get_result_ttl(500) == 500
    later = queue.schedule_job(
        queue.create_job("rq_jobs.same", timeout="1h", ttl=60), datetime.now() + timedelta(days=1)
    )
    assert later.is_scheduled and later.timeout == 3600 and later.get_ttl() == 60
    assert queue.enqueue_job(later).is_queued and later.get_position() == 0
    later.delete()
    assert bench.work() and fetched.return_value(refresh=True) == 1
    assert queue.enqueue_job(fetched).is_queued and bench.work() and fetched.is_finished
    assert fetched.to_dict()["status"] == "finished"


def test_many_are_stored_at_once_and_tracked_as_a_group(bench: Bench, queue: Queue) -> None:
    """In order; those that wait for others behind; a group forgets jobs that are gone, and is gone with the last."""
    parent = queue.enqueue(rq_jobs.same, 0)
    group = Group.create(bench.connection, "mine")
    with pytest.raises(NoSuchGroupError):
        Group.fetch("mine", bench.connection)
    prepare = Queue.prepare_data
    jobs = group.enqueue_many(
        queue,
        [
            prepare(rq_jobs.same, (2,), depends_on=parent), prepare(rq_jobs.same, (1,), job_id="one"),
            prepare("rq_jobs.same", (3,), at_front=True, meta={"a": 1}),
        ],
    )  # fmt: skip
    assert [job.args[0] for job in jobs] == [1, 3, 2] and {job.group_id for job in jobs} == {"mine"}
    assert queue.job_ids == [jobs[1].id, parent.id, "one"] and jobs[2].is_deferred
    assert jobs[2].dependency_ids == [parent.id] == [jobs[2].dependency.id] and parent.dependent_ids == [jobs[2].id]
    assert set(Group.fetch("mine", bench.connection).get_jobs()) == set(jobs) and Group.all(bench.connection) == [group]
    with pytest.raises(ValueError, match="more than once"):
        queue.enqueue_many([prepare(max, (1, 2), job_id="x")] * 2)
    with pytest.raises(DuplicateJobError):
        queue.enqueue_many([prepare(max, (1, 2), job_id="one")])
    jobs[0].delete()
    parent.delete(delete_dependents=True)
    assert group.get_jobs() == [jobs[1]] and not Job.exists(jobs[2].id, bench.connection)
    assert queue.empty() == 1 and group.get_jobs() == [] == Group.all(bench.connection)
    queue.delete()
    assert queue not in Queue.all(bench.connection)
    queue.enqueue(max, 1, 2)
    assert Queue.from_queue_key(queue.key, bench.connection) == queue and queue in Queue.all(bench.connection)


def test_meta_is_kept_with_the_job_whoever_saves_it(bench: Bench, queue: Queue) -> None:
    """From inside while it runs, from outside before and after it; a draft is stored with its own."""
    job = queue.enqueue(rq_jobs.tell_of_me, "one", meta={"who": "me"})
    fetched = Job.fetch(job.id, bench.connection)
    fetched.meta["more"] = {1, 2}
    fetched.save_meta()
    assert job.meta == {"who": "me"} and job.get_meta() == {"who": "me", "more": {1, 2}}
    assert bench.work()
    assert job.return_value() == {"who": "me", "more": {1, 2}, "step": "one"} == job.get_meta()
    job.meta.clear()
    assert job.get_meta(refresh=False) == {}
    job.save()
    fetched.refresh()
    assert fetched.meta == {} == Job.fetch(job.id, bench.connection).get_meta()
    job.delete()
    with pytest.raises(NoSuchJobError):
        fetched.save_meta()
    with pytest.raises(NotImplementedError, match="enqueue_job"):
        Job.create(max, (1, 2), connection=bench.connection).save()


def test_a_job_that_comes_later_can_come_to_the_front(bench: Bench, queue: Queue) -> None:
    """`Dependency(enqueue_at_front=True)`, and `at_front` of a scheduled one."""
    first = queue.enqueue(rq_jobs.note, 1)
    queue.enqueue(rq_jobs.note, 2)
    after = queue.enqueue(rq_jobs.note, 3, depends_on=Dependency([first.id], enqueue_at_front=True))
    queue.enqueue_at(datetime(2020, 1, 1, tzinfo=UTC), rq_jobs.note, 0, at_front=True)
    assert (
        after.should_enqueue_at_front() and not after.dependencies_are_met() and after.fetch_dependencies() == [first]
    )
    assert bench.work() and bench.ran() == [0, 1, 3, 2] and after.dependencies_are_met()


def test_jobs_that_wait_start_also_when_others_fail_or_are_cancelled(bench: Bench, queue: Queue) -> None:
    """`Dependency(allow_failure=True)`; `cancel(enqueue_dependents=True)`; else they are cancelled, too."""
    bad, gone, other = (queue.enqueue(rq_jobs.divide, 1, 0) for _ in range(3))
    any_end = queue.enqueue(rq_jobs.note, 1, depends_on=Dependency([bad], allow_failure=True))
    strict = queue.enqueue(rq_jobs.note, 2, depends_on=bad)
    freed = queue.enqueue(rq_jobs.note, 3, depends_on=gone)
    lost = queue.enqueue(rq_jobs.note, 4, depends_on=[other, any_end])
    assert any_end.allow_dependency_failures and Job.fetch(any_end.id, bench.connection).allow_dependency_failures
    assert gone.cancel(enqueue_dependents=True) == {"default": [freed.id]} and other.cancel() == {}
    assert gone.is_canceled and freed.is_queued and lost.is_canceled
    assert bench.work() and sorted(bench.ran()) == [1, 3]
    assert bad.is_failed and any_end.is_finished and freed.is_finished and strict.is_canceled


def test_failed_jobs_come_back_to_the_front_and_are_kept_as_long_as_they_say(bench: Bench, queue: Queue) -> None:
    """`Retry(enqueue_at_front=True)`, raised and returned; `requeue(at_front=True)`; `failure_ttl`, a year unless told."""
    queue.enqueue(rq_jobs.fail_once, 1, retry=Retry(1, enqueue_at_front=True))
    returned = queue.enqueue(rq_jobs.ask_again, True)
    queue.enqueue(rq_jobs.note, 2)
    bad = queue.enqueue(rq_jobs.divide, 1, 0, failure_ttl="10m")
    year = queue.enqueue(rq_jobs.divide, 1, 0)
    assert bench.work() and bench.ran() == [1, 1, 2] and returned.is_failed
    failed = queue.failed_job_registry
    bad.refresh()
    year.refresh()
    assert failed.get_expiration_time(bad) == bad.ended_at + timedelta(minutes=10)
    assert failed.get_expiration_time(year) == year.ended_at + timedelta(days=365)
    kept = dict(bench.connection.zrange("hr:{default}:dead", 0, -1, withscores=True))
    assert abs(kept[bad.id.encode()] / 1000 - bad.ended_at.timestamp() - 600) < 60
    last = queue.enqueue(rq_jobs.note, 3)
    assert failed.requeue(bad, at_front=True) == bad and queue.job_ids == [bad.id, last.id]


def test_a_queue_that_is_not_async_runs_jobs_here(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of one is stored: result, error, meta; callbacks are told; what waits for others waits for a worker."""
    queue = Queue(connection=bench.connection, is_async=False)
    monkeypatch.setenv("LEDGER", str(bench.ledger))
    good = queue.enqueue(rq_jobs.same, {1, 2}, job_id="good", on_success=Callback(rq_jobs.note_result))
    assert good.is_finished and good.return_value() == {1, 2} and bench.ran() == [2] and not len(queue)
    assert good in queue.finished_job_registry and Job.fetch("good", bench.connection).return_value() == {1, 2}
    bad = queue.enqueue(rq_jobs.divide, 3, 0, on_failure=Callback(rq_jobs.tell_failure), failure_ttl=60)
    assert bad.is_failed and "ZeroDivisionError" in bad.latest_result().exc_string and bench.ran() == [2, 1003]
    told = queue.enqueue(rq_jobs.about_meta, meta={"n": 1})
    assert told.return_value() == told.id and told.get_meta() == {"n": 2} and told.started_at <= told.ended_at
    assert queue.enqueue(rq_jobs.same, 1, depends_on=good).is_finished
    waits = queue.enqueue(rq_jobs.note, 5, depends_on=queue.enqueue_in(timedelta(hours=1), rq_jobs.same, 1))
    assert waits.is_deferred and [
        job.return_value() for job in queue.enqueue_many([Queue.prepare_data(max, (1, 2))])
    ] == [2]
    assert queue.enqueue(rq_jobs.same, 1, result_ttl=0).get_status(refresh=False) is JobStatus.FINISHED
    with pytest.raises(DuplicateJobError):
        queue.enqueue(rq_jobs.same, 1, job_id="good", unique=True)
    assert queue.enqueue(rq_jobs.same, 7, job_id="good").return_value() == 7
    with pytest.raises(Exception, match=r"pickle|local object"):
        queue.enqueue(rq_jobs.note, lambda: 1)
    assert bench.ran() == [2, 1003] and bad.requeue().is_queued
    with pytest.raises(ValueError, match="synchronous"):
        queue.enqueue(max, 1, 2, rate_limit=RateLimit("a", 1))


def test_a_rate_limit_lets_so_many_run_at_once(bench: Bench, queue: Queue) -> None:
    """The others wait as rate_limited, and run when one ends."""
    limit = RateLimit("reports {all}", 1)
    jobs = [queue.enqueue(rq_jobs.until_stopped, n, rate_limit=limit) for n in range(2)]
    assert jobs[0].has_rate_limit and (jobs[0].rate_limit_key, jobs[0].rate_limit_concurrency) == ("reports {all}", 1)
    for _ in range(2):
        bench.start("burst_worker.py")
    until(lambda: JobStatus.RATE_LIMITED in [job.get_status() for job in jobs], timeout_s=60)
    until(lambda: len(bench.ran()) == 1, timeout_s=60)
    assert not len(queue.deferred_job_registry)
    for job in sorted(jobs, key=lambda job: job.args[0] not in bench.ran()):
        until(lambda job=job: job.is_started, timeout_s=60)
        job.cancel()
        assert job.wait(60)
    assert sorted(bench.ran()) == [0, 1]
    with pytest.raises(ValueError, match="rate-limited"):
        queue.enqueue(max, 1, 2, rate_limit=limit, unique=True, job_id="a")
    for key, concurrency in (("", 1), ("a", 0), ("a", "1")):
        with pytest.raises(ValueError, match="must"):
            RateLimit(key, concurrency)  # type: ignore[arg-type]


def test_registries_tell_times(bench: Bench, queue: Queue) -> None:
    """How long a job is kept, which are due, which are no longer kept; what waits is taken out of its registry by cancelling it."""
    done = queue.enqueue(rq_jobs.same, 1, result_ttl=600)
    soon, later = (queue.enqueue_in(timedelta(hours=n), rq_jobs.same, n) for n in (1, 2))
    assert bench.work()
    finished, scheduled = queue.finished_job_registry, queue.scheduled_job_registry
    done.refresh()
    assert done.ended_at is not None
    assert finished.get_expiration_time(done) == done.ended_at + timedelta(minutes=10)
    assert finished.get_expired_job_ids() == [] == scheduled.get_jobs_to_schedule()
    assert finished.get_expired_job_ids(done.ended_at.timestamp() + 601) == [done.id]
    in_90_min = datetime.now().timestamp() + 5400
    assert scheduled.get_jobs_to_enqueue(in_90_min) == [soon.id] and scheduled.get_job_ids(0, 0, desc=True) == [
        later.id
    ]
    scheduled.remove(soon)
    assert soon.is_canceled and soon in queue.canceled_job_registry and len(scheduled) == 1
    with pytest.raises(NotImplementedError, match="delete_job=True"):
        finished.remove(done)
    finished.remove(done.id, delete_job=True)
    assert not len(finished) and len(queue.ready_job_registry) == 0
    with pytest.raises(NotImplementedError):
        queue.canceled_job_registry.get_expired_job_ids()


def test_classes_of_ones_own_are_used(bench: Bench) -> None:
    """`job_class` as a class or a path, `queue_class` of the decorator; what is stored is read as it was made."""

    class MyQueue(Queue):
        job_class = rq_jobs.MyJob

    same = decorate("low", bench.connection, queue_class=MyQueue, meta={"by": "decorator"}, description="hm")(
        rq_jobs.same
    )
    job = same.enqueue(1, at_front=True)
    assert isinstance(job, rq_jobs.MyJob) and job.title == "low: rq_jobs.same" and job.meta == {"by": "decorator"}
    queue = Queue("low", bench.connection, job_class="rq_jobs.MyJob")
    [found] = queue.jobs
    assert isinstance(found, rq_jobs.MyJob) and found.title == job.title and found.description == "hm"
    assert isinstance(rq_jobs.MyJob.fetch(job.id, bench.connection), rq_jobs.MyJob)


def test_wrong_words_are_refused_where_they_are_written(queue: Queue) -> None:
    """RQ's exception types; nothing is stored."""
    wrong: list[tuple[type[Exception], str, dict[str, object]]] = [
        (TypeError, "args", {"args": 5}), (TypeError, "kwargs", {"kwargs": 5}), (TypeError, "meta", {"meta": 5}),
        (TypeError, "retry", {"retry": "3"}), (TypeError, "repeat", {"repeat": 3}), (TypeError, "rate_limit", {"rate_limit": 3}),
        (TypeError, "webhooks", {"webhooks": ["http://a"]}), (ValueError, "Callback", {"on_success": 5}),
        (ValueError, "explicit job_id", {"unique": True}), (ValueError, "depends_on", {"depends_on": [5]}),
        (ValueError, "dependencies", {"unique": True, "job_id": "a", "depends_on": "b"}),
    ]  # fmt: skip
    for kind, match, words in wrong:
        with pytest.raises(kind, match=match):
            queue.enqueue(max, **words)
    for kind, match, make in (
        (ValueError, "times", lambda: Repeat(0)), (ValueError, "negative", lambda: Repeat(1, [1, -1])),
        (TypeError, "interval", lambda: Repeat(1, "5")), (ValueError, "empty", lambda: Dependency([])),
        (ValueError, "type Job", lambda: Dependency([5])), (TypeError, "connection", lambda: Queue("low")),
        (NoRedisConnectionException, "connection", lambda: Job("x")), (ValueError, "valid", lambda: Queue.from_queue_key("x")),
    ):  # fmt: skip
        with pytest.raises(kind, match=match):
            make()
    assert queue.is_empty() and queue.get_redis_server_version() >= (7, 0, 0)


@pytest.mark.parametrize("penalty", [UnixSignalDeathPenalty, TimerDeathPenalty])
def test_a_death_penalty_ends_a_block(penalty: type[UnixSignalDeathPenalty | TimerDeathPenalty]) -> None:
    """When its time is up, and not later."""
    with pytest.raises(JobTimeoutException, match=r"0\.05 seconds"), penalty(0.05, JobTimeoutException):
        until(lambda: False, timeout_s=30)
    with penalty(30, JobTimeoutException):
        pass
