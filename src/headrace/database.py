"""The caller's connection to a SQL database: whose transaction is open on it, and how a statement is sent.

psycopg 3, sqlite3, SQLAlchemy 2 and Django, whichever the connection belongs to; none of them is imported here unless
the caller has. Statements are written with `?` for values; rows are tuples, whatever the connection's row factory is.

A block (`transaction()`) is all or nothing: a transaction where none is open, which it begins and ends; else a savepoint
in the caller's, who commits. An error leaves the block undone and goes on.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeAlias

from headrace.errors import UsageError

DIALECTS = ("postgresql", "sqlite")
SAVEPOINT = "headrace_block"
_SUPPORTED = (
    "a connection of psycopg 3 or sqlite3, a Session or Connection of SQLAlchemy 2, or the alias of a Django database"
)
_AUTOCOMMIT = "this connection commits each statement by itself ({}): open a transaction, or turn that off"

Row: TypeAlias = "tuple[Any, ...]"
Values: TypeAlias = Sequence[Any]


class Link(Protocol):
    """One connection. `dialect` is one of DIALECTS."""

    dialect: str

    def is_open(self) -> bool:
        """Whether a transaction is open that is the caller's."""
        ...

    def see_transactional(self) -> None:
        """Raise UsageError where a statement would be committed at once."""

    def transaction(self) -> AbstractContextManager[None]:
        """A block; raises UsageError where there can be none, or it was ended from inside."""
        ...

    def undo(self) -> None:
        """Have the block that is open undo at its end what was done in it."""
        ...

    def execute(self, statement: str, values: Values = ()) -> list[Row]: ...


class AsyncLink(Protocol):
    """The twin of `Link` for an async connection."""

    dialect: str

    async def see_transactional(self) -> None: ...

    def transaction(self) -> AbstractAsyncContextManager[None]: ...

    def undo(self) -> None: ...

    async def execute(self, statement: str, values: Values = ()) -> list[Row]: ...


def link_to(target: Any) -> Link:
    """The link to a sync connection.

    Raises:
        UsageError: it is an async one, of no supported kind, or its database is.
    """
    if isinstance(target, str):
        return _DjangoLink(target)
    if isinstance(target, sqlite3.Connection):
        return _SqliteLink(target)
    if _is_a(target, "psycopg", "Connection"):
        return _PsycopgLink(target)
    if _is_a(target, "sqlalchemy", "Connection") or _is_a(target, "sqlalchemy.orm", "Session", "scoped_session"):
        return _SqlalchemyLink(target)
    if _is_async(target):
        raise UsageError("this connection is an async one: use the async twin (`aeffect`, `aenqueue`)")
    raise UsageError(f"expected {_SUPPORTED}, got {_kind(target)}")


def async_link_to(target: Any) -> AsyncLink:
    """The link to an async connection; raises UsageError as `link_to`."""
    if _is_a(target, "psycopg", "AsyncConnection"):
        return _AsyncPsycopgLink(target)
    if _is_async(target):
        return _AsyncSqlalchemyLink(target)
    raise UsageError(
        "expected an AsyncConnection of psycopg 3, or an AsyncSession or AsyncConnection of SQLAlchemy 2, got "
        f"{_kind(target)}"
    )


def _is_async(target: Any) -> bool:
    return _is_a(target, "psycopg", "AsyncConnection") or _is_a(
        target, "sqlalchemy.ext.asyncio", "AsyncConnection", "AsyncSession", "async_scoped_session"
    )


def _is_a(target: Any, module: str, *names: str) -> bool:
    """Whether it is of such a class: who has one has imported its module."""
    found = sys.modules.get(module)
    kinds = tuple(kind for name in names if isinstance(kind := getattr(found, name, None), type))
    return isinstance(target, kinds)


def _kind(target: Any) -> str:
    return f"a {type(target).__module__}.{type(target).__qualname__}"


