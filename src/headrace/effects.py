"""Effects that happen once: a row a job, taken and finished in the very transaction of the effect.

A job may run again after its process died, or because a worker was taken for dead. What it did to a database is either
committed together with the row that says so, or not at all; the next run sees the row. Two runs at once meet at the row:
the second waits for the first. A run that is older than another (by its fence) is refused.

What is written is a generator of statements, driven for sync and async connections alike; a `_Link` knows the driver.
psycopg 3, sqlite3, SQLAlchemy 2 and Django, whichever the connection belongs to: none of them is imported here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeAlias

import msgspec

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
_PRUNE = """
DELETE FROM headrace_effect WHERE job IN (SELECT job FROM headrace_effect WHERE done AND at_ms < ? LIMIT ?) RETURNING job
"""
_SUPPORTED = (
    "a connection of psycopg 3 or sqlite3, a Session or Connection of SQLAlchemy 2, or the alias of a Django database"
)

Row: TypeAlias = "tuple[Any, ...] | None"
Steps: TypeAlias = "Generator[tuple[str, tuple[Any, ...]], Row, None]"


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
        if taken is not None:
            return
        found = yield _LOOK, (job,)
        if found is None or not found[0]:
            newest = f" (fence {found[2]}; this one has {fence})" if found else ""
            raise StaleRun(f"a newer run of job {job} has begun{newest}: this one must not touch the database")
        self.is_done = True
        self.result = None if found[1] is None else msgspec.msgpack.decode(found[1])

    def finish(self, job: str, fence: int) -> Steps:
        """Mark it done, if this run did it."""
        if not self.is_done and (yield _FINISH, (self._data, job, fence)) is None:
            raise StaleRun(f"the effect of job {job} is no longer this run's: its row has changed")


@contextmanager
def effect(job: str, fence: int, target: Any) -> Iterator[Effect]:
    """What `JobContext.effect` does. `job` "": no job runs here, so nothing is noted; the transaction is the same."""
    link = _link_to(target)
    found = Effect()
    with link.transaction() as is_own:
        if job:
            _drive(found.begin(job, fence), link)
        yield found
        if job:
            _drive(found.finish(job, fence), link)
        if is_own and found.is_done:
            link.rollback()  # whatever was written though it was done already


@asynccontextmanager
async def aeffect(job: str, fence: int, target: Any) -> AsyncIterator[Effect]:
    """The twin of `effect` for AsyncConnection (psycopg), AsyncSession and AsyncConnection (SQLAlchemy)."""
    link = _async_link_to(target)
    found = Effect()
    is_own = link.is_idle()
    try:
        if job:
            await _adrive(found.begin(job, fence), link)
        yield found
        if job:
            await _adrive(found.finish(job, fence), link)
    except BaseException:
        if is_own:
            await link.target.rollback()
        raise
    if is_own:
        await (link.target.rollback() if found.is_done else link.target.commit())


def create_tables(target: Any) -> None:
    """Make the table if it is not there. For production, put `DDL` into your migrations."""
    link = _link_to(target)
    with link.transaction():
        link.execute(DDL[link.dialect], ())


def prune_effects(target: Any, *, older_than_s: float, limit: int = 10_000) -> int:
    """Forget effects that were begun so long ago, at most `limit`; how many. A job must not run again after that.

    Keep them longer than failed jobs are kept (30 days) and than the longest outage.
    """
    link = _link_to(target)
    with link.transaction():
        return len(link.execute_all(_PRUNE, (int((time.time() - older_than_s) * 1000), limit)))


# Drivers


class _Link(Protocol):
    """One database connection: whose transaction it is, and how to send a statement with `?` for values."""

    dialect: str

    def transaction(self) -> Any:
        """A context: True when it began one here, which it commits or rolls back; False: it is the caller's."""

    def execute(self, statement: str, values: tuple[Any, ...]) -> Row: ...

    def execute_all(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]: ...

    def rollback(self) -> None: ...


def _link_to(target: Any) -> _Link:
    package = type(target).__module__.partition(".")[0]
    if isinstance(target, str):
        return _DjangoLink(target)
    if package == "sqlite3":
        return _SqliteLink(target)
    if package in ("psycopg", "psycopg_pool") and hasattr(target, "pgconn") and not _is_async(target):
        return _PsycopgLink(target)
    if package == "sqlalchemy" and hasattr(target, "in_transaction") and not _is_async(target):
        return _SqlalchemyLink(target)
    if _is_async(target):
        raise UsageError("this connection is an async one: use `async with job.aeffect(connection)`")
    raise UsageError(f"effect: expected {_SUPPORTED}, got {type(target).__module__}.{type(target).__qualname__}")


def _is_async(target: Any) -> bool:
    return type(target).__name__.startswith("Async") or "async" in type(target).__name__.lower()


class _Owned:
    """The usual rule: a transaction that is open already is the caller's; else it begins and ends here."""

    dialect = "postgresql"

    def __init__(self, target: Any) -> None:
        self.target = target

    def is_idle(self) -> bool:
        raise NotImplementedError

    def rollback(self) -> None:
        self.target.rollback()

    @contextmanager
    def transaction(self) -> Iterator[bool]:
        is_own = self.is_idle()
        try:
            yield is_own
        except BaseException:
            if is_own:
                self.target.rollback()
            raise
        if is_own:
            self.target.commit()


