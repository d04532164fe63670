"""taskiq with taskiq-redis's stream broker: one manager with three processes of one task at a time, three streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from taskiq_redis import RedisStreamBroker

import effects
from effects import QUEUES, URL

LIBRARY = {
    "packages": ["taskiq", "taskiq-redis"],
    "shown": ["taskiq", "taskiq-redis", "redis"],
    "workers": ["{bin}/taskiq worker adapters.taskiq:broker -w 3 --max-async-tasks 1 --log-level WARNING"],
    "settings": '`RedisStreamBroker`, `idle_timeout` 30 s (default 600), `unacknowledged_lock_timeout` 10 (default: never), `consumer_id="0"`, '
    "acknowledged when saved (the default)",
    "own_recovery": "unacknowledged messages are claimed again when idle for so long, but only after a read that brought new ones",
}

broker = RedisStreamBroker(
    URL,
    queue_name=QUEUES[0],
    additional_streams={queue: ">" for queue in QUEUES[1:]},
    consumer_id="0",
    idle_timeout=30_000,
    unacknowledged_lock_timeout=10,
)


@broker.task
async def note(name: str) -> None:
    effects.note(name)


@broker.task
async def work(name: str) -> None:
    await effects.awork(name)


@broker.task
async def poison(name: str) -> None:
    effects.poison(name)


TASKS = {"note": note, "work": work, "poison": poison}


async def connect() -> None:
    await broker.startup()


async def enqueue(task: str, name: str, queue: str) -> None:
    await TASKS[task].kicker().with_labels(queue_name=queue).kiq(name)


def places(client: Any) -> Iterator[tuple[str, bytes]]:
    """A stream keeps what is done, too: pending entries are held, those after the last delivered one wait."""
    for queue in QUEUES:
        entries = {entry: b"".join(fields.values()) for entry, fields in client.xrange(queue)}
        for group in client.xinfo_groups(queue):
            pending = client.xpending_range(queue, group["name"], "-", "+", 100_000)
            yield from (("held", entries.get(row["message_id"], b"")) for row in pending)
            later = client.xrange(queue, b"(" + group["last-delivered-id"])
            yield from (("waiting", b"".join(fields.values())) for _, fields in later)
