"""headrace: one worker with three prefork processes, as its README has it for production."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import effects
from effects import QUEUES, URL
from headrace import Headrace

LIBRARY = {
    "packages": ["--editable", "{root}"],
    "shown": ["headrace", "redis"],
    "workers": ["{bin}/headrace worker high default low -A adapters.headrace:app --processes 3 --log-level warning"],
    "settings": "the defaults",
    "own_recovery": "a dead process is seen by its supervisor at once; what a lost machine held comes back when its leases end (10 s), "
    "by a worker that has itself watched for a full lease",
}

app = Headrace(URL, queues=list(QUEUES))
TASKS = {name: app.task(name=name)(getattr(effects, name)) for name in ("note", "work", "poison")}


def enqueue(task: str, name: str, queue: str) -> None:
    TASKS[task].options(queue=queue).enqueue(name)


def places(client: Any) -> Iterator[tuple[str, bytes]]:
    for queue in QUEUES:
        key = f"hr:{{{queue}}}:"
        ids = {
            "waiting": [
                *client.lrange(key + "ready", 0, -1),
                *client.lrange(key + "suspects", 0, -1),
                *client.zrange(key + "priority", 0, -1),
                *client.zrange(key + "delayed", 0, -1),
            ],
            "held": [job for held in client.keys(key + "held:*") for job in client.smembers(held)],
            "failed": client.zrange(key + "dead", 0, -1),
        }
        for place, found in ids.items():
            yield from ((place, client.hget(key + "jobs", job) or b"") for job in found)
