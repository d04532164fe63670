"""The code of docs/howto/flows.md runs as shown, and its flows end as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace import Headrace

PAGE = Path(__file__).parents[2] / "docs/howto/flows.md"


def test_its_code_stores_what_the_page_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains, groups, a graph with a signal, and a dependent job."""
    monkeypatch.setenv("HEADRACE_URL", url)
    source = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL))
    module: dict[str, object] = {"__name__": "flows_page"}
    exec(compile(source, str(PAGE), "exec"), module)
    app = module["app"]
    assert isinstance(app, Headrace)
    found = {state.id: state for state in app.flows.list()}
    order = found[module["order"].id]  # type: ignore[attr-defined]
    assert [step.after for step in order.steps] == [[], [(0, "s")], [(1, "s"), (0, "s")], [(2, "f")]]
    assert [step.size for step in found[module["report"].id].steps] == [100, 1]  # type: ignore[attr-defined]
    app.close()
