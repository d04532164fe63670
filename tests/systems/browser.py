"""A page as a person sees it: a Chromium of this machine, driven by Playwright; what it shows, and what it complains of.

Nothing is installed or downloaded: without a Chromium the test is skipped, with the reason. `SCREENSHOTS=1` (`make
screenshots`) writes the pictures of the READMEs anew; else they go to the test's own folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS = 60_000.0
WIDE, NARROW = (1000, 700), (390, 780)
IS_REFRESHING = os.environ.get("SCREENSHOTS") == "1"


def find_chromium() -> str:
    """The program; skips the test when there is none."""
    found = next((path for path in map(shutil.which, PROGRAMS) if path), None)
    if found is None:
        pytest.skip(f"no browser on PATH ({', '.join(PROGRAMS)}): apt-get install chromium")
    return found


@contextmanager
def browsing(*, size: tuple[int, int] = WIDE, locale: str = "en-GB") -> Iterator[Page]:
    """An empty page. When the block ends well, nothing may have gone wrong in it: no script failed, no file was missing.

    Playwright's loop is this thread's while the block runs: call `asyncio.run` outside it.
    """
    program = find_chromium()
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else ["--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments, timeout=WAIT_MS)
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, locale=locale, color_scheme="light", reduced_motion="reduce"
        )
        page = context.new_page()
        complaints = _listened(context, page)
        try:
            yield page
        finally:
            browser.close()
        assert not complaints, complaints


def _listened(context: BrowserContext, page: Page) -> list[str]:
    """What the pages complain of, as it comes."""
    complaints: list[str] = []
    context.set_default_timeout(WAIT_MS)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("console", lambda said: complaints.append(f"{said.type}: {said.text}") if said.type == "error" else None)
    page.on(
        "response",
        lambda answer: complaints.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None,
    )
    return complaints


def assert_fits(page: Page) -> None:
    """Nothing sticks out to the side, on a wide screen and on a telephone; the first size is set again."""
    page.wait_for_load_state()  # a click may have led elsewhere
    before = page.viewport_size
    assert before is not None
    for width, height in (WIDE, NARROW):
        page.set_viewport_size({"width": width, "height": height})
        too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert too_wide <= 0, f"{page.url} is {too_wide} pixels too wide for {width}"
    page.set_viewport_size(before)


def photograph(page: Page, kept: Path, folder: Path) -> bytes:
    """A picture of what the window shows, as PNG; into `folder`, or with SCREENSHOTS=1 to `kept`."""
    to = kept if IS_REFRESHING else folder / kept.name
    return page.screenshot(path=to, animations="disabled", caret="hide")
