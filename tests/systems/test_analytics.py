"""Reports on page views, whole: a web server and workers as processes, on a real PostgreSQL and a real Valkey."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from headrace import Headrace
from headrace.server import EmbeddedServer
from systems.analytics.days import DayFigures, add_up
from systems.analytics.models import SCHEMA, Base
from systems.analytics.question import Question
from systems.analytics.render import harmless, make_files
from systems.analytics.tasks import QUEUE
from systems.analytics.web import GUARD
from systems.common.database import make_engine, upgrade
from systems.common.programs import ROOT, Program, running, until, web_server, worker

MIGRATIONS = ROOT / "systems/analytics/migrations"
SLOW_S = 60.0
HOLD = 1_505  # The number of an advisory lock.
MAY = [date(2026, 5, day) for day in range(1, 32)]


class Lab:
    """The system, and what is in its tables."""

    def __init__(self, http: httpx.Client, environment: dict[str, str], folder: Path) -> None:
        self.http = http
        self.app = Headrace(environment["HEADRACE_URL"])
        self.environment = environment
        self.folder = folder

    def ask(self, first: date, last: date, pages: str = "/") -> dict[str, Any]:
        sent = {"first": first.isoformat(), "last": last.isoformat(), "pages": pages}
        answer = self.http.post("reports", json=sent)
        assert 202 == answer.status_code, answer.text
        return dict(answer.json())

    def state(self, report: str) -> dict[str, Any]:
        answer = self.http.get(f"reports/{report}/state")
        assert 200 == answer.status_code, answer.text
        return dict(answer.json())

    def wait_for(self, report: str, state: str) -> dict[str, Any]:
        until(lambda: self.state(report)["is_ended"], SLOW_S, "the report's end")
        found = self.state(report)
        assert state == found["state"], found
        return found

    def file(self, report: str, name: str) -> httpx.Response:
        answer = self.http.get(f"reports/{report}/files/{name}")
        assert 200 == answer.status_code, answer.text
        return answer

    @contextmanager
    def worker(self, *arguments: str) -> Iterator[Program]:
        arguments = ("--processes", "2", "--log-level", "warning", *arguments)
        log = self.folder / f"worker-{uuid.uuid4().hex}.log"
        app = "systems.analytics.tasks:app"
        with worker(app, *arguments, log=log, environment=self.environment) as program:
            yield program

    def work(self) -> None:
        """Do all that is there."""
        with self.worker("--burst") as program:
            assert 0 == program.process.wait(SLOW_S), program.said

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        options = f"-csearch_path={SCHEMA},tracking"
        with psycopg.connect(self.environment["DATABASE_URL"], options=options) as connection:
            found = connection.execute(statement)  # type: ignore[arg-type]
            return found.fetchall() if found.description else []

    def view(self, at: datetime, page: str = "/", visitor: str = "ann", referrer: str = "") -> None:
        with psycopg.connect(self.environment["DATABASE_URL"]) as connection:
            row = (uuid.uuid4().hex, at, visitor, page, referrer, "", None)
            connection.execute("INSERT INTO tracking.page_view VALUES (%s, %s, %s, %s, %s, %s, %s)", row)

    def views_on(self, days: list[date], each: int) -> None:
        """So many views on each of these days, of ten visitors."""
        for day in days:
            self.rows(
                f"INSERT INTO tracking.page_view SELECT '{day}-' || n, '{day}Z'::timestamptz + n * interval '1 second', "
                f"'v' || n % 10, '/' || n % 7, '', '', NULL FROM generate_series(0, {each - 1}) n"
            )

    def counted(self) -> Counter[date]:
        """How often each day was counted to its end."""
        return Counter(day for (day,) in self.rows("SELECT day FROM day_counted"))


@contextmanager
def held_after(lab: Lab, days: int) -> Iterator[None]:
    """In it, so many days are counted, and no more: the next ones wait at a lock, however fast the machine is."""
    with psycopg.connect(lab.environment["DATABASE_URL"]) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", (HOLD,))
        lab.rows(
            f"""
            CREATE FUNCTION analytics.hold() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF (SELECT count(*) FROM analytics.day_counted) >= {days} THEN
                    PERFORM pg_advisory_xact_lock_shared({HOLD});
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER hold BEFORE INSERT ON analytics.day_counted FOR EACH ROW EXECUTE FUNCTION analytics.hold()
            """
        )
        try:
            yield
        finally:
            holder.rollback()
            lab.rows("DROP FUNCTION analytics.hold() CASCADE")


@pytest.fixture(scope="session")
def analytics_web(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    upgrade("tracking", ROOT / "systems/tracking/migrations")
    upgrade(SCHEMA, MIGRATIONS)
    log = tmp_path_factory.mktemp("analytics") / "web.log"
    with web_server("systems.analytics.web:web", log=log, environment=environment) as (_, url):
        yield url


@pytest.fixture
def lab(analytics_web: str, url: str, environment: dict[str, str], tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=analytics_web, timeout=SLOW_S))
        lab = Lab(http, environment, tmp_path)
        stack.enter_context(lab.app)
        lab.rows("TRUNCATE report, report_file, day_counted, headrace_effect, page_view")
        yield lab


def test_a_report_counts_what_is_there(lab: Lab) -> None:
    """Views, visits that end after half an hour, visitors, hours, pages, sites; of the days and pages that were asked for."""
    noon = datetime(2026, 5, 2, 12, tzinfo=UTC)
    for minutes, page in ((0, "/a"), (10, "/b"), (39, "/a"), (80, "/a")):
        lab.view(noon + timedelta(minutes=minutes), page, "ann", "https://search.example/?q=1")
    lab.view(noon, "/a", "bob")
    lab.view(noon + timedelta(1), "/b", "bob", "javascript:alert(1)")
    lab.view(noon + timedelta(2), "/a", "eve")  # of a day that is not asked for
    report = lab.ask(date(2026, 5, 1), date(2026, 5, 3))["id"]
    assert ("counting", 3, 0) == tuple(lab.state(report)[name] for name in ("state", "days", "days_done"))
    lab.work()
    done = lab.wait_for(report, "ready")
    assert (3, 6, 100.0, True) == tuple(done[name] for name in ("days_done", "views", "percent", "is_ended"))
    lines = list(csv.reader(io.StringIO(lab.file(report, "csv").content.decode("utf-8-sig"))))
    assert lines[1:] == [
        ["day", "2026-05-01", "0", "0", "0"],
        ["day", "2026-05-02", "5", "3", "2"],
        ["day", "2026-05-03", "1", "1", "1"],
        ["page", "/a", "4", "", ""],
        ["page", "/b", "2", "", ""],
        ["referrer", "search.example", "4", "", ""],
        ["referrer", "", "2", "", ""],
    ]
    for language, said in (("en", "Views by day"), ("vi", "Lượt xem theo ngày")):
        page = lab.file(report, f"{language}.html").text
        assert said in page and '<td class="name">/a</td>' in page and "12:00: 5" in page
    assert f'src="{report}/files/en.html"' in lab.http.get(f"reports/{report}").text
    assert "2026-05-01 to 2026-05-03" in lab.http.get("").text
    assert "2026-05-01 đến 2026-05-03" in lab.http.get("", headers={"Accept-Language": "vi"}).text
    pages = lab.ask(date(2026, 5, 1), date(2026, 5, 3), "/b")["id"]
    lab.work()
    assert 2 == lab.wait_for(pages, "ready")["views"]


def test_a_form_without_scripts_leads_to_the_report(lab: Lab) -> None:
    answer = lab.http.post("reports", data={"first": "2026-05-01", "last": "2026-05-02", "pages": "/", "lang": "vi"})
    assert 303 == answer.status_code
    page = lab.http.get(answer.headers["location"]).text
    assert "Đang đếm" in page and '<meta http-equiv="refresh"' in page


def test_equal_questions_share_one_run(lab: Lab) -> None:
    """Until the report is there; each day is counted once. Another question is another run, and so is a later one."""
    lab.views_on(MAY[:4], 10)
    first, again, other = (lab.ask(MAY[0], MAY[n]) for n in (3, 3, 2))
    assert (first["id"], True, False) == (again["id"], first["is_new"], again["is_new"])
    assert other["is_new"] and other["id"] != first["id"]
    lab.work()
    assert Counter({day: 2 for day in MAY[:3]}) + Counter(MAY[3:4]) == lab.counted()
    assert lab.ask(MAY[0], MAY[3])["is_new"]
    assert 2 == lab.rows("SELECT count(*)::int FROM report")[0][0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "truncated"),
        (b'{"first": 1}', "str"),
        (b'{"first": "2026-05-02", "last": "2026-05-01"}', "after"),
        (b'{"first": "2026-13-01"}', "month"),
        (b'{"last": "2099-01-01"}', "not come yet"),
        (b'{"first": "2020-01-01", "last": "2026-01-01"}', "366 days"),
        (b'{"pages": "a"}', "pages"),
        (b'{"pages": "/\\u0000"}', "pages"),
    ],
)
def test_what_is_no_question_is_refused(lab: Lab, body: bytes, said: str) -> None:
    answer = lab.http.post("reports", content=body, headers={"Content-Type": "application/json"})
    assert 422 == answer.status_code
    assert said in answer.json()["error"]
    assert [] == lab.app.flows.list(queue=QUEUE)


def test_what_is_not_there_is_not_found(lab: Lab) -> None:
    for path in ("reports/nothing", "reports/nothing/state", "reports/nothing/files/csv", "reports/a/files/exe"):
        assert 404 == lab.http.get(path).status_code
    assert 404 == lab.http.post("reports/nothing/cancel").status_code


def test_names_that_visitors_choose_do_nothing_in_any_file() -> None:
    """No formula in CSV or XLSX, no markup in HTML, which may also load and run nothing."""
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "<script>alert(1)</script>", 'a"b', "https://example.org", "/x"]
    day = DayFigures(MAY[0], 9, 9, 9, [0] * 24, {name: 1 for name in names}, {"=2+2": 9})
    files = make_files(Question(MAY[0], MAY[0], "/"), add_up([day]), datetime.now(UTC))
    lines = list(csv.reader(io.StringIO(files["csv"].decode("utf-8-sig"), newline="")))
    cells = [line[1] for line in lines[2:]]
    assert {harmless(name) for name in [*names, "=2+2"]} == set(cells)
    assert [] == [cell for cell in cells if cell[0] in "=+-@\t\r\n"]
    with zipfile.ZipFile(io.BytesIO(files["xlsx"])) as book:
        sheets = {name: book.read(name).decode() for name in book.namelist() if name.endswith(".xml")}
    assert [] == [name for name, text in sheets.items() if "<f>" in text or "<hyperlink" in text]
    assert "=1+1" in sheets["xl/sharedStrings.xml"]
    page = files["en.html"].decode()
    assert "&lt;script&gt;alert(1)" in page and "<script" not in page
    assert [] == re.findall(r"(?:src|href)=|url\(|@import", page)
    assert "default-src 'none'" in GUARD["Content-Security-Policy"]


def test_files_are_served_guarded(lab: Lab) -> None:
    """What the browser is told of them: nothing may run; tables are downloads with a name."""
    report = lab.ask(MAY[0], MAY[0])["id"]
    lab.work()
    page = lab.file(report, "en.html")
    assert GUARD == {name: page.headers[name] for name in GUARD}
    for name in ("csv", "xlsx"):
        assert f'attachment; filename="report-{report}.{name}"' == lab.file(report, name).headers["content-disposition"]


def test_a_killed_worker_goes_on_from_the_days_that_are_done(lab: Lab) -> None:
    """All its processes are killed halfway: what was counted is not counted again, but for the days it was just at."""
    lab.views_on(MAY, 2_000)
    report = lab.ask(MAY[0], MAY[-1])["id"]
    with held_after(lab, 15), lab.worker() as program:
        until(lambda: len(lab.counted()) >= 15, SLOW_S, "half of the days")
        program.kill()
    before = lab.counted()
    assert 15 <= len(before) < 31 and "counting" == lab.state(report)["state"]
    with lab.worker():
        lab.wait_for(report, "ready")
    again = lab.counted() - Counter(MAY)
    assert sorted(MAY) == sorted(lab.counted())
    assert len(again) <= 2 >= max(again.values(), default=0), "one day for each of two processes"
    assert 31 * 2_000 == lab.rows("SELECT views FROM report")[0][0]


def test_cancel_stops_the_statements_that_run(lab: Lab) -> None:
    """Of a report whose days wait at a lock: the database works for nobody afterwards, and the next report is built."""
    running_now = "SELECT count(*)::int FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%WITH seen%' AND state = 'active'"
    with psycopg.connect(lab.environment["DATABASE_URL"]) as holder, lab.worker() as program:
        holder.execute("LOCK TABLE tracking.page_view IN ACCESS EXCLUSIVE MODE")
        report = lab.ask(MAY[0], MAY[-1])["id"]
        until(lambda: lab.rows(running_now)[0][0] == 2, SLOW_S, "two statements that wait")
        assert 303 == lab.http.post(f"reports/{report}/cancel").status_code
        until(lambda: lab.rows(running_now)[0][0] == 0, SLOW_S, f"no statement: {program.said}")
        assert "cancelled" == lab.state(report)["state"]
        assert "Cancelled" in lab.http.get(f"reports/{report}").text
        holder.rollback()
        lab.wait_for(lab.ask(MAY[0], MAY[-1])["id"], "ready")


def test_a_report_that_cannot_be_made_says_why(lab: Lab) -> None:
    """The database refuses a day: the report has failed, and names the job that did; it can be asked for again."""
    report = lab.ask(MAY[0], MAY[1])["id"]
    lab.rows("ALTER TABLE tracking.page_view RENAME TO gone")
    try:
        lab.work()
    finally:
        lab.rows("ALTER TABLE tracking.gone RENAME TO page_view")
    failed = lab.wait_for(report, "failed")
    assert re.search(rf"{report}\.0\.\d, which it waited for, failed", failed["why"])
    assert failed["why"] in lab.http.get(f"reports/{report}").text
    again = lab.ask(MAY[0], MAY[1])
    assert again["is_new"]
    lab.work()
    lab.wait_for(again["id"], "ready")


def test_a_killed_child_of_the_worker_makes_no_report_twice(lab: Lab) -> None:
    """Its processes are killed again and again; the report is there once, with all its views."""
    lab.views_on(MAY, 500)
    report = lab.ask(MAY[0], MAY[-1])["id"]
    with lab.worker() as program:
        for number in range(1, 4):
            until(lambda number=number: len(lab.counted()) >= 8 * number, SLOW_S, "more days")
            children = psutil.Process(program.process.pid).children(recursive=True)
            os.kill(max(children, key=lambda child: (child.create_time(), child.pid)).pid, signal.SIGKILL)
        lab.wait_for(report, "ready")
    assert [(report, 31 * 500)] == lab.rows("SELECT id, views FROM report")
    assert 4 == lab.rows("SELECT count(*)::int FROM report_file")[0][0]


def test_the_standard_reports_are_asked_for_each_night(lab: Lab) -> None:
    """The worker has made the schedule; its job asks for a week and a month, which are made."""
    job = lab.app.queue(QUEUE).enqueue("systems.analytics.tasks.ask_for_standard_reports")
    lab.work()
    assert [7, 30] == sorted(days for (days,) in lab.rows("SELECT last - first + 1 FROM report"))
    assert set(job.result(SLOW_S)) == {report for (report,) in lab.rows("SELECT id FROM report")}
    assert ["systems.analytics.tasks.ask_for_standard_reports"] == [found.name for found in lab.app.schedules.list()]


def test_without_its_servers_the_web_server_says_so_in_time(tmp_path: Path) -> None:
    """No PostgreSQL: reports are still taken, and their progress told. No Valkey: 503."""
    nowhere = {"DATABASE_URL": f"postgresql://postgres@/postgres?host={tmp_path}"}
    with EmbeddedServer() as queue, ExitStack() as stack:
        told = {**nowhere, "HEADRACE_URL": queue.url}
        server = web_server("systems.analytics.web:web", log=tmp_path / "web.log", environment=told)
        http = stack.enter_context(httpx.Client(base_url=stack.enter_context(server)[1], timeout=SLOW_S))
        report = http.post("reports", json={}).json()["id"]
        state = http.get(f"reports/{report}/state").json()
        assert ("counting", 7, None) == (state["state"], state["days"], state["views"])
        assert "The database is away" in http.get("").text
        assert (503, "5") == _asked_later(http.get(f"reports/{report}/files/csv"))
        queue.stop()
        for answer in (http.post("reports", json={}), http.get(f"reports/{report}/state")):
            assert (503, "1") == _asked_later(answer)


def _asked_later(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.headers["retry-after"]


def test_the_migrations_make_what_the_models_say(environment: dict[str, str], analytics_web: str) -> None:
    """And once made, they are not made again."""
    upgrade(SCHEMA, MIGRATIONS)
    engine = make_engine(SCHEMA)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _is_ours})
        assert [] == compare_metadata(context, Base.metadata)
    engine.dispose()


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    return kind != "table" or name != "headrace_effect"


def test_the_same_seed_gives_the_same_views(lab: Lab) -> None:
    """And seeding again adds none."""
    words = ["systems.analytics.seed", "--views", "600", "--days", "3"]
    seen = []
    for is_again in (False, True, False):
        if not is_again:
            lab.rows("TRUNCATE page_view")
        with running(words, log=lab.folder / "seed.log", environment=lab.environment) as program:
            assert 0 == program.process.wait(SLOW_S), program.said
        seen.append(lab.rows("SELECT id, visitor, page FROM page_view ORDER BY id"))
    assert seen[0] == seen[1] == seen[2] and 500 < len(seen[0]) < 700
