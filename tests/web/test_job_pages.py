"""The pages about jobs: lists by state and filter, actions on one and on many, clones, and what is hidden from whom."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from urllib.parse import unquote

import msgspec
import pytest
from engine_kit import Kit
from visitors import OWN, Visitor, visiting

from headrace import Headrace
from headrace.core.record import AttemptError, State, Stored, decode, encode
from headrace.engine import admin, ops
from headrace.engine.keys import queue_keys
from headrace.engine.why import TEXTS
from headrace.web import Access, Right
from headrace.web.access import Access as AnyAccess
from headrace.web.words import catalogue

XSS = "<script>alert('x')</script>\"'&{{7*7}}"
Visit = Callable[..., AbstractContextManager[Visitor]]


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found


@pytest.fixture
def visit(app: Headrace) -> Visit:
    return lambda access=None, **options: visiting(app, access, **options)


def fail(app: Headrace, queue: str, message: str, *, count: int = 1) -> list[str]:
    """The first jobs of a queue fail with this message; their ids."""
    kit = Kit(app.client, queue)
    session = kit.open("failing")
    ids = []
    for claim in kit.claim(session, count):
        error = AttemptError(1, "app.Broken", message, f"Traceback: {message}", 1_800_000_000_000, "worker-1")
        record = msgspec.structs.replace(
            decode(claim.record), state=int(Stored.FAILED), errors=[error], reason=f"app.Broken: {message}",
            ended_at_ms=1_800_000_000_000,
        )  # fmt: skip
        kit.client.run(
            ops.settle(
                kit.queues, session,
                [ops.Settlement(queue, claim.id, ops.Kind.FAILED, encode(record), keep_ms=60_000)], split=False,
            )
        )  # fmt: skip
        ids.append(claim.id)
    kit.client.run(ops.close_session(kit.queues, session, split=False))
    return ids


def rows(text: str) -> list[str]:
    return re.findall(r'<tr id="job-([^"]+)"', text)


def state(app: Headrace, queue: str, job_id: str) -> State:
    look = app.client.run(ops.look(queue_keys(queue), job_id))
    assert look is not None
    return look.state


def test_a_filter_finds_jobs_in_all_queues_and_the_address_can_be_shared(app: Headrace, visit: Visit) -> None:
    """By task, argument and queue; what was typed stays in the field, and in the links of tabs and pages."""
    wanted = app.queue("mail").enqueue("mail.send", 1, user={"id": 42})
    other = app.queue("mail").enqueue("mail.send", 1, user={"id": 43})
    low = app.queue("low").enqueue("mail.send", 1, user={"id": 42})
    with visit() as client:
        text = client.get("/jobs", params={"filter": "task:mail.send args.user.id:42"}).text
        assert set(rows(text)) == {wanted.id, low.id}
        assert 'value="task:mail.send args.user.id:42"' in text
        assert "Looked at 3 of 3 jobs." in text
        (tab,) = re.findall(r'href="(\?tab=queued[^"]*)"', text)
        assert set(rows(client.get("/jobs" + tab.replace("&amp;", "&")).text)) == {wanted.id, low.id}
        assert rows(client.get("/jobs?queue=low&tab=all").text) == [low.id]
        assert rows(client.get("/jobs", params={"filter": "state:queued queue:mail args.user.id:43"}).text) == [
            other.id
        ]
        assert client.get("/api/v1/jobs", params={"filter": "args.user.id:43"}).json()["jobs"][0]["id"] == other.id


def test_a_filter_that_cannot_be_meant_is_answered_in_words(visit: Visit) -> None:
    """On the page, with what was typed still there."""
    with visit() as client:
        answer = client.get("/jobs", params={"filter": "tsak:mail"})
        assert answer.status_code == 400
        assert "no key &#39;tsak&#39;" in answer.text
        assert 'value="tsak:mail"' in answer.text


def test_columns_are_chosen_in_the_address(app: Headrace, visit: Visit) -> None:
    """Without script by a form; arguments are shown without what is hidden."""
    app.options(queue="mail", tags=["vip"], priority=7).enqueue("mail.send", to="an@example.org", password="hunter2")
    with visit() as client:
        text = client.get("/jobs?tab=all&columns=job&columns=tags&columns=arguments&columns=priority").text
        assert re.findall(r'<th scope="col"[^>]*>(\w+)</th>', text) == ["Job", "Tags", "Arguments", "Priority"]
        assert "vip" in text
        assert "an@example.org" in text
        assert "hunter2" not in text


def test_many_jobs_are_found_further_on(app: Headrace, visit: Visit) -> None:
    """A page looks at so many, says how far it came, and goes on from there."""
    app.enqueue_many(app.queue("long").call("a.b", n) for n in range(6_000))
    last = app.queue("long").enqueue("a.c", 1)
    with visit() as client:
        text = client.get("/jobs", params={"filter": "task:a.c"}).text
        assert rows(text) == []
        looked = re.search(r"Looked at ([\d,]+) of 6,001 jobs", text)
        assert looked
        assert 5_000 <= int(looked[1].replace(",", "")) < 6_000
        further = re.search(r'rel="next" href="([^"]+)">Look further', text)
        assert further
        assert rows(client.get("/jobs" + further[1].replace("&amp;", "&")).text) == [last.id]


def test_one_job_runs_now_is_cloned_and_is_told_of_in_the_audit_log(app: Headrace, visit: Visit) -> None:
    """Each with who, what and how many."""
    job = app.options(queue="mail", delay=600, tags=["vip"]).enqueue("mail.send", 1, to="an@example.org")
    at = f"/jobs/mail/{job.id}"
    with visit() as client:
        assert "it is scheduled for" in client.get(at).text
        assert client.post(at + "/run", headers=OWN).headers["location"] == f"{at}?did=run&n=1"
        assert state(app, "mail", job.id) is State.QUEUED
        assert client.post(at + "/run", headers=OWN).headers["location"] == f"{at}?did=run&n=0"
        form = {"queue": "low", "priority": "5", "arguments": '{"args": [2], "kwargs": {"to": "binh@example.org"}}'}
        made = client.post(at + "/clone", headers=OWN, data=form).headers["location"]
        clone_id = re.fullmatch(r"/jobs/low/(\w+)\?did=clone&n=1", made)
        assert clone_id
        copy = app.job(clone_id[1], queue="low")
        assert (copy.task, copy.args, copy.kwargs) == ("mail.send", [2], {"to": "binh@example.org"})
        record = decode(app.client.run(ops._stored(queue_keys("low"), copy.id)))
        assert (record.priority, record.options and record.options.tags) == (5, ["vip"])
        audit = client.get("/audit").text
        assert re.findall(r"<td>(\w+)</td><td>(\w+)</td><td><code>mail/", audit) == [
            ("ann", "clone"),
            ("ann", "run"),
            ("ann", "run"),
        ]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"arguments": "{not json"}, "no JSON"),
        ({"arguments": '{"args": 1}'}, "are written"),
        ({"priority": "1000"}, "whole number from -100 to 100"),
        ({"delay": "soon"}, "no duration"),
        ({"queue": "no such name"}, "is not allowed"),
        ({"arguments": '{"args": [], "kwargs": {"other": 1}}'}, "missing"),
    ],
)
def test_a_clone_that_cannot_be_is_refused_with_what_was_typed(
    app: Headrace, visit: Visit, form: dict[str, str], message: str
) -> None:
    """Nothing is made; also arguments are checked where the task is known."""

    @app.task(name="mail.send")
    def send(to: str) -> None: ...

    job = send.options(queue="mail").enqueue("an@example.org")
    with visit() as client:
        answer = client.post(f"/jobs/mail/{job.id}/clone", headers=OWN, data={"queue": "mail", "priority": "0", **form})
        assert answer.status_code == 400
        assert message in answer.text
    assert app.client.run(admin.count_jobs(queue_keys("mail"))).records == 1


def test_a_clone_keeps_what_the_one_who_clones_cannot_see(app: Headrace, visit: Visit) -> None:
    """Hidden fields stay as they were when others are edited; who sees no arguments clones them as they are."""
    job = app.queue("mail").enqueue("mail.send", login={"user": "an", "password": "hunter2"})
    at = f"/jobs/mail/{job.id}/clone"
    with visit() as client:
        text = client.get(at).text
        assert "hunter2" not in text
        assert "•••" in text
        form = {
            "queue": "edited",
            "priority": "0",
            "arguments": '{"args": [], "kwargs": {"login": {"user": "binh", "password": "•••"}}}',
        }
        client.post(at, headers=OWN, data=form)
    with visit(Access("bob", frozenset({Right.READ, Right.INSERT_JOBS}))) as client:
        assert "textarea" not in client.get(at).text
        client.post(at, headers=OWN, data={**form, "queue": "same"})
    calls = {}
    for name in ("edited", "same"):
        (row,) = app.client.run(admin.list_jobs(queue_keys(name), (State.QUEUED,))).rows
        calls[name] = app.job(row.id, queue=name).kwargs["login"]
    assert calls == {
        "edited": {"user": "binh", "password": "hunter2"}, "same": {"user": "an", "password": "hunter2"},
    }  # fmt: skip


def test_ticked_jobs_are_shown_with_their_number_before_anything_is_done(app: Headrace, visit: Visit) -> None:
    """Then each is acted on; those that cannot be are not counted."""
    jobs = [app.queue("mail").enqueue("mail.send", n) for n in range(3)]
    names = [f"mail/{job.id}" for job in jobs]
    with visit() as client:
        asked = client.post("/bulk/cancel/ask", headers=OWN, data={"job": names})
        assert "Cancel 3 jobs?" in asked.text
        assert state(app, "mail", jobs[0].id) is State.QUEUED
        jobs[0].cancel()
        done = client.post("/bulk/cancel/ticked", headers=OWN, data={"job": [*names, "mail/none"]})
        assert done.headers["location"] == "/jobs?did=cancel&n=2"
        assert {state(app, "mail", job.id) for job in jobs} == {State.CANCELLED}
        assert client.post("/bulk/cancel/ask", headers=OWN, data={}).status_code == 404
        assert "<td>cancel</td><td><code>4: mail/" in client.get("/audit").text


def go_on(client: Visitor, at: str, form: dict[str, str]) -> None:
    assert client.post(at, headers=OWN, data=form).headers["location"] == at


def test_all_that_match_are_counted_first_and_done_in_steps(app: Headrace, visit: Visit) -> None:
    """What comes later is not touched; each step is noted with how many; what was done once is not done again."""
    app.enqueue_many(app.queue("mail").call("mail.send", n) for n in range(1_200))
    kept = app.queue("mail").enqueue("mail.sort", 1)
    with visit() as client:
        at = client.post("/bulk/cancel", headers=OWN, data={"filter": "task:mail.send state:queued"}).headers[
            "location"
        ]
        for _ in range(10):
            text = client.get(at).text
            if "Counting" not in text:
                break
            go_on(client, at, {})
        assert "Cancel 1,200 jobs?" in text
        with visit(Access.read("bob")) as reader:
            assert reader.get(at).status_code == 403
        late = app.queue("mail").enqueue("mail.send", 1)
        assert app.client.run(admin.count_jobs(queue_keys("mail"))).done == 0
        assert client.post(at, headers=OWN, data={"count": "7"}).status_code == 404
        for _ in range(50):
            go_on(client, at, {"count": "1200"})
            text = client.get(at).text
            if "Done:" in text:
                break
        assert "Done: 1,200." in text
        assert state(app, "mail", kept.id) is state(app, "mail", late.id) is State.QUEUED
        notes = re.findall(
            r"<td>bulk_cancel</td><td><code>task:mail.send state:queued \(1200 found\)</code></td><td class=\"n\">(\d+)<",
            client.get("/audit").text,
        )
        assert sum(map(int, notes)) == 1_200
        go_on(client, at, {"count": "1200"})
        assert client.get("/bulk/cancel/none").status_code == 404


def test_all_that_failed_alike_are_retried(app: Headrace, visit: Visit) -> None:
    """By error; the buttons of the list carry the filter, with the states that the action is for."""
    app.enqueue_many(app.queue("mail").call("mail.send", n) for n in range(4))
    lost = fail(app, "mail", "connection lost", count=3)
    (other,) = fail(app, "mail", "no such user")
    with visit() as client:
        text = client.get("/jobs", params={"filter": "error:'connection lost'"}).text
        assert set(rows(text)) == set(lost)
        (filter_text,) = re.findall(r'/bulk/retry"><input type="hidden" name="filter" value="([^"]+)"', text)
        filter_text = filter_text.replace("&#39;", "'")
        assert filter_text == "'error:connection lost' state:cancelled,expired,failed"
        at = client.post("/bulk/retry", headers=OWN, data={"filter": filter_text}).headers["location"]
        assert "Retry 3 jobs?" in client.get(at).text
        go_on(client, at, {"count": "3"})
        assert "Done: 3." in client.get(at).text
    assert {state(app, "mail", job_id) for job_id in lost} == {State.QUEUED}
    assert state(app, "mail", other) is State.FAILED


READ_ONLY = [
    "/jobs/mail/{id}/retry", "/jobs/mail/{id}/run", "/jobs/mail/{id}/cancel", "/jobs/mail/{id}/delete", "/jobs/mail/{id}/clone",
    *(f"/bulk/{action}{what}" for action in ("retry", "run", "cancel", "delete") for what in ("", "/ask", "/ticked", "/some-id")),
]  # fmt: skip


@pytest.mark.parametrize("path", READ_ONLY)
def test_who_may_only_read_changes_nothing(app: Headrace, visit: Visit, path: str) -> None:
    """Every write about jobs is refused by the server, from our own page too; and to another page's visitor with all rights."""
    job = app.queue("mail").enqueue("mail.send", 1)
    form = {"job": f"mail/{job.id}", "filter": "state:queued", "queue": "mail", "count": "1"}
    with visit(Access.read("bob")) as client:
        assert client.post(path.format(id=job.id), headers=OWN, data=form).status_code == 403
    with visit() as client:
        assert (
            client.post(path.format(id=job.id), headers={"sec-fetch-site": "cross-site"}, data=form).status_code == 403
        )
    counts = app.client.run(admin.count_jobs(queue_keys("mail")))
    assert (counts.queued, counts.records) == (1, 1)


