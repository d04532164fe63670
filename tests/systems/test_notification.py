"""Notices, whole: a web server and a worker as processes, real PostgreSQL, Valkey and SMTP, and services that are slow, set limits, fail."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, time, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from headrace import Headrace, State
from headrace.engine.keys import queue_keys
from headrace.engine.ops import command
from systems.common.catalogue import SYSTEMS
from systems.common.database import make_engine, upgrade
from systems.common.postgres import EmbeddedPostgres
from systems.common.programs import Program, until, web_server, worker
from systems.notification.kinds import read_asked
from systems.notification.mail import message_id
from systems.notification.models import SCHEMA, Base
from systems.notification.outside import outside
from systems.notification.providers import read_retry_after
from systems.notification.quiet import quiet_until
from systems.notification.tasks import DELIVERIES, NOTICES, RETRIES
from systems.notification.unsubscribing import PUBLIC_URL, SECRET, Subscription, make_link, read_token

THIS = next(system for system in SYSTEMS if system.name == "notification")
SLOW_S = 60.0
PUBLIC = "https://shop.example.com/a/folder/as/long/as/they/are/in/real/life/notification"


class Lab:
    """The system, what it wrote down, and what arrived outside."""

    def __init__(self, http: httpx.Client, world: httpx.Client, environment: dict[str, str], folder: Path) -> None:
        self.http = http
        self.world = world
        self.app = Headrace(environment["HEADRACE_URL"])
        self.environment = environment
        self.folder = folder

    def ask(self, user: str, kind: str = "order_shipped", **values: str) -> str:
        answer = self.http.post("notices", json={"user": user, "kind": kind, "values": values})
        assert 202 == answer.status_code, answer.text
        return str(answer.json()["id"])

    def order(self, user: str, order: object) -> str:
        return self.ask(user, order=str(order), carrier="GHN")

    @contextmanager
    def worker(self) -> Iterator[Program]:
        log = self.folder / f"worker-{uuid.uuid4().hex}.log"
        with worker(THIS.tasks, *THIS.worker, log=log, environment=self.environment) as program:
            yield program

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.environment["DATABASE_URL"], options=f"-csearch_path={SCHEMA}") as connection:
            found = connection.execute(statement)  # type: ignore[arg-type]
            return found.fetchall() if found.description else []

    def statuses(self) -> dict[str, int]:
        return dict(self.rows("SELECT status, count(*)::int FROM delivery GROUP BY status"))

    def steps(self, delivery: str) -> list[str]:
        return [what for (what,) in self.rows(f"SELECT what FROM step WHERE delivery = '{delivery}' ORDER BY number")]

    def wait_until_none_waits(self, deliveries: int) -> None:
        def is_done() -> bool:
            found = self.statuses()
            return sum(found.values()) == deliveries and not found.get("waiting")

        until(is_done, SLOW_S, f"the ends of {deliveries} deliveries: {self.statuses()}")

    def behave(self, channel: str, **behaviour: object) -> None:
        self.world.put(f"behaviour/{channel}", json=behaviour).raise_for_status()

    def ledger(self, channel: str) -> dict[str, Any]:
        return dict(self.world.get(f"ledger/{channel}", params={"full": True}).raise_for_status().json())

    def arrived(self, channel: str) -> list[dict[str, str]]:
        return list(self.ledger(channel)["all"])

    def texts(self, channel: str) -> list[str]:
        return [each["text"] for each in self.arrived(channel)]


@pytest.fixture(scope="module")
def told(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the programs of this system are told."""
    with outside(tmp_path_factory.mktemp("outside")) as found:
        yield environment | found | {SECRET: "the secret of the tests", PUBLIC_URL: PUBLIC}


@pytest.fixture(scope="module")
def notification_web(told: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    upgrade(SCHEMA, THIS.migrations)
    log = tmp_path_factory.mktemp("notification") / "web.log"
    with web_server("systems.notification.web:web", log=log, environment=told) as (_, url):
        yield url


@pytest.fixture
def lab(notification_web: str, url: str, told: dict[str, str], tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=notification_web, timeout=SLOW_S))
        world = stack.enter_context(httpx.Client(base_url=told["NOTIFICATION_SERVICES"], timeout=SLOW_S))
        lab = Lab(http, world, told, tmp_path)
        stack.enter_context(lab.app)
        lab.rows("TRUNCATE notice, delivery, step, unsubscribed")
        lab.rows("UPDATE person SET quiet_begins = NULL, quiet_ends = NULL, mail = id || '@example.com'")
        for channel in ("mail", "sms", "push"):
            lab.behave(channel, is_down=False, rate=1000, slow_s=0.0, fails=0.0)
            lab.world.delete(f"ledger/{channel}").raise_for_status()
        yield lab


