"""Jobs enqueued in a database's transaction: there if it is committed, once each, whatever relay is killed when."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import redis
import sqlalchemy
from click.testing import CliRunner
from scenario_lab import until
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from headrace import Headrace, Job, JobExists, JobNotFound, UsageError
from headrace.cli.main import command
from headrace.core.record import decode
from headrace.engine import ops
from headrace.engine.keys import queue_keys
from headrace.outbox import create_tables
from headrace.relay import problems, relay_once, take_back, waiting

ENQUEUE = "note.take"


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found


@pytest.fixture(params=["postgresql", "sqlite"])
def shop(request: pytest.FixtureRequest) -> str:
    """The URL of a database with an outbox."""
    if request.param == "postgresql":
        found = str(request.getfixturevalue("database"))
    else:
        found = "sqlite:///" + request.getfixturevalue("sqlite_path")
    with connected(found) as connection:
        create_tables(connection)
    return found


@pytest.fixture
def pg_shop(database: str) -> str:
    with connected(database) as connection:
        create_tables(connection)
    return database


@contextmanager
def connected(url: str) -> Iterator[Any]:
    connection: Any = (
        sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)
        if url.startswith("sqlite")
        else psycopg.connect(url)
    )
    with closing(connection):
        yield connection


def put(app: Headrace, shop: str, count: int, **options: Any) -> list[Job[Any]]:
    """Commit so many jobs to the outbox, in one transaction."""
    with connected(shop) as connection:
        outbox = app.outbox(connection).options(**options)
        jobs = [outbox.enqueue(ENQUEUE, number) for number in range(count)]
        connection.commit()
    return jobs


def rows_of(shop: str, app: Headrace) -> int:
    with connected(shop) as connection:
        return waiting(connection, app.prefix)


def relay_all(app: Headrace, shop: str) -> int:
    """Relay until there is nothing, in this process; how many were sent."""
    sent = 0
    with connected(shop) as connection:
        while not (done := relay_once(connection, app)).is_idle:
            sent += done.sent
    return sent


def end_all(app: Headrace, queue: str = "default") -> list[str]:
    """Claim every job there is and end it so that nothing is kept of it: the ids, as often as they were claimed."""
    keys, ids = [queue_keys(queue)], []
    app.client.run(ops.open_session(keys, "t", 60_000, split=False))
    while claims := app.client.run(ops.claim(keys, "t", 256, split=False)).claims:
        ids += [claim.id for claim in claims]
        ended = [ops.Settlement(queue, claim.id, ops.Kind.DROPPED, b"\xc4\x01\xc0") for claim in claims]
        assert [] == app.client.run(ops.settle(keys, "t", ended, split=False)).lost
    app.client.run(ops.close_session(keys, "t", split=False))
    return ids


def forget_leases(shop: str) -> None:
    """As if the time of every batch under way were up."""
    with connected(shop) as connection:
        if not isinstance(connection, sqlite3.Connection):
            # In the order in which relays lock rows.
            connection.execute("SELECT seq FROM headrace_outbox WHERE batch IS NOT NULL ORDER BY seq FOR UPDATE")
        connection.execute("UPDATE headrace_outbox SET retry_at_ms = 0 WHERE batch IS NOT NULL")
        connection.commit()


def start_relay(app: Headrace, shop: str, *args: str, **environment: str) -> subprocess.Popen[str]:
    known = {"HEADRACE_URL": app.server_config.url, "HEADRACE_DATABASE": shop, "PYTHONWARNINGS": "error"}
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", "outbox", "relay", "--every", "0.02", *args],
        env={**os.environ, **known, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


# In the caller's transaction


def test_a_job_is_there_if_its_transaction_is_committed(app: Headrace, shop: str) -> None:
    """Rolled back, it never was; committed, the relay brings it as it was enqueued, once."""
    with connected(shop) as connection:
        gone = app.outbox(connection).enqueue(ENQUEUE, 1)
        connection.rollback()
        job = app.outbox(connection).options(queue="low", priority=3, tags=["a"]).enqueue(ENQUEUE, 2, by="hand")
        with pytest.raises(JobNotFound):
            job.refresh()
        connection.commit()
        assert [1, 0] == [relay_once(connection, app).sent for _ in range(2)]
    job.refresh()
    assert ("low", [2], {"by": "hand"}, 3, ["a"]) == (job.queue, job.args, job.kwargs, job.priority, list(job.tags))
    with pytest.raises(JobNotFound):
        gone.refresh()
    assert 0 == rows_of(shop, app)


def test_sessions_and_connections_of_sqlalchemy_carry_it(app: Headrace, pg_shop: str) -> None:
    engine = sqlalchemy.create_engine(
        pg_shop.replace("postgresql://", "postgresql+psycopg://"), poolclass=sqlalchemy.NullPool
    )
    with Session(engine) as session, session.begin():
        app.outbox(session).enqueue(ENQUEUE, 1)
    with engine.connect() as connection:
        app.outbox(connection).enqueue(ENQUEUE, 2)
        connection.rollback()
        app.outbox(connection).enqueue(ENQUEUE, 3)
        connection.commit()
    with engine.connect() as connection:
        assert 2 == relay_once(connection, app).sent
    assert 2 == len(end_all(app))


def test_async_connections_carry_it(app: Headrace, pg_shop: str) -> None:
    """psycopg's, and SQLAlchemy's; each way has its own connections."""

    async def enqueue_some() -> None:
        async with await psycopg.AsyncConnection.connect(pg_shop) as connection:
            await app.outbox(connection).aenqueue(ENQUEUE, 1)
            with pytest.raises(UsageError, match="async"):
                app.outbox(connection).enqueue(ENQUEUE, 2)
        engine = create_async_engine(pg_shop.replace("postgresql://", "postgresql+psycopg://"))
        async with AsyncSession(engine) as session, session.begin():
            await app.outbox(session).options(delay=0).aenqueue(ENQUEUE, 3)
        await engine.dispose()

    asyncio.run(enqueue_some())
    assert 2 == relay_all(app, pg_shop)
    assert 2 == len(end_all(app))


DJANGO = """
import sys
import django
from django.conf import settings

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}})
django.setup()
from django.db import transaction
from headrace import Headrace, UsageError
from headrace.outbox import create_tables
from headrace.relay import relay_once

