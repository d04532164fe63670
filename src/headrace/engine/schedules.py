"""Schedules in Redis: added, declared, changed, looked at and fired, as generators of Calls.

Each change is a look, a decision in `core.schedule` and a write that counts only if nobody wrote since the look; so one
of any number of workers fires a tick, and the tick, its jobs and the next one are written together. A call sent again
after a lost reply knows its own write. All of a schedule lives in the slot of the queue that it enqueues to.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from headrace.core import schedule as core
from headrace.core.record import LAYOUT, JobOptions, Record, Stored, encode
from headrace.core.schedule import Entry, Pause, Spec, decode_entry, encode_entry
from headrace.engine import ops
from headrace.engine.admin import queue_names
from headrace.engine.call import Arg, Call, Steps, script
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.engine.ops import LAYOUT_ARG
from headrace.errors import JobNotFound, ScheduleExists, ScheduleNotFound, ServerBusy, ServerCorrupt, UsageError

TRIES = 20
DUE_A_LOOK = 100
DECLARED_FOR_MS = 60_000
"""How long a declaration holds after the last word of a worker that has it in its code."""


class Declared(msgspec.Struct, frozen=True):
    """A schedule as code declares it."""

    name: str
    queue: str
    spec: Spec

    @property
    def digest(self) -> str:
        return core.digest_of(self.spec)


class Found(msgspec.Struct, frozen=True):
    """A schedule as it stands in a queue. `data`: the entry as stored, to compare with at a write.

    `look_at_ms`: when a worker looks at it next; None: nobody does. `is_held`: running code declares it.
    """

    queue: QueueKeys
    name: str
    entry: Entry
    data: bytes
    look_at_ms: int | None
    is_held: bool
    server_ms: int

    @property
    def state(self) -> str:
        """active, paused, ended, or undeclared: as code has it no longer, it makes no jobs."""
        if self.entry.is_declared and not self.is_held:
            return "undeclared"
        return self.entry.state


class Fired(msgspec.Struct, frozen=True):
    """What came of a due schedule: the ids of its jobs; or why there are none, "" when that is as it should be."""

    name: str
    ids: list[str]
    late_ms: int = 0
    problem: str = ""


def look_at(entry: Entry) -> str:
    return str(entry.next_ms) if entry.state == "active" else ""


# -- looking


class Raw(msgspec.Struct, frozen=True):
    """A schedule as it is stored; the entry may be unreadable."""

    name: str
    data: bytes
    look_at_ms: int | None
    lease_end_ms: float


def look_raw(queue: QueueKeys, names: Sequence[str], due: int = 0) -> Steps[tuple[int, list[Raw]]]:
    """The server's time, and these schedules (none named: all); or the first `due` whose tick has come."""
    found = script("schedule_look")
    reply: list[Any] = yield Call(found, queue.block(found.keys), [LAYOUT_ARG, due, *names], list)
    rows: list[Raw] = []
    for at in range(1, len(reply), 4):
        name, data, look, lease = reply[at : at + 4]
        look_at_ms = None if look is None else int(float(look))
        rows.append(Raw(name.decode(), data, look_at_ms, 0.0 if lease is None else float(lease)))
    return int(reply[0]), rows


def _read(queue: QueueKeys, raw: Raw, server_ms: int) -> Found:
    try:
        entry = decode_entry(raw.data)
    except msgspec.MsgspecError as error:
        raise ServerCorrupt(
            f"schedule {raw.name!r} of queue {queue.name!r} cannot be read ({error}): headrace check tells more"
        ) from error
    return Found(queue, raw.name, entry, raw.data, raw.look_at_ms, raw.lease_end_ms > server_ms, server_ms)


def _look(queue: QueueKeys, names: Sequence[str]) -> Steps[tuple[int, list[Found]]]:
    """As `look_raw`, read.

    Raises:
        ServerCorrupt: an entry is none of ours.
    """
    server_ms, rows = yield from look_raw(queue, names)
    return server_ms, [_read(queue, raw, server_ms) for raw in rows]


