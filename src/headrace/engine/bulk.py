"""An action on all jobs that match a filter, in steps that anybody may take: first the jobs are noted, then each is acted on.

What was noted when it was counted is what is acted on, each job once: what comes later is not touched. The notes stand on the
server for an hour after the last step, so that a step that was cut off is taken again, here or elsewhere.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from headrace.core.filters import Filter, Names, no_names
from headrace.core.record import State
from headrace.engine import ops
from headrace.engine.admin import text_pairs
from headrace.engine.call import Arg, Call, Steps, command, script
from headrace.engine.keys import QueueKeys, bulk_jobs_key, bulk_key, queue_keys
from headrace.engine.ops import LAYOUT_ARG
from headrace.engine.search import find_jobs
from headrace.errors import DuplicateJob, JobNotFound

KEPT_MS = 3_600_000
MOST_JOBS = 100_000
FOUND_A_STEP = 1_000
ACTS_A_LOOK = 100
STEP_S = 1.5


class Action(enum.StrEnum):
    """What can be done to many jobs."""

    RETRY = "retry"
    RUN = "run"
    CANCEL = "cancel"
    DELETE = "delete"


ACTS: Mapping[Action, tuple[Callable[[QueueKeys, str], Steps[str]], frozenset[str], frozenset[State]]] = {
    Action.RETRY: (ops.retry, frozenset({"queued"}), frozenset({State.FAILED, State.CANCELLED, State.EXPIRED})),
    Action.RUN: (ops.run_now, frozenset({"queued"}), frozenset({State.SCHEDULED, State.RETRYING})),
    Action.CANCEL: (
        ops.cancel,
        frozenset({"cancelled", "asked"}),
        frozenset({State.QUEUED, State.SCHEDULED, State.RETRYING, State.RUNNING, State.WAITING}),
    ),
    Action.DELETE: (ops.delete, frozenset({"deleted"}), frozenset(State) - {State.RUNNING}),
}
"""By action: what does it, the answers that mean that it was done, and the states it is for."""


class Bulk(msgspec.Struct, frozen=True, kw_only=True):
    """How far one is. `count`: jobs noted; `done` and `refused`: of those, acted on. `cursor`: where counting goes on; `looked_at`: jobs
    read so far. `is_counted`: all are noted. `left`: jobs noted and not yet acted on.
    """

    id: str
    action: Action
    filter: str
    user: str
    created_at_ms: int
    step: str = ""
    cursor: str = ""
    looked_at: int = 0
    count: int = 0
    done: int = 0
    refused: int = 0
    left: int = 0
    is_counted: bool = False

    @property
    def is_over(self) -> bool:
        return self.is_counted and self.done + self.refused >= self.count


def start(prefix: str, bulk: Bulk) -> Call[bool]:
    """Note a new one."""
    return _put(prefix, bulk, 0, ())


def read(prefix: str, bulk_id: str) -> Steps[Bulk]:
    """How far one is.

    Raises:
        JobNotFound: it never was, or is no longer kept.
    """
    key = bulk_key(prefix, bulk_id)
    fields: dict[str, bytes] = yield command("HGETALL", key, key=key, decode=_fields)
    if "state" not in fields:
        raise JobNotFound(f"no action {bulk_id!r:.40}: it never was, or was last gone on with more than an hour ago")
    jobs = bulk_jobs_key(prefix, bulk_id)
    left: int = yield command("LLEN", jobs, key=jobs, decode=int)
    found = msgspec.json.decode(fields["state"], type=Bulk)
    return msgspec.structs.replace(found, id=bulk_id, step=fields["step"].decode(), left=left)


def note_more(
    prefix: str, bulk: Bulk, queues: Sequence[QueueKeys], wanted: Filter, names: Names = no_names
) -> Steps[Bulk]:
    """Look for some of the jobs that match, a bounded number a call."""
    found = yield from find_jobs(queues, wanted, cursor=bulk.cursor, limit=FOUND_A_STEP, names=names)
    rows = found.rows[: MOST_JOBS - bulk.count]
    count = bulk.count + len(rows)
    new = msgspec.structs.replace(
        bulk, cursor=found.cursor, looked_at=bulk.looked_at + found.looked_at, count=count,
        is_counted=not found.cursor or count >= MOST_JOBS,
    )  # fmt: skip
    yield _put(prefix, new, 0, [f"{row.queue}/{row.id}" for row in rows])
    return (yield from read(prefix, bulk.id))


def act(prefix: str, bulk: Bulk, *, within_s: float = STEP_S) -> Steps[tuple[Bulk, int]]:
    """Act on some of the jobs that were noted, for so long; and how many it did."""
    do, answers, _ = ACTS[bulk.action]
    ends = time.monotonic() + within_s
    done = 0
    while bulk.left and time.monotonic() < ends:
        key = bulk_jobs_key(prefix, bulk.id)
        jobs: list[str] = yield command("LRANGE", key, 0, ACTS_A_LOOK - 1, key=key, decode=_texts)
        here = tried = 0
        for job in jobs:
            name, _, job_id = job.partition("/")
            here += yield from _done(do(queue_keys(name, prefix), job_id), answers)
            tried += 1
            if time.monotonic() >= ends:
                break
        new = msgspec.structs.replace(bulk, done=bulk.done + here, refused=bulk.refused + tried - here)
        # Whoever came between has acted on the same jobs, which changed nothing: their count stands.
        if (yield _put(prefix, new, tried, ())):
            done += here
        bulk = yield from read(prefix, bulk.id)
    return bulk, done


def _done(steps: Steps[str], answers: frozenset[str]) -> Steps[int]:
    try:
        return int((yield from steps) in answers)
    except (JobNotFound, DuplicateJob):
        return 0


def _put(prefix: str, bulk: Bulk, drop: int, jobs: Sequence[str]) -> Call[bool]:
    state = msgspec.json.encode(bulk)
    args: list[Arg] = [LAYOUT_ARG, bulk.step, KEPT_MS, drop, 2, "state", state, *jobs]
    return Call(script("bulk_put"), [bulk_key(prefix, bulk.id), bulk_jobs_key(prefix, bulk.id)], args, bool)


def _fields(reply: object) -> dict[str, bytes]:
    return {name.decode(): value for name, value in text_pairs(reply)}


def _texts(reply: list[bytes]) -> list[str]:
    return [item.decode() for item in reply]
