"""Batch tasks in a child of each pool: which calls run together, and what becomes of each of them."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scenario_lab import until
from worker_kit import Other, hand

from headrace import (
    Batch,
    Headrace,
    JobContext,
    JobTimeout,
    Limit,
    Retry,
    RetryIn,
    State,
    UsageError,
    current_batch,
    current_job,
)
from headrace.core.record import LAYOUT, Record, Stored, encode
from headrace.engine import ops
from headrace.engine.keys import queue_keys
from headrace.testing import FaultProxy, runs

POOLS: dict[str, dict[str, Any]] = {
    "prefork": {"pool": "prefork"},
    "threads": {"pool": "threads", "slots": 2},
    "asyncio": {"pool": "asyncio", "slots": 2},
    "fork": {"pool": "fork"},
}


@pytest.fixture(params=list(POOLS))
def pool(request: pytest.FixtureRequest) -> dict[str, Any]:
    return POOLS[request.param]


class Notes:
    """What handlers tell, also from other processes: a list a line."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)

    def add(self, *words: Any) -> None:
        os.write(self._file, msgspec.json.encode(words) + b"\n")

    def all(self) -> list[list[Any]]:
        lines = os.pread(self._file, 1 << 24, 0).splitlines()
        return [msgspec.json.decode(line) for line in lines]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


def work(app: Headrace, pool: dict[str, Any], **config: Any) -> None:
    """Until the queue is empty."""
    with hand(app, **pool, **config) as one:
        one.work()


@dataclass
class View:
    url: str


def test_calls_run_together_and_each_gets_its_result(app: Headrace, pool: dict[str, Any], notes: Notes) -> None:
    """No batch is larger than `max`; items come as their type; all is done in few calls."""

    @app.task(name="store", batch=Batch(max=40))
    def store(views: list[View]) -> list[int]:
        notes.add(len(views))
        return [len(view.url) for view in views]

    jobs = app.enqueue_many(store.call(View("x" * n)) for n in range(100))
    work(app, pool)
    assert list(range(100)) == [job.result(timeout=0) for job in jobs]
    sizes = [size for (size,) in notes.all()]
    assert 100 == sum(sizes)
    assert max(sizes) <= 40
    assert len(sizes) <= 6


def test_async_handlers_run_together_too(app: Headrace, pool: dict[str, Any], notes: Notes) -> None:
    @app.task(name="store", batch=Batch(max=1000))
    async def store(numbers: list[int]) -> None:
        notes.add(len(numbers))

    jobs = app.enqueue_many(store.call(n) for n in range(600))
    work(app, pool)
    assert {None} == {job.result(timeout=0) for job in jobs}
    assert 600 == sum(size for (size,) in notes.all())
    assert max(size for (size,) in notes.all()) > 256


def test_answers_may_be_exceptions_of_single_calls(app: Headrace, pool: dict[str, Any]) -> None:
    """One call failing fails alone, by its own policy; RetryIn as an answer puts off one call."""

    @app.task(name="halve", batch=Batch(max=10), retry=Retry(1, on=[KeyError], delay=3600))
    def halve(numbers: list[int]) -> list[float | Exception]:
        answers = [0.5, ValueError("odd"), KeyError("later"), RetryIn(3600, "much later")]
        return [answers[number] for number in numbers]

    jobs = app.enqueue_many(halve.call(n) for n in range(4))
    work(app, pool)
    assert [State.SUCCEEDED, State.FAILED, State.RETRYING, State.RETRYING] == [job.refresh().state for job in jobs]
    assert 0.5 == jobs[0].result(timeout=0)
    assert "ValueError: odd" == jobs[1].reason
    assert [1, 1, 1, 1] == [job.attempt for job in jobs]