def test_a_notice_goes_every_way_in_the_language_of_its_user(lab: Lab) -> None:
    """Mail by SMTP, SMS and push by HTTP; a user without a telephone number gets the others."""
    ann, chi = lab.order("ann", "A-1"), lab.order("chi", "A-2")
    with lab.worker():
        lab.wait_until_none_waits(5)
    assert {"sent": 5} == lab.statuses()
    assert ["Order A-1 is on its way, with GHN."] == lab.texts("sms")
    assert {"Order A-1 is on its way, with GHN.", "Đơn hàng A-2 đang được GHN giao đến bạn."} == set(lab.texts("push"))
    mails = {each["to"]: each["text"] for each in lab.arrived("mail")}
    assert {"ann@example.com", "chi@example.com"} == set(mails)
    mail = message_from_bytes(mails["chi@example.com"].encode(), policy=default)
    assert isinstance(mail, EmailMessage)
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None and html is not None
    assert "Đơn hàng A-2 đang trên đường đến" == mail["Subject"]
    assert "Chào Chi," in text.get_content() and "Chào Chi," in html.get_content()
    assert ["taken", "sent"] == lab.steps(f"{ann}.sms") == lab.steps(f"{chi}.mail")
    state = lab.http.get(f"notices/{ann}/state").json()
    assert {"mail": "sent", "sms": "sent", "push": "sent"} == {name: way["status"] for name, way in state.items()}


def test_one_click_unsubscribes_and_a_look_at_the_link_does_not(lab: Lab) -> None:
    """RFC 8058: the link stands whole on its line, and a POST to it is enough; what waits of that kind is not sent any more."""
    lab.ask("ann", "weekly_offer", product="Lamp", percent="20")
    lab.ask("ann", "login_code", code="123456")
    with lab.worker():
        lab.wait_until_none_waits(4)
        raw = lab.arrived("mail")[0]["text"].encode()
        lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
        link = next(line for line in lines if line.startswith(b"List-Unsubscribe:")).decode()
        assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in lines
        assert link.startswith(f"List-Unsubscribe: <{PUBLIC}/unsubscribe/") and link.endswith(">")
        path = link.partition(f"{PUBLIC}/")[2].rstrip(">")
        assert Subscription("ann", "offers") == read_token_of(lab, path.rpartition("/")[2])
        assert "Send no more" in lab.http.get(path).text
        lab.behave("push", is_down=True)
        lab.ask("ann", "weekly_offer", product="Chair", percent="10")
        until(lambda: len(lab.arrived("mail")) == 2, SLOW_S, "the mail of the second offer")
        answer = lab.http.post(path, content=b"List-Unsubscribe=One-Click")
        assert 202 == answer.status_code
        until(lambda: lab.rows("SELECT count(*)::int FROM unsubscribed") == [(1,)], SLOW_S, "the worker")
        lab.behave("push", is_down=False)
        lab.ask("ann", "weekly_offer", product="Table", percent="30")
        lab.order("ann", "A-1")
        lab.wait_until_none_waits(11)
    assert {"sent": 8, "skipped": 3} == lab.statuses()
    assert not any("Table" in text or "Chair" in text for text in lab.texts("push"))
    assert 404 == lab.http.post(f"unsubscribe/{path[:-3]}").status_code


def read_token_of(lab: Lab, token: str) -> Subscription | None:
    os.environ[SECRET] = lab.environment[SECRET]
    try:
        return read_token(token)
    finally:
        del os.environ[SECRET]


def test_the_same_notice_is_sent_once_an_hour(lab: Lab) -> None:
    """Who asks again gets the first one, also when it is sent already; other words are another notice."""
    first = lab.order("ann", "A-1")
    assert first == lab.order("ann", "A-1")
    with lab.worker():
        lab.wait_until_none_waits(3)
        asked = {"user": "ann", "kind": "order_shipped", "values": {"carrier": "GHN", "order": "A-1"}}
        assert {"id": first, "is_new": False} == lab.http.post("notices", json=asked).json()
        assert first != lab.order("ann", "A-2")
        lab.wait_until_none_waits(6)
    assert 2 == len(lab.arrived("sms"))


