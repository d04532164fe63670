"""What the pages show, read from the book: figures by way, the newest notices, what is dead, the journey of one notice."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from systems.notification.models import Delivery, Notice, Person, Step

LISTED = 20
DEAD_LISTED = 50


class Line(msgspec.Struct, frozen=True):
    """A notice in the list, with how each of its deliveries stands."""

    id: str
    at: datetime
    user: str
    kind: str
    is_urgent: bool
    ways: list[tuple[str, str]]


class Dead(msgspec.Struct, frozen=True):
    delivery: str
    notice: str
    user: str
    kind: str
    channel: str
    at: datetime
    why: str


class Stage(msgspec.Struct, frozen=True):
    at: datetime
    what: str
    detail: str


class Way(msgspec.Struct, frozen=True):
    delivery: str
    channel: str
    status: str
    stages: list[Stage]


class Journey(msgspec.Struct, frozen=True):
    notice: Line
    values: dict[str, str]
    ways: list[Way]


async def read_counts(connection: AsyncConnection) -> dict[str, dict[str, int]]:
    """Deliveries by way and status."""
    rows = select(Delivery.channel, Delivery.status, func.count()).group_by(Delivery.channel, Delivery.status)
    counts: dict[str, dict[str, int]] = {}
    for channel, status, count in await connection.execute(rows):
        counts.setdefault(channel, {})[status] = count
    return counts


async def read_latest(connection: AsyncConnection) -> list[Line]:
    newest = select(Notice.id).order_by(Notice.at.desc()).limit(LISTED)
    return await _lines(connection, list((await connection.execute(newest)).scalars()))


async def read_dead(connection: AsyncConnection) -> list[Dead]:
    """The newest, with the last that was said of each."""
    why = select(Step.detail).where(Step.delivery == Delivery.id).order_by(Step.number.desc()).limit(1)
    rows = select(
        Delivery.id, Notice.id, Notice.person, Notice.kind, Delivery.channel, Delivery.changed_at, why.scalar_subquery()
    )
    rows = rows.join_from(Delivery, Notice).where(Delivery.status == "dead").order_by(Delivery.changed_at.desc())
    return [Dead(*row) for row in await connection.execute(rows.limit(DEAD_LISTED))]


async def read_journey(connection: AsyncConnection, notice: str) -> Journey | None:
    """None: it is not in the book, or not yet."""
    lines = await _lines(connection, [notice])
    if not lines:
        return None
    values = (await connection.execute(select(Notice.values).where(Notice.id == notice))).scalar_one()
    rows = select(Step.delivery, Step.at, Step.what, Step.detail).join(Delivery).where(Delivery.notice == notice)
    stages: dict[str, list[Stage]] = {}
    for delivery, at, what, detail in await connection.execute(rows.order_by(Step.number)):
        stages.setdefault(delivery, []).append(Stage(at, what, detail))
    ways = [
        Way(f"{notice}.{channel}", channel, status, stages.get(f"{notice}.{channel}", []))
        for channel, status in lines[0].ways
    ]
    return Journey(lines[0], values, ways)


async def read_users(connection: AsyncConnection) -> list[tuple[str, str]]:
    """Some to choose from."""
    rows = await connection.execute(select(Person.id, Person.name).order_by(Person.id).limit(LISTED))
    return [(user, name) for user, name in rows]


async def _lines(connection: AsyncConnection, notices: list[str]) -> list[Line]:
    rows = (
        select(Notice.id, Notice.at, Notice.person, Notice.kind, Notice.is_urgent, Delivery.channel, Delivery.status)
        .outerjoin(Delivery)
        .where(Notice.id.in_(notices))
        .order_by(Notice.at.desc(), Notice.id, Delivery.id)
    )
    found: dict[str, Line] = {}
    for notice, at, user, kind, is_urgent, channel, status in await connection.execute(rows):
        line = found.setdefault(notice, Line(notice, at, user, kind, is_urgent, []))
        if channel is not None:
            line.ways.append((channel, status))
    return list(found.values())