create_tables("default")
app = Headrace(sys.argv[2])
try:
    app.outbox("default").enqueue("note.take", 0)
except UsageError as error:
    print("atomic" in str(error))
try:
    with transaction.atomic():
        app.outbox("default").enqueue("note.take", 1)
        raise KeyError
except KeyError:
    pass
with transaction.atomic():
    app.outbox("default").enqueue("note.take", 2)
print(relay_once("default", app).sent)
"""


def test_django_databases_carry_it_by_their_alias(app: Headrace, sqlite_path: str) -> None:
    """Within transaction.atomic(); outside of it, where each statement is committed, it is refused."""
    program = [sys.executable, "-c", DJANGO, sqlite_path, app.server_config.url]
    done = subprocess.run(program, capture_output=True, text=True)
    assert ("True\n1\n", 0) == (done.stdout, done.returncode), done.stderr
    assert 1 == len(end_all(app))


def test_connections_that_commit_by_themselves_are_refused(app: Headrace, pg_shop: str, sqlite_path: str) -> None:
    """There the job would be there without what was to come with it. In a transaction they are fine."""
    with psycopg.connect(pg_shop, autocommit=True) as connection:
        with pytest.raises(UsageError, match="autocommit=True"):
            app.outbox(connection).enqueue(ENQUEUE, 1)
        with connection.transaction():
            app.outbox(connection).enqueue(ENQUEUE, 2)
    with (
        closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other,
        pytest.raises(UsageError, match="isolation_level=None"),
    ):
        app.outbox(other).enqueue(ENQUEUE, 3)
    assert 1 == relay_all(app, pg_shop)
    assert 1 == len(end_all(app))


def test_a_relay_refuses_the_callers_transaction(app: Headrace, shop: str) -> None:
    """It would commit it."""
    with connected(shop) as connection:
        app.outbox(connection).enqueue(ENQUEUE, 1)
        with pytest.raises(UsageError, match="its own transactions"):
            relay_once(connection, app)


def test_delays_and_lifetimes_count_from_the_call(app: Headrace, shop: str) -> None:
    """Not from when the relay comes to it."""
    before_ms = time.time() * 1000
    (late,) = put(app, shop, 1, delay=3600, expires=7200)
    at = datetime.now(UTC) + timedelta(hours=5)
    (fixed,) = put(app, shop, 1, at=at)
    after_ms = time.time() * 1000
    relay_all(app, shop)
    look = app.client.run(ops.look(queue_keys("default"), late.id))
    assert look is not None and look.due_ms is not None
    assert before_ms - 1 <= look.due_ms - 3_600_000 <= after_ms + 1
    assert before_ms - 1 <= decode(look.record).expires_at_ms - 7_200_000 <= after_ms + 1
    other = app.client.run(ops.look(queue_keys("default"), fixed.id))
    assert other is not None and other.due_ms == round(at.timestamp() * 1000)


def test_a_chosen_id_is_one_job(app: Headrace, shop: str) -> None:
    """Twice in the outbox it is JobExists at once, and the transaction goes on; one that is on the server is left alone."""
    with connected(shop) as connection:
        outbox = app.outbox(connection).options(job_id="book-7")
        outbox.enqueue(ENQUEUE, 1)
        with pytest.raises(JobExists, match="book-7"):
            outbox.enqueue(ENQUEUE, 2)
        app.outbox(connection).enqueue(ENQUEUE, 3)
        connection.commit()
        first = relay_once(connection, app)
        app.outbox(connection).options(job_id="book-7").enqueue(ENQUEUE, 4)
        app.outbox(connection).enqueue(ENQUEUE, 5)
        connection.commit()
        second = relay_once(connection, app)
    assert [(2, 0), (2, 1)] == [(done.sent, done.known) for done in (first, second)]
    assert [1] == app.job("book-7").args
    assert 3 == len(end_all(app))


def test_apps_with_another_prefix_leave_each_others_rows(app: Headrace, url: str, shop: str) -> None:
    with Headrace(url, prefix="other") as other:
        put(app, shop, 2)
        assert 0 == relay_all(other, shop)
        assert 2 == relay_all(app, shop)


# What cannot go


def test_a_row_that_cannot_be_read_is_set_aside_and_shown(app: Headrace, shop: str) -> None:
    """The others of its batch go; mended, it goes as well."""
    jobs = put(app, shop, 3)
    with connected(shop) as connection:
        (body,) = connection.execute("SELECT body FROM headrace_outbox ORDER BY seq LIMIT 1").fetchone()
        connection.execute("UPDATE headrace_outbox SET body = substr(body, 1, 9) WHERE seq = 1")
        connection.commit()
        done = relay_once(connection, app)
        assert (done.sent, done.set_aside) == (2, 1)
        assert relay_once(connection, app).is_idle
        (found,) = problems(connection, app.prefix)
        assert (found["id"], found["is_set_aside"]) == (jobs[0].id, True)
        assert "cannot be read" in found["problem"]
        connection.execute(
            f"UPDATE headrace_outbox SET body = {'?' if isinstance(connection, sqlite3.Connection) else '%s'}", (body,)
        )
        connection.commit()
        assert 1 == take_back(connection, app.prefix)
        assert 1 == relay_once(connection, app).sent
    assert sorted(job.id for job in jobs) == sorted(end_all(app))


def test_a_queue_that_takes_nothing_holds_up_no_other(app: Headrace, url: str, shop: str) -> None:
    """Its rows are shown with the reason, and go when it takes them again."""
    put(app, shop, 2, queue="broken")
    put(app, shop, 2)
    with closing(redis.Redis.from_url(url)) as server, connected(shop) as connection:
        server.set(queue_keys("broken").jobs, "not ours")
        done = relay_once(connection, app)
        assert (done.sent, done.put_off) == (2, 2)
        assert relay_once(connection, app).is_idle
        assert ["broken", "broken"] == [row["queue"] for row in problems(connection, app.prefix)]
        server.delete(queue_keys("broken").jobs)
        forget_leases(shop)
        assert 2 == relay_once(connection, app).sent
    assert 2 == len(end_all(app, "broken"))


def test_what_is_not_confirmed_as_durable_stays_and_is_one_job(app: Headrace, shop: str) -> None:
    """A server without a disk cannot confirm "fsync": the row waits for one that can, the job is there once."""
    (job,) = put(app, shop, 1, durability="fsync")
    for _ in range(2):
        with connected(shop) as connection:
            assert 1 == relay_once(connection, app).put_off
            assert "fsync" in problems(connection, app.prefix)[0]["problem"]
        forget_leases(shop)
    assert [job.id] == end_all(app)


# Killed, and many at once


HOLD_DELETES = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM {}; RETURN NULL; END $$;
CREATE TRIGGER hold BEFORE DELETE ON headrace_outbox FOR EACH STATEMENT EXECUTE FUNCTION hold();
"""


