"""What the engine can be asked to change, as pure functions: each returns a `Call`, or a generator of Calls.

Nothing here talks to a server; `clients` does. One Call is one atomic script. Where an operation takes several
queues, `split` (Redis Cluster) makes it one Call a queue, since each queue lives in a slot of its own.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from headrace.core.record import LAYOUT, Record, State, Stored, decode, encode
from headrace.engine.call import Arg, Call, Script, Steps, command, script
from headrace.engine.keys import QueueKeys, queues_key, workers_key
from headrace.errors import DuplicateJob, JobExists, JobNotFound, NotDurable, ServerBusy

T = TypeVar("T")

LAYOUT_ARG = str(LAYOUT).encode()
MOST_JOBS_A_CALL = 1_000
MOST_BYTES_A_CALL = 4 << 20  # about: of records
MOST_CLAIMS_A_CALL = 256
DONE_MAX, DEAD_MAX = 10_000, 100_000
ALWAYS_MS = 2**53


class NewJob(msgspec.Struct, frozen=True):
    """A job to enqueue. `delay_ms` counts from the server's now; `at_ms` is a Unix instant; one of them at most.

    `expires_in_ms` counts from the server's now, too; the record's own `expires_at_ms` must then be some Unix instant.
    `ties`: what hangs on it (`core.ties`); `on_conflict`: what to do when its unique key is taken.
    `pass_over`: store nothing when the id is there already.
    """

    id: str
    record: bytes
    priority: int = 0
    at_front: bool = False
    delay_ms: int = 0
    at_ms: int = 0
    check_id: bool = False
    expires_in_ms: int = 0
    ties: bytes = b""
    on_conflict: str = ""
    pass_over: bool = False


class Kind(enum.StrEnum):
    """What becomes of a job at the end of an attempt."""

    SUCCEEDED = "s"
    FAILED = "f"
    CANCELLED = "c"
    DROPPED = "d"
    RETRY = "r"
    PARK = "p"
    RELEASE = "l"


class Settlement(msgspec.Struct, gc=False):
    """One job's outcome. `record`: the whole new one; b"" for RELEASE; for DROPPED what waiters get, the ended record
    or just its result as a msgpack bin.

    `delay_ms` for RETRY and PARK (0: at once); `keep_ms` for what ended: how long it is kept.
    """

    queue: str
    id: str
    kind: Kind
    record: bytes = b""
    delay_ms: int = 0
    keep_ms: int = 0
    is_suspect: bool = False


class Claim(msgspec.Struct, gc=False):
    """A job that a session now holds. `fence` strictly grows per queue; the jobs of one claim share it.

    `inputs`: what other jobs sent to it (input number -> the sender's ended record), once they are fetched.
    `saved`: the checkpoint of an earlier run, msgpack, once it is fetched.
    """

    queue: str
    id: str
    record: bytes
    fence: int
    is_suspect: bool = False
    inputs: dict[int, bytes] | None = None
    saved: bytes | None = None


class Claimed(msgspec.Struct):
    """`next_due_ms`: ms until the earliest delayed job, None when there is none. `more`: ask again at once.

    `suspects_waiting`: some jobs must be claimed alone, and this call did not ask for them. `with_inputs`: ids of those claimed
    whose inputs must be fetched; `with_saved`: whose checkpoints must be.
    """

    claims: list[Claim]
    next_due_ms: int | None = None
    more: bool = False
    suspects_waiting: bool = False
    with_inputs: set[str] | None = None
    with_saved: set[str] | None = None


class Settled(msgspec.Struct):
    """`lost`: ids that were no longer held by this session; nothing was written for them. `outboxes`: queues that have something
    to deliver to other jobs."""

    lost: list[str]
    claimed: Claimed
    outboxes: list[QueueKeys] | None = None


class Renewed(msgspec.Struct):
    """`gone`: sessions that are missing, each with the number of queues. `cancels`: (queue, id) of jobs asked to stop."""

    gone: Counter[str]
    cancels: list[tuple[str, str]]
    server_ms: int


class Released(msgspec.Struct):
    suspects: list[str]
    returned: int
    failed: list[str]


class Tended(msgspec.Struct):
    """`next_tick_ms`: when a schedule of this queue is due; None when none is to come."""

    server_ms: int
    promoted: int
    swept_sessions: list[str]
    swept_jobs: list[str]
    trimmed: int
    failed: list[str]
    overdue_sessions: list[str]
    next_tick_ms: int | None = None
    has_letters: bool = False
    is_half_done: bool = False


class Look(msgspec.Struct):
    """One job as it stands. `session`: who runs it. `progress`: msgpack [fraction, text, at_ms]. `limit`: what it
    waits for. `missing`: how many other jobs it waits for."""

    record: bytes
    state: State
    due_ms: int | None = None
    progress: bytes | None = None
    crashes: int | None = None
    session: str | None = None
    limit: str = ""
    missing: int = 0


# -- reading replies


def _nothing(_: Any) -> None:
    return None


def _texts(reply: Iterable[bytes]) -> list[str]:
    return [item.decode() for item in reply]


def _integer(reply: bytes | None) -> int | None:
    return None if reply is None else int(float(reply))


def _same(reply: bytes | None) -> bytes | None:
    return reply


def _text(reply: bytes) -> str:
    return reply.decode()


def _keys(found: Script, queues: Sequence[QueueKeys], session: str = "") -> list[bytes]:
    """The key blocks of these queues for this script; `held` is the session's."""
    keys: list[bytes] = []
    for queue in queues:
        if found.keys[-1] == "held":
            keys += queue.block(found.keys[:-1])
            keys.append(queue.held(session))
        else:
            keys += queue.block(found.keys)
    return keys


def _parts(queues: Sequence[QueueKeys], split: bool) -> list[Sequence[QueueKeys]]:
    return [[queue] for queue in queues] if split else [queues]


# -- producers


def enqueue(queue: QueueKeys, jobs: Sequence[NewJob], producer: str, number: int) -> Call[dict[str, str]]:
    """Store up to 1,000 jobs of one queue: all or none. `number` grows with each call of this producer, so that a
    call sent again after a lost reply is recognised.

    Returns (when sent):
        For each job that was not stored since its unique key was taken: its id, and that of the job which has the key.

    Raises (when sent):
        JobExists: a chosen id is taken; nothing was written.
        DuplicateJob: a unique key is taken, and the job wants that told; nothing was written.
        QueueFull: the queue has reached its own limit; nothing was written.
        ServerFull: the server has reached maxmemory; nothing was written.
    """
    found = script("enqueue")
    plain: list[Arg] = []
    others: list[NewJob] = []
    hows: list[str] = []
    for job in jobs:
        special = job.priority or job.at_front or job.delay_ms or job.at_ms or job.check_id or job.expires_in_ms
        if not (special or job.ties or job.pass_over):
            plain += (job.id, job.record)
        else:
            check = 2 if job.pass_over else int(job.check_id)
            how = f"{job.priority} {job.at_front:d} {job.delay_ms} {job.at_ms} {check} {job.expires_in_ms} {job.on_conflict}"
            others.append(job)
            hows.append(how)
    args: list[Arg] = [LAYOUT_ARG, producer, number, len(plain) // 2, *plain]
    if len(set(hows)) == 1:  # mostly: then it is said once
        args.append(hows[0])
        for job in others:
            args += (job.id, job.record)
        args += (job.ties for job in others)
    elif others:
        args.append("")
        for job, how in zip(others, hows, strict=True):
            args += (job.id, job.record, job.ties, how)
    return Call(found, queue.block(found.keys), args, read_taken)


_NONE_THERE: dict[str, str] = {}


def read_taken(reply: list[bytes]) -> dict[str, str]:
    """What a script that stores jobs answers."""
    if not reply:
        return _NONE_THERE
    what, *ids = _texts(reply)
    if what == "taken":
        raise JobExists(f"job_id {', '.join(ids[:5])} is taken; choose another, or delete that job first", ids[0])
    if what == "held":
        raise DuplicateJob(f"job {', '.join(ids[:5])} has the same unique key and has not ended", ids[0])
    return dict(zip(ids[::2], ids[1::2], strict=True))


def durable(
    call: Call[dict[str, str]], jobs: Sequence[NewJob], durability: str, timeout_ms: int
) -> Call[dict[str, str]]:
    """An enqueue that also waits until one replica, or the server's own disk, has all that was written before.

    WAIT and WAITAOF count what their own connection wrote, so they go in the same write as the script.
    https://valkey.io/commands/wait/ https://valkey.io/commands/waitaof/

    Raises (when sent):
        NotDurable: accepted, not confirmed.
        JobExists: the chosen id is taken, by a job that is confirmed (or, of several jobs, nothing was written).
    """
    wait: tuple[Arg, ...] = ("WAIT", 1, timeout_ms) if durability == "replicated" else ("WAITAOF", 1, 0, timeout_ms)

    def decode(replies: tuple[Any, Any]) -> dict[str, str]:
        taken, told = replies
        if taken and len(jobs) > 1:
            call.decode(taken)
        problem = _not_durable(durability, told, timeout_ms)
        if problem:
            ids = [job.id for job in jobs]
            shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
            raise NotDurable(
                f"accepted, but not confirmed as {durability!r}: {problem}. Safe to send again with job_id {shown}", ids
            )
        return call.decode(taken)

    return Call(call.script, call.keys, call.args, decode, wait, timeout_ms)


def _not_durable(durability: str, told: Any, timeout_ms: int) -> str:
    """What a reply to WAIT (a number) or WAITAOF (two numbers), or its error, leaves to be desired; "" for nothing."""
    if not isinstance(told, str):
        confirmed = told if isinstance(told, int) else told[0]
        where = "replica has" if durability == "replicated" else "fsync has covered"
        return "" if confirmed >= 1 else f"no {where} it after {timeout_ms / 1000:g} s"
    if "unknown command" in told:
        return "the server is too old to tell (WAITAOF needs Redis or Valkey 7.2)"
    if "appendonly is disabled" in told:
        return "the server writes no append-only file (set `appendonly yes`)"
    return f"the server answered {told}"


# -- consumers


def open_session(queues: Sequence[QueueKeys], session: str, lease_ms: int, *, split: bool) -> Steps[None]:
    """Begin a session in each queue; its lease ends `lease_ms` from now."""
    found = script("open")
    for part in _parts(queues, split):
        yield Call(found, _keys(found, part), [LAYOUT_ARG, session, lease_ms], _nothing)


def renew(queues: Sequence[QueueKeys], sessions: Sequence[str], lease_ms: int, *, split: bool) -> Steps[Renewed]:
    """Put off the end of these sessions' leases. A session that is gone stays gone."""
    found = script("renew")
    renewed = Renewed(Counter(), [], 0)
    for part in _parts(queues, split):
        gone, cancels, server_ms = yield Call(found, _keys(found, part), [LAYOUT_ARG, lease_ms, *sessions], list)
        renewed.gone.update(_texts(gone))
        renewed.cancels += [(part[n - 1].name, job_id) for n, ids in cancels for job_id in _texts(ids)]
        renewed.server_ms = int(server_ms)
    return renewed


def claim(
    queues: Sequence[QueueKeys],
    session: str,
    want: int,
    *,
    take_suspects: bool = True,
    side_by_side: bool = False,
    split: bool,
) -> Steps[Claimed]:
    """Take up to `want` (1 to 256) ready jobs: queues in order, highest priority first, oldest first.

    Raises (when sent):
        SessionGone: the session's lease has ended; nothing was claimed.
        ServerUnreachable: no reply. The jobs may be claimed: `adopt` brings them back.
    """
    settled = yield from settle(
        queues, session, (), want=want, take_suspects=take_suspects, side_by_side=side_by_side, split=split
    )
    return settled.claimed


def settle(
    queues: Sequence[QueueKeys],
    session: str,
    outcomes: Sequence[Settlement],
    *,
    want: int = 0,
    take_suspects: bool = True,
    side_by_side: bool = False,
    split: bool,
) -> Steps[Settled]:
    """Store outcomes, give up their claims, and claim up to `want` next jobs: one atomic script (a queue's, on Cluster).

    `side_by_side`: they will all run at once; else of jobs that hold a slot of a limit one is claimed.

    Raises (when sent):
        SessionGone: the session's lease has ended; nothing was written.
    """
    found = script("settle")
    total = Settled([], Claimed([]))
    for part in _parts(queues, split):
        groups = _groups(part, outcomes)
        if split and not groups and want <= 0:
            continue
        args: list[Arg] = [
            LAYOUT_ARG,
            session,
            min(want, MOST_CLAIMS_A_CALL),
            int(take_suspects) + 2 * side_by_side,
            *groups,
        ]
        reply: list[Any] = yield Call(found, _keys(found, part, session), args, _same)
        if reply[0]:
            total.lost += _texts(reply[0])
        if len(reply) % 8 == 4:
            *reply, outboxes, with_inputs, with_saved = reply
            total.outboxes = [*(total.outboxes or ()), *(part[number - 1] for number in outboxes)]
            total.claimed.with_inputs = {*(total.claimed.with_inputs or ()), *_texts(with_inputs)}
            total.claimed.with_saved = {*(total.claimed.with_saved or ()), *_texts(with_saved)}
        before = len(total.claimed.claims)
        _add_claims(total.claimed, part, reply)
        want -= len(total.claimed.claims) - before
        if total.claimed.claims:
            take_suspects = False
            if total.claimed.claims[-1].is_suspect:
                want = 0
    return total


def _groups(queues: Sequence[QueueKeys], outcomes: Sequence[Settlement]) -> list[Arg]:
    """Outcomes as arguments, those of one queue and kind together."""
    if not outcomes:
        return []
    grouped: dict[tuple[str, str, bool], list[Arg]] = {}
    last: tuple[str, str, bool] | None = None
    group: list[Arg] = []
    for item in outcomes:
        key = (item.queue, item.kind, item.is_suspect)
        if key != last:
            group = grouped.setdefault(key, [])
            last = key
        group += (item.id, item.delay_ms or item.keep_ms, item.record)
    numbers = {queue.name: n for n, queue in enumerate(queues, 1)}
    args: list[Arg] = []
    for (name, kind, is_suspect), jobs in grouped.items():
        number = numbers.get(name)
        if number is None:
            continue
        # StrEnum members are packed by value: a str subclass is as good as a str for RESP.
        args += (number, str(kind), int(is_suspect), len(jobs) // 3)
        args += jobs
    return args


def _add_claims(claimed: Claimed, queues: Sequence[QueueKeys], reply: list[Any]) -> None:
    """Read the answer of `settle`: eight values a queue that was asked, after the first."""
    for at in range(1, len(reply), 8):
        number, fence, next_due, more, suspects_waiting, is_suspect, ids, records = reply[at : at + 8]
        name = queues[number - 1].name
        if next_due >= 0 and (claimed.next_due_ms is None or next_due < claimed.next_due_ms):
            claimed.next_due_ms = next_due
        claimed.more = claimed.more or bool(more)
        claimed.suspects_waiting = claimed.suspects_waiting or bool(suspects_waiting)
        if ids:
            fence = int(fence)
            suspect = bool(is_suspect)
            claimed.claims += [
                Claim(name, job_id.decode(), record, fence, suspect)
                for job_id, record in zip(ids, records, strict=True)
            ]


def give_back(
    queues: Sequence[QueueKeys], session: str, jobs: Sequence[tuple[str, str]], *, split: bool
) -> Steps[list[str]]:
    """Return unstarted jobs, (queue, id) in the order they were claimed, to the head of their queues, uncharged.

    Returns:
        The ids given back; an id the session no longer holds is left alone.
    """
    found = script("give_back")
    given: list[str] = []
    for queue in queues:
        ids = [job_id for name, job_id in jobs if name == queue.name]
        if ids:
            given += yield Call(found, _keys(found, [queue], session), [LAYOUT_ARG, session, *ids], _texts)
    return given


def adopt(queues: Sequence[QueueKeys], old: str, new: str, lease_ms: int, *, split: bool) -> Steps[list[Claim]]:
    """End the session `old`, begin `new`, and hand it all that `old` holds, whatever replies were lost."""
    found = script("adopt")
    claims: list[Claim] = []
    for queue in queues:
        keys = [*queue.block(found.keys[:-2]), queue.held(new), queue.held(old)]
        fence, ids, records, crashes = yield Call(found, keys, [LAYOUT_ARG, new, old, lease_ms], list)
        claims += [
            Claim(queue.name, job_id.decode(), record or b"", int(fence), count is not None)
            for job_id, record, count in zip(ids, records, crashes, strict=True)
        ]
    return claims


def release(
    queues: Sequence[QueueKeys],
    session: str,
    *,
    blamed: Sequence[str],
    alone: bool,
    reason: str,
    split: bool,
    stopped: bool = False,
) -> Steps[Released]:
    """End a session whose process is dead or done.

    Args:
        blamed: ids that ran when it died: they become suspects, claimed one at a time from now on.
        alone: the blamed job ran by itself, so this death counts; the third fails it with `reason`.
        stopped: the blamed were killed over their timeout: `reason` is put into their records, and whoever claims them
            next settles that attempt by the task's policy.
    """
    found = script("release")
    total = Released([], 0, [])
    for queue in queues:
        args: list[Arg] = [LAYOUT_ARG, session, int(alone), int(stopped), reason, *blamed]
        suspects, returned, failed = yield Call(found, _keys(found, [queue], session), args, list)
        total.suspects += _texts(suspects)
        total.returned += returned
        total.failed += _texts(failed)
    return total


def close_session(queues: Sequence[QueueKeys], session: str, *, split: bool) -> Steps[Released]:
    """End a session; whatever it still holds goes back uncharged."""
    return release(queues, session, blamed=(), alone=False, reason="", split=split)


# -- supervisors


def tend(
    queue: QueueKeys, *, sweep: bool, until_ms: int = ALWAYS_MS, done_max: int = DONE_MAX, dead_max: int = DEAD_MAX
) -> Call[Tended]:
    """Promote due jobs, take over dead sessions (`sweep`), and trim what is kept no longer; bounded.

    Args:
        until_ms: nobody is taken over when the server's clock says more: it jumped, or the call came late.
    """
    found = script("tend")
    limits = [until_ms if sweep else 0, done_max, dead_max]
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, *limits], _read_tended)


def _read_tended(reply: list[Any]) -> Tended:
    now, promoted, sessions, jobs, trimmed, failed, overdue, tick, has_letters, is_half_done = reply
    next_tick_ms = None if tick < 0 else int(tick)
    return Tended(
        int(now), promoted, _texts(sessions), _texts(jobs), trimmed, _texts(failed), _texts(overdue), next_tick_ms,
        bool(has_letters), bool(is_half_done),
    )  # fmt: skip


def beat(prefix: str, worker_id: str, info: bytes, taken: str = "") -> Call[str | None]:
    """Show that a worker is there (`info`: a msgpack map); returns the command an operator left for it.

    A command is told until a beat says that it was `taken`: a reply may be lost.
    """
    return Call(script("beat"), [workers_key(prefix)], [LAYOUT_ARG, worker_id, info, taken], _optional_text)


def _optional_text(reply: bytes | None) -> str | None:
    return None if reply is None else reply.decode()


def leave(prefix: str, worker_id: str) -> Call[None]:
    """A worker has ended: forget it."""
    key = workers_key(prefix)
    return command("HDEL", key, worker_id, f"!{worker_id}", key=key, decode=_nothing)


def announce_queues(prefix: str, names: Sequence[str]) -> Call[None]:
    """Put these queues on the list of all queues."""
    return Call(script("announce"), [queues_key(prefix)], [LAYOUT_ARG, *names], _nothing)


# -- limits


def set_limit(queue: QueueKeys, name: str, rule: Mapping[str, Any] | None) -> Call[None]:
    """What holds for a limit of this name, or template, whatever its jobs say (`core.ties.rule`); None: as they say."""
    found = script("admin_limit_set")
    packed = b"" if rule is None else msgspec.msgpack.encode(rule)
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, name, packed], _nothing)


