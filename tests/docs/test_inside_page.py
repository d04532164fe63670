"""The guide on what a job tells from inside runs as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from headrace import Headrace

PAGE = Path(__file__).parents[2] / "docs/howto/inside-a-job.md"


def test_the_examples_run(url: str, monkeypatch: Any, capsys: Any) -> None:
    """Outside of a worker a task can be called plainly, and nothing is told."""
    monkeypatch.setenv("HEADRACE_URL", url)
    found: dict[str, Any] = {"__name__": "site"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), found)
    app: Headrace = found["app"]
    with app:
        assert [3] == app.job(found["job"].id).args
    assert 14 == found["export"](["2026-01", "2026-02"])
    assert [0, 1, 4] == found["build"](3)
