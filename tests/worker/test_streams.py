"""Generator tasks in a child of each pool: what they yield reaches who reads it, each item once and in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
from scenario_lab import until
from worker_kit import Other, hand

from headrace import (
    Headrace,
    ItemsNotKept,
    JobCancelled,
    JobFailed,
    JobNotFound,
    PayloadNotSerializable,
    ResultTimeout,
    Retry,
    State,
    UsageError,
    current_job,
)
from headrace.engine import ops
from headrace.engine.call import command
from headrace.engine.keys import queue_keys
from headrace.testing import FaultProxy, runs

POOLS: dict[str, dict[str, Any]] = {
    "prefork": {"pool": "prefork"},
    "threads": {"pool": "threads", "slots": 2},
    "asyncio": {"pool": "asyncio", "slots": 2},
    "fork": {"pool": "fork"},
}

GO = "go"


@pytest.fixture(params=list(POOLS))
def pool(request: pytest.FixtureRequest) -> dict[str, Any]:
    return POOLS[request.param]


def work(app: Headrace, pool: dict[str, Any], **config: Any) -> None:
    """Until the queue is empty."""
    with hand(app, **pool, **config) as one:
        one.work()


def count_task(app: Headrace, is_async: bool, **options: Any) -> Any:
    if is_async:

        @app.task(name="acount", **options)
        async def acount(most: int) -> AsyncIterator[int]:
            for n in range(most):
                yield n

        return acount

    @app.task(name="count", **options)
    def count(most: int) -> Iterator[int]:
        yield from range(most)

    return count


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
def test_what_a_task_yields_is_read_from_the_start(app: Headrace, pool: dict[str, Any], is_async: bool) -> None:
    """Thousands of items, and none at all; as often as one likes, in sync and in async code, and from an item on."""
    count = count_task(app, is_async)
    job, empty = count.enqueue(3000), count.enqueue(0)
    work(app, pool)
    assert job.refresh().state is State.SUCCEEDED
    assert list(range(3000)) == list(job.stream()) == list(job.stream())
    assert [2999] == list(job.stream(start=2999)) and [] == list(job.stream(start=3000)) == list(empty.stream())

    async def read() -> list[int]:
        async with Headrace(app.server_config.url) as other:
            found = await other.ajob(job.id)
            return [item async for item in found.stream()]

    assert list(range(3000)) == asyncio.run(read())


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
def test_items_are_read_as_they_come(app: Headrace, pool: dict[str, Any], is_async: bool) -> None:
    """The job does not go on before its first item was read, so it must have been told live; blocked readers hear of the end."""

    def wait_for_reader() -> None:
        go: Any = command("BLPOP", GO, "30", key=GO, decode=lambda reply: reply)
        assert app.client.block(go, 30) is not None, "nobody has read the first item"

    if is_async:

        @app.task(name="live")
        async def live() -> AsyncIterator[str]:
            yield "first"
            await asyncio.to_thread(wait_for_reader)
            yield "second"
    else:

        @app.task(name="live")
        def live() -> Iterator[str]:  # type: ignore[misc]
            yield "first"
            wait_for_reader()
            yield "second"

    job = live.enqueue()
    items: list[str] = []

    def read() -> None:
        for item in job.stream(timeout=30):
            items.append(item)
            if item == "first":
                app.client.run(command("RPUSH", GO, "1", key=GO, decode=int))

    reader = threading.Thread(target=read)
    reader.start()
    work(app, pool)
    reader.join(30)
    assert ["first", "second"] == items and not reader.is_alive()


def test_items_come_as_the_type_they_are_annotated_with(app: Headrace) -> None:
    """UUIDs, here; and a sync generator's return value is the job's result."""

    @app.task(name="ids")
    def ids() -> Iterator[UUID]:
        yield UUID(int=7)
        return "all"

    job = ids.enqueue()
    work(app, POOLS["prefork"])
    assert [UUID(int=7)] == list(job.stream()) and job.result(timeout=0) == "all"  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
def test_a_retry_stores_no_item_twice(app: Headrace, pool: dict[str, Any], is_async: bool) -> None:
    """It begins anew; a reader sees each item once, with the rest of the second run, and the error of a last failure."""

    def raises(n: int, attempt: int) -> bool:
        return n == 5 * attempt

    if is_async:

        @app.task(name="flaky", retry=Retry(1, delay=0))
        async def flaky() -> AsyncIterator[int]:
            for n in range(20):
                if raises(n, current_job().attempt):
                    raise ValueError("again")
                yield n
    else:

        @app.task(name="flaky", retry=Retry(1, delay=0))
        def flaky() -> Iterator[int]:  # type: ignore[misc]
            for n in range(20):
                if raises(n, current_job().attempt):
                    raise ValueError("again")
                yield n

    job = flaky.enqueue()
    work(app, pool)
    items: list[int] = []
    with pytest.raises(JobFailed, match="again"):
        items.extend(job.stream())
    items.clear()
    stream = iter(job.stream())
    with pytest.raises(JobFailed):
        while True:
            items.append(next(stream))
    assert list(range(10)) == items


def test_a_generator_goes_on_from_a_checkpoint(app: Headrace, pool: dict[str, Any]) -> None:
    """It says which item comes next; what it yielded before a save is stored before it."""

    @app.task(name="export", retry=Retry(3, delay=0))
    def export() -> Iterator[str]:
        job = current_job()
        done = job.saved or 0
        job.resume_at(done)
        for n in range(done, 40):
            yield f"{n} in attempt {job.attempt}"
            if n % 10 == 9:
                job.save(n + 1)
                if n < 30:
                    raise OSError("the disk is full")

    job = export.enqueue()
    work(app, pool)
    assert [f"{n} in attempt {n // 10 + 1}" for n in range(40)] == list(job.stream())


def test_a_run_that_was_taken_over_stores_nothing(app: Headrace, pool: dict[str, Any]) -> None:
    """Its session is gone: its items are refused, and the run of the other worker is the one that counts."""

    @app.task(name="slow")
    def slow() -> Iterator[int]:
        yield 1
        name = one.child._session_name(0, one.slot.epoch)
        app.client.run(ops.close_session(one.child.queues, name, split=False))
        app.client.run(command("RPUSH", "taken", *Other(app).claim(), key="taken", decode=int))
        yield from range(2, 2000)

    job = slow.enqueue()
    with hand(app, **{**pool, "slots": 1}) as one:
        one.work()
    taken = app.client.run(command("LRANGE", "taken", 0, -1, key="taken", decode=list))
    assert [job.id.encode()] == taken and app.client.run(_length(job.id)) <= 1


def _length(job_id: str) -> Any:
    key = f"hr:{{default}}:stream:{job_id}"
    return command("XLEN", key, key=key, decode=int)


def test_only_the_last_items_are_kept(app: Headrace) -> None:
    """As many as the task says; who comes too late is told so, and where to go on."""
    count = count_task(app, False, stream_max=100)
    job = count.enqueue(1000)
    work(app, POOLS["prefork"])
    with pytest.raises(ItemsNotKept, match="items 0 to 899") as caught:
        list(job.stream())
    assert list(range(900, 1000)) == list(job.stream(start=caught.value.first))
    with pytest.raises(UsageError, match="stream_max"):
        count_task(app, False, stream_max=0)


def test_who_reads_along_hears_how_the_job_ended(app: Headrace) -> None:
    """Cancelled, deleted, or dropped with its result; and when nothing comes."""
    count = count_task(app, False)
    waiting = count.enqueue(1)
    with pytest.raises(ResultTimeout, match="nothing came"):
        list(waiting.stream(timeout=0.05))
    waiting.cancel()
    with pytest.raises(JobCancelled):
        list(waiting.stream())
    waiting.delete()
    with pytest.raises(JobNotFound):
        list(waiting.stream())
    dropped = count.options(result_ttl=0).enqueue(5)
    items: list[int] = []
    reader = threading.Thread(target=lambda: items.extend(dropped.stream(timeout=30)))
    reader.start()
    until_watched(app, dropped.id)
    work(app, POOLS["prefork"])
    reader.join(30)
    assert [0, 1, 2, 3, 4] == items


def until_watched(app: Headrace, job_id: str) -> None:
    key = "hr:{default}:watched"
    until(lambda: app.client.run(command("HGET", key, job_id, key=key, decode=bool)))


def test_an_item_that_cannot_be_stored_fails_the_job(app: Headrace, pool: dict[str, Any]) -> None:
    """With its number and why; the items before it are there."""

    @app.task(name="wrong")
    def wrong() -> Iterator[Any]:
        yield 1
        yield object()

    job = wrong.enqueue()
    work(app, pool)
    with pytest.raises(JobFailed, match="item 1 cannot be stored") as caught:
        list(job.stream())
    assert caught.value.error is not None and caught.value.error.type.endswith(PayloadNotSerializable.__name__)
    assert [1] == [next(iter(job.stream()))]


def test_what_a_job_left_goes_with_its_record(app: Headrace) -> None:
    """Deleted, purged, trimmed, dropped: no key stays (the check at the test's end looks, too)."""

    @app.task(name="both")
    def both() -> Iterator[int]:
        current_job().log("said")
        yield 1

    def keys() -> list[bytes]:
        return sorted(
            key
            for key in app.client.run(command("KEYS", "*", decode=list))
            if b"stream:" in key or b"lines:" in key or key.endswith(b"kept")
        )

    deleted, trimmed = both.enqueue(), both.options(result_ttl=0.001).enqueue()
    work(app, POOLS["prefork"])
    assert len(keys()) == 5
    deleted.delete()
    assert len(keys()) == 3
    queue = queue_keys("default")

    def is_trimmed() -> bool:
        app.client.run(ops.tend(queue, sweep=False))
        return not keys()

    until(is_trimmed)
    with pytest.raises(JobNotFound):
        trimmed.refresh()
    kept_for_a_while = both.options(result_ttl=0).enqueue()
    work(app, POOLS["prefork"])
    assert len(keys()) == 2 and all(app.client.run(command("PTTL", key, key=key, decode=int)) > 0 for key in keys()), (
        kept_for_a_while
    )


@pytest.mark.parametrize("is_done", [True, False], ids=["reply lost", "request lost"])
def test_a_call_lost_on_the_way_neither_loses_nor_doubles_an_item(
    app: Headrace, pool: dict[str, Any], is_done: bool
) -> None:
    """It is sent again, and what the server has of it is passed over."""
    count = count_task(app, pool["pool"] == "asyncio")
    job = count.enqueue(2_000)
    with FaultProxy(app.server_config.url) as link:
        trap = (link.lose_reply if is_done else link.lose_request)(runs("stream"), times=2)
        with hand(app, url=link.url, **pool) as one:
            one.work()
        trap.wait(2)
    assert list(range(2_000)) == list(job.stream())


def test_a_stream_is_read_on_when_a_readers_connection_is_lost(app: Headrace) -> None:
    """From where it was."""
    count = count_task(app, False)
    job = count.enqueue(500)
    with FaultProxy(app.server_config.url) as link, Headrace(link.url) as far:
        far.tasks.update(app.tasks)
        items: list[int] = []
        reader = threading.Thread(target=lambda: items.extend(far.job(job.id).stream(timeout=60)))
        reader.start()
        until_watched(app, job.id)
        link.reset_all()
        work(app, POOLS["prefork"])
        reader.join(60)
    assert list(range(500)) == items


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
def test_streams_and_logs_work_on_a_cluster(cluster_url: str, is_async: bool) -> None:
    """All that belongs to a job lives in its queue's slot."""
    with Headrace(cluster_url) as app:

        @app.task(name="speaks")
        def speaks() -> Iterator[int]:
            current_job().log("hello")
            yield from range(300)

        jobs = [app.queue(name).enqueue("speaks") for name in ("a", "b", "c")]
        for pool in ("prefork", "asyncio"):
            with hand(app, queues=["a", "b", "c"], **POOLS[pool]) as one:
                one.work()
        for job in jobs:
            assert list(range(300)) == list(job.stream()) and ["hello"] == [line.text for line in job.logs()]
            if is_async:

                async def read(name: str = job.id) -> list[int]:
                    async with Headrace(cluster_url) as other:
                        return [item async for item in (await other.ajob(name)).stream()]

                assert list(range(300)) == asyncio.run(read())
