"""The job that is running here: what user code may ask of it and tell about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar, Token
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from headrace.core.retry import duration_ms
from headrace.core.ties import find_limit
from headrace.errors import RetryIn, StaleRun, UsageError
from headrace.progress import Progress

if TYPE_CHECKING:  # imported with the first effect: see ADR 16
    from headrace.effects import Effect, Effects

LOG_LINE_CHARS_MAX = 8_192
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Reporter(Protocol):
    """How a worker passes on what a job says. The calls are quick and may be made from any thread."""

    def progress(self, job: JobContext, data: bytes) -> None: ...

    def log(self, job: JobContext, line: str) -> None: ...

    def save(self, job_id: str, fence: int, state: Any) -> Future[bool | None]: ...

    def is_cancelled(self, job_id: str) -> bool: ...

    def session(self, job_id: str) -> str: ...

    def hold(self, job_id: str, limit: str, hold_ms: int) -> None: ...

    def refund(self, job_id: str, limit: str, refund_ms: float) -> None: ...


class JobContext:
    """The running job. Outside of a job, `current_job()` gives one with an empty `id` that reports to nobody.

    Attributes:
        attempt: 1 for the first run.
        fence: a number that grows with every claim of the queue. Write it beside what you write to a database, and
            refuse to overwrite a higher one: then a run that was taken for dead can do no harm.
    """

    __slots__ = ("_reporter", "attempt", "fence", "id", "queue", "task")

    @property
    def deadline_ms(self) -> int:
        """The Unix instant by which it must have ended, and all that it enqueues; 0: none."""
        return 0

    def __init__(
        self, id: str, queue: str, task: str, attempt: int = 1, fence: int = 0, reporter: Reporter | None = None
    ) -> None:
        self.id = id
        self.queue = queue
        self.task = task
        self.attempt = attempt
        self.fence = fence
        self._reporter = reporter

    @property
    def headers(self) -> Mapping[str, str]:
        """What travels with the job for others than headrace: the trace that it was enqueued in, as W3C's `traceparent`."""
        return _NO_HEADERS

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked for this job to be cancelled: end soon."""
        return self._reporter is not None and self._reporter.is_cancelled(self.id)

    @property
    def session(self) -> str:
        """Who holds this job on the server, a consumer's session; "": nobody does any more, or it is no job."""
        return "" if self._reporter is None else self._reporter.session(self.id)

    def progress(self, fraction: float, text: str | None = None) -> None:
        """Say how far the job is: 0 to 1, and a few words. However often it is called, at most 5 a second are stored."""
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
            raise UsageError(f"progress: expected a number from 0 to 1, got {fraction!r:.40}")
        self.report(Progress.now(float(fraction), text))

    def report(self, progress: Progress) -> None:
        """What `progress` and `track` do."""
        if self._reporter is not None:
            self._reporter.progress(self, progress.encode())

    @property
    def saved(self) -> Any:
        """What an earlier run of this job saved last, as plain data; None: nothing yet."""
        return None

    def save(self, state: Any) -> bool:
        """Keep a checkpoint: what a later run of this job finds in `saved`, if this one does not come to its end.

        It takes the place of the one before, is kept while the job may run again (also by hand, after it failed), and
        goes when it succeeds. In async code: `await job.asave(state)`.

        Args:
            state: as a result: plain data, dataclasses, models; at most the app's `max_payload_bytes`.

        Returns:
            True when it is stored; False when the server was away: the job goes on, and the one before stays. True
            outside of a worker, where it is not stored.

        Raises:
            StaleRun: a newer run of this job has begun.
            PayloadNotSerializable, PayloadTooLarge
        """
        if _is_in_loop():
            raise UsageError("save would block the event loop: write `await current_job().asave(state)`")
        return self._is_saved(
            None if self._reporter is None else self._reporter.save(self.id, self.fence, state).result()
        )

    async def asave(self, state: Any) -> bool:
        """As `save`, for async code."""
        if self._reporter is None:
            return True
        return self._is_saved(await asyncio.wrap_future(self._reporter.save(self.id, self.fence, state)))

    def _is_saved(self, answer: bool | None) -> bool:
        if answer is False and self._reporter is not None:
            raise StaleRun(f"a newer run of job {self.id} has begun; this one was taken for dead")
        return answer is not None or self._reporter is None

    def resume_at(self, item: int) -> None:
        """In a generator task that goes on from a checkpoint, before its first `yield`: the number of the item that comes next.

        A generator that does not say so begins anew, with item 0; what is stored already is passed over.
        """
        if self.id:
            raise UsageError(f"resume_at: {self.task} is no generator")

    def log(self, text: object) -> None:
        """Add a line to the job's log: of each run the last 200 are kept, 64 KB at most, for as long as the job is."""
        if self._reporter is not None:
            self._reporter.log(self, str(text)[:LOG_LINE_CHARS_MAX])

    def hold(self, limit: str, seconds: float | timedelta) -> None:
        """Let nothing through one of this job's limits for so long: a service said Retry-After.

        `raise RetryIn(seconds, limit=...)` does so, and has the job run again then.

        Args:
            limit: its name, or as it is declared: "stripe:{account}".
        """
        found = find_limit(self._limits(), limit)
        if self._reporter is not None:
            self._reporter.hold(self.id, str(found["n"]), duration_ms("hold", seconds))

    def refund(self, limit: str) -> None:
        """Give back what this job took of a limit's rate: it made no call after all."""
        found = find_limit(self._limits(), limit)
        if self._reporter is not None and "r" in found:
            self._reporter.refund(self.id, str(found["n"]), found["p"] / found["r"] * found["k"])

    def _limits(self) -> list[dict[str, Any]]:
        """The job's limits, as `core.ties` stores them."""
        return []

    @property
    def idempotency_key(self) -> str:
        """The same on every run of this job: for the Idempotency-Key of a call to another service. "" outside of a job."""
        return f"{self.queue}/{self.id}" if self.id else ""

    def effect(self, target: Any) -> AbstractContextManager[Effect]:
        """Have this job's effect on a database once, however often it runs; committed together with the note of it.

        A transaction that is open already is yours to commit; else it begins and ends here.

            with current_job().effect(connection) as effect:
                if effect.is_done:
                    return effect.result
                connection.execute("UPDATE orders SET paid = true WHERE id = %s", (order,))
                effect.set_result({"paid": order})

        Args:
            target: a connection of psycopg 3 or sqlite3, a Session or Connection of SQLAlchemy 2, or the alias of a Django
                database ("default").

        Raises:
            StaleRun: a newer run of this job has begun.
            UsageError: the connection commits each statement by itself, or is of no supported kind.
        """
        from headrace.effects import effect

        return effect(self.idempotency_key, self.fence, target)

    def aeffect(self, target: Any) -> AbstractAsyncContextManager[Effect]:
        """As `effect`, for AsyncConnection (psycopg 3), AsyncSession and AsyncConnection (SQLAlchemy 2)."""
        from headrace.effects import aeffect

        return aeffect(self.idempotency_key, self.fence, target)

    def retry_in(self, delay: float | timedelta, message: str = "") -> NoReturn:
        """End this attempt and run the job again after `delay` (seconds or a timedelta): raises RetryIn."""
        raise RetryIn(duration_ms("retry_in", delay) / 1000, message)

    def __repr__(self) -> str:
        return f"<JobContext {self.id or 'no job'} {self.task} attempt {self.attempt}>"


