"""One job, from what was claimed to what is written: read, find the task, call, decide. No I/O but the user's own.

`begin` gives a `Run` (or the settlement of a job that cannot run here); a pool calls it, and `settle` says what
becomes of it. A common success takes a short way: the record it came with is ended in place.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from headrace import telemetry
from headrace.app import Headrace
from headrace.context import set_current
from headrace.core.names import type_name, type_names
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
from headrace.core.record import LAYOUT, AttemptError, Record, Stored, decode_head, decode_record, encode
from headrace.engine.ops import Claim, Kind, Settlement
from headrace.errors import ArgumentsMismatch, JobCancelled, JobTimeout, RetryIn, UsageError
from headrace.events import Event, EventName
from headrace.middleware import Middleware, arun_inside, run_inside
from headrace.task import Task
from headrace.wire import decode_call, encode_result, put_inputs
from headrace.worker.joblog import JobLog
from headrace.worker.reports import Reports
from headrace.worker.runs import AnyRun, BatchRun, Member, Parts, Run
from headrace.worker.streaming import StreamRun

logger = logging.getLogger("headrace.worker")

SAY_UNKNOWN_EVERY_S = 60.0
NONE_RESULT = b"\xc0"
NONE_AS_BIN = msgspec.msgpack.encode(NONE_RESULT)
decode_any = msgspec.msgpack.Decoder().decode
encode_value = msgspec.msgpack.Encoder().encode
_EVENTS = {
    Kind.SUCCEEDED: EventName.JOB_SUCCEEDED,
    Kind.DROPPED: EventName.JOB_SUCCEEDED,
    Kind.RETRY: EventName.JOB_RETRYING,
    Kind.FAILED: EventName.JOB_FAILED,
    Kind.CANCELLED: EventName.JOB_CANCELLED,
    Kind.PARK: EventName.JOB_PARKED,
    Kind.RELEASE: EventName.JOB_RELEASED,
}


def with_results(claim: Claim, record: Record) -> tuple[msgspec.Raw, str]:
    """The payload with the results of other jobs in it; and why, when that cannot be. The record stays as it is.

    Of a job that gave no result, since it failed and this one runs all the same, None stands there.
    """
    found = claim.inputs or {}
    problem = ""

    def result(number: int) -> bytes:
        nonlocal problem
        sent = found.get(number)
        if sent is None:
            problem = problem or f"the result of another job, its input {number}, is no longer kept"
            return NONE_RESULT
        sender = decode_record(sent)
        if sender.state != Stored.SUCCEEDED:
            return NONE_RESULT
        if sender.result is None:
            problem = problem or f"the result of {sender.task} is not there: {sender.note or 'it was not kept'}"
            return NONE_RESULT
        return sender.result

    try:
        return msgspec.Raw(put_inputs(record.payload, result)), problem
    except (ArgumentsMismatch, msgspec.MsgspecError, ValueError) as error:
        return record.payload, f"the results of other jobs cannot be read: {error}"


class Executor:
    """Knows the app: finds tasks, calls them inside its middleware, and tells its events.

    `call_plain` and `call_async` call a job's function as the pool does, and open and close the window in which it may
    be interrupted; for `acall` both give an awaitable.
    """

    def __init__(
        self,
        app: Headrace,
        reporter: Reports,
        joblog: JobLog,
        call_plain: Callable[[AnyRun], Any],
        call_async: Callable[[AnyRun], Any],
        worker_id: str = "",
    ) -> None:
        self._app = app
        self._worker_id = worker_id
        self._call_plain = call_plain
        self._call_async = call_async
        self._reporter = reporter
        self._joblog = joblog
        self._tasks: dict[str, tuple[Task[..., Any], int, int]] = {}
        self._said: dict[str, float] = {}
        self._max_bytes = app.server_config.max_payload_bytes
        self._layers: list[Middleware] = []
        self._is_heard = False
        self.has_batches = any(task.batch is not None for task in app.tasks.values())
        self._tells_success = False
        self.find_listeners()

    def find_listeners(self) -> None:
        """Who is to be told of jobs: the outlet for traces, middleware, handlers of events. Again after hooks, which may have added some."""
        app, outlet = self._app, telemetry.outlet
        self._layers = [*([] if outlet is None else [outlet.around]), *app.middlewares]
        self._is_heard = bool(self._layers) or app.events.has(EventName.JOB_STARTED)
        self._tells_success = self._joblog.is_on or app.events.has(EventName.JOB_SUCCEEDED)

    # Read

    def begin(self, claim: Claim) -> Run | Settlement:
        """What is to be called; or what becomes of a job that cannot be called here. Never raises."""
        try:
            record = decode_record(claim.record)
        except (msgspec.MsgspecError, ValueError) as error:
            return self._unreadable(claim, error)
        known = self._tasks.get(record.task) or self._find(record.task)
        if known is None:
            return self._park(claim, record, record.task)
        task, least, most = known
        if record.reason is not None:
            return self._stopped(claim, record, task)
        payload = record.payload
        if record.options is not None and record.options.inputs:
            payload, problem = with_results(claim, record)
            if problem:
                return self._settlement(claim, record, BadPayload(problem), None, 0, 0)
        try:
            # Positional arguments that need no conversion: most calls, and no call of ours.
            body: Any = decode_any(payload) if most >= 0 else ()
            if len(body) == 1 and least <= len(body[0]) <= most:
                return Run(claim, record, task, body[0], {}, self._reporter)
            args, kwargs = decode_call(payload, task)
        except ArgumentsMismatch as error:
            # Code of another version enqueued it: it waits for a worker that it fits, as an unknown task does.
            return self._park(claim, record, f"{record.task} with these arguments ({error})")
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            return self._unreadable(claim, error)
        if task.is_generator:
            items = self._reporter.items(claim.id, claim.fence, task.stream_max)
            return StreamRun(claim, record, task, args, kwargs, self._reporter, items)
        kind = Run if task.batch is None else Member
        return kind(claim, record, task, args, kwargs, self._reporter)

    def batch_task_of(self, claim: Claim) -> Task[..., Any] | None:
        """The batch task that a job is a call of; None: it is none of a batch task, or cannot be read."""
        try:
            name = decode_head(claim.record).task
        except (msgspec.MsgspecError, ValueError):
            return None
        known = self._tasks.get(name) or self._find(name)
        return known[0] if known is not None and known[0].batch is not None else None

    def _find(self, name: str) -> tuple[Task[..., Any], int, int] | None:
        """The task, and how many positional arguments it takes (-1 at most: there is more to do)."""
        try:
            task = self._app.find_task(name)
        except Exception:
            logger.exception("looking for the task %s failed", name)
            return None
        if task is None:
            return None
        signature = task.signature
        takes_plain = not signature.converts and task.batch is None and not task.is_generator
        most = int(min(signature.max_args, 1 << 30)) if takes_plain else -1
        self.has_batches = self.has_batches or task.batch is not None
        self._tasks[name] = known = (task, signature.min_args, most)
        return known

    def _stopped(self, claim: Claim, record: Record, task: Task[..., Any]) -> Settlement:
        """The attempt before was stopped by force, with its process: settle it as a timeout."""
        told = AttemptError(record.attempt + 1, type_name(JobTimeout), record.reason or "", "", int(time.time() * 1000))
        record.reason = None
        return self.settle(Run(claim, record, task, [], {}, self._reporter), TimedOut(told))

    def _park(self, claim: Claim, record: Record, what: str) -> Settlement:
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

    def call(self, run: Run) -> Settlement:
        """Run the job to its end. Never raises."""
        set_current(run)
        try:
            if self._is_heard:
                value = self._call_heard(run)
            elif run.is_async:
                value = self._call_async(run)
            else:
                value = self._call_plain(run)
        except BaseException as error:
            if run.lines is not None:
                run.lines.flush().result()
            return self.settle(run, self._raised(run, error))
        if run.lines is not None:
            run.lines.flush().result()
        return self.succeed(run, value)

    def call_batch(self, batch: BatchRun) -> list[Settlement]:
        """Run calls of a batch task to their end, together. Never raises."""
        self._begin_batch(batch)
        parts = Parts(batch)
        while (part := parts.next()) is not None:
            set_current(part)
            try:
                answer = self._call_inside(part)
            except BaseException as error:
                parts.raised(part, error)
            else:
                parts.answered(part, answer)
        for said in _said(batch):
            said.result()
        return self._end_batch(parts)

    async def acall_batch(self, batch: BatchRun) -> list[Settlement]:
        """The twin of `call_batch` for an event loop."""
        self._begin_batch(batch)
        parts = Parts(batch)
        while (part := parts.next()) is not None:
            set_current(part)
            try:
                answer = await self._acall_inside(part)
            except BaseException as error:
                parts.raised(part, error)
            else:
                parts.answered(part, answer)
        for said in _said(batch):
            await asyncio.wrap_future(said)
        return self._end_batch(parts)

    def _begin_batch(self, batch: BatchRun) -> None:
        now_ns = time.monotonic_ns()
        for member in batch.members:
            member.started_ns = now_ns
            if self._is_heard:
                self._tell_started(member)

    def _end_batch(self, parts: Parts) -> list[Settlement]:
        settled = [self.succeed(run, value) for run, value in parts.results]
        held: set[tuple[str, str]] = set()
        return settled + [self.settle(run, self._raised(run, error, held)) for run, error in parts.errors]

    def _call_heard(self, run: Run) -> Any:
        self._tell_started(run)
        return self._call_inside(run)

    def _call_inside(self, run: AnyRun) -> Any:
        call = self._call_async if run.is_async else self._call_plain
        return run_inside(self._layers, run, lambda: call(run))

    async def acall(self, run: Run) -> Settlement:
        """The twin of `call` for an event loop."""
        set_current(run)
        call = self._call_async if run.is_async else self._call_plain
        try:
            if self._is_heard:
                self._tell_started(run)
                value = await arun_inside(self._layers, run, lambda: call(run))
            else:
                value = await call(run)
        except BaseException as error:
            if run.lines is not None:
                await asyncio.wrap_future(run.lines.flush())
            return self.settle(run, self._raised(run, error))
        if run.lines is not None:
            await asyncio.wrap_future(run.lines.flush())
        return self.succeed(run, value)

    async def _acall_inside(self, run: AnyRun) -> Any:
        call = self._call_async if run.is_async else self._call_plain
        return await arun_inside(self._layers, run, lambda: call(run))

    def _raised(self, run: Run, error: BaseException, held: set[tuple[str, str]] | None = None) -> End:
        """`held`: the limits, with their queues, that RetryIn of others of the batch has held already."""
        told = describe_exception(error, run.record.attempt + 1, int(time.time() * 1000), self._worker_id)
        if isinstance(error, JobTimeout):
            return TimedOut(told)
        if isinstance(error, JobCancelled):
            return Cancelled()
        retry_in_ms = max(0, int(error.delay_s * 1000)) if isinstance(error, RetryIn) else None
        if isinstance(error, RetryIn) and error.limit:
            try:
                run.hold_once(error, set() if held is None else held)
            except UsageError as wrong:
                logger.warning("job %s: %s", run.id, wrong)
        counts = not isinstance(error, RetryIn) or error.counts
        at_front = isinstance(error, RetryIn) and error.at_front
        return Raised(type_names(type(error)), told, retry_in_ms, counts, at_front)

    # Decide

    def succeed(self, run: Run, value: Any) -> Settlement:
        """The short way of `settle` for a success: the same record as `decide` would give."""
        claim = run.claim
        if self._tells_success:
            self._report(run, Kind.SUCCEEDED)
        if value is None and run.ttl_ms <= 0 and run.record.note is None:
            return Settlement(claim.queue, claim.id, Kind.DROPPED, NONE_AS_BIN, 0, 0, claim.is_suspect)
        result, why_not = (NONE_RESULT, None) if value is None else encode_result(value, self._max_bytes)
        if run.ttl_ms <= 0 and result is not None and run.record.note is None:
            # Nothing is kept: only who waits for it needs the result, and the script puts it into the record.
            return Settlement(claim.queue, claim.id, Kind.DROPPED, encode_value(result), 0, 0, claim.is_suspect)
        record = run.record
        now_ns = time.time_ns()
        record.state = 6
        record.attempt += 1
        record.ended_at_ms = now_ns // 1_000_000
        record.started_at_ms = (now_ns - time.monotonic_ns() + run.started_ns) // 1_000_000
        record.result = result
        record.note = why_not
        kind = Kind.SUCCEEDED if run.ttl_ms > 0 else Kind.DROPPED
        return Settlement(claim.queue, claim.id, kind, encode(record), 0, run.ttl_ms, claim.is_suspect)

    def settle(self, run: Run, end: End) -> Settlement:
        """What becomes of a job that ended so."""
        options = run.record.options
        if run.started_ns:
            run.record.started_at_ms = (time.time_ns() - time.monotonic_ns() + run.started_ns) // 1_000_000
        retry = run.task_value.retry if options is None or options.retry is None else options.retry
        settlement = self._settlement(run.claim, run.record, end, retry, run.ttl_ms, run.started_ns)
        error = end.error if isinstance(end, Raised | TimedOut) else None
        self._report(run, settlement.kind, error, settlement.delay_ms)
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

    def _report(self, run: Run, kind: Kind, error: AttemptError | None = None, delay_ms: int = 0) -> None:
        duration_ms = (time.monotonic_ns() - run.started_ns) / 1e6 if run.started_ns else 0.0
        self._joblog.job_ended(run.record.task, run.claim.id, kind, duration_ms, error, delay_ms)
        name = _EVENTS[kind]
        if self._app.events.has(name):
            self._app.events.emit(
                Event(
                    name, int(time.time() * 1000), run.claim.id, run.claim.queue, run.record.task,
                    run.attempt, duration_ms, error=error,
                )
            )  # fmt: skip

    def _tell_started(self, run: Run) -> None:
        if self._app.events.has(EventName.JOB_STARTED):
            now_ms = int(time.time() * 1000)
            waited = float(now_ms - run.record.created_at_ms)
            self._app.events.emit(
                Event(EventName.JOB_STARTED, now_ms, run.id, run.queue, run.task, run.attempt, wait_ms=waited)
            )


def _said(batch: BatchRun) -> list[Future[None]]:
    """To be waited for: what the jobs of a batch have said."""
    return [member.lines.flush() for member in batch.members if member.lines is not None]
