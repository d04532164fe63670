"""RQ: three `rq worker`, each forking a process a job."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from redis import Redis
from rq import Queue, Retry

import effects
from effects import QUEUES, URL

LIBRARY = {
    "packages": ["rq"],
    "shown": ["rq", "redis"],
    "workers": [
        "{bin}/rq worker high default low --url {url} --maintenance-interval 10 --job-monitoring-interval 5 --worker-ttl 30 --quiet",
        "{bin}/rq worker high default low --url {url} --maintenance-interval 10 --job-monitoring-interval 5 --worker-ttl 30 --quiet",
        "{bin}/rq worker high default low --url {url} --maintenance-interval 10 --job-monitoring-interval 5 --worker-ttl 30 --quiet",
    ],
    "settings": "`Retry(max=3)`, `--maintenance-interval 10` (default 600), `--job-monitoring-interval 5` (default 30), "
    "`--worker-ttl 30` (default 420)",
    "own_recovery": "a job whose worker is gone is noticed 60 s after its last heartbeat was due, by the next maintenance",
}

TASKS = {"note": effects.note, "work": effects.work, "poison": effects.poison}
_queues: dict[str, Queue] = {}


def enqueue(task: str, name: str, queue: str) -> None:
    if not _queues:
        connection = Redis.from_url(URL)
        _queues.update((each, Queue(each, connection=connection)) for each in QUEUES)
    _queues[queue].enqueue(TASKS[task], name, retry=Retry(max=3))


def places(client: Any) -> Iterator[tuple[str, bytes]]:
    def blob(member: bytes) -> bytes:
        data = client.hget(b"rq:job:" + member.partition(b":")[0], "data")
        return zlib.decompress(data) if data else b""

    for queue in QUEUES:
        yield from (("waiting", blob(job)) for job in client.lrange(f"rq:queue:{queue}", 0, -1))
        yield from (("held", blob(job)) for job in client.lrange(f"rq:queue:{queue}:intermediate", 0, -1))
        for registry, place in {
            "wip": "held",
            "scheduled": "waiting",
            "deferred": "waiting",
            "failed": "failed",
        }.items():
            yield from ((place, blob(job)) for job in client.zrange(f"rq:{registry}:{queue}", 0, -1))
