"""The guide on schedules runs as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from headrace import Headrace
from headrace.engine import schedules

PAGE = Path(__file__).parents[2] / "docs/howto/schedules.md"


def test_the_schedules_of_the_guide_are_declared_and_changed(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its app declares is there after a worker has told it; its changes at run time work."""
    monkeypatch.setenv("HEADRACE_URL", url)
    module: dict[str, Any] = {"__name__": "guide"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), module)
    app = module["app"]
    assert isinstance(app, Headrace)
    for declared in app.declared_schedules():
        assert "" == app.client.run(schedules.declare(app.prefix, declared, is_start=True))
    names = ["guide.look_for_orders", "guide.poll_the_bank", "often", "weekly"]
    assert names == [found.name for found in app.schedules.list()]
    module["tune"](app)
    assert "'cron': '0 4 * * MON'" in capsys.readouterr().out
    assert names == [found.name for found in app.schedules.list()]
    app.close()
