"""A bad link between workers, producers and the server: nothing is lost, and nothing runs twice without a word."""

from __future__ import annotations

import asyncio
import os
import random
import re
import threading
import time
from collections.abc import Iterator

import pytest
from scenario_lab import Lab, Worker, until
from test_faults import POOLS

from headrace import Headrace, ServerUnreachable
from headrace.engine.clients import AsyncClient, ServerConfig, SyncClient
from headrace.engine.keys import queue_keys
from headrace.testing import FaultProxy, runs

SEED = int(os.environ.get("SEED", "0")) or random.randrange(10_000)
CHILDS = ("settle", "adopt", "give_back", "open", "release")
SUPERVISORS = ("renew", "tend", "beat", "announce")
NO_REPLY = r"no reply in time|no server answers"
TOLD = (
    r"was taken over meanwhile|is settled already, or was taken over|took over \d+ job|lost its lease|lease had ended"
)


@pytest.fixture
def link(lab: Lab) -> Iterator[FaultProxy]:
    """Between the server and the workers of the lab; the lab itself goes past it."""
    print("SEED", SEED)
    with FaultProxy(lab.url, seed=SEED) as found:
        lab.url = found.url
        yield found
        lab.close()


def all_ended(lab: Lab, count: int) -> None:
    until(lambda: len(lab.ends()) == count, timeout_s=60, what=f"{count} jobs ended")
    until(lambda: not lab.live_jobs(), what="nothing left anywhere")


def runs_too_many(lab: Lab) -> int:
    return sum(lab.starts().values()) - len(lab.starts())


@pytest.mark.parametrize(
    "pool", ["prefork", "asyncio", *(pytest.param(pool, marks=pytest.mark.long) for pool in ("threads", "fork"))]
)
def test_lost_and_torn_replies_lose_no_job_and_run_none_twice(lab: Lab, link: FaultProxy, pool: str) -> None:
    """One reply in twenty is lost, one torn, one request lost, of every script that a worker sends."""
    lab.start(*POOLS[pool])
    traps = [
        spoil
        for name in CHILDS + SUPERVISORS
        for spoil in (
            link.lose_reply(runs(name), times=None, chance=0.05),
            link.tear_reply(runs(name), after_bytes=3, times=None, chance=0.05),
            link.lose_request(runs(name), times=None, chance=0.05),
        )
    ]
    jobs = [lab.app.enqueue("ledger.work", n, 0.005) for n in range(60)]
    jobs += [lab.app.enqueue("ledger.awork", n, 0.005) for n in range(60, 80)]
    all_ended(lab, 80)
    for trap in traps:
        trap.disarm()
    assert list(range(80)) == [job.result(timeout=10) for job in jobs]
    print(pool, sum(trap.hits for trap in traps), "faults")
    assert sum(trap.hits for trap in traps) >= 5
    assert 0 == runs_too_many(lab)
    assert 0 == lab.workers[0].terminate(), lab.workers[0].said[-3000:]


def test_a_job_that_ends_while_its_session_is_in_doubt_is_settled_not_run_again(lab: Lab, link: FaultProxy) -> None:
    """Two side by side on one loop: the reply to the settling of one is lost, the other ends before that is cleared up."""
    lab.start("--pool", "asyncio", "--slots", "2")
    go = lab.folder / "go"
    lost = link.lose_reply(runs_to_settle)
    unheard = link.lose_request(runs("adopt"), times=None)
    jobs = [lab.app.enqueue("ledger.waits_for", 1, str(go)), lab.app.enqueue("ledger.work", 2, 0.3)]
    unheard.wait(1)
    go.touch()
    until(lambda: lab.ends()[1], what="the end of the other")
    before = unheard.hits
    unheard.wait(before + 1)
    unheard.disarm()
    assert [1, 2] == [job.result(timeout=20) for job in jobs]
    assert 1 == lost.hits
    assert 0 == lab.workers[0].terminate()
    assert {1: 1, 2: 1} == lab.starts()


@pytest.mark.parametrize("queues", [("default",), ("high", "default", "low")], ids=["one queue", "three queues"])
def test_a_worker_whose_adoptions_are_not_answered_keeps_its_leases(
    lab: Lab, link: FaultProxy, queues: tuple[str, ...]
) -> None:
    """The server has the new session, the child cannot know: both names are renewed, and nobody is killed for it."""
    lab.start(*queues, "--pool", "asyncio", "--slots", "2", "--lease", "2")
    go = lab.folder / "go"
    link.lose_reply(runs_to_settle)
    unheard = link.lose_reply(runs("adopt"), times=None)
    renewals: list[bytes] = []
    link.lose_request(lambda request: runs("renew")(request) and bool(renewals.append(request)))
    jobs = [lab.app.enqueue("ledger.waits_for", 1, str(go)), lab.app.enqueue("ledger.work", 2, 0.3)]
    unheard.wait(1)
    seen = len(renewals)
    until(lambda: len(renewals) > seen + 6, what="renewals")
    unheard.disarm()
    go.touch()
    assert [1, 2] == [job.result(timeout=20) for job in jobs]
    assert {1: 1, 2: 1} == lab.starts()
    assert "lost its lease" not in lab.workers[0].said


