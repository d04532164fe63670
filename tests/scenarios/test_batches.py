"""Batch tasks in real workers of all pools: what fills a batch up, and what becomes of its jobs when something dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from scenario_lab import Lab, until

from headrace import Job, State
from headrace.engine.keys import queue_keys
from headrace.engine.ops import look

POOLS = {
    "prefork": ("--pool", "prefork", "--processes", "1"),
    "threads": ("--pool", "threads", "--processes", "1", "--slots", "1"),
    "asyncio": ("--pool", "asyncio", "--processes", "1", "--slots", "2"),
    "fork": ("--pool", "fork", "--processes", "1"),
}


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return POOLS[request.param]


TWO_POOLS = [
    pytest.param(POOLS[name], id=name, marks=[pytest.mark.long] if name in ("threads", "fork") else [])
    for name in POOLS
]


def start(lab: Lab, pool: tuple[str, ...], *args: str) -> Any:
    return lab.start(*pool, *args, app="batch_ledger:app")


def enqueue(lab: Lab, task: str, *items: Any) -> list[Job[Any]]:
    return [lab.app.enqueue(f"batch_ledger.{task}", item) for item in items]


def is_held(lab: Lab, job: Job[Any]) -> bool:
    found = lab.app.client.run(look(queue_keys("default"), job.id))
    return found is not None and found.state is State.RUNNING


def batches(lab: Lab) -> list[list[int]]:
    return [[int(word) for word in row[1:]] for row in lab.lines("batch")]


def test_a_full_batch_begins_at_once(lab: Lab, pool: tuple[str, ...]) -> None:
    """The first call waits for others; with the third it is enough, though ten seconds are not over."""
    start(lab, pool)
    first = enqueue(lab, "three", 0)
    until(lambda: is_held(lab, first[0]))
    assert [] == batches(lab)
    jobs = first + enqueue(lab, "three", 1, 2)
    assert [0, 1, 2] == [job.result(timeout=9) for job in jobs]
    assert [[0, 1, 2]] == batches(lab)


@pytest.mark.parametrize("task", ["soon", "asoon"])
def test_a_batch_begins_when_it_has_waited(lab: Lab, pool: tuple[str, ...], task: str) -> None:
    start(lab, pool)
    assert [7] == [job.result(timeout=20) for job in enqueue(lab, task, 7)]
    jobs = enqueue(lab, task, *range(20))
    assert list(range(20)) == [job.result(timeout=20) for job in jobs]
    assert {} == lab.live_jobs()


def test_a_job_of_another_task_ends_the_wait(lab: Lab, pool: tuple[str, ...]) -> None:
    """It does not wait for the batch: a batch that would wait ten seconds for others begins, or it runs beside."""
    start(lab, pool)
    job = enqueue(lab, "many", 0)[0]
    until(lambda: is_held(lab, job))
    assert 1 == lab.app.enqueue("batch_ledger.plain", 1).result(timeout=8)
    if "asyncio" not in pool:
        assert 0 == job.result(timeout=8)


def test_a_stop_gives_back_what_waits_for_others(lab: Lab, pool: tuple[str, ...]) -> None:
    """At once, uncharged, in its order."""
    worker = start(lab, pool)
    jobs = enqueue(lab, "many", *range(3))
    until(lambda: all(is_held(lab, job) for job in jobs))
    assert 0 == worker.terminate(8)
    assert [] == batches(lab)
    assert {"default ready": 3} == lab.live_jobs()
    assert [job.id for job in jobs] == lab.redis.lrange(queue_keys("default").ready, 0, -1)
    assert {0} == {job.refresh().attempt for job in jobs}


@pytest.mark.parametrize("pool", TWO_POOLS)
def test_a_stop_lets_a_running_batch_finish(lab: Lab, pool: tuple[str, ...], tmp_path: Path) -> None:
    worker = start(lab, pool)
    gate = tmp_path / "gate"
    jobs = enqueue(lab, "gated", *((n, str(gate)) for n in range(5)))
    until(lambda: lab.starts()[4])
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("stopping")
    gate.touch()
    assert list(range(5)) == [job.result(timeout=20) for job in jobs]
    assert 0 == worker.process.wait(30)
    assert {} == lab.live_jobs()


def test_a_batch_whose_process_is_killed_runs_again_one_by_one(lab: Lab, pool: tuple[str, ...], tmp_path: Path) -> None:
    """Nobody knows which of them it was: each runs alone, none is lost, and none is failed for one death."""
    start(lab, pool)
    gate = tmp_path / "gate"
    jobs = enqueue(lab, "gated", *((n, str(gate)) for n in range(5)))
    pid = lab.pid_of(4)
    assert [[0, 1, 2, 3, 4]] == batches(lab)
    os.kill(pid, signal.SIGKILL)
    gate.touch()
    until(lambda: all(lab.app.job(job.id).state == "succeeded" for job in jobs), timeout_s=60)
    assert [[0], [1], [2], [3], [4]] == sorted(batches(lab)[1:])
    assert {} == lab.live_jobs()


def test_a_job_that_kills_its_batch_takes_only_itself(lab: Lab, pool: tuple[str, ...]) -> None:
    """It dies once with the others and three times alone; they run alone and succeed."""
    start(lab, pool)
    jobs = enqueue(lab, "dies_of_three", *range(5))
    until(lambda: all(lab.app.job(job.id).state.is_ended for job in jobs), timeout_s=60)
    states = [lab.app.job(job.id).state for job in jobs]
    assert [State.SUCCEEDED] * 3 + [State.FAILED, State.SUCCEEDED] == states
    assert "worker lost" in str(lab.app.job(jobs[3].id).reason)
    assert [1, 1, 1, 0, 1] == [lab.ends()[n] for n in range(5)]
    assert 4 == lab.starts()[3]
    assert {} == lab.live_jobs()


@pytest.mark.parametrize("pool", TWO_POOLS)
def test_a_batch_over_its_timeout_is_stopped_and_each_call_retried(lab: Lab, pool: tuple[str, ...]) -> None:
    start(lab, pool)
    jobs = enqueue(lab, "too_long", *range(3))
    until(lambda: all(lab.app.job(job.id).state == "failed" for job in jobs), timeout_s=60)
    for job in jobs:
        assert ["JobTimeout"] * 2 == [error.type.rpartition(".")[2] for error in lab.app.job(job.id).errors]
    assert [2, 2, 2] == [lab.starts()[n] for n in range(3)]


@pytest.mark.parametrize("pool", TWO_POOLS)
def test_a_batch_that_does_not_stop_is_killed_and_each_call_told(lab: Lab, pool: tuple[str, ...]) -> None:
    """The hard deadline is that of all its jobs; none is taken for the one that kills processes."""
    start(lab, pool, "--kill-after", "0.5")
    jobs = enqueue(lab, "holds_the_gil", *range(3))
    until(lambda: all(lab.app.job(job.id).state == "failed" for job in jobs), timeout_s=60)
    assert {True} == {"its process was killed" in lab.app.job(job.id).errors[0].message for job in jobs}
    assert [1, 1, 1] == [lab.starts()[n] for n in range(3)]
    assert {} == lab.live_jobs()
