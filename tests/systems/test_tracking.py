"""The tracking system: its web server and workers as processes, on a real PostgreSQL and a real Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from headrace import Headrace, State
from headrace.server import EmbeddedServer
from systems.common.database import make_engine, upgrade
from systems.common.load import Load
from systems.common.postgres import EmbeddedPostgres
from systems.common.programs import ROOT, Program, running, until, web_server, worker
from systems.tracking.events import View
from systems.tracking.models import SCHEMA, Base
from systems.tracking.tasks import QUEUE

MIGRATIONS = ROOT / "systems/tracking/migrations"
TABLES = "page_view, page_minute, headrace_effect"
SLOW_S = 60.0


class Lab:
    """The system, and what is in its tables."""

    def __init__(self, http: httpx.Client, environment: dict[str, str], folder: Path) -> None:
        self.http = http
        self.app = Headrace(environment["HEADRACE_URL"])
        self.environment = environment
        self._folder = folder

    def send(self, page: str = "/start", **more: Any) -> str:
        """The id of an accepted view."""
        answer = self.http.post("/t", json={"page": page, "visitor": "ann", **more})
        assert 202 == answer.status_code, answer.text
        return str(answer.json()["id"])

    @contextmanager
    def worker(self, *arguments: str) -> Iterator[Program]:
        arguments = ("--processes", "1", "--log-level", "warning", *arguments)
        log = self._folder / f"worker-{uuid.uuid4().hex}.log"
        app = "systems.tracking.tasks:app"
        with worker(app, *arguments, log=log, environment=self.environment) as program:
            yield program

    def work(self) -> None:
        """Do all that is there."""
        with self.worker("--burst") as program:
            assert 0 == program.process.wait(SLOW_S), program.said

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.environment["DATABASE_URL"], options=f"-csearch_path={SCHEMA}") as connection:
            return connection.execute(statement).fetchall()

    def stored(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT id FROM page_view ORDER BY id")]

    def wait_until_stored(self, ids: list[str]) -> None:
        """These, no other, and each once: in the rows and in the counts."""
        until(lambda: len(self.stored()) >= len(ids), SLOW_S, f"{len(ids)} views, {len(self.stored())} are stored")
        assert sorted(ids) == self.stored()
        assert [(len(ids),)] == self.rows("SELECT sum(views)::int FROM page_minute")

    @contextmanager
    def load(self, rate: float) -> Iterator[Load]:
        """Views are sent all the while, each with a visitor of its own."""
        load = Load(str(self.http.base_url), "/t", _body, connections=20, rate=rate)
        thread = threading.Thread(target=lambda: asyncio.run(load.run()))
        thread.start()
        try:
            yield load
        finally:
            load.stop()
            thread.join()


def _body(number: int) -> bytes:
    return json.dumps({"page": f"/{number % 7}", "visitor": f"v{number}"}).encode()


def accepted(load: Load) -> list[str]:
    """The ids that were answered; the load is over."""
    assert {202} == {answer.status for answer in load.answers}
    return [json.loads(answer.body)["id"] for answer in load.answers]


def wait_for_more(load: Load, number: int) -> None:
    wanted = len(load.answers) + number
    until(lambda: len(load.answers) >= wanted, SLOW_S, f"{number} answers more")


@pytest.fixture(scope="session")
def tracking_web(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    upgrade(SCHEMA, MIGRATIONS)
    log = tmp_path_factory.mktemp("tracking") / "web.log"
    with web_server("systems.tracking.web:web", log=log, environment=environment) as (_, url):
        yield url


@pytest.fixture
def lab(tracking_web: str, url: str, environment: dict[str, str], tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=tracking_web, timeout=SLOW_S))
        lab = Lab(http, environment, tmp_path)
        stack.enter_context(lab.app)
        with psycopg.connect(environment["DATABASE_URL"], options=f"-csearch_path={SCHEMA}") as connection:
            connection.execute(f"TRUNCATE {TABLES}")
        yield lab


def test_a_view_is_stored_as_it_was_seen(lab: Lab) -> None:
    """By POST and by an image, with who looked, from where, with what and when; the page of figures shows them."""
    began = datetime.now(UTC)
    sent = {"page": "/prices", "visitor": "ann", "referrer": "https://example.org/\u2603"}
    lab.http.post("/t", json=sent, headers={"User-Agent": "Lynx"})
    image = lab.http.get("/t.gif", headers={"Referer": "https://shop.example/cart", "User-Agent": "Mosaic"})
    assert (202, "image/gif", b"GIF89a") == (image.status_code, image.headers["content-type"], image.content[:6])
    assert "no-store" == image.headers["cache-control"]
    lab.work()
    columns = "page, visitor, referrer, browser, host(ip), at"
    prices, cart = lab.rows(f"SELECT {columns} FROM page_view ORDER BY page = '/prices' DESC")
    assert ("/prices", "ann", "https://example.org/\u2603", "Lynx", "127.0.0.1") == prices[:5]
    assert ("https://shop.example/cart", image.cookies["visitor"], "", "Mosaic", "127.0.0.1") == cart[:5]
    assert all(began <= row[5] <= datetime.now(UTC) for row in (prices, cart))
    page = lab.http.get("/").text
    assert "<td>/prices</td><td>1</td>" in page and 'id="total">2<' in page
    figures = lab.http.get("/figures").json()
    assert (2, 0, True) == (figures["total"], figures["waiting"], figures["database"])
    assert 2 == sum(views for _, views in figures["minutes"])
    assert 60 == len(figures["minutes"])


def test_the_script_for_a_site_posts_to_where_it_came_from(lab: Lab) -> None:
    """Its body is what the server takes, also as the plain text that a beacon sends."""
    assert "sendBeacon" in lab.http.get("/t.js").text
    body = '{"page": "/a", "visitor": "ann", "referrer": "", "event": "6f1c2b1e-8d57-4c83-9d2e-0d8c6a3b9f10"}'
    answer = lab.http.post("/t", content=body, headers={"Content-Type": "text/plain;charset=UTF-8"})
    assert {"id": "6f1c2b1e-8d57-4c83-9d2e-0d8c6a3b9f10"} == answer.json()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 422, "truncated"),
        (b'{"page": "/"}', 422, "visitor"),
        (b'{"page": "", "visitor": "a"}', 422, "$.page"),
        (b'{"page": "/a\\u0000", "visitor": "a"}', 422, "$.page"),
        (b'{"page": "/", "visitor": "a", "at": 0}', 422, "at"),
        (b'{"page": "/", "visitor": "a", "event": "1"}', 422, "$.event"),
        (b'{"page": "/' + b"x" * 2000 + b'", "visitor": "a"}', 422, "$.page"),
        (b" " * 8193, 413, "8192"),
    ],
)
def test_what_is_no_view_is_refused_and_not_enqueued(lab: Lab, body: bytes, status: int, said: str) -> None:
    """What the database could not store never gets as far as a worker."""
    answer = lab.http.post("/t", content=body)
    assert status == answer.status_code
    assert said in answer.json()["error"]
    assert 0 == lab.http.get("/figures").json()["waiting"]


def test_an_event_that_is_sent_again_is_counted_once(lab: Lab) -> None:
    """While the first waits, and when it was stored long since: a browser that got no answer may ask again."""
    event = str(uuid.uuid4())
    assert [event] * 2 == [lab.send(event=event), lab.send(event=event)]
    lab.work()
    assert event == lab.send(event=event)
    lab.work()
    lab.wait_until_stored([event])


def test_many_views_are_few_transactions(lab: Lab) -> None:
    """3,000 that wait become three, or a few more where a claim was short."""
    view = View("/", "ann", "", "", None, datetime.now(UTC))
    jobs = lab.app.enqueue_many(lab.app.queue(QUEUE).call("systems.tracking.tasks.store", view) for _ in range(3000))
    lab.work()
    lab.wait_until_stored([job.id for job in jobs])
    ((transactions,),) = lab.rows("SELECT count(DISTINCT xmin::text) FROM page_view")
    assert 3 <= transactions <= 30


def test_a_view_that_cannot_be_stored_fails_alone(lab: Lab) -> None:
    """One that came past the checks: the database refuses it, and takes the others of its batch."""
    good = [lab.send() for _ in range(20)]
    bad = lab.app.queue(QUEUE).enqueue(
        "systems.tracking.tasks.store", View("/\0", "ann", "", "", None, datetime.now(UTC) - timedelta(1))
    )
    lab.work()
    lab.wait_until_stored(good)
    assert State.FAILED == bad.refresh().state


def test_views_are_taken_while_the_database_is_away_and_all_arrive_once(lab: Lab, postgres: EmbeddedPostgres) -> None:
    """It crashes under load and stays away; nobody is refused, and when it is back each accepted view is there once."""
    with lab.worker() as program:
        with lab.load(rate=100) as load:
            until(lambda: len(lab.stored()) > 50, SLOW_S, "the first views")
            postgres.crash()
            try:
                wait_for_more(load, 300)
                program.wait_until_it_says("the database is away")
                figures = lab.http.get("/figures").json()
                assert not figures["database"]
                assert figures["waiting"] >= 250
            finally:
                postgres.start()
            wait_for_more(load, 100)
        lab.wait_until_stored(accepted(load))
        until(lambda: not lab.http.get("/figures").json()["waiting"], SLOW_S, "nothing that waits")


def test_views_are_stored_once_whatever_is_ended_beside_them(lab: Lab) -> None:
    """SIGKILL for the process that writes; the database ends its connections, or what they do just now; under load."""
    with lab.worker() as program:
        with lab.load(rate=200) as load:
            until(lambda: len(lab.stored()) > 50, SLOW_S, "the first views")
            for end in ("kill", "pg_terminate_backend", "pg_cancel_backend") * 2:
                if end == "kill":
                    _kill_child(program)
                else:
                    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    lab.rows(f"SELECT {end}(pid) {others}")
                before = len(lab.stored())
                until(lambda before=before: len(lab.stored()) > before, SLOW_S, "views after that")
        lab.wait_until_stored(accepted(load))


def test_a_batch_that_meets_a_lock_is_written_when_it_is_gone(lab: Lab) -> None:
    """What waits for the lock is ended by the database, as its timeout for statements would; the batch tries again."""
    environment = lab.environment
    with psycopg.connect(environment["DATABASE_URL"], options=f"-csearch_path={SCHEMA}") as holder:
        holder.execute("LOCK TABLE page_view IN EXCLUSIVE MODE")
        with lab.worker() as program:
            ids = [lab.send() for _ in range(5)]
            blocked = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COPY%'"
            until(lambda: lab.rows(f"SELECT pg_cancel_backend(pid) {blocked}"), SLOW_S, "a COPY that waits")
            program.wait_until_it_says(r"the database is away, \d views wait")
            holder.commit()
            lab.wait_until_stored(ids)


def _kill_child(program: Program) -> None:
    """Kill the youngest process below the supervisor: the one that runs jobs."""
    children = psutil.Process(program.process.pid).children(recursive=True)
    os.kill(max(children, key=lambda child: (child.create_time(), child.pid)).pid, signal.SIGKILL)


def test_old_notes_are_forgotten_at_night(lab: Lab) -> None:
    """More of them than go at once; those of the last 40 days stay. The worker has made the schedule."""
    old, new = (int((datetime.now(UTC) - timedelta(days)).timestamp() * 1000) for days in (41, 39))
    note = "INSERT INTO headrace_effect (job, fence, done, at_ms)"
    lab.rows(f"{note} SELECT 'old' || n, 1, true, {old} FROM generate_series(1, 10001) n RETURNING 1")
    lab.rows(f"{note} VALUES ('new', 1, true, {new}) RETURNING 1")
    job = lab.app.queue(QUEUE).enqueue("systems.tracking.tasks.forget")
    lab.work()
    assert 10_001 == job.result(SLOW_S)
    assert [("new",)] == lab.rows("SELECT job FROM headrace_effect")
    assert ["systems.tracking.tasks.forget"] == [schedule.name for schedule in lab.app.schedules.list()]


def test_without_its_servers_the_web_server_says_so_in_time(tmp_path: Path) -> None:
    """No PostgreSQL: views are not affected. No Valkey: 503, and not only when a browser has given up."""
    nowhere = {"DATABASE_URL": f"postgresql://postgres@/postgres?host={tmp_path}"}
    with EmbeddedServer() as queue, ExitStack() as stack:
        told = {**nowhere, "HEADRACE_URL": queue.url}
        server = web_server("systems.tracking.web:web", log=tmp_path / "web.log", environment=told)
        http = stack.enter_context(httpx.Client(base_url=stack.enter_context(server)[1], timeout=SLOW_S))
        assert 202 == http.post("/t", json={"page": "/", "visitor": "ann"}).status_code
        assert (1, False) == tuple(http.get("/figures").json()[name] for name in ("waiting", "database"))
        assert "The database is away." in http.get("/").text
        queue.stop()
        for answer in (http.post("/t", json={"page": "/", "visitor": "ann"}), http.get("/figures")):
            assert (503, "1") == (answer.status_code, answer.headers["retry-after"])


def test_the_migrations_make_what_the_models_say(environment: dict[str, str], tracking_web: str) -> None:
    """And once made, they are not made again."""
    upgrade(SCHEMA, MIGRATIONS)
    engine = make_engine(SCHEMA)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _is_ours})
        assert [] == compare_metadata(context, Base.metadata)
    engine.dispose()


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    return kind != "table" or name != "headrace_effect"


@pytest.mark.long
def test_the_load_test_finds_every_view(tmp_path: Path) -> None:
    """Both ways at full speed, and with the database away; what it prints is a table of figures."""
    words = ["systems.tracking.load", "--seconds", "2", "--rounds", "1", "--away", "4", "--rate", "50"]
    with running(words, log=tmp_path / "load.log", environment={}) as program:
        assert 0 == program.process.wait(600), program.said
    assert 2 == program.said.count(" 0 lost, 0 doubled;")
    assert program.said.endswith("Every accepted view was stored once.\n")
