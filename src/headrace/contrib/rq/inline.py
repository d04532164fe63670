"""Jobs that run where they are enqueued: `Queue(is_async=False)`. What becomes of one is stored as if a worker had run it.

No worker sees it, so nobody runs it again when this process dies, nor after it has failed.
"""

from __future__ import annotations

import logging
import time
import traceback
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.contrib.rq.connections import app_of
from headrace.contrib.rq.defaults import DEFAULT_FAILURE_TTL, DEFAULT_RESULT_TTL
from headrace.contrib.rq.exceptions import DuplicateJobError
from headrace.contrib.rq.job import Job, JobStatus
from headrace.contrib.rq.serializers import pack
from headrace.contrib.rq.terms import FOREVER_S
from headrace.core.outcome import describe_exception
from headrace.core.record import Record, State, Stored, decode, encode
from headrace.engine import admin, ops
from headrace.engine.keys import queue_keys
from headrace.errors import JobExists
from headrace.job import job_of
from headrace.wire import encode_result

if TYPE_CHECKING:
    from headrace.contrib.rq.queue import Queue

logger = logging.getLogger("rq.queue")


def run_here(queue: Queue, job: Job, *, is_unique: bool = False) -> Job:
    """Run a draft in this thread, tell its callbacks and webhooks, and store its end. What the function raises fails the job.

    Raises:
        DuplicateJobError: its id is taken by a job that has not ended, or with `is_unique` by any.
        Exception: its arguments cannot be serialized; then it has not run.
    """
    app = app_of(queue.connection)
    if job._id is not None:
        taken = queue.fetch_job(job.id)
        if taken is not None and (is_unique or not taken.handle.state.is_ended):
            raise DuplicateJobError(f"job {job.id} is there already")
    queue.call_of(job, at_front=False, unique=True)  # what cannot be stored must not run
    started_at_ms = _now_ms()
    error: Exception | None = None
    value: Any = None
    try:
        value = job.perform()
        data, note = encode_result(pack(queue.serializer, value), app.max_payload_bytes)
    except Exception as raised:
        error, data, note = raised, None, None
    new, _ = app.new_job(queue.call_of(job, at_front=False, unique=is_unique))  # its meta may have changed
    record = decode(new.record)
    _end(record, started_at_ms, error, data, note)
    keep_s = job.get_result_ttl(DEFAULT_RESULT_TTL) if error is None else job.failure_ttl
    keep_s = DEFAULT_FAILURE_TTL if keep_s is None else keep_s
    keep_until_ms = record.ended_at_ms + (FOREVER_S if keep_s < 0 else keep_s) * 1000
    if keep_s:
        _store(queue, new.id, record, keep_until_ms)
    state = State.SUCCEEDED if error is None else State.FAILED
    job._see(job_of(new.id, queue.name, app, ops.Look(encode(record), state)))
    _tell(queue, job, value, error)
    return job


def _end(record: Record, started_at_ms: int, error: Exception | None, data: bytes | None, note: str | None) -> None:
    record.state = int(Stored.SUCCEEDED if error is None else Stored.FAILED)
    record.attempt, record.started_at_ms, record.ended_at_ms = 1, started_at_ms, _now_ms()
    record.result, record.note = data, note
    if error is not None:
        told = describe_exception(error, 1, record.ended_at_ms)
        record.errors, record.reason = [told], f"{told.type}: {told.message}"[:300]
    if record.options is not None:
        record.options = msgspec.structs.replace(record.options, ties=None)


def _store(queue: Queue, job_id: str, record: Record, keep_until_ms: int) -> None:
    app = app_of(queue.connection)
    try:
        app.client.run(ops.announce_queues(app.prefix, [queue.name]))
        app.client.run(
            admin.store_ended(
                queue_keys(queue.name, app.prefix), [(job_id, encode(record), keep_until_ms)], token_hex(8), 1
            )
        )
    except JobExists as error:
        raise DuplicateJobError(f"job {job_id} is there already") from error


def _tell(queue: Queue, job: Job, value: Any, error: Exception | None) -> None:
    """What callbacks raise is logged, as in a worker."""
    word, what = (
        ("on_success", (value,)) if error is None else ("on_failure", (type(error), error, error.__traceback__))
    )
    try:
        function, seconds = job.hook(word)
        if function is not None:
            with queue.death_penalty_class(seconds):
                function(job, job.connection, *what)
    except Exception:
        logger.exception("the callback %s of job %s raised", word, job.id)
    told = None if error is None else "".join(traceback.format_exception(error))
    job.send_webhooks(JobStatus.FINISHED if error is None else JobStatus.FAILED, exc_string=told)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