def hold_limit(queue: QueueKeys, name: str, hold_ms: int) -> Call[None]:
    """Let nothing through a limit for so long."""
    found = script("limit_hold")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, name, hold_ms, 0], _nothing)


def refund_limit(queue: QueueKeys, name: str, refund_ms: float) -> Call[None]:
    """Give back what a job took of a limit's rate: its cost times the time between two jobs."""
    found = script("limit_hold")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, name, 0, refund_ms], _nothing)


def bound_queue(queue: QueueKeys, bounds: Mapping[str, int | str | None]) -> Call[None]:
    """Set `max_running`, `max_length`, `overflow` ("refuse" or "drop_oldest"), `ageing` (ms) of a queue; None takes one away."""
    found = script("admin_queue_set")
    words: list[Arg] = []
    for field, value in bounds.items():
        words += (field, "" if value is None else value)
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, *words], _nothing)


# -- one job


def watch(queue: QueueKeys, job_id: str, waiter: str) -> Call[bytes | None]:
    """The ended record; or None, and `wait_ring` of this waiter will bring it.

    Raises (when sent):
        JobNotFound
    """
    found = script("watch")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, job_id, waiter], _same)


def unwatch(queue: QueueKeys, job_id: str, waiter: str) -> Call[bytes | None]:
    """This waiter has given up; the ended record all the same, if the job has ended."""
    found = script("unwatch")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, job_id, waiter], _same)


