"""Every key name, in one place. All keys of a queue share the hash tag `{queue}`, so a queue lives in one slot."""

from __future__ import annotations

import re
from functools import lru_cache

from headrace.errors import UsageError

PREFIX = "hr"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

QUEUE_KEYS = (
    "jobs", "ready", "priority", "delayed", "sessions", "suspects", "crashes", "done", "dead", "meta",
    "producers", "unique", "wake", "stats", "watched", "cancels", "progress", "lingering", "ties", "outbox",
    "schedules", "schedule_specs", "schedule_leases", "minutes", "hours", "days",
)  # fmt: skip


class QueueKeys:
    """The keys of one queue: one attribute a key, as bytes."""

    __slots__ = ("_blocks", "base", "name", "prefix", *QUEUE_KEYS)

    jobs: bytes
    ready: bytes
    priority: bytes
    delayed: bytes
    sessions: bytes
    suspects: bytes
    crashes: bytes
    done: bytes
    dead: bytes
    meta: bytes
    producers: bytes
    unique: bytes
    wake: bytes
    stats: bytes
    watched: bytes
    cancels: bytes
    progress: bytes
    lingering: bytes
    ties: bytes
    outbox: bytes
    schedules: bytes
    schedule_specs: bytes
    schedule_leases: bytes
    minutes: bytes
    hours: bytes
    days: bytes

    def __init__(self, name: str, prefix: str = PREFIX) -> None:
        self.name = name
        self.prefix = prefix
        self.base = f"{prefix}:{{{name}}}:"
        self._blocks: dict[tuple[str, ...], tuple[bytes, ...]] = {}
        for key in QUEUE_KEYS:
            setattr(self, key, (self.base + key).encode())

    def held(self, session: str) -> bytes:
        return f"{self.base}held:{session}".encode()

    def waiter(self, waiter: str) -> bytes:
        return f"{self.base}waiter:{waiter}".encode()

    def stream(self, job_id: str) -> bytes:
        return f"{self.base}stream:{job_id}".encode()

    def lines(self, job_id: str) -> bytes:
        return f"{self.base}lines:{job_id}".encode()

    def notes(self, job_id: str) -> bytes:
        return f"{self.base}notes:{job_id}".encode()

    def saved(self, job_id: str) -> bytes:
        return f"{self.base}saved:{job_id}".encode()

    def block(self, names: tuple[str, ...]) -> tuple[bytes, ...]:
        """The keys of a script, in the order of its `-- keys:` line."""
        found = self._blocks.get(names)
        if found is None:
            found = self._blocks[names] = tuple(getattr(self, name) for name in names)
        return found


@lru_cache(maxsize=4096)
def queue_keys(name: str, prefix: str = PREFIX) -> QueueKeys:
    return QueueKeys(check_queue_name(name), prefix)


def queues_key(prefix: str = PREFIX) -> str:
    """Set of the names of all queues."""
    return f"{prefix}:queues"


def workers_key(prefix: str = PREFIX) -> str:
    """Hash worker id -> its last beat; `!` + worker id -> a command for it."""
    return f"{prefix}:workers"


def audit_key(prefix: str = PREFIX) -> str:
    """List of what operators did on the dashboard, the newest first."""
    return f"{prefix}:audit"


def bulk_key(prefix: str, bulk_id: str) -> str:
    """Hash: an operator's action on many jobs, and how far it is."""
    return f"{prefix}:bulk:{{{bulk_id}}}"


def bulk_jobs_key(prefix: str, bulk_id: str) -> str:
    """List of QUEUE/ID: the jobs that it has still to act on."""
    return f"{prefix}:bulk:{{{bulk_id}}}:left"


def check_queue_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"queue name {name!r:.120} is not allowed: use 1 to 100 of A-Z a-z 0-9 . _ -")
    return name


def check_job_id(job_id: object) -> str:
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        raise UsageError(f"job_id {job_id!r:.160} is not allowed: use 1 to 128 of A-Z a-z 0-9 . _ : -")
    return job_id
