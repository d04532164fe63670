"""The fault matrix names tests that are there, and its page names all of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from click.testing import CliRunner
from fault_rows import SECTIONS

from headrace.cli.main import command
from headrace.engine.clients import backoff_s
from headrace.server import EmbeddedServer

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs/fault-matrix.md"


def names_in(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(file.read_text("utf8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_every_row_names_tests_that_are_there_or_says_why_none_is() -> None:
    for rows in SECTIONS.values():
        for row in rows:
            assert bool(row.tests) != bool(row.absent), row.fault
            for test in row.tests:
                file, name = test.split("::", 1)
                assert name in names_in(TESTS / file), test


def test_the_page_shows_every_row_with_its_tests() -> None:
    """And that they passed."""
    lines = [line for line in PAGE.read_text("utf8").splitlines() if line.startswith("| ")]
    shown = {line.split(" | ")[0][2:]: line for line in lines}
    for rows in SECTIONS.values():
        for row in rows:
            line = shown[row.fault]
            assert set(row.tests) == set(re.findall(r"`([\w/.:]+::\w+)`", line)), f"run make matrix: {row.fault}"
            assert "failed" not in line.split(" | ")[-1]


def test_a_check_warns_of_a_server_that_keeps_nothing() -> None:
    """Before a restart loses every job."""
    with EmbeddedServer() as server:
        told = CliRunner().invoke(command, ["check", "--url", server.url])
    assert "appendonly yes" in told.output


def test_those_who_come_back_are_spread() -> None:
    """Over the whole of a time that doubles with each try, up to its cap."""
    for attempt, most in ((1, 0.04), (5, 0.64), (50, 2.0)):
        waits = sorted(backoff_s(attempt, 2.0) for _ in range(1_000))
        assert 0 < waits[0] < 0.006 + 0.1 * most and 0.9 * most < waits[-1] <= most
        assert 0.4 * most < waits[500] < 0.6 * most
