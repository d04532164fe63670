"""RQ's names over headrace: `from headrace.contrib.rq import Queue, Worker` in place of `from rq import …`.

A thin layer: every job is an ordinary headrace job. What it does not offer says so when it is called.
"""

from collections.abc import Callable
from typing import Any

from headrace.contrib.rq.connections import Connection, get_current_connection, pop_connection, push_connection
from headrace.contrib.rq.exceptions import not_offered
from headrace.contrib.rq.job import Callback, Retry, cancel_job, get_current_job, requeue_job
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.worker import SimpleWorker, Worker

__all__ = [
    "Callback",
    "Connection",
    "Queue",
    "Retry",
    "SimpleWorker",
    "Worker",
    "cancel_job",
    "get_current_connection",
    "get_current_job",
    "pop_connection",
    "push_connection",
    "requeue_job",
]

_MISSING = ("RateLimit", "Repeat", "SpawnWorker", "Webhook")


def __getattr__(name: str) -> Callable[..., Any]:
    """A name that RQ has and this layer has not can be imported; it says so when it is called."""
    if name not in _MISSING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args: Any, **kwargs: Any) -> Any:
        not_offered(name, "see docs/howto/from-rq.md for what headrace has instead")

    return missing
