"""A job's effect on a database happens once, with every driver, whatever runs twice, crashes, or comes late."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from headrace import StaleRun, UsageError, current_batch, current_job
from headrace.context import BatchContext, JobContext
from headrace.effects import create_tables, prune_effects

COUNT = "UPDATE account SET balance = balance + 1"
Opened = Callable[[], AbstractContextManager[Any]]


def run_of(job_id: str, fence: int) -> JobContext:
    return JobContext(job_id, "default", "pay", 1, fence)


class Driver:
    """One way to reach a database: `opened` gives what `effect` takes; `balance` looks from outside."""

    def __init__(self, opened: Opened, balance: Callable[[], int], count: Callable[[Any], None]) -> None:
        self.opened = opened
        self.balance = balance
        self.count = count


def psycopg_driver(url: str) -> Driver:
    with psycopg.connect(url) as connection:
        create_tables(connection)
        connection.execute("CREATE TABLE account (balance int)")
        connection.execute("INSERT INTO account VALUES (0)")

    def balance() -> int:
        with psycopg.connect(url) as connection:
            return int(connection.execute("SELECT balance FROM account").fetchone()[0])  # type: ignore[index]

    @contextmanager
    def opened() -> Iterator[Any]:
        with closing(psycopg.connect(url)) as connection:
            yield connection

    return Driver(opened, balance, lambda connection: connection.execute(COUNT))


def sqlite_driver(path: str) -> Driver:
    with closing(sqlite3.connect(path)) as connection:
        create_tables(connection)
        connection.executescript(
            "PRAGMA journal_mode = WAL; CREATE TABLE account (balance int); INSERT INTO account VALUES (0)"
        )

    def balance() -> int:
        with closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("SELECT balance FROM account").fetchone()[0])

    return Driver(
        lambda: closing(sqlite3.connect(path, timeout=30)), balance, lambda connection: connection.execute(COUNT)
    )


def sqlalchemy_driver(url: str, kind: str) -> Driver:
    base = psycopg_driver(url)
    engine = sqlalchemy.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sqlalchemy.NullPool
    )
    opened: Opened = (lambda: Session(engine)) if kind == "session" else engine.connect
    return Driver(opened, base.balance, lambda target: target.execute(sqlalchemy.text(COUNT)))


@pytest.fixture(params=["psycopg", "sqlite", "session", "connection"])
def driver(request: pytest.FixtureRequest) -> Driver:
    if request.param == "sqlite":
        return sqlite_driver(request.getfixturevalue("sqlite_path"))
    url = request.getfixturevalue("database")
    return psycopg_driver(url) if request.param == "psycopg" else sqlalchemy_driver(url, request.param)


def test_the_second_run_finds_what_the_first_has_done(driver: Driver) -> None:
    """It gets the result that was kept, and what it writes all the same is undone."""
    with driver.opened() as target, run_of("a", 5).effect(target) as effect:
        assert not effect.is_done
        driver.count(target)
        effect.set_result({"paid": [1, "x"]})
    assert driver.balance() == 1
    with driver.opened() as target, run_of("a", 6).effect(target) as effect:
        assert (effect.is_done, effect.result) == (True, {"paid": [1, "x"]})
        driver.count(target)
    assert driver.balance() == 1


def test_what_fails_leaves_nothing_and_may_be_tried_again(driver: Driver) -> None:
    with pytest.raises(KeyError), driver.opened() as target, run_of("a", 5).effect(target):
        driver.count(target)
        raise KeyError("half-way")
    assert driver.balance() == 0
    with driver.opened() as target, run_of("a", 5).effect(target) as effect:
        assert not effect.is_done
        driver.count(target)
    assert driver.balance() == 1


def test_the_callers_own_transaction_is_left_to_the_caller(driver: Driver) -> None:
    """Rolled back by who opened it, the effect has not happened."""
    with driver.opened() as target:
        driver.count(target)  # opens a transaction
        with run_of("a", 5).effect(target):
            driver.count(target)
        target.rollback()
    assert driver.balance() == 0
    with driver.opened() as target:
        driver.count(target)
        with run_of("a", 6).effect(target) as effect:
            assert not effect.is_done
            driver.count(target)
        target.commit()
    assert driver.balance() == 2


def test_outside_of_a_job_it_is_just_a_transaction(driver: Driver) -> None:
    """So that a task can be called plainly."""
    for _ in range(2):
        with driver.opened() as target, current_job().effect(target) as effect:
            assert not effect.is_done
            driver.count(target)
    assert driver.balance() == 2
    assert current_job().idempotency_key == ""


def test_racing_runs_have_one_effect_each(driver: Driver) -> None:
    """Many runs with several fences at once, some of which break down before they commit; then one more of each."""
    jobs = [f"job-{n}" for n in range(20)]
    rng = random.Random(7)
    runs = [(job, fence, rng.random() < 0.3) for job in jobs for fence in (1, 2, 3)]
    rng.shuffle(runs)
    unexpected: list[BaseException] = []

    def run_some(part: list[tuple[str, int, bool]]) -> None:
        for job, fence, breaks in part:
            try:
                with driver.opened() as target, run_of(job, fence).effect(target) as effect:
                    if not effect.is_done:
                        driver.count(target)
                        if breaks:
                            raise KeyError("broke down")
            except (KeyError, StaleRun):
                continue
            except BaseException as error:
                unexpected.append(error)

    threads = [threading.Thread(target=run_some, args=(runs[n::6],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unexpected == []
    run_some([(job, 4, False) for job in jobs])
    assert driver.balance() == len(jobs)


def test_a_zombie_waits_for_the_newer_run_and_is_told(database: str) -> None:
    """It comes to the row while the newer run has it; then it finds the effect done, or, where it is not, is refused."""
    driver = psycopg_driver(database)
    with driver.opened() as newer, driver.opened() as zombie:
        pause, outcome = threading.Event(), []

        def late() -> None:
            try:
                with run_of("a", 7).effect(zombie) as found:
                    outcome.append((found.is_done, found.result))
            except StaleRun as error:
                outcome.append(str(error))

        with run_of("a", 8).effect(newer) as effect:
            effect.set_result(1)
            thread = threading.Thread(target=late)
            thread.start()
            # It waits in the database for this row: seen from a third connection.
            with psycopg.connect(database, autocommit=True) as third:
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                ends = time.monotonic() + 20
                while not third.execute(waiting).fetchone()[0] and time.monotonic() < ends:  # type: ignore[index]
                    pause.wait(0.01)
        thread.join(20)
        assert outcome == [(True, 1)]
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO headrace_effect (job, fence, at_ms) VALUES ('default/c', 9, 0)")
    with driver.opened() as target, pytest.raises(StaleRun, match="newer run"), run_of("c", 8).effect(target):
        pass


KILLED = """
import os, signal, sys
import psycopg
from headrace.context import BatchContext, JobContext

