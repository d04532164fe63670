"""Dramatiq: one master with three processes of one thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

import effects
from effects import QUEUES, URL

LIBRARY = {
    "packages": ["dramatiq[redis]"],
    "shown": ["dramatiq", "redis"],
    "workers": ["{bin}/dramatiq adapters.dramatiq -Q high default low -p 3 -t 1 --worker-shutdown-timeout 8000"],
    "settings": "`heartbeat_timeout` 15 s (default 60), `maintenance_chance` 100,000 of a million (default 1,000), the default retries (20)",
    "own_recovery": "a process that is silent for the heartbeat's timeout has its messages put back by chance maintenance",
}

broker = RedisBroker(url=URL, heartbeat_timeout=15_000, maintenance_chance=100_000)
dramatiq.set_broker(broker)
ACTORS = {
    (task, queue): dramatiq.actor(getattr(effects, task), actor_name=f"{task}_{queue}", queue_name=queue)
    for task in ("note", "work", "poison")
    for queue in QUEUES
}


def enqueue(task: str, name: str, queue: str) -> None:
    ACTORS[task, queue].send(name)


def places(client: Any) -> Iterator[tuple[str, bytes]]:
    def blobs(key: str, ids: Any) -> Iterator[bytes]:
        yield from (client.hget(f"{key}.msgs", each) or b"" for each in ids)

    for queue in (each + suffix for each in QUEUES for suffix in ("", ".DQ")):
        key = f"dramatiq:{queue}"
        yield from (("waiting", blob) for blob in blobs(key, client.lrange(key, 0, -1)))
        for held in client.keys(f"dramatiq:__acks__.*.{queue}"):
            yield from (("held", blob) for blob in blobs(key, client.smembers(held)))
        yield from (("failed", blob) for blob in client.hvals(f"{key}.XQ.msgs"))
