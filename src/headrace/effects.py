"""Effects that happen once: a row a job, taken and finished in the very transaction of the effect.

A job may run again after its process died, or because a worker was taken for dead. What it did to a database is either
committed together with the row that says so, or not at all; the next run sees the row. Two runs at once meet at the row:
the second waits for the first. A run that is older than another (by its fence) is refused.

What is written is a generator of statements, driven for sync and async connections alike; `database` knows the drivers.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import msgspec

from headrace.database import AsyncLink, Link, Row, async_link_to, link_to
from headrace.errors import StaleRun

DDL = {
    "postgresql": """\
CREATE TABLE IF NOT EXISTS headrace_effect (
    job varchar(240) PRIMARY KEY, fence bigint NOT NULL, done boolean NOT NULL DEFAULT false, result bytea, at_ms bigint NOT NULL
)""",
    "sqlite": """\
CREATE TABLE IF NOT EXISTS headrace_effect (
    job text PRIMARY KEY, fence integer NOT NULL, done boolean NOT NULL DEFAULT false, result blob, at_ms integer NOT NULL
)""",
}
"""The table, by database: for your migrations, or `create_tables`. `job` is "QUEUE/ID"; `result` msgpack."""

_BEGIN = """
INSERT INTO headrace_effect AS e (job, fence, at_ms) VALUES (?, ?, ?)
ON CONFLICT (job) DO UPDATE SET fence = excluded.fence WHERE NOT e.done AND e.fence <= excluded.fence
RETURNING fence
"""
_LOOK = "SELECT done, result, fence FROM headrace_effect WHERE job = ?"
_FINISH = "UPDATE headrace_effect SET done = true, result = ? WHERE job = ? AND fence = ? AND NOT done RETURNING fence"
_PRUNE = """
DELETE FROM headrace_effect WHERE job IN (SELECT job FROM headrace_effect WHERE done AND at_ms < ? LIMIT ?) RETURNING job
"""

Steps: TypeAlias = "Generator[tuple[str, tuple[Any, ...]], list[Row], None]"


class Effect:
    """What `job.effect(...)` gives.

    Attributes:
        is_done: an earlier run of this job has had its effect: do nothing, return `result`.
        result: what that run kept by `set_result`, as plain data.
    """

    __slots__ = ("_data", "is_done", "result")

    def __init__(self) -> None:
        self.is_done = False
        self.result: Any = None
        self._data: bytes | None = None

    def set_result(self, value: Any) -> None:
        """Keep what a later run is to return; plain data. Raises TypeError for what msgpack cannot hold."""
        self._data = msgspec.msgpack.encode(value)
        self.result = value

    def begin(self, job: str, fence: int) -> Steps:
        """Take the job's row, waiting for another run that has it; or learn that the effect is done."""
        taken = yield _BEGIN, (job, fence, int(time.time() * 1000))
        if taken:
            return
        rows = yield _LOOK, (job,)
        found = rows[0] if rows else None
        if found is None or not found[0]:
            newest = f" (fence {found[2]}; this one has {fence})" if found else ""
            raise StaleRun(f"a newer run of job {job} has begun{newest}: this one must not touch the database")
        self.is_done = True
        self.result = None if found[1] is None else msgspec.msgpack.decode(found[1])

    def finish(self, job: str, fence: int) -> Steps:
        """Mark it done, if this run did it."""
        if not self.is_done and not (yield _FINISH, (self._data, job, fence)):
            raise StaleRun(f"the effect of job {job} is no longer this run's: its row has changed")


@contextmanager
def effect(job: str, fence: int, target: Any) -> Iterator[Effect]:
    """What `JobContext.effect` does. `job` "": no job runs here, so nothing is noted; the transaction is the same."""
    link = link_to(target)
    found = Effect()
    with link.transaction():
        if job:
            _drive(found.begin(job, fence), link)
        yield found
        if job:
            _drive(found.finish(job, fence), link)
        if found.is_done:
            link.undo()  # whatever was written though it was done already


@asynccontextmanager
async def aeffect(job: str, fence: int, target: Any) -> AsyncIterator[Effect]:
    """The twin of `effect` for AsyncConnection (psycopg), AsyncSession and AsyncConnection (SQLAlchemy)."""
    link = async_link_to(target)
    found = Effect()
    async with link.transaction():
        if job:
            await _adrive(found.begin(job, fence), link)
        yield found
        if job:
            await _adrive(found.finish(job, fence), link)
        if found.is_done:
            link.undo()


def create_tables(target: Any) -> None:
    """Make the table if it is not there. For production, put `DDL` into your migrations."""
    link = link_to(target)
    with link.transaction():
        link.execute(DDL[link.dialect])


def prune_effects(target: Any, *, older_than_s: float, limit: int = 10_000) -> int:
    """Forget effects that were begun so long ago, at most `limit`; how many. A job must not run again after that.

    Keep them longer than failed jobs are kept (30 days) and than the longest outage.
    """
    link = link_to(target)
    with link.transaction():
        return len(link.execute(_PRUNE, (int((time.time() - older_than_s) * 1000), limit)))


def _drive(steps: Steps, link: Link) -> None:
    try:
        statement, values = next(steps)
        while True:
            statement, values = steps.send(link.execute(statement, values))
    except StopIteration:
        return


async def _adrive(steps: Steps, link: AsyncLink) -> None:
    try:
        statement, values = next(steps)
        while True:
            statement, values = steps.send(await link.execute(statement, values))
    except StopIteration:
        return


__all__ = ["DDL", "Effect", "create_tables", "prune_effects"]