def test_each_user_gets_notices_in_order_whatever_the_provider_does(lab: Lab) -> None:
    """It fails now and then, and answers 429 again and again: what fails is retried, and the next one of that user waits."""
    lab.behave("sms", rate=2, fails=0.25)
    for n in range(6):
        for user in ("ann", "binh", "dan"):
            lab.order(user, f"{user}-{n:02}")
    with lab.worker():
        lab.wait_until_none_waits(3 * 18)
    assert {"sent": 3 * 18} == lab.statuses()
    texts = lab.texts("sms")
    assert 18 == len(texts)
    for user in ("ann", "binh", "dan"):
        mine = [text for text in texts if f"{user}-" in text]
        assert sorted(mine) == mine and 6 == len(mine)
    answers = lab.ledger("sms")["answers"]
    assert answers["429"] and answers["500"] and "repeated" not in answers
    busy = lab.rows("SELECT count(*)::int FROM step WHERE what = 'busy'")[0][0]
    assert busy == answers["429"]


def test_urgent_ones_overtake_and_all_arrive_when_the_provider_is_back(lab: Lab) -> None:
    """A queue of twenty waits for a provider that is down; a code comes last and arrives first. No attempt was charged."""
    lab.behave("sms", is_down=True)
    for n in range(20):
        lab.order(("ann", "binh")[n % 2], f"A-{n:02}")
    with lab.worker():
        until(lambda: lab.statuses().get("sent") == 40, SLOW_S, "what goes the other ways")
        code = lab.ask("ann", "login_code", code="777000")
        until(lambda: "away" in lab.steps(f"{code}.sms"), SLOW_S, "a try of the urgent one")
        assert not lab.arrived("sms")
        lab.behave("sms", is_down=False, rate=20)
        lab.wait_until_none_waits(62)
    texts = lab.texts("sms")
    assert 21 == len(texts)
    assert any("777000" in text for text in texts[:4]), texts[:8]
    assert [] == [job for job in lab.rows("SELECT id FROM delivery WHERE status <> 'sent'")]
    assert 1 == lab.app.job(f"{code}.sms", DELIVERIES).attempt


def test_what_a_provider_will_never_take_is_a_dead_letter_until_it_is_replayed(lab: Lab) -> None:
    """A mailbox that does not exist: one attempt. The address is mended, the page has it tried again, and it arrives."""
    lab.rows("UPDATE person SET mail = 'nobody@example.com' WHERE id = 'chi'")
    notice = lab.order("chi", "A-1")
    with lab.worker():
        lab.wait_until_none_waits(2)
        assert {"sent": 1, "dead": 1} == lab.statuses()
        page = lab.http.get("").text
        assert "550: 5.1.1 nobody has this address" in page and f"replay?delivery={notice}.mail" in page
        until(lambda: lab.app.job(f"{notice}.mail", DELIVERIES).state is State.FAILED, SLOW_S, "the failed job")
        lab.rows("UPDATE person SET mail = 'chi@example.com' WHERE id = 'chi'")
        assert 303 == lab.http.post("replay", params={"delivery": f"{notice}.mail"}).status_code
        until(lambda: lab.statuses() == {"sent": 2}, SLOW_S, "the replayed mail")
    assert ["taken", "dead", "replayed", "sent"] == lab.steps(f"{notice}.mail")
    assert [f"<{message_id(f'{DELIVERIES}/{notice}.mail')}>"] == [each["key"] for each in lab.arrived("mail")]


def test_what_fails_again_and_again_is_dead_and_all_of_it_can_be_replayed(lab: Lab) -> None:
    """The last retry writes down why."""
    lab.behave("push", fails=1.0)
    notice = lab.order("chi", "A-1")
    delivery = f"{notice}.push"
    with lab.worker():

        def is_dead() -> bool:
            """Also where it is due by itself between two looks."""
            hurry(lab, delivery)
            return lab.statuses() == {"sent": 1, "dead": 1}

        until(is_dead, SLOW_S, "the dead letter")
        until(lambda: lab.app.job(delivery, DELIVERIES).state is State.FAILED, SLOW_S, "the failed job")
        lab.behave("push", fails=0.0)
        lab.http.post("replay")
        until(lambda: lab.statuses() == {"sent": 2}, SLOW_S, "the replayed one")
    assert ["taken", *["failed"] * RETRIES, "dead", "replayed", "sent"] == lab.steps(delivery)


def due_now(lab: Lab, job_id: str) -> None:
    """Let it not wait for its time, for which it waits or is about to."""
    until(lambda: lab.app.job(job_id, DELIVERIES).due_at is not None, SLOW_S, "the job waiting for its time")
    hurry(lab, job_id)


