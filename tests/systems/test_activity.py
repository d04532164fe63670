"""The activity log: the application, its log and its worker as processes, on a real PostgreSQL and a real Valkey."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from browser import assert_fits, browsing, find_chromium, photograph

from headrace import Headrace, State
from headrace.server import EmbeddedServer
from systems.activity.events import Entry, make_event
from systems.activity.models import SCHEMA, Base
from systems.activity.partitions import DAYS_AHEAD, DAYS_KEPT
from systems.activity.tasks import QUEUE
from systems.common.catalogue import SYSTEMS_FOLDER
from systems.common.database import make_engine, upgrade
from systems.common.load import Load
from systems.common.postgres import EmbeddedPostgres
from systems.common.programs import ROOT, Program, running, until, web_server, worker

MIGRATIONS = ROOT / "systems/activity/migrations"
SLOW_S = 60.0


class Lab:
    """The system, and what is in its tables."""

    def __init__(self, environment: dict[str, str], folder: Path, stack: ExitStack) -> None:
        self.environment = {**environment, "ACTIVITY_SPOOL": str(folder / "spool")}
        self.folder = folder
        self.stack = stack
        self.app = stack.enter_context(Headrace(environment["HEADRACE_URL"]))

    @property
    def spools(self) -> list[Path]:
        return [path for path in (self.folder / "spool").glob("*") if path.is_dir()]

    def web(self) -> tuple[Program, httpx.Client]:
        """One process of the application."""
        log = self.folder / f"web-{uuid.uuid4().hex}.log"
        server = web_server("systems.activity.web:web", log=log, environment=self.environment)
        program, url = self.stack.enter_context(server)
        return program, self.stack.enter_context(httpx.Client(base_url=url, timeout=SLOW_S, follow_redirects=True))

    @contextmanager
    def worker(self, *arguments: str) -> Iterator[Program]:
        arguments = ("--processes", "1", "--log-level", "warning", *arguments)
        log = self.folder / f"worker-{uuid.uuid4().hex}.log"
        with worker("systems.activity.tasks:app", *arguments, log=log, environment=self.environment) as program:
            yield program

    def work(self) -> None:
        """Do all that is there."""
        with self.worker("--burst") as program:
            assert 0 == program.process.wait(SLOW_S), program.said

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.environment["DATABASE_URL"], options=f"-csearch_path={SCHEMA}") as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def titles(self) -> list[str]:
        """Of the posts that were updated, in the order in which the events came."""
        return [
            row[0] for row in self.rows("SELECT data->>'title' FROM event WHERE kind = 'post.updated' ORDER BY arrived")
        ]

    def is_settled(self, *clients: httpx.Client) -> bool:
        """All that was emitted is in the queue."""
        found = [client.get("/log/figures").json() for client in clients]
        return all(figures["is_sending"] and not figures["spooled"] + figures["in_memory"] for figures in found)

    @contextmanager
    def load(self, client: httpx.Client, rate: float) -> Iterator[Load]:
        load = Load(str(client.base_url), "/posts/1", body, connections=20, rate=rate)
        thread = threading.Thread(target=lambda: asyncio.run(load.run()))
        thread.start()
        try:
            yield load
        finally:
            load.stop()
            thread.join()


def body(number: int) -> bytes:
    return urlencode({"title": f"t{number}", "text": "từ phép thử tải"}).encode()


def wait_for_more(load: Load, number: int) -> None:
    wanted = len(load.answers) + number
    until(lambda: len(load.answers) >= wanted, SLOW_S, f"{number} answers more")


@pytest.fixture
def lab(url: str, environment: dict[str, str], tmp_path: Path) -> Iterator[Lab]:
    upgrade(SCHEMA, MIGRATIONS)
    with ExitStack() as stack:
        lab = Lab(environment, tmp_path, stack)
        for (day,) in lab.rows("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'event'::regclass"):
            lab.rows(f"DROP TABLE {day}")
        lab.rows("TRUNCATE headrace_effect, person")
        lab.rows("UPDATE post SET title = 'Con nước', text = 'Mùa nước nổi năm nay về sớm.' WHERE id = 1")
        yield lab


def live_a_little(http: httpx.Client) -> None:
    """Log in, look, change, log out."""
    http.post("/login", data={"name": "Hạnh"})
    http.post("/profile", data={"about": "thợ mộc"})
    http.get("/posts/1")
    http.post("/posts/1", data={"title": "Con nước", "text": "Nước đã rút."})
    http.get("/posts/99")
    http.post("/logout")


def test_what_somebody_does_is_stored_with_who_did_it_and_when(lab: Lab) -> None:
    """An event for each act, and one for each request, bound by the request's id."""
    began = datetime.now(UTC)
    program, http = lab.web()
    live_a_little(http)
    named = http.get("/posts/2", headers={"X-Request-ID": "from-the-proxy"})
    assert "from-the-proxy" == named.headers["x-request-id"]
    program.stop()
    lab.work()
    acts = lab.rows("SELECT kind, username, text FROM event WHERE kind <> 'request' ORDER BY source, seq")
    assert [
        ("login", "Hạnh", "logged in"),
        ("profile.changed", "Hạnh", "changed the profile"),
        ("post.viewed", "Hạnh", "viewed “Con nước”"),
        ("post.updated", "Hạnh", "updated “Con nước”"),
        ("post.viewed", "Hạnh", "viewed “Con nước”"),
        ("post.missing", "Hạnh", "no such post"),
        ("logout", "Hạnh", "logged out"),
        ("post.viewed", "", "viewed “The mill”"),
    ] == acts
    requests = lab.rows("SELECT text, data->>'status', at FROM event WHERE kind = 'request' ORDER BY seq")
    assert ("POST /login", "303") == requests[0][:2]
    assert ("GET /posts/99", "404") in [row[:2] for row in requests]
    assert all(began <= row[2] <= datetime.now(UTC) for row in requests)
    bound = lab.rows("SELECT kind FROM event WHERE request = 'from-the-proxy' ORDER BY seq")
    assert [("post.viewed",), ("request",)] == bound
    assert [] == lab.spools