class _PsycopgLink:
    dialect = "postgresql"

    def __init__(self, target: Any) -> None:
        self._target = target
        self._open: Any = None

    def is_open(self) -> bool:
        return _is_open_psycopg(self._target)

    def see_transactional(self) -> None:
        _see_transactional_psycopg(self._target)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.see_transactional()
        with self._target.transaction() as self._open:  # a savepoint where one is open
            yield

    def undo(self) -> None:
        self._open.force_rollback = True

    def execute(self, statement: str, values: Values = ()) -> list[Row]:
        with self._target.cursor(row_factory=_tuple_row()) as cursor:
            cursor.execute(_as_format(statement), values)
            return [] if cursor.description is None else list(cursor.fetchall())


class _AsyncPsycopgLink:
    dialect = "postgresql"

    def __init__(self, target: Any) -> None:
        self._target = target
        self._open: Any = None

    async def see_transactional(self) -> None:
        _see_transactional_psycopg(self._target)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        await self.see_transactional()
        async with self._target.transaction() as self._open:
            yield

    def undo(self) -> None:
        self._open.force_rollback = True

    async def execute(self, statement: str, values: Values = ()) -> list[Row]:
        async with self._target.cursor(row_factory=_tuple_row()) as cursor:
            await cursor.execute(_as_format(statement), values)
            return [] if cursor.description is None else list(await cursor.fetchall())


def _is_open_psycopg(target: Any) -> bool:
    return int(target.info.transaction_status) != 0  # PQTRANS_IDLE


def _see_transactional_psycopg(target: Any) -> None:
    if target.autocommit and not _is_open_psycopg(target):
        raise UsageError(_AUTOCOMMIT.format("autocommit=True"))


def _tuple_row() -> Any:
    return sys.modules["psycopg.rows"].tuple_row


class _SqliteLink:
    dialect = "sqlite"

    def __init__(self, target: sqlite3.Connection) -> None:
        self._target = target
        self._must_undo = False

    def is_open(self) -> bool:
        return self._target.in_transaction

    def see_transactional(self) -> None:
        if self._target.in_transaction:
            return
        if getattr(self._target, "autocommit", None) is True:  # Python 3.12
            raise UsageError(_AUTOCOMMIT.format("autocommit=True"))
        if self._target.isolation_level is None:
            raise UsageError(_AUTOCOMMIT.format("isolation_level=None"))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.see_transactional()
        is_own = not self.is_open()
        self._must_undo = False
        if is_own:
            self._target.execute("BEGIN IMMEDIATE")
        self._target.execute(f"SAVEPOINT {SAVEPOINT}")
        try:
            yield
            if not self._must_undo:
                self._release()
        except BaseException:
            self._roll_back(is_own)
            raise
        if self._must_undo:
            self._roll_back(is_own)
        elif is_own:
            self._target.commit()

    def _release(self) -> None:
        try:
            self._target.execute(f"RELEASE {SAVEPOINT}")
        except sqlite3.OperationalError as error:
            raise UsageError(
                f"the transaction was ended inside of the block: leave that to the block ({error})"
            ) from error

    def _roll_back(self, is_own: bool) -> None:
        if is_own:
            self._target.rollback()
            return
        try:
            self._target.execute(f"ROLLBACK TO {SAVEPOINT}")
            self._target.execute(f"RELEASE {SAVEPOINT}")
        except sqlite3.OperationalError:
            self._target.rollback()  # no such savepoint: the caller's transaction is gone, what is open began after it

    def undo(self) -> None:
        self._must_undo = True

    def execute(self, statement: str, values: Values = ()) -> list[Row]:
        cursor = self._target.cursor()
        cursor.row_factory = None
        return list(cursor.execute(statement, tuple(values)).fetchall())