def wait_ring(queue: QueueKeys, waiter: str, timeout_s: float) -> Call[bytes | None]:
    """Block until the job ends: its record (b"" when it was deleted), or None at the timeout."""
    key = queue.waiter(waiter)
    return command("BLPOP", key, f"{timeout_s:.3f}", key=key, decode=_second)


def _second(reply: list[bytes] | None) -> bytes | None:
    return None if reply is None else reply[1]


def look(queue: QueueKeys, job_id: str) -> Steps[Look | None]:
    """One job as it stands, or None. Reads only; two round trips while it is claimable or running."""
    found = script("look")
    reply: list[Any] = yield Call(found, queue.block(found.keys), [LAYOUT_ARG, job_id], list)
    if not reply or reply[0] is None:
        return None
    record, due, progress, crashes, sessions, limit, opens, missing = reply
    result = Look(record, State.QUEUED, _integer(due or opens), progress, _integer(crashes), limit=limit.decode())
    stored = decode(record)
    if stored.state != Stored.LIVE:
        result.state = State(Stored(stored.state).name.lower())
    elif limit or missing is not None:
        result.state, result.missing = State.WAITING, _integer(missing) or 0
    elif result.due_ms is not None:
        result.state = State.RETRYING if stored.attempt else State.SCHEDULED
    elif sessions:
        keys = [queue.held(session.decode()) for session in sessions]
        number: int = yield Call(script("holder"), keys, [LAYOUT_ARG, job_id], int)
        if number:
            result.state, result.session = State.RUNNING, sessions[number - 1].decode()
    return result


