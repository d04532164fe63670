"""Crash points: off unless asked for, refused when misspelt, ignored in production; and each is where the list says."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import crash

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/crash-points.md"
LOOKS_ONLY = {"look", "holder", "count_states", "index_look", "index_page", "index_places"}
OPERATORS = {"bulk_put", "index_set"}  # beside those that begin with admin_


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from headrace import crash\n{code}"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_nothing_happens_where_it_is_not_asked_for() -> None:
    assert not crash.IS_ON
    crash.at("run.mid")


def test_a_process_dies_at_the_hit_that_was_named() -> None:
    """By SIGKILL, and says where."""
    code = "for n in range(9): crash.at('run.before'); crash.at('run.mid'); print(n, flush=True)"
    done = run(code, HEADRACE_CRASH="run.mid:3")
    assert (-signal.SIGKILL, "0\n1\n") == (done.returncode, done.stdout)
    assert done.stderr.endswith("dies at run.mid\n")
    assert (-signal.SIGKILL, "") == (run(code, HEADRACE_CRASH="run.mid").returncode, "")


def test_one_process_dies_and_no_other_while_its_word_is_there(tmp_path: Path) -> None:
    word = tmp_path / "died"
    environment = {"HEADRACE_CRASH": "run.after", "HEADRACE_CRASH_ONCE": str(word)}
    first = run("crash.at('run.after')", **environment)
    assert -signal.SIGKILL == first.returncode
    point, pid = word.read_text().split()
    assert "run.after" == point and f"process {pid} dies" in first.stderr
    assert 0 == run("crash.at('run.after')", **environment).returncode
    word.unlink()
    assert -signal.SIGKILL == run("crash.at('run.after')", **environment).returncode


@pytest.mark.parametrize("wrong", ["nowhere", "run.mid:0", "run.mid:x", "run.mid:-1", ":1"])
def test_a_point_that_does_not_exist_is_refused(wrong: str) -> None:
    """It would never be reached, and a test with it would show nothing."""
    done = run("", HEADRACE_CRASH=wrong)
    assert 1 == done.returncode
    assert f"HEADRACE_CRASH={wrong}: expected" in done.stderr


def test_production_ignores_it_and_says_so() -> None:
    done = run("crash.at('run.mid'); print(crash.IS_ON)", HEADRACE_CRASH="run.mid", HEADRACE_ENV="production")
    assert (0, "False\n") == (done.returncode, done.stdout)
    assert "HEADRACE_CRASH is ignored" in done.stderr


def test_every_script_that_writes_has_its_points() -> None:
    """A new script is on the list, or only looks, or is an operator's."""
    found = {path.stem for path in (ROOT / "src/headrace/engine/lua").glob("*.lua")}
    writing = {name for name in found if not name.startswith("admin_")} - LOOKS_ONLY - OPERATORS
    assert writing | {"claim"} == set(crash.SCRIPTS)


def test_every_step_on_the_list_is_in_the_code_once() -> None:
    """And behind a look at `IS_ON`, or in what is only put in place where it is on. `run.mid` is the job's own to call."""
    points: list[str] = []
    for path in (ROOT / "src/headrace").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) == "crash.at"
                and isinstance(node.args[0], ast.Constant)
            ):
                points.append(str(node.args[0].value))
    assert set(crash.STEPS) - {"run.mid"} == set(points)


def test_the_page_lists_every_point_and_no_other() -> None:
    """docs/crash-points.md: a row for each script and each step."""
    rows = [line.split("|")[1].strip() for line in PAGE.read_text("utf8").splitlines() if line.startswith("| `")]
    named = [word.strip("`") for row in rows for word in row.split(", ")]
    assert sorted([*crash.SCRIPTS, *crash.STEPS]) == sorted(named)
    assert all(f"`{phase}`" in PAGE.read_text("utf8") for phase in crash.PHASES)