class _PsycopgLink(_Owned):
    def is_idle(self) -> bool:
        return _is_idle_psycopg(self.target)

    def execute(self, statement: str, values: tuple[Any, ...]) -> Row:
        cursor = self.target.execute(_as_format(statement), values)
        return None if cursor.description is None else _as_tuple(cursor.fetchone())

    def execute_all(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return list(self.target.execute(_as_format(statement), values).fetchall())


class _SqliteLink(_Owned):
    dialect = "sqlite"

    def is_idle(self) -> bool:
        if self.target.isolation_level is None and not self.target.in_transaction:
            raise UsageError(_AUTOCOMMIT.format("isolation_level=None"))
        return not self.target.in_transaction

    def execute(self, statement: str, values: tuple[Any, ...]) -> Row:
        return _as_tuple(self.target.execute(statement, values).fetchone())

    def execute_all(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return list(self.target.execute(statement, values).fetchall())


class _SqlalchemyLink(_Owned):
    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self.dialect = _dialect_of(target)

    def is_idle(self) -> bool:
        _see_no_autocommit(self.target)
        return not self.target.in_transaction()

    def execute(self, statement: str, values: tuple[Any, ...]) -> Row:
        found = self.target.execute(*_as_text(statement, values))
        return _as_tuple(found.fetchone()) if found.returns_rows else None

    def execute_all(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.target.execute(*_as_text(statement, values)).fetchall()]


class _DjangoLink:
    """`transaction.atomic` of that database: a transaction, or a savepoint in the one that is open."""

    def __init__(self, alias: str) -> None:
        from django.db import connections, transaction

        self._connection = connections[alias]
        self._transaction: Any = transaction
        self._alias = alias
        self.dialect = self._connection.vendor
        if self.dialect not in DDL:
            raise UsageError(
                f"effect: the Django database {alias!r} is {self.dialect}; PostgreSQL and SQLite are supported"
            )

    @contextmanager
    def transaction(self) -> Iterator[bool]:
        with self._transaction.atomic(using=self._alias):
            yield True

    def rollback(self) -> None:
        self._transaction.set_rollback(True, using=self._alias)

    def execute(self, statement: str, values: tuple[Any, ...]) -> Row:
        with self._connection.cursor() as cursor:
            cursor.execute(_as_format(statement), values)
            return None if cursor.description is None else cursor.fetchone()

    def execute_all(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(_as_format(statement), values)
            return list(cursor.fetchall())


class _AsyncPsycopgLink:
    def __init__(self, target: Any) -> None:
        self.target = target

    def is_idle(self) -> bool:
        return _is_idle_psycopg(self.target)

    async def execute(self, statement: str, values: tuple[Any, ...]) -> Row:
        cursor = await self.target.execute(_as_format(statement), values)
        return None if cursor.description is None else _as_tuple(await cursor.fetchone())


class _AsyncSqlalchemyLink:
    def __init__(self, target: Any) -> None:
        self.target = target
        _dialect_of(target)

    def is_idle(self) -> bool:
        _see_no_autocommit(getattr(self.target, "sync_connection", None) or self.target.sync_session)
        return not self.target.in_transaction()

    async def execute(self, statement: str, values: tuple[Any, ...]) -> Row:
        found = await self.target.execute(*_as_text(statement, values))
        return _as_tuple(found.fetchone()) if found.returns_rows else None


def _async_link_to(target: Any) -> _AsyncPsycopgLink | _AsyncSqlalchemyLink:
    package = type(target).__module__.partition(".")[0]
    if package == "psycopg" and _is_async(target):
        return _AsyncPsycopgLink(target)
    if package == "sqlalchemy" and _is_async(target):
        return _AsyncSqlalchemyLink(target)
    raise UsageError(
        "aeffect: expected an AsyncConnection of psycopg 3, or an AsyncSession or AsyncConnection of SQLAlchemy 2, got "
        f"{type(target).__module__}.{type(target).__qualname__}"
    )


_AUTOCOMMIT = (
    "this connection commits each statement by itself ({}): an effect needs a transaction; open one, or turn that off"
)


def _is_idle_psycopg(target: Any) -> bool:
    is_idle = int(target.info.transaction_status) == 0  # PQTRANS_IDLE
    if is_idle and target.autocommit:
        raise UsageError(_AUTOCOMMIT.format("autocommit=True"))
    return is_idle


def _see_no_autocommit(target: Any) -> None:
    options = target.get_execution_options() if hasattr(target, "get_execution_options") else {}
    if options.get("isolation_level") == "AUTOCOMMIT":
        raise UsageError(_AUTOCOMMIT.format("isolation_level AUTOCOMMIT"))


def _dialect_of(target: Any) -> str:
    bind = target.get_bind() if hasattr(target, "get_bind") else target
    name = str(bind.dialect.name)
    if name not in DDL:
        raise UsageError(f"effect: the database is {name}; PostgreSQL and SQLite are supported")
    return name


def _as_format(statement: str) -> str:
    return statement.replace("?", "%s")


def _as_text(statement: str, values: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
    from sqlalchemy import text

    parts = statement.split("?")
    named = parts[0] + "".join(f":v{i}{part}" for i, part in enumerate(parts[1:]))
    return text(named), {f"v{i}": value for i, value in enumerate(values)}


def _as_tuple(row: Any) -> Row:
    return None if row is None else tuple(row)


def _drive(steps: Steps, link: _Link) -> None:
    try:
        statement, values = next(steps)
        while True:
            statement, values = steps.send(link.execute(statement, values))
    except StopIteration:
        return


async def _adrive(steps: Steps, link: _AsyncPsycopgLink | _AsyncSqlalchemyLink) -> None:
    try:
        statement, values = next(steps)
        while True:
            statement, values = steps.send(await link.execute(statement, values))
    except StopIteration:
        return


__all__ = ["DDL", "Effect", "create_tables", "prune_effects"]
