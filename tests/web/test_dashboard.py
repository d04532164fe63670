"""The dashboard's answers: pages in both languages, rights, writes, what is refused, and when the server is away."""

from __future__ import annotations

import asyncio
import re
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from importlib.resources import files
from string import Formatter
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import redis
from starlette.applications import Starlette
from starlette.routing import Mount
from visitors import OWN, Visitor, visiting

from headrace import Headrace, JobNotFound
from headrace.engine import admin, ops, stats
from headrace.engine.call import command
from headrace.engine.keys import queue_keys
from headrace.engine.stats import Added
from headrace.web import Access, Right, dashboard, data
from headrace.web.attention import attention
from headrace.web.data import Overview
from headrace.web.words import Words

XSS = "<script>alert('x')</script>\"'&{{7*7}}"
PAGES = ("/", "/queues", "/jobs", "/workers", "/schedules", "/flows", "/limits", "/audit")


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found


@pytest.fixture
def visit(app: Headrace) -> Callable[..., AbstractContextManager[Visitor]]:
    return lambda access=None, **options: visiting(app, access, **options)


@pytest.mark.parametrize("language", ["en", "vi"])
def test_every_page_is_whole_in_each_language(app, visit, language):
    """Also where there is nothing to show, and where there is."""
    with visit() as client:
        for _ in range(2):
            for path in PAGES:
                answer = client.get(path, params={"lang": language})
                assert answer.status_code == 200, answer.text
                assert f'<html lang="{language}"' in answer.text
                assert answer.text.rstrip().endswith("</html>")
                assert len(answer.content) < 100_000
            app.queue("mail").enqueue("mail.send", 1)
            client.source.forget()


def test_a_stranger_sees_nothing(visit):
    """Every page, and what programs read, is closed to who has no rights; only life and readiness are told."""
    with visit(Access.none()) as client:
        for path in (*PAGES, "/metrics", "/api/v1/queues", "/jobs/default/x"):
            assert client.get(path).status_code == 401
        assert client.post("/queues/default/pause", headers=OWN).status_code == 401
        assert client.get("/livez").text == client.get("/readyz").text == "ok\n"


def test_read_only_is_the_servers_word(app, visit):
    """The page shows no button, and a write that is sent all the same is refused and changes nothing."""
    job = app.queue("mail").enqueue("mail.send", 1)
    with visit(Access.read("bob")) as client:
        assert 'method="post"' not in client.get("/queues").text + client.get(f"/jobs/mail/{job.id}").text
        for path in (
            "/queues/mail/pause",
            "/queues/mail/purge",
            f"/jobs/mail/{job.id}/cancel",
            f"/jobs/mail/{job.id}/delete",
        ):
            assert client.post(path, headers=OWN, data={"name": "mail"}).status_code == 403
    counts = app.client.run(admin.count_jobs(queue_keys("mail")))
    assert (counts.queued, counts.paused) == (1, None)


def test_read_only_is_refused_each_write_there_is(app, visit):
    """Whatever address takes a write: none is forgotten."""
    app.queue("mail").enqueue("mail.send", 1)
    asgi: Any = dashboard(app, access=lambda _: Access.read("bob"))
    writes = [route.path for route in asgi.routes if "POST" in route.methods]
    assert len(writes) >= 16
    with closing(Visitor(asgi, asgi.state.source)) as client:
        for path in writes:
            answer = client.post(re.sub(r"\{\w+\}", "mail", path), headers=OWN, data={"name": "mail"})
            assert answer.status_code == 403, path
        assert client.call(client.source.run(admin.list_actions(client.source.prefix))) == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
)
def test_a_write_from_another_site_is_refused(app, visit, headers):
    """Whoever's browser sends it; nothing is done."""
    app.queue("mail").enqueue("mail.send", 1)
    with visit() as client:
        assert client.post("/queues/mail/pause", headers=headers).status_code == 403
    assert app.client.run(admin.count_jobs(queue_keys("mail"))).paused is None