def runs_to_settle(request: bytes) -> bool:
    """Whether it settles something that succeeded; a mere claim does not."""
    return runs("settle")(request) and b"$1\r\ns\r\n" in request


HOLES = [
    ("both", False, "prefork"),
    ("down", True, "asyncio"),
    *(
        pytest.param(way, dies, pool, marks=pytest.mark.long)
        for way in ("both", "up", "down")
        for dies in (False, True)
        for pool in POOLS
    ),
]


@pytest.mark.long
@pytest.mark.parametrize(("way", "dies", "pool"), HOLES)
def test_a_worker_goes_on_after_a_black_hole(lab: Lab, link: FaultProxy, way: str, dies: bool, pool: str) -> None:
    """It is noticed within the command timeout (5 s); afterwards all goes on, whether the late requests still come or not.

    A half-open link tells nobody. Where only replies are held, the server does all it is asked, and nobody hears.
    """
    worker = lab.start(*POOLS[pool])
    jobs = [lab.app.enqueue("ledger.work", n, 0.02) for n in range(100)]
    until(lambda: len(lab.ends()) >= 20)
    link.cut(way)  # type: ignore[arg-type]
    began = time.monotonic()
    worker.wait_for(NO_REPLY, timeout_s=30)
    print(f"noticed after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 15
    if dies:
        link.reset_all()
    link.heal()
    assert list(range(100)) == [job.result(timeout=40) for job in jobs]
    all_ended(lab, 100)
    assert told_of_all(lab, [worker])


def told_of_all(lab: Lab, workers: list[Worker]) -> bool:
    """What ran twice was said to run twice, or to be lost."""
    return not runs_too_many(lab) or any(re.search(TOLD, worker.said) for worker in workers)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_half_open_link_is_noticed_within_the_command_timeout(url: str, is_async: bool) -> None:
    """And the same client works again as soon as the link does."""
    with FaultProxy(url) as link:
        config = ServerConfig(link.url, command_timeout_s=0.3, connect_timeout_s=0.3)

        async def main() -> float:
            client = AsyncClient(config, retry=False)
            await client.check_server()
            link.cut()
            began = time.monotonic()
            for _ in range(2):  # the second finds no connection, and gets none
                with pytest.raises(ServerUnreachable, match="no reply in time"):
                    await client.check_server()
            took = time.monotonic() - began
            link.heal()
            await client.check_server()
            await client.aclose()
            return took

        if is_async:
            took = asyncio.run(main())
        else:
            client = SyncClient(config, retry=False)
            client.check_server()
            link.cut()
            began = time.monotonic()
            for _ in range(2):
                with pytest.raises(ServerUnreachable, match="no reply in time"):
                    client.check_server()
            took = time.monotonic() - began
            link.heal()
            client.check_server()
            client.close()
        assert 0.5 < took < 5


@pytest.mark.long
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_result_comes_through_a_link_that_is_cut_meanwhile(lab: Lab, is_async: bool) -> None:
    """Who waits for it hears of it, though the connection was reset, refused, and its ring lost."""
    with FaultProxy(lab.url) as link, Headrace(link.url) as app:
        job = app.enqueue("ledger.work", 1)
        found: list[object] = []

        async def wait() -> None:
            found.append(await (await app.ajob(job.id)).aresult(timeout=60))
            await app.aclose()

        waiter = threading.Thread(target=lambda: asyncio.run(wait()) if is_async else found.append(job.result(60)))
        waiter.start()
        for _ in range(3):
            until(lambda: lab.redis.info("clients")["blocked_clients"], what="a parked wait")
            link.refuse()
            link.reset_all()
            link.accept()
        lost = link.lose_reply(lambda request: b"BLPOP" in request, times=2)
        until(lambda: lab.redis.info("clients")["blocked_clients"], what="a parked wait")
        lab.start("--processes", "1")
        waiter.join(60)
        assert [1] == found
        assert lost.hits >= 1


def test_producers_on_a_bad_link_store_each_job_once(lab: Lab, link: FaultProxy) -> None:
    """Four threads and an event loop enqueue while replies are lost, requests are lost and connections are reset."""
    for spoil in (link.lose_reply, link.lose_request):
        spoil(runs("enqueue"), times=None, chance=0.1)
    link.tear_reply(runs("enqueue"), after_bytes=2, times=None, chance=0.1)
    app = Headrace(link.url, result_ttl=0)

    def produce(first: int) -> None:
        for n in range(first, first + 50):
            app.enqueue("ledger.work", n)
            if n % 10 == 0:
                link.reset_all()

    async def aproduce() -> None:
        aapp = Headrace(link.url, result_ttl=0)
        await asyncio.gather(*(aapp.aenqueue("ledger.work", n) for n in range(200, 250)))
        for n in range(250, 300):
            await aapp.aenqueue("ledger.work", n)
        await aapp.aclose()

    threads = [threading.Thread(target=produce, args=(n * 50,)) for n in range(4)]
    threads.append(threading.Thread(target=lambda: asyncio.run(aproduce())))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    app.close()
    assert 300 == int(lab.redis.hget(queue_keys("default").stats, "enqueued"))
    lab.url = lab.app.server_config.url
    lab.start("--processes", "2")
    all_ended(lab, 300)
    assert 0 == runs_too_many(lab)