@pytest.mark.parametrize("has_run", [False, True], ids=["and-its-jobs-wait", "and-nothing-is-left-of-its-jobs"])
def test_a_relay_killed_before_it_deletes_makes_no_second_job(app: Headrace, pg_shop: str, has_run: bool) -> None:
    """SIGKILL when the server has the jobs and the rows are still there: the next relay's call is known by its number."""
    jobs = put(app, pg_shop, 3)
    ended: list[str] = []
    with psycopg.connect(pg_shop, autocommit=True) as admin:
        admin.execute(HOLD_DELETES.format("pg_advisory_xact_lock_shared(7)"))
        admin.execute("SELECT pg_advisory_lock(7)")
        killed = start_relay(app, pg_shop)
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        until(lambda: admin.execute(waits).fetchone() == (1,), what="the relay's DELETE")
        killed.kill()
        killed.communicate(timeout=30)
        admin.execute("SELECT pg_advisory_unlock(7)")
        until(lambda: admin.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,))
    assert 3 == rows_of(pg_shop, app)
    if has_run:
        ended = end_all(app)
        assert 3 == len(ended)
    forget_leases(pg_shop)
    second = start_relay(app, pg_shop, "--once")
    told, complaints = second.communicate(timeout=60)
    assert (second.returncode, told) == (0, "3 sent, 0 set aside, 0 put off\n"), complaints
    assert 0 == rows_of(pg_shop, app)
    assert sorted(job.id for job in jobs) == sorted(ended + end_all(app))


