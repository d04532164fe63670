"""`rq.worker_registration`: which workers are there, as they show themselves on headrace's list of workers."""

from __future__ import annotations

import os
import socket
from typing import Any

from headrace.contrib.rq.connections import app_of, resolve_connection
from headrace.contrib.rq.defaults import RQ_KEY_PREFIX
from headrace.contrib.rq.exceptions import missing
from headrace.engine import admin
from headrace.engine.admin import Worker as Seen

WORKERS_BY_QUEUE_KEY = f"{RQ_KEY_PREFIX}:workers:%s"
REDIS_WORKER_KEYS = f"{RQ_KEY_PREFIX}:workers"
MAX_KEYS = 1000


def get_keys(queue: Any = None, connection: Any = None) -> set[str]:
    """The keys, `rq:worker:NAME`, of the workers that are there; of those that serve a queue.

    Raises:
        ValueError: neither a queue nor a connection, and none was pushed.
    """
    found = seen(queue, connection_of(queue, connection))
    return {f"{RQ_KEY_PREFIX}:worker:{name_of(worker)}" for worker in found}


def clean_worker_registry(queue: Any) -> None:
    """Forget the workers that have not shown themselves for 30 s."""
    seen(None, queue.connection)


register = missing("worker_registration.register", "a supervisor shows its worker by itself")
unregister = missing("worker_registration.unregister", "a supervisor shows its worker by itself")


def connection_of(queue: Any, connection: Any) -> Any:
    """The queue's, else the one given, else the one pushed last (not in RQ)."""
    return queue.connection if queue is not None else resolve_connection(connection)


def seen(queue: Any, connection: Any) -> list[Seen]:
    """The workers that are there (not in RQ)."""
    app = app_of(connection)
    every = [one for one in app.client.run(admin.list_workers(app.prefix)) if one.info.get("pool") != "cron"]
    return every if queue is None else [one for one in every if queue.name in one.info.get("queues", ())]


def find(connection: Any, name: str) -> Seen | None:
    """The worker of that name, the one started last if there are several (not in RQ)."""
    found = [one for one in seen(None, connection) if name_of(one) == name]
    return max(found, key=lambda one: one.info.get("started_at_ms", 0), default=None)


def name_of(worker: Seen) -> str:
    return str(worker.info.get("name") or worker.id)


def is_alive(worker: Seen) -> bool:
    """False: its process was killed on this machine, and has not had the time to be forgotten."""
    if worker.info.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(worker.info["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
