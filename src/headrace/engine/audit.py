"""The invariants of a queue: what `headrace check` and the tests look at, and how what breaks them is mended.

Each live job stands in exactly one place, each entry has a record, ended jobs are where ended jobs are kept, what is
kept beside a job belongs to a job, and the totals add up. A small queue is read at one instant. A larger one is
scanned while it moves, and each job that looks wrong is looked at again in one atomic script. So only what is really
wrong is reported, also while workers run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from headrace.core.record import Stored
from headrace.core.schedule import decode_entry, instant_text
from headrace.core.ties import limits_in, weighs
from headrace.engine import index, schedules
from headrace.engine.admin import QueueCounts, count_jobs, text_pairs
from headrace.engine.call import Arg, Call, Steps, command, script
from headrace.engine.keys import QueueKeys
from headrace.engine.ops import LAYOUT_ARG
from headrace.engine.stats import Unit

MOST_REPORTED = 200
IDS_A_LOOK = 8
MOST_AT_ONCE = 1_000
BYTES_AT_ONCE = 4 << 20
ROUNDS = 1_000
DAY_MS = 86_400_000
KEEP_MS = {Stored.FAILED: 30 * DAY_MS}
LEVEL = 1 << 44
MISSING, UNREADABLE = -1, 0


class Violation(msgspec.Struct, frozen=True):
    """`rule`: place, record, order, session, beside, unique, limit, counters, meta, schedule, index or history; `job_id`: "" when it is about no single job."""

    queue: str
    rule: str
    message: str
    job_id: str = ""


class Audit(msgspec.Struct, frozen=True):
    """`truncated`: there were more candidates than were looked at again."""

    queue: str
    jobs: int
    violations: list[Violation]
    truncated: bool = False


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """Where one job stands: how often in each list, whether in each set, and what is kept beside it.

    `state`: its record's state byte, MISSING or UNREADABLE. `rank`: its score in `priority`. `holders`: the sessions
    that hold it, the one with the longest lease last. `tokens`: its entry in `watched`. `ages`: the queue's scores grow
    with age, so that they do not tell the priority.
    """

    state: int = MISSING
    priority: int = 0
    ready: int = 0
    rank: float | None = None
    delayed: bool = False
    suspects: int = 0
    done: bool = False
    dead: bool = False
    holders: tuple[str, ...] = ()
    crashes: bool = False
    cancels: bool = False
    tokens: bytes = b""
    progress: bool = False
    lingering: bool = False
    ties: bool = False
    has_group: bool = False
    group: int = 0
    parked: bool = False
    waiting: bool = False
    kept: bool = False
    ages: bool = False

    def places(self) -> dict[str, int]:
        """How often it stands in each place, where it does."""
        counts = {
            "ready": self.ready, "priority": int(self.rank is not None), "delayed": int(self.delayed),
            "suspects": self.suspects, "done": int(self.done), "dead": int(self.dead), "held": len(self.holders),
            "group": self.group, "parked": int(self.parked), "waiting": int(self.waiting),
        }  # fmt: skip
        return {name: count for name, count in counts.items() if count}


# -- what is wrong with one job, and where it belongs


def faults(seat: Seat) -> list[tuple[str, str]]:
    """(rule, message) of each thing that is wrong with a job that stands so."""
    places = seat.places()
    where = ", ".join(name if count == 1 else f"{name} {count} times" for name, count in places.items())
    if seat.state == UNREADABLE:
        return [("record", "has a record that cannot be read: delete the job, or put its record right by hand")]
    is_lingering = seat.lingering and seat.ready == 1 and seat.state in (Stored.CANCELLED, MISSING)
    found: list[tuple[str, str]] = []
    if seat.lingering and not is_lingering:
        found.append(("beside", "is noted as an entry that lingers, but is none"))
    if is_lingering:
        del places["ready"]
    if seat.state == MISSING:
        if places:
            found.append(("record", f"stands in {where}, but has no record"))
        if seat.kept:
            found.append(("beside", "has a stream, a log or notes, but no record"))
    elif seat.state == Stored.LIVE:
        found += _faults_of_live(seat, places, where)
    else:
        home = "dead" if seat.state == Stored.FAILED else "done"
        if set(places) != {home}:
            name = Stored(seat.state).name.lower()
            found.append(("place", f"has ended ({name}), and stands in {where or 'no place'}"))
    if seat.state != Stored.LIVE:
        kept = [name for name in ("crashes", "cancels", "progress", "ties") if getattr(seat, name)]
        kept += ["watched"] if seat.tokens else []
        found += (("beside", f"is in {name!r}, but is not live") for name in kept)
    return found


def _faults_of_live(seat: Seat, places: dict[str, int], where: str) -> Iterator[tuple[str, str]]:
    if not places:
        yield "place", "has not ended, but stands nowhere: no worker will find it"
    elif sum(places.values()) > 1 or "done" in places or "dead" in places:
        yield "place", f"has not ended, and stands in {where}"
    elif seat.crashes and not (seat.suspects or seat.holders):
        yield "beside", f"is in 'crashes', but stands in {where}"
    elif seat.suspects and not seat.crashes:
        yield "beside", "is among the suspects, but not in 'crashes'"
    elif seat.has_group and (seat.ready or seat.rank is not None):
        yield "order", "has a group, but does not stand in it"
    elif (seat.ready and seat.priority) or (
        seat.rank is not None and not seat.ages and seat.rank // LEVEL != 100 - seat.priority
    ):
        yield "order", f"has priority {seat.priority}, but does not stand where that belongs"
    words = seat.tokens.split()
    for name, token in (("cancels", b"c"), ("progress", b"p"), ("kept", b"k")):
        if getattr(seat, name) and token not in words:
            yield "beside", f"is in {name!r}, but its end would leave that behind"


def home_of(seat: Seat) -> tuple[str, Arg] | None:
    """The one place for a job that stands so, and what `admin_mend` needs to put it there; None: nobody can tell.

    Who holds a live job keeps it; a suspect stays one; a place where it may be claimed goes before a later one; and
    what stands nowhere goes back to the queue.
    """
    if seat.state == UNREADABLE:
        return None
    if seat.state == MISSING:
        return "none", ""
    if seat.state != Stored.LIVE:
        return "dead" if seat.state == Stored.FAILED else "done", KEEP_MS.get(Stored(seat.state), DAY_MS)
    if seat.holders:
        return "held", seat.holders[-1]
    if seat.suspects or (seat.crashes and not seat.delayed):
        return "suspects", ""
    is_ready = seat.ready or seat.group or seat.rank is not None
    if seat.delayed and not is_ready:
        return "delayed", ""
    if seat.parked and not is_ready:
        return "parked", ""
    if seat.waiting and not is_ready:
        return "waiting", ""
    if seat.has_group:
        return "group", ""
    return "priority" if seat.priority or (seat.ages and seat.rank is not None) else "ready", ""


# -- a queue, whole


class Places(msgspec.Struct):
    """All of a queue but the text of its records; read at one instant, or scanned. `marks`: state and priority."""

    marks: dict[str, bytes]
    ready: Counter[str]
    suspects: Counter[str]
    priority: dict[str, float]
    delayed: set[str]
    done: set[str]
    dead: set[str]
    held: dict[str, set[str]]
    crashes: set[str]
    cancels: set[str]
    watched: dict[str, bytes]
    progress: set[str]
    lingering: set[str]
    unique: dict[str, str]
    ties: set[str]
    grouped: set[str]
    parked: set[str]
    groups: Counter[str]
    waiting: set[str]
    kept: set[str]
    ages: bool

    def ids(self) -> set[str]:
        return set().union(
            self.marks, self.ready, self.suspects, self.priority, self.delayed, self.done, self.dead,
            *self.held.values(), self.crashes, self.cancels, self.watched, self.progress, self.lingering,
            self.ties, self.parked, self.groups, self.waiting, self.kept,
        )  # fmt: skip

    def seat(self, job_id: str) -> Seat:
        state, priority = _read_mark(self.marks.get(job_id, b""))
        return Seat(
            state=state,
            priority=priority,
            ready=self.ready[job_id],
            rank=self.priority.get(job_id),
            delayed=job_id in self.delayed,
            suspects=self.suspects[job_id],
            done=job_id in self.done,
            dead=job_id in self.dead,
            holders=tuple(session for session, ids in self.held.items() if job_id in ids),
            crashes=job_id in self.crashes,
            cancels=job_id in self.cancels,
            tokens=self.watched.get(job_id, b""),
            progress=job_id in self.progress,
            lingering=job_id in self.lingering,
            ties=job_id in self.ties,
            has_group=job_id in self.grouped,
            group=self.groups[job_id],
            parked=job_id in self.parked,
            waiting=job_id in self.waiting,
            kept=job_id in self.kept,
            ages=self.ages,
        )


def audit(queue: QueueKeys) -> Steps[Audit]:
    """Check one queue, whole; changes nothing. Memory: about 300 bytes a job, here; nothing on the server."""
    places: Places | None = yield from _snapshot(queue)
    is_exact = places is not None
    if places is None:
        places = yield from _scan(queue)
    suspicious = sorted(job_id for job_id in places.ids() if faults(places.seat(job_id)))
    looked_at = suspicious[:MOST_REPORTED]
    seats = {job_id: places.seat(job_id) for job_id in looked_at}
    if not is_exact:
        seats = {job_id: seat for job_id, (seat, _) in (yield from _look(queue, looked_at)).items()}
    violations = [
        Violation(queue.name, rule, f"job {job_id} {message}", job_id)
        for job_id, seat in seats.items()
        for rule, message in faults(seat)
    ]
    counts = yield from count_jobs(queue)
    violations += yield from _check_sessions(queue, counts)
    violations += yield from _check_unique(queue, places)
    violations += yield from _check_slots(queue)
    violations += yield from _check_kept(queue)
    violations += yield from _check_meta(queue, is_held=any(places.held.values()))
    violations += yield from _check_schedules(queue)
    violations += yield from _check_history(queue)
    violations += yield from _check_index(queue, places)
    if not any(found.rule in ("place", "record") for found in violations):
        violations += _check_counters(counts)
    return Audit(queue.name, len(places.marks), violations, len(suspicious) > MOST_REPORTED)


def repair(queue: QueueKeys) -> Steps[Audit]:
    """Mend what can be mended; returns what a look afterwards finds. Safe while workers run, and to run again.

    A job goes to the place that `home_of` names; entries without a record are dropped; totals that do not add up get
    the difference as `mended`.
    """
    report: Audit = yield from audit(queue)
    for _ in range(ROUNDS):
        if not report.violations:
            break
        yield from _mend_queue(queue)
        if any(found.rule == "schedule" for found in report.violations):
            yield from _mend_schedules(queue)
        if any(found.rule == "index" for found in report.violations):
            yield from _mend_index(queue)
        ids = sorted({found.job_id for found in report.violations if found.job_id})
        mended = yield from _mend_jobs(queue, ids)
        if not mended or not report.truncated:
            break
        report = yield from audit(queue)
    report = yield from audit(queue)
    if [found.rule for found in report.violations] == ["counters"]:
        off = _missing((yield from count_jobs(queue)))
        yield command("HINCRBY", queue.stats, "mended", off, key=queue.stats, decode=int)
        report = yield from audit(queue)
    return report


def _texts(reply: Iterable[bytes]) -> list[str]:
    return [item.decode() for item in reply]


def _read_mark(mark: bytes) -> tuple[int, int]:
    return (mark[0], mark[1] - 101) if mark else (MISSING, 0)


def _call(name: str, queue: QueueKeys, args: Iterable[Arg]) -> Call[Any]:
    found = script(name)
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, *args], lambda reply: reply)


# -- reading


def _snapshot(queue: QueueKeys) -> Steps[Places | None]:
    """A small queue at one instant; None when it is not small."""
    reply = yield _call("admin_snapshot", queue, (MOST_AT_ONCE, BYTES_AT_ONCE))
    if reply is None:
        return None
    (
        ids, marks, ready, suspects, priority, delayed, done, dead, held, crashes, cancels, watched, progress, lingering,
        unique, ties, grouped, parked, lanes, waiting, kept, ages,
    ) = reply  # fmt: skip
    return Places(
        marks=dict(zip(_texts(ids), marks, strict=True)),
        ready=Counter(_texts(ready)),
        suspects=Counter(_texts(suspects)),
        priority={name.decode(): float(score) for name, score in text_pairs(priority)},
        delayed=set(_texts(delayed)),
        done=set(_texts(done)),
        dead=set(_texts(dead)),
        held={name.decode(): set(_texts(jobs)) for name, jobs in text_pairs(held[:])},
        crashes=set(_texts(crashes)),
        cancels=set(_texts(cancels)),
        watched={name.decode(): tokens for name, tokens in text_pairs(watched)},
        progress=set(_texts(progress)),
        lingering=set(_texts(lingering)),
        unique={name.decode(): job_id.decode() for name, job_id in text_pairs(unique)},
        ties=set(_texts(ties)),
        grouped=set(_texts(grouped)),
        parked=set(_texts(parked)),
        groups=Counter(job_id for _, jobs in text_pairs(lanes) for job_id in _texts(jobs)),
        waiting=set(_texts(waiting)),
        kept=set(_texts(kept)),
        ages=bool(ages),
    )


def _scan(queue: QueueKeys) -> Steps[Places]:
    """A queue of any size, slice by slice, while it moves."""
    marks = yield from _scan_records(queue)
    ready = yield from _scan_list(queue.ready)
    suspects = yield from _scan_list(queue.suspects)
    found: dict[str, dict[str, bytes]] = {}
    for name in ("priority", "delayed", "done", "dead"):
        found[name] = yield from _scan_pairs("ZSCAN", getattr(queue, name))
    for name in ("crashes", "watched", "progress", "unique"):
        found[name] = yield from _scan_pairs("HSCAN", getattr(queue, name))
    for name in ("cancels", "lingering"):
        found[name] = yield from _scan_members(getattr(queue, name))
    tied = yield from _scan_pairs("HSCAN", queue.ties)
    parked = yield from _scan_pairs("ZSCAN", _key(queue, "parked"))
    waiting = yield from _scan_pairs("HSCAN", _key(queue, "waiting"))
    kept = yield from _scan_pairs("HSCAN", _key(queue, "kept"))
    groups: Counter[str] = Counter()
    for group in (yield from _scan_pairs("ZSCAN", _key(queue, "groups"))):
        if group:
            groups += yield from _scan_list(_key(queue, f"group:{group}"))
    held: dict[str, set[str]] = {}
    for session in (yield from _sessions(queue)):
        key = queue.held(session)
        held[session] = set((yield command("SMEMBERS", key, key=key, decode=_texts)))
    return Places(
        marks=marks,
        ready=ready,
        suspects=suspects,
        priority={job_id: float(score) for job_id, score in found["priority"].items()},
        delayed=set(found["delayed"]),
        done=set(found["done"]),
        dead=set(found["dead"]),
        held=held,
        crashes=set(found["crashes"]),
        cancels=set(found["cancels"]),
        watched=found["watched"],
        progress=set(found["progress"]),
        lingering=set(found["lingering"]),
        unique={name: job_id.decode() for name, job_id in found["unique"].items()},
        ties=set(tied),
        grouped={job_id for job_id, packed in tied.items() if "g" in msgspec.msgpack.decode(packed)},
        parked=set(parked),
        groups=groups,
        waiting=set(waiting),
        kept=set(kept),
        ages=(yield command("HEXISTS", queue.meta, "aged", key=queue.meta, decode=bool)),
    )


def _key(queue: QueueKeys, name: str) -> bytes:
    """A key that only jobs with ties need; see lua/include/ties.lua."""
    return (queue.base + name).encode()


def _sessions(queue: QueueKeys) -> Steps[list[str]]:
    sessions: list[str] = yield command("ZRANGE", queue.sessions, 0, -1, key=queue.sessions, decode=_texts)
    return sessions


def _scan_records(queue: QueueKeys) -> Steps[dict[str, bytes]]:
    found: dict[str, bytes] = {}
    shared: dict[bytes, bytes] = {}
    cursor = b"0"
    while True:
        cursor, ids, marks = yield _call("admin_scan", queue, (cursor,))
        found.update(zip(_texts(ids), (shared.setdefault(mark, mark) for mark in marks), strict=True))
        if int(cursor) == 0:
            return found


def _scan_list(key: bytes) -> Steps[Counter[str]]:
    counts: Counter[str] = Counter()
    first = 0
    while True:
        ids = yield command("LRANGE", key, first, first + 999, key=key, decode=_texts)
        counts.update(ids)
        first += 1000
        if len(ids) < 1000:
            return counts


def _scan_pairs(name: str, key: bytes) -> Steps[dict[str, bytes]]:
    """The fields of a hash, or the members of a sorted set."""
    found: dict[str, bytes] = {}
    cursor = b"0"
    while True:
        cursor, items = yield command(name, key, cursor, "COUNT", 500, key=key, decode=list)
        found.update((field.decode(), value) for field, value in text_pairs(items))
        if int(cursor) == 0:
            return found


def _scan_members(key: bytes) -> Steps[dict[str, bytes]]:
    found: dict[str, bytes] = {}
    cursor = b"0"
    while True:
        cursor, items = yield command("SSCAN", key, cursor, "COUNT", 500, key=key, decode=list)
        found.update(dict.fromkeys(_texts(items), b""))
        if int(cursor) == 0:
            return found


def _look(queue: QueueKeys, ids: list[str]) -> Steps[dict[str, tuple[Seat, bytes]]]:
    """Each job's seat, read in one script, and the words by which `admin_mend` knows that it has not changed."""
    found: dict[str, tuple[Seat, bytes]] = {}
    for first in range(0, len(ids), IDS_A_LOOK):
        some = ids[first : first + IDS_A_LOOK]
        for job_id, row in zip(some, (yield _call("admin_seats", queue, some)), strict=True):
            words = b"|".join(item if isinstance(item, bytes) else b"%d" % item for item in row)
            found[job_id] = (_read_seat(row), words)
    return found


