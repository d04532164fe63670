"""From a call to a stored job, one by one and by the thousand, sync and async."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jobs_of_the_tests
import pytest

from headrace import (
    ArgumentsMismatch,
    Event,
    Headrace,
    Job,
    JobExists,
    JobNotFound,
    PayloadNotSerializable,
    PayloadTooLarge,
    ServerUnreachable,
    State,
    Task,
    UsageError,
)
from headrace.app import URL_DEFAULT, find_url
from headrace.engine.call import command
from headrace.server import EmbeddedServer, free_port


def add(a: int, b: int = 1) -> int:
    return a + b


@pytest.fixture
def task(app: Headrace) -> Task[..., int]:
    return app.task(name="add", priority=3, tags=["sum"])(add)


def test_a_job_is_stored_as_it_was_asked(app: Headrace, task: Task[..., int]) -> None:
    """Task, arguments, queue and options can be read back by its id alone."""
    job = task.options(queue="low", description="one and two", tags=["x"]).enqueue(1, b=2)
    assert (job.queue, job.state, job.task) == ("low", State.QUEUED, "add")
    found = app.job(job.id)
    assert found == job == Job.fetch(job.id, app=app, queue="low")
    assert (found.args, found.kwargs, found.priority) == ([1], {"b": 2}, 3)
    assert (found.description, found.tags, found.attempt, found.errors) == ("one and two", ["x"], 0, [])
    assert abs(found.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert found.ended_at is None and found.progress is None


def test_every_way_to_enqueue_reaches_the_same_task(app: Headrace, task: Task[..., int]) -> None:
    """By task, function, name, queue and options; a plain function of an allowed module too."""
    assert app.enqueue(task, 1).task == app.enqueue(add, 1).task == app.enqueue("add", 1).task == "add"
    assert app.enqueue("add", 1).priority == 3
    low = app.queue("low").options(delay=60)
    assert (low.enqueue(add, 1).queue, low.enqueue(add, 1).state) == ("low", State.SCHEDULED)
    assert app.options(queue="x").enqueue(task, 1).queue == "x"
    assert app.enqueue(jobs_of_the_tests.double, 4).task == "jobs_of_the_tests.double"
    assert app.enqueue("other.program", 1, x=2).kwargs == {"x": 2}


def test_no_argument_of_the_user_is_taken(app: Headrace) -> None:
    """Names that are options elsewhere are the task's own here."""

    def greedy(**kwargs: Any) -> dict[str, Any]:
        return kwargs

    names = {name: 1 for name in ("queue", "timeout", "target", "self", "delay", "job_id", "args", "task", "plan")}
    task = app.task(name="greedy")(greedy)
    assert task.enqueue(**names).kwargs == names
    assert app.enqueue(greedy, **names).kwargs == names
    assert app.queue("q").enqueue("greedy", **names).kwargs == names
    assert task.options(priority=1).enqueue(**names).kwargs == names


def test_a_delayed_job_is_scheduled(app: Headrace, task: Task[..., int]) -> None:
    """By delay from the server's now, or at an instant; a past one means now."""
    later = task.options(delay=timedelta(minutes=1)).enqueue(1).refresh()
    assert later.state is State.SCHEDULED and later.due_at is not None
    at = datetime(2090, 1, 1, tzinfo=UTC)
    with pytest.raises(UsageError, match="at: more than 10 years"):
        task.options(at=at)
    at = datetime.now(UTC) + timedelta(days=3)
    due = task.options(at=at).enqueue(1).refresh().due_at
    assert due is not None and abs(due - at) < timedelta(seconds=1)
    assert task.options(at=datetime(2001, 1, 1, tzinfo=UTC)).enqueue(1).refresh().state in ("queued", "scheduled")


def test_a_chosen_id_is_used_once(app: Headrace, task: Task[..., int]) -> None:
    """The second call is refused, and the first job stays."""
    assert task.options(job_id="order:7").enqueue(1).id == "order:7"
    with pytest.raises(JobExists) as caught:
        task.options(job_id="order:7").enqueue(2)
    assert caught.value.job_id == "order:7" and app.job("order:7").args == [1]
    for wrong in ("", "a b", "{x}", "x" * 300, "é", "a\n"):
        with pytest.raises(UsageError, match="job_id"):
            task.options(job_id=wrong)
        with pytest.raises(UsageError, match="job_id"):
            app.job(wrong)


def test_a_wrong_queue_name_is_refused(app: Headrace, task: Task[..., int]) -> None:
    """It would break the keys."""
    for wrong in ("", "{a}", "a*", "a b", "x" * 300):
        with pytest.raises(UsageError, match="queue name"):
            app.queue(wrong)
        with pytest.raises(UsageError, match="queue name"):
            task.options(queue=wrong)


