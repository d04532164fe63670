"""The tasks: one takes a notice in, one for each way sends it, others unsubscribe, replay what is dead, and look after the rest."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import cache

import httpx
import psycopg
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from headrace import Headrace, JobExists, JobNotFound, JobTimeout, Limit, Retry, RetryIn, State, Unique, current_job
from systems.common.database import make_async_engine
from systems.notification import book
from systems.notification.book import Letter, Waiting
from systems.notification.kinds import KINDS
from systems.notification.mail import make_mail
from systems.notification.models import SCHEMA
from systems.notification.providers import ANSWERS_WITHIN_S, Away, Busy, Failed, Rejected, send_mail, send_to_service
from systems.notification.quiet import quiet_until
from systems.notification.unsubscribing import Subscription, make_link
from systems.notification.wording import word

NOTICES, DELIVERIES = "notices", "deliveries"
SAME_WITHIN_S = 3600.0
URGENT = 9
DATABASE_ERRORS = (OperationalError, psycopg.OperationalError)
PATIENCE = Retry(1000, delay=1, max_delay=10, on=DATABASE_ERRORS)
"""For a database that is away for some hours."""
RETRIES = 6
RETRY = Retry(RETRIES, delay=1, max_delay=60, on=(Failed, JobTimeout))
AWAY_S = 2.0
"""How soon one delivery tries a provider again that is away; the others wait for what it finds."""
GIVES_UP_AFTER = timedelta(days=1)
UNHEARD_S = 300.0
LOOKED_AT_ONCE = 1000
KEPT = timedelta(days=90)
RINGS = ("sms", "push")
"""What makes a noise: held back in quiet hours, unless it is urgent."""

app = Headrace(name="notification", queues=[NOTICES, DELIVERIES])


class Undeliverable(Exception):
    """It is dead: nothing but a person can help."""


@app.task(
    queue=NOTICES,
    unique=Unique(["user", "kind", "values"], until=SAME_WITHIN_S),
    limits=Limit("notices:{user}", concurrency=1, until="finish"),
    retry=PATIENCE,
)
async def take(user: str, kind: str, values: dict[str, str]) -> list[str]:
    """Note a notice, under the id of this job, and enqueue its deliveries; their ids. The same within an hour is this one."""
    async with engine().connect() as connection:
        deliveries = await book.take(connection, current_job().id, user, kind, values)
    if deliveries is None:
        raise Undeliverable(f"there is no user {user!r}")
    await asyncio.gather(*map(enqueue, deliveries))  # one round trip
    return [delivery.id for delivery in deliveries]


async def enqueue(delivery: Waiting) -> None:
    """Its job has its id, so that it is there once, however often this runs."""
    lane = "urgent" if delivery.is_urgent else "calm"
    options = SENDERS[delivery.channel].options(job_id=delivery.id, priority=URGENT if delivery.is_urgent else 0)
    with contextlib.suppress(JobExists):
        await options.aenqueue(delivery.id, delivery.user, lane)


def _limits(channel: str, *, rate: str, burst: int, concurrency: int) -> list[Limit]:
    """One user's notices stay in order: the next one waits while one is retried, but an urgent one does not wait for calm ones.

    A provider counts requests, a limit the starts of jobs, and a request may be held up for long on its way. But in any second no
    more can come than start in it (rate + burst - 1) and were on their way before (concurrency): the sum is what a provider allows.
    """
    line = Limit(f"{channel}:{{user}}:{{lane}}", concurrency=1, until="finish")
    return [line, Limit(channel, rate=rate, burst=burst, concurrency=concurrency)]


@app.task(queue=DELIVERIES, limits=_limits("mail", rate="80/s", burst=5, concurrency=16), retry=RETRY, timeout=60)
async def mail(delivery: str, user: str, lane: str) -> str:
    """To a server that allows 100 a second."""
    return await deliver(delivery, _by_mail)


@app.task(queue=DELIVERIES, limits=_limits("sms", rate="36/s", burst=3, concurrency=12), retry=RETRY, timeout=60)
async def sms(delivery: str, user: str, lane: str) -> str:
    """To a service that allows 50 a second."""
    return await deliver(delivery, _by_service)


@app.task(queue=DELIVERIES, limits=_limits("push", rate="80/s", burst=5, concurrency=16), retry=RETRY, timeout=60)
async def push(delivery: str, user: str, lane: str) -> str:
    """To a service that allows 100 a second."""
    return await deliver(delivery, _by_service)


SENDERS = {"mail": mail, "sms": sms, "push": push}
Sender = Callable[[Letter, str], Awaitable[str]]


async def deliver(delivery: str, send: Sender) -> str:
    """One run; returns what became of the delivery. While the database is away it is put off, whatever is done already."""
    try:
        return await _deliver(delivery, send)
    except DATABASE_ERRORS as error:
        raise RetryIn(1 + 4 * random.random(), "the database is away", counts=False) from error


async def _deliver(delivery: str, send: Sender) -> str:
    """Look, send, note."""
    job = current_job()
    async with engine().connect() as connection:
        letter = await book.open_letter(connection, delivery)
        if letter is None:
            raise Undeliverable("it is not in the book")
        if letter.status in ("sent", "skipped"):
            return letter.status
    reference = job.saved
    if reference is None:  # else an earlier run has sent it, and could not note so
        if letter.is_unsubscribed or letter.address is None:
            return await _skip(letter)
        await _mind_the_hour(letter)
        reference = await _sent(letter, send)
        await job.asave(reference)
    await _note(letter, "sent", reference, "sent")
    return "sent"


async def _skip(letter: Letter) -> str:
    current_job().refund(letter.channel)
    why = "unsubscribed" if letter.is_unsubscribed else "no address"
    await _note(letter, "skipped", why, "skipped")
    return "skipped"


async def _mind_the_hour(letter: Letter) -> None:
    """In quiet hours, put it off to their end: no attempt, and none of the provider's rate."""
    if letter.is_urgent or letter.channel not in RINGS:
        return
    now = datetime.now(UTC)
    until = quiet_until(now, letter.zone, letter.quiet_begins, letter.quiet_ends)
    if until is not None:
        current_job().refund(letter.channel)
        await _note(letter, "quiet", until.isoformat(timespec="minutes"))
        raise RetryIn((until - now).total_seconds(), f"quiet hours until {until:%H:%M} UTC", counts=False)


