"""The pages of the notification system as a person sees them, in a real browser: `make screenshots` keeps the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest
from browser import assert_fits, browsing, find_chromium, photograph

from systems.common.catalogue import SYSTEMS, SYSTEMS_FOLDER
from systems.common.migrate import migrate
from systems.common.programs import until, web_server, worker
from systems.notification.outside import outside
from systems.notification.unsubscribing import PUBLIC_URL, SECRET

THIS = next(system for system in SYSTEMS if system.name == "notification")
FOLDER = SYSTEMS_FOLDER / "notification"
SLOW_S = 60.0


@pytest.fixture
def told(environment: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    find_chromium()
    with outside(tmp_path) as found:
        yield environment | found | {SECRET: "the secret of the tests"}


def test_a_notice_is_sent_watched_and_unsubscribed_from_in_a_browser(
    url: str, told: dict[str, str], tmp_path: Path
) -> None:
    """A provider is taken down by a button, a notice sent by the form: its journey is watched, in both languages, until all is sent."""
    migrate()
    database = f"{told['DATABASE_URL']}&options=-csearch_path%3Dnotification"
    with psycopg.connect(database) as connection:
        connection.execute("TRUNCATE notice, delivery, step, unsubscribed")
        connection.execute("UPDATE person SET quiet_begins = NULL, quiet_ends = NULL")
        connection.execute("UPDATE person SET mail = 'nobody@example.com' WHERE id = 'chi'")
    with ExitStack() as stack:
        server = web_server("systems.common.front:web", log=tmp_path / "web.log", environment=told)
        _, front = stack.enter_context(server)
        mine = told | {PUBLIC_URL: f"{front}/notification"}
        stack.enter_context(worker(THIS.tasks, *THIS.worker, log=tmp_path / "worker.log", environment=mine))
        world = stack.enter_context(httpx.Client(base_url=told["NOTIFICATION_SERVICES"], timeout=SLOW_S))
        for channel in ("mail", "sms", "push"):
            world.put(f"behaviour/{channel}", json={"fails": 0.0}).raise_for_status()
        page = stack.enter_context(browsing(size=(1000, 900)))
        page.goto(f"{front}/notification/")
        page.locator("#sms").get_by_role("button", name="Take it down").click()
        page.locator("#sms", has_text="is down").wait_for()
        for user, order in (("chi", "A-1040"), ("binh", "A-1041"), ("ann", "A-1042")):
            page.goto(f"{front}/notification/")
            page.locator("select[name=user]").select_option(user)
            page.locator("input[name=order]").fill(order)
            page.locator("input[name=carrier]").fill("GHN")
            page.get_by_role("button", name="Send").click()
            page.locator("#mail", has_text="given up" if user == "chi" else "sent").wait_for()
        page.locator("#sms", has_text="the provider was away").wait_for()
        assert_fits(page)
        page.get_by_role("link", name="All notices").click()
        page.locator("#sms", has_text="is down").wait_for()
        page.get_by_text("550: 5.1.1 nobody has this address").wait_for()
        assert_fits(page)
        photograph(page, FOLDER / "page.png", tmp_path)
        page.locator("#live tbody a").first.click()
        page.get_by_role("link", name="Tiếng Việt").click()
        page.locator("#sms", has_text="nhà cung cấp không trả lời").wait_for()
        world.put("behaviour/sms", json={"is_down": False}).raise_for_status()
        page.locator("h2", has_text="SMS đã gửi").wait_for()
        assert_fits(page)
        photograph(page, FOLDER / "journey.vi.png", tmp_path)
        page.get_by_role("link", name="Mọi thông báo").click()
        page.get_by_role("button", name="Gửi lại", exact=True).wait_for()
        assert_fits(page)
        photograph(page, FOLDER / "page.vi.png", tmp_path)
        mails = world.get("ledger/mail", params={"full": True}).json()["all"]
        lines = next(mail["text"] for mail in mails if mail["to"] == "ann@example.com").splitlines()
        link = next(line for line in lines if line.startswith("List-Unsubscribe:")).partition("<")[2].rstrip(">")
        page.goto(link)
        page.get_by_role("button", name="Send no more notices of this kind").click()
        page.get_by_text("Done: no more of these will be sent.").wait_for()
        assert_fits(page)

        def is_unsubscribed() -> bool:
            with psycopg.connect(database) as connection:
                return connection.execute("SELECT person, category FROM unsubscribed").fetchall() == [("ann", "orders")]

        until(is_unsubscribed, SLOW_S, "the worker")