def _read_seat(row: list[Any]) -> Seat:
    (
        mark, ready, rank, delayed, suspects, done, dead, holders, crashes, cancels, tokens, progress, lingering, ties,
        group, parked, waiting, kept, ages,
    ) = row  # fmt: skip
    state, priority = _read_mark(mark)
    return Seat(
        state=state,
        priority=priority,
        ready=ready,
        rank=float(rank) if rank else None,
        delayed=bool(delayed),
        suspects=suspects,
        done=bool(done),
        dead=bool(dead),
        holders=tuple(name for name in holders.decode().split("\0") if name),
        crashes=bool(crashes),
        cancels=bool(cancels),
        tokens=tokens,
        progress=bool(progress),
        lingering=bool(lingering),
        ties=bool(ties),
        has_group=ties == b"g",
        group=group,
        parked=bool(parked),
        waiting=bool(waiting),
        kept=bool(kept),
        ages=bool(ages),
    )


# -- what belongs to no single job


def _check_unique(queue: QueueKeys, places: Places) -> Steps[list[Violation]]:
    """A unique key names a live job; looked at twice, as that job may end in between."""
    wrong: list[Violation] = []
    for name, job_id in places.unique.items():
        if _read_mark(places.marks.get(job_id, b""))[0] == Stored.LIVE:
            continue
        record = yield command("HGET", queue.jobs, job_id, key=queue.jobs, decode=lambda reply: reply)
        held_by = yield command("HGET", queue.unique, name, key=queue.unique, decode=lambda reply: reply)
        key = _key(queue, "throttled")
        if (yield command("ZSCORE", key, name, key=key, decode=lambda reply: reply)) is not None:
            continue  # kept for a time, whatever its job does
        if held_by == job_id.encode() and (record is None or record[2] != Stored.LIVE):
            text = f"unique key {name!r} is held by job {job_id}, which is not live"
            wrong.append(Violation(queue.name, "unique", text, job_id))
    return wrong