async def _sent(letter: Letter, send: Sender) -> str:
    """The provider's reference. What it says otherwise is noted, and becomes a retry, a pause for all, or a dead letter."""
    job = current_job()
    try:
        return await send(letter, job.idempotency_key)
    except Busy as error:
        await _note(letter, "busy", str(error))
        raise RetryIn(error.after_s, str(error), limit=letter.channel, counts=False) from error
    except Away as error:
        if datetime.now(UTC) - letter.at > GIVES_UP_AFTER:
            raise await _dead(letter, f"given up: {error}") from error
        await _note(letter, "away", str(error))
        raise RetryIn(AWAY_S * (0.5 + random.random()), str(error), limit=letter.channel, counts=False) from error
    except Rejected as error:
        raise await _dead(letter, str(error)) from error
    except Failed as error:
        if job.attempt > RETRIES:
            raise await _dead(letter, str(error)) from error
        await _note(letter, "failed", str(error))
        raise


async def _dead(letter: Letter, why: str) -> Undeliverable:
    await _note(letter, "dead", why, "dead")
    return Undeliverable(why)


async def _note(letter: Letter, what: str, detail: str, status: str | None = None) -> None:
    async with engine().connect() as connection:
        await book.note(connection, letter.id, what, detail, status)


async def _by_mail(letter: Letter, key: str) -> str:
    kind = KINDS[letter.kind]
    link = make_link(Subscription(letter.user, kind.category)) if kind.can_unsubscribe else None
    message = make_mail(
        word(letter.kind, letter.language, letter.values),
        to=letter.address or "",
        name=letter.name,
        language=letter.language,
        key=key,
        at=datetime.now(UTC),
        unsubscribe=link,
    )
    return await send_mail(message)


async def _by_service(letter: Letter, key: str) -> str:
    text = word(letter.kind, letter.language, letter.values).short
    return await send_to_service(http(), letter.channel, letter.address or "", text, key)


@app.task(queue=NOTICES, priority=URGENT, retry=PATIENCE)
async def unsubscribe(user: str, category: str) -> None:
    """From now on; what waits of that category is skipped when its turn comes."""
    async with engine().connect() as connection:
        await book.leave(connection, Subscription(user, category))


@app.task(queue=NOTICES, priority=URGENT, retry=PATIENCE)
async def replay(delivery: str | None = None) -> int:
    """Let what is dead try again: one, or all; how many."""
    async with engine().connect() as connection:
        found = await book.dead_ones(connection, delivery, LOOKED_AT_ONCE)
    for each in found:
        async with engine().connect() as connection:
            await book.note(connection, each.id, "replayed", "", "waiting")
        await _again(each)
    return len(found)


@app.cron("* * * * *", queue=NOTICES, retry=PATIENCE)
async def look_after() -> dict[str, int]:
    """Each minute: see that every delivery that waits has its job, whatever became of the queue's data or of a worker."""
    async with engine().connect() as connection:
        unheard = datetime.now(UTC) - timedelta(seconds=UNHEARD_S)
        found = await book.unheard_since(connection, unheard, LOOKED_AT_ONCE)
    told = {"looked at": len(found), "enqueued again": 0, "dead": 0}
    for each in found:
        try:
            job = await app.ajob(each.id, DELIVERIES)
        except JobNotFound:
            await enqueue(each)
            told["enqueued again"] += 1
            continue
        if job.state in (State.FAILED, State.CANCELLED, State.EXPIRED):  # its worker died with it, say
            async with engine().connect() as connection:
                await book.note(connection, each.id, "dead", job.reason or job.state, "dead")
            told["dead"] += 1
    return told


@app.cron("40 3 * * *", queue=NOTICES, retry=PATIENCE)
async def forget() -> int:
    """Each night: notices older than 90 days; how many."""
    forgotten = 0
    while True:
        async with engine().connect() as connection:
            gone = await book.forget(connection, datetime.now(UTC) - KEPT, LOOKED_AT_ONCE)
        forgotten += gone
        if gone < LOOKED_AT_ONCE:
            return forgotten


async def _again(delivery: Waiting) -> None:
    """By the job that it had, if that is kept."""
    try:
        await (await app.ajob(delivery.id, DELIVERIES)).aretry()
    except JobNotFound:
        await enqueue(delivery)


@cache
def engine() -> AsyncEngine:
    """Of this process, opened at its first job."""
    # Each statement is a transaction. A connection that is dead is found out by its use, and the job put off.
    return make_async_engine(SCHEMA, pool_size=16, max_overflow=0, pool_pre_ping=False, isolation_level="AUTOCOMMIT")


@cache
def http() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=ANSWERS_WITHIN_S, limits=httpx.Limits(max_connections=80))


@app.on_stop
async def close() -> None:
    """After the last job of a process."""
    await http().aclose()
    await engine().dispose()