class BatchContext(JobContext):
    """The calls of a batch task that run together: what `current_batch()` gives, and middleware gets.

    It has no id of its own; what belongs to one job is asked of that job. Its `attempt` is the highest of theirs, its
    `fence` the lowest.

    Attributes:
        jobs: one for each item, in the items' order; none in a plain call.
    """

    __slots__ = ("_deadline_ms", "jobs")

    def __init__(self, task: str, jobs: Sequence[JobContext]) -> None:
        queue = jobs[0].queue if jobs else ""
        attempt = max((job.attempt for job in jobs), default=1)
        super().__init__("", queue, task, attempt, min((job.fence for job in jobs), default=0))
        self.jobs = jobs
        self._deadline_ms: int | None = None

    def effects(self, target: Any) -> AbstractContextManager[Effects]:
        """Have the effects of these calls on a database once each, however often they run; in one transaction.

            with current_batch().effects(connection) as effects:
                rows = [(views[n].url, views[n].at) for n in effects.pending(views)]
                connection.executemany("INSERT INTO views VALUES (?, ?)", rows)

        Args:
            target: as `JobContext.effect` takes it.

        Raises:
            StaleRun, UsageError: as `JobContext.effect`.
        """
        from headrace.effects import effects

        return effects([(job.idempotency_key, job.fence) for job in self.jobs], target)

    def aeffects(self, target: Any) -> AbstractAsyncContextManager[Effects]:
        """As `effects`, for async connections."""
        from headrace.effects import aeffects

        return aeffects([(job.idempotency_key, job.fence) for job in self.jobs], target)

    @property
    def is_cancelled(self) -> bool:
        return False

    @property
    def idempotency_key(self) -> str:
        raise self._of_many("idempotency_key")

    def report(self, progress: Progress) -> None:
        raise self._of_many("progress")

    @property
    def saved(self) -> Any:
        raise self._of_many("saved")

    def save(self, state: Any) -> bool:
        raise self._of_many("save")

    async def asave(self, state: Any) -> bool:
        raise self._of_many("asave")

    def log(self, text: object) -> None:
        raise self._of_many("log")

    @property
    def deadline_ms(self) -> int:
        """The last of their deadlines, for what is enqueued here; 0: some of them have none."""
        if self._deadline_ms is None:  # asked with each enqueue
            deadlines = [job.deadline_ms for job in self.jobs]
            self._deadline_ms = max(deadlines) if deadlines and all(deadlines) else 0
        return self._deadline_ms

    def hold(self, limit: str, seconds: float | timedelta) -> None:
        raise self._of_many("hold")

    def refund(self, limit: str) -> None:
        raise self._of_many("refund")

    def effect(self, target: Any) -> AbstractContextManager[Effect]:
        raise self._of_many("effect")

    def aeffect(self, target: Any) -> AbstractAsyncContextManager[Effect]:
        raise self._of_many("aeffect")

    def _of_many(self, name: str) -> UsageError:
        return UsageError(
            f"{name}: {len(self.jobs)} jobs of {self.task} run here together; ask one of current_batch().jobs"
            + (f", or use current_batch().{name}s" if name.endswith("effect") else "")
        )

    def __repr__(self) -> str:
        return f"<BatchContext {len(self.jobs)} jobs of {self.task or 'no task'}>"


_current: ContextVar[JobContext | None] = ContextVar("headrace_job", default=None)
_NO_JOB = JobContext("", "", "")
_NO_BATCH = BatchContext("", ())


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def current_job() -> JobContext:
    """The job this code runs in. In a plain call it is one that reports to nobody, so tasks can be called plainly.

    Where jobs of a batch task run together it is a BatchContext: see `current_batch`.
    """
    return _current.get() or _NO_JOB


def current_batch() -> BatchContext:
    """The jobs that the code of a batch task runs for. In a plain call it has none, and its effects are not noted."""
    found = _current.get()
    return found if isinstance(found, BatchContext) else _NO_BATCH


get_current = _current.get
"""The running job, or None: the ContextVar's own method, for what is called with each enqueue."""


def enter_job(context: JobContext) -> Token[JobContext | None]:
    """Make `context` the current job of this thread or asyncio task (for workers)."""
    return _current.set(context)


set_current = _current.set
"""`enter_job` for who never leaves, but goes on to the next job (workers' loops): the ContextVar's own method."""


def leave_job(token: Token[JobContext | None]) -> None:
    _current.reset(token)