def test_a_browser_without_fetch_metadata_may_write_from_our_origin(app, visit):
    """By its Origin."""
    app.queue("mail").enqueue("mail.send", 1)
    with visit() as client:
        assert client.post("/queues/mail/pause", headers={"origin": "http://testserver"}).status_code == 303


def test_what_operators_do_happens_is_told_and_is_noted(app, visit):
    """Pause, resume, cancel, retry, delete, purge: each answers with how many it changed, and stands in the audit log."""
    app.queue("mail").enqueue("mail.send", 1)
    job = app.queue("mail").enqueue("mail.send", 2)
    with visit() as client:

        def do(path: str, **form: str) -> str:
            answer = client.post(path, headers=OWN, data=form)
            assert answer.status_code == 303, answer.text
            return answer.headers["location"]

        assert do("/queues/mail/pause", reason="provider is down") == "/queues?did=pause&n=1"
        assert app.client.run(admin.count_jobs(queue_keys("mail"))).paused == "provider is down (ann)"
        assert "provider is down" in client.get("/queues").text
        assert do("/queues/mail/resume") == "/queues?did=resume&n=1"
        assert do("/queues/mail/resume") == "/queues?did=resume&n=0"
        assert do(f"/jobs/mail/{job.id}/cancel").endswith("did=cancel&n=1")
        assert do(f"/jobs/mail/{job.id}/retry").endswith("did=retry&n=1")
        assert do(f"/jobs/mail/{job.id}/delete") == "/jobs?did=delete&n=1"
        with pytest.raises(JobNotFound):
            app.job(job.id, queue="mail")
        assert client.post("/queues/mail/purge", headers=OWN, data={"name": "other"}).status_code == 400
        assert do("/queues/mail/purge", name="mail") == "/queues?did=purge&n=1"
        audit = client.get("/audit").text
        assert re.findall(r"<td>(\w+)</td><td><code>mail", audit) == [
            "purge", "delete", "retry", "cancel", "resume", "resume", "pause",
        ]  # fmt: skip
        assert "Deleted: 1." in client.get("/jobs?did=delete&n=1").text


def test_what_jobs_say_is_never_markup(app, visit):
    """Arguments, reasons, ids in the address: all are text."""
    job = app.queue("mail").enqueue("mail.send", XSS, key=XSS)
    with visit() as client:
        client.post("/queues/mail/pause", headers=OWN, data={"reason": XSS})
        for path in (f"/jobs/mail/{job.id}", "/queues", "/", "/audit", "/jobs?queue=mail&tab=queued"):
            text = client.get(path).text
            assert "<script>alert" not in text
            assert "49" not in re.findall(r"&#39;&amp;(.*?)<", text)
        assert "&lt;script&gt;" in client.get("/queues").text
        for path in ("/?id=" + XSS, "/jobs?queue=" + XSS, "/jobs?tab=" + XSS, "/jobs?cursor=" + XSS, "/?span=" + XSS):
            answer = client.get(path)
            assert answer.status_code in (200, 400, 404)
            assert "<script>alert" not in answer.text


def test_every_answer_forbids_what_is_not_ours(visit):
    """A strict policy without unsafe-*; no style or script stands in a page."""
    with visit() as client:
        for path in (*PAGES, "/jobs/mail/none", "/metrics", "/api/v1/queues"):
            answer = client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert not re.search(r"<style|style=|<script(?! type=\"module\" src)| on\w+=", answer.text)


def test_files_are_kept_for_ever_under_the_hash_of_their_contents(visit):
    """Another hash is not found: an old page does not get new files. They stay small."""
    with visit() as client:
        found = re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get("/").text)
        assert len(found) == 2
        for path in found:
            answer = client.get(path)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
        assert client.get("/static/0000/site.css").status_code == 404
    sizes: dict[str, int] = {}
    for file in files("headrace.web").joinpath("static").iterdir():
        kind = file.name.rpartition(".")[2]
        sizes[kind] = sizes.get(kind, 0) + len(file.read_bytes())
    assert sizes["js"] <= 40_000
    assert sizes["css"] <= 20_000


