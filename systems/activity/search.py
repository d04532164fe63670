"""Finding events by user, kind and time, newest first, a page at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from systems.activity.models import StoredEvent

ROWS = 50
ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
"""What the times that a person enters and reads mean."""
_KINDS = text("""
WITH RECURSIVE k AS (
    (SELECT kind FROM event ORDER BY kind LIMIT 1)
    UNION ALL SELECT (SELECT kind FROM event WHERE kind > k.kind ORDER BY kind LIMIT 1) FROM k WHERE k.kind IS NOT NULL
) SELECT kind FROM k WHERE kind IS NOT NULL
""")
"""The kinds there are, by one step in the index for each ("loose index scan", PostgreSQL wiki)."""


class Asked(msgspec.Struct, frozen=True):
    """What is looked for; "" is anything. `before`: the place of the last event of the page before this one."""

    user: str = ""
    kind: str = ""
    since: str = ""
    until: str = ""
    request: str = ""
    before: str = ""


class Found(msgspec.Struct, frozen=True):
    events: list[Any]
    kinds: list[str]
    older: str = ""


def read_time(given: str) -> datetime | None:
    """Of a field "datetime-local", or ISO 8601 with its zone; raises ValueError."""
    if not given:
        return None
    found = datetime.fromisoformat(given)
    return found if found.tzinfo else found.replace(tzinfo=ZONE)


async def search(connection: AsyncConnection, asked: Asked) -> Found:
    """The events; raises ValueError for what is no time or place."""
    table = StoredEvent.__table__.c
    place = tuple_(table.at, table.source, table.seq)
    wanted = (
        select(StoredEvent.__table__).order_by(table.at.desc(), table.source.desc(), table.seq.desc()).limit(ROWS + 1)
    )
    for column, value in ((table.username, asked.user), (table.kind, asked.kind), (table.request, asked.request)):
        if value:
            wanted = wanted.where(column == value.replace("\0", ""))
    since, until = read_time(asked.since), read_time(asked.until)
    if since is not None:
        wanted = wanted.where(table.at >= since)
    if until is not None:
        # What a field for minutes says is meant with that minute.
        wanted = wanted.where(table.at < until + timedelta(minutes=1))
    if asked.before:
        wanted = wanted.where(place < _place(asked.before))
    rows = list(await connection.execute(wanted))
    kinds = list(await connection.scalars(_KINDS))
    last = rows[ROWS - 1] if len(rows) > ROWS else None
    older = f"{last.at.astimezone(UTC).isoformat()}/{last.source}/{last.seq}" if last else ""
    return Found(rows[:ROWS], kinds, older)


def _place(given: str) -> tuple[datetime, str, int]:
    at, source, seq = given.split("/")
    return datetime.fromisoformat(at), source, int(seq)
