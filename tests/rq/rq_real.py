"""RQ itself, from PyPI, in a folder of its own; and a worker of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / ".versus"


def installed(version: str) -> str:
    """The folder that RQ of this version is in; the test is skipped where it cannot be had."""
    target = FOLDER / f"rq-{version}"
    if not target.exists():
        made = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), f"rq=={version}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode != 0:
            pytest.skip(f"pip cannot install rq {version}: {made.stderr.strip()[-200:]}")
    return str(target)


def main() -> None:
    """`rq_real.py URL QUEUE…`: a worker with a scheduler, until it is told to stop."""
    import redis
    from rq import Worker

    connection = redis.from_url(sys.argv[1])
    Worker(sys.argv[2:], connection=connection).work(with_scheduler=True, logging_level="WARNING")


if __name__ == "__main__":
    main()
