"""`rq.group`: jobs under one name, to be found again together. A group is a set of their ids; the jobs know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from headrace.contrib.rq.connections import app_of, resolve_connection
from headrace.contrib.rq.exceptions import NoSuchGroupError, not_offered
from headrace.contrib.rq.job import Job
from headrace.contrib.rq.queue import EnqueueData, Queue
from headrace.engine import admin
from headrace.engine.call import command
from headrace.engine.keys import queue_keys

KEPT_S = 400 * 86_400
"""A group that gets no job for so long is forgotten, though nobody cleans it: failed jobs are kept for a year at most."""


class Group:
    """Jobs under one name. A group is there while one of its jobs is."""

    def __init__(self, connection: Any = None, name: str | None = None) -> None:
        self.name = name or uuid4().hex
        self.connection = resolve_connection(connection)
        self._app = app_of(self.connection)
        # A job is noted with its queue, "high/1a2b", so that it is found at once.
        self.key = self.get_key(self.name)
        self._full_key = f"{self._app.prefix}:{self.key}"

    def __repr__(self) -> str:
        return f"Group(id={self.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    @classmethod
    def create(cls, connection: Any, name: str | None = None) -> Group:
        """A group; it is there when it has a job."""
        return cls(connection, name)

    @classmethod
    def fetch(cls, name: str, connection: Any) -> Group:
        """The group of that name; raises NoSuchGroupError."""
        group = cls(connection, name)
        if not group._members():
            raise NoSuchGroupError(f"No such group: {name}")
        return group

    @classmethod
    def all(cls, connection: Any) -> list[Group]:
        """Every group that has a job."""
        app = app_of(resolve_connection(connection))
        key = f"{app.prefix}:rq:groups"
        names = app.client.run(command("SMEMBERS", key, key=key, decode=_texts))
        groups = [cls(connection, name) for name in sorted(names)]
        return [group for group in groups if group._clean()]

    @classmethod
    def get_key(cls, name: str) -> str:
        return f"rq:group:{name}"

    @classmethod
    def clean_registries(cls, connection: Any) -> None:
        """Forget groups, and jobs of groups, that are no longer there. Looking at them does that, too."""
        cls.all(connection)

    def enqueue_many(self, queue: Queue, job_datas: Iterable[EnqueueData], pipeline: Any = None) -> list[Job]:
        """Store jobs in a queue, and in this group."""
        if pipeline is not None:
            not_offered("Group.enqueue_many(pipeline=)", "many jobs are stored in one call already")
        jobs = queue.enqueue_many(job_datas, group_id=self.name)
        self.note([(job.origin, job.id) for job in jobs])
        return jobs

    def note(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Jobs that are stored are of this group: (queue, id) each (not in RQ)."""
        members = [f"{queue}/{job_id}" for queue, job_id in jobs]
        if members:
            key, names = self._full_key, f"{self._app.prefix}:rq:groups"
            self._app.client.run(command("SADD", key, *members, key=key, decode=int))
            self._app.client.run(command("EXPIRE", key, KEPT_S, key=key, decode=int))
            self._app.client.run(command("SADD", names, self.name, key=names, decode=int))

    def get_jobs(self) -> list[Job]:
        """Its jobs that are still there."""
        pairs = [member.partition("/") for member in self._clean()]
        found = (Queue(queue, self.connection).fetch_job(job_id) for queue, _, job_id in pairs)
        return [job for job in found if job is not None]

    def cleanup(self) -> None:
        """Forget those of its jobs that are no longer there."""
        self._clean()

    def delete_job(self, job_id: str, pipeline: Any = None) -> None:
        """The job is no longer one of the group's; it stays what it is."""
        if pipeline is not None:
            not_offered("Group.delete_job(pipeline=)")
        self._forget([member for member in self._members() if member.partition("/")[2] == job_id])

    def _members(self) -> list[str]:
        found = self._app.client.run(command("SMEMBERS", self._full_key, key=self._full_key, decode=_texts))
        return sorted(found)

    def _forget(self, members: list[str]) -> None:
        if members:
            self._app.client.run(command("SREM", self._full_key, *members, key=self._full_key, decode=int))

    def _clean(self) -> list[str]:
        """What is left of it when those that are gone are forgotten; the group itself, when nothing is."""
        by_queue: dict[str, list[str]] = {}
        for member in self._members():
            queue, _, job_id = member.partition("/")
            by_queue.setdefault(queue, []).append(job_id)
        left: list[str] = []
        gone: list[str] = []
        for queue, ids in by_queue.items():
            for first in range(0, len(ids), 1000):
                part = ids[first : first + 1000]
                records = self._app.client.run(admin.read_records(queue_keys(queue, self._app.prefix), part))
                for job_id, record in zip(part, records, strict=True):
                    (gone if record is None else left).append(f"{queue}/{job_id}")
        self._forget(gone)
        if not left:
            names = f"{self._app.prefix}:rq:groups"
            self._app.client.run(command("SREM", names, self.name, key=names, decode=int))
        return left


def _texts(reply: Iterable[bytes]) -> list[str]:
    return [item.decode() for item in reply]
