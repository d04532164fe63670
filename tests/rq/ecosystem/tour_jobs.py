"""Jobs of the tours, which import `rq` as a user's do."""

from __future__ import annotations

import rq


def plain(value: int) -> int:
    assert rq.get_current_job() is not None
    return value


def divide(one: int, other: int) -> float:
    return one / other


def scrape() -> str:
    """What the exporter says while this runs."""
    import exporter_tour

    return exporter_tour.scraped()


def count(name: str) -> int:
    import os

    import redis

    return redis.from_url(os.environ["REDISTOGO_URL"]).incr(f"count:{name}")
