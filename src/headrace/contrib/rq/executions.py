"""`rq.executions`: the run of a job that goes on, seen through the session of the consumer that holds it."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any

from headrace.contrib.rq.connections import resolve_connection
from headrace.contrib.rq.exceptions import NoSuchJobError
from headrace.contrib.rq.job import Job
from headrace.contrib.rq.utils import now, parse_composite_key
from headrace.worker.config import worker_name_of


class Execution:
    """One run of a job. Its id is the session that holds the job. `created_at`: when it was first seen."""

    def __init__(self, id: str, job_id: str, connection: Any, worker_name: str = "") -> None:
        self.id = id
        self.job_id = job_id
        self.connection = connection
        self.worker_name = worker_name
        self.created_at: datetime = now()
        self.last_heartbeat: datetime = self.created_at

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Execution) and (other.job_id, other.id) == (self.job_id, self.id)

    def __hash__(self) -> int:
        return hash(self.composite_key)

    @property
    def composite_key(self) -> str:
        return f"{self.job_id}:{self.id}"

    @cached_property
    def job(self) -> Job:
        return Job.fetch(self.job_id, self.connection)

    @classmethod
    def fetch(cls, id: str, job_id: str, connection: Any) -> Execution:
        """That run, if it goes on; raises ValueError."""
        execution = cls(id, job_id, connection)
        execution.refresh()
        return execution

    def refresh(self) -> None:
        """See that it goes on; raises ValueError."""
        for found in ExecutionRegistry(self.job_id, self.connection).get_executions():
            if found.id == self.id:
                self.worker_name, self.last_heartbeat = found.worker_name, now()
                return
        raise ValueError(f"Execution {self.id} of job {self.job_id} does not go on")

    @classmethod
    def from_composite_key(cls, composite_key: str, connection: Any) -> Execution:
        job_id, execution_id = parse_composite_key(composite_key)
        return cls(execution_id, job_id, connection)


class ExecutionRegistry:
    """The runs of one job that go on: one, or none."""

    def __init__(self, job_id: str, connection: Any) -> None:
        self.job_id = job_id
        self.connection = resolve_connection(connection)

    def __len__(self) -> int:
        return self.count

    @property
    def count(self) -> int:
        return len(self.get_executions())

    def get_execution_ids(self, start: int = 0, end: int = -1) -> list[str]:
        return [execution.id for execution in self.get_executions(start, end)]

    def get_executions(self, start: int = 0, end: int = -1) -> list[Execution]:
        try:
            session = Job.fetch(self.job_id, self.connection).handle.session
        except NoSuchJobError:
            session = None
        found = [Execution(session, self.job_id, self.connection, worker_name_of(session))] if session else []
        return found[start:] if end == -1 else found[start : end + 1]

    def cleanup(self, timestamp: float | None = None, exception_handlers: list[Any] | None = None) -> None:
        """Nothing: a run that has ended is not here."""