def _orphans(queue: QueueKeys) -> Steps[list[str]]:
    """Sessions that have ended and still hold jobs: no sweep would look there."""
    prefix = queue.held("")
    found = {key[len(prefix) :].decode() for key in (yield from _keys_like(queue, prefix))}
    orphans: list[str] = []
    for session in sorted(found.difference((yield from _sessions(queue)))):
        held = queue.held(session)
        if (yield command("EXISTS", held, key=held, decode=bool)) and session not in (yield from _sessions(queue)):
            orphans.append(session)
    return orphans


def _check_sessions(queue: QueueKeys, counts: QueueCounts) -> Steps[list[Violation]]:
    orphans = yield from _orphans(queue)
    wrong = [
        Violation(queue.name, "session", f"session {name} has ended, but still holds jobs") for name in sorted(orphans)
    ]
    if counts.last_lease_end_ms - counts.server_ms > DAY_MS:
        text = "a session's lease lasts for more than a day: were its worker gone, nobody would take its jobs over"
        wrong.append(Violation(queue.name, "session", text))
    return wrong


def _check_slots(queue: QueueKeys) -> Steps[list[Violation]]:
    """A slot of a limit is held by a job that runs, or keeps it until it ends; looked at again, as that job may end in between."""
    wrong: list[Violation] = []
    for name, job_ids in (yield from _idle_slots(queue)).items():
        wrong += [
            Violation(queue.name, "limit", f"job {job_id} has a slot of the limit {name!r}, but does not run", job_id)
            for job_id in job_ids
        ]
    return wrong