def test_an_error_of_the_application_is_an_event(lab: Lab) -> None:
    """One that nobody caught: the request's event has status 500, and what was raised."""
    program, http = lab.web()
    lab.rows("ALTER TABLE post RENAME TO post_away")
    try:
        assert 500 == http.get("/posts/1").status_code
    finally:
        lab.rows("ALTER TABLE post_away RENAME TO post")
    program.stop()
    lab.work()
    ((level, status, error),) = lab.rows(
        "SELECT level, data->>'status', data->>'error' FROM event WHERE kind = 'request'"
    )
    assert ("error", "500") == (level, status)
    assert "UndefinedTable" in error
    assert [("error",)] == lab.rows("SELECT level FROM event WHERE kind = 'log'")


def test_events_are_found_by_user_kind_and_time(lab: Lab) -> None:
    """In both languages, a page at a time; what is no time is said."""
    _, http = lab.web()
    live_a_little(http)
    for n in range(60):
        http.post("/posts/2", data={"title": f"t{n}", "text": ""}, follow_redirects=False)
    until(lambda: lab.is_settled(http), SLOW_S, "an empty spool")
    lab.work()

    def shown(**asked: str) -> list[str]:
        return re.findall(r'<td class="kind"><a[^>]*>([^<]+)', http.get("/log", params=asked).text)

    assert {"Hạnh"} == {row[0] for row in lab.rows("SELECT username FROM event WHERE kind = 'login'")}
    assert ["login"] == shown(user="Hạnh", kind="login")
    assert [] == shown(user="hạnh")
    assert 50 == len(shown(kind="post.updated"))
    older = re.findall(r'rel="next" href="([^"]+)"', http.get("/log", params={"kind": "post.updated"}).text)
    assert 11 == http.get(older[0].replace("&amp;", "&")).text.count('<td class="kind">')
    now = datetime.now(UTC)
    assert ["login"] == shown(kind="login", since=(now - timedelta(hours=1)).isoformat())
    assert [] == shown(kind="login", since=(now + timedelta(hours=1)).isoformat())
    assert [] == shown(kind="login", until=(now - timedelta(hours=1)).isoformat())
    for asked in ({"since": "gestern"}, {"before": "x"}):
        assert 422 == http.get("/log", params=asked).status_code
    assert "Người dùng" in http.get("/log", params={"lang": "vi"}).text
    assert "Người dùng" in http.get("/log", headers={"Accept-Language": "en"}).text  # as it was chosen
    assert "<b>" not in http.get("/log", params={"user": "<b>x</b>"}).text