def _with_holders(name: str, queue: QueueKeys, job_id: str) -> Steps[str]:
    """Run a script that must see every session's claims, with the sessions' keys declared."""
    found = script(name)
    for _ in range(20):
        sessions: list[str] = yield command("ZRANGE", queue.sessions, 0, -1, key=queue.sessions, decode=_texts)
        keys = [*queue.block(found.keys), *(queue.held(session) for session in sessions)]
        answer: str = yield Call(found, keys, [LAYOUT_ARG, job_id, *sessions], _text)
        if answer != "again":
            return answer
    raise ServerBusy(f"the workers of queue {queue.name!r} change too fast to find job {job_id}; try again")


def cancel(queue: QueueKeys, job_id: str) -> Steps[str]:
    """End a waiting job now, or ask a running one to stop.

    Returns:
        "cancelled", "asked" (it runs: its worker is told), or "ended" (too late: nothing changed).
    """
    if (yield from _record(queue, job_id)).state != Stored.LIVE:
        return "ended"
    answer = yield from _with_holders("cancel", queue, job_id)
    if answer == "ended" and (yield from _record(queue, job_id)).state == Stored.CANCELLED:
        return "cancelled"  # since we looked: by this very call, if its reply was lost and it was sent again
    return answer


def delete(queue: QueueKeys, job_id: str) -> Steps[str]:
    """Remove a job wherever it is: "deleted", or "running" (refused). Reads the whole ready list when it waits there."""
    yield from _record(queue, job_id)
    try:
        return (yield from _with_holders("delete", queue, job_id))
    except JobNotFound:
        return "deleted"  # since we looked, as above