def test_an_unchanged_page_is_not_sent_again(visit):
    """304 by its ETag; to whoever has another, the page comes."""
    with visit() as client:
        first = client.get("/workers").headers["etag"]
        assert client.get("/workers", headers={"if-none-match": first}).status_code == 304
        assert client.get("/workers", headers={"if-none-match": '"other"'}).status_code == 200


def test_many_viewers_cost_what_one_does(app, visit):
    """Thirty at once: the server is asked once."""
    app.queue("mail").enqueue("mail.send", 1)
    with visit() as client:
        source = client.source
        asked = []
        run = source.run

        async def counting(op: Any) -> Any:
            asked.append(op)
            return await run(op)

        async def all_at_once() -> None:
            source.run = counting
            await asyncio.gather(*(source.overview() for _ in range(30)))
            source.run = run

        client.call(all_at_once())
        assert len(asked) == 5  # names, counts, who is oldest, workers, the server's health


def test_a_mounted_dashboard_links_below_its_path(app):
    """Behind a prefix no link leaves it."""
    job = app.queue("mail").enqueue("mail.send", 1)
    inner: Any = dashboard(app, access=lambda _: Access.all())
    with closing(Visitor(Starlette(routes=[Mount("/ops/jobs", inner)]), inner.state.source)) as client:
        for path in ("/", "/queues", f"/jobs/mail/{job.id}"):
            text = client.get("/ops/jobs" + path).text
            found = re.findall(r'(?:href|src|action)="(/[^"]*)"', text)
            assert found
            assert all(address.startswith("/ops/jobs/") for address in found), found
        answer = client.post("/ops/jobs/queues/mail/pause", headers=OWN)
        assert answer.headers["location"].startswith("/ops/jobs/queues?")


def test_without_the_right_to_see_arguments_they_are_not_sent(app, visit):
    """Neither on the page nor by the API."""
    job = app.queue("mail").enqueue("mail.send", "a-secret")
    with visit(Access("eve", frozenset({Right.READ}))) as client:
        assert "a-secret" not in client.get(f"/jobs/mail/{job.id}").text
        assert "a-secret" not in client.get(f"/api/v1/jobs/mail/{job.id}").text
    with visit() as client:
        assert "a-secret" in client.get(f"/jobs/mail/{job.id}").text


def test_long_lists_come_page_by_page(app, visit):
    """Each job once, by following the links."""
    ids = {app.queue("mail").enqueue("mail.send", n).id for n in range(120)}
    seen: list[str] = []
    with visit() as client:
        path = "/jobs?queue=mail&tab=queued"
        while path:
            text = client.get(path).text
            seen += re.findall(r'<tr id="job-([^"]+)"', text)
            following = re.search(r'rel="next" href="([^"]+)"', text)
            path = "/jobs" + following[1].replace("&amp;", "&") if following else ""
    assert len(seen) == 120
    assert set(seen) == ids


def test_the_search_finds_a_job_in_any_queue(app, visit):
    """By its id."""
    job = app.queue("mail").enqueue("mail.send", 1)
    with visit() as client:
        assert client.get(f"/?id={job.id}").headers["location"] == f"/jobs/mail/{job.id}"
        assert client.get("/?id=nobody").status_code == 404


