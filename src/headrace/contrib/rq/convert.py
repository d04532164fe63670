"""One job of RQ's as headrace stores it, with its id, arguments, meta, times and what is left of its retries. Nothing is sent or unpickled."""

from __future__ import annotations

import operator
import pickle
import time
from typing import Any

import msgspec

from headrace.app import Headrace
from headrace.contrib.rq.job import Retry
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.runner import TASK
from headrace.contrib.rq.serializers import PickleSerializer, Serializer, pack, seal
from headrace.contrib.rq.stored import Place, StoredJob, Unreadable, error_of, function_name
from headrace.core.outcome import ERROR_BYTES_MAX, cut, cut_middle
from headrace.core.record import AttemptError, Stored, decode, encode
from headrace.engine.keys import check_job_id
from headrace.engine.ops import NewJob
from headrace.errors import UsageError

_FOREVER_MS = 2**52
PARENT_TTL_S = 3600


class Refused(Exception):  # noqa: N818, RUF100
    """Why a job cannot be moved, or not yet."""


class Moving(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is to go: as RQ has it, where that is, and headrace's queue.

    `left_ms`: what its ttl had left, None: it had none. `score`: in RQ's sorted set. `waits_for`: (queue, id) of the jobs in headrace that it waits for.
    """

    id: str
    job: StoredJob | Unreadable
    place: Place
    to: str
    left_ms: int | None = None
    score: float = 0.0
    waits_for: list[tuple[str, str]] = []


class Converted(msgspec.Struct, frozen=True):
    """`keep_until_ms`: of a job that has failed. `waits_for`: as above."""

    id: str
    new: NewJob
    keep_until_ms: int
    waits_for: list[tuple[str, str]]


def convert(moving: Moving, app: Headrace, connection: Any, serializer: Serializer) -> Converted:
    """As headrace stores it.

    Raises:
        Refused
    """
    job = moving.job
    if isinstance(job, Unreadable):
        raise Refused(str(job))
    try:
        check_job_id(job.id)
        options = Queue(moving.to, connection, serializer=serializer).options_of(job.timeout, _options(job))
        target = app.queue(moving.to).options(job_id=job.id, **options)
        name = function_name(serializer, job.data)
        call = target.call(TASK, _call(job, serializer), name, seal(job.meta) if job.meta else b"")
    except (UsageError, Unreadable, NotImplementedError, ValueError, TypeError) as error:
        raise Refused(str(error)) from error
    is_front = (
        job.is_front and moving.place in (Place.READY, Place.RATE_LIMITED, Place.DEFERRED) and not moving.waits_for
    )
    plan = msgspec.structs.replace(call.plan, at_front=is_front, depends_on=moving.waits_for)
    if moving.place is Place.SCHEDULED:
        plan = msgspec.structs.replace(plan, at_ms=int(moving.score * 1000))
    if moving.left_ms is not None and moving.place is not Place.FAILED:
        plan = msgspec.structs.replace(plan, expires_in_ms=moving.left_ms)
    new, _ = app.new_job(msgspec.structs.replace(call, plan=plan))
    return Converted(job.id, _as_it_was(new, job, moving.place), _keep_until_ms(moving.score), moving.waits_for)


def _as_it_was(new: NewJob, job: StoredJob, place: Place) -> NewJob:
    """With the age it has, and the end it has come to."""
    record = decode(new.record)
    record.created_at_ms = job.created_at_ms or record.created_at_ms
    if place is Place.FAILED:
        ended_at_ms = job.ended_at_ms or time.time_ns() // 1_000_000
        kind, message = error_of(job.traceback)
        trace = cut_middle(job.traceback, ERROR_BYTES_MAX - 2_000)
        record.state = int(Stored.FAILED)
        record.attempt, record.started_at_ms, record.ended_at_ms = 1, job.started_at_ms, ended_at_ms
        record.errors = [AttemptError(1, cut(kind, 200), cut(message, 1_000), trace, ended_at_ms)]
    return msgspec.structs.replace(new, record=encode(record))


def _keep_until_ms(score: float) -> int:
    """RQ's score of a failed job is when it ends, Unix seconds, or inf."""
    return int(min(score * 1000, _FOREVER_MS)) if score > 0 else _FOREVER_MS


def _options(job: StoredJob) -> dict[str, Any]:
    """RQ's options of it, as the layer takes them; what has no effect is left out."""
    # What others wait for is kept, whatever its result_ttl, until they are tied to it.
    result_ttl = job.result_ttl
    if job.has_children and 0 <= (result_ttl or 0) < PARENT_TTL_S:
        result_ttl = PARENT_TTL_S
    given: dict[str, Any] = {
        "result_ttl": result_ttl,
        "description": job.description,
        "retry": Retry(len(job.delays), job.delays) if job.delays else None,
        "repeat": job.repeats,
        "webhooks": job.webhooks,
        "rate_limit": job.rate_limit,
        "group_id": job.group_id,
        "on_stopped": job.callbacks.get("on_stopped"),
    }
    return {word: value for word, value in given.items() if value or value == 0}


def _call(job: StoredJob, serializer: Serializer) -> bytes:
    """The stored call with the callbacks behind it, as the layer's worker reads it."""
    callbacks = {word: path for word, (path, _) in job.callbacks.items() if word != "on_stopped"}
    if serializer is PickleSerializer:
        return pack(serializer, _Longer(job.data, callbacks))
    return pack(serializer, (*serializer.loads(job.data), callbacks))


class _Longer:
    """Pickles as "this stored tuple, and more behind it": the worker loads what was stored, who moves it does not."""

    def __init__(self, data: bytes, *more: Any) -> None:
        self._data, self._more = data, more

    def __reduce__(self) -> Any:
        return operator.add, (_Nested(self._data), self._more)


class _Nested:
    """Pickles as "what these bytes hold"."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> Any:
        return pickle.loads, (self._data,)
