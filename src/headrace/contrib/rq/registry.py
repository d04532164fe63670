"""`rq.registry`: the jobs of a queue in one state, as containers. Reading one never changes anything."""

from __future__ import annotations

import time
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from headrace.contrib.rq.connections import app_of
from headrace.contrib.rq.defaults import DEFAULT_FAILURE_TTL, DEFAULT_RESULT_TTL
from headrace.contrib.rq.exceptions import InvalidJobOperation, NoSuchJobError, missing, not_offered
from headrace.contrib.rq.job import Job
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.timeouts import BaseDeathPenalty, UnixSignalDeathPenalty
from headrace.contrib.rq.utils import backend_class
from headrace.core.outcome import KEEP_CANCELLED_MS
from headrace.core.record import State
from headrace.engine.admin import Row

MS = timedelta(milliseconds=1)


class BaseRegistry:
    """The jobs of one queue that are in these states. Its length is their number, `in` takes a job or an id."""

    states: ClassVar[frozenset[State]] = frozenset()
    job_class: type[Job] = Job
    death_penalty_class: type[BaseDeathPenalty] = UnixSignalDeathPenalty

    def __init__(
        self,
        name: str = "default",
        connection: Any = None,
        job_class: type[Job] | str | None = None,
        queue: Queue | None = None,
        serializer: Any = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> None:
        if queue is None:
            queue = Queue(name, connection, job_class=job_class, serializer=serializer)
        self._queue = queue
        self.name = queue.name
        self.connection = queue.connection
        self.serializer = queue.serializer
        self.job_class = backend_class(queue, "job_class", job_class)
        self.death_penalty_class = backend_class(self, "death_penalty_class", death_penalty_class)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, BaseRegistry) and other.name == self.name

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return True

    def __contains__(self, item: Job | str) -> bool:
        job = self._queue.fetch_job(_id_of(item))
        return job is not None and self._has(job)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"headrace.contrib.rq has no {type(self).__name__}.{name}")

    def _has(self, job: Job) -> bool:
        return job.handle.state in self.states

    def _rows(self) -> list[Row]:
        return self._queue.rows_in(self.states) if self.states else []

    def _member(self, job_or_id: Job | str) -> Job:
        job = self._queue.fetch_job(_id_of(job_or_id))
        if job is None or not self._has(job):
            raise NoSuchJobError(f"No such job in {self!r}: {_id_of(job_or_id)}")
        return job

    @property
    def count(self) -> int:
        return self.get_job_count()

    def get_job_count(self, cleanup: bool = True) -> int:
        return len(self._rows())

    def get_job_ids(self, start: int = 0, end: int = -1, desc: bool = False, cleanup: bool = True) -> list[str]:
        """The ids from `start` to `end`, which is still among them; -1: the last."""
        ids = [row.id for row in self._rows()]
        ids = ids[::-1] if desc else ids
        return ids[start:] if end == -1 else ids[start : end + 1]

    def get_queue(self) -> Queue:
        return self._queue

    @staticmethod
    def parse_job_id(entry: str | bytes) -> str:
        return (entry.decode() if isinstance(entry, bytes) else entry).partition(":")[0]

    def get_expiration_time(self, job: Job) -> datetime:
        """When it is no longer kept.

        Raises:
            NoSuchJobError: it is not here.
        """
        return self._expires_at(self._member(job))

    def _expires_at(self, job: Job) -> datetime:
        return (job.ended_at or job.created_at) + self._kept(job)

    def _kept(self, job: Job) -> timedelta:
        return timedelta()

    def get_expired_job_ids(self, timestamp: float | None = None) -> list[str]:
        """The ids of those that are no longer kept at an instant, in Unix seconds; now, without one."""
        at = datetime.fromtimestamp(time.time() if timestamp is None else timestamp, UTC)
        found = (self._queue.fetch_job(job_id) for job_id in self.get_job_ids())
        return [job.id for job in found if job is not None and self._expires_at(job) <= at]

    def requeue(self, job_or_id: Job | str, at_front: bool = False) -> Job:
        """Run one of its jobs again.

        Raises:
            InvalidJobOperation: it is not here, or has not failed.
        """
        try:
            return self._member(job_or_id).requeue(at_front)
        except NoSuchJobError as error:
            raise InvalidJobOperation(str(error)) from error

    def remove(self, job: Job | str, pipeline: Any = None, delete_job: bool = False) -> int:
        """Delete one of its jobs: a job that has ended cannot leave its registry and stay.

        Raises:
            NotImplementedError: without `delete_job`, or with a pipeline.
            NoSuchJobError: it is not here.
        """
        if pipeline is not None or not delete_job:
            not_offered(f"{type(self).__name__}.remove() without delete_job=True, or with a pipeline")
        self._member(job).delete()
        return 1

    def cleanup(self, timestamp: float | None = None, exception_handlers: list[Any] | None = None) -> None:
        """Nothing: workers tend their queues by themselves."""

    add = missing("registry.add", "a job is in the registry of the state that it has")


