"""The code of docs/howto/streams.md runs as shown, with a worker."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from worker_kit import hand

from headrace import Headrace

PAGE = Path(__file__).parents[2] / "docs/howto/streams.md"


def test_its_code_does_what_the_page_says(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words are read while the job runs; a generator with a checkpoint yields all; the log has its line."""
    monkeypatch.setenv("HEADRACE_URL", url)
    found: dict[str, Any] = {"__name__": "streams_page"}
    first, *rest = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL)
    exec(compile(first, str(PAGE), "exec", dont_inherit=True), found)
    app: Headrace = found["app"]
    problems: list[BaseException] = []

    def read() -> None:
        try:
            for block in rest:
                exec(compile(block, str(PAGE), "exec", dont_inherit=True), found)
            assert [f"row {n}" for n in range(250)] == list(found["export"].enqueue(250).stream())
        except BaseException as error:
            problems.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with app, hand(app, pool="prefork", burst=False) as one:
        reader = threading.Thread(target=read)
        app.on_start(reader.start)
        one.work()
        reader.join()
    assert [] == problems
    printed = capsys.readouterr().out.split("\n")
    assert ["to", "be", "or", "not", "to", "be"] == printed[:6] and printed[6].endswith("1 asking https://example.com")
