"""All pages as a person sees them, in a real Chromium: both languages, light and dark, wide and phone; and what is done there.

`make screenshots` takes the pictures of docs/dashboard/ anew.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import IS_REFRESHING, find_chromium
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from scenario_lab import Lab, until
from scene import shop
from test_in_a_browser import WAIT_MS, web

from headrace import Headrace
from headrace.core.record import State
from headrace.engine import admin
from headrace.engine.keys import queue_keys

SHOTS = Path(__file__).parents[2] / "docs" / "dashboard"
PAGES = ("overview", "queues", "jobs", "job", "workers", "schedules", "schedule", "flows", "flow", "limits", "audit")
SIZES = {"wide": (1200, 750), "phone": (390, 780)}
LOOKS = list(product(("en", "vi"), ("light", "dark"), SIZES))
LOCALES = {"en": "en-GB", "vi": "vi-VN"}
QUICK = [("en", "light", "wide"), ("vi", "dark", "phone")]


@pytest.fixture
def browser() -> Iterator[Browser]:
    program = find_chromium()
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=WAIT_MS
        )
        yield found
        found.close()


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    """The scene, when there is a browser to look at it."""
    find_chromium()
    with shop(url) as found:
        yield found


@pytest.fixture
def address(app: Headrace, url: str, tmp_path: Path) -> Iterator[str]:
    with web(url, tmp_path / "web.log", "--environment", "production") as found:
        yield found


def context_of(browser: Browser, language: str, theme: str, size: str) -> BrowserContext:
    width, height = SIZES[size]
    found = browser.new_context(
        viewport={"width": width, "height": height}, locale=LOCALES[language], color_scheme=theme,  # type: ignore[arg-type]
        timezone_id="Asia/Ho_Chi_Minh", reduced_motion="reduce",
    )  # fmt: skip
    found.set_default_timeout(WAIT_MS)
    return found


def paths(app: Headrace) -> dict[str, str]:
    """The address of each page."""
    flow = next(each for each in app.flows.list(queue="reports") if each.name)
    failed = app.client.run(admin.find_jobs(queue_keys("mail"), State.FAILED))
    return {
        "overview": "/", "queues": "/queues", "jobs": "/jobs?queue=mail&tab=failed", "job": f"/jobs/mail/{failed[0]}",
        "workers": "/workers", "schedules": "/schedules", "schedule": "/schedules/mail/newsletter", "flows": "/flows",
        "flow": f"/flows/reports/{flow.id}", "limits": "/limits", "audit": "/audit",
    }  # fmt: skip


def listen(page: Page, address: str) -> list[str]:
    """What the page complains of, and what it asks of others, as it comes."""
    heard: list[str] = []
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on(
        "console", lambda said: heard.append(f"{said.type}: {said.text}") if said.type in ("error", "warning") else None
    )
    page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else heard.append(asked.url))
    page.on("response", lambda got: heard.append(f"{got.status}: {got.url}") if got.status >= 400 else None)
    return heard


def picture(page: Page, to: Path) -> None:
    """In 256 colours, which is as good to look at and half the size."""
    to.parent.mkdir(exist_ok=True)
    data = page.screenshot(full_page=True, animations="disabled", caret="hide")
    Image.open(io.BytesIO(data)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(to, optimize=True)


@pytest.mark.parametrize(("language", "theme", "size"), LOOKS if IS_REFRESHING else QUICK)
def test_every_page_fits_is_accessible_and_small(
    app: Headrace, address: str, browser: Browser, language: str, theme: str, size: str
) -> None:
    """No violation that axe knows of, nothing sticks out, no script fails, nothing comes from elsewhere, at most 100 KB a page."""
    context = context_of(browser, language, theme, size)
    page = context.new_page()
    heard = listen(page, address)
    for name, path in paths(app).items():
        answer = page.goto(address + path)
        assert answer is not None and len(answer.body()) <= 100_000
        expect(page.locator("html")).to_have_attribute("lang", language)
        expect(page.locator("#live")).to_be_visible()
        too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert too_wide <= 0, f"{name} is {too_wide} pixels too wide"
        found = Axe().run(page, options={"resultTypes": ["violations"]})
        assert found.violations_count == 0, found.generate_report()
        if IS_REFRESHING:
            picture(page, SHOTS / f"{name}-{language}-{theme}-{size}.png")
    assert heard == []
    context.close()


def test_ten_tabs_are_all_alive(app: Headrace, address: str, browser: Browser) -> None:
    """A browser opens six connections to a server at most; none of these pages holds one."""
    context = context_of(browser, "en", "light", "wide")
    tabs = [context.new_page() for _ in range(10)]
    for tab in tabs:
        tab.goto(f"{address}/queues")
    count = tabs[0].locator("#queue-reports .queued b").inner_text()
    app.queue("reports").enqueue("reports.fetch", 1)
    for tab in tabs:
        expect(tab.locator("#queue-reports .queued b")).to_have_text(str(int(count) + 1), timeout=WAIT_MS)
        expect(tab.locator("#live [role=status]")).to_have_text("live")
    context.close()


def test_the_refresh_is_chosen_and_kept(app: Headrace, address: str, browser: Browser) -> None:
    """1, 2, 5, 15, 60 s, or paused; a paused page asks nothing, and the choice is there on the next page."""
    context = context_of(browser, "en", "light", "wide")
    page = context.new_page()
    page.goto(f"{address}/queues")
    choice = page.get_by_label("Refresh")
    assert choice.locator("option").all_inner_texts() == ["1 s", "2 s", "5 s", "15 s", "60 s", "paused"]
    choice.select_option("paused")
    expect(page.locator("#live [role=status]")).to_have_text("paused")
    asked: list[str] = []
    page.goto(f"{address}/workers")
    expect(page.get_by_label("Refresh")).to_have_value("0")
    page.on("request", lambda request: asked.append(request.url))
    app.queue("reports").enqueue("reports.fetch", 1)
    page.wait_for_timeout(2_500)  # longer than the usual refresh: what must not happen has no signal
    assert asked == []
    with page.expect_request(re.compile("/workers")):
        page.get_by_label("Refresh").select_option("1 s")
    context.close()


def told(page: Page, text: str) -> None:
    expect(page.locator(".told")).to_have_text(text)


def test_operators_act_on_schedules_flows_and_limits(app: Headrace, address: str, browser: Browser) -> None:
    """With the buttons; each answer says how many it changed, and all of it stands in the audit log."""
    context = context_of(browser, "en", "light", "wide")
    page = context.new_page()
    heard = listen(page, address)
    page.goto(f"{address}/schedules")
    page.get_by_role("link", name="weekly-report").click()
    page.get_by_role("button", name="Skip next").click()
    told(page, "Runs skipped: 1.")
    page.get_by_label("reason").fill("holiday")
    page.get_by_role("button", name="Pause").click()
    told(page, "Schedules paused: 1.")
    expect(page.locator("main")).to_contain_text("Paused: holiday (local)")
    page.get_by_role("button", name="Resume").click()
    told(page, "Schedules resumed: 1.")
    page.get_by_role("button", name="Run now").click()
    told(page, "Made a job: 1.")
    page.goto(f"{address}/schedules/mail/newsletter")
    page.get_by_role("button", name="Back to what is declared").click()
    told(page, "Back to what is declared: 1.")
    page.goto(address + paths(app)["flow"])
    page.locator("summary").click()
    page.get_by_role("button", name="Cancel the workflow").click()
    told(page, "Jobs cancelled, or asked to stop: 11.")
    page.goto(f"{address}/limits")
    row = page.locator("#limit-payments-bank")
    row.locator("summary").click()
    row.get_by_label("side by side").fill("7")
    row.get_by_role("button", name="Set").click()
    told(page, "Limits set: 1.")
    expect(row).to_contain_text("/ 7")
    row.locator("summary").click()
    row.get_by_role("button", name="Back to what jobs say").click()
    told(page, "Back to what jobs say: 1.")
    page.goto(f"{address}/audit")
    assert page.locator("tbody tr").count() == 8
    assert heard == []
    context.close()


def test_a_worker_is_made_quiet_and_stopped_and_the_charts_move(url: str, tmp_path: Path, browser: Browser) -> None:
    """A real one, under load: what it has done appears on the overview by itself, and it obeys its buttons."""
    lab = Lab(url, tmp_path)
    try:
        worker = lab.start("default", "--pool", "threads", "--slots", "2", "--processes", "1", "--name", "box", ready=2)
        with web(url, tmp_path / "web.log") as address:
            context = context_of(browser, "en", "light", "wide")
            page = context.new_page()
            page.goto(f"{address}/")
            expect(page.locator(".chart rect.good")).to_have_count(0)
            for number in range(50):
                lab.app.queue("default").enqueue("ledger.work", number)
            expect(page.locator(".chart rect.good")).not_to_have_count(0, timeout=WAIT_MS)
            expect(page.locator(".chart circle.middle, .chart line.middle")).not_to_have_count(0, timeout=WAIT_MS)
            page.goto(f"{address}/workers")
            page.get_by_role("button", name="Take no more").click()
            told(page, "Workers told: 1. They go quiet within 5 s.")
            expect(page.locator("section h2 .state")).to_have_text("quiet", timeout=WAIT_MS)
            page.get_by_role("button", name="Stop").click()
            told(page, "Workers told: 1. They stop within 5 s.")
            until(lambda: worker.process.poll() is not None, timeout_s=60, what="the worker to stop")
            expect(page.locator("main")).to_contain_text("No worker is running.", timeout=WAIT_MS)
            context.close()
    finally:
        lab.close()


def test_a_page_whose_dashboard_is_gone_says_so_and_heals(
    app: Headrace, url: str, tmp_path: Path, browser: Browser
) -> None:
    """When the dashboard itself is away, what was shown stays, marked as no longer live."""
    context = context_of(browser, "en", "light", "wide")
    page = context.new_page()
    with web(url, tmp_path / "first.log") as address:
        page.goto(f"{address}/queues")
        expect(page.locator("#live [role=status]")).to_have_text("live")
    expect(page.locator("#live [role=status]")).to_have_text("no answer", timeout=WAIT_MS)
    expect(page.locator("#queue-reports")).to_be_visible()
    with web(url, tmp_path / "second.log", port=int(address.rpartition(":")[2])):
        expect(page.locator("#live [role=status]")).to_have_text("live", timeout=WAIT_MS)
    context.close()
