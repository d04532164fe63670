"""The test shown in docs/howto/fault-proxy.md passes as shown, and the page names every fault."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from headrace.testing import FaultProxy, Trap

PAGE = (Path(__file__).parents[2] / "docs/howto/fault-proxy.md").read_text("utf8")


def test_its_test_passes(url: str) -> None:
    module: dict[str, Any] = {"__name__": "fault_proxy_page"}
    source = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    exec(compile(source, "docs/howto/fault-proxy.md", "exec"), module)
    (test,) = [value for name, value in module.items() if name.startswith("test_")]
    test(url)


def test_it_names_every_fault() -> None:
    """Each public name of the proxy, but for its life and what it counts, and each of a trap's."""
    others = {"start", "close", "accepted", "connections", "url", "port", "trap_for", "pass_on", "until_open"}
    inner = {"takes", "missed", "sprung"}
    names = {name for name in (*vars(FaultProxy), *vars(Trap)) if not name.startswith("_")} - others - inner
    assert set() == {name for name in names if f".{name}" not in PAGE}
