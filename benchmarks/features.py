"""What the features of flow cost the server, as ratios to plain jobs in the same run."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headrace.core.record import LAYOUT, Record, Stored, encode
from headrace.core.ties import Group, Limit, Ties, Unique
from headrace.engine import flows, ops
from headrace.engine.clients import ServerConfig, SyncClient
from lab import QUEUE, Server

RECORD = encode(Record(LAYOUT, int(Stored.LIVE), 0, 0, "bench.noop", msgspec.Raw(msgspec.msgpack.encode([[1]])), 0))
NONE = msgspec.msgpack.encode(b"\xc0")
SESSION = "bench"

Make = Callable[[int], bytes]
FEATURES: dict[str, Make] = {
    "plain": lambda _: b"",
    "unique": lambda n: Ties(unique=Unique("n")).of("bench.noop", {"n": n}),
    "a rate": lambda _: Ties(limits=(Limit("fast", rate="1000000/s", burst=1_000_000),)).of("t", {}),
    "a concurrency limit": lambda _: Ties(limits=(Limit("wide", concurrency=1_000_000),)).of("t", {}),
    "10 groups": lambda n: Ties(group=Group(f"g{n % 10}")).of("t", {}),
    "10,000 groups": lambda n: Ties(group=Group(f"g{n % 10_000}")).of("t", {}),
}


def cost(server: Server, make: Make, total: int, batch: int, ageing_ms: int | None = None) -> float:
    """Server CPU a job, µs: enqueue, claim and settle (dropped) in batches."""
    client = SyncClient(ServerConfig(server.url), retry=False)
    server.reset()
    if ageing_ms:
        client.run(ops.bound_queue(QUEUE, {"ageing": ageing_ms}))
    news = [ops.NewJob(f"j{n:07}", RECORD, ties=make(n)) for n in range(total)]
    began = server.cpu_s()
    for first in range(0, total, batch):
        client.enqueue(QUEUE.name, news[first : first + batch])
    _work(client, total, batch)
    took = server.cpu_s() - began
    client.close()
    return took / total * 1e6


def chain_cost(server: Server, total: int, batch: int) -> float:
    """The same for jobs of which every second waits for the one before."""
    client = SyncClient(ServerConfig(server.url), retry=False)
    server.reset()
    waits = msgspec.msgpack.encode({"p": 1})
    news = []
    for n in range(0, total, 2):
        edge = msgspec.msgpack.encode({"e": [{"q": "", "c": f"j{n + 1:07}", "n": 0, "w": "s"}]})
        news += [ops.NewJob(f"j{n + 1:07}", RECORD, ties=waits), ops.NewJob(f"j{n:07}", RECORD, ties=edge)]
    began = server.cpu_s()
    for first in range(0, total, batch):
        client.enqueue(QUEUE.name, news[first : first + batch])
    _work(client, total, batch)
    took = server.cpu_s() - began
    client.close()
    return took / total * 1e6


def _work(client: SyncClient, total: int, batch: int) -> None:
    client.run(ops.open_session([QUEUE], SESSION, 60_000, split=False))
    outcomes: list[ops.Settlement] = []
    done = 0
    while done < total:
        settled = client.run(ops.settle([QUEUE], SESSION, outcomes, want=batch, split=False))
        claims = settled.claimed.claims
        outcomes = [ops.Settlement(claim.queue, claim.id, ops.Kind.DROPPED, NONE) for claim in claims]
        done += len(claims)
    client.run(ops.settle([QUEUE], SESSION, outcomes, split=False))


def fan_in(server: Server, width: int) -> float:
    """Seconds from the first claim to the start of a job that waits for `width` others, at batches of 100."""
    client = SyncClient(ServerConfig(server.url), retry=False)
    server.reset()
    client.enqueue(QUEUE.name, [ops.NewJob("last", RECORD, ties=msgspec.msgpack.encode({"p": width, "i": True}))])
    for first in range(0, width, 1_000):
        news = [
            ops.NewJob(
                f"m.{n}",
                RECORD,
                ties=msgspec.msgpack.encode({"e": [{"q": "", "c": "last", "n": n, "w": "s", "r": True}]}),
            )
            for n in range(first, min(first + 1_000, width))
        ]
        client.enqueue(QUEUE.name, news)
    began = server.cpu_s()
    _work(client, width + 1, 100)
    assert len(client.run(flows.inputs(QUEUE, "last"))) in (0, width)
    took = server.cpu_s() - began
    client.close()
    return took


def claim_cost(server: Server, make: Make, stored: int, claimed: int, batch: int) -> float:
    """Server CPU a job, µs, of claims and settles (dropped) alone, while `stored` jobs stand there."""
    client = SyncClient(ServerConfig(server.url), retry=False)
    server.reset()
    for first in range(0, stored, 1_000):
        client.enqueue(QUEUE.name, [ops.NewJob(f"j{n:07}", RECORD, ties=make(n)) for n in range(first, first + 1_000)])
    began = server.cpu_s()
    _work(client, claimed, batch)
    took = server.cpu_s() - began
    client.close()
    return took / claimed * 1e6


GROUPS: dict[str, Make] = {
    "10 groups": lambda n: Ties(group=Group(f"g{n % 10}")).of("t", {}),
    "100,000 groups": lambda n: Ties(group=Group(f"g{n % 100_000}")).of("t", {}),
}
LIMITS: dict[str, Make] = {
    "no limit": lambda _: b"",
    "1 limit": lambda _: Ties(limits=(Limit("l", rate="1000000/s", burst=1_000_000),)).of("t", {}),
    "50 limits": lambda n: Ties(limits=(Limit(f"l{n % 50}", rate="1000000/s", burst=1_000_000),)).of("t", {}),
    "50 limits, 49 of them shut": lambda n: Ties(
        limits=(Limit("l0", rate="1000000/s", burst=1_000_000),) if n % 50 == 0 or n > 5_000 else (Limit(f"l{n % 50}", rate="1/d"),)
    ).of("t", {}),
}  # fmt: skip