def _idle_slots(queue: QueueKeys) -> Steps[dict[str, list[str]]]:
    """By limit, the jobs that have a slot, are held by nobody, and do not keep it between their runs."""
    prefix = _key(queue, "slots:")
    found: dict[str, list[str]] = {}
    for key in (yield from _keys_like(queue, prefix)):
        ids = sorted((yield from _scan_members(key)))
        name = key[len(prefix) :].decode()
        idle = [job_id for job_id, (seat, _) in (yield from _look(queue, ids)).items() if not seat.holders]
        still = []
        for job_id in idle:
            packed = yield command("HGET", queue.ties, job_id, key=key, decode=lambda reply: reply)
            is_kept = any(limit["n"] == name and limit.get("f") for limit in limits_in(packed))
            if not is_kept and (yield command("SISMEMBER", key, job_id, key=key, decode=bool)):
                still.append(job_id)
        if still:
            found[name] = still
    return found


def _check_kept(queue: QueueKeys) -> Steps[list[Violation]]:
    """A stream, a log, and notes are known in `kept`, or go by themselves soon."""
    text = "left a stream, a log or notes that nothing would delete"
    return [
        Violation(queue.name, "beside", f"job {job_id} {text}", job_id) for job_id, _ in (yield from _unnoted(queue))
    ]


