"""The handle of one job: its result, its state, and what can be done to it; and a call not yet enqueued.

Sync and async methods share everything but the sending: what is read and decided is in the functions at the end and in
the generators of Calls of `engine.ops`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar, cast, overload

import msgspec

from headrace import wire
from headrace.chain import CallGroup, Chain, Follows, steps_of
from headrace.core.options import Plan
from headrace.core.record import LAYOUT, AttemptError, Record, State, Stored, decode
from headrace.core.ties import check_name
from headrace.engine import kept, ops
from headrace.engine.call import Call
from headrace.engine.clients import AsyncClient, SyncClient
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.errors import (
    JobCancelled,
    JobError,
    JobExpired,
    JobFailed,
    JobNotFound,
    LayoutTooNew,
    ResultNotKept,
    ResultTimeout,
    ServerBusy,
    ServerCorrupt,
    ServerUnreachable,
    UsageError,
)
from headrace.progress import Progress
from headrace.stream import JobStream, LogLine, lines_of

R_co = TypeVar("R_co", covariant=True)
Item = TypeVar("Item")
S = TypeVar("S")

# One blocking command waits this long at most; then the job is looked at again: a server that lost its newest data has
# forgotten who waits. Shorter would be polling, since each costs two round trips and a connection.
RING_WAIT_S = 5.0

Waiting = Generator[tuple[Call[Any], float], Any, "bytes | None"]
"""What to send, and whether it blocks (for how many seconds), until a job's record is an ended one."""


class Runner(Protocol):
    """What jobs, queues and tasks need of the app that made them."""

    @property
    def prefix(self) -> str: ...

    @property
    def client(self) -> SyncClient: ...

    @property
    def aclient(self) -> AsyncClient: ...

    def result_type(self, task: str) -> Any: ...

    def job(self, job_id: str, queue: str | None = None) -> Job[Any]: ...

    async def ajob(self, job_id: str, queue: str | None = None) -> Job[Any]: ...


class JobCall(msgspec.Struct, Generic[R_co], frozen=True):
    """A checked call of a task, not yet enqueued: what `enqueue_many` and flows take. May be enqueued many times.

    `template`: its arguments, when results of other jobs are among them; `payload` is empty then. `headers`: what its job carries for others than
    headrace; None: what the process's outlet for traces says when it is enqueued.
    """

    task: str
    payload: bytes
    plan: Plan
    result_type: Any
    ties: bytes = b""
    app: Any = None
    template: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    headers: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"<JobCall {self.task} on {self.plan.queue}>"

    @property
    def gives(self) -> type[R_co]:
        """The type of its result, as annotated."""
        return cast("type[R_co]", self.result_type)

    @overload
    def __rshift__(self, other: Follows[R_co, S]) -> Chain[S]: ...
    @overload
    def __rshift__(self, other: JobCall[S]) -> Chain[S]: ...
    @overload
    def __rshift__(self, other: CallGroup[S]) -> Chain[S]: ...
    @overload
    def __rshift__(self, other: Chain[S]) -> Chain[S]: ...
    def __rshift__(self, other: Any) -> Chain[Any]:
        """A chain: what is on the right runs after this, and may take its result."""
        return Chain([self, *steps_of(other)])

    def sources(self) -> list[Any]:
        """The steps whose results are among its arguments; None for `previous`."""
        if self.template is None:
            return []
        args, kwargs = self.template
        return [value.source for value in (*args, *kwargs.values()) if isinstance(value, wire.Input)]

    def moved(self, copies: Mapping[Any, Any]) -> JobCall[R_co]:
        """The same call, with the results of other steps in place of those it took."""
        return self._with(lambda value: wire.Input(copies.get(value.source)))

    def _with(self, put: Callable[[wire.Input], wire.Input]) -> JobCall[R_co]:
        if self.template is None:
            return self

        def each(value: Any) -> Any:
            return put(value) if isinstance(value, wire.Input) else value

        args, kwargs = self.template
        template = (tuple(each(value) for value in args), {name: each(value) for name, value in kwargs.items()})
        return msgspec.structs.replace(self, template=template)

    def packed(self, number_of: Callable[[Any], tuple[int, int]]) -> bytes:
        """Its arguments, with the numbers of inputs in place of results: (first, count; 0 for a single one) of each source."""
        if self.template is None:
            return self.payload
        call = self._with(lambda value: wire.Input(value.source, *number_of(value.source)))
        args, kwargs = call.template or ((), {})
        return wire.encode_call(args, kwargs)


