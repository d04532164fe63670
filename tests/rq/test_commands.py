"""`headrace rq`, as service files and people call it."""

from __future__ import annotations

import os
import subprocess
import sys

import rq_jobs
from rq_bench import HERE, Bench

from headrace.contrib.rq import Queue


def run(bench: Bench, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", "rq", *words], cwd=HERE.parent, capture_output=True, text=True, timeout=90,
        env={**os.environ, "RQ_REDIS_URL": bench.url, "LEDGER": str(bench.ledger)},
    )  # fmt: skip


def test_its_commands_do_what_rq_s_do(bench: Bench) -> None:
    """A burst worker with a path; info; failed jobs are requeued, others are named; a queue is emptied."""
    high, low = Queue("high", bench.connection), Queue("low", bench.connection)
    good, bad = high.enqueue(rq_jobs.note, 5), low.enqueue(rq_jobs.divide, 1, 0)
    done = run(bench, "worker", "high", "low", "--burst", "-P", str(HERE), "-n", "one")
    assert done.returncode == 0, done.stderr
    assert bench.ran() == [5] and good.is_finished and bad.is_failed
    assert "low\t0 queued\t0 started\t1 failed" in run(bench, "info").stdout.splitlines()
    done = run(bench, "requeue", "--queue", "low", bad.id, good.id)
    assert (done.returncode, done.stdout.split()) == (3, [good.id]) and bad.is_queued
    assert run(bench, "empty").returncode == 2
    assert run(bench, "empty", "low").stdout == "low\t1\n" and low.is_empty()
