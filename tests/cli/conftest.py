"""The command line against a real server: in this process where that is enough."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from headrace import Headrace
from headrace.cli.main import command

Run = Callable[..., Result]


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("queue", "ls")`: a command with $HEADRACE_URL set; stdout and stderr apart, and no terminal."""
    monkeypatch.setenv("HEADRACE_URL", url)
    monkeypatch.delenv("HEADRACE_APP", raising=False)
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return lambda *args, **options: CliRunner().invoke(command, [str(arg) for arg in args], **options)


@pytest.fixture
def app(url: str) -> Headrace:
    return Headrace(url)
