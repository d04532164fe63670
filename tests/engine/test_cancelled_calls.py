"""A call that was cancelled, or timed out, never leaves its reply to the next one."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from typing import Any

import pytest
from engine_kit import record_bytes

from headrace.engine import ops
from headrace.engine.call import Call, command
from headrace.engine.clients import AsyncClient, ServerConfig, SyncClient
from headrace.engine.keys import queue_keys
from headrace.errors import NotDurable, ServerUnreachable
from headrace.testing import FaultProxy

SEED = int(os.environ.get("SEED", "0")) or random.randrange(10_000)
KEYS = queue_keys("default")


def echo(text: str) -> Call[str]:
    return command("ECHO", text, key=KEYS.jobs, decode=bytes.decode)


async def one_call(client: AsyncClient, kind: str, n: int) -> None:
    if kind == "call":
        await client.run(echo(f"cancelled {n}"))
    elif kind == "steps":
        await client.run(ops.look(KEYS, f"j{n}"))
    elif kind == "block":
        await client.block(ops.wait_ring(KEYS, f"w{n}", 60.0), 60.0)
    else:
        await client.enqueue(
            "default", [ops.NewJob(f"j{n}", record_bytes())], "memory" if kind == "enqueue" else "fsync"
        )


@pytest.mark.parametrize("where", ["valkey", "cluster"])
def test_cancelled_at_any_await_a_call_leaves_no_reply_behind(where: str, request: pytest.FixtureRequest) -> None:
    """1,000 calls of each kind, cancelled after a random number of turns of the loop, or mid-wait: what is asked next is answered."""
    url = request.getfixturevalue("url" if where == "valkey" else "cluster_url")
    print("SEED", SEED)
    chance = random.Random(SEED)

    async def main() -> int:
        client = AsyncClient(ServerConfig(url))
        cancelled = 0
        for n in range(1_000):
            kind = chance.choice(["call", "call", "steps", "block", "enqueue", "fsync"])
            calls = [asyncio.create_task(one_call(client, kind, n)), asyncio.create_task(one_call(client, "call", n))]
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.002)
            calls[0].cancel()
            if chance.random() < 0.5:
                calls[1].cancel()
            assert f"next {n}" == await client.run(echo(f"next {n}"))
            results = await asyncio.gather(*calls, return_exceptions=True)
            cancelled += sum(isinstance(result, asyncio.CancelledError) for result in results)
            assert not [
                r
                for r in results
                if isinstance(r, BaseException) and not isinstance(r, asyncio.CancelledError | Exception)
            ]
        await client.aclose()
        return cancelled

    assert asyncio.run(main()) > 300
    gc.collect()


def test_a_call_that_timed_out_leaves_no_reply_behind(url: str) -> None:
    """The late reply of a black hole comes to a connection that nobody reads."""
    with FaultProxy(url) as link:
        client = SyncClient(ServerConfig(link.url, command_timeout_s=0.1), retry=False)
        for n in range(20):
            assert f"before {n}" == client.run(echo(f"before {n}"))
            link.cut("down")
            with pytest.raises(ServerUnreachable):
                client.run(echo(f"lost {n}"))
            link.heal()
            assert f"after {n}" == client.run(echo(f"after {n}"))
        client.close()


def test_an_async_call_that_timed_out_leaves_no_reply_behind(url: str) -> None:
    with FaultProxy(url) as link:

        async def main() -> None:
            client = AsyncClient(ServerConfig(link.url, command_timeout_s=0.1), retry=False)
            for n in range(20):
                assert f"before {n}" == await client.run(echo(f"before {n}"))
                link.cut("down")
                with pytest.raises(ServerUnreachable):
                    await client.run(echo(f"lost {n}"))
                link.heal()
                assert f"after {n}" == await client.run(echo(f"after {n}"))
            await client.aclose()

        asyncio.run(main())


@pytest.mark.long
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_enqueue_that_waits_for_the_disk_and_timed_out_leaves_no_reply_behind(url: str, is_async: bool) -> None:
    """Neither of its two; and each job is told of on its own."""
    config: dict[str, Any] = {"command_timeout_s": 0.1, "durability_timeout_ms": 50, "retry_budget_s": 0.5}
    with FaultProxy(url) as link:

        async def main() -> None:
            client = AsyncClient(ServerConfig(link.url, **config))
            for n in range(2):
                link.cut("down")
                with pytest.raises(ServerUnreachable):
                    await one_call(client, "fsync", n)
                link.heal()
                with pytest.raises(NotDurable, match=f"later{n}"):
                    await client.enqueue("default", [ops.NewJob(f"later{n}", record_bytes())], "fsync")
            await client.aclose()

        if is_async:
            asyncio.run(main())
            return
        client = SyncClient(ServerConfig(link.url, **config))
        for n in range(2):
            link.cut("down")
            with pytest.raises(ServerUnreachable):
                client.enqueue("default", [ops.NewJob(f"j{n}", record_bytes())], "fsync")
            link.heal()
            with pytest.raises(NotDurable, match=f"later{n}"):
                client.enqueue("default", [ops.NewJob(f"later{n}", record_bytes())], "fsync")
        client.close()


def test_jobs_whose_callers_were_cancelled_do_not_disturb_the_others(url: str) -> None:
    """Concurrent enqueues share a call: who stays gets an answer of its own, also when that call's reply is torn."""
    print("SEED", SEED)
    chance = random.Random(SEED)
    with FaultProxy(url, seed=SEED) as link:
        link.tear_reply(lambda request: b"EVALSHA" in request, after_bytes=2, times=None, chance=0.2)

        async def main() -> list[int]:
            client = AsyncClient(ServerConfig(link.url))
            stayed = []
            for group in range(40):
                tasks = {
                    n: asyncio.create_task(one_call(client, "enqueue", n)) for n in range(group * 20, group * 20 + 20)
                }
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                for n in chance.sample(sorted(tasks), 8):
                    tasks.pop(n).cancel()
                await asyncio.gather(*tasks.values())
                stayed += tasks
            await client.aclose()
            return stayed

        stayed = asyncio.run(main())
    client = SyncClient(ServerConfig(url))
    ids = client.run(
        command("LRANGE", KEYS.ready, 0, -1, key=KEYS.ready, decode=lambda found: [i.decode() for i in found])
    )
    client.close()
    assert len(ids) == len(set(ids))
    assert {f"j{n}" for n in stayed} <= set(ids)
