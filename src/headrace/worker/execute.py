"""One job, from what was claimed to what is written: read, find the task, call, decide. No I/O but the user's own.

`begin` gives a `Run` (or the settlement of a job that cannot run here); a pool calls it, and `settle` says what
becomes of it. A common success takes a short way: the record it came with is ended in place.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.app import Headrace
from headrace.context import JobContext, Reporter, enter_job, leave_job
from headrace.core.names import type_names
from headrace.core.outcome import (
    BadPayload,
    Cancelled,
    End,
    Raised,
    TimedOut,
    UnknownTask,
    decide,
    describe_exception,
)
from headrace.core.record import LAYOUT, Record, Stored, decode, encode
from headrace.engine.ops import Claim, Kind, Settlement
from headrace.errors import ArgumentsMismatch, JobCancelled, JobTimeout, RetryIn
from headrace.events import Event, EventName
from headrace.middleware import arun_inside, run_inside
from headrace.task import Task
from headrace.wire import decode_call, encode_result
from headrace.worker.joblog import JobLog

logger = logging.getLogger("headrace.worker")

SAY_UNKNOWN_EVERY_S = 60.0
_EVENTS = {
    Kind.SUCCEEDED: EventName.JOB_SUCCEEDED,
    Kind.DROPPED: EventName.JOB_SUCCEEDED,
    Kind.RETRY: EventName.JOB_RETRYING,
    Kind.FAILED: EventName.JOB_FAILED,
    Kind.CANCELLED: EventName.JOB_CANCELLED,
    Kind.PARK: EventName.JOB_PARKED,
    Kind.RELEASE: EventName.JOB_RELEASED,
}


class Run:
    """One attempt that is ready to be called. `timeout_ms` 0: no limit."""

    __slots__ = (
        "args",
        "claim",
        "context",
        "is_async",
        "kwargs",
        "record",
        "started_ns",
        "task",
        "timeout_ms",
        "ttl_ms",
    )

    def __init__(
        self, claim: Claim, record: Record, task: Task[..., Any], args: list[Any], kwargs: dict[str, Any],
        context: JobContext, timeout_ms: int, ttl_ms: int,
    ) -> None:  # fmt: skip
        self.claim = claim
        self.record = record
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.context = context
        self.is_async = task.is_async
        self.timeout_ms = timeout_ms
        self.ttl_ms = ttl_ms
        self.started_ns = 0


class Executor:
    """Knows the app: finds tasks, calls them inside its middleware, and tells its events."""

    def __init__(self, app: Headrace, reporter: Reporter, joblog: JobLog) -> None:
        self._app = app
        self._reporter = reporter
        self._joblog = joblog
        self._tasks: dict[str, Task[..., Any]] = {}
        self._said: dict[str, float] = {}
        self._max_bytes = app.server_config.max_payload_bytes
        self.parked = 0

    # Read

    def begin(self, claim: Claim) -> Run | Settlement:
        """What is to be called; or what becomes of a job that cannot be called here. Never raises."""
        try:
            record = decode(claim.record)
        except (msgspec.MsgspecError, ValueError) as error:
            return self._unreadable(claim, error)
        task = self._tasks.get(record.task) or self._find(record.task)
        if task is None:
            return self._park(claim, record, record.task)
        try:
            args, kwargs = decode_call(record.payload, task)
        except ArgumentsMismatch as error:
            # Code of another version enqueued it: it waits for a worker that it fits, as an unknown task does.
            return self._park(claim, record, f"{record.task} with these arguments ({error})")
        options = record.options
        timeout_ms, ttl_ms = task.timeout_ms, task.result_ttl_ms
        if options is not None:
            timeout_ms = timeout_ms if options.timeout_ms is None else options.timeout_ms
            ttl_ms = ttl_ms if options.result_ttl_ms is None else options.result_ttl_ms
        context = JobContext(claim.id, claim.queue, record.task, record.attempt + 1, claim.fence, self._reporter)
        return Run(claim, record, task, args, kwargs, context, timeout_ms, ttl_ms)

    def _find(self, name: str) -> Task[..., Any] | None:
        try:
            task = self._app.find_task(name)
        except Exception:
            logger.exception("looking for the task %s failed", name)
            return None
        if task is not None:
            self._tasks[name] = task
        return task

    def _park(self, claim: Claim, record: Record, what: str) -> Settlement:
        self.parked += 1
        now = time.monotonic()
        if now - self._said.get(what, -SAY_UNKNOWN_EVERY_S) >= SAY_UNKNOWN_EVERY_S:
            self._said[what] = now
            logger.warning("no task %s here: job %s waits for a worker that knows it", what, claim.id)
        return self._settlement(claim, record, UnknownTask(what), None, 0, 0)

    def _unreadable(self, claim: Claim, error: Exception) -> Settlement:
        """The stored bytes are kept inside the failed record, for whoever wants to look."""
        payload = msgspec.Raw(msgspec.msgpack.encode([[claim.record], {}]))
        record = Record(LAYOUT, int(Stored.LIVE), 0, 0, "?", payload, int(time.time() * 1000))
        logger.error("job %s of queue %s cannot be read: %s", claim.id, claim.queue, error)
        return self._settlement(claim, record, BadPayload(f"the stored job cannot be read: {error}"), None, 0, 0)

    # Call

    def call(self, run: Run, call: Callable[[Run], Any]) -> Settlement:
        """Run `call(run)` as the job: `call` opens and closes the window in which the job may be interrupted."""
        self._tell(EventName.JOB_STARTED, run) if self._app.events.has(EventName.JOB_STARTED) else None
        token = enter_job(run.context)
        try:
            layers = self._app.middlewares
            value = run_inside(layers, run.context, lambda: call(run)) if layers else call(run)
        except BaseException as error:
            return self.settle(run, self._raised(run, error))
        finally:
            leave_job(token)
        return self.succeed(run, value)

    async def acall(self, run: Run, call: Callable[[Run], Any]) -> Settlement:
        """The twin of `call` for an event loop: awaits what `call` gives."""
        self._tell(EventName.JOB_STARTED, run) if self._app.events.has(EventName.JOB_STARTED) else None
        token = enter_job(run.context)
        try:
            layers = self._app.middlewares
            value = await (arun_inside(layers, run.context, lambda: call(run)) if layers else call(run))
        except BaseException as error:
            return self.settle(run, self._raised(run, error))
        finally:
            leave_job(token)
        return self.succeed(run, value)

    def _raised(self, run: Run, error: BaseException) -> End:
        told = describe_exception(error, run.record.attempt + 1, int(time.time() * 1000))
        if isinstance(error, JobTimeout):
            return TimedOut(told)
        if isinstance(error, JobCancelled):
            return Cancelled()
        retry_in_ms = max(0, int(error.delay_s * 1000)) if isinstance(error, RetryIn) else None
        return Raised(type_names(type(error)), told, retry_in_ms)

    # Decide

    def succeed(self, run: Run, value: Any) -> Settlement:
        """The short way of `settle` for a success: the same record as `decide` would give."""
        result, why_not = encode_result(value, self._max_bytes)
        record, claim = run.record, run.claim
        now_ns = time.time_ns()
        record.state = 6
        record.attempt += 1
        record.ended_at_ms = now_ns // 1_000_000
        record.started_at_ms = (now_ns - time.monotonic_ns() + run.started_ns) // 1_000_000
        record.result = result
        record.note = why_not
        kind = Kind.SUCCEEDED if run.ttl_ms > 0 else Kind.DROPPED
        if self._joblog.is_on or self._app.events.has(EventName.JOB_SUCCEEDED):
            self._report(run, kind)
        return Settlement(claim.queue, claim.id, kind, encode(record), 0, run.ttl_ms, claim.is_suspect)

    def settle(self, run: Run, end: End) -> Settlement:
        """What becomes of a job that ended so."""
        options = run.record.options
        if run.started_ns:
            run.record.started_at_ms = (time.time_ns() - time.monotonic_ns() + run.started_ns) // 1_000_000
        retry = run.task.retry if options is None or options.retry is None else options.retry
        settlement = self._settlement(run.claim, run.record, end, retry, run.ttl_ms, run.started_ns)
        error = end.error if isinstance(end, Raised | TimedOut) else None
        self._report(run, settlement.kind, error.type if error else "", error, settlement.delay_ms)
        return settlement

    def release(self, claim: Claim) -> Settlement:
        """Give an unstarted job back to the head of its queue, uncharged."""
        return Settlement(claim.queue, claim.id, Kind.RELEASE, is_suspect=claim.is_suspect)

    def _settlement(
        self, claim: Claim, record: Record, end: End, retry: Any, ttl_ms: int, started_ns: int
    ) -> Settlement:
        now_ms = int(time.time() * 1000)
        decision = decide(record, end, retry=retry, result_ttl_ms=ttl_ms, now_ms=now_ms, random=random.random)
        return Settlement(
            claim.queue, claim.id, Kind(decision.kind), encode(decision.record), decision.delay_ms, decision.keep_ms,
            claim.is_suspect,
        )  # fmt: skip

    # Tell

    def _report(self, run: Run, kind: Kind, text: str = "", error: Any = None, delay_ms: int = 0) -> None:
        duration_ms = (time.monotonic_ns() - run.started_ns) / 1e6 if run.started_ns else 0.0
        self._joblog.job_ended(run.record.task, run.claim.id, kind, duration_ms, text, delay_ms)
        name = _EVENTS[kind]
        if self._app.events.has(name):
            self._app.events.emit(
                Event(
                    name, int(time.time() * 1000), run.claim.id, run.claim.queue, run.record.task,
                    run.context.attempt, duration_ms, error=error,
                )
            )  # fmt: skip

    def _tell(self, name: EventName, run: Run) -> None:
        now_ms = int(time.time() * 1000)
        waited = float(now_ms - run.record.created_at_ms)
        self._app.events.emit(
            Event(name, now_ms, run.claim.id, run.claim.queue, run.record.task, run.context.attempt, wait_ms=waited)
        )