class StartedJobRegistry(BaseRegistry):
    """The jobs that run."""

    states = frozenset({State.RUNNING})

    def get_job_count(self, cleanup: bool = True) -> int:
        return self._queue.counts().running

    def get_job_and_execution_ids(
        self, start: int = 0, end: int = -1, desc: bool = False, cleanup: bool = True
    ) -> list[tuple[str, str]]:
        """(job id, execution id) of each."""
        jobs = (self._queue.fetch_job(job_id) for job_id in self.get_job_ids(start, end, desc))
        pairs = [(job.id, job.handle.session) for job in jobs if job is not None]
        return [(job_id, session) for job_id, session in pairs if session is not None]

    def get_expired_job_ids(self, timestamp: float | None = None) -> list[str]:
        """None: what a dead worker held is put back by the others, and is not here then."""
        return []

    def get_expiration_time(self, job: Job) -> datetime:
        not_offered("StartedJobRegistry.get_expiration_time", "a running job is held for as long as its worker lives")

    def remove(self, job: Job | str, pipeline: Any = None, delete_job: bool = False) -> int:
        not_offered("StartedJobRegistry.remove", "Job.cancel() stops a job that runs")

    add_execution = missing("StartedJobRegistry.add_execution", "a worker claims what it runs")
    remove_execution = missing("StartedJobRegistry.remove_execution", "Job.cancel() stops a job that runs")
    remove_executions = missing("StartedJobRegistry.remove_executions", "Job.cancel() stops a job that runs")


class FinishedJobRegistry(BaseRegistry):
    """The jobs that have succeeded, for as long as they are kept."""

    states = frozenset({State.SUCCEEDED})

    def _kept(self, job: Job) -> timedelta:
        return timedelta(seconds=job.get_result_ttl(DEFAULT_RESULT_TTL))


class FailedJobRegistry(BaseRegistry):
    """The jobs that have failed for good, for as long as they are kept."""

    states = frozenset({State.FAILED})

    def get_job_count(self, cleanup: bool = True) -> int:
        return self._queue.counts().dead

    def _kept(self, job: Job) -> timedelta:
        return timedelta(seconds=DEFAULT_FAILURE_TTL if job.failure_ttl is None else job.failure_ttl)


class DeferredJobRegistry(BaseRegistry):
    """The jobs that wait for others."""

    states = frozenset({State.WAITING})

    def _rows(self) -> list[Row]:
        return self._queue.rows_in(self.states, place="waiting")

    def _has(self, job: Job) -> bool:
        return job.handle.state is State.WAITING and job.handle.awaited > 0

    def get_job_count(self, cleanup: bool = True) -> int:
        return self._queue.counts().waiting

    def remove(self, job: Job | str, pipeline: Any = None, delete_job: bool = False) -> int:
        """The job does not run: it is cancelled, or deleted."""
        return _take_out(self._member(job), pipeline, delete_job)

    def get_expired_job_ids(self, timestamp: float | None = None) -> list[str]:
        """None: they wait for as long as it takes."""
        return []


class ReadyJobRegistry(BaseRegistry):
    """Always empty: a job starts in the same step in which those that it waits for end."""


class ScheduledJobRegistry(BaseRegistry):
    """The jobs that run later, also those that failed and are run again."""

    states = frozenset({State.SCHEDULED, State.RETRYING})

    def get_job_count(self, cleanup: bool = True) -> int:
        return self._queue.counts().delayed

    def schedule(self, job: Job, scheduled_datetime: datetime, pipeline: Any = None) -> int:
        """Store a job that `create_job` has made, to run at an instant; one without a time zone is local time."""
        self._queue.schedule_job(job, scheduled_datetime, pipeline)
        return 1

    def get_scheduled_time(self, job_or_id: Job | str) -> datetime:
        """When it is due; raises NoSuchJobError when it is not here."""
        return self._expires_at(self._member(job_or_id))

    def _expires_at(self, job: Job) -> datetime:
        return job.handle.due_at or job.created_at

    def get_jobs_to_schedule(self, timestamp: float | None = None, chunk_size: int = 1000) -> list[str]:
        """The ids of those that are due at an instant, in Unix seconds; now, without one."""
        until_ms = (time.time() if timestamp is None else timestamp) * 1000
        return [row.id for row in self._rows() if (row.due_at_ms or 0) <= until_ms][:chunk_size]

    def get_expired_job_ids(self, timestamp: float | None = None) -> list[str]:
        return self.get_jobs_to_schedule(timestamp, chunk_size=2**31)

    get_jobs_to_enqueue = get_expired_job_ids

    def remove(self, job: Job | str, pipeline: Any = None, delete_job: bool = False) -> int:
        """The job does not run: it is cancelled, or deleted."""
        return _take_out(self._member(job), pipeline, delete_job)

    def remove_jobs(self, timestamp: float | None = None, pipeline: Any = None) -> int:
        """Those that are due do not run: they are cancelled."""
        warnings.warn("ScheduledJobRegistry.remove_jobs() is deprecated", DeprecationWarning, stacklevel=2)
        due = self.get_jobs_to_schedule(timestamp)
        return sum(
            _take_out(job, pipeline, delete_job=False) for job_id in due if (job := self._queue.fetch_job(job_id))
        )


class CanceledJobRegistry(BaseRegistry):
    """The jobs that were cancelled, before or while they ran, for a day."""

    states = frozenset({State.CANCELLED})

    def _kept(self, job: Job) -> timedelta:
        return KEEP_CANCELLED_MS * MS

    def get_expired_job_ids(self, timestamp: float | None = None) -> list[str]:
        raise NotImplementedError("cancelled jobs have no time of their own: they are kept for a day")


def clean_registries(queue: Queue, exception_handlers: Any = None) -> None:
    """Workers tend their queues by themselves: there is nothing to clean. It looks whether the server answers."""
    app_of(queue.connection).client.check_server()


def _id_of(job_or_id: Job | str) -> str:
    return job_or_id.id if isinstance(job_or_id, Job) else BaseRegistry.parse_job_id(job_or_id)


def _take_out(job: Job, pipeline: Any, delete_job: bool) -> int:
    if pipeline is not None:
        not_offered("registry.remove(pipeline=)", "it is one call already")
    if delete_job:
        job.delete()
    else:
        job.handle.cancel()
    return 1