with psycopg.connect(sys.argv[1]) as connection, JobContext("a", "default", "pay", 1, int(sys.argv[2])).effect(connection):
    connection.execute("UPDATE account SET balance = balance + 1")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_before_its_commit_leaves_no_effect(database: str) -> None:
    driver = psycopg_driver(database)
    for fence in (1, 2, 3):
        assert -9 == subprocess.run([sys.executable, "-c", KILLED, database, str(fence)]).returncode
    assert driver.balance() == 0
    with driver.opened() as target, run_of("a", 4).effect(target) as effect:
        assert not effect.is_done
        driver.count(target)
    assert driver.balance() == 1


def test_async_connections_have_the_same(database: str) -> None:
    """psycopg's, and SQLAlchemy's."""
    driver = psycopg_driver(database)

    async def with_psycopg(fence: int) -> bool:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            async with run_of("a", fence).aeffect(connection) as effect:
                if not effect.is_done:
                    await connection.execute(COUNT)
            return effect.is_done

    async def with_sqlalchemy(fence: int) -> bool:
        engine = create_async_engine(database.replace("postgresql://", "postgresql+psycopg://"))
        async with engine.connect() as connection, run_of("b", fence).aeffect(connection) as effect:
            if not effect.is_done:
                await connection.execute(sqlalchemy.text(COUNT))
        await engine.dispose()
        return effect.is_done

    async def fails() -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection, run_of("c", 1).aeffect(connection):
            await connection.execute(COUNT)
            raise KeyError

    for way in (with_psycopg, with_sqlalchemy):
        assert [False, True] == [asyncio.run(way(fence)) for fence in (1, 2)]
    with pytest.raises(KeyError):
        asyncio.run(fails())
    assert driver.balance() == 2


DJANGO = """
import sys
import django
from django.conf import settings

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}})
django.setup()
from django.db import connection
from headrace.context import BatchContext, JobContext
from headrace.effects import create_tables

create_tables("default")
with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE account (balance int)")
    cursor.execute("INSERT INTO account VALUES (0)")
for fence, breaks in ((1, True), (2, False), (3, False)):
    try:
        with JobContext("a", "default", "pay", 1, fence).effect("default") as effect:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE account SET balance = balance + 1")
            effect.set_result(fence)
            if breaks:
                raise KeyError
    except KeyError:
        pass
with connection.cursor() as cursor:
    cursor.execute("SELECT balance FROM account")
    print(cursor.fetchone()[0], effect.is_done, effect.result)
"""