def retry(queue: QueueKeys, job_id: str, *, at_front: bool = False) -> Steps[str]:
    """Put an ended job back in its queue, attempts counted from zero, earlier errors kept.

    Args:
        at_front: before those that have no priority: its own is 1 then.

    Returns:
        "queued", or "live" (it has not ended: nothing changed).

    Raises:
        DuplicateJob: another job has its unique key now.
    """
    found = script("requeue")
    old = yield from _stored(queue, job_id)
    record = decode(old)
    if record.state == Stored.LIVE:
        return "live"
    new = revived(record)
    if at_front:
        new.priority = max(new.priority, 1)
    ties = (record.options.ties if record.options else None) or b""
    answer: int | bytes = yield Call(
        found, queue.block(found.keys), [LAYOUT_ARG, job_id, old, encode(new), ties], _same
    )
    if isinstance(answer, bytes):
        raise DuplicateJob(
            f"job {job_id} cannot come back: job {answer.decode()} has its unique key now", answer.decode()
        )
    if not answer:
        # Put back since we looked, as above. It may have run and ended since, and must not run once more for that.
        yield from _stored(queue, job_id)
    return "queued"


def run_now(queue: QueueKeys, job_id: str) -> Steps[str]:
    """Put a job that is scheduled, or that runs again later, at the head of its queue.

    Returns:
        "queued", "live" (it does not wait for a time: nothing changed), or "ended".
    """
    if (yield from _record(queue, job_id)).state != Stored.LIVE:
        return "ended"
    due_ms = yield command("ZSCORE", queue.delayed, job_id, key=queue.delayed, decode=_same)
    if due_ms is None:
        return "live"
    found = script("run_now")
    answer: str = yield Call(found, queue.block(found.keys), [LAYOUT_ARG, job_id], _text)
    # It has left since we looked: by this very call, if its reply was lost and it was sent again, or since it was due.
    return "queued" if answer == "live" else answer


