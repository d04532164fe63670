"""What a job's handle tells at its end, and how it waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from headrace import (
    Headrace,
    JobCancelled,
    JobContext,
    JobError,
    JobExpired,
    JobFailed,
    JobNotFound,
    LayoutTooNew,
    PayloadNotSerializable,
    ResultNotKept,
    ResultTimeout,
    RetryIn,
    ServerCorrupt,
    State,
    UsageError,
    current_job,
)
from headrace.context import enter_job, leave_job
from headrace.core.outcome import Cancelled, Raised, Released, Succeeded
from headrace.core.record import AttemptError, decode, encode
from headrace.engine import ops
from headrace.engine.call import command
from headrace.engine.keys import queue_keys
from headrace.job import read_record
from headrace.middleware import arun_inside, as_middleware, run_inside
from headrace.progress import Progress
from headrace.testing import FaultProxy

Run = Callable[..., str]


@dataclass
class Receipt:
    total: int


def pay(total: int) -> Receipt:
    if total < 0:
        raise ValueError(f"cannot pay {total}")
    return Receipt(total)


def nothing() -> None: ...


def unstorable() -> object:
    return lambda: 1


def test_a_result_comes_back_as_its_type(app: Headrace, run_one: Run) -> None:
    """Also to a handle that was found by id."""
    job = app.task(name="pay")(pay).enqueue(5)
    run_one()
    assert job.result(timeout=5) == Receipt(5)
    assert (job.state, job.attempt) == (State.SUCCEEDED, 1) and job.ended_at is not None
    assert app.job(job.id).result(timeout=0) == Receipt(5)


def test_none_is_a_result(app: Headrace, run_one: Run) -> None:
    """Not to be taken for one that is not kept."""
    job = app.task(name="nothing")(nothing).enqueue()
    run_one()
    assert job.result(timeout=5) is None


def test_result_waits_for_the_end_without_polling(app: Headrace, run_one: Run) -> None:
    """Two waiters, one of them async, are both told when the job ends."""
    job = app.task(name="pay")(pay).enqueue(7)
    found: list[Receipt] = []
    waiter = threading.Thread(target=lambda: found.append(job.result(timeout=20)))
    waiter.start()

    async def wait_here() -> Receipt:
        handle = await app.ajob(job.id)
        waiting = asyncio.create_task(handle.aresult(timeout=20))
        keys = queue_keys("default", app.prefix)
        while (await app.aclient.run(command("HGET", keys.watched, job.id, key=keys.watched, decode=_tokens))) < 2:
            await asyncio.sleep(0)
        await asyncio.to_thread(run_one)
        result: Receipt = await waiting
        await app.aclose()
        return result

    assert asyncio.run(wait_here()) == Receipt(7)
    waiter.join(20)
    assert found == [Receipt(7)]


def _tokens(reply: bytes | None) -> int:
    return 0 if reply is None else len(reply.split())


def test_waiters_whom_the_server_forgot_are_told_all_the_same(app: Headrace, run_one: Run) -> None:
    """A server that lost its newest data knows neither who waits, nor perhaps the job: the waiters look again soon."""
    job, gone = app.task(name="pay")(pay).enqueue(7), app.enqueue("pay", 8)

    async def main() -> None:
        waiting = asyncio.create_task(asyncio.to_thread(job.result, 12))
        missing = asyncio.create_task((await app.ajob(gone.id)).aresult(12))
        await asyncio.to_thread(_forget_waiters, app, job.id, gone.id)
        gone.delete()
        await asyncio.to_thread(run_one)
        assert await waiting == Receipt(7)
        with pytest.raises(JobNotFound):
            await missing
        await app.aclose()

    asyncio.run(main())


def test_a_wait_that_ends_untold_looks_once_more(app: Headrace, run_one: Run) -> None:
    """It never says that a job goes on which has ended."""
    job = app.task(name="pay")(pay).enqueue(7)
    found: list[Receipt] = []
    waiter = threading.Thread(target=lambda: found.append(job.result(timeout=1)))
    waiter.start()
    _forget_waiters(app, job.id)
    run_one()
    waiter.join(20)
    assert found == [Receipt(7)]


def _forget_waiters(app: Headrace, *ids: str) -> None:
    """Once each of these jobs has one."""
    watched = queue_keys("default", app.prefix).watched
    for job_id in ids:
        while not app.client.run(command("HGET", watched, job_id, key=watched, decode=_tokens)):
            pass
    app.client.run(command("DEL", watched, key=watched, decode=int))


def test_a_ring_that_came_too_late_is_not_taken_for_the_next_runs(url: str, app: Headrace, run_one: Run) -> None:
    """The wait is cut off as the job ends; when it is run again, its new result is waited for, not the old one read."""
    with FaultProxy(url) as link, Headrace(link.url) as far:

        def ends_first(request: bytes) -> bool:
            if b"BLPOP" in request:
                run_one()
                return True
            return False

        app.task(name="pay")(pay)
        job = far.enqueue("pay", -3)
        trap = link.lose_request(ends_first)
        with pytest.raises(JobFailed):
            job.result(timeout=10)
        assert trap.hits == 1
        assert job.retry()
        with pytest.raises(ResultTimeout):
            job.result(timeout=0.2)


def test_a_timeout_leaves_the_job_and_no_trace(app: Headrace, run_one: Run) -> None:
    """It can be asked again."""
    job = app.task(name="pay")(pay).enqueue(1)
    for timeout in (0, 0.01):
        with pytest.raises(ResultTimeout, match="has not ended"):
            job.result(timeout=timeout)
    keys = queue_keys("default", app.prefix)
    assert app.client.run(command("HLEN", keys.watched, key=keys.watched, decode=int)) == 0
    run_one()
    assert job.wait(timeout=5) is State.SUCCEEDED
    for wrong in (-1, True, float("nan")):
        with pytest.raises(UsageError, match="timeout"):
            app.enqueue("pay", 1).wait(wrong)


def test_a_failure_tells_the_error_as_data(app: Headrace, run_one: Run) -> None:
    """With its type, message and the worker's traceback; no class is rebuilt."""
    job = app.task(name="pay")(pay).enqueue(-3)
    assert run_one() == "f"
    with pytest.raises(JobFailed, match=r"\(pay\) failed after 1 attempt: ValueError: cannot pay -3") as caught:
        job.result(timeout=5)
    error = caught.value.error
    assert error is not None and (error.attempt, error.type, error.message) == (1, "ValueError", "cannot pay -3")
    assert "in pay" in error.traceback and "In the worker" in caught.value.__notes__[0]
    assert job.errors == [error] and job.reason == "ValueError: cannot pay -3"