def _look_at_one(queue: QueueKeys, name: str) -> Steps[tuple[int, Found | None]]:
    server_ms, rows = yield from _look(queue, [name])
    return server_ms, rows[0] if rows else None


def list_schedules(prefix: str, queue: str | None = None) -> Steps[list[Found]]:
    """All schedules of a queue, or of all queues, by name."""
    names = [queue] if queue is not None else (yield queue_names(prefix))
    rows: list[Found] = []
    for name in names:
        rows += (yield from _look(queue_keys(name, prefix), ()))[1]
    return sorted(rows, key=lambda row: (row.name, row.queue.name))


def find(prefix: str, name: str, queue: str | None = None) -> Steps[Found]:
    """The schedule of that name, looked for in all queues unless one is given.

    Raises:
        ScheduleNotFound
        UsageError: two queues have one of that name.
    """
    core.check_schedule_name(name)
    names = [queue] if queue is not None else (yield queue_names(prefix))
    found: list[Found] = []
    for each in names:
        _, row = yield from _look_at_one(queue_keys(each, prefix), name)
        found += [row] if row is not None else []
    if not found:
        where = f"queue {queue!r}" if queue else f"any queue under the prefix {prefix!r}"
        raise ScheduleNotFound(f"no schedule {name!r} in {where}")
    if len(found) > 1:
        queues = ", ".join(row.queue.name for row in found)
        raise UsageError(f"schedule {name!r} is in the queues {queues}: say which")
    return found[0]


# -- writing


def _put(queue: QueueKeys, name: str, old: bytes | None, entry: Entry | None, lease_ms: int = 0) -> Call[bool]:
    found = script("schedule_put")
    new, at = (b"", "") if entry is None else (encode_entry(entry), look_at(entry))
    args: list[Arg] = [LAYOUT_ARG, name, _sha(old), new, at, lease_ms]
    return Call(found, queue.block(found.keys), args, lambda reply: bytes(reply) == b"done")


def put_back(queue: QueueKeys, name: str, data: bytes, entry: Entry) -> Call[bool]:
    """Let a schedule be looked at when its entry says, if that is still its entry."""
    found = script("schedule_put")
    args: list[Arg] = [LAYOUT_ARG, name, _sha(data), data, look_at(entry), 0]
    return Call(found, queue.block(found.keys), args, lambda reply: bytes(reply) == b"done")


def _sha(data: bytes | None) -> str:
    return "" if data is None else hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _written(entry: Entry) -> Entry:
    """With a word of its own, by which a write that is sent twice knows itself."""
    return msgspec.structs.replace(entry, written=secrets.token_hex(6))


def _change(row: Found, decide: Callable[[Entry, int], Entry]) -> Steps[Found]:
    """Change a schedule, however often others change it meanwhile: `decide` is asked anew each time."""
    current: Found | None = row
    for _ in range(TRIES):
        if current is None:
            raise ScheduleNotFound(f"no schedule {row.name!r}: it has just been removed")
        new = decide(current.entry, current.server_ms)
        if new == current.entry:
            return current
        new = _written(new)
        if (yield _put(row.queue, row.name, current.data, new)):
            return msgspec.structs.replace(current, entry=new, data=encode_entry(new))
        _, current = yield from _look_at_one(row.queue, row.name)
    raise ServerBusy(f"schedule {row.name!r} is changed too often by others; try again")


def add(queue: QueueKeys, name: str, spec: Spec) -> Steps[Found]:
    """Make a schedule at run time.

    Raises:
        ScheduleExists
    """
    core.check_schedule_name(name)
    yield ops.announce_queues(queue.prefix, [queue.name])
    mark = secrets.token_hex(6)
    for other in (yield from list_schedules(queue.prefix)):
        if other.name == name:
            raise ScheduleExists(f"there is a schedule {name!r} in queue {other.queue.name!r}: change it, or remove it")
    server_ms, _ = yield from _look(queue, [name])
    entry = Entry(core.RUNTIME, spec, core.next_tick(spec, server_ms), mark, server_ms)
    if not (yield _put(queue, name, None, entry)):
        raise ScheduleExists(f"there is a schedule {name!r} in queue {queue.name!r}: change it, or remove it")
    return Found(queue, name, entry, encode_entry(entry), entry.next_ms or None, False, server_ms)


