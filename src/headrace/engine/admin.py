"""What an operator looks at and does, as pure functions like those of `ops`: counts, lists, pause, purge, workers.

`check` (the invariants) is in `audit`. Every read is bounded; what may be long is read in slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from headrace.core.failures import error_of, fingerprint
from headrace.core.record import ENDED_STATES, Record, State, Stored, decode
from headrace.engine.call import Arg, Call, Steps, command, script
from headrace.engine.keys import QueueKeys, audit_key, queues_key, workers_key
from headrace.engine.ops import LAYOUT_ARG, read_taken

JOBS_A_CALL = 256
MOST_SCANNED = 5_000
MOST_LIMITS = 1_000
WORKER_IS_GONE_AFTER_MS = 30_000
PLACES = {
    State.RUNNING: ("held",),
    State.QUEUED: ("suspects", "priority", "ready", "group"),
    State.SCHEDULED: ("delayed",),
    State.RETRYING: ("delayed",),
    State.FAILED: ("dead",),
    State.SUCCEEDED: ("done",),
    State.CANCELLED: ("done",),
    State.EXPIRED: ("done",),
    State.WAITING: ("parked", "waiting"),
}
_ORDER = ("held", "suspects", "priority", "ready", "group", "parked", "waiting", "delayed", "dead", "done")


class QueueCounts(msgspec.Struct, frozen=True, kw_only=True):
    """A queue at one instant (`running` a moment later). `totals`: jobs enqueued, succeeded, failed … since it began.

    `ready` counts also the `lingering`: entries of cancelled jobs that no claim has met yet. `paused`: the reason; None when it is not paused. `paused_until_ms`:
    None when it is paused until somebody resumes it.
    """

    name: str
    ready: int
    priority: int
    delayed: int
    suspects: int
    running: int
    parked: int = 0
    waiting: int = 0
    lingering: int = 0
    done: int
    dead: int
    records: int
    sessions: int
    overdue_sessions: int
    last_lease_end_ms: int
    paused: str | None
    paused_at_ms: int | None
    paused_until_ms: int | None = None
    max_running: int | None = None
    max_length: int | None = None
    overflow: str | None = None
    ageing_ms: int | None = None
    totals: dict[str, int]
    server_ms: int

    @property
    def queued(self) -> int:
        ready = self.ready - self.lingering
        others = (
            self.live - ready - self.priority - self.suspects - self.delayed - self.parked - self.waiting - self.running
        )
        return ready + self.priority + self.suspects + max(others, 0)  # the others stand in their groups

    @property
    def live(self) -> int:
        """Jobs that have not ended."""
        return self.records - self.done - self.dead


class Row(msgspec.Struct, frozen=True):
    """One job of a list. `due_at_ms`: of a delayed one; `session`: of a running one."""

    queue: str
    id: str
    state: State
    record: Record
    due_at_ms: int | None = None
    session: str | None = None


class Page(msgspec.Struct, frozen=True):
    """`cursor`: pass it on for what follows; "" at the end. `looked_at`: how many jobs were read."""

    rows: list[Row]
    cursor: str
    looked_at: int = 0


class Worker(msgspec.Struct, frozen=True):
    """`info` is what the worker tells of itself with each beat."""

    id: str
    beat_at_ms: int
    info: dict[str, Any]


class ErrorGroup(msgspec.Struct, kw_only=True):
    """Failed jobs with the same task, error type and message, numbers and quoted parts aside."""

    fingerprint: str
    queue: str
    task: str
    type: str
    message: str
    count: int
    last_at_ms: int
    example: str


def text_pairs(reply: Any) -> Iterator[tuple[bytes, Any]]:
    """Field and value of a hash or scored set: flat from a script and RESP2, a map from RESP3."""
    if isinstance(reply, dict):
        yield from reply.items()
    elif reply and isinstance(reply[0], (list, tuple)):
        yield from reply
    else:
        yield from zip(reply[::2], reply[1::2], strict=True)


def _texts(reply: Any) -> list[str]:
    return [item.decode() for item in reply]


def _as_stored(reply: list[bytes | None]) -> list[bytes | None]:
    return reply


# -- queues


def queue_names(prefix: str) -> Call[list[str]]:
    """The names of all queues that jobs or workers have named, sorted."""
    key = queues_key(prefix)
    return command("SMEMBERS", key, key=key, decode=lambda reply: sorted(_texts(reply)))


def forget_queue_name(prefix: str, name: str) -> Call[None]:
    """Take a queue off the list of all queues; its keys are not touched."""
    key = queues_key(prefix)
    return command("SREM", key, name, key=key, decode=lambda _: None)


def drop_queue(queue: QueueKeys) -> Call[None]:
    """Delete a queue with all its jobs, records and totals. No worker may be on it."""
    keys = [getattr(queue, name) for name in script("tend").keys]
    keys += [queue.unique, queue.lingering, queue.outbox, queue.schedule_specs, queue.schedule_leases]
    keys += [queue.minutes, queue.hours, queue.days]
    return command("UNLINK", *keys, key=queue.jobs, decode=lambda _: None)


def drop_key(key: str) -> Call[None]:
    """Delete one key."""
    return command("UNLINK", key, key=key, decode=lambda _: None)


def count_jobs(queue: QueueKeys) -> Steps[QueueCounts]:
    """How many jobs stand where; the cost does not depend on how many there are."""
    found = script("admin_counts")
    reply: list[Any] = yield Call(found, queue.block(found.keys), [LAYOUT_ARG], list)
    leases = {session.decode(): float(end) for session, end in text_pairs(reply[10])}
    sizes: list[int] = []
    if leases:
        held = [queue.held(session) for session in leases]
        sizes = yield Call(script("admin_sizes"), held, [LAYOUT_ARG], list)
    server_ms = int(reply[0])
    return QueueCounts(
        name=queue.name,
        server_ms=server_ms,
        records=reply[1],
        ready=reply[2],
        priority=reply[3],
        delayed=reply[4],
        suspects=reply[5],
        done=reply[6],
        dead=reply[7],
        paused=None if reply[8] is None else reply[8].decode(),
        paused_at_ms=None if reply[9] is None else int(reply[9]),
        sessions=len(leases),
        overdue_sessions=sum(end < server_ms for end in leases.values()),
        last_lease_end_ms=int(max(leases.values(), default=0)),
        running=sum(sizes),
        totals={name.decode(): int(count) for name, count in text_pairs(reply[11])},
        parked=reply[12],
        max_running=_optional_ms(reply[13]),
        max_length=_optional_ms(reply[14]),
        overflow=None if reply[15] is None else reply[15].decode(),
        waiting=reply[16],
        ageing_ms=_optional_ms(reply[17]),
        paused_until_ms=_optional_ms(reply[18]),
        lingering=reply[19],
    )


def pause(queue: QueueKeys, reason: str, for_ms: int = 0) -> Call[bool]:
    """Stop claims from this queue, for so long, or until it is resumed; running jobs go on. True: it was not paused before."""
    found = script("admin_pause")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, reason or "paused", for_ms], bool)


def resume(queue: QueueKeys) -> Call[bool]:
    """Let claims go on, and wake a consumer. True: it was paused."""
    found = script("admin_pause")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, "", 0], bool)


# -- jobs


def places_of(states: Collection[State]) -> list[str]:
    """Where jobs in these states stand, in the order in which they are listed."""
    wanted = {place for state in states for place in PLACES[state]}
    return [place for place in _ORDER if place in wanted]


def list_jobs(queue: QueueKeys, states: Collection[State], *, cursor: str = "", limit: int = 100) -> Steps[Page]:
    """Up to `limit` jobs in these states: running ones first, then in the order in which they would run; ended ones
    those kept longest first. A list that moves meanwhile may show a job twice or pass one over.
    """
    order = places_of(states)
    place, _, offset = cursor.partition(":")
    if place in order:
        order = order[order.index(place) :]
    first = int(offset or 0)
    rows: list[Row] = []
    scanned = looked_at = 0
    for place in order:
        while len(rows) < limit and scanned < MOST_SCANNED:
            if place == "held":
                got, length, is_last = yield from _held_slice(queue, first)
            elif place == "waiting":
                got, first = yield from _waiting_slice(queue, first)
                length, is_last = 0, first == 0
            elif place == "group":
                got, length, is_last = yield from _group_slice(queue, first)
            else:
                got, length, is_last = yield from _place_slice(queue, place, first, limit - len(rows), states)
            rows += (row for row in got if row.state in states)
            first += length
            scanned += max(len(got), 1)
            looked_at += len(got)
            if is_last:
                break
        else:
            return Page(rows, f"{place}:{first}", looked_at)
        first = 0
    return Page(rows, "", looked_at)


def _place_slice(
    queue: QueueKeys, place: str, first: int, want: int, states: Collection[State]
) -> Steps[tuple[list[Row], int, bool]]:
    # A place that holds one state only gives exactly what is wanted; else read more, and keep what fits.
    size = min(want, JOBS_A_CALL) if place not in ("delayed", "done") else JOBS_A_CALL
    found = script("admin_page")
    args: list[Arg] = [LAYOUT_ARG, place, first, size]
    ids, scores, records = yield Call(found, queue.block(found.keys), args, list)
    rows: list[Row] = []
    taken = 0
    for job_id, score, record in zip(ids, scores, records, strict=True):
        taken += 1
        row = None if record is None else _row(queue, place, job_id.decode(), decode(record), score)
        if row is not None:
            rows.append(row)
            want -= row.state in states
            if want == 0:
                break
    return rows, taken, taken == len(ids) < size


def _row(queue: QueueKeys, place: str, job_id: str, record: Record, score: bytes) -> Row | None:
    if record.state != Stored.LIVE:
        # A cancelled job's entry may linger among the ready ones; it is listed where it ended.
        return Row(queue.name, job_id, ended_state(record), record) if place in ("done", "dead") else None
    if place != "delayed":
        return Row(queue.name, job_id, State.WAITING if place in ("parked", "waiting") else State.QUEUED, record)
    state = State.RETRYING if record.attempt else State.SCHEDULED
    return Row(queue.name, job_id, state, record, due_at_ms=int(float(score)))


def _waiting_slice(queue: QueueKeys, cursor: int) -> Steps[tuple[list[Row], int]]:
    """Some of the jobs that wait for others, and where to go on; 0 at the end."""
    key = (queue.base + "waiting").encode()
    after, items = yield command("HSCAN", key, cursor, "COUNT", JOBS_A_CALL, key=key, decode=list)
    ids = [job_id for job_id, _ in text_pairs(items)]
    if not ids:
        return [], int(after)
    records = yield command("HMGET", queue.jobs, *ids, key=queue.jobs, decode=list)
    pairs = zip(ids, records, strict=True)
    rows = [_row(queue, "waiting", job_id.decode(), decode(record), b"") for job_id, record in pairs if record]
    return [row for row in rows if row is not None], int(after)


def _group_slice(queue: QueueKeys, first: int) -> Steps[tuple[list[Row], int, bool]]:
    """The first 256 jobs of the group with this number."""
    found = script("admin_page")
    ids, _, records = yield Call(found, queue.block(found.keys), [LAYOUT_ARG, "group", first, JOBS_A_CALL], list)
    if ids is None:
        return [], 0, True
    rows = [
        _row(queue, "group", job_id.decode(), decode(record), b"")
        for job_id, record in zip(ids, records, strict=True)
        if record
    ]
    return [row for row in rows if row is not None], 1, False


def _held_slice(queue: QueueKeys, first: int) -> Steps[tuple[list[Row], int, bool]]:
    """What the session with this number holds: at most 256 jobs."""
    key = queue.sessions
    sessions: list[str] = yield command("ZRANGE", key, first, first, key=key, decode=_texts)
    if not sessions:
        return [], 0, True
    found = script("admin_held")
    keys = [queue.jobs, queue.held(sessions[0])]
    ids, records = yield Call(found, keys, [LAYOUT_ARG], list)
    rows = [
        Row(
            queue.name,
            job_id.decode(),
            State.RUNNING,
            decode(record),
            session=sessions[0],
        )
        for job_id, record in zip(ids, records, strict=True)
        if record is not None
    ]
    return rows, 1, False


def read_records(queue: QueueKeys, ids: Sequence[str]) -> Call[list[bytes | None]]:
    """The records of up to 1,000 jobs as they are stored; None where there is none."""
    return command("HMGET", queue.jobs, *ids, key=queue.jobs, decode=_as_stored)


def dependents(queue: QueueKeys, job_id: str) -> Call[list[tuple[str, str]]]:
    """(queue, id) of each job that waits for this one. Of a step of a flow that is many jobs, the prefix of their ids."""

    def decode_ties(reply: bytes | None) -> list[tuple[str, str]]:
        edges = msgspec.msgpack.decode(reply).get("e", []) if reply else []
        return [(edge["q"] or queue.name, edge["c"]) for edge in edges]

    return command("HGET", queue.ties, job_id, key=queue.ties, decode=decode_ties)


def find_jobs(queue: QueueKeys, state: State, matches: Callable[[Row], bool] | None = None) -> Steps[list[str]]:
    """The ids of all jobs in a state that match."""
    ids: list[str] = []
    cursor = ""
    while True:
        page = yield from list_jobs(queue, (state,), cursor=cursor, limit=JOBS_A_CALL)
        ids += (row.id for row in page.rows if matches is None or matches(row))
        cursor = page.cursor
        if not cursor:
            return ids


def purge_queued(queue: QueueKeys) -> Steps[int]:
    """Delete the jobs that wait to be run now; those that arrive meanwhile may stay. Returns how many."""
    deleted = 0
    counts = yield from count_jobs(queue)
    for place, waiting in (("suspects", counts.suspects), ("ready", counts.ready)):
        while waiting > 0:
            taken, gone = yield _purge(queue, place, min(waiting, JOBS_A_CALL), ())
            deleted += gone
            waiting -= taken
            if not taken:
                break
    ids: list[str] = yield command("ZRANGE", queue.priority, 0, -1, key=queue.priority, decode=_texts)
    deleted += yield from purge_jobs(queue, "priority", ids)
    number = 0
    while True:
        rows, _, is_last = yield from _group_slice(queue, number)
        if is_last:
            return deleted
        gone = yield from purge_jobs(queue, "group", [row.id for row in rows])
        deleted += gone
        number += not gone  # a group that is empty now has left the list


def purge_jobs(queue: QueueKeys, place: str, ids: Sequence[str]) -> Steps[int]:
    """Delete these jobs, if they are still in this place (no list, nor held). Returns how many."""
    deleted = 0
    for first in range(0, len(ids), JOBS_A_CALL):
        _, gone = yield _purge(queue, place, 0, ids[first : first + JOBS_A_CALL])
        deleted += gone
    return deleted


def purge(queue: QueueKeys, state: State) -> Steps[int]:
    """Delete all jobs in a state; returns how many. Running ones cannot be purged."""
    if state is State.QUEUED:
        return (yield from purge_queued(queue))
    deleted = 0
    for place in PLACES[state]:
        if place != "held":
            ids = yield from find_jobs(queue, state)
            deleted += yield from purge_jobs(queue, place, ids)
    return deleted


def store_ended(
    queue: QueueKeys, jobs: Sequence[tuple[str, bytes, int]], producer: str, number: int
) -> Call[dict[str, str]]:
    """Keep jobs that ended elsewhere: (id, ended record, Unix ms until which it is kept) each, up to 1,000. Sent again under the
    same number it is recognised, as an enqueue is.

    Raises (when sent):
        JobExists: an id is taken; nothing was written.
    """
    found = script("admin_store_ended")
    words: list[Arg] = [word for job in jobs for word in job]
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, producer, number, *words], read_taken)


def _purge(queue: QueueKeys, place: str, most: int, ids: Sequence[str]) -> Call[list[int]]:
    found = script("admin_purge")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, place, most, *ids], list)


# -- limits


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """A limit at one instant; instants are Unix ms, None for never.

    `rule`: what was set for it at run time (r jobs per p ms, b burst, c at once); None: as jobs say. `parked`: jobs that wait for
    it; `opens_ms`: when the first of them is looked at again; `held_until_ms`: it lets nothing through before. `holds`: what
    holds now, as it was set, for it or for its template, or as a job says that uses it; None where none was met.
    `fills_ms`: when all of its rate is free again.
    """

    queue: str
    name: str
    running: int
    parked: int
    opens_ms: int | None
    held_until_ms: int | None
    rule: dict[str, Any] | None
    holds: dict[str, Any] | None = None
    fills_ms: float | None = None
    server_ms: int = 0

    @property
    def used(self) -> int | None:
        """How many of the rate's burst are used up; None: no rate is known."""
        if self.holds is None or "r" not in self.holds:
            return None
        left_ms = max((self.fills_ms or 0) - self.server_ms, 0)
        step_ms: float = self.holds["p"] / self.holds["r"]
        return math.ceil(left_ms / step_ms - 1e-6)

    @property
    def free_ms(self) -> int | None:
        """When a job may start next: now, later; None when a slot must become free first, or no rule is known."""
        if self.holds is None:
            return self.opens_ms
        if "c" in self.holds and self.running >= self.holds["c"]:
            return None
        at_ms = float(max(self.held_until_ms or 0, self.server_ms))
        if "r" in self.holds:
            step_ms = self.holds["p"] / self.holds["r"]
            at_ms = max(at_ms, (self.fills_ms or 0) + step_ms - step_ms * max(self.holds.get("b", 1), 1))
        return math.ceil(at_ms)