class Job(Generic[R_co]):
    """One enqueued job.

    The properties tell what was known when the job was last looked at: at enqueue, `refresh()`, `wait()` or `result()`.
    `is_new` is False when an enqueue gave the job that has the same unique key already.
    (Larger than most classes here, since each method that asks the server has its async twin.)
    """

    __slots__ = ("_look", "_record", "_runner", "_state", "_type", "id", "is_new", "queue")

    def __init__(self, job_id: str, queue: str, runner: Runner, record: Record, state: State, result_type: Any) -> None:
        self.id = job_id
        self.queue = queue
        self._runner = runner
        self._record = record
        self._state = state
        self._type = result_type
        self._look: ops.Look | None = None
        self.is_new = True

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.task} {self._state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and (other.id, other.queue) == (self.id, self.queue)

    def __hash__(self) -> int:
        return hash((self.id, self.queue))

    @staticmethod
    def fetch(job_id: str, *, app: Runner, queue: str | None = None) -> Job[Any]:
        """The job of that id, looked for in all queues unless one is given; raises JobNotFound."""
        return app.job(job_id, queue)

    @staticmethod
    async def afetch(job_id: str, *, app: Runner, queue: str | None = None) -> Job[Any]:
        return await app.ajob(job_id, queue)

    # What was known when it was last looked at

    @property
    def task(self) -> str:
        return self._record.task

    @property
    def state(self) -> State:
        return self._state

    @property
    def headers(self) -> Mapping[str, str]:
        """What travels with it for others than headrace: the trace that it was enqueued in."""
        return self._record.options.headers if self._record.options is not None else {}

    @property
    def args(self) -> list[Any]:
        """The positional arguments, as plain data."""
        return wire.decode_call(self._record.payload, None)[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        return wire.decode_call(self._record.payload, None)[1]

    @property
    def attempt(self) -> int:
        """The number of the run that goes on or was the last; 0 before the first."""
        return self._record.attempt + (self._state is State.RUNNING)

    @property
    def errors(self) -> list[AttemptError]:
        """What failed attempts ended with, oldest first (the last 20)."""
        return list(self._record.errors or ())

    @property
    def reason(self) -> str | None:
        """Why the job failed, was cancelled or expired; or why it has to wait, or its result was not kept."""
        return self._record.reason or self._record.note

    @property
    def priority(self) -> int:
        return self._record.priority

    @property
    def description(self) -> str | None:
        return self._record.options.description if self._record.options else None

    @property
    def tags(self) -> list[str]:
        return list(self._record.options.tags) if self._record.options else []

    @property
    def progress(self) -> Progress | None:
        """What the running job said last; None: nothing, or it does not run any more."""
        return None if self._look is None else Progress.decode(self._look.progress)

    @property
    def session(self) -> str | None:
        """The session of the consumer that ran it when it was last looked at; None: it did not run."""
        return None if self._look is None else self._look.session

    @property
    def awaited(self) -> int:
        """How many other jobs it waited for when it was last looked at: what a group still has to do, for what follows it."""
        return 0 if self._look is None else self._look.missing

    @property
    def created_at(self) -> datetime:
        return datetime.fromtimestamp(self._record.created_at_ms / 1000, UTC)

    @property
    def started_at(self) -> datetime | None:
        """When its last run began that has ended."""
        return _optional_instant(self._record.started_at_ms)

    @property
    def ended_at(self) -> datetime | None:
        return _optional_instant(self._record.ended_at_ms)

    @property
    def deadline(self) -> datetime | None:
        """The instant by which it must have ended."""
        return _optional_instant(self._record.options.deadline_ms if self._record.options else 0)

    @property
    def due_at(self) -> datetime | None:
        """When a scheduled or retrying job is due."""
        return _optional_instant((self._look.due_ms or 0) if self._look else 0)

    # The result

    def result(self, timeout: float | None = None) -> R_co:
        """Wait for the job's end, at most `timeout` seconds, and give what it returned.

        Raises:
            JobFailed, JobCancelled, JobExpired: it ended so.
            ResultNotKept: it succeeded, but its result is not stored.
            ResultTimeout: it has not ended yet.
            JobNotFound: it was deleted, or is no longer kept.
        """
        self.wait(timeout)
        return self._outcome()

    async def aresult(self, timeout: float | None = None) -> R_co:
        """As `result`."""
        await self.await_(timeout)
        return self._outcome()

    def wait(self, timeout: float | None = None) -> State:
        """Wait for the job's end, at most `timeout` seconds; raises ResultTimeout or JobNotFound."""
        if not self._state.is_ended:
            self._ended(wait_through(self._runner.client, until_ended(self._keys, self.id, timeout)), timeout)
        return self._state

    async def await_(self, timeout: float | None = None) -> State:
        """As `wait` (`await` is a keyword)."""
        if not self._state.is_ended:
            steps = until_ended(self._keys, self.id, timeout)
            self._ended(await await_through(self._runner.aclient, steps), timeout)
        return self._state

    def _outcome(self) -> R_co:
        record = self._record
        if record.state == Stored.SUCCEEDED and record.result is not None:
            value: R_co = wire.decode_result(record.result, self._type)
            return value
        raise ending_error(self.id, record)

    # What it gives before its end

    @overload
    def stream(self: Job[Iterable[Item]], *, start: int = 0, timeout: float | None = None) -> JobStream[Item]: ...
    @overload
    def stream(self: Job[AsyncIterable[Item]], *, start: int = 0, timeout: float | None = None) -> JobStream[Item]: ...
    def stream(self, *, start: int = 0, timeout: float | None = None) -> JobStream[Any]:
        """What a generator task yields: `for item in job.stream()`, or `async for`; from item `start` on, live, to the job's end.

        Args:
            timeout: seconds to wait for the next item at most; None: as long as it takes.

        Raises (while it is read):
            JobFailed, JobCancelled, JobExpired, JobNotFound: as `result`, behind the last item.
            ItemsNotKept: it has yielded more than it keeps (`stream_max`), and was not read as fast.
            ResultTimeout
        """
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            raise UsageError(f"start: expected the number of an item, 0 or more, got {start!r:.40}")
        check_timeout(timeout)
        kind, runner = wire.item_type(self._type), self._runner
        clients = (lambda: runner.client), (lambda: runner.aclient)
        return JobStream(clients, self._keys, self.id, kind, start, timeout, self._judge)

    def _judge(self, data: bytes) -> None:
        self._learn(read_record(data))
        if self._record.state != Stored.SUCCEEDED:
            raise ending_error(self.id, self._record)

    def logs(self, attempt: int | None = None) -> list[LogLine]:
        """What the job said (`current_job().log`), oldest first: the last 200 lines of each of its last 10 runs; or of one attempt."""
        return lines_of(self._runner.client.run(kept.all_lines(self._keys, self.id)), attempt)

    async def alogs(self, attempt: int | None = None) -> list[LogLine]:
        """As `logs`."""
        return lines_of(await self._runner.aclient.run(kept.all_lines(self._keys, self.id)), attempt)

    def notes(self) -> dict[str, Any]:
        """What `note` has kept with the job, by name."""
        found = self._runner.client.run(kept.notes(self._keys, self.id))
        return read_notes(found)

    async def anotes(self) -> dict[str, Any]:
        """As `notes`."""
        found = await self._runner.aclient.run(kept.notes(self._keys, self.id))
        return read_notes(found)

    def note(self, name: str, value: Any) -> None:
        """Keep a note with the job, for as long as that is kept, whatever state it is in; it takes the place of one of that name.

        Args:
            value: plain data, dataclasses, models; None takes the note away.

        Raises:
            JobNotFound, PayloadNotSerializable, PayloadTooLarge
        """
        self._noted(self._runner.client.run(self._note(name, value, self._runner.client.config.max_payload_bytes)))

    async def anote(self, name: str, value: Any) -> None:
        """As `note`."""
        max_bytes = self._runner.aclient.config.max_payload_bytes
        self._noted(await self._runner.aclient.run(self._note(name, value, max_bytes)))

    def _note(self, name: str, value: Any, max_bytes: int) -> Call[bool]:
        data = b"" if value is None else wire.encode_part(f"the note {check_name('note', name)!r}", value, max_bytes)
        return kept.note(self._keys, self.id, {name: data})

    def _noted(self, is_there: bool) -> None:
        if not is_there:
            raise self._not_found()

    # Acting on it

    def refresh(self) -> Job[R_co]:
        """Look again; raises JobNotFound."""
        self._see(self._runner.client.run(ops.look(self._keys, self.id)))
        return self

    async def arefresh(self) -> Job[R_co]:
        self._see(await self._runner.aclient.run(ops.look(self._keys, self.id)))
        return self

    def cancel(self) -> bool:
        """End the job if it waits, or ask it to stop if it runs; False when it had ended already."""
        return self._cancelled(self._runner.client.run(ops.cancel(self._keys, self.id)))

    async def acancel(self) -> bool:
        return self._cancelled(await self._runner.aclient.run(ops.cancel(self._keys, self.id)))

    def retry(self, *, at_front: bool = False) -> bool:
        """Put an ended job back in its queue, its attempts counted from zero; False when it has not ended.

        Args:
            at_front: before those that have no priority: its own is 1 from now on.
        """
        return self._retried(self._runner.client.run(ops.retry(self._keys, self.id, at_front=at_front)))

    async def aretry(self, *, at_front: bool = False) -> bool:
        """As `retry`."""
        return self._retried(await self._runner.aclient.run(ops.retry(self._keys, self.id, at_front=at_front)))

    def delete(self) -> None:
        """Remove the job, wherever it is; raises JobError while it runs: cancel it first."""
        self._deleted(self._runner.client.run(ops.delete(self._keys, self.id)))

    async def adelete(self) -> None:
        self._deleted(await self._runner.aclient.run(ops.delete(self._keys, self.id)))

    @property
    def _keys(self) -> QueueKeys:
        return queue_keys(self.queue, self._runner.prefix)

    def _learn(self, record: Record) -> None:
        self._record = record
        if record.state != Stored.LIVE:
            self._state = State(Stored(record.state).name.lower())

    def _see(self, look: ops.Look | None) -> None:
        if look is None:
            raise self._not_found()
        self._look, self._record, self._state = look, read_record(look.record), look.state

    def _not_found(self) -> JobNotFound:
        return JobNotFound(f"no job {self.id} in queue {self.queue!r}: it was deleted, or is no longer kept")

    def _ended(self, data: bytes | None, timeout: float | None) -> None:
        """What `until_ended` gave."""
        if data is None:
            raise ResultTimeout(f"job {self.id} ({self.task}) has not ended in {timeout:g} s; it goes on")
        if not data:
            raise JobNotFound(f"job {self.id} was deleted")
        self._learn(read_record(data))

    def _cancelled(self, answer: str) -> bool:
        return answer != "ended"

    def _retried(self, answer: str) -> bool:
        if answer == "queued":
            self._state = State.QUEUED
        return answer == "queued"

    def _deleted(self, answer: str) -> None:
        if answer == "running":
            raise JobError(f"job {self.id} runs: cancel it first")


def check_timeout(timeout: object) -> None:
    """Raises UsageError for what is no time to wait."""
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0):
        raise UsageError(f"timeout: expected seconds, 0 or more, or None, got {timeout!r:.40}")


def until_ended(keys: QueueKeys, job_id: str, timeout: float | None) -> Waiting:
    """Wait for a job's end, at most `timeout` seconds: its ended record, b"" when it was deleted, None when time is up.

    Raises:
        JobNotFound: it is no longer there.
    """
    check_timeout(timeout)
    ends = None if timeout is None else time.monotonic() + timeout
    waiter = secrets.token_hex(8)  # a new one each time: a ring that came too late must reach nobody
    while True:
        data: bytes | None = yield ops.watch(keys, job_id, waiter), 0.0
        left = RING_WAIT_S if ends is None else min(RING_WAIT_S, ends - time.monotonic())
        if data is None and left > 0:
            try:
                data = yield ops.wait_ring(keys, waiter, max(left, 0.001)), left
            except (ServerUnreachable, ServerBusy):
                continue  # watch tries again for as long as a producer's call may
        if data is not None:
            return data
        if ends is not None and time.monotonic() >= ends:
            last: bytes | None = yield ops.unwatch(keys, job_id, waiter), 0.0
            return last


def wait_through(client: SyncClient, steps: Waiting) -> bytes | None:
    """Send what `until_ended` asks for, to its result."""
    try:
        call, block_s = next(steps)
        while True:
            try:
                reply = client.block(call, block_s) if block_s else client.run(call)
            except (ServerUnreachable, ServerBusy) as error:
                call, block_s = steps.throw(error)
            else:
                call, block_s = steps.send(reply)
    except StopIteration as stop:
        return cast("bytes | None", stop.value)


async def await_through(client: AsyncClient, steps: Waiting) -> bytes | None:
    """As `wait_through`."""
    try:
        call, block_s = next(steps)
        while True:
            try:
                reply = await (client.block(call, block_s) if block_s else client.run(call))
            except (ServerUnreachable, ServerBusy) as error:
                call, block_s = steps.throw(error)
            else:
                call, block_s = steps.send(reply)
    except StopIteration as stop:
        return cast("bytes | None", stop.value)


def read_record(data: bytes) -> Record:
    """A stored record, with our own errors."""
    try:
        return decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        if len(data) > 1 and LAYOUT < data[1] < 128:
            raise LayoutTooNew(
                f"the job has layout {data[1]}; this headrace reads up to {LAYOUT}: upgrade it"
            ) from None
        raise ServerCorrupt(f"a job's record cannot be read: {error}") from error


def read_notes(found: Mapping[str, bytes]) -> dict[str, Any]:
    """Notes of a job, as plain data."""
    return {name: wire.decode_plain(data) for name, data in found.items()}


def job_of(job_id: str, queue: str, runner: Runner, look: ops.Look) -> Job[Any]:
    """The handle of a job as it was seen."""
    record = read_record(look.record)
    job: Job[Any] = Job(job_id, queue, runner, record, look.state, runner.result_type(record.task))
    job._look = look
    return job


def take_existing(job: Job[R_co], same: Mapping[str, str]) -> Job[R_co]:
    """The handle of the job that an enqueue found in place of `job`; `job` itself when it found none."""
    if job.id in same:
        job.id, job.is_new = same[job.id], False
    return job


def ending_error(job_id: str, record: Record) -> JobError:
    """The error that tells how a job ended that gave no result."""
    which = f"job {job_id} ({record.task})"
    if record.state == Stored.SUCCEEDED:
        return ResultNotKept(f"{which} succeeded, but its result is not kept: {record.note or 'result_ttl is 0'}")
    if record.state == Stored.CANCELLED:
        return JobCancelled(f"{which} was cancelled")
    if record.state == Stored.EXPIRED:
        return JobExpired(f"{which} expired before it could start")
    last = record.errors[-1] if record.errors else None
    told = record.reason or (f"{last.type}: {last.message}" if last else "no reason was kept")
    times = "1 attempt" if record.attempt == 1 else f"{record.attempt} attempts"
    error = JobFailed(f"{which} failed after {times}: {told}", last)
    if last is not None and last.traceback:
        error.add_note(f"In the worker:\n{last.traceback}")
    return error


def _optional_instant(at_ms: int) -> datetime | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None