def hurry(lab: Lab, job_id: str) -> None:
    """If it waits for its time, let it wait no longer."""
    queue = queue_keys(DELIVERIES)
    lab.app.client.run(command("ZADD", queue.delayed, "XX", 0, job_id, key=queue.delayed, decode=int))
    lab.app.client.run(command("ZADD", queue.wake, 0, "1", key=queue.wake, decode=int))


def test_nothing_rings_at_night_but_what_is_urgent(lab: Lab) -> None:
    """Mail goes at once; an SMS waits for the morning, those after it behind it; in the morning they arrive in order."""
    now = datetime.now(UTC)
    night = ((now - timedelta(hours=1)).time(), (now + timedelta(hours=2)).time())
    lab.rows(f"UPDATE person SET zone = 'UTC', quiet_begins = '{night[0]}', quiet_ends = '{night[1]}' WHERE id = 'dan'")
    first, second = lab.order("dan", "A-1"), lab.order("dan", "A-2")
    with lab.worker():
        until(lambda: len(lab.arrived("mail")) == 2, SLOW_S, "two mails")
        code = lab.ask("dan", "login_code", code="123456")
        until(lambda: lab.statuses().get("sent") == 4, SLOW_S, "the code")
        assert ["123456 is your code, for ten minutes. Tell nobody."] == lab.texts("sms") == lab.texts("push")
        until(lambda: lab.steps(f"{first}.sms") == ["taken", "quiet"], SLOW_S, "the first put off")
        job = lab.app.job(f"{first}.sms", DELIVERIES)
        assert job.due_at is not None and timedelta(hours=1) < job.due_at - now < timedelta(hours=3)
        assert ["taken"] == lab.steps(f"{second}.sms")
        assert "quiet hours, until" in lab.http.get(f"notices/{first}").text
        lab.rows("UPDATE person SET quiet_begins = NULL WHERE id = 'dan'")
        for way in ("sms", "push"):
            due_now(lab, f"{first}.{way}")
        lab.wait_until_none_waits(8)
    for way in ("sms", "push"):
        assert ["A-1", "A-2"] == [text.split()[1] for text in lab.texts(way)[1:]]
    assert ["taken", "sent"] == lab.steps(f"{code}.sms")


@pytest.mark.long
def test_a_worker_that_is_killed_again_and_again_loses_nothing_and_sends_nothing_twice(lab: Lab) -> None:
    """Also when it dies between the provider's answer and the note of it: the provider knows the key."""
    lab.behave("sms", slow_s=0.1)
    for n in range(60):
        lab.order(("ann", "binh", "dan")[n % 3], f"A-{n:02}")
    for part in (10, 25, 40):
        with lab.worker() as program:
            until(lambda part=part: len(lab.arrived("sms")) >= part, SLOW_S, f"{part} of them")
            program.kill()
    with lab.worker():
        lab.wait_until_none_waits(180)
    assert {"sent": 180} == lab.statuses()
    assert 60 == len(lab.arrived("sms")) == len(set(lab.texts("sms")))
    assert 60 == len({each["key"] for each in lab.arrived("mail")})


def test_notices_are_taken_while_the_database_is_away(lab: Lab, postgres: EmbeddedPostgres) -> None:
    """The page still opens and takes them; they go when it is back, in order."""
    with lab.worker():
        postgres.stop()
        try:
            for n in range(3):
                lab.order("ann", f"A-{n}")
            assert "The database is away" in lab.http.get("").text
        finally:
            postgres.start()
        lab.wait_until_none_waits(9)
    assert ["A-0", "A-1", "A-2"] == [text.split()[1] for text in lab.texts("sms")]


