"""The pages about jobs in a real Chromium, with script and without: every action, every key, and nothing that a job says runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import assert_fits, browsing, find_chromium
from playwright.sync_api import BrowserContext, Page, expect
from scenario_lab import Lab, until
from test_in_a_browser import WAIT_MS, WORDS, Shoot, shoot, web
from test_job_pages import fail

__all__ = ["shoot"]
EN = WORDS["en"]
XSS = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture
def lab(url: str, tmp_path: Path) -> Iterator[Lab]:
    """Jobs in a queue that no worker has: they stay where they are put."""
    find_chromium()
    found = Lab(url, tmp_path)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(params=[True, False], ids=["script", "no script"])
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page whose browser runs script, or does not. No script may fail, nothing may break the policy."""
    with browsing() as first:
        browser = first.context.browser
        assert browser is not None
        context: BrowserContext = browser.new_context(java_script_enabled=request.param, locale="en-GB")
        opened = context.new_page()
        said: list[Any] = []
        opened.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        opened.on("dialog", lambda dialog: said.append(dialog.message))
        yield opened
        assert said == []


def told(page: Page, text: str) -> None:
    expect(page.locator(".told")).to_have_text(text)


def test_every_action_on_one_job(lab: Lab, tmp_path: Path, page: Page) -> None:
    """Run now, cancel, retry, clone with other arguments, delete: each is a button, and the page tells what it did."""
    queue = lab.app.options(queue="idle", delay=600, tags=["vip"])
    job = queue.enqueue("mail.send", "an@example.org", user={"id": 42})
    with web(lab.url, tmp_path / "web.log") as address:
        page.goto(f"{address}/jobs/idle/{job.id}")
        expect(page.locator(".why")).to_contain_text("it is scheduled for")
        expect(page.locator(".why")).to_contain_text("no worker listens to the queue idle")
        page.get_by_role("button", name=EN["do_run"]).click()
        told(page, "Put first in line: 1.")
        page.get_by_role("button", name=EN["cancel"]).click()
        told(page, "Cancelled, or asked to stop: 1.")
        page.get_by_role("button", name=EN["retry"], exact=True).click()
        told(page, "Retried: 1.")
        page.get_by_role("link", name=EN["clone"]).click()
        page.locator("textarea").fill('{"args": ["binh@example.org"], "kwargs": {"user": {"id": 43}}}')
        page.get_by_role("button", name=EN["clone"]).click()
        told(page, "Made: 1.")
        expect(page.locator(".json")).to_contain_text("binh@example.org")
        page.locator("#delete summary").click()
        page.get_by_role("button", name=EN["delete_do"]).click()
        told(page, "Deleted: 1.")
        page.goto(f"{address}/audit")
        expect(page.locator("tbody tr")).to_have_count(5)


def test_a_filter_ticks_and_all_that_match(lab: Lab, tmp_path: Path, page: Page) -> None:
    """Found by an argument, ticked and cancelled after the number was shown; then all that match, counted first."""
    for n in range(30):
        lab.app.options(queue="idle", tags=["odd"] if n % 2 else []).enqueue("mail.send", n, user={"id": n % 3})
    with web(lab.url, tmp_path / "web.log") as address:
        page.goto(f"{address}/jobs")
        page.locator("#filter").fill("task:mail.send args.user.id:1")
        page.locator(".filter").get_by_role("button", name=EN["show"]).click()
        expect(page.locator("tbody tr")).to_have_count(10)
        page.locator("tbody input[type=checkbox]").nth(0).check()
        page.locator("tbody input[type=checkbox]").nth(1).check()
        page.locator("#ticks").get_by_role("button", name=EN["do_cancel"]).click()
        expect(page.locator("h1")).to_have_text("Cancel 2 jobs?")
        page.get_by_role("button", name=f"{EN['do_cancel']}: 2").click()
        told(page, "Cancelled, or asked to stop: 2.")
        page.goto(f"{address}/jobs?filter=tag:odd")
        page.get_by_role("button", name=EN["all_delete"]).click()
        expect(page.locator("main [role=status]")).to_have_text("Delete 15 jobs for good?")
        page.get_by_role("button", name=f"{EN['do_delete']}: 15").click()
        told(page, "Done: 15. Could not be done, since they have changed meanwhile: 0.")
        page.goto(f"{address}/jobs?tab=all")
        expect(page.locator("tbody tr")).to_have_count(15)
        expect(page.locator(".tabs [aria-current] b")).to_have_text("15")


