"""Celery with late acknowledgement: one worker with three prefork processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import Celery

import effects
from effects import QUEUES, URL

LIBRARY = {
    "packages": ["celery[redis]"],
    "shown": ["celery", "kombu", "redis"],
    "workers": ["{bin}/celery -A adapters.celery worker -Q high,default,low -c 3 -l WARNING"],
    "settings": "`task_acks_late`, `task_reject_on_worker_lost`, `worker_prefetch_multiplier=1`, `visibility_timeout` 30 (default 3,600), "
    "`unacked_restore_interval` 5 and `_throttle` 1 (default 10 and 10), `socket_timeout` 10, `health_check_interval` 10",
    "own_recovery": "what a lost worker held comes back when the visibility timeout has passed",
}

app = Celery("versus", broker=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": 30,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "retry_on_timeout": True,
        "health_check_interval": 10,
    },
    task_acks_late=True,
    task_default_queue="default",
    task_ignore_result=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
)
TASKS = {name: app.task(name=name)(getattr(effects, name)) for name in ("note", "work", "poison")}


def enqueue(task: str, name: str, queue: str) -> None:
    TASKS[task].apply_async((name,), queue=queue)


def places(client: Any) -> Iterator[tuple[str, bytes]]:
    """Celery keeps no failed jobs without a result backend."""
    for queue in QUEUES:
        for key in client.keys(f"{queue}*"):
            if client.type(key) == b"list":
                yield from (("waiting", message) for message in client.lrange(key, 0, -1))
    yield from (("held", message) for message in client.hvals("unacked"))
