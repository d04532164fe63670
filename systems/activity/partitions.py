"""The partitions of the table of events: one for each day (UTC), made ahead, dropped when they are old."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, text

DAYS_KEPT = 30
DAYS_AHEAD = 7
LOCK_WITHIN_MS = 3_000
_NAME = re.compile(r"event_(\d{4})(\d\d)(\d\d)")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('activity/partitions'))")
_THERE = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'event'::regclass")


def today() -> date:
    return datetime.now(UTC).date()


def is_kept(day: date) -> bool:
    """Whether there is, or may be, a partition for the day: older ones are dropped, later ones would be a wrong clock's."""
    return today() - timedelta(DAYS_KEPT) <= day <= today() + timedelta(DAYS_AHEAD)


def days(connection: Connection) -> set[date]:
    """Those that have a partition."""
    found = (_NAME.fullmatch(name.rpartition(".")[2]) for name in connection.scalars(_THERE))
    return {date(*map(int, match.groups())) for match in found if match}


def make(connection: Connection, wanted: Iterable[date]) -> list[date]:
    """Make those that are missing; which. In the caller's transaction; two at once: the second waits, and finds them.

    ATTACH takes a weaker lock of the table than CREATE … PARTITION OF: nobody who reads or writes events waits for it.
    """
    missing = set(wanted) - days(connection)
    if missing:
        connection.execute(_LOCK)
        missing -= days(connection)
    for day in sorted(missing):
        name, until = f"event_{day:%Y%m%d}", day + timedelta(1)
        connection.execute(text(f"CREATE TABLE {name} (LIKE event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"))
        bounds = f"FROM ('{day} 00:00+00') TO ('{until} 00:00+00')"
        connection.execute(text(f"ALTER TABLE event ATTACH PARTITION {name} FOR VALUES {bounds}"))
    return sorted(missing)


def make_coming(connection: Connection) -> list[date]:
    """Of today and the days to come."""
    return make(connection, (today() + timedelta(n) for n in range(DAYS_AHEAD + 1)))


def old(connection: Connection) -> list[date]:
    return sorted(day for day in days(connection) if day < today() - timedelta(DAYS_KEPT))


def drop(connection: Connection, day: date) -> None:
    """A day's events, at once. Who reads or writes the table waits for a moment: so it does not wait long for them.

    Raises:
        OperationalError: they kept it for longer; the caller tries again later.
    """
    connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_WITHIN_MS}"))
    connection.execute(text(f"DROP TABLE IF EXISTS event_{day:%Y%m%d}"))
