"""`rq.job`: a job as RQ's users see it, over the handle of an ordinary headrace job; and its retry policy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

from headrace import context
from headrace.contrib.rq.connections import app_of, resolve_connection
from headrace.contrib.rq.exceptions import InvalidJobOperation, NoSuchJobError, not_offered
from headrace.contrib.rq.runner import SERIALIZER_VARIABLE, TASK, find_function
from headrace.contrib.rq.serializers import resolve_serializer, unpack
from headrace.core.record import State
from headrace.errors import JobNotFound, ResultTimeout, UsageError
from headrace.job import Job as Handle


class JobStatus(str, Enum):  # noqa: UP042, RUF100 - as in RQ, where it prints differently from a StrEnum
    """Where a job stands."""

    CREATED = "created"
    QUEUED = "queued"
    FINISHED = "finished"
    FAILED = "failed"
    STARTED = "started"
    DEFERRED = "deferred"
    SCHEDULED = "scheduled"
    STOPPED = "stopped"
    CANCELED = "canceled"
    RATE_LIMITED = "rate_limited"
    READY_TO_ENQUEUE = "ready_to_enqueue"


_STATUSES: dict[State, JobStatus | None] = {
    State.SCHEDULED: JobStatus.SCHEDULED,
    State.WAITING: JobStatus.DEFERRED,
    State.QUEUED: JobStatus.QUEUED,
    State.RUNNING: JobStatus.STARTED,
    State.RETRYING: JobStatus.SCHEDULED,
    State.SUCCEEDED: JobStatus.FINISHED,
    State.FAILED: JobStatus.FAILED,
    State.CANCELLED: JobStatus.CANCELED,
    State.EXPIRED: None,  # RQ forgets such a job
}


class Retry:
    """Run a failed job again, at most `max` times, `interval` seconds later: a number, or one for each time.

    Raises:
        ValueError: max is less than 1, or an interval is negative.
        TypeError: an interval is neither a number nor a list of numbers.
    """

    def __init__(self, max: int, interval: int | Iterable[int] = 0, enqueue_at_front: bool = False) -> None:
        if max < 1:
            raise ValueError("max: please enter a value greater than 0")
        if isinstance(interval, (str, bytes)) or not isinstance(interval, (int, Iterable)):
            raise TypeError(f"interval: expected seconds, or a list of them, got {interval!r:.40}")
        intervals = [interval] if isinstance(interval, int) else list(interval)
        if any(not isinstance(seconds, (int, float)) for seconds in intervals):
            raise TypeError(f"interval: expected seconds, or a list of them, got {interval!r:.40}")
        if any(seconds < 0 for seconds in intervals):
            raise ValueError("interval: negative numbers are not allowed")
        if enqueue_at_front:
            not_offered("Retry(enqueue_at_front=True)", "a job that is due again goes to the end of its queue")
        self.max = max
        self.intervals = intervals
        self.enqueue_at_front = enqueue_at_front

    @classmethod
    def get_interval(cls, count: int, intervals: Sequence[int] | None) -> int:
        """The seconds to wait after `count` retries; the last one again when there are no more."""
        return intervals[min(count, len(intervals) - 1)] if intervals else 0

    @property
    def delays(self) -> list[float]:
        """The wait before each retry."""
        return [self.get_interval(count, self.intervals) for count in range(self.max)]


class Callback:
    """A function, or its dotted path, to call after each run of a job. It runs within the job's own timeout.

    `on_success(job, connection, result)`, `on_failure(job, connection, type, value, traceback)`. What it raises is logged, and
    changes nothing.
    """

    def __init__(self, func: Callable[..., Any] | str, timeout: int | None = None) -> None:
        if timeout is not None:
            not_offered("Callback(timeout=)", "a callback runs within its job's own timeout")
        self.func = func

    @property
    def name(self) -> str:
        return self.func if isinstance(self.func, str) else f"{self.func.__module__}.{self.func.__qualname__}"


class Job:
    """One job. Equal, and hashed, by id. What it is made of comes from `Queue.enqueue*` or `Job.fetch`."""

    def __init__(self, id: str | None = None, connection: Any = None, serializer: Any = None) -> None:
        self.connection = resolve_connection(connection)
        self.serializer = resolve_serializer(serializer)
        self._handle: Handle[Any] | None = None
        self._id = id

    @classmethod
    def of(cls, handle: Handle[Any], connection: Any, serializer: Any) -> Job:
        """The job behind a handle."""
        job = cls(handle.id, connection, serializer)
        job._handle = handle
        return job

    @classmethod
    def fetch(cls, id: str, connection: Any = None, serializer: Any = None) -> Job:
        """The job of that id; raises NoSuchJobError."""
        job = cls(id, connection, serializer)
        job.refresh()
        return job

    @classmethod
    def fetch_many(cls, job_ids: Iterable[str], connection: Any, serializer: Any = None) -> list[Job | None]:
        """The jobs of those ids, None for one that is not there."""
        found: list[Job | None] = []
        for job_id in job_ids:
            try:
                found.append(cls.fetch(job_id, connection, serializer))
            except NoSuchJobError:
                found.append(None)
        return found

    @classmethod
    def exists(cls, job_id: str, connection: Any = None) -> bool:
        return cls.fetch_many([job_id], resolve_connection(connection)) != [None]

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self.func_name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"headrace.contrib.rq has no Job.{name}")

    @property
    def id(self) -> str:
        return self._id or ""

    @property
    def handle(self) -> Handle[Any]:
        """The headrace job: what RQ does not offer is there."""
        if self._handle is None:
            self.refresh()
        assert self._handle is not None
        return self._handle

    @property
    def origin(self) -> str:
        """The name of its queue."""
        return self.handle.queue

    @property
    def description(self) -> str | None:
        return self.handle.description or self.get_call_string()

    @property
    def created_at(self) -> datetime:
        return self.handle.created_at

    @property
    def ended_at(self) -> datetime | None:
        return self.handle.ended_at

    @property
    def func_name(self) -> str:
        """The dotted path of its function; of a method, its name."""
        return str(self.handle.args[1]) if self.handle.task == TASK else self.handle.task

    @property
    def func(self) -> Any:
        name, instance, _, _ = self._call
        return find_function(name) if instance is None else getattr(instance, name)

    @property
    def instance(self) -> Any:
        return self._call[1]

    @property
    def args(self) -> tuple[Any, ...]:
        return tuple(self._call[2])

    @property
    def kwargs(self) -> dict[str, Any]:
        return dict(self._call[3])

    @property
    def meta(self) -> dict[str, Any]:
        """What it was enqueued with; a copy."""
        data = self.handle.args[2] if self.handle.task == TASK else b""
        return dict(unpack(self.serializer, data)) if data else {}

    @property
    def _call(self) -> tuple[str, Any, Sequence[Any], dict[str, Any]]:
        if self.handle.task != TASK:
            return self.handle.task, None, self.handle.args, self.handle.kwargs
        name, instance, args, kwargs, _ = unpack(self.serializer, self.handle.args[0])
        return name, instance, args, kwargs

    def get_call_string(self) -> str:
        """The call as people read it."""
        shown = [repr(value) for value in self.args] + [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.func_name}({', '.join(shown)})"

    def refresh(self) -> None:
        """Look at the job again; raises NoSuchJobError."""
        try:
            app = app_of(self.connection)
            handle = app.job(self.id, self._handle.queue if self._handle else None)
        except (JobNotFound, UsageError) as error:
            raise NoSuchJobError(f"No such job: {self.id}") from error
        if handle.state is State.EXPIRED:
            raise NoSuchJobError(f"No such job: {self.id} had not started by its ttl")
        self._handle = handle

    def get_status(self, refresh: bool = True) -> JobStatus | None:
        """Where it stands; None when it is not there any more."""
        if refresh:
            try:
                self.refresh()
            except NoSuchJobError:
                return None
        return _STATUSES[self.handle.state]

    is_finished = property(lambda self: self.get_status() is JobStatus.FINISHED)
    is_queued = property(lambda self: self.get_status() is JobStatus.QUEUED)
    is_failed = property(lambda self: self.get_status() is JobStatus.FAILED)
    is_started = property(lambda self: self.get_status() is JobStatus.STARTED)
    is_deferred = property(lambda self: self.get_status() is JobStatus.DEFERRED)
    is_canceled = property(lambda self: self.get_status() is JobStatus.CANCELED)
    is_scheduled = property(lambda self: self.get_status() is JobStatus.SCHEDULED)

    def return_value(self, refresh: bool = False) -> Any:
        """What it returned; None while it has not finished, or when that is no longer kept. It does not wait."""
        if (refresh or not self.handle.state.is_ended) and self.get_status() is None:
            return None
        if self.handle.state is not State.SUCCEEDED:
            return None
        value = self.handle.result(0)
        return unpack(self.serializer, value) if self.handle.task == TASK else value

    @property
    def result(self) -> Any:
        """As `return_value()`: RQ 1.x's name."""
        return self.return_value()

    @property
    def exc_info(self) -> str | None:
        """The last error's traceback."""
        self.get_status()
        errors = self.handle.errors
        if errors:
            return errors[-1].traceback or f"{errors[-1].type}: {errors[-1].message}"
        return self.handle.reason if self.handle.state is State.FAILED else None

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended within so many seconds (not in RQ)."""
        try:
            self.handle.wait(timeout)
        except ResultTimeout:
            return False
        return True

    def cancel(
        self, pipeline: Any = None, enqueue_dependents: bool = False, remove_from_dependencies: bool = False
    ) -> None:
        """It does not run any more.

        Raises:
            InvalidJobOperation: it is cancelled already.
        """
        if pipeline is not None or enqueue_dependents or remove_from_dependencies:
            not_offered("Job.cancel() with a pipeline or dependents")
        if self.get_status() is JobStatus.CANCELED:
            raise InvalidJobOperation(f"Cannot cancel already canceled job: {self.id}")
        self.handle.cancel()

    def requeue(self, at_front: bool = False) -> Job:
        """Run a failed job again; raises InvalidJobOperation when it has not failed."""
        if at_front:
            not_offered("Job.requeue(at_front=True)")
        if self.get_status() is not JobStatus.FAILED:
            raise InvalidJobOperation(f"Cannot requeue job {self.id}, which has not failed")
        self.handle.retry()
        self.refresh()
        return self

    def delete(self, pipeline: Any = None, remove_from_queue: bool = True, delete_dependents: bool = False) -> None:
        """Forget the job."""
        if pipeline is not None or delete_dependents or not remove_from_queue:
            not_offered("Job.delete() with a pipeline or dependents, or without its queue")
        self.handle.delete()


def get_current_job(connection: Any = None, job_class: Any = None) -> Job | None:
    """The job that runs this code; None outside one."""
    running = context.get_current()
    if running is None:
        return None
    from headrace.contrib.rq.worker import worker_connection

    serializer = os.environ.get(SERIALIZER_VARIABLE)
    return Job.fetch(running.id, worker_connection() if connection is None else connection, serializer)


def cancel_job(job_id: str, connection: Any = None, serializer: Any = None, enqueue_dependents: bool = False) -> None:
    """As `Job.fetch(job_id).cancel()`."""
    Job.fetch(job_id, connection, serializer).cancel(enqueue_dependents=enqueue_dependents)


def requeue_job(job_id: str, connection: Any = None, serializer: Any = None) -> Job:
    """As `Job.fetch(job_id).requeue()`."""
    return Job.fetch(job_id, connection, serializer).requeue()
