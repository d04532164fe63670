"""The pages of the analytics system as a person sees them, in a real browser: `make screenshots` keeps the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from browser import assert_fits, browsing, find_chromium, photograph

from systems.analytics.seed import seed_views
from systems.common.catalogue import SYSTEMS, SYSTEMS_FOLDER
from systems.common.database import make_engine
from systems.common.migrate import migrate
from systems.common.programs import web_server, worker

ANALYTICS = next(system for system in SYSTEMS if system.name == "analytics")
DAYS = 7


@pytest.fixture
def front_url(url: str, environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """All systems behind their front page, over some thousand views; no workers yet."""
    find_chromium()
    migrate()
    yesterday = datetime.now(UTC).date() - timedelta(1)
    engine = make_engine("tracking")
    seed_views(engine, views=20_000, days=DAYS, last=yesterday, seed=11)
    engine.dispose()
    with web_server("systems.common.front:web", log=tmp_path / "web.log", environment=environment) as (_, url):
        yield url


def test_a_report_is_asked_for_watched_and_read_in_a_browser(
    front_url: str, environment: dict[str, str], tmp_path: Path
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
        with worker(ANALYTICS.tasks, *ANALYTICS.worker, log=log, environment=environment):
            report = page.frame_locator("iframe")
            report.get_by_text("Views by day").wait_for()
        assert_fits(page)
        photograph(page, folder / "page.png", tmp_path)
        page.get_by_role("link", name="Tiếng Việt").click()
        page.frame_locator("iframe").get_by_text("Lượt xem theo ngày").wait_for()
        page.get_by_role("link", name="Mọi báo cáo").click()
        page.get_by_role("link", name=" đến ").first.wait_for()


def test_a_report_is_cancelled_in_a_browser(front_url: str) -> None:
    with browsing() as page:
        page.goto(f"{front_url}/analytics/?lang=vi")
        page.get_by_role("button", name="Lập").click()
        page.get_by_role("button", name="Hủy").click()
        page.locator("#word", has_text="Đã hủy").wait_for()
        assert 0 == page.get_by_role("button", name="Hủy").count()
