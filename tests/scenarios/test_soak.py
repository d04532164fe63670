"""A slice of the soak: an hour of the fast clock. `make soak` runs the whole day."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.testing.clock import faketime_library

ROOT = Path(__file__).parents[2]
MINUTES = 3


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_nothing_grows_and_nothing_is_left_in_an_hour_of_mixed_work(tmp_path: Path) -> None:
    """Every pool, every kind of job: memory, descriptors, threads and keys are as before, and the totals add up."""
    if faketime_library() is None:
        pytest.skip("no libfaketime: apt-get install libfaketime")
    done = subprocess.run(
        [sys.executable, "benchmarks/soak.py", "--minutes", str(MINUTES), "--results", str(tmp_path / "soak.json")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout[-6_000:] + done.stderr[-3_000:]
