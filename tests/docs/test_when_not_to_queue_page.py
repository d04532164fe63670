"""The guide on when not to queue: its wrong ways go wrong, and its right ways hold, on a real PostgreSQL."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres_server import running_postgres

from headrace import Headrace, Job, ResultTimeout, State
from headrace.engine.admin import find_jobs
from headrace.engine.keys import queue_keys
from headrace.outbox import DDL
from headrace.relay import relay_once

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "when-not-to-queue.md", DOCS / "when-not-to-queue.vi.md"]
PEOPLE = 16
SLOW_S = 60.0


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text("utf8"), re.MULTILINE | re.DOTALL)


class Shop:
    """The program of the page, as the module `shop`, and its database."""

    def __init__(self, module: dict[str, Any], database: str, folder: Path, url: str) -> None:
        self.module = module
        self.database = database
        self.app: Headrace = module["app"]
        self._folder, self._url = folder, url

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database) as connection:
            return connection.execute(statement).fetchall()

    def at_once(self, ask: Callable[[psycopg.Connection, int], str]) -> list[str]:
        """What each of 16 people is told who ask at the same moment, on a connection each."""
        start = threading.Barrier(PEOPLE)

        def person(number: int) -> str:
            with psycopg.connect(self.database) as connection:
                start.wait(SLOW_S)
                return ask(connection, number)

        with ThreadPoolExecutor(PEOPLE) as people:
            return list(people.map(person, range(PEOPLE)))

    def relayed(self) -> list[tuple[str, list[Any]]]:
        """Bring the outbox to the server; the task and the arguments of each job there."""
        with psycopg.connect(self.database) as connection:
            while not relay_once(connection, self.app).is_idle:
                pass
        return [(job.task, job.args) for job in self.jobs()]

    def jobs(self) -> list[Job[Any]]:
        queued = find_jobs(queue_keys(self.app.default_queue), State.QUEUED)
        return [self.app.job(job_id) for job_id in self.app.client.run(queued)]

    def work(self) -> None:
        """Do all that is queued."""
        words = [sys.executable, "-m", "headrace", "worker", "-A", "shop:app", "--processes", "2", "--burst"]
        done = subprocess.run(
            words, cwd=self._folder, env={**os.environ, "HEADRACE_URL": self._url}, capture_output=True, text=True
        )
        assert 0 == done.returncode, done.stderr


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with running_postgres() as found:
        yield found


@pytest.fixture
def shop(database: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("HEADRACE_URL", url)
    source = "\n".join(blocks(PAGES[0]))
    (tmp_path / "shop.py").write_text(source, "utf8")
    module: dict[str, Any] = {"__name__": "shop"}
    exec(compile(source, str(PAGES[0]), "exec", dont_inherit=True), module)
    with psycopg.connect(database) as connection:
        connection.execute("DROP TABLE IF EXISTS seat, account, payment, headrace_outbox")
        connection.execute(module["TABLES"])
        connection.execute(DDL["postgresql"])
        connection.execute("INSERT INTO seat VALUES ('12A', NULL), ('12B', NULL)")
        connection.execute("INSERT INTO account VALUES (1, 1000)")
    yield Shop(module, database, tmp_path, url)
    module["app"].close()


def test_both_languages_show_the_same_code() -> None:
    english, vietnamese = (blocks(page) for page in PAGES)
    assert english == vietnamese
    assert 6 == len(english)


def test_a_booking_through_the_queue_tells_several_people_yes_and_all_but_one_of_them_no(shop: Shop) -> None:
    """Each is told "booked" for one seat, since nobody had written anything yet; the jobs then say no to all but one."""
    book = shop.module["book_through_the_queue"]
    told = shop.at_once(lambda connection, n: str(book(connection, shop.database, "12A", f"user {n}")))
    assert {"booked": PEOPLE} == Counter(told)
    jobs = shop.jobs()
    shop.work()
    became = Counter(job.result(SLOW_S) for job in jobs)
    assert {"booked": 1, "sorry, it is taken": PEOPLE - 1} == became


def test_a_booking_in_the_request_tells_one_person_yes_and_that_stays_so(shop: Shop) -> None:
    """Who was told "booked" has the seat, and the one ticket; the others were told "taken"."""
    book = shop.module["book"]
    told = shop.at_once(lambda connection, n: str(book(connection, "12A", f"user {n}")))
    assert {"booked": 1, "taken": PEOPLE - 1} == Counter(told)
    winner = f"user {told.index('booked')}"
    assert [(winner,), (None,)] == shop.rows("SELECT taken_by FROM seat ORDER BY name")
    assert [("shop.send_ticket", ["12A", winner])] == shop.relayed()
    shop.work()
    assert [(winner,), (None,)] == shop.rows("SELECT taken_by FROM seat ORDER BY name")


def test_a_booking_that_is_not_committed_sends_no_ticket(shop: Shop) -> None:
    """The process that booked is gone before the commit: the seat is free, and there is no job."""
    connection = psycopg.connect(shop.database)
    connection.execute("SELECT 1")  # the transaction is the caller's now
    assert "booked" == shop.module["book"](connection, "12B", "ann")
    connection.close()
    assert [(None,), (None,)] == shop.rows("SELECT taken_by FROM seat ORDER BY name")
    assert [] == shop.relayed()


def test_an_order_is_paid_once_however_often_the_button_is_pressed(shop: Shop) -> None:
    """Also when the money is enough for one time only: the second press is no refusal."""
    told = shop.at_once(lambda connection, _: str(shop.module["pay"](connection, "order 7", 1, 1000)))
    assert {"paid": PEOPLE} == Counter(told)
    assert [(0,)] == shop.rows("SELECT cents FROM account")
    assert [("shop.send_receipt", ["order 7"])] == shop.relayed()


def test_no_account_falls_below_zero(shop: Shop) -> None:
    """16 orders of 3 euros each on an account with 10: three are paid, the others refused and not written down."""
    told = shop.at_once(lambda connection, n: str(shop.module["pay"](connection, f"order {n}", 1, 300)))
    assert {"paid": 3, "not enough money": PEOPLE - 3} == Counter(told)
    paid = sorted(f"order {n}" for n, answer in enumerate(told) if answer == "paid")
    assert [(100,)] == shop.rows("SELECT cents FROM account")
    assert paid == sorted(order for (order,) in shop.rows("SELECT order_id FROM payment"))
    assert [("shop.send_receipt", [order]) for order in paid] == sorted(shop.relayed())


def test_a_page_through_the_queue_is_down_with_its_workers_and_a_kept_one_is_not(shop: Shop) -> None:
    """No worker runs: who waits for a job waits in vain. What is kept was built once for all who came together."""
    with pytest.raises(ResultTimeout):
        shop.module["front_page_through_the_queue"]()
    built = []
    kept = shop.module["Kept"](lambda: built.append(1) or "<h1>", 3600)
    with ThreadPoolExecutor(PEOPLE) as readers:
        assert {"<h1>"} == {future.result() for future in [readers.submit(kept) for _ in range(200)]}
    assert [1] == built
    assert shop.module["front_page"]().startswith("<h1>")
