"""The tasks: one writes page views as they come, up to 1,000 in a transaction; one forgets old notes each night."""

from __future__ import annotations

import logging
import random
import select
import time
from collections import Counter
from functools import cache
from uuid import uuid4

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError

from headrace import Batch, Headrace, Retry, RetryIn, current_batch
from headrace.effects import prune_effects
from systems.common.database import make_engine
from systems.tracking.events import View
from systems.tracking.models import SCHEMA, PageMinute

QUEUE = "views"
PATIENCE_S = 15.0
"""How long a batch waits for a database that is away; less than the 25 s that a worker which stops lets it go on."""
LOOK_EVERY_S = 0.25
NOTES_KEPT_S = 40 * 86_400.0
"""Longer than failed jobs are kept (30 days): one of them that is retried must find what an earlier run has done."""
FORGOTTEN_AT_ONCE = 10_000
COPY = "COPY page_view (id, at, visitor, page, referrer, browser, ip) FROM STDIN"

logger = logging.getLogger("systems.tracking")
app = Headrace(name="tracking", queues=[QUEUE])


@app.task(queue=QUEUE, batch=Batch(max=1000, wait=0.2), timeout=120, result_ttl=0)
def store(views: list[View]) -> None:
    """Write them once each, whatever happens to this process or to the database.

    While the database is away, or locked, the batch waits here, and all others in the queue: nothing is tried that must
    fail. There is no `retry=`: a view that the database refuses would be refused again.
    """
    gives_up_at_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with engine().connect() as connection:
                return write(connection, views)
        except (OperationalError, psycopg.OperationalError) as error:
            if time.monotonic() > gives_up_at_s:
                raise RetryIn(1 + random.random(), "the database is away") from error
            logger.warning("the database is away, %d views wait: %s", len(views), str(error).partition("\n")[0])
            select.select([], [], [], LOOK_EVERY_S)


@app.cron("10 3 * * *", queue=QUEUE, retry=Retry(5, delay=60))
def forget() -> int:
    """Remove the notes of effects that nobody needs any more; how many."""
    forgotten = 0
    while True:
        with engine().connect() as connection:
            gone = prune_effects(connection, older_than_s=NOTES_KEPT_S, limit=FORGOTTEN_AT_ONCE)
        forgotten += gone
        if gone < FORGOTTEN_AT_ONCE:
            return forgotten


@cache
def engine() -> Engine:
    """Of this process, opened at its first batch."""
    return make_engine(SCHEMA, pool_size=1)


def write(connection: Connection, views: list[View]) -> None:
    """One transaction: the views that no earlier run has written, the notes that they are, and the counts."""
    ids = [job.id for job in current_batch().jobs] or [uuid4().hex for _ in views]  # a plain call has no jobs
    with current_batch().effects(connection) as effects:
        mine = effects.pending(views)
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        with driver.cursor() as cursor, cursor.copy(COPY) as rows:
            for n in mine:
                view = views[n]
                rows.write_row((ids[n], view.at, view.visitor, view.page, view.referrer, view.browser, view.ip))
        if mine:
            _count(connection, [views[n] for n in mine])


def _count(connection: Connection, views: list[View]) -> None:
    """Last, and in order: its rows are what batches share, so they are held for the shortest time, and never crosswise."""
    counts = Counter((view.at.replace(second=0, microsecond=0), view.page) for view in views)
    rows = [{"minute": minute, "page": page, "views": number} for (minute, page), number in sorted(counts.items())]
    new = insert(PageMinute)
    added = {"views": PageMinute.views + new.excluded.views}
    connection.execute(new.on_conflict_do_update(index_elements=["minute", "page"], set_=added), rows)