def test_programs_read_metrics_and_json(app, visit):
    """Prometheus text in base units, and the API's stable keys."""
    app.queue("mail").enqueue("mail.send", 1)
    queue = queue_keys("mail")
    app.client.run(
        stats.tally(queue, [Added(0, 'od"d', {"succeeded": 2, "r60": 2, "run_us": 60_000, "w8": 2, "wait_us": 20})])
    )
    with visit() as client:
        text = client.get("/metrics").text
        for line in (
            'headrace_jobs_enqueued_total{queue="mail"} 1',
            'headrace_attempts_total{queue="mail",task="od\\"d",outcome="success"} 2',
            'headrace_job_run_seconds_count{queue="mail",task="od\\"d"} 2',
            'headrace_job_run_seconds_bucket{queue="mail",task="od\\"d",le="+Inf"} 2',
            'headrace_queue_jobs{queue="mail",state="queued"} 1',
            'headrace_queue_paused{queue="mail"} 0',
        ):
            assert line in text.splitlines()
        assert client.get("/api/v1/queues").json()[0]["jobs"]["queued"] == 1
        assert client.get("/api/v1/jobs?queue=mail&tab=queued").json()["jobs"][0]["task"] == "mail.send"
        assert client.get("/api/v1/scale/mail").json()["queued"] == 1
        assert client.get("/api/v1/scale/none").status_code == 404


def test_the_overview_tells_what_needs_attention(app, visit):
    """Jobs that nobody runs, and a queue that is paused."""
    app.queue("mail").enqueue("mail.send", 1)
    with visit() as client:
        assert "Queue mail has 1 waiting and no worker." in client.get("/").text
        client.post("/queues/mail/pause", headers=OWN, data={"reason": "holiday"})
        assert re.search(r"Queue mail has been paused for [\d.]+ m?s: holiday \(ann\)", client.get("/").text)


def test_a_server_that_fills_up_and_clocks_that_differ_need_attention() -> None:
    """From 90 % of the memory, and from a second."""
    well = Overview([], [], {}, memory_share=0.89, clock_apart_s=-0.9)
    assert attention(well) == []
    ill = Overview([], [], {}, memory_share=0.93, clock_apart_s=-75.0)
    assert attention(ill) == [("needs_memory", {"share": "93%"}), ("needs_clock", {"span": "1.25 min"})]


def test_the_servers_memory_is_seen(app, visit, valkey):
    """What it has taken of what it may take."""
    app.queue("mail").enqueue("mail.send", 1)
    admin_call = command("CONFIG", "SET", "maxmemory", 1_000_000_000, decode=lambda _: None)
    app.client.run(admin_call)
    try:
        with visit() as client:
            share = client.call(client.source.overview()).memory_share
        assert share is not None and 0 < share < 0.5
    finally:
        app.client.run(command("CONFIG", "SET", "maxmemory", 0, decode=lambda _: None))
    with visit() as client:
        assert client.call(client.source.overview()).memory_share is None


def test_a_queue_tells_its_pace_and_when_it_is_empty(app, visit):
    """By the last five whole minutes: in and out a minute, and how long what is queued takes at that pace."""
    queue = queue_keys("mail")
    app.queue("mail").enqueue("mail.send", 1)
    app.client.run(
        stats.tally(queue, [Added(ago, "", {"enqueued": 60, "succeeded": 80, "failed": 10}) for ago in range(1, 9)])
    )
    with visit() as client:
        page = client.get("/queues?lang=en").text
        assert "<dd>60 / 90</dd>" in page
        assert "<dt>empty in</dt><dd>2 s</dd>" in page
        app.client.run(stats.tally(queue, [Added(ago, "", {"enqueued": 100}) for ago in range(1, 9)]))
        client.source.forget()
        assert "it grows" in client.get("/queues?lang=en").text


def test_every_page_tells_how_many_jobs_stand_where(app, visit):
    """In its head; what is refused says nothing."""
    app.queue("mail").enqueue("mail.send", 1)
    with visit() as client:
        for path in PAGES:
            assert re.search(r'id="totals".*<b>1</b> queued', client.get(path + "?lang=en").text), path
    with visit(Access("eve", frozenset({Right.READ}))) as client:
        assert 'id="totals"' not in client.post("/queues/mail/pause", headers=OWN).text