def test_thousands_that_match_are_done_step_by_step(lab: Lab, tmp_path: Path, shoot: Shoot) -> None:
    """The page goes on by itself until somebody must be asked, and again until it is over."""
    lab.app.enqueue_many(lab.app.queue("idle").call("mail.send", n) for n in range(8_000))
    with web(lab.url, tmp_path / "web.log") as address, browsing() as page:
        page.goto(f"{address}/jobs?tab=all")
        page.get_by_role("button", name=EN["all_cancel"]).click()
        expect(page.locator("main [role=status]")).to_have_text("Cancel 8,000 jobs?", timeout=WAIT_MS)
        shoot(page, "bulk-ask")
        page.get_by_role("button", name=f"{EN['do_cancel']}: 8000").click()
        expect(page.locator("main progress")).to_be_visible()
        shoot(page, "bulk-progress")
        expect(page.locator("main .told")).to_have_text(
            "Done: 8,000. Could not be done, since they have changed meanwhile: 0.", timeout=2 * WAIT_MS
        )


def test_read_only_shows_and_finds_but_has_no_button(lab: Lab, tmp_path: Path, page: Page) -> None:
    """Also in the list, and a write that is sent all the same is refused."""
    job = lab.app.queue("idle").enqueue("mail.send", 1)
    with web(lab.url, tmp_path / "web.log", "--read-only") as address:
        page.goto(f"{address}/jobs?filter=task:mail.send")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("main input[type=checkbox][name=job], main button.danger")).to_have_count(0)
        page.goto(f"{address}/jobs/idle/{job.id}")
        expect(page.locator("main form")).to_have_count(0)
        for path in ("retry", "run", "cancel", "delete", "clone"):
            answer = page.request.post(
                f"{address}/jobs/idle/{job.id}/{path}", headers={"Sec-Fetch-Site": "same-origin"}
            )
            assert answer.status == 403


def test_nothing_that_a_producer_says_runs(lab: Lab, tmp_path: Path, page: Page) -> None:
    """Arguments and their names, tags, description, task, error, traceback: they are shown as they are."""
    options = lab.app.options(queue="idle", tags=[XSS], description=XSS)
    job = options.enqueue(XSS, XSS, **{XSS: [{XSS: XSS}]})
    bad = lab.app.queue("bad").enqueue(XSS, XSS)
    fail(lab.app, "bad", XSS)
    with web(lab.url, tmp_path / "web.log") as address:
        for path in (
            f"/jobs/idle/{job.id}", f"/jobs/idle/{job.id}/clone", f"/jobs/bad/{bad.id}",
            "/jobs?tab=all&columns=task&columns=tags&columns=arguments&columns=error", f"/jobs?filter='tag:{XSS}'",
        ):  # fmt: skip
            page.goto(address + path)
            expect(page.locator("main")).to_contain_text(
                "<script>alert(2)</script>" if "filter" not in path else EN["jobs"]
            )
            assert page.locator("main img, main script").count() == 0


def test_keys_reach_search_help_and_pages(lab: Lab, tmp_path: Path) -> None:
    """`/` the filter, `?` the list of keys, `g` and a letter each page; a filter's words are suggested and taken by the keyboard."""
    lab.app.queue("idle").enqueue("mail.send", 1)
    with web(lab.url, tmp_path / "web.log") as address, browsing() as page:
        page.goto(f"{address}/queues")
        for letter, path in (("w", "/workers"), ("c", "/schedules"), ("j", "/jobs"), ("q", "/queues"), ("j", "/jobs")):
            page.keyboard.press("g")
            page.keyboard.press(letter)
            page.wait_for_url(f"{address}{path}")
            expect(page.locator("h1")).to_be_visible()
        page.keyboard.press("Shift+?")
        expect(page.locator("#keys")).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        expect(page.locator("#filter")).to_be_focused()
        page.keyboard.type("state:can")
        expect(page.locator("#suggested li")).to_have_text(["state:cancelled"])
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("#filter")).to_have_value("state:cancelled ")
        page.keyboard.type("queue:i")
        page.locator("#suggested li").first.click()
        expect(page.locator("#filter")).to_have_value("state:cancelled queue:idle ")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}/jobs?filter=state*")
        expect(page.locator("tbody tr")).to_have_count(0)


