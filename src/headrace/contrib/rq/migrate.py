"""Bring the jobs that lie in RQ's keys into headrace, each once, whatever is killed meanwhile; RQ's workers may still run.

1. A batch of ids leaves RQ's list in one script, which notes them under the batch's name: no worker of RQ's finds them any more.
2. One call stores them in headrace, under the batch's name as its producer's. Sent again it is recognised, for a day, also when the
   jobs have long run and nothing is kept of them.
3. They are noted as moved. RQ's copies stay for some days, for the way back, and end by themselves.

A run that is stopped leaves a batch between 1 and 3; the next one begins with it. What cannot be moved is not touched, and told.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import redis

from headrace.contrib.rq.connections import app_of
from headrace.contrib.rq.convert import Converted, Moving, Refused, convert
from headrace.contrib.rq.group import Group
from headrace.contrib.rq.serializers import PickleSerializer, Serializer
from headrace.contrib.rq.source import Note, Source
from headrace.contrib.rq.stored import Place, StoredJob, Unreadable
from headrace.core.record import State
from headrace.engine import admin, flows, ops
from headrace.engine.call import Call
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.errors import JobExists, ServerUnreachable, UsageError

KEEP_S = 7 * 86_400.0
BATCH_JOBS, BATCH_BYTES = 200, 4 << 20
SCHEDULER_S = 10.0
"""A job that is due so soon is left to RQ's scheduler while one runs: it reads what is due, and takes it out a moment later."""

FREE = (Place.FAILED, Place.SCHEDULED, Place.READY, Place.QUEUED)
HELD = (Place.INTERMEDIATE, Place.STARTED)
_STATES = {Place.FAILED: State.FAILED, Place.SCHEDULED: State.SCHEDULED, Place.DEFERRED: State.WAITING}


class Row(msgspec.Struct, kw_only=True):
    """The jobs of one place of a queue of RQ's: how many there were, were moved, and stay; and what both sides hold afterwards.

    `headrace_now` counts all jobs of that queue and state, wherever they came from.
    """

    queue: str
    state: str
    in_rq: int = 0
    moved: int = 0
    stay: int = 0
    rq_now: int = 0
    headrace_now: int = 0


