"""The guide on effects runs as written."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace.context import JobContext, enter_job, leave_job

PAGE = Path(__file__).parents[2] / "docs/howto/exactly-once.md"


def test_the_task_of_the_guide_pays_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("shop.sqlite")) as shop:
        shop.executescript("CREATE TABLE orders (id integer, paid integer); INSERT INTO orders VALUES (7, 0)")
    module: dict[str, Any] = {"__name__": "shop"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), module)
    for fence in (1, 2):
        token = enter_job(JobContext("a", "default", "shop.pay", 1, fence))
        try:
            assert {"paid": 7} == module["pay"].fn(7)
        finally:
            leave_job(token)
    with closing(sqlite3.connect("shop.sqlite")) as shop:
        assert [(7, 1)] == shop.execute("SELECT * FROM orders").fetchall()
    module["connection"].close()