def pause(row: Found, reason: str) -> Steps[Found]:
    """Make no jobs until `resume`."""

    def decide(entry: Entry, now_ms: int) -> Entry:
        if entry.pause is not None and entry.pause.reason == reason:
            return entry
        return msgspec.structs.replace(entry, pause=Pause(reason, now_ms), waiting_ms=0)

    return _change(row, decide)


def resume(row: Found) -> Steps[Found]:
    """Go on with the next tick after now: what came while it was paused is not caught up."""

    def decide(entry: Entry, now_ms: int) -> Entry:
        if entry.pause is None:
            return entry
        return msgspec.structs.replace(entry, pause=None, next_ms=core.next_tick(entry.now, now_ms))

    return _change(row, decide)


def skip(row: Found, count: int) -> Steps[Found]:
    """Leave out the next `count` ticks."""
    if row.state != "active":
        raise UsageError(f"schedule {row.name!r} is {row.state}: there is no tick to skip")
    after = core.next_ticks(row.entry.now, max(row.entry.next_ms - 1, row.server_ms), count + 1)
    until_ms = after[count] if len(after) > count else 0

    def decide(entry: Entry, now_ms: int) -> Entry:
        # Worked out once: asked again, it skips no more.
        if 0 < until_ms <= entry.next_ms or entry.next_ms == 0:
            return entry
        return msgspec.structs.replace(entry, next_ms=until_ms, waiting_ms=0)

    return _change(row, decide)


def change(row: Found, fields: Mapping[str, Any], by: str) -> Steps[Found]:
    """Override fields of the spec; what code declares stays beside them."""
    return _change(row, lambda entry, now_ms: core.changed(entry, fields, by, now_ms))


def reset(row: Found) -> Steps[Found]:
    """Drop what was changed at run time."""
    return _change(row, lambda entry, now_ms: entry if entry.change is None else core.reset(entry, now_ms))


def remove(row: Found) -> Steps[None]:
    """Delete a schedule; jobs it has made stay.

    Raises:
        UsageError: running code declares it, and would again.
    """
    current: Found | None = row
    for _ in range(TRIES):
        if current is None:
            return
        if current.entry.is_declared and current.is_held:
            raise UsageError(
                f"schedule {row.name!r} is declared by running workers' code: pause it, or take it out of the code"
            )
        if (yield _put(row.queue, row.name, current.data, None)):
            return
        _, current = yield from _look_at_one(row.queue, row.name)
    raise ServerBusy(f"schedule {row.name!r} is changed too often by others; try again")


def run_now(row: Found) -> Steps[tuple[str, bytes]]:
    """Make a job now, beside the ticks, whatever the overlap says; returns its id and record."""
    current: Found | None = row
    job_id = f"run:{row.name}:{core.instant_text(row.server_ms)}-{secrets.token_hex(3)}"
    for _ in range(TRIES):
        if current is None:
            raise ScheduleNotFound(f"no schedule {row.name!r}: it has just been removed")
        record = _record(current.entry.now, current.server_ms)
        if job_id in current.entry.live:
            return job_id, record  # a reply was lost, and others have written since
        entry = current.entry
        live = [*entry.live, job_id][-core.LIVE_KEPT :]
        new = _written(msgspec.structs.replace(entry, last_id=job_id, live=live, fired=entry.fired + 1))
        if (yield _fire(current, new, [(job_id, record, current.server_ms)], tick=None, guards=())) == "done":
            return job_id, record
        _, current = yield from _look_at_one(row.queue, row.name)
    raise ServerBusy(f"schedule {row.name!r} is changed too often by others; try again")


# -- what code declares


