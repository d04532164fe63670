"""What is written down of notices: whose they are, how each delivery stands, and its steps. One statement each; no queue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, time

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from systems.notification.kinds import CHANNELS, KINDS
from systems.notification.unsubscribing import Subscription

DETAIL_CHARS_MAX = 300
_TAKE = text("""
WITH way AS (
    SELECT person.id AS person, channel FROM person, unnest(CAST(:channels AS text[])) AS channel
    WHERE person.id = :user AND CASE channel WHEN 'mail' THEN mail WHEN 'sms' THEN sms ELSE push END IS NOT NULL
), taken AS (
    INSERT INTO notice (id, person, kind, values, is_urgent, at)
    SELECT :id, id, :kind, CAST(:values AS jsonb), :is_urgent, now() FROM person WHERE id = :user
    ON CONFLICT (id) DO NOTHING RETURNING id
), enqueued AS (
    INSERT INTO delivery (id, notice, channel, status, changed_at)
    SELECT taken.id || '.' || channel, taken.id, channel, 'waiting', now() FROM way, taken RETURNING id
), noted AS (
    INSERT INTO step (delivery, at, what, detail) SELECT id, now(), 'taken', '' FROM enqueued
)
SELECT person.id, array(SELECT channel FROM way) FROM person WHERE id = :user
""")
_OPEN = text(f"""
SELECT delivery.id, channel, status, kind, values, is_urgent, notice.at, person.id, name, language,
    CASE channel WHEN 'mail' THEN mail WHEN 'sms' THEN sms ELSE push END, zone, quiet_begins, quiet_ends,
    EXISTS (SELECT FROM unsubscribed WHERE person = person.id AND category = CASE kind {
    " ".join(f"WHEN '{name}' THEN '{kind.category}'" for name, kind in KINDS.items())
} END)
FROM delivery JOIN notice ON notice.id = notice JOIN person ON person.id = person WHERE delivery.id = :id
""")
_NOTE = text("""
WITH noted AS (
    INSERT INTO step (delivery, at, what, detail) SELECT id, clock_timestamp(), :what, :detail FROM delivery WHERE id = :id
)
UPDATE delivery SET changed_at = clock_timestamp(), status = coalesce(:status, status) WHERE id = :id
""")
_WAITING = """
SELECT delivery.id, channel, person, is_urgent FROM delivery JOIN notice ON notice.id = notice
"""
_UNHEARD = text(f"""
WITH unheard AS (
    SELECT id FROM delivery WHERE status = 'waiting' AND changed_at < :instant ORDER BY changed_at LIMIT :most
), looked_at AS (
    UPDATE delivery SET changed_at = clock_timestamp() WHERE id IN (SELECT id FROM unheard)
)
{_WAITING} WHERE delivery.id IN (SELECT id FROM unheard) ORDER BY notice.at, delivery.id
""")
_DEAD = text(f"""
{_WAITING} WHERE status = 'dead' AND (delivery.id = :id OR CAST(:id AS text) IS NULL) ORDER BY notice.at, delivery.id LIMIT :most
""")
_LEAVE = text("INSERT INTO unsubscribed (person, category, at) VALUES (:user, :category, now()) ON CONFLICT DO NOTHING")
_FORGET = text("""
DELETE FROM notice WHERE id IN (SELECT id FROM notice WHERE at < :before LIMIT :most)
""")


class Letter(msgspec.Struct, frozen=True):
    """A delivery, with all that its sending needs. `address`: of the user, on this way."""

    id: str
    channel: str
    status: str
    kind: str
    values: dict[str, str]
    is_urgent: bool
    at: datetime
    user: str
    name: str
    language: str
    address: str | None
    zone: str
    quiet_begins: time | None
    quiet_ends: time | None
    is_unsubscribed: bool


class Waiting(msgspec.Struct, frozen=True):
    """A delivery that is not at its end, and how it is enqueued."""

    id: str
    channel: str
    user: str
    is_urgent: bool


async def take(
    connection: AsyncConnection, notice: str, user: str, kind: str, values: Mapping[str, str]
) -> list[Waiting] | None:
    """Note the notice, and a delivery for each way by which its user can be reached; again is the same. None: no such user."""
    asked: dict[str, object] = {"id": notice, "user": user, "kind": kind, "values": json.dumps(values)}
    asked |= {"channels": list(KINDS[kind].channels), "is_urgent": KINDS[kind].is_urgent}
    row = (await connection.execute(_TAKE, asked)).one_or_none()
    if row is None:
        return None
    ways = sorted(row[1], key=CHANNELS.index)
    return [Waiting(f"{notice}.{channel}", channel, user, KINDS[kind].is_urgent) for channel in ways]


async def open_letter(connection: AsyncConnection, delivery: str) -> Letter | None:
    row = (await connection.execute(_OPEN, {"id": delivery})).one_or_none()
    return None if row is None else Letter(*row)


async def note(
    connection: AsyncConnection, delivery: str, what: str, detail: str = "", status: str | None = None
) -> None:
    """A step of its journey; with `status`, how it stands from now on."""
    line = {"id": delivery, "what": what, "detail": detail[:DETAIL_CHARS_MAX], "status": status}
    await connection.execute(_NOTE, line)


async def unheard_since(connection: AsyncConnection, instant: datetime, most: int) -> Sequence[Waiting]:
    """Deliveries that wait and have had no step since; they are noted as looked at."""
    return [Waiting(*row) for row in await connection.execute(_UNHEARD, {"instant": instant, "most": most})]


async def dead_ones(connection: AsyncConnection, delivery: str | None, most: int) -> Sequence[Waiting]:
    """This one, if it is dead; None: all, the oldest first."""
    return [Waiting(*row) for row in await connection.execute(_DEAD, {"id": delivery, "most": most})]


async def leave(connection: AsyncConnection, subscription: Subscription) -> None:
    """Have this user get no more of this category; again is the same."""
    await connection.execute(_LEAVE, {"user": subscription.user, "category": subscription.category})


async def forget(connection: AsyncConnection, before: datetime, most: int) -> int:
    """Delete notices that old, with all that belongs to them; how many."""
    return (await connection.execute(_FORGET, {"before": before, "most": most})).rowcount
