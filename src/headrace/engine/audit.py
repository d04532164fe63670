"""The invariants of a queue as a report: what `headrace check` and the tests look at. Changes nothing.

Each live job stands in exactly one place, each entry has a record, ended jobs are where ended jobs are kept, and the
totals add up. A scan finds candidates while the queue moves; each is then looked at again in one atomic script, so
that only what is really wrong is reported.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from headrace.core.record import Stored
from headrace.engine.admin import QueueCounts, count_jobs, text_pairs
from headrace.engine.call import Call, Steps, command, script
from headrace.engine.keys import QueueKeys
from headrace.engine.ops import LAYOUT_ARG

MOST_REPORTED = 200
IDS_A_LOOK = 8
_SETS = ("priority", "delayed", "done", "dead")
_LISTS = ("ready", "suspects")


class Violation(msgspec.Struct, frozen=True):
    """`rule`: place, record, session, hash, unique or counters; `job_id`: "" when it is about no single job."""

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


class Places(msgspec.Struct, frozen=True):
    """How often one job stands in each place. `state`: its record's state byte; -1 when it has none."""

    state: int
    ready: int
    priority: int
    delayed: int
    suspects: int
    done: int
    dead: int
    held: int


def verdict(places: Places) -> tuple[str, str] | None:
    """(rule, message) of what is wrong with a job that stands so, or None."""
    seats = {name: getattr(places, name) for name in (*_LISTS, *_SETS, "held") if getattr(places, name)}
    where = ", ".join(name if count == 1 else f"{name} {count} times" for name, count in seats.items())
    if places.state < 0:
        return ("record", f"stands in {where}, but has no record") if seats else None
    if places.state == Stored.LIVE:
        if not seats:
            return "place", "has not ended, but stands nowhere: no worker will find it"
        if sum(seats.values()) > 1 or "done" in seats or "dead" in seats:
            return "place", f"has not ended, and stands in {where}"
        return None
    home = "dead" if places.state == Stored.FAILED else "done"
    # The claim that meets a cancelled job's entry drops it; until then it lingers.
    lingering = {"ready", "suspects"} if places.state == Stored.CANCELLED else set()
    if home not in seats or set(seats) - {home} - lingering:
        return (
            "place",
            f"has ended ({Stored(places.state).name.lower()}), and stands in {where or 'no place'}",
        )
    return None


def audit(queue: QueueKeys) -> Steps[Audit]:
    """Check one queue, whole. Memory: about 200 bytes a job, here; nothing on the server."""
    states = yield from _scan_records(queue)
    seats: dict[str, Counter[str]] = {}
    for place in _LISTS:
        seats[place] = yield from _scan_list(queue, place)
    for place in _SETS:
        seats[place] = yield from _scan_pairs("ZSCAN", getattr(queue, place))
    sessions = yield from _sessions(queue)
    seats["held"] = Counter()
    for session in sessions:
        key = queue.held(session)
        seats["held"].update((yield command("SMEMBERS", key, key=key, decode=_texts)))
    ids = set(states).union(*seats.values())
    candidates = [
        job_id
        for job_id in ids
        if verdict(
            Places(
                states.get(job_id, -1),
                **{name: found[job_id] for name, found in seats.items()},
            )
        )
    ]
    candidates.sort()
    violations: list[Violation] = []
    for first in range(0, min(len(candidates), MOST_REPORTED), IDS_A_LOOK):
        violations += yield from _look_again(queue, candidates[first : first + IDS_A_LOOK])
    for name in ("crashes", "watched", "progress"):
        violations += yield from _check_hash(queue, name)
    violations += yield from _check_unique(queue)
    violations += yield from _check_held_sets(queue)
    violations += _check_counters((yield from count_jobs(queue)))
    return Audit(queue.name, len(states), violations, len(candidates) > MOST_REPORTED)


def _texts(reply: Any) -> list[str]:
    return [item.decode() for item in reply]


def _sessions(queue: QueueKeys) -> Steps[list[str]]:
    sessions: list[str] = yield command("ZRANGE", queue.sessions, 0, -1, key=queue.sessions, decode=_texts)
    return sessions


def _scan_records(queue: QueueKeys) -> Steps[dict[str, int]]:
    found = script("admin_scan")
    states: dict[str, int] = {}
    cursor = b"0"
    while True:
        cursor, ids, bytes_ = yield Call(found, queue.block(found.keys), [LAYOUT_ARG, cursor], list)
        states.update(zip(_texts(ids), bytes_, strict=True))
        if int(cursor) == 0:
            return states


