"""The pages of the systems as a person sees them, in a real browser: `make screenshots` keeps the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import assert_fits, browsing, find_chromium, photograph

from systems.common.catalogue import SYSTEMS, SYSTEMS_FOLDER
from systems.common.migrate import migrate
from systems.common.programs import until, web_server, worker

SLOW_S = 60.0
PAGES = ("/", "/prices", "/docs", "/docs", "/about", "/prices", "/prices")


@pytest.fixture
def front_url(url: str, environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """All systems behind their front page; no workers yet."""
    find_chromium()
    migrate()
    with web_server("systems.common.front:web", log=tmp_path / "web.log", environment=environment) as (_, url):
        yield url


def test_the_front_page_leads_to_each_system_in_a_browser(front_url: str, tmp_path: Path) -> None:
    with browsing(size=(1000, 420)) as page:
        page.goto(front_url)
        assert_fits(page)
        photograph(page, SYSTEMS_FOLDER / "front.png", tmp_path)
        for system in SYSTEMS:
            page.goto(front_url)
            page.get_by_role("link", name=system.name, exact=True).click()
            assert page.url == f"{front_url}/{system.name}/"
            assert_fits(page)


def test_the_page_of_views_counts_a_visit_in_a_browser(
    front_url: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """Somebody presses the button; a worker stores the view, and the page shows it without being loaded again."""
    tracking = next(system for system in SYSTEMS if system.name == "tracking")
    log = tmp_path / "worker.log"
    with (
        worker(tracking.tasks, *tracking.worker, log=log, environment=environment),
        browsing() as page,
    ):
        page.goto(f"{front_url}/tracking/")
        before = int(page.locator("#total").inner_text().replace(",", ""))
        for name in PAGES:
            sent = page.request.post(f"{front_url}/tracking/t", data={"page": name, "visitor": "ann"})
            assert 202 == sent.status
        page.get_by_role("button", name="Visit a page").click()
        wanted = f"{before + len(PAGES) + 1:,}"
        page.locator("#total", has_text=wanted).wait_for()
        until(lambda: page.locator("#waiting").inner_text() == "0", SLOW_S, "nothing that waits")
        assert_fits(page)
        photograph(page, SYSTEMS_FOLDER / "tracking/page.png", tmp_path)