def test_wrong_arguments_fail_at_the_call(app: Headrace, task: Task[..., int]) -> None:
    """Naming the parameter; nothing is stored."""
    with pytest.raises(ArgumentsMismatch, match=r"add\(\): missing a required argument: 'a'"):
        task.enqueue()
    with pytest.raises(ArgumentsMismatch, match=r"add\(\): got an unexpected keyword argument 'c'"):
        task.call(1, c=2)
    with pytest.raises(PayloadNotSerializable, match="argument b: a function"):
        task.enqueue(1, lambda: 1)
    with pytest.raises(PayloadNotSerializable, match="argument x: a generator"):
        app.enqueue("other.program", x=(n for n in range(0)))
    assert app.client.run(_count_queues(app)) == 0


def _count_queues(app: Headrace) -> Any:
    return command("DBSIZE", decode=int)


def test_a_payload_over_the_limit_is_refused(url: str) -> None:
    """The limit is the app's."""
    with Headrace(url, max_payload_bytes=1_000) as app:
        task = app.task(name="add")(add)
        with pytest.raises(PayloadTooLarge, match="the largest is 'b'"):
            task.enqueue(1, "x" * 2_000)  # type: ignore[arg-type]
        with pytest.raises(PayloadTooLarge, match="the largest is 'b'"):
            app.enqueue("other.program", b="x" * 2_000)


def test_an_argument_its_task_could_not_read_is_refused(app: Headrace) -> None:
    """A job that can only fail is not stored."""

    def on_day(day: datetime) -> None: ...

    task = app.task(name="on_day")(on_day)
    with pytest.raises(ArgumentsMismatch, match=r"on_day\(\): argument 'day'"):
        task.enqueue("tomorrow")  # type: ignore[arg-type]


def test_many_jobs_go_in_parts_and_come_back_in_order(app: Headrace, task: Task[..., int]) -> None:
    """2,500 jobs over two queues."""
    calls = [(task.options(queue="odd") if n % 2 else task).call(n) for n in range(2_500)]
    jobs = app.enqueue_many(call for call in calls)
    assert [job.args for job in jobs] == [[n] for n in range(2_500)]
    assert len({job.id for job in jobs}) == 2_500
    assert (app.job(jobs[0].id).queue, app.job(jobs[2_499].id).queue) == ("default", "odd")
    assert app.enqueue_many([]) == []


def test_large_jobs_go_in_parts_of_4_mib(app: Headrace) -> None:
    """No single call is larger than a server likes."""
    jobs = app.enqueue_many(app.queue("big").call("other.program", b"x" * 900_000) for _ in range(12))
    assert all(app.job(job.id, "big").state is State.QUEUED for job in jobs)


def test_many_refuses_before_anything_is_stored(app: Headrace, task: Task[..., int]) -> None:
    """What is no call; one id twice."""
    with pytest.raises(UsageError, match="calls made by"):
        app.enqueue_many([task.call(1), task.enqueue])  # type: ignore[arg-type]
    with pytest.raises(JobExists, match="two of the calls"):
        app.enqueue_many([task.options(job_id="one").call(n) for n in range(2)])
    with pytest.raises(JobNotFound):
        app.job("one")


def test_a_call_can_be_enqueued_again_and_again(app: Headrace, task: Task[..., int]) -> None:
    """Each time it is a job of its own."""
    call = task.call(1)
    assert len({job.id for job in app.enqueue_many([call, call])}) == 2


async def _all_async(app: Headrace, task: Task[..., int]) -> None:
    jobs = await asyncio.gather(*(task.aenqueue(n) for n in range(50)))
    assert [job.args for job in jobs] == [[n] for n in range(50)]
    assert (await app.aenqueue("other.program", 1)).task == "other.program"
    assert (await app.queue("low").aenqueue(add, 1)).queue == "low"
    assert (await task.options(delay=9).aenqueue(1)).state is State.SCHEDULED
    both = await asyncio.gather(*(task.options(job_id="one").aenqueue(n) for n in range(2)), return_exceptions=True)
    assert [JobExists] == [type(given) for given in both if isinstance(given, Exception)]
    many = await app.aenqueue_many(task.call(n) for n in range(1_200))
    found = await Job.afetch(many[-1].id, app=app)
    assert (found.args, (await found.arefresh()).state) == ([1_199], State.QUEUED)
    assert await found.acancel() and (await found.arefresh()).state is State.CANCELLED
    assert await found.aretry()
    await found.adelete()
    with pytest.raises(JobNotFound):
        await app.ajob(found.id)
    assert task.enqueue(1).state is State.QUEUED  # blocking, but it works inside a loop
    await app.aclose()


def test_the_async_twins_do_the_same(app: Headrace, task: Task[..., int]) -> None:
    """On one event loop, calls side by side."""
    asyncio.run(_all_async(app, task))


def test_enqueueing_is_told_to_who_asked(app: Headrace, task: Task[..., int]) -> None:
    """And a handler that raises changes nothing."""
    heard: list[Event] = []

    @app.on("job.enqueued")
    def hear(event: Event) -> None:
        heard.append(event)
        raise RuntimeError("deaf")

    job = task.enqueue(1)
    app.enqueue_many([task.call(2)])
    assert [event.task for event in heard] == ["add", "add"] and heard[0].job_id == job.id
    with pytest.raises(UsageError, match=r"no event 'job\.eaten'"):
        app.on("job.eaten", hear)