def test_a_call_that_makes_its_batch_raise_fails_alone(app: Headrace, pool: dict[str, Any], notes: Notes) -> None:
    """The batch is halved until it is found; the others succeed in few calls, each once."""

    @app.task(name="store", batch=Batch(max=100))
    def store(numbers: list[int]) -> list[int]:
        if 37 in numbers:
            raise ValueError(f"37 of {len(numbers)}")
        notes.add(*numbers)
        return numbers

    jobs = app.enqueue_many(store.call(n) for n in range(100))
    work(app, pool)
    states = [job.refresh().state for job in jobs]
    assert [37] == [n for n, state in enumerate(states) if state is State.FAILED]
    assert "ValueError: 37 of 1" == jobs[37].reason
    assert {State.SUCCEEDED, State.FAILED} == set(states)
    assert sorted({*range(100)} - {37}) == sorted(number for call in notes.all() for number in call)


def test_a_handler_that_always_raises_is_not_called_for_each_call(
    app: Headrace, pool: dict[str, Any], notes: Notes
) -> None:
    """A database that is away: 41 calls for a thousand jobs at most; each takes it as its failed attempt."""

    @app.task(name="store", batch=Batch(max=1000), retry=Retry(3, delay=3600))
    def store(numbers: list[int]) -> None:
        notes.add(len(numbers))
        raise ConnectionError("the database is away")

    jobs = app.enqueue_many(store.call(n) for n in range(500))
    work(app, {**pool, "slots": 1})
    assert {(State.RETRYING, 1, "ConnectionError")} == {
        (job.state, job.attempt, job.errors[0].type) for job in [job.refresh() for job in jobs]
    }
    batches = 3  # the first claim of a consumer may be short
    assert len(notes.all()) <= 41 * batches


@pytest.mark.parametrize("answer", [[1], [1, 2, 3], "ab", 5, {1: 2}], ids=str)
def test_a_wrong_number_of_answers_fails_the_calls(app: Headrace, answer: Any) -> None:
    """It says how many there were; nothing is called again for it."""
    calls: list[int] = []

    @app.task(name="store", batch=Batch())
    def store(numbers: list[int]) -> Any:
        calls.append(len(numbers))
        return answer

    jobs = app.enqueue_many(store.call(n) for n in range(2))
    work(app, POOLS["asyncio"])
    assert {State.FAILED} == {job.refresh().state for job in jobs}
    assert "called with 2 items and returned" in str(jobs[0].reason)
    assert [2] == calls


def test_a_call_that_cannot_be_read_does_not_reach_the_handler(app: Headrace, pool: dict[str, Any]) -> None:
    """Another program enqueued it by name with something else: it waits for a worker that it fits."""

    @app.task(name="store", batch=Batch())
    def store(views: list[View]) -> list[str]:
        return [view.url for view in views]

    with Headrace(app.server_config.url) as other:  # which does not know the task
        wrong = [other.enqueue("store", 5), other.enqueue("store", {"url": "a"}, 2), other.enqueue("store", url="a")]
        right = other.enqueue("store", {"url": "a"})
        keys = queue_keys("default")
        body = Record(LAYOUT, Stored.LIVE, 0, 0, "store", msgspec.Raw(b"\x91\x01"), 0)
        torn = [ops.NewJob("torn", encode(body))]
        other.client.run(ops.enqueue(keys, torn, "test", 1))
    work(app, pool)
    assert "a" == app.job(right.id).result(timeout=0)
    assert {State.SCHEDULED} == {app.job(job_id).state for job_id in ["torn", *(job.id for job in wrong)]}


def test_a_cancelled_call_is_left_out(app: Headrace, pool: dict[str, Any], notes: Notes) -> None:
    @app.task(name="store", batch=Batch())
    def store(numbers: list[int]) -> None:
        notes.add(*numbers)

    jobs = app.enqueue_many(store.call(n) for n in range(6))
    assert jobs[2].cancel()
    work(app, pool)
    assert [0, 1, 3, 4, 5] == sorted(number for call in notes.all() for number in call)