def _stored(queue: QueueKeys, job_id: str) -> Steps[bytes]:
    """A job's record as it is kept.

    Raises:
        JobNotFound
    """
    found: bytes | None = yield command("HGET", queue.jobs, job_id, key=queue.jobs, decode=_same)
    if found is None:
        raise JobNotFound(f"no job {job_id} in queue {queue.name!r}: it never was, or is no longer kept")
    return found


def _record(queue: QueueKeys, job_id: str) -> Steps[Record]:
    return decode((yield from _stored(queue, job_id)))


def revived(record: Record) -> Record:
    """An ended record made live again."""
    return msgspec.structs.replace(
        record,
        state=int(Stored.LIVE),
        attempt=0,
        expires_at_ms=0,
        started_at_ms=0,
        ended_at_ms=0,
        result=None,
        note=None,
        reason=None,
    )


def set_progress(queue: QueueKeys, sessions: tuple[str, str], job_id: str, data: bytes) -> Call[bool]:
    """Keep how far a job is; True: it was asked to stop, or was taken over.

    Args:
        sessions: the one that holds it, and the name that one takes next, as it may have just now.
    """
    found = script("progress")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, job_id, *sessions, data], bool)


def save_state(queue: QueueKeys, sessions: tuple[str, str], job_id: str, fence: int, state: bytes) -> Call[bool]:
    """Keep the checkpoint of a run; False: the job was taken over, and nothing was written. `sessions`: as above."""
    found = script("save")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, job_id, *sessions, fence, state], bool)


def saved_state(queue: QueueKeys, job_id: str) -> Call[bytes | None]:
    """What `save_state` kept last; None: nothing, or no more."""
    key = queue.saved(job_id)
    return command("HGET", key, "state", key=key, decode=_same)


def is_cancel_asked(queue: QueueKeys, job_id: str) -> Call[bool]:
    return command("SISMEMBER", queue.cancels, job_id, key=queue.cancels, decode=bool)