def test_a_closed_app_says_so(url: str) -> None:
    """It does not open connections again behind one's back."""
    app = Headrace(url)
    app.enqueue("other.program")
    app.close()
    with pytest.raises(UsageError, match="closed"):
        app.enqueue("other.program")


def test_a_wrong_url_fails_at_once_and_hides_the_password() -> None:
    """Before anything is sent."""
    for wrong in ("http://x", "localhost", "redis://:secret@h:port/0", "redis://:secret@h/x"):
        with pytest.raises(UsageError, match="no server URL") as caught:
            Headrace(wrong)
        assert "secret" not in str(caught.value)
    assert "secret" not in repr(Headrace("redis://:secret@localhost/0"))
    for options in (
        {"prefix": "a{b"},
        {"queues": "high"},
        {"allow": "mod"},
        {"max_payload_bytes": 0},
        {"result_ttl": -1},
    ):
        with pytest.raises(UsageError):
            Headrace("redis://localhost", **options)


def test_no_server_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """ServerUnreachable, which is a ConnectionError."""
    app = Headrace("redis://127.0.0.1:1/0")
    monkeypatch.setattr(app.client, "_retry", False)
    with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1"):
        app.enqueue("other.program")


def test_the_url_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$HEADRACE_URL, then a running dev server of this folder or one above, then the default."""
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_url() == URL_DEFAULT
    file = tmp_path / ".headrace" / "dev.json"
    file.parent.mkdir()
    for text, expected in (
        (f'{{"url": "redis://dev:1", "pid": {os.getpid()}}}', "redis://dev:1"),
        ('{"url": "redis://dev:1", "pid": 4194305}', URL_DEFAULT),
        ("{", URL_DEFAULT),
        ("[]", URL_DEFAULT),
    ):
        file.write_text(text)
        assert find_url() == expected
    monkeypatch.setenv("HEADRACE_URL", "redis://env:1")
    assert find_url() == "redis://env:1"


@pytest.mark.parametrize("retry_for", [0, timedelta(milliseconds=200)])
def test_a_call_is_given_up_as_soon_as_the_app_says(retry_for: float | timedelta) -> None:
    """Sync and async, with nobody at the port: long before the 15 s for which it would be repeated else."""
    with Headrace(f"redis://127.0.0.1:{free_port()}", retry_for=retry_for) as app:
        began_s = time.monotonic()
        with pytest.raises(ServerUnreachable):
            app.enqueue("add", 1)
        with pytest.raises(ServerUnreachable):
            app.enqueue_many([app.queue("default").call("add", 1)])

        async def enqueue() -> None:
            async with Headrace(app.server_config.url, retry_for=retry_for) as other:
                await other.aenqueue("add", 1)

        with pytest.raises(ServerUnreachable):
            asyncio.run(enqueue())
        assert time.monotonic() - began_s < 12


def test_a_call_is_repeated_for_as_long_as_the_app_says(tmp_path: Path) -> None:
    """The server comes back while it is repeated."""
    with EmbeddedServer(data_dir=tmp_path) as server, Headrace(server.url, retry_for=60) as app:
        app.enqueue("add", 1)
        server.kill()
        with ThreadPoolExecutor(1) as pool:
            enqueued = pool.submit(app.enqueue, "add", 2)
            server.start()
            assert enqueued.result(90).state == State.QUEUED


def test_a_time_to_repeat_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="retry_for"):
        Headrace(retry_for=-1)


def look_up(order_id: int) -> None: ...


def test_what_a_task_declares_to_be_searched_by_travels_with_the_job(app: Headrace) -> None:
    """By name, also when passed by position, and by path; what is not there is left out. Options of one job do not lose it."""

    @app.task(name="ship", search=["order_id", "customer.id"])
    def ship(order_id: int, customer: dict[str, int] | None = None) -> None: ...

    def fields(job: Job[Any]) -> dict[str, str]:
        options = job._record.options
        assert options is not None
        return options.fields

    assert fields(ship.enqueue(4711, {"id": 42})) == {"order_id": "4711", "customer.id": "42"}
    assert fields(ship.options(tags=["vip"], delay=5).enqueue(order_id=4712)) == {"order_id": "4712"}


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (["nothing"], "has no argument 'nothing'"),
        ("order_id", "a list"),
        (["a:b"], "names of arguments"),
        ([""], "names"),
        (["a"] * 11, "at most 10"),
    ],
)
def test_what_cannot_be_searched_by_is_refused_where_it_is_declared(app: Headrace, search: Any, message: str) -> None:
    """An argument that the function does not have, or no name at all."""
    with pytest.raises(UsageError, match=message):
        app.task(name="look_up", search=search)(look_up)
