"""What the page of figures shows, read from the counts by minute."""

from __future__ import annotations

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

MINUTES = 60
PAGES = 10
_MINUTES = text("""
SELECT to_char(m AT TIME ZONE 'UTC', 'HH24:MI') AS minute, coalesce(sum(views), 0)::bigint AS views
FROM generate_series(date_trunc('minute', now()) - make_interval(mins => :minutes - 1), date_trunc('minute', now()), '1 minute') m
LEFT JOIN page_minute ON minute = m
GROUP BY m ORDER BY m
""")
_PAGES = text("""
SELECT page, sum(views)::bigint AS views FROM page_minute
WHERE minute > now() - make_interval(mins => :minutes)
GROUP BY page ORDER BY views DESC, page LIMIT :pages
""")
_TOTAL = text("SELECT coalesce(sum(views), 0)::bigint FROM page_minute")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """`waiting`: views that are accepted and not yet written. Without `database` the others are not known."""

    waiting: int
    database: bool = False
    total: int = 0
    minutes: list[tuple[str, int]] = []
    pages: list[tuple[str, int]] = []

    @property
    def highest(self) -> int:
        return max((views for _, views in self.minutes), default=0)


async def read_figures(connection: AsyncConnection, *, waiting: int) -> Figures:
    """Three short reads, whatever was stored."""
    minutes = await connection.execute(_MINUTES, {"minutes": MINUTES})
    pages = await connection.execute(_PAGES, {"minutes": MINUTES, "pages": PAGES})
    return Figures(
        waiting=waiting,
        database=True,
        minutes=[(row.minute, row.views) for row in minutes],
        pages=[(row.page, row.views) for row in pages],
        total=(await connection.execute(_TOTAL)).scalar_one(),
    )