def look_at_limits(
    queue: QueueKeys, names: Sequence[str], said: Mapping[str, dict[str, Any]] = {}
) -> Call[list[LimitState]]:
    """How these limits of a queue stand, each by its own name. `said`: what jobs say of them, as far as that is known."""
    found = script("admin_limit_look")

    def decode(reply: list[Any]) -> list[LimitState]:
        rules = {name.decode(): msgspec.msgpack.decode(packed) for name, packed in text_pairs(reply[1])}
        server_ms = int(reply[0])
        return [
            _limit_state(queue.name, name, row, rules, said.get(name), server_ms)
            for name, row in zip(names, reply[2:], strict=True)
        ]

    return Call(found, queue.block(found.keys), [LAYOUT_ARG, *names], decode)


def _limit_state(
    queue: str,
    name: str,
    row: list[Any],
    rules: Mapping[str, dict[str, Any]],
    said: dict[str, Any] | None,
    server_ms: int,
) -> LimitState:
    held_until, running, parked, opens, fills = row
    rule = rules.get(name)
    return LimitState(
        queue=queue,
        name=name,
        running=running,
        parked=parked,
        opens_ms=_optional_ms(opens),
        held_until_ms=_optional_ms(held_until),
        rule=rule,
        holds=rule or (None if said is None else rules.get(said["t"], said)),
        fills_ms=None if fills is None else float(fills),
        server_ms=server_ms,
    )


