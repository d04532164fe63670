"""One job of RQ's as headrace stores it, with its id, arguments, meta, times and what is left of its retries. Nothing is sent or unpickled."""

from __future__ import annotations

import operator
import pickle
import time
from typing import Any

import msgspec

from headrace.app import Headrace
from headrace.contrib.rq.defaults import CALLBACK_TIMEOUT
from headrace.contrib.rq.job import Job
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.serializers import PickleSerializer, Serializer, pack, seal
from headrace.contrib.rq.stored import Place, StoredJob, Unreadable, error_of, function_name
from headrace.contrib.rq.terms import TASK
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
    """`keep_until_ms`: of a job that has failed. `group`: whose name it stands under."""

    id: str
    new: NewJob
    keep_until_ms: int
    group: str | None


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
        queue = Queue(moving.to, connection, serializer=serializer)
        draft = _draft(queue, job)
        target = app.queue(moving.to).options(**queue.options_of(draft), job_id=job.id)
        name = function_name(serializer, job.data)
        meta = seal(job.meta) if job.meta else b""
        call = target.call(TASK, _call(job, serializer), name, meta, draft.terms().packed())
    except (UsageError, Unreadable, NotImplementedError, ValueError, TypeError) as error:
        raise Refused(str(error)) from error
    is_front = (
        job.is_front and moving.place in (Place.READY, Place.RATE_LIMITED, Place.DEFERRED) and not moving.waits_for
    )
    or_failed = bool(moving.waits_for) and job.may_parents_fail
    plan = msgspec.structs.replace(call.plan, at_front=is_front, depends_on=moving.waits_for, or_failed=or_failed)
    if moving.place is Place.SCHEDULED:
        plan = msgspec.structs.replace(plan, at_ms=int(moving.score * 1000))
    if moving.left_ms is not None and moving.place is not Place.FAILED:
        plan = msgspec.structs.replace(plan, expires_in_ms=moving.left_ms)
    new, _ = app.new_job(msgspec.structs.replace(call, plan=plan))
    return Converted(job.id, _as_it_was(new, job, moving.place), _keep_until_ms(moving.score), job.group_id)


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


def _draft(queue: Queue, job: StoredJob) -> Job:
    """It as a job that is not stored yet, but for its call."""
    # What others wait for is kept, whatever its result_ttl, until they are tied to it.
    result_ttl = job.result_ttl
    if job.has_children and 0 <= (result_ttl or 0) < PARENT_TTL_S:
        result_ttl = PARENT_TTL_S
    draft = queue.create_job(
        "moved", timeout=job.timeout, result_ttl=result_ttl, failure_ttl=job.failure_ttl, description=job.description
    )
    draft.allow_dependency_failures = job.may_parents_fail or None
    if job.delays:
        draft.retries_left, draft.retry_intervals = len(job.delays), job.delays
        draft.enqueue_at_front_on_retry = job.is_front_on_retry
    if job.repeats:
        draft.repeats_left, draft.repeat_intervals = job.repeats, job.repeat_intervals
    if job.rate_limit:
        draft.rate_limit_key, draft.rate_limit_concurrency = job.rate_limit
    draft.group_id = job.group_id
    draft._dependency_ids = list(job.parents)
    return draft


def _call(job: StoredJob, serializer: Serializer) -> bytes:
    """The stored call with the callbacks and webhooks behind it, as the layer's worker reads it."""
    callbacks = {word: [path, seconds or CALLBACK_TIMEOUT] for word, (path, seconds) in job.callbacks.items()}
    hooks = {**callbacks, **({"webhooks": job.webhooks} if job.webhooks else {})}
    if serializer is PickleSerializer:
        return pack(serializer, _Longer(job.data, hooks))
    return pack(serializer, (*serializer.loads(job.data), hooks))


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