def test_what_asks_before_it_acts_is_accessible(lab: Lab, tmp_path: Path) -> None:
    """The list with ticks, the questions, the end of an action, the form of a clone: no violation that axe knows of."""
    job = lab.app.options(queue="idle", tags=["vip"]).enqueue("mail.send", user={"id": 42})

    def see(page: Page) -> None:
        found = Axe().run(page, options={"resultTypes": ["violations"]})
        assert found.violations_count == 0, found.generate_report()
        assert_fits(page)

    with web(lab.url, tmp_path / "web.log") as address, browsing() as page:
        page.goto(f"{address}/jobs/idle/{job.id}/clone")
        see(page)
        page.goto(f"{address}/jobs?filter=tag:vip")
        page.locator("#filter").focus()
        expect(page.locator("#suggested")).to_be_visible()
        see(page)
        page.keyboard.press("Escape")
        page.locator("tbody input[type=checkbox]").check()
        page.locator("#ticks").get_by_role("button", name=EN["do_cancel"]).click()
        expect(page.locator("h1")).to_have_text("Cancel 1 job?")
        see(page)
        page.goto(f"{address}/jobs?filter=tag:vip")
        page.get_by_role("button", name=EN["all_cancel"]).click()
        see(page)
        page.get_by_role("button", name=f"{EN['do_cancel']}: 1").click()
        expect(page.locator("main .told")).to_be_visible()
        see(page)


@pytest.mark.parametrize(("language", "locale"), [("en", "en-GB"), ("vi", "vi-VN")])
def test_the_pages_fit_and_copy_works(lab: Lab, tmp_path: Path, shoot: Shoot, language: str, locale: str) -> None:
    """On a wide screen and on a telephone, with long arguments and errors; ticking a page ticks all its jobs."""
    lab.start("default", "--processes", "1", ready=1)
    broken = lab.app.options(queue="default", retry=0).enqueue("ledger.always_fails", 100)
    jobs = [
        lab.app.options(queue="idle", tags=["vip", "night"], priority=n % 3, delay=0 if n % 2 else 3600).enqueue(
            "mail.send",
            f"a{n}@example.org",
            user={"id": n, "name": "An " * 20, "groups": list(range(30))},
            html="<p>" * 200,
        )
        for n in range(12)
    ]
    until(lambda: lab.app.job(broken.id, queue="default").state == "failed", what="the failure")
    with web(lab.url, tmp_path / "web.log") as address, browsing(locale=locale) as page:
        page.goto(
            f"{address}/jobs?tab=all&columns=job&columns=task&columns=state&columns=queue&columns=tags&columns=arguments&columns=created"
        )
        expect(page.locator("tbody tr").nth(11)).to_be_visible()
        assert_fits(page)
        page.locator("[data-tick-all]").check()
        expect(page.locator("tbody input:checked")).to_have_count(page.locator("tbody tr").count())
        shoot(page, f"jobs-all-{language}")
        page.goto(f"{address}/jobs/idle/{jobs[0].id}")
        page.locator("[data-copy=call-json]").click()
        expect(page.locator("[data-copy=call-json]")).to_have_attribute("data-done", "")
        assert_fits(page)
        shoot(page, f"job-waiting-{language}")
        page.goto(f"{address}/jobs/idle/{jobs[0].id}/clone")
        assert_fits(page)
        shoot(page, f"clone-{language}")
        page.goto(f"{address}/jobs?filter=error:KeyError")
        page.locator("tbody th a").first.click()
        expect(page.locator(".trace")).to_contain_text("Traceback")
        assert_fits(page)
        shoot(page, f"job-failed-{language}")