@pytest.mark.parametrize("phase", ["before_send", "after_send", "after_reply"])
@pytest.mark.parametrize("script", ["announce", "enqueue"])
def test_a_relay_that_dies_at_a_round_trip_leaves_its_rows_to_the_next(
    app: Headrace, sqlite_path: str, script: str, phase: str
) -> None:
    """Before the call, with the call under way, and with the answer in hand; whatever has run meanwhile is forgotten."""
    shop = f"sqlite:///{sqlite_path}"
    with connected(shop) as connection:
        create_tables(connection)
    jobs = put(app, shop, 2)
    first = start_relay(app, shop, "--once", HEADRACE_CRASH=f"{script}.{phase}")
    _, said = first.communicate(timeout=60)
    assert (first.returncode, f"dies at {script}.{phase}" in said) == (-9, True), said
    assert 2 == rows_of(shop, app)
    assert 0 == relay_all(app, shop)  # the batch is the dead one's until its time is up
    ended = end_all(app)
    forget_leases(shop)
    assert 2 == relay_all(app, shop)
    assert sorted(job.id for job in jobs) == sorted(ended + end_all(app))


@pytest.mark.long
def test_relays_killed_at_any_moment_bring_each_committed_job_once(app: Headrace, pg_shop: str) -> None:
    """Producers commit and roll back, three relays run, one of them is killed each few jobs; jobs end and are forgotten."""
    committed: set[str] = set()
    claimed: Counter[str] = Counter()
    lock = threading.Lock()

    def produce(seed: int) -> None:
        rng = random.Random(seed)
        with connected(pg_shop) as connection:
            for number in range(30):
                until(lambda: waiting(connection, app.prefix) < 60, timeout_s=120, what="room in the outbox")
                ids = {app.outbox(connection).enqueue(ENQUEUE, number).id for _ in range(rng.randint(1, 3))}
                if rng.random() < 0.3:
                    connection.rollback()
                    continue
                connection.commit()
                with lock:
                    committed.update(ids)

    with psycopg.connect(pg_shop, autocommit=True) as admin:
        # Each relay dwells between the server's answer and the end of its rows.
        admin.execute(HOLD_DELETES.format("pg_sleep(0.1)"))
        relays = [start_relay(app, pg_shop) for _ in range(3)]
        producers = [threading.Thread(target=produce, args=(seed,)) for seed in range(4)]
        for thread in producers:
            thread.start()
        rng = random.Random(1)
        ends = time.monotonic() + 120
        for _ in range(8):
            most = len(claimed) + rng.randint(1, 12)

            def moved(most: int = most) -> bool:
                claimed.update(end_all(app))
                return len(claimed) >= most or not any(thread.is_alive() for thread in producers)

            until(moved, timeout_s=60, what="jobs on the server")
            victim = relays.pop(0)
            victim.kill()
            victim.communicate(timeout=30)
            forget_leases(pg_shop)
            relays.append(start_relay(app, pg_shop))
        for thread in producers:
            thread.join(60)
        while rows_of(pg_shop, app):
            assert time.monotonic() < ends, "the outbox is not drained"
            forget_leases(pg_shop)
            claimed.update(end_all(app))
        for relay in relays:
            assert relay.stderr is not None and "relaying" in relay.stderr.readline()
            relay.send_signal(signal.SIGTERM)
        for relay in relays:
            said = relay.communicate(timeout=60)
            assert relay.returncode == 0, said
    claimed.update(end_all(app))
    assert Counter(committed) == claimed


