"""Queues full of jobs with one feature of flow each, for a worker to run."""

from __future__ import annotations

import msgspec

import bare
from headrace import Headrace
from headrace.core.ties import Group, Limit, Ties, Unique
from headrace.engine import ops
from headrace.engine.clients import ServerConfig, SyncClient
from lab import QUEUE, URL, Server

KINDS = (
    "plain",
    "unique",
    "a rate",
    "a concurrency limit",
    "10 groups",
    "100 schedules that tick",
    "chains",
    "a batch task",
)
A_CALL = 1_000
SCHEDULES = 100


def fill(server: Server, kind: str, total: int) -> None:
    """Store so many jobs; the queue is paused."""
    task = "noop_batch" if kind == "a batch task" else "noop"
    record = bare.record(f"tasks.{task}")
    client = SyncClient(ServerConfig(server.url), retry=False)
    for first in range(0, total, A_CALL):
        news = [ops.NewJob(f"j{n:07}", record, ties=_ties(kind, n)) for n in range(first, min(first + A_CALL, total))]
        client.enqueue(QUEUE.name, news)
    client.close()
    if kind == "100 schedules that tick":
        with Headrace(server.url) as app:
            for n in range(SCHEDULES):
                app.schedules.add(f"s{n}", app.queue(QUEUE.name).call("tasks.noop", URL), every=1)


def _ties(kind: str, n: int) -> bytes:
    if kind == "chains":  # every second waits for the one before
        waits = {"p": 1} if n % 2 else {"e": [{"q": "", "c": f"j{n + 1:07}", "n": 0, "w": "s"}]}
        return msgspec.msgpack.encode(waits)
    ties = {
        "unique": Ties(unique=Unique("n")),
        "a rate": Ties(limits=(Limit("fast", rate="1000000/s", burst=1_000_000),)),
        "a concurrency limit": Ties(limits=(Limit("wide", concurrency=1_000_000),)),
        "10 groups": Ties(group=Group(f"g{n % 10}")),
    }.get(kind)
    return b"" if ties is None else ties.of("tasks.noop", {"n": n})