def test_what_is_read_again_and_again_costs_at_most_five_commands_a_second(app, visit, valkey, monkeypatch):
    """However many queues, viewers and pages: counted on the server, over ten minutes of a clock that the test moves."""
    for number in range(4):
        app.queue(f"q{number}").enqueue("mail.send", 1)
    now_s = 1_000.0
    monkeypatch.setattr(data, "time", SimpleNamespace(monotonic=lambda: now_s, time=time.time))
    paths = ("/", "/?span=24h", "/queues", "/workers", "/schedules", "/limits", "/flows", "/audit", "/jobs")
    with visit() as client, closing(redis.Redis.from_url(valkey.url)) as server:
        for path in paths:
            client.get(path)
        with server.monitor() as monitor:
            for _ in range(100):
                now_s += 2.0
                for path in paths:
                    assert client.get(path).status_code == 200
            server.ping()
            sent = Counter[str]()
            while (seen := monitor.next_command())["command"] != "PING":
                sent[seen["command"].split()[0]] += seen["client_type"] != "lua"
    assert 3.0 <= sum(sent.values()) / 200 <= 5.0, sent


def test_a_worker_shows_how_many_attempts_it_has_made(app, visit):
    """And how many of them failed; one that tells no such thing shows none."""
    for worker_id, told in (("w1", {"succeeded": 40, "failed": 2}), ("w2", {})):
        app.client.run(ops.beat(app.prefix, worker_id, msgspec.msgpack.encode({"queues": ["mail"], **told})))
    with visit() as client:
        facts = re.findall(r"<dt>(?:attempts|failed attempts)</dt><dd>(\d+)</dd>", client.get("/workers").text)
    assert facts == ["42", "2", "0", "0"]


def test_a_page_takes_no_more_commands_before_many_jobs(app, visit, valkey):
    """Those that scripts call are counted, too: what a page costs does not depend on how many jobs there are."""
    send = app.task(queue="mail", name="mail.send")(lambda number: None)
    sent: list[dict[str, int]] = []
    for more in (60, 4_000):
        app.enqueue_many(send.call(n) for n in range(more))
        with visit() as client, closing(redis.Redis.from_url(valkey.url)) as server:
            found = {}
            for path in (*PAGES, "/jobs?queue=mail&tab=queued", "/metrics"):
                client.get(path)  # connections are made, and scripts loaded
                client.source.forget()
                with server.monitor() as monitor:
                    assert client.get(path).status_code == 200
                    server.ping()
                    found[path] = 0
                    while monitor.next_command()["command"] != "PING":
                        found[path] += 1
            sent.append(found)
    assert sent[0] == sent[1]
    assert all(count < 200 for count in sent[0].values()), sent[0]


def test_a_server_that_is_away_is_told_of_with_its_password_masked() -> None:
    """503, a page that says so in words; life is told, readiness is not."""
    with Headrace("redis://:s3same@127.0.0.1:1/0") as app, visiting(app) as client:
        answer = client.get("/queues")
        assert answer.status_code == 503
        assert "The server does not answer" in answer.text
        assert "s3same" not in answer.text
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200


def test_only_names_that_were_allowed_reach_it(app, visit):
    """A page of another site that points its name here gets nothing."""
    with visit(hosts=("localhost",)) as client:
        assert client.get("/", headers={"host": "evil.example"}).status_code == 421
        assert client.get("/", headers={"host": "localhost:8787"}).status_code == 200


def test_numbers_are_written_as_the_language_does() -> None:
    """12,408 and 12.408."""
    assert (Words("en").number(12_408), Words("vi").number(12_408)) == ("12,408", "12.408")


def test_both_catalogues_have_the_same_keys_and_places() -> None:
    """And no text is empty."""
    found = {
        name: tomllib.loads(files("headrace.web").joinpath(f"words/{name}.toml").read_text("utf8"))
        for name in ("en", "vi")
    }
    assert found["en"].keys() == found["vi"].keys()
    for key, text in found["en"].items():
        places = [{name for _, name, _, _ in Formatter().parse(each) if name} for each in (text, found["vi"][key])]
        assert text
        assert found["vi"][key]
        assert places[0] == places[1], key
