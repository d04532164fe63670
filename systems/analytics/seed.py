"""Put page views into the tracking system's table: `python -m systems.analytics.seed --views 2000000 --days 30`.

The same seed, days and end give the same views. Some names are what an attacker would choose.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Engine, text

from systems.common.database import make_engine

PAGES = ["/", "/prices", "/docs", "/about", "/blog", *(f"/blog/{number}" for number in range(40))]
HOSTILE = ["/=cmd|' /C calc'!A0", "/<script>alert(1)</script>", '=HYPERLINK("https://example.org")']
REFERRERS = [
    "",
    "https://search.example/?q=queue",
    "https://news.example/item/7",
    "https://social.example/",
    "ftp://old.example/",
]
BROWSERS = ["Firefox", "Chromium", "Safari", "Lynx"]

_DAY = text("""
INSERT INTO tracking.page_view (id, at, visitor, page, referrer, browser, ip)
SELECT 'seed-' || :day || '-' || n, CAST(:begins AS timestamptz) + make_interval(secs => 86400.0 * n / :views),
    'v' || (power(random(), 2) * :visitors)::int,
    (CAST(:pages AS text[]))[1 + least(floor(power(random(), 3) * :page_count)::int, :page_count - 1)],
    (CAST(:referrers AS text[]))[1 + least(floor(power(random(), 2) * :referrer_count)::int, :referrer_count - 1)],
    (CAST(:browsers AS text[]))[1 + floor(random() * :browser_count)::int], NULL
FROM generate_series(0, CAST(:views AS int) - 1) n ORDER BY n
ON CONFLICT (id) DO NOTHING
""")


def seed_views(engine: Engine, *, views: int, days: int, last: date, seed: int) -> None:
    """So many a day on average, a little more on each second day; a day is a transaction."""
    pages = [*PAGES, *HOSTILE]
    for number in range(days):
        day = last - timedelta(number)
        of_the_day = int(views / days * (1.2 if number % 2 else 0.8))
        asked = {
            "day": day.isoformat(), "begins": datetime(day.year, day.month, day.day, tzinfo=UTC), "views": of_the_day,
            "visitors": max(10, of_the_day // 8), "pages": pages, "page_count": len(pages), "referrers": REFERRERS,
            "referrer_count": len(REFERRERS), "browsers": BROWSERS, "browser_count": len(BROWSERS),
        }  # fmt: skip
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT setseed(:seed)"), {"seed": (seed * 7919 + number) % 1000 / 1000})
            connection.execute(_DAY, asked)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE tracking.page_view"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m systems.analytics.seed", description=__doc__)
    parser.add_argument("--views", type=int, default=2_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    began_s = time.monotonic()
    yesterday = datetime.now(UTC).date() - timedelta(1)
    engine = make_engine("tracking")
    seed_views(engine, views=options.views, days=options.days, last=yesterday, seed=options.seed)
    engine.dispose()
    print(f"{options.views:,} views on {options.days} days until {yesterday}, in {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