def test_events_wait_on_the_disk_while_the_queue_is_away(url: str, lab: Lab) -> None:
    """No request fails or waits for it; all arrive once, in their order, when it is back."""
    with EmbeddedServer(data_dir=lab.folder / "valkey") as queue:
        lab.environment["HEADRACE_URL"] = queue.url
        _, http = lab.web()
        with lab.load(http, rate=60) as load:
            wait_for_more(load, 50)
            queue.kill()
            wait_for_more(load, 150)
            until(lambda: http.get("/log/figures").json()["spooled"] > 100, SLOW_S, "events in the spool")
            assert "The queue does not answer" in http.get("/log", params={"lang": "en"}).text
            queue.start()
            wait_for_more(load, 50)
        until(lambda: lab.is_settled(http), SLOW_S, "an empty spool")
        lab.work()
        assert {303} == {answer.status for answer in load.answers}
        assert sorted(f"t{n}" for n in range(len(load.answers))) == sorted(lab.titles())
        sequence = [row[0] for row in lab.rows("SELECT seq FROM event ORDER BY arrived")]
        assert list(range(1, len(sequence) + 1)) == sequence


def test_what_a_killed_process_had_not_sent_is_sent_by_another_one(url: str, lab: Lab) -> None:
    """SIGKILL for the application while the queue is away."""
    with EmbeddedServer(data_dir=lab.folder / "valkey") as queue:
        lab.environment["HEADRACE_URL"] = queue.url
        first, http = lab.web()
        assert 200 == http.get("/posts/1").status_code
        queue.kill()
        for n in range(20):
            http.post("/posts/1", data={"title": f"t{n}", "text": ""}, follow_redirects=False)
        until(lambda: http.get("/log/figures").json()["spooled"] >= 40, SLOW_S, "events in the spool")
        until(lambda: not http.get("/log/figures").json()["in_memory"], SLOW_S, "nothing in memory")
        first.kill()
        queue.start()
        second, http = lab.web()
        second.wait_until_it_says("of a process that has ended, was sent")
        lab.work()
        assert [f"t{n}" for n in range(20)] == lab.titles()


def test_events_that_are_sent_again_are_stored_once(lab: Lab) -> None:
    """While the first waits, and when it was stored long since: who died before it could note so sends again."""
    entries = [Entry("here", n, make_event("n", text=str(n))) for n in range(1, 6)]
    _send(lab, entries)
    _send(lab, [*entries[:3], Entry("here", 6, make_event("n"))])
    lab.work()
    _send(lab, entries)
    lab.work()
    assert [(n,) for n in range(1, 7)] == lab.rows("SELECT seq FROM event ORDER BY arrived")


def _send(lab: Lab, entries: list[Entry]) -> None:
    """As the log does, in a process of its own: its app takes the server from the environment."""
    program = (
        "import sys, msgspec; from systems.activity.events import Entry; from systems.activity.tasks import send\n"
        "assert not send(msgspec.json.decode(sys.argv[1], type=list[Entry]))"
    )
    path = lab.folder / f"send-{uuid.uuid4().hex}.py"
    path.write_text(program)
    words = [str(path), msgspec.json.encode(entries).decode()]
    _run(lab, words)


def _run(lab: Lab, words: list[str]) -> None:
    environment = {**os.environ, **lab.environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=SLOW_S)
    assert done.returncode == 0, done.stderr


def test_a_day_has_its_partition_and_what_is_out_of_time_fails_alone(lab: Lab) -> None:
    """A batch over midnight makes what is missing; a clock that is years ahead makes no partition."""
    now = datetime.now(UTC)
    days = {"yesterday": -1, "today": 0, "tomorrow": 1}
    calls = lab.app.queue(QUEUE)
    for name, days_on in days.items():
        event = make_event("n", text=name)
        _enqueue(calls, name, event, now + timedelta(days_on))
    wrong = _enqueue(calls, "wrong", make_event("n"), now + timedelta(365))
    lab.work()
    wanted = {(text, f"event_{now + timedelta(on):%Y%m%d}") for text, on in days.items()}
    assert wanted == set(lab.rows("SELECT text, tableoid::regclass::text FROM event"))
    assert State.FAILED == wrong.refresh().state


def _enqueue(calls: Any, source: str, event: Any, at: datetime) -> Any:
    return calls.enqueue("systems.activity.tasks.store", Entry(source, 1, msgspec.structs.replace(event, at=at)))


