"""`rq.registry`: the jobs of a queue in one state, as containers. Reading one never changes anything."""

from __future__ import annotations

from typing import Any, ClassVar

from headrace.contrib.rq.connections import app_of
from headrace.contrib.rq.exceptions import InvalidJobOperation, NoSuchJobError
from headrace.contrib.rq.job import Job
from headrace.contrib.rq.queue import Queue
from headrace.core.record import State


class BaseRegistry:
    """The jobs of one queue that are in these states. Its length is their number, `in` takes a job or an id."""

    states: ClassVar[frozenset[State]] = frozenset()

    def __init__(
        self, name: str = "default", connection: Any = None, queue: Queue | None = None, serializer: Any = None
    ) -> None:
        self._queue = queue or Queue(name, connection, serializer=serializer)
        self.name = self._queue.name
        self.connection = self._queue.connection
        self.serializer = self._queue.serializer

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
        job = self._queue.fetch_job(item.id if isinstance(item, Job) else item)
        return job is not None and job.handle.state in self.states

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"headrace.contrib.rq has no {type(self).__name__}.{name}")

    @property
    def count(self) -> int:
        return self.get_job_count()

    def get_job_count(self, cleanup: bool = True) -> int:
        return len(self.get_job_ids())

    def get_job_ids(self, start: int = 0, end: int = -1, desc: bool = False, cleanup: bool = True) -> list[str]:
        """The ids from `start` to `end`, which is still among them; -1: the last."""
        ids = self._queue.ids_in(self.states)
        ids = ids[::-1] if desc else ids
        return ids[start:] if end == -1 else ids[start : end + 1]

    def get_queue(self) -> Queue:
        return self._queue

    def remove(self, job: Job | str, pipeline: Any = None, delete_job: bool = False) -> None:
        """Delete one of its jobs: a job cannot leave its registry and stay.

        Raises:
            NotImplementedError: without `delete_job`, or with a pipeline.
            NoSuchJobError: it is not here.
        """
        if pipeline is not None or not delete_job:
            raise NotImplementedError("headrace.contrib.rq has no registry.remove() but with delete_job=True")
        self._member(job).delete()

    def _member(self, job_or_id: Job | str) -> Job:
        job_id = job_or_id.id if isinstance(job_or_id, Job) else job_or_id
        job = self._queue.fetch_job(job_id)
        if job is None or job.handle.state not in self.states:
            raise NoSuchJobError(f"No such job in {self!r}: {job_id}")
        return job


class StartedJobRegistry(BaseRegistry):
    states = frozenset({State.RUNNING})


class FinishedJobRegistry(BaseRegistry):
    states = frozenset({State.SUCCEEDED})


class FailedJobRegistry(BaseRegistry):
    states = frozenset({State.FAILED})

    def requeue(self, job_or_id: Job | str, at_front: bool = False) -> Job:
        """Run one of its jobs again.

        Raises:
            InvalidJobOperation: it is not here.
        """
        try:
            return self._member(job_or_id).requeue(at_front=at_front)
        except NoSuchJobError as error:
            raise InvalidJobOperation(str(error)) from error


class DeferredJobRegistry(BaseRegistry):
    states = frozenset({State.WAITING})


class ScheduledJobRegistry(BaseRegistry):
    states = frozenset({State.SCHEDULED, State.RETRYING})

    def get_scheduled_time(self, job_or_id: Job | str) -> Any:
        """When it is due; raises NoSuchJobError when it is not here."""
        job = self._member(job_or_id)
        return job.handle.due_at


class CanceledJobRegistry(BaseRegistry):
    states = frozenset({State.CANCELLED})


def clean_registries(queue: Queue, exception_handlers: Any = None) -> None:
    """Workers tend their queues by themselves: there is nothing to clean. It looks whether the server answers."""
    app_of(queue.connection).client.check_server()
