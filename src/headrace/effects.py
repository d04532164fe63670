"""Effects that happen once: a row a job, taken and finished in the very transaction of the effect.

A job may run again after its process died, or because a worker was taken for dead. What it did to a database is either
committed together with the row that says so, or not at all; the next run sees the row. Two runs at once meet at the row:
the second waits for the first. A run that is older than another (by its fence) is refused.

What is written is a generator of statements, driven for sync and async connections alike; `database` knows the drivers.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import msgspec

from headrace.database import AsyncLink, Link, Row, async_link_to, link_to
from headrace.errors import StaleRun, UsageError

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
_BEGIN_MANY = """
INSERT INTO headrace_effect AS e (job, fence, at_ms) VALUES {}
ON CONFLICT (job) DO UPDATE SET fence = excluded.fence WHERE NOT e.done AND e.fence <= excluded.fence
RETURNING job
"""
_FINISH_MANY = "UPDATE headrace_effect SET done = true WHERE NOT done AND (job, fence) IN (VALUES {}) RETURNING job"
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


class Effects:
    """What `batch.effects(...)` gives: for which calls of the batch this run is to have the effect."""

    __slots__ = ("_asked", "_calls", "_others", "_skipped")

    def __init__(self, calls: Sequence[tuple[str, int]]) -> None:
        """`calls`: the idempotency key and fence of each; none where no batch runs."""
        self._calls = calls
        self._others: set[int] = set()
        self._skipped: set[int] = set()
        self._asked = False

    def pending(self, items: Sequence[object]) -> list[int]:
        """The positions of the items whose effect is still to be had; an earlier run has had it for the others, or a
        newer one is about to."""
        self._asked = True
        if self._calls and len(items) != len(self._calls):
            raise UsageError(
                f"pending: {len(items)} items, where the batch has {len(self._calls)} calls: give it all of them"
            )
        left_out = self._others | self._skipped
        return [position for position in range(len(items)) if position not in left_out]

    def skip(self, position: int) -> None:
        """Leave this call out: a later run of it may have its effect."""
        self._skipped.add(position)

    @property
    def is_nothing(self) -> bool:
        """All is done already, or left out."""
        return bool(self._calls) and not self._ours()

    def _ours(self) -> list[tuple[str, int]]:
        left_out = self._others | self._skipped
        return [call for position, call in enumerate(self._calls) if position not in left_out]

    def begin(self) -> Steps:
        """Take the rows of all calls, always in the same order, or two runs would wait for each other."""
        rows = sorted(self._calls)
        now_ms = int(time.time() * 1000)
        values = [value for job, fence in rows for value in (job, fence, now_ms)]
        taken = yield _BEGIN_MANY.format(", ".join(["(?, ?, ?)"] * len(rows))), tuple(values)
        ours = {row[0] for row in taken}
        self._others = {position for position, (job, _) in enumerate(self._calls) if job not in ours}

    def finish(self) -> Steps:
        """Mark those done that this run did."""
        if not self._asked:
            raise UsageError("a batch's effects: ask `pending(items)` which calls they are for")
        rows = self._ours()
        if not rows:
            return
        marks = ", ".join(["(?, ?)"] * len(rows))
        done = yield _FINISH_MANY.format(marks), tuple(value for row in rows for value in row)
        if len(done) != len(rows):
            raise StaleRun(
                f"{len(rows) - len(done)} effects of a batch are no longer this run's: their rows have changed"
            )


@contextmanager
def effects(calls: Sequence[tuple[str, int]], target: Any) -> Iterator[Effects]:
    """What `BatchContext.effects` does."""
    link = link_to(target)
    found = Effects(calls)
    with link.transaction():
        if calls:
            _drive(found.begin(), link)
        yield found
        if calls:
            _drive(found.finish(), link)
        if found.is_nothing:
            link.undo()


@asynccontextmanager
async def aeffects(calls: Sequence[tuple[str, int]], target: Any) -> AsyncIterator[Effects]:
    """The twin of `effects` for async connections."""
    link = async_link_to(target)
    found = Effects(calls)
    async with link.transaction():
        if calls:
            await _adrive(found.begin(), link)
        yield found
        if calls:
            await _adrive(found.finish(), link)
        if found.is_nothing:
            link.undo()


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


__all__ = ["DDL", "Effect", "Effects", "create_tables", "prune_effects"]