def test_who_may_only_read_sees_no_button(app: Headrace, visit: Visit) -> None:
    """Neither in the list nor on the job's page, and no form to clone."""
    job = app.queue("mail").enqueue("mail.send", 1)
    with visit(Access.read("bob")) as client:
        for path in ("/jobs?tab=all", f"/jobs/mail/{job.id}"):
            text = client.get(path).text
            assert 'method="post"' not in text.replace('<form id="ticks" method="post"', "")
            assert "/bulk/" not in text
            assert "/clone" not in text
        assert client.get(f"/jobs/mail/{job.id}/clone").status_code == 403


def test_what_may_not_be_seen_cannot_be_found_out_by_searching(app: Headrace, visit: Visit) -> None:
    """Neither arguments and errors without the right to see them, nor fields that are hidden from all."""
    app.queue("mail").enqueue("mail.send", pin="1234", password="hunter2")
    fail(app, "mail", "pin 1234 is wrong")
    eve = Access("eve", frozenset({Right.READ, Right.RETRY_JOBS}))
    with visit(eve) as client:
        for text in ("args.pin:1234", "error:1234", "1234"):
            assert client.get("/jobs", params={"filter": text}).status_code == 403
            assert client.get("/api/v1/jobs", params={"filter": text}).status_code == 403
            assert client.post("/bulk/retry", headers=OWN, data={"filter": text}).status_code == 403
        assert "1234" not in client.get("/jobs?tab=failed&columns=error&columns=arguments&columns=job").text
    with visit() as client:
        assert client.get("/jobs", params={"filter": "args.password:hunter2"}).status_code == 403
        assert rows(client.get("/jobs", params={"filter": "args.pin:1234"}).text)
    with visit(redact=()) as client:
        assert rows(client.get("/jobs", params={"filter": "args.password:hunter2"}).text)