def _unnoted(queue: QueueKeys) -> Steps[list[tuple[str, bytes]]]:
    """Each such key, and whose it is."""
    found: list[tuple[str, bytes]] = []
    noted = _key(queue, "kept")
    for name in ("stream:", "lines:", "notes:"):
        prefix = _key(queue, name)
        for key in (yield from _keys_like(queue, prefix)):
            job_id = key[len(prefix) :].decode()
            if (yield command("HEXISTS", noted, job_id, key=noted, decode=bool)):
                continue
            if (yield command("PTTL", key, key=key, decode=int)) == -1:
                found.append((job_id, key))
    return found


def _keys_like(queue: QueueKeys, prefix: bytes) -> Steps[list[bytes]]:
    """The keys that begin so. Reads all names of the server."""
    pattern = prefix.replace(b"[", b"\\[") + b"*"
    found: set[bytes] = set()
    cursor = b"0"
    while True:
        args = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        cursor, keys = yield command(*args, key=queue.jobs, decode=list)
        found.update(keys)
        if int(cursor) == 0:
            return sorted(found)


def _check_meta(queue: QueueKeys, *, is_held: bool) -> Steps[list[Violation]]:
    has_jobs = yield command("EXISTS", queue.jobs, key=queue.jobs, decode=bool)
    # Read after the jobs: both are there before the first job, and before the first claim.
    layout, fence = yield command("HMGET", queue.meta, "layout", "fence", key=queue.meta, decode=list)
    wrong: list[Violation] = []
    if layout is None and has_jobs:
        wrong.append(Violation(queue.name, "meta", "the queue has jobs, but does not say which layout it has"))
    if (fence is None and is_held) or (fence is not None and not fence.isdigit()):
        wrong.append(Violation(queue.name, "meta", "the last fence is not known: fences may repeat"))
    for job_id in (yield from _unweighed(queue)):
        text = (
            f"the queue does not say that claims must look at ties, as those of job {job_id}: its limits would not hold"
        )
        wrong.append(Violation(queue.name, "meta", text))
    return wrong


