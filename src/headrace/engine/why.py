"""Why a job is not running: what stands between it and a worker, in sentences."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

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
TEXTS = {
    "running": "it runs, in the session {session}",
    "ended": "it has ended: {state}",
    "ended_since": "it has ended: {state}, {reason}",
    "expired": "it has ended: expired, since it had not started by {expires_at}",
    "unknown_task": "{note}: one looks again at {due_at}",
    "scheduled": "it is scheduled for {due_at}",
    "scheduled_since": "it is scheduled for {due_at}: {note}",
    "again": "it runs again (attempt {attempt}) for {due_at}",
    "again_since": "it runs again (attempt {attempt}) for {due_at}: {note}",
    "expires": "it expires at {expires_at}, if it has not started by then",
    "flow": "it waits for {jobs}: headrace flow show {flow} tells which",
    "parents": "it waits for {n} of these jobs to succeed: {named}",
    "limit_shut": "the limit {limit} lets nothing through until {until_at}",
    "limit_opens": "the limit {limit} is full: {running} running, {parked} wait for it; it opens at {opens_at}",
    "limit_full": "the limit {limit} is full: {running} running, {parked} wait for it; a slot is free when one of them ends",
    "suspect": "it took its worker with it ({n} time(s) alone): it is run by itself, as soon as a worker is idle",
    "group_behind": "it stands behind {jobs} of its group {group}, which takes turns with the others",
    "group_first": "it stands first of its group {group}, which takes turns with the others",
    "group_far": "it stands far behind in its group {group}, which takes turns with the others",
    "first": "it is next in line",
    "behind": "it stands behind {jobs}",
    "far": "it stands behind more than {jobs}",
    "priority": "its priority is {priority}",
    "priority_ages": "its priority is {priority}, and the queue ages",
    "gates": "when it is its turn, it must pass {limits}",
    "paused": "the queue is paused: {reason}",
    "paused_until": "the queue is paused until {until_at}: {reason}",
    "most_running": "the queue runs as many jobs as it may: {running} of {most}",
    "no_worker": "no worker listens to the queue {queue}",
    "silent": "the workers of the queue have not been heard of since their leases ended",
}
"""By key; values whose names end in `_at` are Unix ms, `n` is a number of jobs, which `{jobs}` tells in words."""


class Reason(msgspec.Struct, frozen=True):
    """One thing that stands in the way: a key of TEXTS, and what is in the sentence."""

    key: str
    values: dict[str, Any] = {}

    def __str__(self) -> str:
        shown = {name: _instant(value) if name.endswith("_at") else value for name, value in self.values.items()}
        if "n" in shown:
            shown["jobs"] = f"{shown['n']:,} job" if shown["n"] == 1 else f"{shown['n']:,} jobs"
        return TEXTS[self.key].format(**shown)


def why(queue: QueueKeys, job_id: str) -> Steps[list[Reason]]:
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
        return [Reason("running", {"session": look.session})]
    found: list[Reason] = []
    if record.note and record.note.startswith(NOBODY_KNOWS):
        found.append(Reason("unknown_task", {"note": record.note, "due_at": look.due_ms}))
    elif look.state in (State.SCHEDULED, State.RETRYING):
        found.append(_later(record, look))
    elif look.limit:
        state: LimitState = (yield admin.look_at_limits(queue, [look.limit]))[0]
        found.append(_limit(state))
    elif look.state is State.WAITING:
        found.append(_waiting(job_id, record, look))
    else:
        found += yield from _in_line(queue, job_id, record, look)
    if record.expires_at_ms:
        found.append(Reason("expires", {"expires_at": record.expires_at_ms}))
    return found + (yield from _nobody(queue))


def _ended(record: Record, state: State) -> Reason:
    reason = record.reason or record.note
    if state is State.EXPIRED and not reason:
        return Reason("expired", {"expires_at": record.expires_at_ms})
    return Reason("ended_since" if reason else "ended", {"state": str(state), "reason": reason})


def _later(record: Record, look: ops.Look) -> Reason:
    key = "scheduled" if look.state is State.SCHEDULED else "again"
    told = {"due_at": look.due_ms, "attempt": record.attempt + 1, "note": record.note}
    return Reason(f"{key}_since" if record.note else key, told)


def _waiting(job_id: str, record: Record, look: ops.Look) -> Reason:
    """Of a job that waits for others: a step of a flow, or one with `depends_on`, whose ties name what it waits for."""
    parents = parents_in(record.options.ties if record.options else None)
    missing = look.missing or 0
    if not parents:
        return Reason("flow", {"n": missing, "flow": job_id.partition(".")[0]})
    named = ", ".join(parent for _, parent in parents[:MOST_NAMED]) + (", …" if len(parents) > MOST_NAMED else "")
    return Reason("parents", {"n": missing, "named": named})


def _limit(state: LimitState) -> Reason:
    if state.held_until_ms:
        return Reason("limit_shut", {"limit": state.name, "until_at": state.held_until_ms})
    told = {"limit": state.name, "running": state.running, "parked": state.parked, "opens_at": state.opens_ms}
    return Reason("limit_opens" if state.opens_ms else "limit_full", told)


def _in_line(queue: QueueKeys, job_id: str, record: Record, look: ops.Look) -> Steps[list[Reason]]:
    """Of a job that could be claimed."""
    if look.crashes is not None:
        return [Reason("suspect", {"n": look.crashes})]
    ties = record.options.ties if record.options else None
    group = group_in(ties)
    if group:
        key = queue.base + f"group:{group}"
        place: int | None = yield command("LPOS", key, job_id, "MAXLEN", MOST_LOOKED_THROUGH, key=key, decode=_place)
        where = "group_behind" if place else "group_first" if place == 0 else "group_far"
        return [Reason(where, {"n": place or 0, "group": group})]
    aged: bytes | None = yield command("HGET", queue.meta, "aged", key=queue.meta, decode=lambda reply: reply)
    level = (100 << 44) + (float(aged.split()[0]) if aged else 0)  # where `ready` counts: lua/include/place.lua
    key = queue.priority.decode()
    score: float | None = yield command("ZSCORE", key, job_id, key=key, decode=_score)
    if score is not None:
        rank: int = yield command("ZCOUNT", key, "-inf", f"({score!r}", key=key, decode=int)
        ready = 0 if score < level else (yield command("LLEN", queue.ready, key=queue.ready, decode=int))
        priority = Reason("priority_ages" if aged else "priority", {"priority": record.priority})
        return [_place_in_line(rank + ready), priority]
    ahead: int = yield command("ZCOUNT", key, "-inf", f"({level!r}", key=key, decode=int)
    place = yield command("LPOS", queue.ready, job_id, "MAXLEN", MOST_LOOKED_THROUGH, key=queue.ready, decode=_place)
    limits = ", ".join(limit["n"] for limit in limits_in(ties))
    far = Reason("far", {"n": MOST_LOOKED_THROUGH})
    where_to = far if place is None else _place_in_line(place + ahead)
    return [where_to, *([Reason("gates", {"limits": limits})] if limits else [])]


def _place_in_line(ahead: int) -> Reason:
    return Reason("behind", {"n": ahead}) if ahead else Reason("first")


def _nobody(queue: QueueKeys) -> Steps[list[Reason]]:
    """What keeps the whole queue back."""
    counts: QueueCounts = yield from admin.count_jobs(queue)
    found: list[Reason] = []
    if counts.paused is not None:
        until = "paused_until" if counts.paused_until_ms else "paused"
        found.append(Reason(until, {"reason": counts.paused, "until_at": counts.paused_until_ms}))
    if counts.max_running is not None and counts.running >= counts.max_running:
        found.append(Reason("most_running", {"running": counts.running, "most": counts.max_running}))
    if not counts.sessions:
        found.append(Reason("no_worker", {"queue": queue.name}))
    elif counts.overdue_sessions == counts.sessions:
        found.append(Reason("silent"))
    return found


def _score(reply: bytes | float | None) -> float | None:
    return None if reply is None else float(reply)


def _place(reply: int | None) -> int | None:
    return None if reply is None else int(reply)


def _instant(at_ms: int | None) -> str:
    at = datetime.fromtimestamp((at_ms or 0) / 1000, UTC).astimezone()
    left_s = (at_ms or 0) / 1000 - time.time()
    return f"{at:%Y-%m-%d %H:%M:%S}" + (f" (in {left_s:.0f} s)" if left_s > 0 else "")