def test_hidden_fields_are_shown_nowhere(app: Headrace, visit: Visit) -> None:
    """By name, also of a positional argument whose task is known, in lists and in results; names are the site's own choice."""

    @app.task(name="pay.charge")
    def charge(card: str, amount: int) -> None: ...

    job = charge.options(queue="pay").enqueue("4111-1111", 5)
    deep = app.queue("pay").enqueue("pay.other", [{"Card_Number": "4222-2222"}], amount=6)
    with visit(redact=["card*"]) as client:
        for each in (job, deep):
            for path in (
                f"/jobs/pay/{each.id}",
                f"/api/v1/jobs/pay/{each.id}",
                f"/jobs/pay/{each.id}/clone",
                "/jobs?tab=all&columns=arguments",
            ):
                text = client.get(path).text
                assert "4111-1111" not in text
                assert "4222-2222" not in text
        assert client.get(f"/api/v1/jobs/pay/{job.id}").json()["call"] == {"args": ["•••", 5], "kwargs": {}}


def test_markup_in_every_field_that_a_producer_controls_is_text(app: Headrace, visit: Visit) -> None:
    """Arguments and their names, tags, description, group, limits, task, error, traceback, log: on every page that shows them."""
    task = "mail.<script>alert('x')</script>"
    job = app.options(
        queue="mail", tags=[XSS], description=XSS, group="<script>alert('g')</script>", unique=f"{XSS[:30]}:1",
    ).enqueue(task, XSS, **{XSS: {XSS: [XSS]}})  # fmt: skip
    plain = app.options(queue="bad").enqueue(task, XSS)
    fail(app, "bad", XSS)
    columns = "&".join(f"columns={name}" for name in ("job", "task", "tags", "arguments", "error"))
    with visit() as client:
        for path in (
            f"/jobs/mail/{job.id}", f"/jobs/bad/{plain.id}", f"/jobs/mail/{job.id}/clone", f"/jobs?tab=all&{columns}", "/jobs?filter=" + XSS,
            f"/jobs?tab=all&filter=tag:{XSS}", f"/jobs?tab=all&{columns}{XSS}",
        ):  # fmt: skip
            text = client.get(path).text
            assert "<script>alert" not in text, path
            assert "<script" not in text.partition("<body>")[2], path
            assert not re.search(r"<[^>]* on\w+=", text), path
        at = client.post(
            "/bulk/cancel", headers=OWN, data={"filter": f'"tag:{XSS}" state:queued'.replace("\"'", "'")}
        ).headers.get("location")
        assert at is None or "<script>alert" not in client.get(unquote(at)).text
        assert "<script>alert" not in client.post("/bulk/cancel/ask", headers=OWN, data={"job": [f"mail/{XSS}"]}).text


