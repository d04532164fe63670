"""`import rq` as the layer: for packages that were written for RQ."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(text: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **variables},
    )  # fmt: skip


def test_rq_and_its_modules_are_the_layer_s_own(tmp_path: Path) -> None:
    """One module under two names, so one class; the name it has is its own; what is missing is a ModuleNotFoundError."""
    done = run(
        """
from headrace.contrib.rq import install_as_rq
install_as_rq()
install_as_rq()
import rq, rq.job
from rq.queue import Queue
import headrace.contrib.rq.job, headrace.contrib.rq.queue
assert rq is headrace.contrib.rq and rq.job is headrace.contrib.rq.job and Queue is headrace.contrib.rq.queue.Queue
assert rq.job.__name__ == rq.job.__spec__.name == "headrace.contrib.rq.job"
try:
    import rq.no_such
except ModuleNotFoundError as error:
    assert error.name == "rq.no_such"
else:
    raise SystemExit("it was found")
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_an_rq_that_is_there_already_is_not_mixed_with_the_layer(tmp_path: Path) -> None:
    """It is an error that says what to do; one that is only installed is not loaded."""
    (tmp_path / "rq.py").write_text("mine = True\n")
    done = run("import rq; from headrace.contrib.rq import install_as_rq; install_as_rq()", tmp_path)
    assert done.returncode == 1 and "call it first of all" in done.stderr
    done = run("from headrace.contrib.rq import install_as_rq; install_as_rq(); import rq; rq.Queue", tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_worker_that_is_started_has_it_too(tmp_path: Path) -> None:
    """Its processes import the layer's runner first, and then the modules of jobs."""
    done = run("import headrace.contrib.rq.runner, rq; rq.Queue", tmp_path, HEADRACE_AS_RQ="1")
    assert done.returncode == 0, done.stderr
