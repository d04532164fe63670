"""What is counted of one day, in one statement; and what several days come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
from sqlalchemy import Connection, text

NAMES_KEPT = 1_000
"""Of a day's pages and referrers; those that were seen less often than these are left out of the sums."""
VISIT_ENDS_AFTER = "30 minutes"
_DAY = text(f"""
WITH seen AS MATERIALIZED (
    SELECT at, visitor, page, referrer,
        at - lag(at) OVER (PARTITION BY visitor ORDER BY at) < interval '{VISIT_ENDS_AFTER}' AS goes_on
    FROM tracking.page_view WHERE at >= :begins AND at < :ends AND starts_with(page, :pages)
), hour AS (
    SELECT extract(hour FROM at AT TIME ZONE 'UTC')::int AS name, count(*) AS views FROM seen GROUP BY 1
), page AS (
    SELECT page AS name, count(*) AS views FROM seen GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {NAMES_KEPT}
), referrer AS (
    SELECT coalesce(substring(referrer FROM '^https?://([^/:?#]+)'), '') AS name, count(*) AS views
    FROM seen GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {NAMES_KEPT}
)
SELECT
    (SELECT count(*) FROM seen), (SELECT count(DISTINCT visitor) FROM seen),
    (SELECT count(*) FROM seen WHERE goes_on IS NOT TRUE),
    (SELECT coalesce(jsonb_object_agg(name, views), '{{}}') FROM hour),
    (SELECT coalesce(jsonb_object_agg(name, views), '{{}}') FROM page),
    (SELECT coalesce(jsonb_object_agg(name, views), '{{}}') FROM referrer)
""")


class DayFigures(msgspec.Struct, frozen=True):
    """One day (UTC). A visit ends when its visitor looks at nothing for 30 minutes, and at midnight."""

    day: date
    views: int
    visitors: int
    visits: int
    hours: list[int]
    pages: dict[str, int]
    referrers: dict[str, int]


class Figures(msgspec.Struct, frozen=True):
    """Several days. `visitors_a_day`: on average; who comes on two days counts on both."""

    days: list[DayFigures]
    views: int
    visits: int
    visitors_a_day: float
    hours: list[int]
    pages: list[tuple[str, int]]
    referrers: list[tuple[str, int]]


def count_views_of(connection: Connection, day: date, pages: str) -> DayFigures:
    """Read a day's views: seconds, where there are many."""
    begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
    asked = {"begins": begins, "ends": begins + timedelta(1), "pages": pages}
    views, visitors, visits, hours, by_page, by_referrer = connection.execute(_DAY, asked).one()
    by_hour = [int(hours.get(str(hour), 0)) for hour in range(24)]
    return DayFigures(day, views, visitors, visits, by_hour, by_page, by_referrer)


def add_up(days: Sequence[DayFigures]) -> Figures:
    """The sums, and the names in order of their views."""
    pages: Counter[str] = Counter()
    referrers: Counter[str] = Counter()
    for day in days:
        pages.update(day.pages)
        referrers.update(day.referrers)
    return Figures(
        days=sorted(days, key=lambda day: day.day),
        views=sum(day.views for day in days),
        visits=sum(day.visits for day in days),
        visitors_a_day=sum(day.visitors for day in days) / len(days),
        hours=[sum(views) for views in zip(*(day.hours for day in days), strict=True)],
        pages=_ordered(pages),
        referrers=_ordered(referrers),
    )


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
