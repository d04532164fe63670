"""The code of docs/howto/durability.md runs as shown, on a primary with a replica and an append-only file."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest
import redis
from scenario_lab import until

from headrace import Headrace
from headrace.server import EmbeddedServer

PAGE = Path(__file__).parents[2] / "docs/howto/durability.md"


def test_its_code_stores_a_job_once_and_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is called twice for one order."""
    quick = {"repl-diskless-sync-delay": "0", "appendonly": "yes"}
    with EmbeddedServer(config=quick) as primary, EmbeddedServer(
        config={**quick, "replicaof": f"127.0.0.1 {primary.port}"}
    ) as replica, closing(redis.Redis(port=replica.port, protocol=2, decode_responses=True)) as copy:  # fmt: skip
        until(lambda: copy.info("replication")["master_link_status"] == "up")
        monkeypatch.setenv("HEADRACE_URL", primary.url)
        source = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL))
        module: dict[str, object] = {"__name__": "durability_page"}
        exec(compile(source, str(PAGE), "exec"), module)
        book = module["book_for_certain"]
        assert ["book-7", "book-7"] == [book(7), book(7)]  # type: ignore[operator]
        app = module["app"]
        assert isinstance(app, Headrace)
        assert "queued" == app.job("book-7").state
        app.close()
