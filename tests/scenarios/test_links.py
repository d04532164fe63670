"""Real workers on links that lose one reply, go half-open, or are gone for longer than a lease."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from scenario_lab import Lab, until

from headrace import Headrace, ResultTimeout
from headrace.engine import admin
from headrace.testing import FaultProxy, runs

pytestmark = pytest.mark.long

POOLS = {
    "prefork": ("--pool", "prefork", "--processes", "2"),
    "threads": ("--pool", "threads", "--slots", "4"),
    "asyncio": ("--pool", "asyncio", "--slots", "4"),
    "fork": ("--pool", "fork", "--processes", "2"),
}


@pytest.fixture
def link(url: str) -> Iterator[FaultProxy]:
    with FaultProxy(url) as found:
        yield found


@pytest.fixture
def lab(url: str, link: FaultProxy, tmp_path: Path) -> Iterator[Lab]:
    """Its workers go by way of the link; its app does not."""
    with closing(Lab(url, tmp_path)) as found:
        found.url = link.url
        yield found


@pytest.mark.parametrize("name", ["open", "release"])
def test_a_session_whose_first_or_last_reply_is_lost_is_there_once(lab: Lab, link: FaultProxy, name: str) -> None:
    """Opened once more, and closed once more; the worker ends with 0."""
    trap = link.lose_reply(runs(name), times=3)
    worker = lab.start("--processes", "1")
    assert 1 == lab.app.enqueue("ledger.work", 1).result(timeout=30)
    assert 0 == worker.terminate()
    assert (3, set(), {1: 1}) == (trap.hits, lab.sessions(), lab.starts())


def test_a_dead_childs_job_is_released_though_the_reply_is_lost(lab: Lab, link: FaultProxy) -> None:
    """Sent again until it is known; the death is charged once."""
    trap = link.lose_reply(runs("release"), times=2)
    lab.start("--processes", "2")
    job = lab.app.enqueue("ledger.waits_for", 1, str(lab.folder / "go"))
    os.kill(lab.pid_of(1), signal.SIGKILL)
    until(lambda: lab.starts()[1] == 2)
    assert ["1"] == lab.redis.hvals("hr:{default}:crashes")
    (lab.folder / "go").touch()
    assert 1 == job.result(timeout=30)
    trap.wait(2)


def test_a_workers_command_is_obeyed_once_though_replies_are_lost(lab: Lab, link: FaultProxy) -> None:
    """The one that tells it, and the one that confirms that it was taken."""
    worker = lab.start("--processes", "1")
    (name,) = [each.id for each in lab.app.client.run(admin.list_workers("hr"))]
    assert lab.app.client.run(admin.send_command("hr", name, "quiet"))
    trap = link.lose_reply(runs("beat"), times=2)
    worker.wait_for("quiet: running jobs finish", timeout_s=30)
    until(lambda: not lab.redis.hexists("hr:workers", f"!{name}"), what="the command confirmed")
    lab.app.client.run(admin.send_command("hr", name, "stop"))
    assert 0 == worker.process.wait(30)
    assert (2, 1) == (trap.hits, worker.said.count("quiet: running jobs finish"))
    assert {} == lab.redis.hgetall("hr:workers")


@pytest.mark.parametrize(
    "pool", [pytest.param(pool, marks=[] if pool == "asyncio" else [pytest.mark.long]) for pool in POOLS]
)
def test_a_half_open_link_is_left_within_the_command_timeout(lab: Lab, link: FaultProxy, pool: str) -> None:
    """Nobody is told that it is dead: a running job ends once, waiting ones run, and no lease is lost."""
    lab.start(*POOLS[pool])
    lab.app.enqueue("ledger.work", 0, 3.0)
    lab.pid_of(0)
    assert link.go_silent() >= 2
    began = time.monotonic()
    for n in range(1, 12):
        lab.app.enqueue("ledger.work", n, 0.01)
    until(lambda: len(lab.ends()) == 12, timeout_s=60, what="all jobs")
    print(f"all ran {time.monotonic() - began:.1f} s after the link went silent")
    until(lambda: not lab.live_jobs(), timeout_s=30, what="nothing left")
    assert dict.fromkeys(range(12), 1) == lab.starts()


def test_a_worker_cut_off_for_long_loses_its_job_to_another_and_works_again(
    lab: Lab, link: FaultProxy, url: str
) -> None:
    """The job runs twice, which is told; the late result changes nothing."""
    lost = lab.start("--processes", "1", "--lease", "2")
    job = lab.app.enqueue("ledger.waits_for", 1, str(lab.folder / "go"))
    lab.pid_of(1)
    link.cut()
    lab.url = url
    lab.start("--processes", "1", "--lease", "2")
    until(lambda: lab.starts()[1] == 2, timeout_s=60, what="the job taken over")
    (lab.folder / "go").touch()
    assert 1 == job.result(timeout=30)
    until(lambda: lab.ends()[1] == 2, what="both runs ended")
    link.heal()
    lost.wait_for("taken over|lost its lease|lease had ended", timeout_s=60)
    until(lambda: len(lab.sessions()) == 2, what="a session for each worker")
    jobs = [lab.app.enqueue("ledger.work", n, 0.05) for n in range(2, 20)]
    assert list(range(2, 20)) == [each.result(timeout=30) for each in jobs]
    assert ("succeeded", {}) == (lab.app.job(job.id).state, lab.live_jobs())


@pytest.mark.long
def test_a_result_comes_though_the_link_of_who_waits_went_silent(lab: Lab, link: FaultProxy, url: str) -> None:
    """Sync and async: whoever asks again after a timeout, or waits long enough, gets it on a new connection."""
    lab.url = url
    lab.start("--pool", "threads", "--slots", "2")
    path = str(lab.folder / "go")
    with closing(Headrace(link.url)) as app, ThreadPoolExecutor(2) as threads:
        one, two = (app.enqueue("ledger.waits_for", n, path) for n in (1, 2))
        waits = [
            threads.submit(_patient, lambda: one.result(timeout=3)),
            threads.submit(_patient, lambda: asyncio.run(_aresult(link.url, two.id))),
        ]
        until(lambda: sum(client["cmd"] == "blpop" for client in lab.redis.client_list()) >= 2, what="two who wait")
        assert link.go_silent() >= 2
        Path(path).touch()
        assert [1, 2] == [wait.result(90) for wait in waits]


def _patient(ask: Callable[[], object]) -> object:
    """Ask again after each timeout, as a program does."""
    for _ in range(20):
        try:
            return ask()
        except ResultTimeout:
            continue
    raise AssertionError("no result")


async def _aresult(url: str, job_id: str) -> object:
    app = Headrace(url)
    try:
        return await (await app.ajob(job_id)).aresult(timeout=60)
    finally:
        await app.aclose()
