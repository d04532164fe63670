"""RQ's server, for a move: what is there, and the three steps by which a job leaves. No decision is made here."""

from __future__ import annotations

import json
import secrets
import select
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from typing import Any

import msgspec
import redis

from headrace.contrib.rq.convert import Moving
from headrace.contrib.rq.stored import Place, RQKeys, StoredJob, Unreadable, read_job

IDS_A_PAGE = 500
_SORTED = (Place.SCHEDULED, Place.READY, Place.RATE_LIMITED, Place.DEFERRED, Place.FAILED, Place.STARTED)


class LockLost(Exception):  # noqa: N818, RUF100
    """Another run has taken over: this one has stopped, and nothing is lost."""


class LockHeld(Exception):  # noqa: N818, RUF100
    """Another run is under way: wait until it has ended."""


class Note(msgspec.Struct, frozen=True):
    """What is noted of a job that has left RQ's lists: `to` is headrace's queue, `queue` RQ's (or the limit's name)."""

    batch: str
    place: Place
    queue: str
    to: str
    score: str = ""
    ends_ms: str = "0"
    parents: str = ""
    is_back: bool = False


class Source:
    """RQ's side, under a lock that one run holds."""

    def __init__(self, connection: redis.Redis, keys: RQKeys, lock_ms: int = 10_000) -> None:
        self._redis: Any = connection
        self.keys = keys
        self.lock_ms = lock_ms
        self._token = secrets.token_hex(8)
        folder = resources.files("headrace.contrib.rq") / "lua"
        self._take, self._finish, self._put_back, self._renew = (
            self._redis.register_script((folder / f"{name}.lua").read_text("utf8"))
            for name in ("take", "finish", "put_back", "renew")
        )

    @property
    def renewal(self) -> str:
        """The SHA-1 of the script that renews the lock."""
        return str(self._renew.sha)

    # The lock

    def lock(self) -> None:
        """Let no other run move anything; waits for one that was killed just now.

        Raises:
            LockHeld
        """
        ends = time.monotonic() + 1.5 * self.lock_ms / 1000
        while not self._redis.set(self.keys.lock, self._token, nx=True, px=self.lock_ms):
            if time.monotonic() > ends:
                raise LockHeld("another `headrace rq migrate` is moving these keys: wait until it has ended")
            select.select([], [], [], 0.1)

    def renew(self) -> None:
        """Hold the lock for its full time again; raises LockLost."""
        self._run(self._renew, [self.keys.lock], [])

    def unlock(self) -> None:
        self._run(self._renew, [self.keys.lock], ["end"])

    # Look

    def queue_names(self) -> list[str]:
        found = {self.keys.queue_name(key.decode()) for key in self._redis.smembers(self.keys.queues)}
        return sorted(found)

    def limit_names(self) -> list[str]:
        return sorted(name.decode() for name in self._redis.smembers(self.keys.rate_limits))

    def live_workers(self) -> list[str]:
        """The workers of RQ's whose key is there: it ends some minutes after a worker that was killed."""
        keys = sorted(self._redis.smembers(self.keys.workers))
        alive = self._pipelined(("EXISTS", key) for key in keys)
        return [key.decode().rpartition(":")[2] for key, is_there in zip(keys, alive, strict=True) if is_there]

    def has_scheduler(self, queue: str) -> bool:
        return bool(self._redis.exists(self.keys.scheduler_lock(queue)))

    def count(self, place: Place, queue: str) -> int:
        key = self.keys.place(place, queue)
        return int(self._redis.zcard(key) if place in _SORTED else self._redis.llen(key))

    def ids(self, place: Place, queue: str, first: int) -> list[str]:
        """A page of ids, in RQ's order."""
        key, last = self.keys.place(place, queue), first + IDS_A_PAGE - 1
        found = self._redis.zrange(key, first, last) if place in _SORTED else self._redis.lrange(key, first, last)
        names = [member.decode() for member in found]
        return [name.partition(":")[0] for name in names] if place is Place.STARTED else names

    def all_ids(self, place: Place, queue: str) -> Iterator[str]:
        first = 0
        while page := self.ids(place, queue, first):
            yield from page
            first += len(page)

    def hashed_ids(self) -> Iterator[str]:
        """The ids of all jobs that have a hash, wherever they are."""
        prefix = self.keys.job("")
        for key in self._redis.scan_iter(match=f"{_escaped(prefix)}*", count=1000, _type="HASH"):
            yield key.decode().removeprefix(prefix)

    def scores(self, place: Place, queue: str, ids: Sequence[str]) -> list[float]:
        """Of a sorted set: when a scheduled job is due, until when a failed one is kept, Unix seconds. Else zeros."""
        if place not in _SORTED:
            return [0.0] * len(ids)
        scores = self._pipelined(("ZSCORE", self.keys.place(place, queue), job_id) for job_id in ids)
        return [float(score or 0) for score in scores]

    def lost_ids(self, queues: set[str], but: set[str]) -> dict[str, list[str]]:
        """By queue, the jobs that RQ says wait or run, and that are in none of its lists. Only true while nothing of RQ's runs."""
        known = but | {job_id for is_moved in (True, False) for job_id, _ in self.all_noted(is_moved=is_moved)}
        for queue in self.queue_names():
            for place in (Place.QUEUED, Place.INTERMEDIATE, *_SORTED):
                if place is not Place.RATE_LIMITED:
                    known.update(self.all_ids(place, queue))
        for limit in self.limit_names():
            known.update(self.all_ids(Place.RATE_LIMITED, limit))
        ids = [job_id for job_id in self.hashed_ids() if job_id not in known]
        found: dict[str, list[str]] = {}
        for page in _parts(ids):
            for job_id, job in zip(page, self.read(page), strict=True):
                if not isinstance(job, Unreadable) and job.status in ("queued", "started") and job.origin in queues:
                    found.setdefault(job.origin, []).append(job_id)
        return found

    def read(self, ids: Sequence[str], *, with_results: bool = False) -> list[StoredJob | Unreadable]:
        """The jobs of these ids as they are now."""
        hashes = self._pipelined(("HGETALL", self.keys.job(job_id)) for job_id in ids)
        children = self._pipelined(("EXISTS", self.keys.children(job_id)) for job_id in ids)
        results = self._results(ids) if with_results else [{}] * len(ids)
        rows = zip(ids, hashes, results, children, strict=True)
        return [_read(job_id, fields, result, has_children=bool(found)) for job_id, fields, result, found in rows]

    def statuses(self, ids: Sequence[str]) -> list[str | None]:
        """What RQ says of each; None: there is no such job."""
        found = self._pipelined(("HGET", self.keys.job(job_id), "status") for job_id in ids)
        return [None if status is None else status.decode() for status in found]

    def moved(self, ids: Sequence[str]) -> list[Note | None]:
        """What is noted of jobs that have been moved."""
        found = self._redis.hmget(self.keys.moved, ids) if ids else []
        return [None if data is None else _note(data) for data in found]

    def all_noted(self, *, is_moved: bool) -> Iterator[tuple[str, Note]]:
        """The jobs that have been moved, or are under way."""
        key = self.keys.moved if is_moved else self.keys.taken
        for job_id, data in self._redis.hscan_iter(key, count=IDS_A_PAGE):
            yield job_id.decode(), _note(data)

    # Move

    def take(self, batch: str, place: Place, queue: str, to: str, ids: Sequence[str]) -> list[Moving]:
        """Take these jobs out of their place, those of them that are there: no worker of RQ's finds them any more."""
        where = [self.keys.lock, self.keys.taken, self.keys.place(place, queue)]
        rows = self._run(self._take, where, [self.keys.prefix, batch, place.value, queue, to, _now_ms(), *ids])
        names = [row[0].decode() for row in rows]
        results = self._results(names) if place is Place.FAILED else [{}] * len(rows)
        return [
            Moving(
                id=name,
                job=_read(name, _pairs(row[1]), result, has_children=bool(row[4])),
                place=place,
                to=to,
                left_ms=row[2] if row[2] > 0 else None,
                score=float(row[3] or 0),
            )
            for name, row, result in zip(names, rows, results, strict=True)
        ]

    def finish(self, ids: Sequence[str], keep_ms: int) -> None:
        """Note that headrace has these; RQ's copies of them end after `keep_ms`."""
        where = [self.keys.lock, self.keys.taken, self.keys.moved]
        for some in _parts(ids):
            self._run(self._finish, where, [self.keys.prefix, keep_ms, *some])

    def put_back(self, ids: Sequence[str], *, is_moved: bool = False) -> int:
        """Put these where they were, the first of them to be the next of its queue. Returns how many there were.

        `is_moved`: of jobs that headrace has; each is noted as back, and done again that does nothing.
        """
        where = [self.keys.lock, self.keys.moved if is_moved else self.keys.taken]
        words = [self.keys.prefix, _now_ms(), "mark" if is_moved else "forget"]
        parts = list(_parts(ids))
        return sum(self._run(self._put_back, where, [*words, *some]) for some in reversed(parts))

    def forget(self, ids: Sequence[str]) -> None:
        """Drop the notes of jobs that are back."""
        self.renew()
        if ids:
            self._redis.hdel(self.keys.moved, *ids)

    def _results(self, ids: Sequence[str]) -> list[dict[bytes, bytes]]:
        rows = self._pipelined(("XREVRANGE", self.keys.results(job_id), "+", "-", "COUNT", 1) for job_id in ids)
        return [dict(row[0][1]) if row else {} for row in rows]

    def _pipelined(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return list(pipe.execute())

    def _run(self, script: Any, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return script(keys=keys, args=[self._token, self.lock_ms, *args])
        except redis.ResponseError as error:
            if "LOST" not in str(error):
                raise
            raise LockLost("another run has taken over, so this one has stopped: nothing is lost") from error


def _read(
    job_id: str, fields: dict[bytes, bytes], result: dict[bytes, bytes], *, has_children: bool
) -> StoredJob | Unreadable:
    if not fields:
        return Unreadable("RQ has no more of it than its id: it has expired, or was deleted")
    try:
        return read_job(job_id, fields, result, has_children=has_children)
    except Unreadable as error:
        return error


def _note(data: bytes) -> Note:
    return msgspec.convert(json.loads(data), Note)


def _pairs(flat: Any) -> dict[bytes, bytes]:
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(ids), IDS_A_PAGE):
        yield ids[first : first + IDS_A_PAGE]


def _escaped(prefix: str) -> str:
    return "".join(f"\\{letter}" if letter in "[]*?\\" else letter for letter in prefix)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
