"""Jobs that are rude to their process, and machines that are short of what a worker needs: nothing is lost."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from scenario_lab import HERE, Lab, until

POOLS = {
    "prefork": ("--processes", "1"),
    "fork": ("--pool", "fork", "--processes", "1"),
    "threads": ("--pool", "threads", "--slots", "2"),
    "asyncio": ("--pool", "asyncio", "--slots", "2"),
}
KINDS = ("changes folder", "masks", "takes signals", "sets timeouts", "seeds", "closes files")


@pytest.mark.parametrize("pool", POOLS)
def test_a_job_that_changes_its_process_harms_no_other(lab: Lab, pool: str) -> None:
    """Folder, umask, signal handlers, timeouts of sockets, random numbers, and all its open files: each job after it runs, and each has its end."""
    worker = lab.start(*POOLS[pool])
    for number, kind in enumerate(KINDS):
        rude = lab.app.enqueue("ledger.wrecks", number, kind)
        until(lambda job=rude: job.refresh().state.is_ended, timeout_s=60, what=kind)
        plain = [lab.app.enqueue("ledger.work", 10 * number + n) for n in range(10, 14)]
        assert [10 * number + n for n in range(10, 14)] == [job.result(timeout=60) for job in plain]
    assert all(lab.starts()[number] for number in range(len(KINDS)))
    assert {} == lab.live_jobs()
    assert 0 == worker.terminate()


@pytest.mark.parametrize("pool", POOLS)
def test_a_full_log_disk_stops_no_job(lab: Lab, pool: str) -> None:
    """Whatever the worker and its jobs write there."""
    with open("/dev/full", "wb") as full:
        worker = subprocess.Popen(
            [sys.executable, "-m", "headrace", "worker", *POOLS[pool], "-A", "ledger:app", "--log-level", "debug"],
            cwd=HERE, stdout=full, stderr=full, env={**os.environ, "HEADRACE_URL": lab.url, "LEDGER": str(lab.ledger)},
        )  # fmt: skip
    try:
        jobs = [lab.app.enqueue("ledger.talks", number) for number in range(5)]
        assert list(range(5)) == [job.result(timeout=30) for job in jobs]
        assert worker.poll() is None
    finally:
        worker.terminate()
        worker.wait(30)


def test_a_worker_that_may_open_too_few_files_says_so_and_loses_nothing(lab: Lab) -> None:
    """It ends, or works slowly, but in words; the job is still there for one that can."""
    job = lab.app.enqueue("ledger.work", 1)
    few = subprocess.run(
        [sys.executable, "-m", "headrace", "worker", "--pool", "threads", "--slots", "20", "-A", "ledger:app", "--burst"],
        cwd=HERE, env={**os.environ, "HEADRACE_URL": lab.url, "LEDGER": str(lab.ledger)}, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)), timeout=120,
    )  # fmt: skip
    if job.refresh().state.is_ended:
        assert 0 == few.returncode
    else:
        assert few.returncode and "Too many open files" in few.stderr + few.stdout
        lab.start("--processes", "1")
    assert 1 == job.result(timeout=30)


def test_one_job_wakes_few_of_many_sleepers(lab: Lab) -> None:
    """Forty consumers wait; a hundred jobs, one after another, cost a few claims each."""
    lab.start("--pool", "threads", "--slots", "20", ready=20)
    lab.start("--pool", "threads", "--slots", "20", ready=20)
    assert 0 == lab.app.enqueue("ledger.work", 0).result(timeout=30)

    def calls() -> int:
        return int(lab.redis.info("commandstats")["cmdstat_evalsha"]["calls"])

    before = calls()
    for number in range(1, 101):
        assert number == lab.app.enqueue("ledger.work", number).result(timeout=30)
    # Enqueue, wait for the result, the claim, the settle, and what forty of them do every two seconds.
    assert calls() - before < 100 * 8 + 400
