"""`rq.suspension`: no worker begins another job until somebody resumes: every queue is paused, with one reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.app import Headrace
from headrace.contrib.rq.connections import app_of
from headrace.contrib.rq.defaults import RQ_KEY_PREFIX
from headrace.engine import admin, ops
from headrace.engine.keys import queue_keys

WORKERS_SUSPENDED = f"{RQ_KEY_PREFIX}:suspended"
REASON = "rq suspend"
"""By this a pause is known again: `resume` ends no other."""


def is_suspended(connection: Any, worker: Any = None) -> bool:
    """Whether somebody has suspended the workers."""
    return bool(_suspended(app_of(connection)))


def suspend(connection: Any, ttl: int | None = None) -> None:
    """Let no worker begin a job, for good or for `ttl` seconds; what runs goes on. At once, and exactly.

    Queues that an operator has paused stay as they are.

    Raises:
        ValueError: ttl is negative.
    """
    if ttl is not None and ttl < 0:
        raise ValueError(f"ttl: expected seconds, got {ttl!r}")
    app = app_of(connection)
    if ttl == 0:
        resume(connection)
    else:
        names: list[str] = app.client.run(admin.queue_names(app.prefix))
        _pause(app, names or ["default"], (ttl or 0) * 1000)


def resume(connection: Any) -> int:
    """Let workers go on; 1: they were suspended."""
    app = app_of(connection)
    found = _suspended(app)
    for counts in found:
        app.client.run(admin.resume(queue_keys(counts.name, app.prefix)))
    return int(bool(found))


def join(connection: Any, names: Iterable[str]) -> bool:
    """Where workers are suspended, let these queues be so, too, and as long; whether they are (not in RQ)."""
    app = app_of(connection)
    found = _suspended(app)
    if not found:
        return False
    left = [max(1, counts.paused_until_ms - counts.server_ms) if counts.paused_until_ms else 0 for counts in found]
    _pause(app, names, 0 if 0 in left else max(left))
    return True


def _suspended(app: Headrace) -> list[admin.QueueCounts]:
    names: list[str] = app.client.run(admin.queue_names(app.prefix))
    return [counts for counts in _counts(app, names) if counts.paused == REASON]


def _pause(app: Headrace, names: Iterable[str], for_ms: int) -> None:
    names = list(names)
    app.client.run(ops.announce_queues(app.prefix, names))
    for counts in _counts(app, names):
        if counts.paused in (None, REASON):
            app.client.run(admin.pause(queue_keys(counts.name, app.prefix), REASON, for_ms))


def _counts(app: Headrace, names: Iterable[str]) -> list[admin.QueueCounts]:
    return [app.client.run(admin.count_jobs(queue_keys(name, app.prefix))) for name in names]