def test_a_failed_job_can_be_run_again(app: Headrace, run_one: Run) -> None:
    """Attempts start over, errors stay."""
    job = app.task(name="pay", retry=1)(pay).enqueue(-3)
    assert run_one() == "r" and job.refresh().state is State.RETRYING
    assert not job.retry()
    assert job.cancel() and not job.cancel()
    with pytest.raises(JobCancelled):
        job.result(timeout=5)
    assert job.retry() and job.refresh().state is State.QUEUED
    assert job.attempt == 0 and len(job.errors) == 1


def test_each_other_end_has_its_error(app: Headrace, run_one: Run) -> None:
    """Cancelled, not kept, forgotten, deleted, unknown."""
    task = app.task(name="pay")(pay)
    job = task.enqueue(1)
    run_one(end=Cancelled())
    with pytest.raises(JobCancelled):
        job.result(timeout=5)
    job = task.enqueue(1)
    run_one(end=Succeeded(None, "the result takes 9 MiB"))
    with pytest.raises(ResultNotKept, match="9 MiB"):
        job.result(timeout=5)
    unkept = app.task(name="unstorable")(unstorable).enqueue()
    assert run_one() == "s"
    with pytest.raises(ResultNotKept, match="a function"):
        unkept.result(timeout=5)
    job = task.options(result_ttl=0).enqueue(1)
    assert run_one() == "d"
    with pytest.raises(JobNotFound):
        job.result(timeout=5)
    job = task.enqueue(1)
    job.delete()
    with pytest.raises(JobNotFound):
        job.refresh()
    with pytest.raises(JobNotFound):
        app.job("nosuchjob")


def test_an_expired_job_says_so(app: Headrace) -> None:
    """It is dropped when a consumer meets it."""
    job = app.task(name="pay")(pay).options(expires=datetime(2001, 1, 1, tzinfo=UTC)).enqueue(1)
    keys = [queue_keys("default", app.prefix)]
    app.client.run(ops.open_session(keys, "test", 10_000, split=False))
    assert app.client.run(ops.claim(keys, "test", 1, split=False)).claims == []
    with pytest.raises(JobExpired):
        job.result(timeout=5)


def test_a_running_job_shows_where_it_is(app: Headrace, run_one: Run) -> None:
    """State, attempt and progress; it cannot be deleted; a release is not charged."""
    job = app.task(name="pay")(pay).enqueue(1)
    keys = queue_keys("default", app.prefix)
    app.client.run(ops.open_session([keys], "other", 10_000, split=False))
    app.client.run(ops.claim([keys], "other", 1, split=False))
    app.client.run(ops.set_progress(keys, ("other", ""), job.id, Progress.now(0.5, "half").encode()))
    job.refresh()
    assert (job.state, job.attempt) == (State.RUNNING, 1)
    assert job.progress is not None and (job.progress.fraction, job.progress.text) == (0.5, "half")
    with pytest.raises(JobError, match="cancel it first"):
        job.delete()
    app.client.run(ops.close_session([keys], "other", split=False))
    assert run_one(end=Released()) == "l" and job.refresh().attempt == 0


def test_a_record_that_is_not_ours_is_a_clear_error(app: Headrace) -> None:
    """Of a newer layout, or no record at all."""
    record = encode(app.enqueue("other.program")._record)
    with pytest.raises(LayoutTooNew, match="upgrade"):
        read_record(b"\x91\x02")
    for wrong in (b"", b"\xc1", record[:-2], b"\x9f\x01\x80"):
        with pytest.raises(ServerCorrupt):
            read_record(wrong)
    assert read_record(record) == decode(record)


