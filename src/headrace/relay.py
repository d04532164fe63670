"""The relay: brings the rows of an outbox to the server, each once, whatever is killed meanwhile; any number may run.

1. In one transaction: take up to 100 rows and give those of one queue a batch, a name that is kept with them.
2. Without a transaction: one enqueue call a batch, under the batch's name as the producer's, numbered 1.
3. In another transaction: delete the rows.

A relay that is killed between 2 and 3 leaves a batch; when its time is up, another one sends the very same call again,
and the server knows it, as it knows a call whose reply was lost: for a day, also when the jobs have long run and nothing is
kept of them. A batch never grows, and loses rows (those that cannot be read) only before it is sent for the first time.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from headrace.core.record import decode
from headrace.database import Link, Row, link_to
from headrace.engine import ops
from headrace.engine.clients import SyncClient
from headrace.engine.keys import check_job_id, check_queue_name, queue_keys
from headrace.errors import HeadraceError, JobExists, ServerBusy, ServerFull, ServerUnreachable, UsageError

logger = logging.getLogger("headrace.relay")

ROWS_A_ROUND = 100
BATCH_BYTES = 4 << 20
LEASE_S = 30.0
_GONE_FOR_ALL = (ServerUnreachable, ServerBusy, ServerFull)

NOW_MS = {
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS integer)",
}
"""The database's clock decides whose time is up, as many machines may relay."""
_LOCK = {"postgresql": "FOR UPDATE", "sqlite": ""}
_LOCK_FREE = {"postgresql": "FOR UPDATE SKIP LOCKED", "sqlite": ""}

_OVERDUE = """
SELECT batch, queue, durability FROM headrace_outbox
WHERE prefix = ? AND batch IS NOT NULL AND retry_at_ms <= {now} ORDER BY seq LIMIT 1 {lock}
"""
_WAITING = """
SELECT seq, queue, durability, length(body) FROM headrace_outbox
WHERE prefix = ? AND batch IS NULL AND problem IS NULL ORDER BY seq LIMIT ? {lock_free}
"""
_NAME_BATCH = "UPDATE headrace_outbox SET batch = ?, retry_at_ms = {now} + ? WHERE seq IN ({seqs})"
_LEASE = "UPDATE headrace_outbox SET retry_at_ms = {now} + ? WHERE batch = ?"
_ROWS = "SELECT seq, id, body FROM headrace_outbox WHERE batch = ? ORDER BY seq {lock}"
_SET_ASIDE = "UPDATE headrace_outbox SET batch = NULL, problem = ? WHERE seq = ?"
_PUT_OFF = "UPDATE headrace_outbox SET retry_at_ms = {now} + ?, problem = ? WHERE batch = ?"
_DELETE = "DELETE FROM headrace_outbox WHERE batch = ?"
_COUNT = "SELECT count(*) FROM headrace_outbox WHERE prefix = ?"
_PROBLEMS = """
SELECT seq, queue, id, at_ms, batch, problem FROM headrace_outbox
WHERE prefix = ? AND problem IS NOT NULL ORDER BY seq LIMIT ?
"""
_TAKE_BACK = (
    "UPDATE headrace_outbox SET problem = NULL WHERE prefix = ? AND batch IS NULL AND problem IS NOT NULL RETURNING seq"
)

_decode_new = msgspec.msgpack.Decoder(ops.NewJob).decode


class App(Protocol):
    """What the relay needs of an app."""

    @property
    def client(self) -> SyncClient: ...


class Relayed(msgspec.Struct):
    """What one round did. `sent`: jobs the server has now; `known`: those of them whose id it had already.

    `set_aside`: rows that cannot be read; `put_off`: rows whose queue took none, to be tried again later.
    """

    sent: int = 0
    known: int = 0
    set_aside: int = 0
    put_off: int = 0

    @property
    def is_idle(self) -> bool:
        return not (self.sent or self.set_aside or self.put_off)


class _Batch(msgspec.Struct):
    name: str
    queue: str
    durability: str
    jobs: list[ops.NewJob] = []


def relay_once(target: Any, app: App, *, limit: int = ROWS_A_ROUND, lease_s: float = LEASE_S) -> Relayed:
    """Bring up to `limit` rows of the outbox to the app's server.

    Args:
        target: a connection as `app.outbox` takes, on which no transaction is open: the relay makes its own.
        lease_s: how long a batch is this relay's alone; then another one takes it over.

    Raises:
        UsageError: a transaction is open on the connection.
        ServerUnreachable, ServerBusy, ServerFull: nothing can be brought now; the rows stay.
        (the driver's own errors)
    """
    return relay_to(target, app.client, limit=limit, lease_s=lease_s)


def relay_to(target: Any, client: SyncClient, *, limit: int = ROWS_A_ROUND, lease_s: float = LEASE_S) -> Relayed:
    """As `relay_once`, with a client."""
    link = link_to(target)
    if link.is_open():
        raise UsageError("the relay makes its own transactions: give it a connection on which none is open")
    done = Relayed()
    lease_ms = int(lease_s * 1000)
    with link.transaction():
        batches = _take_over(link, client.prefix, lease_ms) or _take_new(link, client.prefix, limit, lease_ms)
        for batch in batches:
            _read_rows(link, batch, done)
    for at, batch in enumerate(batches):
        try:
            done.known += _send(client, batch)
        except _GONE_FOR_ALL:
            _put_off(link, batches[at:], 0, None)
            raise
        except HeadraceError as error:
            logger.error("%d jobs of the outbox wait: queue %s: %s", len(batch.jobs), batch.queue, error)
            _put_off(link, [batch], lease_ms, str(error))
            done.put_off += len(batch.jobs)
            continue
        with link.transaction():
            link.execute(_sql(_ROWS, link), (batch.name,))
            link.execute(_DELETE, (batch.name,))
        done.sent += len(batch.jobs)
    return done