def test_other_jobs_run_among_batches(app: Headrace, pool: dict[str, Any], notes: Notes) -> None:
    """Calls of two batch tasks and plain jobs in one queue: each runs once, and no handler gets another's items."""

    @app.task(name="evens", batch=Batch(max=50, wait=0.05))
    def evens(numbers: list[int]) -> None:
        assert {0} == {number % 3 for number in numbers}
        notes.add(*numbers)

    @app.task(name="odds", batch=Batch(max=7))
    async def odds(numbers: list[int]) -> None:
        assert {1} == {number % 3 for number in numbers}
        assert len(numbers) <= 7
        notes.add(*numbers)

    @app.task(name="plain")
    def plain(number: int) -> None:
        notes.add(number)

    kinds: list[Any] = [evens, odds, plain]
    jobs = app.enqueue_many([kinds[n % 3].call(n) for n in range(300)])
    work(app, pool)
    assert {State.SUCCEEDED} == {job.refresh().state for job in jobs}
    assert list(range(300)) == sorted(number for call in notes.all() for number in call)


def test_the_handler_knows_its_jobs(app: Headrace, pool: dict[str, Any]) -> None:
    """Ids, attempts, fences and idempotency keys in the items' order; what is of one job only is refused for all."""

    @app.task(name="store", batch=Batch(), retry=Retry(1, delay=0))
    def store(numbers: list[int]) -> list[Any]:
        batch = current_batch()
        assert current_job() is batch
        for act in (lambda: batch.idempotency_key, lambda: batch.log("x"), lambda: batch.effect("default")):
            with pytest.raises(UsageError, match=r"current_batch\(\)"):
                act()
        for job in batch.jobs:
            job.log("hello")
        return [(job.id, job.attempt, job.fence, job.idempotency_key) for job in batch.jobs]

    jobs = app.enqueue_many(store.options(job_id=f"j{n}").call(n) for n in range(5))
    work(app, pool)
    told = [job.result(timeout=0) for job in jobs]
    assert [(f"j{n}", 1, f"default/j{n}") for n in range(5)] == [(i, attempt, key) for i, attempt, _, key in told]
    assert min(fence for _, _, fence, _ in told) > 0
    assert {1} == {len(job.logs()) for job in jobs}


def test_middleware_runs_around_the_handler_and_events_come_for_each_job(app: Headrace) -> None:
    seen: list[str] = []

    @app.middleware
    def around(job: JobContext) -> Any:
        seen.append(f"in {job.task} {job.id!r}")
        yield
        seen.append("out")

    for name in ("job.started", "job.succeeded", "job.failed"):
        app.on(name, lambda event: seen.append(f"{event.name} {event.job_id}"))

    @app.task(name="store", batch=Batch())
    def store(numbers: list[int]) -> list[int | Exception]:
        return [1, ValueError("no")]

    for n in range(2):
        store.options(job_id=f"j{n}").enqueue(n)
    work(app, POOLS["asyncio"])
    assert ["job.started j0", "job.started j1", "in store ''", "out", "job.succeeded j0", "job.failed j1"] == seen


@pytest.mark.parametrize("wait_s", [0.0, 10.0])
def test_a_suspect_runs_alone_and_waits_for_nobody(
    app: Headrace, pool: dict[str, Any], notes: Notes, wait_s: float
) -> None:
    """What ran when its process died is called by itself, the others together."""

    @app.task(name="store", batch=Batch(wait=wait_s))
    def store(numbers: list[int]) -> None:
        notes.add(*numbers)

    app.enqueue_many(store.options(job_id=f"j{n}").call(n) for n in range(4))
    other = Other(app)
    other.claim(4)
    other.die("j1", "j3")
    work(app, pool)
    calls = notes.all()
    assert [1] in calls and [3] in calls
    assert [0, 2] == sorted(number for call in calls for number in call if call not in ([1], [3]))


