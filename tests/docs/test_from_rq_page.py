"""The code of docs/howto/from-rq.md, and of its Vietnamese twin, runs as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.contrib.rq import Worker

PAGES = Path(__file__).parents[2] / "docs/howto"


@pytest.mark.parametrize("name", ["from-rq.md", "from-rq.vi.md"])
def test_its_code_does_what_the_page_says(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is queued, and a worker knows its queues in order."""
    monkeypatch.setenv("HEADRACE_URL", url)
    source = "\n".join(
        re.findall(r"^```python\n(.*?)^```$", (PAGES / name).read_text("utf8"), re.MULTILINE | re.DOTALL)
    )
    module: dict[str, object] = {"__name__": "from_rq_page"}
    exec(compile(source, name, "exec"), module)
    worker = module["worker"]
    assert isinstance(worker, Worker)
    assert worker.queue_names() == ["high", "default", "low"]