def test_django_databases_go_by_their_alias(sqlite_path: str) -> None:
    done = subprocess.run([sys.executable, "-c", DJANGO, sqlite_path], capture_output=True, text=True)
    assert ("1 True 3\n", 0) == (done.stdout, done.returncode), done.stderr


def test_connections_that_commit_by_themselves_are_refused(database: str, sqlite_path: str) -> None:
    """What is written there could not be undone."""
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(UsageError, match="autocommit=True"), run_of("a", 1).effect(connection):
            pass
        create = connection.transaction()
        with create:
            create_tables(connection)
            with run_of("a", 1).effect(connection) as effect:
                assert not effect.is_done
    with (
        closing(sqlite3.connect(sqlite_path, isolation_level=None)) as connection_,
        pytest.raises(UsageError, match="isolation_level=None"),
        run_of("a", 1).effect(connection_),
    ):
        pass


@pytest.mark.parametrize("target", [object(), None, 3])
def test_what_is_no_connection_is_refused(target: object) -> None:
    with pytest.raises(UsageError, match="psycopg 3 or sqlite3"), run_of("a", 1).effect(target):
        pass


def test_old_effects_are_forgotten_some_at_a_time(driver: Driver) -> None:
    for number in range(5):
        with driver.opened() as target, run_of(f"a{number}", 1).effect(target):
            pass
    with driver.opened() as target:
        assert [0, 2, 3] == [
            prune_effects(target, older_than_s=3600),
            prune_effects(target, older_than_s=-1, limit=2),
            prune_effects(target, older_than_s=-1),
        ]


def test_an_error_caught_outside_of_the_block_leaves_none_of_it(driver: Driver) -> None:
    """The transaction is the caller's and is committed all the same: what the block wrote is not in it."""
    for fence in (1, 2):
        with driver.opened() as target:
            driver.count(target)
            with pytest.raises(KeyError), run_of("a", fence).effect(target):
                driver.count(target)
                raise KeyError
            target.commit()
    assert driver.balance() == 2


def test_a_block_that_the_caller_ends_is_an_error(driver: Driver) -> None:
    """What is committed inside of it would be there without its note."""
    for number, opens_first in enumerate((False, True)):
        with driver.opened() as target:
            if opens_first:
                driver.count(target)
            with pytest.raises(Exception, match=r"(?i)transaction"), run_of(f"a{number}", 1).effect(target):
                driver.count(target)
                target.commit()


def test_rows_that_are_dicts_are_read_as_well(database: str, sqlite_path: str) -> None:
    """A connection's row factory is its owner's choice."""
    psycopg_driver(database)
    sqlite_driver(sqlite_path)

    def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
        return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}

    for path in (database, sqlite_path):
        for fence in (2, 3, 1):
            opened: Any = (
                psycopg.connect(path, row_factory=psycopg.rows.dict_row) if path is database else sqlite3.connect(path)
            )
            with closing(opened) as connection:
                if path is sqlite_path:
                    connection.row_factory = as_dict
                with run_of("a", fence).effect(connection) as effect:
                    assert (effect.is_done, effect.result) == ((False, None) if fence == 2 else (True, {"n": 2}))
                    effect.set_result({"n": fence})


@pytest.mark.parametrize("where", ["engine", "connection", "session"])
def test_sqlalchemy_in_autocommit_is_refused_however_it_was_told(database: str, where: str) -> None:
    """By the engine, by an option of the connection, or by the engine of a Session."""
    driver = psycopg_driver(database)
    url = database.replace("postgresql://", "postgresql+psycopg://")
    plain = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    auto = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
    opened: dict[str, Callable[[], Any]] = {
        "engine": auto.connect,
        "connection": lambda: plain.connect().execution_options(isolation_level="AUTOCOMMIT"),
        "session": lambda: Session(plain.execution_options(isolation_level="AUTOCOMMIT")),
    }
    with (
        closing(opened[where]()) as target,
        pytest.raises(UsageError, match="by itself"),
        run_of("a", 1).effect(target),
    ):
        target.execute(sqlalchemy.text(COUNT))
    assert driver.balance() == 0


def test_sqlalchemy_on_sqlite_leaves_the_transaction_to_the_caller(sqlite_path: str) -> None:
    """Also when the caller has only read until then, and the driver has begun nothing."""
    driver = sqlite_driver(sqlite_path)
    engine = sqlalchemy.create_engine(f"sqlite:///{sqlite_path}", poolclass=sqlalchemy.NullPool)
    for end, expected in (("rollback", 0), ("commit", 1), ("commit", 1)):
        with closing(Session(engine)) as session:
            session.execute(sqlalchemy.text("SELECT 1"))
            with run_of("a", 1).effect(session) as effect:
                session.execute(sqlalchemy.text(COUNT))
            getattr(session, end)()
        assert driver.balance() == expected
    assert effect.is_done