def test_a_batch_over_its_timeout_is_stopped_and_each_call_is_told(app: Headrace, notes: Notes) -> None:
    """The handler raised JobTimeout: that is not looked into by calling it again."""

    @app.task(name="store", batch=Batch(), retry=Retry(1, delay=3600))
    def store(numbers: list[int]) -> None:
        notes.add(len(numbers))
        raise JobTimeout("over its timeout")

    jobs = app.enqueue_many(store.call(n) for n in range(8))
    work(app, POOLS["asyncio"])
    assert {(State.RETRYING, "headrace.errors.JobTimeout")} == {
        (job.refresh().state, job.errors[0].type) for job in jobs
    }
    assert 8 == sum(size for (size,) in notes.all())


def test_per_job_options_count_for_each_call(app: Headrace, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(name="store", batch=Batch())
    def store(numbers: list[int]) -> list[int | Exception]:
        return [ValueError("no") for _ in numbers]

    retried = store.options(retry=Retry(2, delay=3600)).enqueue(1)
    failed = store.enqueue(2)
    with pytest.raises(UsageError, match="only the task itself"):
        store.options(timeout=5).enqueue(3)
    with caplog.at_level(logging.ERROR):
        work(app, POOLS["asyncio"])
    assert (State.RETRYING, State.FAILED) == (retried.refresh().state, failed.refresh().state)


@pytest.fixture
def link(url: str) -> Iterator[FaultProxy]:
    with FaultProxy(url) as found:
        yield found


@pytest.mark.parametrize("is_done", [True, False], ids=["reply lost", "request lost"])
@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "fork"], indirect=True)
def test_a_call_lost_while_a_batch_fills_up_neither_loses_nor_doubles_a_job(
    app: Headrace, pool: dict[str, Any], link: FaultProxy, notes: Notes, is_done: bool
) -> None:
    """The consumer adopts its session, which gives back what was gathered, and gathers again."""

    @app.task(name="store", batch=Batch(max=3, wait=10))
    def store(numbers: list[int]) -> list[int]:
        notes.add(*numbers)
        return numbers

    problems: list[BaseException] = []

    def act() -> None:
        try:
            with Headrace(app.server_config.url) as far:
                jobs = [far.enqueue("store", 0)]
                until(lambda: far.job(jobs[0].id).state is State.RUNNING)
                trap = link.lose_reply(runs("settle")) if is_done else link.lose_request(runs("settle"))
                jobs += [far.enqueue("store", 1), far.enqueue("store", 2)]
                trap.wait()
                assert [0, 1, 2] == [job.result(timeout=60) for job in jobs]
        except BaseException as error:
            problems.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with hand(app, burst=False, url=link.url, **{**pool, "slots": 1}) as one:  # one consumer gathers them all
        thread = threading.Thread(target=act)
        app.on_start(thread.start)
        one.work()
        thread.join()
    assert [] == problems
    assert [0, 1, 2] == sorted(number for call in notes.all() for number in call)


@pytest.mark.parametrize("pool", ["prefork", "threads", "fork"], indirect=True)
def test_a_lost_give_back_of_another_job_loses_and_doubles_nothing(
    app: Headrace, pool: dict[str, Any], link: FaultProxy, notes: Notes
) -> None:
    """While a batch fills up a plain job comes, and the call that returns it is lost: the adoption returns the batch, too."""

    @app.task(name="store", batch=Batch(max=2, wait=10))
    def store(numbers: list[int]) -> None:
        notes.add(*numbers)
        # Another consumer may have had it meanwhile: then it is not run here.
        states = {State.RUNNING} == {app.job(job.id).state for job in current_batch().jobs}
        notes.add(-1 if states else -2)

    @app.task(name="plain")
    def plain(number: int) -> int:
        return number

    returns = runs("settle")
    problems: list[BaseException] = []

    def act() -> None:
        try:
            with Headrace(app.server_config.url) as far:
                first = far.enqueue("store", 0)
                until(lambda: far.job(first.id).state is State.RUNNING)
                # Among the arguments of a claim no job is named: it is the call that gives the plain one back.
                trap = link.lose_request(lambda request: returns(request) and b"the-plain-one" in request)
                other = far.options(job_id="the-plain-one").enqueue("plain", 5)
                trap.wait()
                far.enqueue("store", 1)  # so that it need not wait again
                assert (None, 5) == (first.result(timeout=60), other.result(timeout=60))
        except BaseException as error:
            problems.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with hand(app, burst=False, url=link.url, **{**pool, "slots": 1}) as one:
        thread = threading.Thread(target=act)
        app.on_start(thread.start)
        one.work()
        thread.join()
    assert [] == problems
    told = [number for call in notes.all() for number in call]
    assert (1, 0) == (told.count(0), told.count(-2))


