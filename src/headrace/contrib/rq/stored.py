"""What RQ 1.x to 3.x keep in Redis, as values: its key names, and its job hashes. Nothing is written, and nothing unpickled.

Facts of RQ that are easily got wrong: the key of a job's parents has two colons (`rq:job::ID:dependencies`); the sets of
running jobs hold ids in 1.x, and `ID:EXECUTION` from 2.0 on; a job's ttl is the time to live of its hash; retries wait
by how many are left, so that Retry(5, [10, 30, 60]) means 10, 10, 10, 30, 60.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import pickletools
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from headrace.contrib.rq.serializers import JSONSerializer, PickleSerializer, Serializer

_BEFORE_A_NAME = frozenset({"PROTO", "FRAME", "MARK"})
_TEXTS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})


class Place(enum.StrEnum):
    """Where RQ holds a job."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    READY = "ready"
    RATE_LIMITED = "rate_limited"
    DEFERRED = "deferred"
    FAILED = "failed"
    INTERMEDIATE = "intermediate"
    """Taken by a worker that has not yet noted that it runs it."""
    STARTED = "started"
    LOST = "lost"
    """RQ says that it waits or runs, and it is in none of RQ's lists."""


class Unreadable(Exception):  # noqa: N818, RUF100
    """RQ's keys do not hold what RQ puts there."""


class StoredJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job's hash. Durations are seconds, instants Unix milliseconds (0: none). `data` and `meta` are as the serializer wrote them.

    `delays`: what is left of its retries. `callbacks`: for `on_success`, `on_failure`, `on_stopped` the path, and its seconds.
    `has_children`: jobs wait for it.
    """

    id: str
    origin: str
    status: str
    data: bytes
    meta: bytes
    description: str | None
    created_at_ms: int
    started_at_ms: int
    ended_at_ms: int
    timeout: int | None
    result_ttl: int | None
    failure_ttl: int | None
    delays: list[int]
    is_front: bool
    is_front_on_retry: bool
    repeats: int
    repeat_intervals: list[int]
    callbacks: dict[str, tuple[str, int | None]]
    webhooks: list[dict[str, Any]]
    group_id: str | None
    rate_limit: tuple[str, int] | None
    parents: list[str]
    may_parents_fail: bool
    has_children: bool
    traceback: str


class RQKeys:
    """RQ's key names under its prefix, and ours beside them for a move that is under way."""

    def __init__(self, prefix: str = "rq") -> None:
        self.prefix = prefix
        self.queues = f"{prefix}:queues"
        self.workers = f"{prefix}:workers"
        self.rate_limits = f"{prefix}:rl-keys"
        self.lock = f"{prefix}:headrace:lock"
        self.taken = f"{prefix}:headrace:taken"
        self.moved = f"{prefix}:headrace:moved"

    def queue_name(self, key: str) -> str:
        return key.removeprefix(f"{self.prefix}:queue:")

    def place(self, place: Place, queue: str) -> str:
        """The list or sorted set of a place; of RATE_LIMITED, `queue` is the name of the limit."""
        if place is Place.QUEUED:
            return f"{self.prefix}:queue:{queue}"
        if place is Place.INTERMEDIATE:
            return f"{self.prefix}:queue:{queue}:intermediate"
        if place is Place.RATE_LIMITED:
            return f"{self.prefix}:rl:{queue}:rate_limited"
        return f"{self.prefix}:{'wip' if place is Place.STARTED else place.value}:{queue}"

    def scheduler_lock(self, queue: str) -> str:
        return f"{self.prefix}:scheduler-lock:{queue}"

    def job(self, job_id: str) -> str:
        return f"{self.prefix}:job:{job_id}"

    def children(self, job_id: str) -> str:
        return f"{self.prefix}:job:{job_id}:dependents"

    def results(self, job_id: str) -> str:
        return f"{self.prefix}:results:{job_id}"


