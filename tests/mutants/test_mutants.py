"""Every mutant of the scripts, and of the Python that decides outcomes, is noticed; what is not mutated passes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutant_list import MUTANTS, Mutant
from oracle import MISSED, NOTICED

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/headrace"
TIMEOUT_S = 300


def path_of(mutant: Mutant) -> str:
    return mutant.file if mutant.file.endswith(".py") else f"engine/lua/{mutant.file}"


def judge(folder: Path, oracle: tuple[str, ...], mutant: Mutant | None = None) -> tuple[int, str]:
    """The oracle's verdict on a copy of headrace, and what it said."""
    copy = folder / "headrace"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        file = copy / path_of(mutant)
        file.write_text(file.read_text("utf8").replace(mutant.old, mutant.new), "utf8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/mutants/oracle.py"), str(folder), *oracle],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    return done.returncode, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.why}")
def test_a_mutants_line_is_there(mutant: Mutant) -> None:
    """Once: an entry whose line was changed must be looked at again."""
    assert 1 == (SOURCE / path_of(mutant)).read_text("utf8").count(mutant.old)


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize(
    "mutant",
    [pytest.param(mutant, marks=() if mutant.is_quick else pytest.mark.long) for mutant in MUTANTS],
    ids=[f"{mutant.file}: {mutant.why}" for mutant in MUTANTS],
)
def test_a_mutant_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    """A survivor means that a promise is not tested."""
    code, said = judge(tmp_path, mutant.oracle, mutant)
    assert code != MISSED, f"not noticed: {mutant.why}"
    assert code == NOTICED, said


@pytest.mark.long
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("oracle", sorted({mutant.oracle for mutant in MUTANTS}), ids=" ".join)
def test_without_a_mutant_nothing_is_noticed(oracle: tuple[str, ...], tmp_path: Path) -> None:
    """So what an oracle notices is the mutant."""
    code, said = judge(tmp_path, oracle)
    assert code == MISSED, said