def declare(prefix: str, declared: Declared, *, is_start: bool) -> Steps[str]:
    """Make a schedule what this code says; "" or why that cannot be.

    It keeps its next tick unless its times have changed, and what was changed at run time; also when it has moved here
    from another queue. `is_start`: a worker starts with this code, so that it counts more than that of older ones.
    """
    queue = queue_keys(declared.queue, prefix)
    yield ops.announce_queues(prefix, [declared.queue])
    moved: Found | None = None
    _, here = yield from _look_at_one(queue, declared.name)
    if here is None or is_start:
        for row in (yield from list_schedules(prefix)):
            if row.name != declared.name or row.queue.name == declared.queue:
                continue
            if not row.entry.is_declared:
                return f"queue {row.queue.name!r} has one of that name that was added at run time"
            if row.is_held and not is_start:
                return ""  # newer code has it there
            if (yield _put(row.queue, row.name, row.data, None)):
                moved = row
    for _ in range(TRIES):
        server_ms, here = yield from _look_at_one(queue, declared.name)
        old = here or moved
        if old is None:
            first_ms = core.next_tick(declared.spec, server_ms)
            entry = Entry(declared.digest, declared.spec, first_ms, secrets.token_hex(6), server_ms)
        elif not old.entry.is_declared:
            return "there is one of that name that was added at run time"
        else:
            entry = core.declared_again(old.entry, declared.spec, server_ms)
            is_right = here is not None and here.look_at_ms == (int(look_at(entry)) if look_at(entry) else None)
            if not is_right or entry != old.entry:
                entry = _written(entry)
        if (yield _put(queue, declared.name, None if here is None else here.data, entry, DECLARED_FOR_MS)):
            return ""
    raise ServerBusy(f"schedule {declared.name!r} is changed too often by others; try again")


def renew(prefix: str, declared: Sequence[Declared]) -> Steps[list[Declared]]:
    """Say that running code declares these; returns those that the server has not, or no longer, from any."""
    found = script("schedule_renew")
    astray: list[Declared] = []
    by_queue: dict[str, list[Declared]] = {}
    for each in declared:
        by_queue.setdefault(each.queue, []).append(each)
    for name, some in by_queue.items():
        queue = queue_keys(name, prefix)
        pairs: list[Arg] = [word for each in some for word in (each.name, each.digest)]
        states: list[str] = yield Call(
            found,
            queue.block(found.keys),
            [LAYOUT_ARG, DECLARED_FOR_MS, *pairs],
            lambda reply: [s.decode() for s in reply],
        )
        astray += [each for each, state in zip(some, states, strict=True) if state in ("missing", "idle", "lapsed")]
    return astray


# -- firing


def fire_due(queue: QueueKeys, mine: Mapping[str, Declared]) -> Steps[tuple[list[Fired], bool]]:
    """Make the jobs of schedules whose tick has come; `mine`: what this worker's code declares. True: look again."""
    server_ms, rows = yield from look_raw(queue, (), due=DUE_A_LOOK)
    fired: list[Fired] = []
    is_more = False
    for raw in rows:
        try:
            row = _read(queue, raw, server_ms)
        except ServerCorrupt as error:
            fired.append(Fired(raw.name, [], problem=str(error)))  # the others are fired all the same
            continue
        declared = mine.get(row.name)
        if row.entry.is_declared and not row.is_held and declared is not None:
            # Its declaration has run out while the server or its clock was away; this worker's code has it still.
            astray = yield from renew(queue.prefix, [declared])
            for each in astray:
                yield from declare(queue.prefix, each, is_start=False)
            is_more = True
        else:
            fired += yield from _fire_one(row)
    return fired, is_more or any(one.ids for one in fired)