def read_job(
    job_id: str, fields: Mapping[bytes, bytes], result: Mapping[bytes, bytes], *, has_children: bool
) -> StoredJob:
    """A job from its hash, and from the latest entry of its results (which RQ keeps apart since 1.12).

    Raises:
        Unreadable
    """
    data = fields.get(b"data")
    if data is None:
        raise Unreadable("its hash has no data")

    def text(name: str) -> str:
        return fields.get(name.encode(), b"").decode()

    def number(name: str) -> int | None:
        given = text(name)
        return int(float(given)) if given else None

    try:
        concurrency = number("rate_limit_concurrency")
        names = {"on_success": "success", "on_failure": "failure", "on_stopped": "stopped"}
        return StoredJob(
            id=job_id,
            origin=text("origin"),
            status=text("status"),
            data=_inflated(data),
            meta=fields.get(b"meta", b""),
            description=text("description") or None,
            created_at_ms=_instant_ms(text("created_at")),
            started_at_ms=_instant_ms(text("started_at")),
            ended_at_ms=_instant_ms(text("ended_at")),
            timeout=number("timeout"),
            result_ttl=number("result_ttl"),
            failure_ttl=number("failure_ttl"),
            delays=_delays(number("retries_left") or 0, json.loads(text("retry_intervals") or "[]") or []),
            is_front=text("enqueue_at_front") == "1",
            is_front_on_retry=text("enqueue_at_front_on_retry") == "1",
            repeats=number("repeats_left") or 0,
            repeat_intervals=json.loads(text("repeat_intervals") or "[]") or [],
            callbacks={
                word: (text(f"{name}_callback_name"), number(f"{name}_callback_timeout"))
                for word, name in names.items()
                if text(f"{name}_callback_name")
            },
            webhooks=json.loads(text("webhooks") or "[]"),
            group_id=text("group_id") or None,
            rate_limit=(text("rate_limit_key"), concurrency) if concurrency else None,
            parents=json.loads(text("dependency_ids") or "[]")
            or ([text("dependency_id")] if text("dependency_id") else []),
            may_parents_fail=text("allow_dependency_failures") == "1",
            has_children=has_children,
            traceback=_traceback(fields, result),
        )
    except (ValueError, zlib.error, binascii.Error) as error:
        raise Unreadable(f"its hash cannot be read: {error}") from error


def _delays(retries: int, intervals: list[int]) -> list[int]:
    """What RQ would wait before each retry that is left."""
    if not intervals:
        return [0] * retries
    return [intervals[max(len(intervals) - left, 0)] for left in range(retries, 0, -1)]


def _instant_ms(given: str) -> int:
    if not given:
        return 0
    at = datetime.fromisoformat(given)
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data  # RQ has not always compressed


def _traceback(fields: Mapping[bytes, bytes], result: Mapping[bytes, bytes]) -> str:
    kept = result.get(b"exc_string")
    data = base64.b64decode(kept) if kept else fields.get(b"exc_info", b"")
    return _inflated(data).decode(errors="replace")


def error_of(traceback: str) -> tuple[str, str]:
    """The type and the message that a traceback ends with."""
    lines = [line for line in traceback.rstrip().splitlines() if line and not line[0].isspace()]
    kind, _, message = (lines[-1] if lines else "").partition(": ")
    return (kind, message) if kind and " " not in kind else ("Failed", lines[-1] if lines else "RQ kept no error")


def function_name(serializer: Serializer, data: bytes) -> str:
    """What a stored call calls. A pickle is looked at, and not loaded: nothing that it holds is imported or run.

    Raises:
        Unreadable
    """
    if serializer is not PickleSerializer:
        try:
            name = serializer.loads(data)[0]
        except Exception as error:  # a serializer of the user's own
            raise Unreadable(f"its arguments cannot be read with this serializer: {error}") from error
        if not isinstance(name, str):
            raise Unreadable("its arguments do not begin with the name of a function")
        return name
    if data[:1] == b"[":
        raise Unreadable("its arguments are JSON: pass --serializer json")
    try:
        is_in_tuple = False  # of four, which begins with a mark
        for opcode, value, _ in pickletools.genops(data):
            if opcode.name in _TEXTS and is_in_tuple:
                return str(value)
            is_in_tuple = opcode.name == "MARK"
            if opcode.name not in _BEFORE_A_NAME:
                break
    except ValueError as error:
        raise Unreadable(f"its arguments are no pickle: {error}") from error
    raise Unreadable("its arguments do not begin with the name of a function")


__all__ = [
    "JSONSerializer",
    "Place",
    "RQKeys",
    "StoredJob",
    "Unreadable",
    "error_of",
    "function_name",
    "read_job",
]
