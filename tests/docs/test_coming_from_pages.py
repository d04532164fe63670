"""headrace's half of the pages for users of Celery and arq runs as shown."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from headrace import Headrace
from headrace.core.record import State

DOCS = Path(__file__).parents[2] / "docs/howto"


def run(name: str) -> dict[str, Any]:
    """The page's Python, as one module. What is fenced as `py` is the other library's."""
    source = "\n".join(re.findall(r"^```python\n(.*?)^```$", (DOCS / name).read_text("utf8"), re.MULTILINE | re.DOTALL))
    module: dict[str, Any] = {"__name__": "of_the_page"}
    exec(compile(source, name, "exec"), module)
    return module


def test_what_is_shown_beside_celery_runs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call, one for later, a chain, a schedule."""
    monkeypatch.setenv("HEADRACE_URL", url)
    module = run("from-celery.md")
    app: Headrace = module["app"]
    assert app.job(module["job"].id).state is State.QUEUED
    assert [each.name for each in app.declared_schedules()] == ["of_the_page.report"]


def test_what_is_shown_beside_arq_runs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job for later under an id of one's own."""
    monkeypatch.setenv("HEADRACE_URL", url)
    module = run("from-arq.md")
    app: Headrace = module["app"]

    async def enqueue() -> str:
        job_id: str = await module["main"]()
        await app.aclose()
        return job_id

    assert asyncio.run(enqueue()) == "one"
    with Headrace(url) as other:
        assert other.job("one").state is State.SCHEDULED
