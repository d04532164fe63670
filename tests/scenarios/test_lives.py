"""How children and workers begin, are replaced, and end for other reasons than a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from scenario_lab import Lab, until

from headrace.engine import admin, ops
from headrace.engine.keys import queue_keys


def test_a_child_that_has_grown_too_large_is_replaced_between_two_jobs(lab: Lab) -> None:
    worker = lab.start("--processes", "1", "--max-memory", "200MB")
    assert [0, 1] == [lab.app.enqueue("ledger.eats", n, 100 * n).result(timeout=20) for n in range(2)]
    assert 2 == lab.app.enqueue("ledger.eats", 2, 200).result(timeout=20)
    worker.wait_for(r"holds \d+ MB: replaced after its job")
    until(lambda: len(lab.sessions()) == 1 and lab.app.enqueue("ledger.work", 3).result(timeout=20) == 3)
    pids = [row[2] for row in lab.lines("start")]
    assert pids[0] == pids[1] == pids[2]
    until(lambda: lab.app.enqueue("ledger.work", 4).result(timeout=20) == 4 and lab.lines("start")[-1][2] != pids[0])
    assert {} == lab.live_jobs()


def test_a_child_whose_lease_was_lost_is_killed_and_its_job_ends_once(lab: Lab, tmp_path: Path) -> None:
    """Its supervisor stood still beyond the lease: another worker has the job, so this run of it must end."""
    workers = [lab.start("--processes", "1", "--lease", "2") for _ in range(2)]
    gate = tmp_path / "gate"
    job = lab.app.enqueue("ledger.waits_for", 1, str(gate))
    pid = lab.pid_of(1)
    stopped = next(worker for worker in workers if pid in {child.pid for child in worker.descendants()})
    os.kill(stopped.process.pid, signal.SIGSTOP)
    until(lambda: lab.starts()[1] == 2, timeout_s=30, what="the other worker takes over")
    assert psutil.pid_exists(pid)
    os.kill(stopped.process.pid, signal.SIGCONT)
    stopped.wait_for("lost its lease: killed")
    until(lambda: not psutil.pid_exists(pid), timeout_s=10)
    gate.touch()
    assert 1 == job.result(timeout=30)
    assert (2, 1) == (lab.starts()[1], lab.ends()[1])
    until(lambda: len(lab.sessions()) == 2, what="the stopped worker goes on with a new child")
    until(lambda: not lab.live_jobs())


@pytest.mark.parametrize("pool", [("--processes", "1"), ("--pool", "threads", "--slots", "2")])
def test_children_may_be_fresh_interpreters(lab: Lab, pool: tuple[str, ...], tmp_path: Path) -> None:
    """--start spawn: a killed child is replaced and its job runs again; nothing is left at the end."""
    worker = lab.start(*pool, "--start", "spawn")
    assert 1 == lab.app.enqueue("ledger.work", 1).result(timeout=20)
    gate = tmp_path / "gate"
    job = lab.app.enqueue("ledger.waits_for", 2, str(gate))
    os.kill(lab.pid_of(2), signal.SIGKILL)
    until(lambda: lab.starts()[2] == 2, timeout_s=30)
    gate.touch()
    assert 2 == job.result(timeout=20)
    assert 0 == worker.terminate()
    assert {} == lab.live_jobs()
    assert set() == lab.sessions()


@pytest.mark.parametrize(
    "pool", [("threads", "--slots", "3"), ("asyncio", "--slots", "3"), ("fork", "--processes", "1")]
)
def test_max_jobs_recycles_children_of_every_pool(lab: Lab, pool: tuple[str, ...]) -> None:
    lab.start("--pool", *pool, "--max-jobs", "3")
    jobs = [lab.app.enqueue("ledger.work", n) for n in range(24)]
    assert list(range(24)) == [job.result(timeout=60) for job in jobs]
    # With three slots a child may have begun some more when it has done its three.
    assert len({row[2] for row in lab.lines("start")}) >= 3
    assert set(lab.starts().values()) == {1}


APP = """\
from headrace import Headrace

app = Headrace()


@app.task
def version() -> int:
    return 1
"""


@contextmanager
def _worker_on(folder: Path, url: str, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker on shop.py of that folder; it ends with the block."""
    command = [sys.executable, "-m", "headrace", "worker", "-A", "shop.py", "--processes", "1", *args]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "HEADRACE_URL": url}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(40)


def test_a_reload_that_cannot_be_imported_leaves_the_old_code(lab: Lab, tmp_path: Path) -> None:
    """The error is shown, jobs go on; the next good edit counts."""
    shop, log = tmp_path / "shop.py", tmp_path / "log"
    shop.write_text(APP)
    with _worker_on(tmp_path, lab.url, "--reload") as process:
        assert 1 == lab.app.enqueue("shop.version").result(timeout=30)
        shop.write_text(APP + "\nthis is no Python\n")
        until(lambda: "not reloaded, the old code goes on" in log.read_text(), what="the error")
        assert "SyntaxError" in log.read_text() or "invalid syntax" in log.read_text()
        assert 1 == lab.app.enqueue("shop.version").result(timeout=30)
        shop.write_text(APP.replace("return 1", "return 2"))
        until(lambda: " reloaded shop.py" in log.read_text(), what="the reload")
        until(lambda: lab.app.enqueue("shop.version").result(timeout=30) == 2)
        process.terminate()
        assert 0 == process.wait(30)


def test_an_app_that_starts_threads_while_it_is_imported_is_refused(lab: Lab, tmp_path: Path) -> None:
    """A fork would copy their locks; --start spawn takes it."""
    (tmp_path / "shop.py").write_text(
        APP + "\nimport threading\nthreading.Thread(target=threading.Event().wait, name='pump', daemon=True).start()\n"
    )
    with _worker_on(tmp_path, lab.url) as process:
        assert 78 == process.wait(30)
    told = (tmp_path / "log").read_text()
    assert "pump" in told and "--start spawn" in told and "Traceback" not in told
    with _worker_on(tmp_path, lab.url, "--start", "spawn") as process:
        assert 1 == lab.app.enqueue("shop.version").result(timeout=30)
        process.terminate()
        assert 0 == process.wait(30)


def test_what_an_older_run_gives_is_dropped_when_its_own_process_has_claimed_the_job_anew(lab: Lab) -> None:
    """A session of the asyncio pool is swept, and its successor claims the same job: both runs end, and one end counts."""
    lab.start("--pool", "asyncio", "--slots", "2")
    job = lab.app.enqueue("ledger.astands", 1)
    until(lambda: lab.starts()[1] == 1)
    keys = queue_keys("default")
    [session] = lab.sessions()
    lab.app.client.run(ops.release([keys], session, blamed=(), alone=False, reason="", split=False))
    until(lambda: lab.starts()[1] == 2, what="the second run")
    (lab.folder / "open").touch()
    assert 1 == job.result(timeout=30)
    until(lambda: lab.ends()[1] == 2)
    assert 0 == lab.workers[0].terminate()
    totals = lab.app.client.run(admin.count_jobs(keys)).totals
    assert (1, 1) == (totals["enqueued"], totals["succeeded"])
