"""A job is interrupted in its own code, for its own reason, once; and nobody else is, however late the signal."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from worker_kit import deadlines_watched, hand

from headrace import Headrace, Job, JobContext, JobFailed


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Threads take turns every 0.1 ms, so that a signal may be heard at any place of a job of 2 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    yield
    sys.setswitchinterval(before)


POOLS = ["prefork", "threads", "asyncio"]
SLOTS = {"prefork": 1, "threads": 3, "asyncio": 3}


def burn(seconds: float) -> None:
    """Python code that takes so long."""
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize("pool", POOLS)
def test_a_timeout_that_comes_just_as_the_job_ends_hits_nobody_else(app: Headrace, pool: str, is_async: bool) -> None:
    """Each job that has a timeout succeeds, or is told that it is over it; all others succeed, also beside it."""

    def doomed(seconds: float) -> None:
        burn(seconds)

    async def adoomed(seconds: float) -> None:
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            await asyncio.sleep(0)

    finished: list[int] = []

    @app.task(name="innocent")
    def innocent(number: int) -> None:
        burn(0.0003)
        finished.append(number)

    @app.task(name="ainnocent")
    async def ainnocent(number: int) -> None:
        innocent(number)

    app.task(name="doomed", timeout=0.002)(adoomed if is_async else doomed)
    chance = random.Random(7)
    jobs: list[Job[None]] = []
    others: list[Job[None]] = []
    for number in range(250):
        jobs.append(app.enqueue("doomed", chance.uniform(0.0, 0.004)))
        others.append((ainnocent if number % 2 else innocent).enqueue(number))
    with hand(app, pool=pool, slots=SLOTS[pool], kill_after_ms=600_000) as one, deadlines_watched(one):
        one.work()
    assert list(range(250)) == sorted(finished)
    assert {"succeeded"} == {app.job(job.id).state for job in others}
    told = [app.job(job.id) for job in jobs]
    assert {"succeeded", "failed"} >= {job.state for job in told}
    errors = {(job.errors[-1].type, job.errors[-1].message) for job in told if job.state == "failed"}
    assert {("headrace.errors.JobTimeout", "over its timeout of 0.002 s")} == errors


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize("pool", POOLS)
def test_a_timeout_that_passes_before_the_jobs_own_code_runs_stops_it_then(
    app: Headrace, pool: str, is_async: bool
) -> None:
    """A signal that finds nothing to stop is sent again: the job need not be killed."""

    def doomed() -> str:
        burn(5)
        return "not stopped"

    async def adoomed() -> str:
        await asyncio.sleep(5)
        return "not stopped"

    @app.middleware
    def slow(job: JobContext) -> Iterator[None]:
        burn(0.2)
        yield

    job = app.task(name="doomed", timeout=0.05)(adoomed if is_async else doomed).enqueue()
    with hand(app, pool=pool, slots=SLOTS[pool], kill_after_ms=600_000) as one, deadlines_watched(one):
        one.work()
    with pytest.raises(JobFailed, match=r"over its timeout of 0\.05 s"):
        job.result(timeout=5)


BURSTS = """
import os, signal, sys, time
while True:
    for number in range(60):
        os.kill(int(sys.argv[1]), signal.SIGUSR2)
        ends = time.perf_counter() + number * 1e-6
        while time.perf_counter() < ends:
            pass
    time.sleep(0.001)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pool", POOLS)
def test_signals_that_come_while_another_is_heard_do_no_harm(app: Headrace, pool: str) -> None:
    """As when twenty jobs are over their timeouts at the same instant: nothing stands still afterwards."""
    done: list[int] = []

    @app.task(name="work")
    def work(number: int) -> None:
        burn(0.002)
        done.append(number)

    for number in range(150):
        app.enqueue(work, number)
    with hand(app, pool=pool, slots=SLOTS[pool]) as one, ExitStack() as stack:

        @app.on_start
        def begin() -> None:
            sender = subprocess.Popen([sys.executable, "-c", BURSTS, str(os.getpid())])
            stack.callback(sender.wait)
            stack.callback(sender.kill)

        app.on_stop(stack.close)
        one.work()
    assert list(range(150)) == sorted(done)
