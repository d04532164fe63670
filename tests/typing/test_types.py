"""The public API has exact types."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import headrace

FILE = Path(__file__).with_name("public_api.py")


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_the_public_api_has_exact_types(tmp_path: Path) -> None:
    """mypy --strict agrees with every assert_type, and finds every mistake that is marked as one."""
    source = Path(headrace.__file__).parents[1]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            str(tmp_path),
            "--follow-imports",
            "silent",
            str(FILE),
        ],
        env={"MYPYPATH": str(source), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
