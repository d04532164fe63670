"""Where each job of a queue stands, read at one instant or scanned; what is wrong with one that stands so, and where it belongs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from headrace.core.record import Stored
from headrace.engine.admin import text_pairs
from headrace.engine.call import Arg, Call, Steps, command, script
from headrace.engine.keys import QueueKeys
from headrace.engine.ops import LAYOUT_ARG

IDS_A_LOOK = 8
MOST_AT_ONCE = 1_000
BYTES_AT_ONCE = 4 << 20
DAY_MS = 86_400_000
KEEP_MS = {Stored.FAILED: 30 * DAY_MS}
LEVEL = 1 << 44
MISSING, UNREADABLE = -1, 0


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


# -- all jobs of a queue


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
        state, priority = read_mark(self.marks.get(job_id, b""))
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


def texts(reply: Iterable[bytes]) -> list[str]:
    return [item.decode() for item in reply]


def read_mark(mark: bytes) -> tuple[int, int]:
    return (mark[0], mark[1] - 101) if mark else (MISSING, 0)


def admin_call(name: str, queue: QueueKeys, args: Iterable[Arg]) -> Call[Any]:
    found = script(name)
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, *args], lambda reply: reply)


# -- reading


def snapshot(queue: QueueKeys) -> Steps[Places | None]:
    """A small queue at one instant; None when it is not small."""
    reply = yield admin_call("admin_snapshot", queue, (MOST_AT_ONCE, BYTES_AT_ONCE))
    if reply is None:
        return None
    (
        ids, marks, ready, suspects, priority, delayed, done, dead, held, crashes, cancels, watched, progress, lingering,
        unique, ties, grouped, parked, lanes, waiting, kept, ages,
    ) = reply  # fmt: skip
    return Places(
        marks=dict(zip(texts(ids), marks, strict=True)),
        ready=Counter(texts(ready)),
        suspects=Counter(texts(suspects)),
        priority={name.decode(): float(score) for name, score in text_pairs(priority)},
        delayed=set(texts(delayed)),
        done=set(texts(done)),
        dead=set(texts(dead)),
        held={name.decode(): set(texts(jobs)) for name, jobs in text_pairs(held[:])},
        crashes=set(texts(crashes)),
        cancels=set(texts(cancels)),
        watched={name.decode(): tokens for name, tokens in text_pairs(watched)},
        progress=set(texts(progress)),
        lingering=set(texts(lingering)),
        unique={name.decode(): job_id.decode() for name, job_id in text_pairs(unique)},
        ties=set(texts(ties)),
        grouped=set(texts(grouped)),
        parked=set(texts(parked)),
        groups=Counter(job_id for _, jobs in text_pairs(lanes) for job_id in texts(jobs)),
        waiting=set(texts(waiting)),
        kept=set(texts(kept)),
        ages=bool(ages),
    )


def scan(queue: QueueKeys) -> Steps[Places]:
    """A queue of any size, slice by slice, while it moves."""
    marks = yield from scan_records(queue)
    ready = yield from scan_list(queue.ready)
    suspects = yield from scan_list(queue.suspects)
    found: dict[str, dict[str, bytes]] = {}
    for name in ("priority", "delayed", "done", "dead"):
        found[name] = yield from scan_pairs("ZSCAN", getattr(queue, name))
    for name in ("crashes", "watched", "progress", "unique"):
        found[name] = yield from scan_pairs("HSCAN", getattr(queue, name))
    for name in ("cancels", "lingering"):
        found[name] = yield from scan_members(getattr(queue, name))
    tied = yield from scan_pairs("HSCAN", queue.ties)
    parked = yield from scan_pairs("ZSCAN", key_of(queue, "parked"))
    waiting = yield from scan_pairs("HSCAN", key_of(queue, "waiting"))
    kept = yield from scan_pairs("HSCAN", key_of(queue, "kept"))
    groups: Counter[str] = Counter()
    for group in (yield from scan_pairs("ZSCAN", key_of(queue, "groups"))):
        if group:
            groups += yield from scan_list(key_of(queue, f"group:{group}"))
    held: dict[str, set[str]] = {}
    for session in (yield from session_names(queue)):
        key = queue.held(session)
        held[session] = set((yield command("SMEMBERS", key, key=key, decode=texts)))
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


def key_of(queue: QueueKeys, name: str) -> bytes:
    """A key that only jobs with ties need; see lua/include/ties.lua."""
    return (queue.base + name).encode()


def session_names(queue: QueueKeys) -> Steps[list[str]]:
    sessions: list[str] = yield command("ZRANGE", queue.sessions, 0, -1, key=queue.sessions, decode=texts)
    return sessions


def scan_records(queue: QueueKeys) -> Steps[dict[str, bytes]]:
    found: dict[str, bytes] = {}
    shared: dict[bytes, bytes] = {}
    cursor = b"0"
    while True:
        cursor, ids, marks = yield admin_call("admin_scan", queue, (cursor,))
        found.update(zip(texts(ids), (shared.setdefault(mark, mark) for mark in marks), strict=True))
        if int(cursor) == 0:
            return found


def scan_list(key: bytes) -> Steps[Counter[str]]:
    counts: Counter[str] = Counter()
    first = 0
    while True:
        ids = yield command("LRANGE", key, first, first + 999, key=key, decode=texts)
        counts.update(ids)
        first += 1000
        if len(ids) < 1000:
            return counts


def scan_pairs(name: str, key: bytes) -> Steps[dict[str, bytes]]:
    """The fields of a hash, or the members of a sorted set."""
    found: dict[str, bytes] = {}
    cursor = b"0"
    while True:
        cursor, items = yield command(name, key, cursor, "COUNT", 500, key=key, decode=list)
        found.update((field.decode(), value) for field, value in text_pairs(items))
        if int(cursor) == 0:
            return found


def scan_members(key: bytes) -> Steps[dict[str, bytes]]:
    found: dict[str, bytes] = {}
    cursor = b"0"
    while True:
        cursor, items = yield command("SSCAN", key, cursor, "COUNT", 500, key=key, decode=list)
        found.update(dict.fromkeys(texts(items), b""))
        if int(cursor) == 0:
            return found


def seats_of(queue: QueueKeys, ids: list[str]) -> Steps[dict[str, tuple[Seat, bytes]]]:
    """Each job's seat, read in one script, and the words by which `admin_mend` knows that it has not changed."""
    found: dict[str, tuple[Seat, bytes]] = {}
    for first in range(0, len(ids), IDS_A_LOOK):
        some = ids[first : first + IDS_A_LOOK]
        for job_id, row in zip(some, (yield admin_call("admin_seats", queue, some)), strict=True):
            words = b"|".join(item if isinstance(item, bytes) else b"%d" % item for item in row)
            found[job_id] = (_read_seat(row), words)
    return found


def _read_seat(row: list[Any]) -> Seat:
    (
        mark, ready, rank, delayed, suspects, done, dead, holders, crashes, cancels, tokens, progress, lingering, ties,
        group, parked, waiting, kept, ages,
    ) = row  # fmt: skip
    state, priority = read_mark(mark)
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