def _optional_ms(score: bytes | float | None) -> int | None:
    return None if score is None else int(float(score))


def list_limits(queue: QueueKeys) -> Steps[list[LimitState]]:
    """The limits that running jobs use, that hold jobs back, are held, or were changed; up to 1,000, sorted by name."""
    found = script("admin_limit_names")
    names, packed = yield Call(found, queue.block(found.keys), [LAYOUT_ARG], list)
    if not names:
        return []
    said = {name.decode(): msgspec.msgpack.decode(data) for name, data in zip(names, packed, strict=True) if data}
    states: list[LimitState] = yield look_at_limits(queue, sorted(_texts(names))[:MOST_LIMITS], said)
    return states


# -- failed jobs, by what went wrong


def ended_state(record: Record) -> State:
    """The state of a record that has ended."""
    return ENDED_STATES[Stored(record.state)]


def group_failures(queue: QueueKeys) -> Steps[list[ErrorGroup]]:
    """The failed jobs of a queue by fingerprint, the largest group first."""
    groups: dict[str, ErrorGroup] = {}
    cursor = ""
    while True:
        page = yield from list_jobs(queue, (State.FAILED,), cursor=cursor, limit=JOBS_A_CALL)
        for row in page.rows:
            kind, message = error_of(row.record)
            found = groups.setdefault(
                fingerprint(row.record),
                ErrorGroup(
                    fingerprint=fingerprint(row.record),
                    queue=queue.name,
                    task=row.record.task,
                    type=kind,
                    message=message,
                    count=0,
                    last_at_ms=0,
                    example=row.id,
                ),
            )
            found.count += 1
            if row.record.ended_at_ms > found.last_at_ms:
                found.last_at_ms, found.example, found.message = (
                    row.record.ended_at_ms,
                    row.id,
                    message,
                )
        cursor = page.cursor
        if not cursor:
            return sorted(groups.values(), key=lambda group: -group.count)