class _SqlalchemyLink:
    """A Connection or a Session; a Session's own blocks keep its objects in step with the database."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._open: Any = None
        self.dialect = _dialect_of(target)

    def is_open(self) -> bool:
        return bool(self._target.in_transaction())

    def see_transactional(self) -> None:
        connection = self._connection()
        _begin_for_sqlite(connection)
        _see_no_autocommit(connection)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        is_own = not self.is_open()
        if not is_own:
            _begin_for_sqlite(self._connection())
        with self._target.begin() if is_own else self._target.begin_nested() as self._open:
            _see_no_autocommit(self._connection())
            yield

    def _connection(self) -> Any:
        return self._target.connection() if hasattr(self._target, "get_bind") else self._target

    def undo(self) -> None:
        self._open.rollback()

    def execute(self, statement: str, values: Values = ()) -> list[Row]:
        found = self._target.execute(*_as_text(statement, values))
        return [tuple(row) for row in found.fetchall()] if found.returns_rows else []


class _AsyncSqlalchemyLink:
    def __init__(self, target: Any) -> None:
        self._target = target
        self._must_undo = False
        self.dialect = _dialect_of(target)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self._must_undo = False
        found = self._target
        async with found.begin_nested() if found.in_transaction() else found.begin() as block:
            await self.see_transactional()
            yield
            if self._must_undo:
                await block.rollback()

    async def see_transactional(self) -> None:
        found = self._target
        connection = await found.connection() if hasattr(found, "sync_session") else found
        _see_no_autocommit(connection.sync_connection)

    def undo(self) -> None:
        self._must_undo = True

    async def execute(self, statement: str, values: Values = ()) -> list[Row]:
        found = await self._target.execute(*_as_text(statement, values))
        return [tuple(row) for row in found.fetchall()] if found.returns_rows else []


def _see_no_autocommit(connection: Any) -> None:
    """Asked of the driver's own connection: an engine, too, may have been told to commit by itself."""
    raw = connection.connection.dbapi_connection
    if isinstance(raw, sqlite3.Connection):
        is_auto = raw.isolation_level is None and not raw.in_transaction
    else:
        is_auto = getattr(raw, "autocommit", False) is True
    if is_auto:
        raise UsageError(_AUTOCOMMIT.format("isolation level AUTOCOMMIT"))


def _begin_for_sqlite(connection: Any) -> None:
    """sqlite3 begins at the first write; a savepoint before that would be a transaction of its own, and commit."""
    raw = connection.connection.dbapi_connection
    if isinstance(raw, sqlite3.Connection) and not raw.in_transaction and raw.isolation_level is not None:
        connection.exec_driver_sql("BEGIN")


def _dialect_of(target: Any) -> str:
    bind = target.get_bind() if hasattr(target, "get_bind") else target
    name = str(bind.dialect.name)
    if name not in DIALECTS:
        raise UsageError(f"the database is {name}; PostgreSQL and SQLite are supported")
    return name


class _DjangoLink:
    """A block is `transaction.atomic` of that database."""

    def __init__(self, alias: str) -> None:
        from django.db import connections, transaction

        self._connection = connections[alias]
        self._transaction: Any = transaction
        self._alias = alias
        self.dialect = str(self._connection.vendor)
        if self.dialect not in DIALECTS:
            raise UsageError(f"the Django database {alias!r} is {self.dialect}; PostgreSQL and SQLite are supported")

    def is_open(self) -> bool:
        return bool(self._connection.in_atomic_block)

    def see_transactional(self) -> None:
        if not self._connection.in_atomic_block and self._connection.get_autocommit():
            raise UsageError(_AUTOCOMMIT.format("as Django does outside of transaction.atomic()"))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._transaction.atomic(using=self._alias):
            yield

    def undo(self) -> None:
        self._transaction.set_rollback(True, using=self._alias)

    def execute(self, statement: str, values: Values = ()) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(_as_format(statement), list(values))
            return [] if cursor.description is None else list(cursor.fetchall())


def _as_format(statement: str) -> str:
    return statement.replace("?", "%s")


def _as_text(statement: str, values: Values) -> tuple[Any, dict[str, Any]]:
    from sqlalchemy import text

    parts = statement.split("?")
    named = parts[0] + "".join(f":v{i}{part}" for i, part in enumerate(parts[1:]))
    return text(named), {f"v{i}": value for i, value in enumerate(values)}
