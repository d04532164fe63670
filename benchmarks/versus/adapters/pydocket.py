"""pydocket: one docket is one queue, so three workers, one a docket."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from docket import Docket

import effects
from effects import QUEUES, URL

LIBRARY = {
    "packages": ["pydocket"],
    "shown": ["pydocket", "redis"],
    "workers": [
        "{bin}/docket worker --docket high --url {url} --tasks adapters.pydocket:tasks --concurrency 1 "
        "--redelivery-timeout 30s --logging-level WARNING",
        "{bin}/docket worker --docket default --url {url} --tasks adapters.pydocket:tasks --concurrency 1 "
        "--redelivery-timeout 30s --logging-level WARNING",
        "{bin}/docket worker --docket low --url {url} --tasks adapters.pydocket:tasks --concurrency 1 "
        "--redelivery-timeout 30s --logging-level WARNING",
    ],
    "settings": "`--redelivery-timeout` 30 s (default 300), `--concurrency 1`",
    "own_recovery": "a task that nobody has renewed for the redelivery timeout is claimed by another worker",
}


async def note(name: str) -> None:
    effects.note(name)


async def work(name: str) -> None:
    await effects.awork(name)


async def poison(name: str) -> None:
    effects.poison(name)


tasks = [note, work, poison]
TASKS = {"note": note, "work": work, "poison": poison}
_dockets: dict[str, Docket] = {}


async def connect() -> None:
    for queue in QUEUES:
        docket = Docket(name=queue, url=URL, heartbeat_interval=timedelta(seconds=2))
        _dockets[queue] = await docket.__aenter__()
        for task in tasks:
            docket.register(task)


async def enqueue(task: str, name: str, queue: str) -> None:
    await _dockets[queue].add(TASKS[task])(name)


def places(client: Any) -> Iterator[tuple[str, bytes]]:
    for queue in QUEUES:
        docket = Docket(name=queue, url=URL)
        stream = docket.stream_key
        if client.exists(stream):
            entries = {entry: b"".join(fields.values()) for entry, fields in client.xrange(stream)}
            groups = client.xinfo_groups(stream)
            if not groups:
                yield from (("waiting", blob) for blob in entries.values())
            for group in groups:
                pending = client.xpending_range(stream, group["name"], "-", "+", 100_000)
                yield from (("held", entries.get(row["message_id"], b"")) for row in pending)
                later = client.xrange(stream, b"(" + group["last-delivered-id"])
                yield from (("waiting", b"".join(fields.values())) for _, fields in later)
        for task in client.zrange(docket.queue_key, 0, -1):
            yield "waiting", b"".join(client.hvals(docket.parked_task_key(task.decode())))
