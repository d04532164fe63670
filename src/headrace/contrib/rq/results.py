"""`rq.results`: what the runs of a job came to, read from its record. Nothing is stored for it."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from headrace.contrib.rq.exceptions import NoSuchJobError, missing
from headrace.contrib.rq.job import JobStatus
from headrace.contrib.rq.terms import MAX_RETRIES_EXCEEDED, RETRY_IN, RETURNED

if TYPE_CHECKING:
    from headrace.contrib.rq.job import Job


class Result:
    """What one run came to. `return_value` of a successful one; `exc_string` of a failed one."""

    class Type(Enum):
        """STOPPED: it was cancelled while it ran. RETRIED: it returned a Retry."""

        SUCCESSFUL = 1
        FAILED = 2
        STOPPED = 3
        RETRIED = 4
        MAX_RETRIES_EXCEEDED = 5

    def __init__(
        self,
        job_id: str,
        type: Type,
        connection: Any,
        id: str | None = None,
        created_at: datetime | None = None,
        return_value: Any = None,
        exc_string: str | None = None,
        worker_name: str = "",
        serializer: Any = None,
        execution_id: str | None = None,
        execution_started_at: datetime | None = None,
        execution_ended_at: datetime | None = None,
    ) -> None:
        self.job_id = job_id
        self.type = type
        self.connection = connection
        self.created_at = created_at or datetime.now(UTC)
        self.id = id
        self.return_value = return_value
        self.exc_string = exc_string
        self.worker_name = worker_name
        self.serializer = serializer
        self.execution_id = execution_id
        self.execution_started_at = execution_started_at
        self.execution_ended_at = execution_ended_at

    def __repr__(self) -> str:
        return f"Result(id={self.id}, type={self.type.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and (other.job_id, other.id) == (self.job_id, self.id)

    def __hash__(self) -> int:
        return hash((self.job_id, self.id))

    def __bool__(self) -> bool:
        return bool(self.id)

    @classmethod
    def all(cls, job: Job, serializer: Any = None) -> list[Result]:
        """Of the runs that ended the job, returned a Retry or were repeated, the last first. None: it has not run, or is not there."""
        try:
            job.refresh()
        except NoSuchJobError:
            return []
        found = [
            cls._of(job, cls.Type.RETRIED, datetime.fromtimestamp(error.at_ms / 1000, UTC))
            for error in job.handle.errors
            if error.type == RETRY_IN and error.message.startswith(RETURNED)
        ]
        found += [cls._of(job, cls.Type.SUCCESSFUL, at, return_value=value) for at, value in job.kept_results()]
        last = cls._last(job)
        return [*([] if last is None else [last]), *sorted(found, key=lambda one: one.created_at, reverse=True)]

    @classmethod
    def _last(cls, job: Job) -> Result | None:
        status, ended_at = job.get_status(refresh=False), job.ended_at
        if ended_at is None:
            return None
        if status is JobStatus.FINISHED:
            return cls._of(job, cls.Type.SUCCESSFUL, ended_at, return_value=job.return_value())
        if status is JobStatus.STOPPED:
            return cls._of(job, cls.Type.STOPPED, ended_at)
        if status is not JobStatus.FAILED:
            return None
        errors = job.handle.errors
        if errors and errors[-1].type == MAX_RETRIES_EXCEEDED:
            return cls._of(job, cls.Type.MAX_RETRIES_EXCEEDED, ended_at)
        told = (errors[-1].traceback or f"{errors[-1].type}: {errors[-1].message}") if errors else job.handle.reason
        return cls._of(job, cls.Type.FAILED, ended_at, exc_string=told)

    @classmethod
    def _of(cls, job: Job, kind: Type, at: datetime, **what: Any) -> Result:
        is_last = at == job.ended_at
        return cls(
            job.id, kind, job.connection, f"{int(at.timestamp() * 1000)}-0", at, serializer=job.serializer,
            execution_started_at=job.started_at if is_last else None, execution_ended_at=at, **what,
        )  # fmt: skip

    @classmethod
    def count(cls, job: Job) -> int:
        return len(cls.all(job))

    @classmethod
    def fetch_latest(cls, job: Job, serializer: Any = None, timeout: int = 0) -> Result | None:
        """The last one. With a timeout, wait for the job's end so many seconds if there is none."""
        found = cls.all(job, serializer)
        if not found and timeout and job.wait(timeout):
            found = cls.all(job, serializer)
        return found[0] if found else None

    delete_all = missing("Result.delete_all", "results are a part of the job: delete that")
