"""arq: one worker serves one queue, so three workers, one a queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from arq import ArqRedis, create_pool
from arq.connections import RedisSettings
from arq.jobs import deserialize_result

import effects
from effects import QUEUES, URL

LIBRARY = {
    "packages": ["arq"],
    "shown": ["arq", "redis"],
    "workers": ["{bin}/arq adapters.arq.High", "{bin}/arq adapters.arq.Default", "{bin}/arq adapters.arq.Low"],
    "settings": "`job_timeout` 20 s (default 300), `max_jobs=1`, `poll_delay` 0.01 s (default 0.5), `max_tries` 5 (the default), `job_completion_wait=5`, `retry_on_timeout`",
    "own_recovery": "a job that a lost worker was running is free again 10 s after its timeout has passed",
}

SETTINGS = RedisSettings.from_dsn(URL)
SETTINGS.retry_on_timeout = True
_pool: list[ArqRedis] = []


async def note(ctx: Any, name: str) -> None:
    effects.note(name)


async def work(ctx: Any, name: str) -> None:
    await effects.awork(name)


async def poison(ctx: Any, name: str) -> None:
    effects.poison(name)


def _settings(queue: str) -> type:
    """A settings class: arq reads its own attributes only, none that it inherits."""
    names = {"functions": (note, work, poison), "redis_settings": SETTINGS, "queue_name": queue, "max_jobs": 1}
    return type("WorkerSettings", (), {**names, "job_timeout": 20, "job_completion_wait": 5, "poll_delay": 0.01})


High, Default, Low = (_settings(queue) for queue in QUEUES)


async def connect() -> None:
    _pool.append(await create_pool(SETTINGS))


async def enqueue(task: str, name: str, queue: str) -> None:
    if await _pool[0].enqueue_job(task, name, _queue_name=queue) is None:
        raise RuntimeError("not enqueued: its id is taken")


def places(client: Any) -> Iterator[tuple[str, bytes]]:
    for queue in QUEUES:
        for job in client.zrange(queue, 0, -1):
            is_held = client.exists(b"arq:in-progress:" + job)
            yield "held" if is_held else "waiting", client.get(b"arq:job:" + job) or b""
    for key in client.keys("arq:result:*"):
        blob = client.get(key)
        if blob and not deserialize_result(blob).success:
            yield "failed", blob