@pytest.mark.parametrize(
    ("count", "most"), [(200, 20), pytest.param(6_000, 1_000, marks=pytest.mark.long)], ids=["small", "large"]
)
def test_a_chatty_link_loses_and_doubles_nothing(
    app: Headrace, pool: dict[str, Any], link: FaultProxy, notes: Notes, count: int, most: int
) -> None:
    """Replies and requests of every call are lost now and then, in the middle of batches; each job runs once."""

    @app.task(name="store", batch=Batch(max=most, wait=0.01))
    def store(numbers: list[int]) -> None:
        notes.add(*numbers)

    jobs = app.enqueue_many(store.call(n) for n in range(count))
    for name in ("settle", "adopt", "give_back"):
        link.lose_reply(runs(name), times=None, chance=0.15)
        link.lose_request(runs(name), times=None, chance=0.1)
    work(app, pool, url=link.url)
    assert list(range(count)) == sorted(number for call in notes.all() for number in call)
    assert {State.SUCCEEDED} == {job.refresh().state for job in jobs}


def test_a_limit_that_a_whole_batch_asks_to_hold_is_held(app: Headrace, notes: Notes) -> None:
    """RetryIn(limit=...) raised for all of them: none comes back before it opens, and nobody else of that limit starts."""

    @app.task(name="call", batch=Batch(), limits=Limit("service", rate="1000/s", burst=1000))
    def call(numbers: list[int]) -> None:
        notes.add(*numbers)
        raise RetryIn(3600, "429", limit="service")

    jobs = app.enqueue_many(call.call(n) for n in range(5))
    work(app, POOLS["prefork"])
    assert 5 == sum(len(numbers) for numbers in notes.all())
    assert {State.RETRYING} == {job.refresh().state for job in jobs}
    later = call.enqueue(5)
    work(app, POOLS["prefork"])
    assert State.WAITING is later.refresh().state


def test_a_deadline_of_one_call_does_not_stop_the_others(app: Headrace) -> None:
    """It holds until its batch begins; what the batch enqueues inherits none, unless all have one."""

    @app.task(name="store", batch=Batch())
    def store(numbers: list[int]) -> list[Any]:
        deadline_ms = current_batch().deadline_ms
        return [(len(numbers), deadline_ms > 0) for _ in numbers]

    first = [store.options(deadline=3600).enqueue(1), store.options(deadline=7200).enqueue(2)]
    work(app, POOLS["asyncio"])
    assert [(2, True)] * 2 == [tuple(job.result(timeout=0)) for job in first]
    second = [store.options(deadline=3600).enqueue(1), store.enqueue(2)]
    work(app, POOLS["asyncio"])
    assert [(2, False)] * 2 == [tuple(job.result(timeout=0)) for job in second]


@pytest.mark.parametrize("fn", [lambda: 1, lambda a, b: 1, lambda *, a: 1])
def test_a_batch_task_takes_one_list(app: Headrace, fn: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="called with one list"):
        app.task(name="x", batch=Batch())(fn)
