"""The tasks: one writes events as they come, up to 1,000 in a transaction; one makes and drops the days' partitions."""

from __future__ import annotations

import json
import logging
import random
import select
import time
from collections.abc import Sequence
from datetime import UTC
from functools import cache

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from headrace import Batch, Headrace, HeadraceError, JobExists, QueueFull, Retry, RetryIn, ServerError, current_batch
from headrace.effects import prune_effects
from systems.activity import partitions
from systems.activity.events import Entry
from systems.activity.models import SCHEMA
from systems.common.database import make_engine

QUEUE = "activity"
PATIENCE_S = 15.0
"""How long a batch waits for a database that is away; less than the 25 s that a worker which stops lets it go on."""
LOOK_EVERY_S = 0.25
RETRY_FOR_S = 1.0
"""Of calls to the queue: what it does not take stays in the spool, so nothing is gained by trying for longer."""
NOTES_KEPT_S = 40 * 86_400.0
"""Longer than failed jobs are kept (30 days): one of them that is retried must find what an earlier run has done."""
FORGOTTEN_AT_ONCE = 10_000
COPY = "COPY event (at, source, seq, kind, level, username, request, text, data) FROM STDIN"

logger = logging.getLogger("headrace.activity")
app = Headrace(name="activity", queues=[QUEUE], retry_for=RETRY_FOR_S)


class OutOfTime(Exception):
    """An event of a day that is no longer kept, or of a clock that is wrong."""


@app.task(queue=QUEUE, batch=Batch(max=1000, wait=0.2), timeout=120, result_ttl=0)
def store(entries: list[Entry]) -> list[OutOfTime | None]:
    """Write them once each, whatever happens to this process or to the database; wait while it is away.

    There is no `retry=`: an event that the database refuses would be refused again.
    """
    gives_up_at_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with engine().connect() as connection:
                return write(connection, entries)
        except (OperationalError, psycopg.OperationalError) as error:
            if time.monotonic() > gives_up_at_s:
                raise RetryIn(1 + random.random(), "the database is away") from error
            logger.warning("the database is away, %d events wait: %s", len(entries), str(error).partition("\n")[0])
            select.select([], [], [], LOOK_EVERY_S)


@app.cron("20 * * * *", queue=QUEUE, retry=Retry(5, delay=60))
def tend() -> dict[str, list[str] | int]:
    """Each hour: the partitions of the coming days are made, those of old days dropped, old notes forgotten; which."""
    with engine().begin() as connection:
        made = partitions.make_coming(connection)
    with engine().connect() as connection:
        old = partitions.old(connection)
    for day in old:
        with engine().begin() as connection:
            partitions.drop(connection, day)
    return {"made": [str(day) for day in made], "dropped": [str(day) for day in old], "forgotten": _forget()}


def _forget() -> int:
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


def write(connection: Connection, entries: list[Entry]) -> list[OutOfTime | None]:
    """One transaction: the events that no earlier run has written, the notes that they are, and a day's first partition."""
    days = [entry.event.at.astimezone(UTC).date() for entry in entries]
    answers: list[OutOfTime | None] = [
        None if partitions.is_kept(day) else OutOfTime(f"{day} is not kept") for day in days
    ]
    with current_batch().effects(connection) as effects:
        for n, answer in enumerate(answers):
            if answer is not None:
                effects.skip(n)
        mine = [n for n in effects.pending(entries) if answers[n] is None]
        partitions.make(connection, {days[n] for n in mine})
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        with driver.cursor() as cursor, cursor.copy(COPY) as rows:
            for n in mine:
                source, seq, event = entries[n].source, entries[n].seq, entries[n].event
                data = json.dumps(event.data)
                row = (event.at, source, seq, event.kind, event.level, event.user, event.request, event.text, data)
                rows.write_row(row)
    return answers


def send(entries: Sequence[Entry]) -> list[Entry]:
    """Enqueue them in order, those that are there already left out; what can never be enqueued is returned.

    Raises:
        ConnectionError: the queue does not take any now.
    """
    try:
        app.enqueue_many([store.options(job_id=entry.id).call(entry) for entry in entries])
    except (ServerError, QueueFull) as error:
        raise ConnectionError(str(error)) from error
    except HeadraceError:
        return [entry for entry in entries if not _sent_alone(entry)]  # one is there, or does not fit: find out which
    return []


def _sent_alone(entry: Entry) -> bool:
    try:
        store.options(job_id=entry.id).enqueue(entry)
    except JobExists:
        return True  # an earlier process sent it, and died before it could note so
    except (ServerError, QueueFull) as error:
        raise ConnectionError(str(error)) from error
    except HeadraceError:
        logger.exception("%s can never be stored", entry.id)
        return False
    return True
