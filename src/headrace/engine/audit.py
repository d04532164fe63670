"""The invariants of a queue: what `headrace check` and the tests look at, and how what breaks them is mended.

Each live job stands in exactly one place, each entry has a record, ended jobs are where ended jobs are kept, what is
kept beside a job belongs to a job, and the totals add up. A small queue is read at one instant. A larger one is
scanned while it moves, and each job that looks wrong is looked at again in one atomic script. So only what is really
wrong is reported, also while workers run.
"""

from __future__ import annotations

import msgspec

from headrace.core.record import Stored
from headrace.core.schedule import decode_entry, instant_text
from headrace.core.ties import limits_in, weighs
from headrace.engine import index, schedules
from headrace.engine.admin import QueueCounts, count_jobs
from headrace.engine.call import Arg, Call, Steps, command
from headrace.engine.keys import QueueKeys
from headrace.engine.seats import (
    DAY_MS,
    IDS_A_LOOK,
    Places,
    admin_call,
    faults,
    home_of,
    key_of,
    read_mark,
    scan,
    scan_members,
    scan_pairs,
    scan_records,
    seats_of,
    session_names,
    snapshot,
    texts,
)  # fmt: skip
from headrace.engine.stats import Unit

MOST_REPORTED = 200
ROUNDS = 1_000


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


def audit(queue: QueueKeys) -> Steps[Audit]:
    """Check one queue, whole; changes nothing. Memory: about 300 bytes a job, here; nothing on the server."""
    places: Places | None = yield from snapshot(queue)
    is_exact = places is not None
    if places is None:
        places = yield from scan(queue)
    suspicious = sorted(job_id for job_id in places.ids() if faults(places.seat(job_id)))
    looked_at = suspicious[:MOST_REPORTED]
    seats = {job_id: places.seat(job_id) for job_id in looked_at}
    if not is_exact:
        seats = {job_id: seat for job_id, (seat, _) in (yield from seats_of(queue, looked_at)).items()}
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


# -- what belongs to no single job


def _check_unique(queue: QueueKeys, places: Places) -> Steps[list[Violation]]:
    """A unique key names a live job; looked at twice, as that job may end in between."""
    wrong: list[Violation] = []
    for name, job_id in places.unique.items():
        if read_mark(places.marks.get(job_id, b""))[0] == Stored.LIVE:
            continue
        record = yield command("HGET", queue.jobs, job_id, key=queue.jobs, decode=lambda reply: reply)
        held_by = yield command("HGET", queue.unique, name, key=queue.unique, decode=lambda reply: reply)
        key = key_of(queue, "throttled")
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
    for session in sorted(found.difference((yield from session_names(queue)))):
        held = queue.held(session)
        if (yield command("EXISTS", held, key=held, decode=bool)) and session not in (yield from session_names(queue)):
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
    prefix = key_of(queue, "slots:")
    found: dict[str, list[str]] = {}
    for key in (yield from _keys_like(queue, prefix)):
        ids = sorted((yield from scan_members(key)))
        name = key[len(prefix) :].decode()
        idle = [job_id for job_id, (seat, _) in (yield from seats_of(queue, ids)).items() if not seat.holders]
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
    noted = key_of(queue, "kept")
    for name in ("stream:", "lines:", "notes:"):
        prefix = key_of(queue, name)
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
    for job_id, packed in (yield from scan_pairs("HSCAN", queue.ties)).items():
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
    names: list[str] = yield command("ZRANGE", queue.schedules, 0, -1, key=queue.schedules, decode=texts)
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
    kept = yield from scan_pairs("HSCAN", key_of(queue, "index"))
    todo = sorted(ids.union(kept))
    wrong: list[str] = []
    for first in range(0, len(todo), index.IDS_A_CALL):
        wrong += yield index.wrong_ones(queue, todo[first : first + index.IDS_A_CALL])
    strays: list[tuple[str, str]] = []
    for term in (yield from scan_pairs("ZSCAN", key_of(queue, "terms"))):
        members = yield from scan_pairs("ZSCAN", key_of(queue, f"index:{term}"))
        some = [(term, job_id) for job_id in members if term.encode() not in kept.get(job_id, b"").split(b"\0")]
        strays += some if members else [(term, "")]
    again = (yield from scan_pairs("HSCAN", key_of(queue, "index"))) if strays else {}
    left: list[tuple[str, str]] = []
    for term, job_id in strays:
        if term.encode() not in again.get(job_id, b"").split(b"\0") and (yield _is_named(queue, term, job_id)):
            left.append((term, job_id))
    return wrong, left


def _is_named(queue: QueueKeys, term: str, job_id: str) -> Call[bool]:
    """Whether the term names the job; without one, whether it is on the list of terms."""
    if job_id:
        key = key_of(queue, f"index:{term}")
        return command("ZSCORE", key, job_id, key=key, decode=lambda score: score is not None)
    key = key_of(queue, "terms")
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
    names: list[str] = yield command("ZRANGE", queue.schedules, 0, -1, key=queue.schedules, decode=texts)
    for name in names:
        if not (yield from _has_schedule(queue, name)):
            yield command("ZREM", queue.schedules, name, key=queue.schedules, decode=int)


def _mend_index(queue: QueueKeys) -> Steps[None]:
    marks = yield from scan_records(queue)
    wrong, strays = yield from _faults_of_index(queue, set(marks))
    yield from index.mend(queue, wrong)
    yield from index.drop_strays(queue, strays)


def _mend_queue(queue: QueueKeys) -> Steps[None]:
    orphans = yield from _orphans(queue)
    unique = yield from scan_pairs("HSCAN", queue.unique)
    for first in range(0, max(len(unique), 1), IDS_A_LOOK * 32):
        some = list(unique.items())[first : first + IDS_A_LOOK * 32]
        named: list[str] = orphans if first == 0 else []
        pairs: list[Arg] = [word for pair in some for word in pair]
        yield admin_call("admin_mend_queue", queue, (len(named), *named, *pairs))
    if (yield from _unweighed(queue)):
        yield command("HSET", queue.meta, "weighs", 1, key=queue.meta, decode=int)
    for _, key in (yield from _unnoted(queue)):
        yield command("PEXPIRE", key, DAY_MS, key=key, decode=int)
    for name, job_ids in (yield from _idle_slots(queue)).items():
        key = key_of(queue, f"slots:{name}")
        yield command("SREM", key, *job_ids, key=key, decode=int)


def _mend_jobs(queue: QueueKeys, ids: list[str]) -> Steps[int]:
    """Put each of these jobs where it belongs; returns how many were wrong and are mended."""
    mended = 0
    for job_id, (seat, words) in (yield from seats_of(queue, ids)).items():
        home = home_of(seat)
        if faults(seat) and home is not None:
            mended += yield admin_call("admin_mend", queue, (job_id, words, *home))
    return mended