def _take_over(link: Link, prefix: str, lease_ms: int) -> list[_Batch]:
    """A batch whose relay has not finished it in its time. Its first row is the gate: one relay passes."""
    found = link.execute(_sql(_OVERDUE, link), (prefix,))
    for name, _, _ in found:
        link.execute(
            _sql(_ROWS, link), (name,)
        )  # rows are always locked in their order, or two could wait for each other
        link.execute(_sql(_LEASE, link), (lease_ms, name))
    return [_Batch(*row) for row in found]


def _take_new(link: Link, prefix: str, limit: int, lease_ms: int) -> list[_Batch]:
    """New batches from the oldest rows, one for each queue and durability among them."""
    groups: dict[tuple[str, str], list[int]] = {}
    size = 0
    for seq, queue, durability, length in link.execute(_sql(_WAITING, link), (prefix, limit)):
        size += length
        if groups and size > BATCH_BYTES:
            break
        groups.setdefault((queue, durability), []).append(seq)
    batches = [_Batch(f"outbox-{secrets.token_hex(8)}", *group) for group in groups]
    for batch, seqs in zip(batches, groups.values(), strict=True):
        statement = _sql(_NAME_BATCH, link, seqs=", ".join("?" * len(seqs)))
        link.execute(statement, (batch.name, lease_ms, *seqs))
    return batches


def _read_rows(link: Link, batch: _Batch, done: Relayed) -> None:
    for row in link.execute(_sql(_ROWS, link), (batch.name,)):
        try:
            batch.jobs.append(_read(batch, row))
        except (msgspec.MsgspecError, UsageError, ValueError) as error:
            logger.error("row %s of the outbox is set aside: %s", row[0], error)
            link.execute(_SET_ASIDE, (f"cannot be read: {error}"[:1000], row[0]))
            done.set_aside += 1


def _read(batch: _Batch, row: Row) -> ops.NewJob:
    _, job_id, body = row
    new = _decode_new(bytes(body))
    if new.id != job_id:
        raise ValueError(f"its id is {job_id!r:.60}, that of its body {new.id!r:.60}")
    if batch.durability not in ("memory", "replicated", "fsync"):
        raise ValueError(f"durability {batch.durability!r:.60}")
    check_queue_name(batch.queue)
    check_job_id(new.id)
    decode(new.record)
    return new


def _send(client: SyncClient, batch: _Batch) -> int:
    """One call for the batch; how many of its ids were taken.

    Taken ids are what is left when the server forgot the call (after a day, or in a failover) but not the job, or were
    chosen and used before: then nothing was written, and the call goes out without them, under the same number.
    """
    keys = queue_keys(batch.queue, client.prefix)
    client.run(ops.announce_queues(client.prefix, [batch.queue]))
    jobs = batch.jobs
    while jobs:
        call = ops.enqueue(keys, jobs, batch.name, 1)
        if batch.durability != "memory":
            call = ops.durable(call, jobs, batch.durability, client.config.durability_timeout_ms)
        try:
            client.run(call)
            break
        except JobExists as error:
            logger.warning("job_id %s of the outbox is taken in queue %s: not enqueued", error.job_id, batch.queue)
            jobs = [job for job in jobs if job.id != error.job_id]
    return len(batch.jobs) - len(jobs)


def _put_off(link: Link, batches: Iterable[_Batch], delay_ms: int, problem: str | None) -> None:
    with link.transaction():
        for batch in batches:
            link.execute(_sql(_ROWS, link), (batch.name,))
            link.execute(_sql(_PUT_OFF, link), (delay_ms, problem, batch.name))


def waiting(target: Any, prefix: str) -> int:
    """How many rows an outbox holds, those with a problem too."""
    link = link_to(target)
    with link.transaction():
        return int(link.execute(_COUNT, (prefix,))[0][0])


def problems(target: Any, prefix: str, *, limit: int = 1_000) -> list[dict[str, Any]]:
    """Rows that are set aside, and those whose queue takes none; the oldest first."""
    link = link_to(target)
    with link.transaction():
        rows = link.execute(_PROBLEMS, (prefix, limit))
    names = ("seq", "queue", "id", "at_ms", "is_set_aside", "problem")
    return [dict(zip(names, (*row[:4], row[4] is None, row[5]), strict=True)) for row in rows]


def take_back(target: Any, prefix: str) -> int:
    """Let rows that were set aside be tried again; how many."""
    link = link_to(target)
    with link.transaction():
        return len(link.execute(_TAKE_BACK, (prefix,)))


def _sql(statement: str, link: Link, seqs: str = "") -> str:
    dialect = link.dialect
    return statement.format(now=NOW_MS[dialect], lock=_LOCK[dialect], lock_free=_LOCK_FREE[dialect], seqs=seqs)
