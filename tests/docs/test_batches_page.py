"""The guide on batches runs as written."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace import Headrace
from headrace.context import BatchContext, JobContext, enter_job, leave_job
from headrace.effects import create_tables

PAGE = Path(__file__).parents[2] / "docs/howto/batches.md"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_URL", url)
    found: dict[str, Any] = {"__name__": "site"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), found)
    return found


def test_the_views_of_the_guide_are_stored_once(module: dict[str, Any]) -> None:
    """By a plain call, and by two runs of the same jobs."""
    with closing(sqlite3.connect("views.sqlite")) as views:
        create_tables(views)
        views.execute("CREATE TABLE views (url, seconds)")
    items = [module["View"]("/a", 1.0), module["View"]("/b", 2.0)]
    for fence in (1, 2):
        jobs = [JobContext(f"j{n}", "views", "site.store", 1, fence) for n in range(2)]
        token = enter_job(BatchContext("site.store", jobs))
        try:
            module["store"](items)
        finally:
            leave_job(token)
    with closing(sqlite3.connect("views.sqlite")) as views:
        assert [("/a", 1.0), ("/b", 2.0)] == views.execute("SELECT * FROM views ORDER BY url").fetchall()
    module["store"]([module["View"]("/c", 3.0)])
    with closing(sqlite3.connect("views.sqlite")) as views:
        assert 3 == views.execute("SELECT count(*) FROM views").fetchone()[0]


def test_a_page_view_of_the_guide_is_one_job(module: dict[str, Any]) -> None:
    app: Headrace = module["app"]
    with app:
        job = app.job(module["page_view"]("/", 0.5))
        assert ("views", [{"url": "/", "seconds": 0.5}]) == (job.queue, job.args)


def test_the_answers_of_the_guide(module: dict[str, Any]) -> None:
    first, second = module["parse"](["7", "x"])
    assert 7 == first
    assert isinstance(second, ValueError)
