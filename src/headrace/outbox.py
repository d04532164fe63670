"""The outbox: jobs enqueued by a row in the caller's own transaction, so that they exist exactly if it is committed.

A row holds what a normal enqueue would send. `relay` brings rows to the server.
"""

from __future__ import annotations

import time
from typing import Any, Protocol, TypeVar

import msgspec

from headrace.database import async_link_to, link_to
from headrace.engine.ops import NewJob
from headrace.errors import JobExists
from headrace.job import Job, JobCall

R = TypeVar("R")

_TABLE = """\
CREATE TABLE IF NOT EXISTS headrace_outbox (
    seq {serial}, prefix {text} NOT NULL, queue {text} NOT NULL, id {text} NOT NULL,
    durability {text} NOT NULL, body {bytes} NOT NULL, at_ms bigint NOT NULL,
    batch {text}, retry_at_ms bigint, problem text, UNIQUE (prefix, queue, id)
);
CREATE INDEX IF NOT EXISTS headrace_outbox_waiting ON headrace_outbox (prefix, seq) WHERE batch IS NULL AND problem IS NULL;
CREATE INDEX IF NOT EXISTS headrace_outbox_batches ON headrace_outbox (prefix, seq) WHERE batch IS NOT NULL
"""
DDL = {
    "postgresql": _TABLE.format(
        serial="bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", text="varchar(200)", bytes="bytea"
    ),
    "sqlite": _TABLE.format(serial="integer PRIMARY KEY AUTOINCREMENT", text="text", bytes="blob"),
}
"""The table, by database: for your migrations, or `create_tables`. `seq` orders the rows; `body` is msgpack; a `batch`
is being sent, by a relay that has until `retry_at_ms`; a row with a `problem` and no batch is set aside."""

_INSERT = """
INSERT INTO headrace_outbox (prefix, queue, id, durability, body, at_ms) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (prefix, queue, id) DO NOTHING RETURNING seq
"""
_encode = msgspec.msgpack.Encoder().encode


class App(Protocol):
    """What an outbox needs of its app."""

    @property
    def prefix(self) -> str: ...

    def prepare(self, target: object, checked: Any, args: Any, kwargs: Any) -> JobCall[Any]: ...

    def new_job(self, call: JobCall[R]) -> tuple[NewJob, Job[R]]: ...


class Outbox:
    """Where `app.outbox(connection)` sends jobs: to a row. `queue.Queue` on top of it does the rest."""

    __slots__ = ("_app", "_target")

    def __init__(self, app: App, target: Any) -> None:
        self._app = app
        self._target = target

    def prepare(self, target: object, checked: Any, args: Any, kwargs: Any) -> JobCall[Any]:
        return self._app.prepare(target, checked, args, kwargs)

    def send(self, call: JobCall[R]) -> Job[R]:
        """Write the row; it is there when the caller's transaction is committed."""
        link = link_to(self._target)
        link.see_transactional()
        values, job = self._row(call)
        _see_taken(link.execute(_INSERT, values), job)
        return job

    async def asend(self, call: JobCall[R]) -> Job[R]:
        """As `send`, on an async connection."""
        link = async_link_to(self._target)
        await link.see_transactional()
        values, job = self._row(call)
        _see_taken(await link.execute(_INSERT, values), job)
        return job

    def _row(self, call: JobCall[R]) -> tuple[tuple[Any, ...], Job[R]]:
        """Delays and lifetimes count from this call, by this machine's clock: the relay may come much later."""
        new, job = self._app.new_job(call)
        now_ms = time.time_ns() // 1_000_000
        at_ms = now_ms + new.delay_ms if new.delay_ms else new.at_ms
        # Its id is checked by the server: a row that is sent again must not make a second job.
        new = msgspec.structs.replace(new, delay_ms=0, at_ms=at_ms, expires_in_ms=0, check_id=True)
        plan = call.plan
        return (self._app.prefix, plan.queue, new.id, plan.durability, _encode(new), now_ms), job


def _see_taken(rows: list[tuple[Any, ...]], job: Job[Any]) -> None:
    if not rows:
        raise JobExists(
            f"job_id {job.id} waits in the outbox already, or is being written by another transaction", job.id
        )


def create_tables(target: Any) -> None:
    """Make the table if it is not there. For production, put `DDL` into your migrations."""
    link = link_to(target)
    with link.transaction():
        for statement in DDL[link.dialect].split(";"):
            link.execute(statement)