def test_relays_side_by_side_share_the_rows(app: Headrace, shop: str) -> None:
    """Each job comes once; so it does when a batch is taken over from a relay that is only slow."""
    jobs = [job for queue in ("default", "low") for job in put(app, shop, 150, queue=queue)]
    unexpected: list[BaseException] = []

    def relay() -> None:
        try:
            with connected(shop) as connection:
                while rows_of(shop, app):
                    relay_once(connection, app, limit=7, lease_s=0)
        except BaseException as error:
            unexpected.append(error)

    threads = [threading.Thread(target=relay) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert unexpected == []
    assert Counter(job.id for job in jobs) == Counter(end_all(app) + end_all(app, "low"))


# The command


def test_the_relay_goes_on_after_a_lost_connection_and_ends_at_sigterm(app: Headrace, pg_shop: str) -> None:
    """The database ended its session: it says so, connects again, and brings what came meanwhile. TERM: exit code 0."""
    relay = start_relay(app, pg_shop)
    try:
        put(app, pg_shop, 1)
        until(lambda: not rows_of(pg_shop, app), what="the first job")
        with psycopg.connect(pg_shop, autocommit=True) as admin:
            ended = admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'headrace outbox'"
            ).fetchall()
        assert [(True,)] == ended
        put(app, pg_shop, 2)
        until(lambda: not rows_of(pg_shop, app), what="the jobs after it")
    finally:
        relay.send_signal(signal.SIGTERM)
        _, said = relay.communicate(timeout=60)
    assert relay.returncode == 0
    assert "headrace: the database: " in said
    assert "Traceback" not in said
    assert 3 == len(end_all(app))


def run_outbox(url: str, *args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(command, ["outbox", *args], env={"HEADRACE_URL": url})
    return done.exit_code, done.stdout, done.stderr


def test_its_commands_make_the_table_show_what_is_set_aside_and_retry_it(
    app: Headrace, url: str, sqlite_path: str
) -> None:
    shop = f"sqlite:///{sqlite_path}"
    where = ("--database", shop)
    code, _, said = run_outbox(url, "relay", "--once", *where)
    assert (code, "headrace_outbox" in said, "Traceback" in said) == (2, True, False)
    assert 0 == run_outbox(url, "init", *where)[0]
    (job,) = put(app, shop, 1)
    with connected(shop) as connection:
        connection.execute("UPDATE headrace_outbox SET durability = 'stone'")
        connection.commit()
    assert (0, "0 sent, 1 set aside, 0 put off\n") == run_outbox(url, "relay", "--once", *where)[:2]
    code, rows, said = run_outbox(url, "ls", *where)
    assert job.id in rows and "stone" in rows and "1 rows" in said
    with connected(shop) as connection:
        connection.execute("UPDATE headrace_outbox SET durability = 'memory'")
        connection.commit()
    assert 0 == run_outbox(url, "retry", *where)[0]
    assert "1 sent" in run_outbox(url, "relay", "--once", *where)[1]
    assert [job.id] == end_all(app)


@pytest.mark.parametrize("database", ["mysql://x", "shop.sqlite", "sqlite://", "postgresql://localhost:1/none"])
def test_a_database_that_is_none_is_told_in_one_line(url: str, database: str) -> None:
    code, _, said = run_outbox(url, "relay", "--once", "--database", database)
    assert (code, "Traceback" in said) == (2, False), said
