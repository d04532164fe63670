"""Why a job is not running: what stands between it and a worker, in sentences."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from headrace.core.outcome import NOBODY_KNOWS
from headrace.core.record import Record, State, decode
from headrace.core.ties import group_in, limits_in, parents_in
from headrace.engine import admin, ops
from headrace.engine.admin import LimitState, QueueCounts
from headrace.engine.call import Steps, command
from headrace.engine.keys import QueueKeys
from headrace.errors import JobNotFound

MOST_LOOKED_THROUGH = 100_000
MOST_NAMED = 5


def why(queue: QueueKeys, job_id: str) -> Steps[list[str]]:
    """What stands between a job and its run, the nearest thing first; reads only.

    Raises:
        JobNotFound
    """
    look: ops.Look | None = yield from ops.look(queue, job_id)
    if look is None:
        raise JobNotFound(f"no job {job_id} in queue {queue.name!r}: it never was, was deleted, or is no longer kept")
    record = decode(look.record)
    if look.state.is_ended:
        return [_ended(record, look.state)]
    if look.state is State.RUNNING:
        return [f"it runs, in the session {look.session}"]
    if record.note and record.note.startswith(NOBODY_KNOWS):
        return [f"{record.note}: one looks again at {_instant(look.due_ms)}", *(yield from _nobody(queue))]
    found: list[str] = []
    if look.state in (State.SCHEDULED, State.RETRYING):
        what = "is scheduled" if look.state is State.SCHEDULED else f"runs again (attempt {record.attempt + 1})"
        found.append(f"it {what} for {_instant(look.due_ms)}" + (f": {record.note}" if record.note else ""))
    elif look.limit:
        state: LimitState = (yield admin.look_at_limits(queue, [look.limit]))[0]
        found.append(_limit(state))
    elif look.state is State.WAITING:
        found.append(_waiting(job_id, record, look))
    else:
        found += yield from _in_line(queue, job_id, record, look)
    if record.expires_at_ms:
        found.append(f"it expires at {_instant(record.expires_at_ms)}, if it has not started by then")
    return found + (yield from _nobody(queue))


def _ended(record: Record, state: State) -> str:
    reason = record.reason or record.note
    if state is State.EXPIRED and not reason:
        reason = f"since it had not started by {_instant(record.expires_at_ms)}"
    return f"it has ended: {state}" + (f", {reason}" if reason else "")


def _waiting(job_id: str, record: Record, look: ops.Look) -> str:
    """Of a job that waits for others: a step of a flow, or one with `depends_on`, whose ties name what it waits for."""
    parents = parents_in(record.options.ties if record.options else None)
    if not parents:
        return f"it waits for {_jobs(look.missing or 0)}: headrace flow show {job_id.partition('.')[0]} tells which"
    named = ", ".join(parent for _, parent in parents[:MOST_NAMED]) + (", …" if len(parents) > MOST_NAMED else "")
    return f"it waits for {look.missing} of these jobs to succeed: {named}"


def _jobs(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"


def _limit(state: LimitState) -> str:
    if state.held_until_ms:
        return f"the limit {state.name} lets nothing through until {_instant(state.held_until_ms)}"
    text = f"the limit {state.name} is full: {state.running} running, {state.parked} wait for it"
    return text + (
        f"; it opens at {_instant(state.opens_ms)}" if state.opens_ms else "; a slot is free when one of them ends"
    )


def _in_line(queue: QueueKeys, job_id: str, record: Record, look: ops.Look) -> Steps[list[str]]:
    """Of a job that could be claimed."""
    if look.crashes is not None:
        return [
            f"it took its worker with it ({look.crashes} time(s) alone): it is run by itself, as soon as a worker is idle"
        ]
    ties = record.options.ties if record.options else None
    group = group_in(ties)
    if group:
        key = queue.base + f"group:{group}"
        place: int | None = yield command("LPOS", key, job_id, "MAXLEN", MOST_LOOKED_THROUGH, key=key, decode=_place)
        where = f"behind {_jobs(place)} of" if place else "first of" if place == 0 else "far behind in"
        return [f"it stands {where} its group {group}, which takes turns with the others"]
    aged: bytes | None = yield command("HGET", queue.meta, "aged", key=queue.meta, decode=lambda reply: reply)
    level = (100 << 44) + (float(aged.split()[0]) if aged else 0)  # where `ready` counts: lua/include/place.lua
    key = queue.priority.decode()
    score: float | None = yield command("ZSCORE", key, job_id, key=key, decode=_score)
    if score is not None:
        rank: int = yield command("ZCOUNT", key, "-inf", f"({score!r}", key=key, decode=int)
        ready = 0 if score < level else (yield command("LLEN", queue.ready, key=queue.ready, decode=int))
        ages = ", and the queue ages" if aged else ""
        return [f"{_place_in_line(rank + ready)}: its priority is {record.priority}{ages}"]
    ahead: int = yield command("ZCOUNT", key, "-inf", f"({level!r}", key=key, decode=int)
    place = yield command("LPOS", queue.ready, job_id, "MAXLEN", MOST_LOOKED_THROUGH, key=queue.ready, decode=_place)
    where = (
        _place_in_line(place + ahead)
        if place is not None
        else f"it stands behind more than {_jobs(MOST_LOOKED_THROUGH)}"
    )
    limits = ", ".join(limit["n"] for limit in limits_in(ties))
    return [where + (f"; when it is its turn, it must pass {limits}" if limits else "")]


def _place_in_line(ahead: int) -> str:
    return f"it stands behind {_jobs(ahead)}" if ahead else "it is next in line"


def _nobody(queue: QueueKeys) -> Steps[list[str]]:
    """What keeps the whole queue back."""
    counts: QueueCounts = yield from admin.count_jobs(queue)
    found: list[str] = []
    if counts.paused is not None:
        found.append(f"the queue is paused: {counts.paused}")
    if counts.max_running is not None and counts.running >= counts.max_running:
        found.append(f"the queue runs as many jobs as it may: {counts.running} of {counts.max_running}")
    if not counts.sessions:
        found.append(f"no worker listens to the queue {queue.name}")
    elif counts.overdue_sessions == counts.sessions:
        found.append("the workers of the queue have not been heard of since their leases ended")
    return found


def _score(reply: bytes | float | None) -> float | None:
    return None if reply is None else float(reply)


def _place(reply: int | None) -> int | None:
    return None if reply is None else int(reply)


def _instant(at_ms: int | None) -> str:
    at = datetime.fromtimestamp((at_ms or 0) / 1000, UTC).astimezone()
    left_s = (at_ms or 0) / 1000 - time.time()
    return f"{at:%Y-%m-%d %H:%M:%S}" + (f" (in {left_s:.0f} s)" if left_s > 0 else "")
