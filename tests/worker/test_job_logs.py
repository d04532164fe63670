"""What jobs say, in a child of each pool: kept by attempt, read while they run, and all there when they have ended."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from click.testing import CliRunner
from scenario_lab import until
from worker_kit import hand

from headrace import Batch, Headrace, Retry, State, current_batch, current_job
from headrace.cli.main import command as cli
from headrace.engine.call import command

POOLS: dict[str, dict[str, Any]] = {
    "prefork": {"pool": "prefork"},
    "threads": {"pool": "threads", "slots": 2},
    "asyncio": {"pool": "asyncio", "slots": 2},
    "fork": {"pool": "fork"},
}


@pytest.fixture(params=list(POOLS))
def pool(request: pytest.FixtureRequest) -> dict[str, Any]:
    return POOLS[request.param]


def work(app: Headrace, pool: dict[str, Any], **config: Any) -> None:
    """Until the queue is empty."""
    with hand(app, **pool, **config) as one:
        one.work()


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
def test_each_attempt_keeps_what_it_said(app: Headrace, pool: dict[str, Any], is_async: bool) -> None:
    """In order, with its time; also what was said just before the end, and of an attempt that failed."""

    def say() -> None:
        job = current_job()
        for n in range(3):
            job.log(f"line {n} of attempt {job.attempt}")
        if job.attempt == 1:
            raise OSError("not yet")

    async def asay() -> None:
        say()

    task = app.task(name="say", retry=Retry(1, delay=0))(asay if is_async else say)
    job = task.enqueue()
    work(app, pool)
    assert job.refresh().state is State.SUCCEEDED
    assert [f"line {n} of attempt {a}" for a in (1, 2) for n in range(3)] == [line.text for line in job.logs()]
    assert [2, 2, 2] == [line.attempt for line in job.logs(attempt=2)] and [] == job.logs(attempt=3)
    assert all(job.created_at <= line.at for line in job.logs())

    async def read() -> list[str]:
        async with Headrace(app.server_config.url) as other:
            found = await other.ajob(job.id)
            return [line.text for line in await found.alogs(2)]

    assert [f"line {n} of attempt 2" for n in range(3)] == asyncio.run(read())


def test_only_the_last_lines_are_kept(app: Headrace, pool: dict[str, Any]) -> None:
    """However many a job says at once."""

    @app.task(name="chatter")
    def chatter() -> None:
        for n in range(5_000):
            current_job().log(n)

    job = chatter.enqueue()
    work(app, pool)
    assert [str(n) for n in range(4_800, 5_000)] == [line.text for line in job.logs()]


def test_calls_of_a_batch_task_have_logs_of_their_own(app: Headrace, pool: dict[str, Any]) -> None:
    """Each job's lines are its own, though one call of the function says them all."""

    @app.task(name="many", batch=Batch(max=10))
    def many(items: list[int]) -> None:
        for item, job in zip(items, current_batch().jobs, strict=True):
            job.log(f"item {item}")

    jobs = app.enqueue_many(many.call(n) for n in range(10))
    work(app, pool)
    assert [[f"item {n}"] for n in range(10)] == [[line.text for line in job.logs()] for job in jobs]


def test_the_command_follows_a_job_to_its_end(app: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines come while the job runs, control characters made harmless; it ends when the job does."""
    monkeypatch.setenv("HEADRACE_URL", app.server_config.url)

    @app.task(name="talk")
    def talk() -> None:
        current_job().log("first\x1b[2J")
        current_job().log("second")

    job = talk.enqueue()
    printed: list[Any] = []

    def follow() -> None:
        printed.append(CliRunner().invoke(cli, ["job", "logs", job.id, "--follow"]))

    reader = threading.Thread(target=follow)
    reader.start()
    key = "hr:{default}:watched"
    until(lambda: app.client.run(command("HGET", key, job.id, key=key, decode=bool)))
    work(app, POOLS["prefork"])
    reader.join(30)
    rows = [line.split("\t")[1:] for line in printed[0].stdout.splitlines()]
    assert [["1", "first\\x1b[2J"], ["1", "second"]] == rows and printed[0].exit_code == 0
    whole = CliRunner().invoke(cli, ["job", "logs", job.id, "--json"])
    assert 2 == len(whole.stdout.splitlines()) and '"text": "second"' in whole.stdout
    other = app.enqueue("talk")
    assert "nothing was logged" in CliRunner().invoke(cli, ["job", "logs", other.id]).stderr