def test_a_delivery_whose_job_is_gone_gets_it_back(lab: Lab) -> None:
    """The queue lost its data, say: the book says what is still to be sent. One whose job failed unheard becomes a dead letter."""
    lab.behave("sms", is_down=True)
    gone, cancelled = lab.order("ann", "A-1"), lab.order("dan", "A-2")
    with lab.worker():
        until(lambda: lab.statuses().get("sent") == 4, SLOW_S, "the other ways")
        until(lambda: lab.rows("SELECT count(*)::int FROM step WHERE what = 'away'")[0][0] >= 2, SLOW_S, "tries")
    lab.app.job(f"{gone}.sms", DELIVERIES).delete()
    lab.app.job(f"{cancelled}.sms", DELIVERIES).cancel()
    lab.rows("UPDATE delivery SET changed_at = now() - interval '1 hour'")
    lab.behave("sms", is_down=False)
    job = lab.app.queue(NOTICES).enqueue("systems.notification.tasks.look_after")
    with lab.worker():
        assert {"looked at": 2, "enqueued again": 1, "dead": 1} == job.result(SLOW_S)
        lab.wait_until_none_waits(6)
    assert {"sent": 5, "dead": 1} == lab.statuses()
    assert ["Order A-1 is on its way, with GHN."] == lab.texts("sms")


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"user": "ann", "kind": "poem", "values": {}}, "kind: expected one of login_code"),
        ({"user": "ann", "kind": "login_code", "values": {}}, "login_code needs code; got none"),
        ({"user": "", "kind": "login_code", "values": {"code": "1"}}, "user: expected 1 to 60"),
        ({"user": "ann", "kind": "login_code", "values": {"code": "1\r\nBcc: b@example.com"}}, "code: expected 1 to 300"),
        ({"user": "ann", "kind": "report_ready", "values": {"report": "1", "url": "javascript:x"}}, "url: expected http"),
        ({"user": "ann"}, "kind"),
    ],
)  # fmt: skip
def test_what_is_no_notice_is_refused_and_says_why(lab: Lab, sent: dict[str, Any], says: str) -> None:
    answer = lab.http.post("notices", json=sent)
    assert (422, True) == (answer.status_code, says in answer.json()["error"]), answer.text


def test_a_notice_to_nobody_says_so_on_its_page(lab: Lab) -> None:
    notice = lab.order("zoe", "A-1")
    assert "It waits to be taken" in lab.http.get(f"notices/{notice}").text
    with lab.worker():
        until(lambda: lab.app.job(notice, NOTICES).state is State.FAILED, SLOW_S, "the refusal")
    assert "there is no user &#39;zoe&#39;" in lab.http.get(f"notices/{notice}").text
    assert 404 == lab.http.get("notices/none").status_code


def test_the_migrations_make_what_the_models_say(notification_web: str) -> None:
    """And once made, they are not made again."""
    upgrade(SCHEMA, THIS.migrations)
    engine = make_engine(SCHEMA)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert [] == compare_metadata(context, Base.metadata)
    engine.dispose()


@pytest.mark.parametrize(
    ("now", "until_then"),
    [
        ("2026-06-01T14:59", None), ("2026-06-01T15:00", "2026-06-02T00:00"), ("2026-06-01T23:59", "2026-06-02T00:00"),
        ("2026-06-02T00:00", None),
    ],
)  # fmt: skip
def test_quiet_hours_are_of_the_users_clock_and_go_over_midnight(now: str, until_then: str | None) -> None:
    """From 22 to 7 in Ho Chi Minh City, seven hours ahead of UTC."""
    found = quiet_until(datetime.fromisoformat(now).replace(tzinfo=UTC), "Asia/Ho_Chi_Minh", time(22), time(7))
    assert found == (None if until_then is None else datetime.fromisoformat(until_then).replace(tzinfo=UTC))


def test_quiet_hours_within_a_day_and_none() -> None:
    noon = datetime(2026, 6, 1, 12, 30, tzinfo=UTC)
    assert datetime(2026, 6, 1, 14, tzinfo=UTC) == quiet_until(noon, "UTC", time(12), time(14))
    assert quiet_until(noon, "UTC", time(14), time(12)) is None
    assert quiet_until(noon, "UTC", time(12), time(12)) is None and quiet_until(noon, "UTC", None, time(7)) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("Mon, 01 Jun 2026 12:00:30 GMT", 30), ("Mon, 01 Jun 2026 11:00:00 GMT", 0.1), ("soon", 1), ("99999", 3600)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert seconds == read_retry_after(value, datetime(2026, 6, 1, 12, tzinfo=UTC))


def test_a_link_to_unsubscribe_cannot_be_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor used for another user; and without a secret none is made."""
    monkeypatch.setenv(PUBLIC_URL, PUBLIC)
    with pytest.raises(RuntimeError, match=f"set {SECRET}"):
        make_link(Subscription("ann", "offers"))
    monkeypatch.setenv(SECRET, "one")
    token = make_link(Subscription("ann", "offers")).rpartition("/")[2]
    assert Subscription("ann", "offers") == read_token(token)
    monkeypatch.setenv(SECRET, "another")
    assert read_token(token) is None


def test_values_in_another_order_are_the_same_notice() -> None:
    one = read_asked("ann", "order_shipped", {"order": "1", "carrier": "b"})
    other = read_asked("ann", "order_shipped", {"carrier": "b", "order": "1"})
    assert list(one.values) == list(other.values)