def test_the_schedule_makes_the_coming_days_and_drops_the_old_ones(lab: Lab) -> None:
    """Each hour, whatever worker there is; events of kept days stay."""
    today = datetime.now(UTC).date()
    for days_ago in (DAYS_KEPT + 9, DAYS_KEPT + 1, DAYS_KEPT):
        day = today - timedelta(days_ago)
        bounds = f"FROM ('{day} 00:00+00') TO ('{day + timedelta(1)} 00:00+00')"
        lab.rows(f"CREATE TABLE event_{day:%Y%m%d} PARTITION OF event FOR VALUES {bounds}")
        row = f"('{day} 12:00+00', 'old', {days_ago}, 'n', 'info', '', '', '', '{{}}')"
        lab.rows(f"INSERT INTO event (at, source, seq, kind, level, username, request, text, data) VALUES {row}")
    job = lab.app.queue(QUEUE).enqueue("systems.activity.tasks.tend")
    lab.work()
    coming = [str(today + timedelta(n)) for n in range(DAYS_AHEAD + 1)]
    dropped = [str(today - timedelta(n)) for n in (DAYS_KEPT + 9, DAYS_KEPT + 1)]
    assert {"made": coming, "dropped": dropped, "forgotten": 0} == job.result(SLOW_S)
    assert [(DAYS_KEPT,)] == lab.rows("SELECT seq FROM event")
    again = lab.app.queue(QUEUE).enqueue("systems.activity.tasks.tend")
    lab.work()
    assert {"made": [], "dropped": [], "forgotten": 0} == again.result(SLOW_S)
    assert ["systems.activity.tasks.tend"] == [schedule.name for schedule in lab.app.schedules.list()]


def test_a_worker_that_is_killed_or_without_its_database_loses_no_event(lab: Lab, postgres: EmbeddedPostgres) -> None:
    """The database ends the worker's connections again and again, under load; each event is there once."""
    _, http = lab.web()
    with lab.worker():
        with lab.load(http, rate=50) as load:
            for _ in range(3):
                wait_for_more(load, 30)
                mine = "FROM pg_stat_activity WHERE query LIKE '%headrace_effect%' AND pid <> pg_backend_pid()"
                lab.rows(f"SELECT pg_terminate_backend(pid) {mine}")
        until(lambda: len(lab.titles()) >= len(load.answers), SLOW_S, "all events")
    assert sorted(f"t{n}" for n in range(len(load.answers))) == sorted(lab.titles())


def test_the_migrations_make_what_the_models_say(lab: Lab) -> None:
    engine = make_engine(SCHEMA)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _is_ours})
        assert [] == compare_metadata(context, Base.metadata)
    engine.dispose()


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    return kind != "table" or (name != "headrace_effect" and not str(name).startswith("event_"))


def test_the_log_is_searched_in_a_browser(lab: Lab) -> None:
    """Somebody logs in, changes a post, and finds that in the log, in both languages."""
    find_chromium()
    _, http = lab.web()
    with lab.worker(), browsing(locale="vi-VN") as page:
        page.goto(str(http.base_url))
        page.get_by_label("Tên").fill("Hạnh")
        page.get_by_role("button", name="Đăng nhập").click()
        page.get_by_text("Bạn là").wait_for()
        assert_fits(page)
        page.get_by_role("link", name="Con nước").click()
        page.get_by_label("Nội dung").fill("Nước đã rút.")
        page.get_by_role("button", name="Lưu").click()
        assert_fits(page)
        until(lambda: len(lab.titles()) == 1 and lab.is_settled(http), SLOW_S, "the event")
        page.goto(f"{http.base_url}/log")
        photograph(page, SYSTEMS_FOLDER / "activity/log.vi.png", lab.folder)
        page.get_by_label("Người dùng").fill("Hạnh")
        page.get_by_label("Loại").select_option("post.updated")
        page.get_by_role("button", name="Tìm").click()
        assert 1 == page.locator("td.kind").count()
        assert_fits(page)
        page.get_by_role("link", name="English").click()
        page.goto(f"{http.base_url}/log?user=Hạnh")
        page.get_by_role("button", name="Search").wait_for()
        assert_fits(page)
        photograph(page, SYSTEMS_FOLDER / "activity/log.png", lab.folder)


@pytest.mark.long
def test_the_load_test_loses_nothing(tmp_path: Path) -> None:
    """With and without the log at full speed, and with the queue away for 20 s; what it prints is a table of figures."""
    words = ["systems.activity.load", "--seconds", "3", "--rounds", "1", "--away", "20", "--rate", "40"]
    with running(words, log=tmp_path / "load.log", environment={}) as program:
        assert 0 == program.process.wait(600), program.said
    assert " 0 lost, 0 doubled, " in program.said
    assert program.said.endswith("Every request was answered, every event was stored once, in order.\n")
