"""The ledger that judges: what jobs did to a database, counted naively and counted under their fence.

SQLite, or PostgreSQL through psycopg. The fenced way is that of the guide on effects that happen once: a row a job, taken
in the transaction of the effect, only by a fence that is not lower than the last.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from dataclasses import dataclass
from typing import Any

from headrace.errors import UsageError

TABLES = (
    "CREATE TABLE IF NOT EXISTS torture_effect (job_id text PRIMARY KEY, fence bigint NOT NULL, done integer NOT NULL)",
    "CREATE TABLE IF NOT EXISTS torture_count (pid bigint PRIMARY KEY, naive bigint NOT NULL, fenced bigint NOT NULL)",
)
TAKE = """
INSERT INTO torture_effect AS e (job_id, fence, done) VALUES (?, ?, 0)
ON CONFLICT (job_id) DO UPDATE SET fence = excluded.fence WHERE e.done = 0 AND e.fence <= excluded.fence
RETURNING fence
"""
COUNT = """
INSERT INTO torture_count AS c (pid, naive, fenced) VALUES (?, ?, ?)
ON CONFLICT (pid) DO UPDATE SET naive = c.naive + excluded.naive, fenced = c.fenced + excluded.fenced
"""


@dataclass(frozen=True, slots=True)
class Effects:
    """`jobs`: that have had their effect. `naive`, `fenced`: how often it was counted."""

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
        """Make the tables, empty."""
        connection = self._connection()
        for statement in TABLES:
            self._execute(connection, statement)
        for table in ("torture_effect", "torture_count"):
            self._execute(connection, f"DELETE FROM {table}")
        connection.commit()

    def effect(self, job_id: str, fence: int) -> bool:
        """Have the job's effect, naively, and then once; False when it had it before, or a newer run has begun."""
        connection = self._connection()
        try:
            self._execute(connection, COUNT, os.getpid(), 1, 0)
            connection.commit()
            taken = self._execute(connection, TAKE, job_id, fence).fetchone() is not None
            if taken:
                self._execute(connection, COUNT, os.getpid(), 0, 1)
                self._execute(connection, "UPDATE torture_effect SET done = 1 WHERE job_id = ?", job_id)
            connection.commit()
            return taken
        except BaseException:
            # Also when the job is interrupted here: what was begun must not be committed by the next one.
            connection.rollback()
            raise

    def read(self) -> Effects:
        connection = self._connection()
        jobs = {row[0] for row in self._execute(connection, "SELECT job_id FROM torture_effect WHERE done = 1")}
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
                raise UsageError("a PostgreSQL ledger needs psycopg: pip install 'psycopg[binary]'") from None
            return psycopg.connect(self.url)
        connection = sqlite3.connect(self.url, timeout=30, isolation_level="IMMEDIATE", check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _execute(self, connection: Any, statement: str, *values: object) -> Any:
        return connection.execute(statement.replace("?", "%s") if self._is_postgres else statement, values)
