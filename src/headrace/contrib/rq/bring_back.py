"""The way back: what was moved and has not run goes to where it was in RQ, while RQ's copies are kept.

1. RQ's list has the job again, and the note says so, in one script. 2. When that is done for all, it is deleted in headrace, and its note
goes. A run that is killed is run again. No worker of headrace's may run meanwhile: it could take a job between 1 and 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis

from headrace.contrib.rq.connections import app_of
from headrace.contrib.rq.source import Note, Source
from headrace.contrib.rq.stored import Place, StoredJob, Unreadable
from headrace.core.record import State
from headrace.engine import admin, ops
from headrace.engine.keys import queue_keys
from headrace.errors import JobNotFound, ServerUnreachable, UsageError

_WAITS = frozenset({State.QUEUED, State.SCHEDULED, State.WAITING, State.RETRYING})


def bring_back(source: Source, connection: Any, queues: Sequence[str] = ()) -> dict[str, int]:
    """Bring back what waits, and what had failed in RQ and has failed still; how many, by queue of RQ's.

    Raises:
        UsageError: a worker of headrace's runs.
        LockHeld, LockLost: another run moves these keys.
        ServerUnreachable
    """
    app = app_of(connection)
    running = app.client.run(admin.list_workers(app.prefix))
    if running:
        raise UsageError(f"worker {running[0].id} runs: stop headrace's workers first, or it may take what goes back")
    try:
        return _bring_back(source, app, queues)
    except redis.RedisError as error:
        raise ServerUnreachable(f"RQ's server does not do its part: {error}") from error


def _bring_back(source: Source, app: Any, queues: Sequence[str]) -> dict[str, int]:
    source.lock()
    found: Counter[str] = Counter()
    noted = [(job_id, note) for job_id, note in source.all_noted(is_moved=True) if not queues or note.queue in queues]
    going = [(job_id, note) for job_id, note in noted if note.is_back or _may_go(app, job_id, note)]
    ages = dict(zip(going, (_created_at_ms(job) for job in source.read([job_id for job_id, _ in going])), strict=True))
    for job_id, note in sorted(going, key=ages.__getitem__, reverse=True):  # each goes to the head: the oldest last
        found[note.queue] += source.put_back([job_id], is_moved=True)
    # Only now, as those that wait for a job are cancelled when it is deleted.
    for job_id, note in going:
        with suppress(JobNotFound):  # a run that was killed has deleted it
            app.client.run(ops.delete(queue_keys(note.to, app.prefix), job_id))
        source.forget([job_id])
    source.unlock()
    return dict(found)


def _created_at_ms(job: StoredJob | Unreadable) -> int:
    return 0 if isinstance(job, Unreadable) else job.created_at_ms


def _may_go(app: Any, job_id: str, note: Note) -> bool:
    look = app.client.run(ops.look(queue_keys(note.to, app.prefix), job_id))
    if look is None:
        return False
    return look.state in _WAITS or (look.state is State.FAILED and note.place is Place.FAILED)
