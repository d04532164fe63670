"""The dashboard's pages about schedules: what they tell, and what is done there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from visitors import OWN, Visitor, visiting

from headrace import Headrace
from headrace.core import schedule as core
from headrace.engine import admin, schedules
from headrace.engine.keys import queue_keys
from headrace.engine.schedules import Declared, Found
from headrace.schedules import spec_of
from headrace.web import Access

PAGE = "/schedules/reports/weekly"


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    """With `weekly`, which code declares, and `often`, which was added at run time."""
    with Headrace(url) as found:

        @found.task(queue="reports", name="reports.build")
        def build(days: int) -> int:
            return days

        fields = core.check_schedule({"cron": "0 2 * * MON", "tz": "Asia/Ho_Chi_Minh"}, "test")
        declared = Declared("weekly", "reports", spec_of(build.call(7), fields))
        assert found.client.run(schedules.declare(found.prefix, declared, is_start=True)) == ""
        found.schedules.add("often", build.call(1), every=90)
        yield found


def look(app: Headrace, name: str = "weekly") -> Found:
    return app.client.run(schedules.find(app.prefix, name))


def do(client: Visitor, path: str, **form: str) -> str:
    """Press a button; where that leads."""
    answer = client.post(path, headers=OWN, data=form)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def test_schedules_are_listed_with_their_times_in_words(app: Headrace) -> None:
    """In the language of the page, with the next run."""
    with visiting(app) as client:
        english, vietnamese = client.get("/schedules?lang=en").text, client.get("/schedules?lang=vi").text
    assert "at 02:00, on Monday · Asia/Ho_Chi_Minh" in english
    assert "every 1.5 min" in english
    assert "lúc 02:00, thứ Hai" in vietnamese
    due = look(app).entry.next_ms
    assert core.instant_text(due)[9:13] == "1900"  # two o'clock in Hanoi
    assert re.search(r"T19:00:00Z", english)


def test_a_schedule_tells_its_next_runs_on_its_own_clock_and_in_utc(app: Headrace) -> None:
    """Five of them."""
    with visiting(app) as client:
        page = client.get(PAGE).text
    rows = re.findall(r"<tr><td><time[^>]*>[^<]*</time></td><td>\S+ (\S+)</td><td>\S+ (\S+)</td>", page)
    assert rows == [("02:00:00", "19:00:00")] * 5


def test_what_was_changed_stands_beside_what_is_declared(app: Headrace) -> None:
    """With who changed it; and it can be taken back."""
    app.schedules.change("weekly", cron="30 4 * * *", by="lan@host")
    with visiting(app) as client:
        page = client.get(PAGE).text
        assert "<s>0 2 * * MON</s>" in page and "<b>30 4 * * *</b>" in page
        assert "Overridden by lan@host" in page
        assert "at 04:30" in page
        assert do(client, PAGE + "/reset") == f"{PAGE}?did=schedule_reset&n=1"
        assert do(client, PAGE + "/reset") == f"{PAGE}?did=schedule_reset&n=0"
    assert look(app).entry.change is None


def test_last_runs_are_told_with_what_became_of_them(app: Headrace) -> None:
    """One that waits, and one that is no longer kept."""
    with visiting(app) as client:
        assert "It has not run yet." in client.get(PAGE).text
        job = app.schedules.run_now("weekly")
        client.source.forget()
        assert f'<code>{job.id}</code></a></td>\n    <td><span class="state queued">' in client.get(PAGE).text
        app.job(job.id, queue="reports").delete()
        client.source.forget()
        assert "no longer kept" in client.get(PAGE).text


def test_operators_run_pause_resume_and_skip(app: Headrace) -> None:
    """Each happens, says how many it changed, and is noted with who did it."""
    with visiting(app, Access.all("ann")) as client:
        there = do(client, PAGE + "/run")
        assert re.fullmatch(r"/jobs/reports/run%3Aweekly%3A[\w.]+-\w+\?did=schedule_run&n=1", there)
        assert app.client.run(schedules.find(app.prefix, "weekly")).entry.fired == 1
        before = look(app).entry.next_ms
        assert do(client, PAGE + "/skip").endswith("did=schedule_skip&n=1")
        assert look(app).entry.next_ms - before == 7 * 86_400_000
        assert do(client, PAGE + "/pause", reason="the database moves").endswith("did=schedule_pause&n=1")
        assert look(app).entry.pause is not None
        page = client.get(PAGE).text
        assert "Paused: the database moves (ann)" in page and "No run is to come." in page
        assert client.post(PAGE + "/skip", headers=OWN).status_code == 404  # there is none to skip
        assert do(client, PAGE + "/resume").endswith("did=schedule_resume&n=1")
        assert do(client, PAGE + "/resume").endswith("did=schedule_resume&n=0")
        assert look(app).state == "active"
        audit = client.get("/audit").text
        assert re.findall(r"<td>ann</td><td>(\w+)</td><td><code>reports/weekly", audit) == [
            "schedule_resume", "schedule_resume", "schedule_pause", "schedule_skip", "schedule_run",
        ]  # fmt: skip


def test_read_only_visitors_change_no_schedule(app: Headrace) -> None:
    """No button is shown; what is sent all the same is refused, and nothing happens."""
    before = look(app)
    with visiting(app, Access.read("bob")) as client:
        assert 'method="post"' not in client.get(PAGE).text
        for act in ("run", "pause", "resume", "skip", "reset"):
            assert client.post(f"{PAGE}/{act}", headers=OWN).status_code == 403
    assert look(app).data == before.data
    assert app.client.run(admin.count_jobs(queue_keys("reports"))).queued == 0


def test_a_schedule_that_is_not_there_is_not_found(app: Headrace) -> None:
    """Nor is a name that cannot be one."""
    with visiting(app) as client:
        for path in ("/schedules/reports/none", "/schedules/none/weekly", "/schedules/reports/a%20b"):
            assert client.get(path).status_code == 404
