"""The pages of the analytics system as a person sees them, in a real browser: `make screenshots` keeps the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from browser import assert_fits, browsing, find_chromium, photograph

from systems.analytics.seed import seed_views
from systems.analytics.telling import VARIABLE as TELLS
from systems.common.catalogue import SYSTEMS, SYSTEMS_FOLDER
from systems.common.database import make_engine
from systems.common.migrate import migrate
from systems.common.programs import web_server, worker
from systems.notification.outside import outside
from systems.notification.unsubscribing import PUBLIC_URL, SECRET

ANALYTICS, NOTIFICATION = (
    next(system for system in SYSTEMS if system.name == name) for name in ("analytics", "notification")
)
DAYS = 7


@pytest.fixture
def told(environment: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """As all systems are told when they start together: who asked for a report can be told of it."""
    find_chromium()
    with outside(tmp_path) as found:
        yield environment | found | {SECRET: "the secret of the tests", TELLS: "notification"}


@pytest.fixture
def front_url(url: str, told: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """All systems behind their front page, over some thousand views; no workers yet."""
    migrate()
    yesterday = datetime.now(UTC).date() - timedelta(1)
    engine = make_engine("tracking")
    seed_views(engine, views=20_000, days=DAYS, last=yesterday, seed=11)
    engine.dispose()
    with web_server("systems.common.front:web", log=tmp_path / "web.log", environment=told) as (_, url):
        yield url


def test_a_report_is_asked_for_watched_and_read_in_a_browser(
    front_url: str, told: dict[str, str], tmp_path: Path
) -> None:
    """The form as it stands; a bar while no worker runs; the report, without a touch, when one has made it; in Vietnamese too."""
    folder = SYSTEMS_FOLDER / "analytics"
    with browsing(size=(1000, 900)) as page:
        page.goto(f"{front_url}/analytics/")
        assert_fits(page)
        page.get_by_role("button", name="Build it").click()
        page.locator("#word", has_text="Counting").wait_for()
        page.locator(".numbers", has_text=f"0 / {DAYS}").wait_for()
        assert_fits(page)
        log = tmp_path / "worker.log"
        with worker(ANALYTICS.tasks, *ANALYTICS.worker, log=log, environment=told):
            report = page.frame_locator("iframe")
            report.get_by_text("Views by day").wait_for()
        assert_fits(page)
        photograph(page, folder / "page.png", tmp_path)
        page.get_by_role("link", name="Tiếng Việt").click()
        page.frame_locator("iframe").get_by_text("Lượt xem theo ngày").wait_for()
        page.get_by_role("link", name="Mọi báo cáo").click()
        page.get_by_role("link", name=" đến ").first.wait_for()


def test_who_asked_for_a_report_is_told_when_it_is_ready(front_url: str, told: dict[str, str], tmp_path: Path) -> None:
    """The field of the form; then the notice's journey, and the link in the mail leads to the report."""
    with psycopg.connect(f"{told['DATABASE_URL']}&options=-csearch_path%3Dnotification") as connection:
        connection.execute("UPDATE person SET quiet_begins = NULL, quiet_ends = NULL")
    mine = told | {PUBLIC_URL: f"{front_url}/notification"}
    with ExitStack() as stack:
        for system in (ANALYTICS, NOTIFICATION):
            log = tmp_path / f"{system.name}.log"
            stack.enter_context(worker(system.tasks, *system.worker, log=log, environment=mine))
        world = stack.enter_context(httpx.Client(base_url=told["NOTIFICATION_SERVICES"], timeout=60.0))
        world.put("behaviour/mail", json={"fails": 0.0}).raise_for_status()
        page = stack.enter_context(browsing())
        page.goto(f"{front_url}/analytics/")
        page.locator("input[name=pages]").fill("/products")
        page.get_by_label("Tell (a user)").fill("ann")
        assert_fits(page)
        page.get_by_role("button", name="Build it").click()
        page.frame_locator("iframe").get_by_text("Views by day").wait_for()
        report = page.url.partition("?")[0]
        page.goto(f"{front_url}/notification/")
        page.locator("#live tbody tr", has_text="Report is ready").get_by_role("link").first.click()
        page.locator("#mail", has_text="sent").wait_for()
        assert_fits(page)
        (mail,) = world.get("ledger/mail", params={"full": True}).json()["all"]
        assert "ann@example.com" == mail["to"] and report in mail["text"]


def test_a_report_is_cancelled_in_a_browser(front_url: str) -> None:
    with browsing() as page:
        page.goto(f"{front_url}/analytics/?lang=vi")
        page.get_by_role("button", name="Lập").click()
        page.get_by_role("button", name="Hủy").click()
        page.locator("#word", has_text="Đã hủy").wait_for()
        assert 0 == page.get_by_role("button", name="Hủy").count()
