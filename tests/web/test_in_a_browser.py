"""The dashboard as a person sees it: `headrace web` and a real worker, in a real Chromium, with script and without."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import assert_fits, browsing, find_chromium
from playwright.sync_api import Page, expect
from scenario_lab import Lab, until

from headrace.engine import stats
from headrace.engine.keys import queue_keys
from headrace.engine.stats import Added
from headrace.server import EmbeddedServer, free_port
from headrace.web.words import catalogue

WAIT_MS = 30_000.0
WORDS = {"en": catalogue("en"), "vi": catalogue("vi")}
Shoot = Callable[[Page, str], None]


@contextmanager
def web(url: str, log: Path, *args: str, port: int | None = None) -> Iterator[str]:
    """`headrace web` on a free port, or this; its address."""
    port = port or free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace", "web", "--url", url, "--port", str(port), *args],
            stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONWARNINGS": "error"},
        )  # fmt: skip
    try:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez") as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        until(answers, timeout_s=30)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def lab(url: str, tmp_path: Path) -> Iterator[Lab]:
    """Twenty jobs that succeeded, one that failed, one that runs, one that waits in a queue without a worker."""
    find_chromium()
    found = Lab(url, tmp_path)
    try:
        found.start("default", "--pool", "threads", "--slots", "2", "--processes", "1", ready=2)
        queue = found.app.queue("default")
        for number in range(20):
            queue.enqueue("ledger.work", number)
        found.app.options(queue="default", retry=0).enqueue("ledger.always_fails", 100)
        queue.enqueue("ledger.work", 101, 600.0)
        found.app.queue("idle").enqueue("ledger.work", 102)
        until(lambda: len(found.ends()) >= 20 and found.starts()[101], timeout_s=60)
        yield found
    finally:
        found.close()


@pytest.fixture
def shoot(tmp_path: Path) -> Shoot:
    folder = Path(os.environ.get("DASHBOARD_SHOTS", tmp_path))

    def take(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png", full_page=True, animations="disabled")

    return take


@pytest.mark.parametrize(("language", "locale"), [("en", "en-GB"), ("vi", "vi-VN")])
def test_every_page_fits_and_speaks_the_browsers_language(
    lab: Lab, tmp_path: Path, shoot: Shoot, language: str, locale: str
) -> None:
    """On a wide screen and on a telephone; no script fails, nothing breaks the policy, nothing is asked of another site."""
    told = WORDS[language]
    for ago in range(1, 50):  # an hour that one need not wait for
        bad = {"failed": 2, "retried": 1} if ago % 9 == 0 else {}
        rows = [
            Added(ago, "", {"enqueued": 40 + ago, "succeeded": 30 + 7 * ago % 23, **bad}),
            Added(
                ago, "mail.send", {"succeeded": 30, "r70": 30, "run_us": 900_000, "w60": 30, "wait_us": 300_000, **bad}
            ),
        ]
        lab.app.client.run(stats.tally(queue_keys("default"), rows))
    with web(lab.url, tmp_path / "web.log", "--environment", "production") as address, browsing(locale=locale) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for path, key in (
            ("/", "overview"),
            ("/queues", "queues"),
            ("/jobs?tab=failed", "jobs"),
            ("/workers", "workers"),
            ("/audit", "audit"),
        ):
            page.goto(address + path)
            expect(page.locator("h1")).to_have_text(told[key])
            expect(page.locator("html")).to_have_attribute("lang", language)
            assert_fits(page)
            shoot(page, f"{key}-{language}")
        page.goto(f"{address}/jobs?queue=default&tab=failed")
        page.locator("tbody a").first.click()
        expect(page.locator(".trace")).to_contain_text("Traceback")
        assert_fits(page)
        shoot(page, f"job-{language}")
        assert all(one.startswith((address, "data:")) for one in asked)


def test_a_page_follows_its_queue_and_keeps_what_a_person_holds(lab: Lab, tmp_path: Path, shoot: Shoot) -> None:
    """Counts change without a reload; what is opened stays open, what is typed stays typed."""
    with web(lab.url, tmp_path / "web.log") as address, browsing() as page:
        page.goto(f"{address}/queues")
        count = page.locator("#queue-idle .queued b")
        expect(count).to_have_text("1")
        page.locator("#queue-idle summary").click()
        page.locator("#queue-idle input[name=reason]").fill("half a sent")
        page.locator("h1").click()
        lab.app.queue("idle").enqueue("ledger.work", 103)
        expect(count).to_have_text("2", timeout=WAIT_MS)
        assert page.locator("#queue-idle input[name=reason]").input_value() == "half a sent"
        expect(page.locator("#queue-idle details")).to_have_attribute("open", "")
        page.emulate_media(color_scheme="dark")
        shoot(page, "queues-dark")


def test_operators_act_with_the_buttons_also_without_script(lab: Lab, tmp_path: Path) -> None:
    """Pause, purge with the typed name, and cancel: the page tells how many were changed."""
    with web(lab.url, tmp_path / "web.log") as address, browsing() as page:
        browser = page.context.browser
        assert browser is not None
        for has_script in (True, False):
            plain = browser.new_context(java_script_enabled=has_script, locale="en-GB").new_page()
            plain.goto(f"{address}/queues")
            plain.locator("#queue-idle input[name=reason]").fill("for a test")
            plain.locator("#queue-idle").get_by_role("button", name="Pause").click()
            expect(plain.locator(".told")).to_have_text("Newly paused: 1.")
            plain.locator("#queue-idle").get_by_role("button", name="Resume").click()
            expect(plain.locator(".told")).to_have_text("Resumed: 1.")
        page.goto(f"{address}/queues")
        page.locator("#queue-idle summary").click()
        page.locator("#queue-idle input[name=name]").fill("idle")
        page.locator("#queue-idle button.danger").click()
        expect(page.locator(".told")).to_have_text("Deleted from the queue: 1.")
        page.goto(f"{address}/jobs?queue=default&tab=running")
        page.locator("tbody a").first.click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".told")).to_have_text("Cancelled, or asked to stop: 1.")


def test_a_page_heals_when_the_server_comes_back(tmp_path: Path) -> None:
    """While it is away the page says so; then it shows the queue again, by itself."""
    find_chromium()
    port = free_port()
    data = tmp_path / "data"
    said = WORDS["en"]["away"]
    with web(f"redis://127.0.0.1:{port}/0", tmp_path / "web.log") as address, browsing() as first:
        browser = first.context.browser
        assert browser is not None
        page = browser.new_page(locale="en-GB")  # nobody minds its 503
        page.goto(f"{address}/queues")
        expect(page.locator("h1")).to_have_text(said)
        with EmbeddedServer(data_dir=data, port=port):
            expect(page.locator("h1")).to_have_text(WORDS["en"]["queues"], timeout=WAIT_MS)
            expect(page.locator("#live [role=status]")).to_have_text("live", timeout=WAIT_MS)
        expect(page.locator("h1")).to_have_text(said, timeout=WAIT_MS)