def _unweighed(queue: QueueKeys) -> Steps[list[str]]:
    """The first job whose ties a claim must look at, although `weighs` in meta does not say so; none, when all is well."""
    if (yield from _says_weighs(queue)):
        return []
    for job_id, packed in (yield from _scan_pairs("HSCAN", queue.ties)).items():
        if not weighs(packed):
            continue
        # It is said with the first such job, and taken back when no job has ties: only what is still there counts.
        is_said = yield from _says_weighs(queue)
        is_there = yield command("HEXISTS", queue.ties, job_id, key=queue.ties, decode=bool)
        if is_there and not is_said:
            return [job_id]
    return []


def _says_weighs(queue: QueueKeys) -> Steps[bool]:
    said: bool = yield command("HEXISTS", queue.meta, "weighs", key=queue.meta, decode=bool)
    return said


def _check_schedules(queue: QueueKeys) -> Steps[list[Violation]]:
    """Each schedule can be read, and is looked at when its next tick comes, and only then."""
    wrong: list[Violation] = []
    _, rows = yield from schedules.look_raw(queue, ())
    for raw in rows:
        try:
            entry = decode_entry(raw.data)
        except msgspec.MsgspecError:
            text = f"schedule {raw.name!r} has an entry that cannot be read: remove it from {queue.base}schedule_specs"
            wrong.append(Violation(queue.name, "schedule", text))
            continue
        wanted = schedules.look_at(entry)
        found = "" if raw.look_at_ms is None else str(raw.look_at_ms)
        if wanted != found:
            text = f"schedule {raw.name!r} is {entry.state}: its next tick is {_tick(wanted)}, but it stands at {_tick(found)}"
            wrong.append(Violation(queue.name, "schedule", text))
    known = {raw.name for raw in rows}
    names: list[str] = yield command("ZRANGE", queue.schedules, 0, -1, key=queue.schedules, decode=_texts)
    for name in names:
        if name not in known and not (yield from _has_schedule(queue, name)):
            wrong.append(Violation(queue.name, "schedule", f"schedule {name!r} is to be looked at, but has no entry"))
    return wrong


