"""Connections belong to a thread, or to an event loop, and go with it: a program that starts a thread for each request keeps none."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from scenario_lab import until

from headrace.engine.call import Call, command
from headrace.engine.clients import AsyncClient, ServerConfig, SyncClient

WHO: Call[int] = command("CLIENT", "ID", decode=int)
SLOW_S = 30.0


@pytest.fixture
def count(url: str) -> Iterator[Callable[[], int]]:
    """How many connections the server has beside those there were before."""
    watch = SyncClient(ServerConfig(url))

    def connections() -> int:
        reply: bytes = watch.run(command("CLIENT", "LIST", "TYPE", "normal", decode=bytes))
        return reply.count(b"\n")

    before = connections()
    yield lambda: connections() - before
    watch.close()


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Nothing is closed by the collector meanwhile; and asyncio may complain of loops that were closed before their connections."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
            gc.collect()


def test_a_thread_that_ends_takes_its_connection_with_it(url: str, count: Callable[[], int]) -> None:
    """At once, and without a warning of a socket that nobody closed."""
    client = SyncClient(ServerConfig(url))
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        for _ in range(20):
            in_a_thread(lambda: client.run(WHO))
        gc.collect()
    assert [] == [complaint.message for complaint in complaints]
    until(lambda: count() == 0, timeout_s=SLOW_S)
    mine = client.run(WHO)
    in_a_thread(lambda: client.run(WHO))
    assert mine == client.run(WHO)
    client.close()
    until(lambda: count() == 0, timeout_s=SLOW_S)


def test_a_loop_that_is_closed_leaves_no_connection(url: str, count: Callable[[], int]) -> None:
    """Each `asyncio.run` of a program has a loop of its own: the next one closes what the last one left."""
    client = AsyncClient(ServerConfig(url))

    async def end() -> None:
        await client.run(WHO)
        await client.aclose()

    with garbage_kept():
        for _ in range(20):
            asyncio.run(client.run(WHO))
        until(lambda: count() == 1, timeout_s=SLOW_S)
        asyncio.run(end())
        until(lambda: count() == 0, timeout_s=SLOW_S)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_that_closes_leaves_its_parents_connection(url: str) -> None:
    """Both kinds of client: what the child has of its parent's is a copy."""
    client, aclient = SyncClient(ServerConfig(url)), AsyncClient(ServerConfig(url))

    async def in_the_child() -> None:
        client.close()
        await aclient.run(WHO)
        await aclient.aclose()

    async def talk() -> None:
        before = client.run(WHO), await aclient.run(WHO)
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(in_the_child())
                os._exit(0)
            finally:
                os._exit(1)
        assert 0 == os.waitpid(child, 0)[1]
        assert before == (client.run(WHO), await aclient.run(WHO))
        await aclient.aclose()

    asyncio.run(talk())
    client.close()


def test_loops_side_by_side_keep_their_own(url: str, count: Callable[[], int]) -> None:
    """Two threads, a loop in each: neither takes the other's connection, nor opens another; whoever closes, closes both."""
    client = AsyncClient(ServerConfig(url))
    turns = [threading.Semaphore(1), threading.Semaphore(0)]
    seen: list[list[int]] = [[], []]

    async def work(which: int) -> None:
        for _ in range(10):
            await asyncio.to_thread(turns[which].acquire)
            seen[which].append(await client.run(WHO))
            turns[1 - which].release()
        await asyncio.to_thread(turns[which].acquire)
        if which == 0:
            await client.aclose()
        turns[1 - which].release()

    threads = [threading.Thread(target=asyncio.run, args=(work(which),)) for which in (0, 1)]
    with garbage_kept():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SLOW_S)
        assert [1, 1, 2] == [len(set(seen[0])), len(set(seen[1])), len({*seen[0], *seen[1]})]
        until(lambda: count() == 0, timeout_s=SLOW_S)
