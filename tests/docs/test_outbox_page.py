"""The guide on the outbox runs as written."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace import Headrace

PAGE = Path(__file__).parents[2] / "docs/howto/outbox.md"


def test_the_orders_of_the_guide_are_shipped_if_they_are_placed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One order is placed; one is there already, so its transaction fails, and its job never was."""
    monkeypatch.setenv("HEADRACE_URL", url)
    monkeypatch.chdir(tmp_path)
    module: dict[str, Any] = {"__name__": "shop"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), module)
    module["connection"].close()
    app = module["app"]
    assert isinstance(app, Headrace)
    with closing(sqlite3.connect("shop.sqlite")) as shop:
        shop.execute("CREATE TABLE orders (id integer PRIMARY KEY)")
        job_id = module["place_order"](shop, 7)
        with pytest.raises(sqlite3.IntegrityError):
            module["place_order"](shop, 7)
        assert 1 == module["relay_all"](shop)
    assert ("scheduled", [7]) == (app.job(job_id).state, app.job(job_id).args)
    app.close()