def _check_history(queue: QueueKeys) -> Steps[list[Violation]]:
    """Statistics are bounded: old buckets are dropped as new ones come."""
    wrong: list[Violation] = []
    for unit in Unit:
        key: bytes = getattr(queue, unit.key)
        count = yield command("HLEN", key, key=key, decode=int)
        most = unit.kept + unit.kept // 8 + 3
        if count > most:
            text = f"{count} buckets of statistics are kept in {unit.key!r}, more than {most}"
            wrong.append(Violation(queue.name, "history", text))
    return wrong


def _check_index(queue: QueueKeys, places: Places) -> Steps[list[Violation]]:
    """In a queue that keeps an index, each job is found by what its record says, and by nothing else."""
    if (yield index.state_of(queue)) != "1":
        return []
    wrong, strays = yield from _faults_of_index(queue, set(places.marks))
    text = "is not found by what its record says: the index is wrong there"
    found = [Violation(queue.name, "index", f"job {job_id} {text}", job_id) for job_id in wrong[:MOST_REPORTED]]
    return found + [
        Violation(queue.name, "index", f"the index names job {job_id!r} by {term!r}, which it does not have")
        for term, job_id in strays[:MOST_REPORTED]
    ]


def _faults_of_index(queue: QueueKeys, ids: set[str]) -> Steps[tuple[list[str], list[tuple[str, str]]]]:
    """The jobs that are not found by what they have; (term, job) where one is found by what it has not. Looked at again, as jobs move."""
    kept = yield from _scan_pairs("HSCAN", _key(queue, "index"))
    todo = sorted(ids.union(kept))
    wrong: list[str] = []
    for first in range(0, len(todo), index.IDS_A_CALL):
        wrong += yield index.wrong_ones(queue, todo[first : first + index.IDS_A_CALL])
    strays: list[tuple[str, str]] = []
    for term in (yield from _scan_pairs("ZSCAN", _key(queue, "terms"))):
        members = yield from _scan_pairs("ZSCAN", _key(queue, f"index:{term}"))
        some = [(term, job_id) for job_id in members if term.encode() not in kept.get(job_id, b"").split(b"\0")]
        strays += some if members else [(term, "")]
    again = (yield from _scan_pairs("HSCAN", _key(queue, "index"))) if strays else {}
    left: list[tuple[str, str]] = []
    for term, job_id in strays:
        if term.encode() not in again.get(job_id, b"").split(b"\0") and (yield _is_named(queue, term, job_id)):
            left.append((term, job_id))
    return wrong, left


