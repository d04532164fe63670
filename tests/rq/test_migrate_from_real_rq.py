"""The same as `test_migrate.py` with RQ itself, from PyPI; and while its workers run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import redis
import rq_real
from rq_bench import HERE, Bench
from scenario_lab import until
from test_migrate import VERSIONS, move, see_moved

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def start(bench: Bench, version: str, program: str, *args: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([rq_real.installed(version), str(HERE)])
    with (bench.folder / "rq.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / program), bench.url, *args], cwd=HERE, start_new_session=True,
            stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": paths, "LEDGER": str(bench.ledger)},
        )  # fmt: skip
    bench.processes.append(process)
    return process


@pytest.mark.parametrize("version", VERSIONS)
def test_what_real_rq_writes_is_moved_and_runs(bench: Bench, version: str) -> None:
    """RQ enqueues, fails, retries, defers, and dies at work; then all is moved."""
    assert start(bench, version, "rq_fill.py").wait(120) == 0, (bench.folder / "rq.log").read_text()
    see_moved(bench, *move(bench))


@pytest.mark.parametrize("version", VERSIONS)
def test_no_job_runs_twice_while_rq_s_workers_and_schedulers_still_run(bench: Bench, version: str) -> None:
    """Three workers of RQ's take jobs, enqueue due ones and children; meanwhile all is moved, again and again; each job runs once."""
    count = 150
    workers = [start(bench, version, "rq_real.py", "high", "default", "low") for _ in range(3)]
    until(lambda: bench.connection.scard("rq:workers") == 3, timeout_s=60)
    producer = start(bench, version, "rq_many.py", str(count))
    until(lambda: len(bench.ran()) > 5, timeout_s=60)
    ends = time.monotonic() + 60
    while producer.poll() is None or time.monotonic() < ends - 40:
        assert time.monotonic() < ends
        move(bench)
    by_rq = len(bench.ran())
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    for worker in workers:
        worker.wait(60)
    move(bench)
    bench.start("tutorial_worker.py")
    until(lambda: len(set(bench.ran())) == 3 * count, timeout_s=240, what="every job ran")
    assert [] == [number for number, times in Counter(bench.ran()).items() if times > 1]
    assert 5 < by_rq < 3 * count
    left = redis.from_url(bench.url)
    assert [] == [key for key in left.keys("rq:queue:*") if left.type(key) == b"list"]