def _fire_one(row: Found) -> Steps[list[Fired]]:
    entry, now_ms = row.entry, row.server_ms
    spec, turn = entry.now, core.turn(entry, now_ms)
    jobs = [
        (core.tick_id(row.name, tick), _record(spec, now_ms), core.start_of(row.name, spec, tick))
        for tick in turn.ticks
    ]
    ids = [job_id for job_id, _, _ in jobs]
    after = msgspec.structs.replace(entry, next_ms=turn.next_ms, waiting_ms=0)
    new = after
    if ids:
        new = msgspec.structs.replace(
            after, last_ms=turn.ticks[-1], last_id=ids[-1], live=ids[-core.LIVE_KEPT :], fired=entry.fired + len(ids)
        )
    guards = entry.live if spec.overlap != "allow" and ids else ()
    answer = yield _fire(row, _written(new), jobs, tick=entry.next_ms, guards=guards)
    if answer == "done":
        late_ms = now_ms - entry.next_ms
        return [Fired(row.name, ids, late_ms)]
    if answer == "lapsed":
        return (yield from _set_aside(row))
    if isinstance(answer, list):
        return (yield from _overlapped(row, after, answer))
    return []  # another worker has it


def _overlapped(row: Found, after: Entry, live: list[str]) -> Steps[list[Fired]]:
    """The tick has come, and these jobs have not ended."""
    overlap = row.entry.now.overlap
    if overlap == "skip":
        new = _written(msgspec.structs.replace(after, live=live, skipped=row.entry.skipped + 1))
        answer = yield _fire(row, new, (), tick=row.entry.next_ms, guards=())
        problem = f"skipped a tick: job {live[-1]} has not ended"
        return [Fired(row.name, [], problem=problem)] if answer == "done" else []
    first: list[Fired] = []
    if not row.entry.waiting_ms:
        new = _written(msgspec.structs.replace(row.entry, waiting_ms=row.entry.next_ms))
        if (yield _put(row.queue, row.name, row.data, new)):
            verb = "cancels" if overlap == "cancel" else "waits for"
            first = [Fired(row.name, [], problem=f"{verb} job {live[-1]}, which has not ended")]
    if overlap == "cancel":
        for job_id in live:
            try:
                yield from ops.cancel(row.queue, job_id)
            except JobNotFound:
                continue  # it has ended meanwhile, and is gone
    return first


def _set_aside(row: Found) -> Steps[list[Fired]]:
    """No code that runs declares it, as far as the server knows."""
    new = _written(msgspec.structs.replace(row.entry, is_orphan=True))
    if (yield _put(row.queue, row.name, row.data, new)):
        return [Fired(row.name, [], problem="makes no more jobs: no running code declares it")]
    return []


def _fire(
    row: Found, new: Entry, jobs: Sequence[tuple[str, bytes, int]], *, tick: int | None, guards: Sequence[str]
) -> Call[str | list[str]]:
    found = script("fire")
    args: list[Arg] = [LAYOUT_ARG, row.name, _sha(row.data), "" if tick is None else tick]
    args += (int(tick is not None and row.entry.is_declared), len(guards), *guards, encode_entry(new), look_at(new))
    for job_id, record, start_ms in jobs:
        args += (job_id, record, start_ms, int(new.now.at_front), new.now.ties)
    return Call(found, row.queue.block(found.keys), args, _read_fired)


def _read_fired(reply: Any) -> str | list[str]:
    return reply.decode() if isinstance(reply, bytes) else [job_id.decode() for job_id in reply]


def _record(spec: Spec, now_ms: int) -> bytes:
    expires_at_ms = now_ms + spec.expires_in_ms if spec.expires_in_ms else 0
    options = spec.options
    if spec.ties or spec.deadline_in_ms:
        deadline_ms = now_ms + spec.deadline_in_ms if spec.deadline_in_ms else 0
        options = msgspec.structs.replace(options or JobOptions(), ties=spec.ties or None, deadline_ms=deadline_ms)
        if deadline_ms and (not expires_at_ms or deadline_ms < expires_at_ms):
            expires_at_ms = deadline_ms
    payload = msgspec.Raw(spec.payload)
    return encode(Record(LAYOUT, Stored.LIVE, expires_at_ms, spec.priority, spec.task, payload, now_ms, options))
