"""The code of docs/howto/jobs.md runs as shown, and its commands are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace import Headrace
from headrace.cli.main import command
from headrace.core.filters import parse_filter

PAGE = Path(__file__).parents[2] / "docs/howto/jobs.md"


def test_its_code_and_commands_do_what_the_page_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is found by its id, with the index and without; every filter on the page can be read."""
    monkeypatch.setenv("HEADRACE_URL", url)
    text = PAGE.read_text("utf8")
    source = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    module: dict[str, object] = {"__name__": "jobs_page"}
    exec(compile(source, str(PAGE), "exec", dont_inherit=True), module)
    app = module["app"]
    assert isinstance(app, Headrace)
    find = ["job", "ls", "--filter", "queue:orders args.order_id:4711"]
    before = CliRunner().invoke(command, find).stdout
    assert "ship" in before
    said = re.findall(r"^\$ headrace (.+)$", text, re.MULTILINE)
    for line in said:
        words = shlex.split(line)
        found = CliRunner().invoke(command, words)
        assert found.exit_code in (0, 3), f"{line}: {found.output}"
    assert CliRunner().invoke(command, find).stdout == before
    for row in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE):
        for words in re.findall(r"`([^`]+)`", row):
            if ":" in words:
                parse_filter(words, now_ms=0)
    app.close()