def _is_named(queue: QueueKeys, term: str, job_id: str) -> Call[bool]:
    """Whether the term names the job; without one, whether it is on the list of terms."""
    if job_id:
        key = _key(queue, f"index:{term}")
        return command("ZSCORE", key, job_id, key=key, decode=lambda score: score is not None)
    key = _key(queue, "terms")
    return command("ZSCORE", key, term, key=key, decode=lambda score: score is not None)


def _tick(at: str) -> str:
    return instant_text(int(at)) if at else "none"


def _has_schedule(queue: QueueKeys, name: str) -> Steps[bool]:
    """Whether it has an entry, or is no longer to be looked at: it may have come or gone since."""
    score = yield command("ZSCORE", queue.schedules, name, key=queue.schedules, decode=lambda reply: reply)
    found = yield command("HEXISTS", queue.schedule_specs, name, key=queue.schedule_specs, decode=bool)
    return score is None or found


def _missing(counts: QueueCounts) -> int:
    """How many jobs the totals do not account for."""
    total = counts.totals.get
    came = total("enqueued", 0) + total("requeued", 0)
    went = sum(total(name, 0) for name in ("succeeded", "failed", "cancelled", "expired", "deleted", "mended"))
    return came - went - counts.live


def _check_counters(counts: QueueCounts) -> list[Violation]:
    """Enqueued + requeued = ended + deleted while live + live, and what an earlier repair could not account for."""
    missing = _missing(counts)
    if not missing:
        return []
    text = (
        f"the totals do not add up: {abs(missing)} more jobs {'came' if missing > 0 else 'ended or live'} than they say"
    )
    return [Violation(counts.name, "counters", text)]


# -- mending


def _mend_schedules(queue: QueueKeys) -> Steps[None]:
    """Let each be looked at when its entry says; drop what has none. One that cannot be read is left for a person."""
    _, rows = yield from schedules.look_raw(queue, ())
    for raw in rows:
        try:
            entry = decode_entry(raw.data)
        except msgspec.MsgspecError:
            continue
        yield schedules.put_back(queue, raw.name, raw.data, entry)
    names: list[str] = yield command("ZRANGE", queue.schedules, 0, -1, key=queue.schedules, decode=_texts)
    for name in names:
        if not (yield from _has_schedule(queue, name)):
            yield command("ZREM", queue.schedules, name, key=queue.schedules, decode=int)


def _mend_index(queue: QueueKeys) -> Steps[None]:
    marks = yield from _scan_records(queue)
    wrong, strays = yield from _faults_of_index(queue, set(marks))
    yield from index.mend(queue, wrong)
    yield from index.drop_strays(queue, strays)


def _mend_queue(queue: QueueKeys) -> Steps[None]:
    orphans = yield from _orphans(queue)
    unique = yield from _scan_pairs("HSCAN", queue.unique)
    for first in range(0, max(len(unique), 1), IDS_A_LOOK * 32):
        some = list(unique.items())[first : first + IDS_A_LOOK * 32]
        named: list[str] = orphans if first == 0 else []
        pairs: list[Arg] = [word for pair in some for word in pair]
        yield _call("admin_mend_queue", queue, (len(named), *named, *pairs))
    if (yield from _unweighed(queue)):
        yield command("HSET", queue.meta, "weighs", 1, key=queue.meta, decode=int)
    for _, key in (yield from _unnoted(queue)):
        yield command("PEXPIRE", key, DAY_MS, key=key, decode=int)
    for name, job_ids in (yield from _idle_slots(queue)).items():
        key = _key(queue, f"slots:{name}")
        yield command("SREM", key, *job_ids, key=key, decode=int)


def _mend_jobs(queue: QueueKeys, ids: list[str]) -> Steps[int]:
    """Put each of these jobs where it belongs; returns how many were wrong and are mended."""
    mended = 0
    for job_id, (seat, words) in (yield from _look(queue, ids)).items():
        home = home_of(seat)
        if faults(seat) and home is not None:
            mended += yield _call("admin_mend", queue, (job_id, words, *home))
    return mended