def batch_of(jobs: list[str], fence: int) -> BatchContext:
    return BatchContext("pay", [run_of(job, fence) for job in jobs])


def test_a_batch_has_the_effects_that_are_not_had_yet(driver: Driver) -> None:
    """Those of earlier runs and of newer ones are left out, whatever batch they were in; a call passed over stays open."""
    items = ["a", "b", "c", "d"]
    with driver.opened() as target, run_of("b", 1).effect(target):
        driver.count(target)
    with driver.opened() as target, batch_of(items, 5).effects(target) as effects:
        assert [0, 2, 3] == effects.pending(items)
        effects.skip(3)
        assert [0, 2] == effects.pending(items)
        for _ in effects.pending(items):
            driver.count(target)
    assert driver.balance() == 3
    with driver.opened() as target, batch_of(["d", "e", "a"], 4).effects(target) as effects:
        assert [1] == effects.pending("dea")  # a newer run has begun with "d"
        driver.count(target)
    with driver.opened() as target, batch_of(items, 6).effects(target) as effects:
        assert [3] == effects.pending(items)
        driver.count(target)
    with driver.opened() as target, batch_of(items, 7).effects(target) as effects:
        assert [] == effects.pending(items)
        driver.count(target)  # is undone, since nothing was to be had
    assert driver.balance() == 5


def test_a_batch_that_breaks_down_leaves_nothing(driver: Driver) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), driver.opened() as target, batch_of(["a", "b"], 1).effects(target) as effects:
            assert [0, 1] == effects.pending("ab")
            driver.count(target)
            raise KeyError("half-way")
    assert driver.balance() == 0


def test_the_largest_batch_is_one_statement_to_begin_and_one_to_finish(driver: Driver) -> None:
    """A thousand calls of several claims, whose fences differ."""
    jobs = [run_of(f"job-{n}", n // 100 + 1) for n in range(1_000)]
    for expected in (1_000, 0):
        with driver.opened() as target, BatchContext("pay", jobs).effects(target) as effects:
            assert expected == len(effects.pending(jobs))
            if expected:
                driver.count(target)
    assert driver.balance() == 1


def test_racing_batches_have_one_effect_for_each_call(driver: Driver) -> None:
    """Overlapping batches in different orders at once wait for each other and never for ever; some break down."""
    jobs = [f"job-{n}" for n in range(30)]
    rng = random.Random(11)
    runs = [(rng.sample(jobs, 10), fence, rng.random() < 0.3) for fence in range(1, 31)]
    unexpected: list[BaseException] = []

    def run_some(part: list[tuple[list[str], int, bool]]) -> None:
        for names, fence, breaks in part:
            try:
                with driver.opened() as target, batch_of(names, fence).effects(target) as effects:
                    for _ in effects.pending(names):
                        driver.count(target)
                    if breaks:
                        raise KeyError("broke down")
            except KeyError:
                continue
            except BaseException as error:
                unexpected.append(error)

    threads = [threading.Thread(target=run_some, args=(runs[n::5],)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unexpected == []
    run_some([(jobs, 99, False)])
    assert unexpected == []
    assert driver.balance() == len(jobs)


def test_a_batch_must_ask_for_which_calls_it_is(driver: Driver) -> None:
    """Else it would write for calls whose effect was had; nothing is committed."""
    with driver.opened() as target:
        with pytest.raises(UsageError, match="pending"), batch_of(["a"], 1).effects(target):
            driver.count(target)
        with (
            pytest.raises(UsageError, match="2 items, where the batch has 1"),
            batch_of(["a"], 1).effects(target) as effects,
        ):
            effects.pending(["a", "b"])
    assert driver.balance() == 0


def test_a_plain_call_of_a_batch_task_has_all_effects(driver: Driver) -> None:
    """No job runs: nothing is noted."""
    for _ in range(2):
        with driver.opened() as target, current_batch().effects(target) as effects:
            assert [0, 1] == effects.pending(["a", "b"])
            effects.skip(0)
            assert [1] == effects.pending(["a", "b"])
            driver.count(target)
    assert driver.balance() == 2


def test_batches_have_it_on_async_connections(database: str) -> None:
    driver = psycopg_driver(database)

    async def run(names: list[str], fence: int) -> list[int]:
        opened = await psycopg.AsyncConnection.connect(database)
        async with opened as connection, batch_of(names, fence).aeffects(connection) as effects:
            for _ in effects.pending(names):
                await connection.execute(COUNT)
            return effects.pending(names)

    assert [0, 1] == asyncio.run(run(["a", "b"], 1))
    assert [2] == asyncio.run(run(["b", "a", "c"], 2))
    assert driver.balance() == 3