class Reports:
    def __init__(self) -> None:
        self.heard: list[object] = []

    def progress(self, job: JobContext, data: bytes) -> None:
        found = Progress.decode(data)
        assert found is not None
        self.heard.append((job.id, found.fraction, found.text))

    def log(self, job: JobContext, line: str) -> None:
        self.heard.append((job.id, line))

    def is_cancelled(self, job_id: str) -> bool:
        return True


def test_the_current_job_reports_to_its_worker() -> None:
    """And to nobody in a plain call."""
    assert current_job().id == "" and not current_job().is_cancelled
    current_job().progress(0.5)
    current_job().log("nobody hears")
    reports = Reports()
    context = JobContext("j1", "default", "pay", 2, 77, reports)
    token = enter_job(context)
    try:
        assert current_job() is context and current_job().is_cancelled
        current_job().progress(1, "done")
        current_job().log("a line")
        with pytest.raises(RetryIn) as caught:
            current_job().retry_in(30, "later")
    finally:
        leave_job(token)
    assert caught.value.delay_s == 30 and reports.heard == [("j1", 1.0, "done"), ("j1", "a line")]
    for wrong in (-0.1, 1.1, True, "half", float("nan")):
        with pytest.raises(UsageError, match="progress"):
            context.progress(wrong)  # type: ignore[arg-type]


def test_middleware_goes_around_sync_and_async_jobs() -> None:
    """Outermost first; it sees the job's exception."""
    seen: list[str] = []

    def layer(name: str):  # type: ignore[no-untyped-def]
        def around(job: JobContext):  # type: ignore[no-untyped-def]
            seen.append(f"{name} in {job.id}")
            try:
                yield
            except ValueError:
                seen.append(f"{name} saw it")
                raise
            seen.append(f"{name} out")

        return as_middleware(around)

    layers = [layer("a"), layer("b")]
    job = JobContext("j", "q", "t")

    async def answer() -> int:
        return 42

    def fail() -> None:
        raise ValueError

    assert run_inside(layers, job, lambda: 42) == asyncio.run(arun_inside(layers, job, answer)) == 42
    assert seen[:4] == seen[4:] == ["a in j", "b in j", "b out", "a out"]
    with pytest.raises(ValueError):
        run_inside(layers, job, fail)
    assert seen[-2:] == ["b saw it", "a saw it"]

    async def wrong(job: JobContext):  # type: ignore[no-untyped-def]
        yield

    with pytest.raises(UsageError, match="plain generator"):
        as_middleware(wrong)


def test_notes_are_plain_data_beside_the_job(app: Headrace) -> None:
    """By name, sync and async; None takes one away; what cannot be stored, and a job that is gone, are told."""
    job = app.enqueue("a.task")
    job.note("a", {"x": [1, 2]})

    async def noted() -> dict[str, object]:
        async with Headrace(app.server_config.url) as other:
            same = await other.ajob(job.id)
            await same.anote("b", [1])
            return await same.anotes()

    assert asyncio.run(noted()) == {"a": {"x": [1, 2]}, "b": [1]}
    job.note("b", None)
    assert app.job(job.id).notes() == {"a": {"x": [1, 2]}}
    with pytest.raises(PayloadNotSerializable, match="the note 'c'"):
        job.note("c", object())
    with pytest.raises(UsageError, match="note"):
        job.note("", 1)
    job.delete()
    with pytest.raises(JobNotFound):
        job.note("a", 1)
    assert job.notes() == {}


@pytest.mark.parametrize("end", ["failed", "cancelled", "failed before"])
def test_a_job_can_wait_for_others_also_to_fail(app: Headrace, run_one: Run, end: str) -> None:
    """With or_failed it starts when the other has failed, before or after; not when that was cancelled."""
    broken = Raised([], AttemptError(1, "X", ""))
    parent = app.enqueue("a.task")
    if end == "failed before":
        assert run_one(end=broken) == "f"
    options = app.options(depends_on=parent, or_failed=True)
    child, strict = options.enqueue("after.task"), None
    if end != "failed before":
        strict = app.options(depends_on=parent).enqueue("after.task")
        assert child.refresh().state is State.WAITING
        assert parent.cancel() if end == "cancelled" else run_one(end=broken) == "f"
    expected = State.CANCELLED if end == "cancelled" else State.QUEUED
    assert child.refresh().state is expected
    assert strict is None or strict.refresh().state is State.CANCELLED


def test_what_failed_is_put_before_the_rest_when_that_is_asked(app: Headrace, run_one: Run) -> None:
    """retry(at_front=True); and failure_ttl=0 forgets it as soon as workers tend."""
    job = app.options(failure_ttl=0, queue="default").enqueue("a.task")
    app.enqueue("a.task")
    assert run_one(end=Raised([], AttemptError(1, "X", ""))) == "f"
    assert job.retry(at_front=True) and job.refresh().priority == 1
    assert run_one(end=Raised([], AttemptError(1, "X", ""))) == "f"
    app.client.run(ops.tend(queue_keys("default", app.prefix), sweep=False))
    with pytest.raises(JobNotFound):
        job.refresh()