def _scan_list(queue: QueueKeys, place: str) -> Steps[Counter[str]]:
    key: bytes = getattr(queue, place)
    counts: Counter[str] = Counter()
    first = 0
    while True:
        ids = yield command("LRANGE", key, first, first + 999, key=key, decode=_texts)
        counts.update(ids)
        first += 1000
        if len(ids) < 1000:
            return counts


def _scan_pairs(name: str, key: bytes) -> Steps[Counter[str]]:
    """The fields of a hash, or the members of a sorted set; each once, however often the scan shows it."""
    found: set[str] = set()
    cursor = b"0"
    while True:
        cursor, items = yield command(name, key, cursor, "COUNT", 500, key=key, decode=list)
        found.update(field.decode() for field, _ in text_pairs(items))
        if int(cursor) == 0:
            return Counter(found)


def _look_again(queue: QueueKeys, ids: list[str]) -> Steps[list[Violation]]:
    found = script("admin_where")
    for _ in range(20):
        sessions = yield from _sessions(queue)
        keys = [
            *queue.block(found.keys),
            *(queue.held(session) for session in sessions),
        ]
        reply = yield Call(
            found,
            keys,
            [LAYOUT_ARG, len(sessions), *sessions, *ids],
            lambda reply: reply,
        )
        if reply != b"again":
            break
    else:
        return [
            Violation(
                queue.name,
                "session",
                "its workers change too fast to look closely; run the check again",
            )
        ]
    wrong = [(job_id, verdict(Places(*places))) for job_id, places in zip(ids, reply, strict=True)]
    return [Violation(queue.name, rule[0], f"job {job_id} {rule[1]}", job_id) for job_id, rule in wrong if rule]


def _check_hash(queue: QueueKeys, name: str) -> Steps[list[Violation]]:
    """What is kept beside a live job must belong to one; looked at twice, as the job may end in between."""
    key: bytes = getattr(queue, name)
    ids = list((yield from _scan_pairs("HSCAN", key)))
    wrong: list[Violation] = []
    for first in range(0, len(ids), 500):
        some = ids[first : first + 500]
        records = yield command("HMGET", queue.jobs, *some, key=queue.jobs, decode=list)
        idle = [job_id for job_id, record in zip(some, records, strict=True) if not record or record[2] != Stored.LIVE]
        for job_id in idle:
            if (yield command("HEXISTS", key, job_id, key=key, decode=bool)):
                text = f"job {job_id} is in {name!r}, but is not live"
                wrong.append(Violation(queue.name, "hash", text, job_id))
    return wrong


def _check_unique(queue: QueueKeys) -> Steps[list[Violation]]:
    reply = yield command(
        "HGETALL",
        queue.unique,
        key=queue.unique,
        decode=lambda reply: list(text_pairs(reply)),
    )
    wrong: list[Violation] = []
    for name, value in reply:
        job_id = value.decode()
        record = yield command("HGET", queue.jobs, job_id, key=queue.jobs, decode=lambda reply: reply)
        if record is None or record[2] != Stored.LIVE:
            text = f"unique key {name.decode()!r} is held by job {job_id}, which is not live"
            wrong.append(Violation(queue.name, "unique", text, job_id))
    return wrong


def _check_held_sets(queue: QueueKeys) -> Steps[list[Violation]]:
    """No set of held jobs without a session: no sweep would look there."""
    prefix = queue.held("")
    pattern = prefix.replace(b"[", b"\\[") + b"*"
    found: set[str] = set()
    cursor = b"0"
    while True:
        args = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        cursor, keys = yield command(*args, key=queue.jobs, decode=list)
        found.update(key[len(prefix) :].decode() for key in keys)
        if int(cursor) == 0:
            break
    orphans = found.difference((yield from _sessions(queue)))
    wrong: list[Violation] = []
    for session in sorted(orphans):
        held = queue.held(session)
        if (yield command("EXISTS", held, key=held, decode=bool)) and session not in (yield from _sessions(queue)):
            wrong.append(
                Violation(
                    queue.name,
                    "session",
                    f"session {session} has ended, but still holds jobs",
                )
            )
    return wrong


def _check_counters(counts: QueueCounts) -> list[Violation]:
    """enqueued + requeued = ended + live + deleted while live; `deleted` counts ended ones too, so it is a bound."""
    total = counts.totals.get
    came = total("enqueued", 0) + total("requeued", 0)
    ended = sum(total(name, 0) for name in ("succeeded", "failed", "cancelled", "expired"))
    missing = came - ended - counts.live
    if 0 <= missing <= total("deleted", 0):
        return []
    text = f"the totals do not add up: {came} came, {ended} ended, {counts.live} are live, {total('deleted', 0)} were deleted"
    return [Violation(counts.name, "counters", text)]
