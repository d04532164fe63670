"""The code of docs/howto/limits.md runs as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace import Headrace, State

PAGE = Path(__file__).parents[2] / "docs/howto/limits.md"


def test_its_code_does_what_the_page_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are changed, a queue is bounded, a second job is the first, and two quick calls are one job."""
    monkeypatch.setenv("HEADRACE_URL", url)
    source = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL))
    module: dict[str, object] = {"__name__": "limits_page"}
    exec(compile(source, str(PAGE), "exec"), module)
    app = module["app"]
    assert isinstance(app, Headrace)
    states = {state.name: state for state in app.limits.states("payments")}
    assert states["stripe:{account}"].rule == {"r": 50.0, "p": 60_000, "b": 1}
    assert states["stripe:42"].held_until_ms is not None
    assert app.job(module["first"].id).state is State.QUEUED  # type: ignore[attr-defined]
    app.close()
