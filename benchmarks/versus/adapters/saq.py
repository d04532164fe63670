"""SAQ: one worker serves one queue, so three workers, one a queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from saq import Queue

import effects
from effects import QUEUES, URL

LIBRARY = {
    "packages": ["saq[redis,hiredis]", "typing_extensions"],  # it imports typing_extensions without asking for it
    "shown": ["saq", "redis"],
    "workers": [
        "{bin}/saq adapters.saq.high",
        "{bin}/saq adapters.saq.default",
        "{bin}/saq adapters.saq.low",
    ],
    "settings": "`retries=3` a job (default 1), `timeout=10` (the default), `sweep` every 60 s (the default), `shutdown_grace_period_s=1`",
    "own_recovery": "a job that is active for longer than its timeout is swept: retried, or aborted when its retries are used up",
}

queues = {name: Queue.from_url(URL, name=name) for name in QUEUES}


async def note(ctx: Any, *, name: str) -> None:
    effects.note(name)


async def work(ctx: Any, *, name: str) -> None:
    await effects.awork(name)


async def poison(ctx: Any, *, name: str) -> None:
    effects.poison(name)


def _settings(queue: str) -> dict[str, Any]:
    return {
        "queue": queues[queue],
        "functions": [note, work, poison],
        "concurrency": 1,
        "shutdown_grace_period_s": 1,
    }


high, default, low = (_settings(queue) for queue in QUEUES)


async def connect() -> None:
    for queue in queues.values():
        await queue.connect()


async def enqueue(task: str, name: str, queue: str) -> None:
    if await queues[queue].enqueue(task, name=name, retries=3, timeout=10) is None:
        raise RuntimeError("not enqueued: its key is taken")


def places(client: Any) -> Iterator[tuple[str, bytes]]:
    for queue in QUEUES:
        for key, place in {"queued": "waiting", "active": "held"}.items():
            yield from ((place, client.get(job) or b"") for job in client.lrange(f"saq:{queue}:{key}", 0, -1))
        yield from (
            ("waiting", client.get(job) or b"") for job in client.zrangebyscore(f"saq:{queue}:incomplete", 1, "inf")
        )
        for job in client.keys(f"saq:job:{queue}:*"):
            blob = client.get(job) or b"{}"
            if json.loads(blob).get("status") in ("failed", "aborted"):
                yield "failed", blob
