"""The tasks: one counts a day, one makes the report of all its days, one asks for the standard reports each night."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import cache

import psycopg
from sqlalchemy import Connection, Engine, insert
from sqlalchemy.exc import OperationalError

from headrace import Chain, Headrace, Retry, current_job, group, previous
from systems.analytics.days import DayFigures, add_up, count_views_of
from systems.analytics.models import SCHEMA, DayCounted, ReadyReport, ReportFile
from systems.analytics.question import Question
from systems.analytics.render import make_files
from systems.common.database import make_engine

QUEUE = "reports"
STANDARD_DAYS = (7, 30)
PATIENCE = Retry(10, delay=1, max_delay=30, on=(OperationalError, psycopg.OperationalError))
"""For a database that is away for a while. What it refuses, it would refuse again."""

app = Headrace(name="analytics", queues=[QUEUE])


def report_of(question: Question) -> Chain[str]:
    """A day is a job, all side by side; then one that makes the report. Who asks for the same meanwhile gets this one.

    Reports take turns, so that somebody's year does not hold up another one's week.
    """
    turn = f"{question.first}..{question.last}"
    days = group(count_day.options(group=turn).call(day, question.pages) for day in question.days())
    return days >> make_report.call(previous, question.first, question.last, question.pages)


@app.task(queue=QUEUE, timeout=600, retry=PATIENCE)
def count_day(day: date, pages: str) -> DayFigures:
    """Read the views of a day. A worker that dies loses this day's work, not that of the days before."""
    began_s = time.monotonic()
    with engine().begin() as connection, stopping_with_the_job(connection):
        figures = count_views_of(connection, day, pages)
        line = {
            "report": report_id(),
            "day": day,
            "views": figures.views,
            "took_s": time.monotonic() - began_s,
            "at": datetime.now(UTC),
        }
        connection.execute(insert(DayCounted), line)
    return figures


@app.task(queue=QUEUE, timeout=600, retry=PATIENCE, unique=["first", "last", "pages"])
def make_report(days: list[DayFigures], first: date, last: date, pages: str) -> str:
    """Add the days up and store the files, once. Returns the report's id."""
    question, figures, made_at = Question(first, last, pages), add_up(days), datetime.now(UTC)
    report = report_id()
    files = make_files(question, figures, made_at)
    with engine().connect() as connection, current_job().effect(connection) as effect:
        if not effect.is_done:
            ready = {"id": report, "first": first, "last": last, "pages": pages, "views": figures.views}
            connection.execute(insert(ReadyReport), ready | {"made_at": made_at})
            rows = [{"report": report, "name": name, "body": body} for name, body in files.items()]
            connection.execute(insert(ReportFile), rows)
    return report


@app.cron("15 0 * * *", queue=QUEUE, retry=PATIENCE)
def ask_for_standard_reports() -> list[str]:
    """Each night, of the days that ended: the last week and the last month."""
    yesterday = datetime.now(UTC).date() - timedelta(1)
    questions = [Question(yesterday - timedelta(days - 1), yesterday, "/") for days in STANDARD_DAYS]
    return [report_of(question).enqueue().id for question in questions]


def report_id() -> str:
    """The id of the flow that the running job is of."""
    return current_job().id.partition(".")[0]


@contextmanager
def stopping_with_the_job(connection: Connection) -> Iterator[None]:
    """When the job is cancelled, or over its time, so is the statement: the server would else go on for nobody."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    try:
        yield
    except BaseException:
        if driver.info.transaction_status is psycopg.pq.TransactionStatus.ACTIVE:
            driver.cancel_safe(timeout=1)
            connection.invalidate()  # nobody read the statement's end: this connection is of no more use
        raise


@cache
def engine() -> Engine:
    """Of this process, opened at its first job."""
    return make_engine(SCHEMA, pool_size=1)