# -- workers


def list_workers(prefix: str) -> Steps[list[Worker]]:
    """The workers that have shown themselves in the last 30 s; older entries are dropped."""
    key = workers_key(prefix)
    server_ms: int = yield server_time_ms(key)
    fields: dict[bytes, bytes] = yield command("HGETALL", key, key=key, decode=lambda reply: dict(text_pairs(reply)))
    workers: list[Worker] = []
    gone: list[str] = []
    for field, value in fields.items():
        name = field.decode()
        if name.startswith("!"):
            if field[1:] not in fields:
                gone.append(name)
            continue
        beat_at, _, info = value.partition(b" ")
        if server_ms - int(beat_at) > WORKER_IS_GONE_AFTER_MS:
            gone += (name, f"!{name}")
        else:
            workers.append(
                Worker(
                    name,
                    int(beat_at),
                    msgspec.msgpack.decode(info, type=dict[str, Any]),
                )
            )
    if gone:
        yield command("HDEL", key, *gone, key=key, decode=lambda _: None)
    return sorted(workers, key=lambda worker: worker.id)


def send_command(prefix: str, worker_id: str, name: str) -> Call[bool]:
    """Leave "stop", "kill", "quiet", "resume" or "stacks" for a worker; False: there is no such worker."""
    return Call(
        script("admin_command"),
        [workers_key(prefix)],
        [LAYOUT_ARG, worker_id, name],
        bool,
    )


def note_action(prefix: str, note: bytes) -> Call[None]:
    """Keep a note of what an operator did, with the last 1,000."""
    return Call(script("admin_audit"), [audit_key(prefix)], [LAYOUT_ARG, note], lambda _: None)


def list_actions(prefix: str, count: int = 200) -> Call[list[bytes]]:
    """The last notes, the newest first."""
    key = audit_key(prefix)
    return command("LRANGE", key, 0, count - 1, key=key, decode=list)


def server_time_ms(key: bytes | str) -> Call[int]:
    """The clock of the server that holds this key."""
    return command(
        "TIME",
        key=key,
        decode=lambda reply: int(reply[0]) * 1000 + int(reply[1]) // 1000,
    )