def test_a_job_s_page_tells_its_lineage_its_attempts_and_its_facts(app: Headrace, visit: Visit) -> None:
    """Whom it waits for and who waits for it, the worker of an attempt, tags, priority."""
    first = app.queue("mail").enqueue("mail.fetch", 1)
    then = app.options(queue="low", depends_on=first, tags=["vip"], description="sends it").enqueue("mail.send", 1)
    app.queue("bad").enqueue("mail.send", {"deep": {"list": [1, 2]}})
    (bad,) = fail(app, "bad", "no route")
    with visit() as client:
        page = client.get(f"/jobs/low/{then.id}").text
        assert f'href="/jobs/mail/{first.id}"' in page
        assert "it waits for" in page
        assert "vip" in page
        assert "sends it" in page
        assert f'href="/jobs/low/{then.id}"' in client.get(f"/jobs/mail/{first.id}").text
        page = client.get(f"/jobs/bad/{bad}").text
        assert "worker-1" in page
        assert "Traceback: no route" in page
        assert page.count("<details") >= 4


def test_why_a_job_is_not_running_is_told_in_the_language_of_the_page(app: Headrace, visit: Visit) -> None:
    """In English as the command line tells it; instants are on the visitor's clock."""
    english, vietnamese = catalogue("en"), catalogue("vi")
    assert {name.removeprefix("why_"): text for name, text in english.items() if name.startswith("why_")} == TEXTS
    app.enqueue_many(app.queue("mail").call("mail.send", n) for n in range(3))
    job = app.options(queue="mail", expires=900).enqueue("mail.send", 1)
    app.client.run(admin.pause(queue_keys("mail"), XSS))
    for language, words, behind in (
        ("en", english, "it stands behind 3 jobs"),
        ("vi", vietnamese, "việc đứng sau 3 việc"),
    ):
        with visit() as client:
            text = client.get(f"/jobs/mail/{job.id}", headers={"accept-language": language}).text
            assert behind in text
            assert words["why_no_worker"].format(queue="mail") in text
            assert words["why_expires"].partition("{")[0] + "<time" in text
            assert "<script>alert" not in text


def test_every_page_about_jobs_is_whole_in_each_language(app: Headrace, visit: Visit) -> None:
    """List, job, clone, what is asked and what is done, small enough."""
    jobs = [app.queue("mail").enqueue("mail.send", "x" * 10_000) for _ in range(60)]
    everything: AnyAccess = Access.all("ann")
    for language in ("en", "vi"):
        with visit(everything) as client:
            for path in ("/jobs?tab=all", f"/jobs/mail/{jobs[0].id}", f"/jobs/mail/{jobs[0].id}/clone"):
                answer = client.get(
                    path, params={"lang": language} if "?" not in path else None, headers={"accept-language": language}
                )
                assert answer.status_code == 200
                assert f'<html lang="{language}"' in answer.text
                assert answer.text.rstrip().endswith("</html>")
                assert len(answer.content) < 100_000, path
