"""Only type-checked: what users write has the types they expect, and what cannot work is an error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, assert_type

from headrace import (
    Batch,
    BatchContext,
    BatchTask,
    Chain,
    Headrace,
    Job,
    JobCall,
    JobContext,
    JobStream,
    LogLine,
    Queue,
    Retry,
    RunningFlow,
    Schedule,
    State,
    Task,
    current_batch,
    current_flow,
    current_job,
    group,
)
from headrace.chain import CallGroup
from headrace.core.record import AttemptError

app = Headrace()


@app.task
def bare(url: str, width: int = 800) -> int:
    return len(url) * width


@app.task(queue="high", retry=Retry(5), timeout=timedelta(seconds=30), expires=None, tags=["a"])
def declared(url: str) -> list[str]:
    return [url]


@app.task
async def bare_async(url: str) -> int:
    return len(url)


@app.task(retry=3, timeout=None)
async def declared_async(url: str, *, deep: bool) -> bytes:
    return url.encode() if deep else b""


@app.task(batch=Batch(max=1000, wait=0.2), queue="views")
def stored(views: list[str]) -> None: ...


@app.task(batch=Batch())
async def astored(views: list[str]) -> None: ...


@app.task(batch=Batch())
def answered(urls: Sequence[str]) -> list[int | Exception]:
    return [len(url) for url in urls]


@app.task(batch=Batch())
async def aanswered(urls: list[str]) -> list[int]:
    return [len(url) for url in urls]


def plain(a: int, b: str = "") -> float:
    return a + len(b)


async def plain_async(a: int) -> float:
    return a


def sync_use() -> None:
    assert_type(bare.enqueue("a", width=1), Job[int])
    assert_type(bare.enqueue("a").result(timeout=5), int)
    assert_type(bare("a"), int)
    assert_type(declared.enqueue("a"), Job[list[str]])
    assert_type(declared("a"), list[str])
    assert_type(bare_async.enqueue("a"), Job[int])
    assert_type(bare_async("a"), Coroutine[Any, Any, int]).close()
    assert_type(declared_async.enqueue("a", deep=True), Job[bytes])
    assert_type(bare.options(delay=5, priority=9).enqueue("a"), Job[int])
    assert_type(bare.options(at=datetime.now()).options(job_id="x").call("a"), JobCall[int])
    assert_type(bare.options(durability="replicated").enqueue("a"), Job[int])
    assert_type(app.enqueue(plain, 1, b="x"), Job[float])
    assert_type(app.enqueue(plain_async, 1), Job[float])
    assert_type(app.enqueue(bare, "a"), Job[int])
    assert_type(app.enqueue(bare_async, "a"), Job[int])
    assert_type(app.enqueue("mail.send", 1, to="x"), Job[Any])
    assert_type(app.queue("low"), Queue)
    assert_type(app.outbox("default").enqueue(bare, "a", width=2), Job[int])
    assert_type(app.outbox("default").options(delay=5).enqueue(plain_async, 1), Job[float])
    assert_type(current_job().idempotency_key, str)
    assert_type(app.queue("low").enqueue(plain, 1), Job[float])
    assert_type(app.options(delay=1).enqueue(plain_async, 1), Job[float])
    assert_type(app.enqueue_many(bare.call(x) for x in "ab"), list[Job[int]])
    assert_type(app.job("id"), Job[Any])
    assert_type(Job.fetch("id", app=app), Job[Any])
    assert_type(app.find_task("x"), Task[..., Any] | None)


def batch_use() -> None:
    assert_type(stored, BatchTask[str, None])
    assert_type(astored, BatchTask[str, None])
    assert_type(answered, BatchTask[str, int])
    assert_type(aanswered, BatchTask[str, int])
    assert_type(stored.enqueue("a"), Job[None])
    assert_type(answered.enqueue("a").result(), int)
    assert_type(answered.options(delay=1).enqueue("a"), Job[int])
    assert_type(app.enqueue(answered, "a"), Job[int])
    assert_type(app.queue("x").enqueue(answered, "a"), Job[int])
    assert_type(app.queue("x").call(aanswered, "a"), JobCall[int])
    assert_type(app.enqueue_many(stored.call(x) for x in "ab"), list[Job[None]])
    assert_type(current_batch(), BatchContext)
    assert_type(current_flow(), RunningFlow)
    answered(["a", "b"])
    takes_any_task(answered)


def schedules_use() -> None:
    assert_type(app.cron("* * * * *", tz="UTC", retry=3)(plain).enqueue(1), Job[float])
    assert_type(app.every(30, overlap="skip")(plain_async).enqueue(1), Job[float])
    assert_type(app.every(30, name="again")(bare).enqueue("a"), Job[int])
    assert_type(app.schedules.add("s", bare.call("a"), cron="* * * * *"), Schedule)
    assert_type(app.schedules.list(), list[Schedule])
    assert_type(app.schedules.run_now("s"), Job[Any])
    assert_type(app.schedules.get("s").next_tick, datetime | None)


async def async_use() -> None:
    assert_type(await answered.aenqueue("a"), Job[int])
    assert_type(await app.aenqueue(answered, "a"), Job[int])
    assert_type(await app.schedules.aget("s"), Schedule)
    assert_type(await bare.aenqueue("a"), Job[int])
    assert_type(await (await bare_async.aenqueue("a")).aresult(), int)
    assert_type(await bare_async("a"), int)
    assert_type(await bare_async.options(timeout=5).aenqueue("a"), Job[int])
    assert_type(await app.aenqueue(plain, 1), Job[float])
    assert_type(await app.aenqueue(plain_async, 1), Job[float])
    assert_type(await app.queue("low").aenqueue(plain_async, 1), Job[float])
    assert_type(await app.aenqueue_many([bare.call("a")]), list[Job[int]])
    assert_type(await app.ajob("id"), Job[Any])


@app.task
def counts(words: str) -> int:
    return len(words)


@app.task
def shows(number: int) -> str:
    return str(number)


@app.task(stream_max=100)
def yields(most: int) -> Iterator[int]:
    yield from range(most)


@app.task
async def ayields(most: int) -> AsyncIterator[str]:
    yield "a"


async def stream_use() -> None:
    assert_type(yields.enqueue(1).stream(), JobStream[int])
    assert_type((await ayields.aenqueue(1)).stream(start=3), JobStream[str])
    for number in yields.enqueue(1).stream():
        assert_type(number, int)
    async for text in ayields.enqueue(1).stream(timeout=3):
        assert_type(text, str)
    assert_type(yields.enqueue(1).logs(attempt=1), list[LogLine])
    shows.enqueue(1).stream(first=1)  # type: ignore[call-arg]


@app.task
def adds(numbers: list[int]) -> int:
    return sum(numbers)


def chain_use() -> None:
    assert_type(counts.call("a") >> shows, Chain[str])
    assert_type(counts.call("a") >> shows.call(1), Chain[str])
    assert_type(counts.call("a") >> shows >> counts, Chain[int])
    assert_type(group(counts.call(word) for word in "ab"), CallGroup[list[int]])
    assert_type(group(counts.call(word) for word in "ab") >> adds, Chain[int])
    assert_type((counts.call("a") >> shows).enqueue().result(timeout=1), str)
    flow = app.flow("name")
    first = flow.add(counts.call("a"))
    assert_type(first.result, int)
    assert_type(flow.add(shows.call(first.result), after=first).result, str)
    flow.add(shows.call(1), after=[first], when="failed")
    counts.call("a") >> adds  # type: ignore[operator]
    flow.add(shows.call(1), when="never")  # type: ignore[call-overload]
    shows.options(depends_on=[counts.enqueue("a")]).enqueue(1)


def handle_use(job: Job[int]) -> None:
    assert_type(job.state, State)
    assert_type(job.wait(timeout=1), State)
    assert_type(job.refresh(), Job[int])
    assert_type(job.errors, list[AttemptError])
    assert_type(job.ended_at, datetime | None)
    assert_type(job.cancel(), bool)
    takes_any_job(job)
    assert_type(current_job(), JobContext)


def takes_any_job(job: Job[object]) -> object:
    return job.result()


def takes_any_task(task: Task[[str], int]) -> Job[int]:
    return task.enqueue("a")


takes_any_task(bare_async)


def mistakes() -> None:
    bare.enqueue()  # type: ignore[call-arg]
    bare.enqueue(1)  # type: ignore[arg-type]
    bare.enqueue("a", height=1)  # type: ignore[call-arg]
    bare.options(dellay=1)  # type: ignore[call-arg]
    bare.options(delay="5")  # type: ignore[arg-type]
    bare.options(durability="disk")  # type: ignore[arg-type]
    app.enqueue(plain)  # type: ignore[call-overload]
    app.enqueue(plain, "a")  # type: ignore[call-overload]
    app.cron("* * * * *", overlap="no")  # type: ignore[arg-type]
    app.every(5, evry=1)  # type: ignore[call-arg]
    app.task(queu="x")  # type: ignore[call-overload]
    app.enqueue_many([bare.enqueue])  # type: ignore[arg-type]
    declared_async.enqueue("a")  # type: ignore[call-arg]
    stored.enqueue(["a"])  # type: ignore[arg-type]
    stored.enqueue("a", "b")  # type: ignore[call-arg]
    stored("a")  # type: ignore[arg-type]
    app.task(batch=5)  # type: ignore[call-overload]
