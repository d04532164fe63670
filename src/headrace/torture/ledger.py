"""The ledger that judges: what jobs did to a database, counted naively, and counted inside `job.effect`.

SQLite, or PostgreSQL through psycopg.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from dataclasses import dataclass
from typing import Any

from headrace.context import JobContext
from headrace.effects import create_tables
from headrace.errors import UsageError

TABLE = (
    "CREATE TABLE IF NOT EXISTS torture_count (pid bigint PRIMARY KEY, naive bigint NOT NULL, fenced bigint NOT NULL)"
)
COUNT = """
INSERT INTO torture_count AS c (pid, naive, fenced) VALUES (?, ?, ?)
ON CONFLICT (pid) DO UPDATE SET naive = c.naive + excluded.naive, fenced = c.fenced + excluded.fenced
"""


@dataclass(frozen=True, slots=True)
class Effects:
    """`jobs`: ids of those that have had their effect. `naive`, `fenced`: how often it was counted."""

    jobs: set[str]
    naive: int
    fenced: int


class Ledger:
    """One connection a thread, opened when it is first used, so also after a fork.

    Args:
        url: a path of SQLite, or postgresql://…
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._local = threading.local()
        self._is_postgres = url.startswith(("postgresql://", "postgres://"))

    def create(self) -> None:
        """Make the tables.

        Raises:
            UsageError: effects are noted there already: they must not be mixed with those of a torture run.
        """
        connection = self._connection()
        create_tables(connection)
        self._execute(connection, TABLE)
        used = self._execute(connection, "SELECT count(*) FROM headrace_effect").fetchone()[0]
        connection.commit()
        if used:
            raise UsageError(f"the ledger's database has {used} effects noted already: give --ledger an empty one")

    def count(self, job: JobContext) -> None:
        """Have the job's effect: naively each time, and once inside `job.effect`."""
        connection = self._connection()
        try:
            self._execute(connection, COUNT, os.getpid(), 1, 0)
            connection.commit()
        except BaseException:
            # The job was interrupted here: what was begun must not be committed by the next one.
            connection.rollback()
            raise
        with job.effect(connection) as effect:
            if not effect.is_done:
                self._execute(connection, COUNT, os.getpid(), 0, 1)

    def read(self) -> Effects:
        connection = self._connection()
        rows = self._execute(connection, "SELECT job FROM headrace_effect WHERE done")
        jobs = {row[0].rpartition("/")[2] for row in rows.fetchall()}
        naive, fenced = self._execute(
            connection, "SELECT coalesce(sum(naive), 0), coalesce(sum(fenced), 0) FROM torture_count"
        ).fetchone()
        connection.commit()
        return Effects(jobs, int(naive), int(fenced))

    def _connection(self) -> Any:
        found = getattr(self._local, "connection", None)
        if found is None or self._local.pid != os.getpid():
            found = self._local.connection = self._connect()
            self._local.pid = os.getpid()
        return found

    def _connect(self) -> Any:
        if self._is_postgres:
            try:
                import psycopg
            except ImportError:
                raise UsageError("a PostgreSQL ledger needs psycopg: pip install 'headrace[postgres]'") from None
            return psycopg.connect(self.url)
        connection = sqlite3.connect(self.url, timeout=30, isolation_level="IMMEDIATE", check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _execute(self, connection: Any, statement: str, *values: object) -> Any:
        return connection.execute(statement.replace("?", "%s") if self._is_postgres else statement, values)