class Move:
    """One run. Duties: 1. to end what an earlier run left; 2. to go through RQ's places, those that others wait for first; 3. to
    send batches; 4. to count, and to tell of each job that stays.

    Args:
        connection: a redis-py client of headrace's server.
        queues: of RQ's, by name; none: all.
        serializer: of RQ's jobs, which headrace's workers must have, too.
        with_held: also what RQ's workers held or lost when they died. Only when none of them runs.
        keep_s: how long RQ's copies are kept for the way back; 0: not at all.
        tell: is called with each job that stays: id, queue, place, reason.
    """

    def __init__(
        self,
        source: Source,
        connection: Any,
        *,
        queues: Sequence[str] = (),
        serializer: Serializer = PickleSerializer,
        with_held: bool = False,
        is_dry: bool = False,
        keep_s: float = KEEP_S,
        tell: Callable[[str, str, Place, str], None] = lambda *_: None,
    ) -> None:
        self._source = source
        self._connection = connection
        self._app = app_of(connection)
        self._queues = list(queues)
        self._serializer = serializer
        self._with_held = with_held
        self._is_dry = is_dry
        self._keep_ms = int(keep_s * 1000)
        self._tell = tell
        self._rows: dict[tuple[str, Place], Row] = {}
        self._stays: set[str] = set()
        self._would_move: dict[str, str] = {}

    def run(self) -> list[Row]:
        """Move; the counts of both sides, by queue and place.

        Raises:
            LockHeld: another run is under way.
            LockLost: another run has taken over.
            UsageError: `with_held`, and workers of RQ's run.
            ServerUnreachable: RQ's server, or headrace's. What is under way is noted: run this again.
        """
        try:
            return self._run()
        except redis.RedisError as error:
            raise ServerUnreachable(f"RQ's server does not do its part: {error}") from error

    def _run(self) -> list[Row]:
        workers = self._source.live_workers() if self._with_held else []
        if workers:
            raise UsageError(
                f"RQ's worker {workers[0]} may still run: stop RQ's workers first (a killed one is told from one that "
                "runs when its key has ended, some minutes later)"
            )
        if not self._is_dry:
            self._source.lock()
        self._queues = self._queues or self._source.queue_names()
        places = [(place, queue) for place in (*FREE, *HELD, Place.DEFERRED) for queue in self._queues]
        for place, queue in places:
            self._row(queue, place).in_rq = self._source.count(place, queue)
        if not self._is_dry:
            self._end_batches()
        self._move_all()
        if not self._is_dry:
            self._source.unlock()
        return self._counted()

    def _end_batches(self) -> None:
        """Do the rest of what an earlier run left."""
        batches: dict[str, list[tuple[str, Note]]] = {}
        for job_id, note in self._source.all_noted(is_moved=False):
            batches.setdefault(note.batch, []).append((job_id, note))
        for batch, noted in batches.items():
            first = noted[0][1]
            jobs = self._source.read([job_id for job_id, _ in noted], with_results=first.place is Place.FAILED)
            moving = [self._as_noted(job_id, note, job) for (job_id, note), job in zip(noted, jobs, strict=True)]
            self._store(batch, first.queue, moving, is_again=True)

    def _as_noted(self, job_id: str, note: Note, job: StoredJob | Unreadable) -> Moving:
        left_ms = max(int(note.ends_ms) - time.time_ns() // 1_000_000, 1) if note.ends_ms != "0" else None
        return Moving(id=job_id, job=job, place=note.place, to=note.to, left_ms=left_ms, score=float(note.score or 0))

    # RQ's places

    def _move_all(self) -> None:
        for place in FREE:
            for queue in self._queues:
                self._move_place(place, queue)
        for limit in self._source.limit_names():
            self._move_place(Place.RATE_LIMITED, limit)
        for place in HELD:
            for queue in self._queues:
                if self._with_held:
                    self._move_place(place, queue)
                else:
                    self._leave(place, queue)
        if self._with_held:
            self._move_lost()
        self._move_deferred()

    def _move_place(self, place: Place, queue: str) -> None:
        """All of a place, page by page; again while there was something, since RQ may add to it and take from it."""
        while True:
            moved = first = 0
            while ids := self._source.ids(place, queue, first):
                if not self._is_dry:
                    self._source.renew()
                gone = self._move_ids(place, queue, [job_id for job_id in ids if job_id not in self._stays])
                moved += gone
                first += len(ids) - gone
            if not moved:
                return

    def _leave(self, place: Place, queue: str) -> None:
        for job_id in self._source.all_ids(place, queue):
            self._stay(
                job_id,
                queue,
                place,
                "a worker of RQ's runs it, or died with it: run this again when it has ended, or see --abandoned",
            )

    def _move_lost(self) -> None:
        """What RQ says waits or runs, and is in none of its lists."""
        ids = self._source.lost_ids(set(self._queues), {*self._stays, *self._would_move})
        for queue, some in ids.items():
            for first in range(0, len(some), BATCH_JOBS):
                self._move_ids(Place.LOST, queue, some[first : first + BATCH_JOBS])

    def _move_deferred(self) -> None:
        """The parents before those that wait for them: by age, and again while that helps."""
        waiting: list[tuple[int, str, str]] = []
        for queue in self._queues:
            ids = list(self._source.all_ids(Place.DEFERRED, queue))
            for first in range(0, len(ids), BATCH_JOBS):
                page = ids[first : first + BATCH_JOBS]
                for job_id, job in zip(page, self._source.read(page), strict=True):
                    waiting.append((0 if isinstance(job, Unreadable) else job.created_at_ms, queue, job_id))
        waiting.sort()
        while waiting:
            left = [each for each in waiting if not self._move_ids(Place.DEFERRED, each[1], [each[2]], is_last=False)]
            if len(left) == len(waiting):
                break
            waiting = left
        for _, queue, job_id in waiting:
            self._move_ids(Place.DEFERRED, queue, [job_id])

    def _move_ids(self, place: Place, queue: str, ids: Sequence[str], *, is_last: bool = True) -> int:
        """Those of these jobs that can be moved; how many left their place. `is_last`: tell of the others."""
        fit: list[tuple[str, str, int]] = []
        room = self._room(queue) if place is Place.FAILED else len(ids)
        for moving in self._look(place, queue, ids):
            try:
                if len(fit) >= room:
                    raise Refused(f"headrace keeps at most {ops.DEAD_MAX} failed jobs of a queue")
                converted = self._convert(moving)
            except Refused as error:
                if is_last:
                    self._stay(moving.id, queue, place, str(error))
            else:
                fit.append((moving.id, moving.to, len(converted.new.record)))
        if self._is_dry:
            if place is not Place.FAILED:
                self._would_move.update((job_id, to) for job_id, to, _ in fit)
            self._row(queue, place).moved += len(fit)
            return len(fit) if place is Place.DEFERRED else 0
        moved = 0
        for to, some in _parts(fit):
            batch = f"rq-{secrets.token_hex(8)}"
            moved += self._store(batch, queue, self._source.take(batch, place, queue, to, some))
        return moved

    def _look(self, place: Place, queue: str, ids: Sequence[str]) -> Iterator[Moving]:
        """The jobs of these ids, as they are before they are taken."""
        jobs = self._source.read(ids)
        scores = self._source.scores(place, queue, ids)
        is_watched = place is Place.SCHEDULED and self._source.has_scheduler(queue)
        for job_id, job, score in zip(ids, jobs, scores, strict=True):
            if is_watched and score < time.time() + SCHEDULER_S:
                job = Unreadable("RQ's scheduler is about to enqueue it: run this again in a moment")  # noqa: PLW2901, RUF100
            to = queue
            if place is Place.RATE_LIMITED and not isinstance(job, Unreadable):
                to = job.origin
                if to not in self._queues:
                    continue
            yield Moving(id=job_id, job=job, place=place, to=to, score=score)

    # A batch

    def _store(self, batch: str, queue: str, taken: Sequence[Moving], *, is_again: bool = False) -> int:
        """Steps 2 and 3 for jobs that have been taken; those that cannot be stored go back first. How many were moved."""
        if not taken:
            return 0
        ready: list[Converted] = []
        for moving in taken:
            try:
                ready.append(self._convert(moving))
            except Refused as error:
                self._source.put_back([moving.id])
                self._stay(moving.id, queue, moving.place, str(error))
        place = taken[0].place
        keys = queue_keys(taken[0].to, self._app.prefix)
        there = self._send(batch, keys, ready, place)
        if there and not is_again:
            # Of another job. In a later run they are the batch's own: the server has forgotten the call, a day later.
            self._source.put_back(there)
            for job_id in there:
                self._stay(job_id, queue, place, "headrace has a job of that id already")
            ready = [each for each in ready if each.id not in there]
        self._source.finish([each.id for each in ready], self._keep_ms)
        self._row(queue, place).moved += len(ready)
        return len(ready)

    def _send(self, batch: str, keys: QueueKeys, jobs: Sequence[Converted], place: Place) -> list[str]:
        """One call for the batch, and the links of those that wait. The ids that were taken: of these nothing is stored."""
        client = self._app.client
        client.run(ops.announce_queues(self._app.prefix, [keys.name]))
        there: list[str] = []
        left = list(jobs)
        while left:
            call: Call[dict[str, str]] = ops.enqueue(keys, [each.new for each in left], batch, 1)
            if place is Place.FAILED:
                rows = [(each.id, each.new.record, each.keep_until_ms) for each in left]
                call = admin.store_ended(keys, rows, batch, 1)
            try:
                client.run(call)
                break
            except JobExists as error:
                there.append(error.job_id)
                left = [each for each in left if each.id != error.job_id]
        for each in jobs if place is Place.DEFERRED else ():
            # To those that it was stored with: when this is done again, some of them may have ended since.
            client.run(flows.link_again(keys, each.id, is_gone_done=True))
        for group in {each.group for each in jobs if each.group and each.id not in there}:
            Group(self._connection, group).note([(keys.name, each.id) for each in jobs if each.group == group])
        return there

    # One job

    def _convert(self, moving: Moving) -> Converted:
        """As headrace stores it, and what it waits for; raises Refused."""
        if moving.place is Place.DEFERRED and not isinstance(moving.job, Unreadable):
            moving = msgspec.structs.replace(moving, waits_for=self._parents(moving.job))
        return convert(moving, self._app, self._connection, self._serializer)

    def _parents(self, job: StoredJob) -> list[tuple[str, str]]:
        """The jobs that it must wait for in headrace; raises Refused when one of them is still in RQ, or has failed."""
        waits_for: list[tuple[str, str]] = []
        ids = job.parents
        for parent, note, status in zip(ids, self._source.moved(ids), self._source.statuses(ids), strict=True):
            if parent in self._would_move:
                waits_for.append((self._would_move[parent], parent))
            elif note is not None:
                state = self._state_of(note.to, parent)
                if state is not None and not state.is_ended:
                    waits_for.append((note.to, parent))
                elif state not in (None, State.SUCCEEDED) and not (state is State.FAILED and job.may_parents_fail):
                    raise Refused(f"it waits for {parent}, which is {state} in headrace: retry that there first")
            elif status == "failed" and not job.may_parents_fail:
                raise Refused(f"it waits for {parent}, which has failed: requeue that first")
            elif status not in (None, "finished", "failed"):
                raise Refused(f"it waits for {parent}, which is {status} in RQ")
        return waits_for

    def _state_of(self, queue: str, job_id: str) -> State | None:
        look = self._app.client.run(ops.look(queue_keys(queue, self._app.prefix), job_id))
        return None if look is None else look.state

    def _room(self, queue: str) -> int:
        """How many more failed jobs headrace keeps."""
        counts = self._app.client.run(admin.count_jobs(queue_keys(queue, self._app.prefix)))
        planned = self._row(queue, Place.FAILED).moved if self._is_dry else 0
        return ops.DEAD_MAX - counts.dead - planned

    # Counts

    def _row(self, queue: str, place: Place) -> Row:
        return self._rows.setdefault((queue, place), Row(queue=queue, state=place.value))

    def _stay(self, job_id: str, queue: str, place: Place, reason: str) -> None:
        if job_id not in self._stays:
            self._stays.add(job_id)
            self._row(queue, place).stay += 1
            self._tell(job_id, queue, place, reason)

    def _counted(self) -> list[Row]:
        for (queue, place), row in self._rows.items():
            if place in (Place.LOST, Place.RATE_LIMITED):  # no list of one queue
                row.in_rq, row.rq_now = row.moved + row.stay, row.stay
            else:
                row.rq_now = self._source.count(place, queue)
            if place is not Place.RATE_LIMITED:
                row.headrace_now = self._headrace_count(queue, _STATES.get(place, State.QUEUED))
        found = [row for row in self._rows.values() if row.in_rq or row.moved or row.stay or row.rq_now]
        return sorted(found, key=lambda row: row.queue)

    def _headrace_count(self, queue: str, state: State) -> int:
        try:
            counts = self._app.client.run(admin.count_jobs(queue_keys(queue, self._app.prefix)))
        except UsageError:
            return 0  # no queue of headrace's can have that name
        numbers = {State.FAILED: counts.dead, State.SCHEDULED: counts.delayed, State.WAITING: counts.waiting}
        return numbers.get(state, counts.queued)


def _parts(fit: Sequence[tuple[str, str, int]]) -> Iterator[tuple[str, list[str]]]:
    """What goes in one batch: of one queue of headrace's, so many jobs, so many bytes."""
    by_queue: dict[str, list[tuple[str, int]]] = {}
    for job_id, to, size in fit:
        by_queue.setdefault(to, []).append((job_id, size))
    for to, jobs in by_queue.items():
        part: list[str] = []
        total = 0
        for job_id, size in jobs:
            if part and (len(part) >= BATCH_JOBS or total + size > BATCH_BYTES):
                yield to, part
                part, total = [], 0
            part.append(job_id)
            total += size
        yield to, part


__all__ = ["KEEP_S", "Move", "Row"]
