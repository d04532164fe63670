"""Limits, groups, unique keys, deadlines and cancels on real workers of every pool."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from flow_jobs import anarrow, asks, narrow, once, parent, send, sleeps, stubborn, turn
from scenario_lab import Lab, until

from headrace import JobCancelled, JobExpired, JobFailed, State

POOLS = {
    "prefork": ("--processes", "4"),
    "threads": ("--pool", "threads", "--processes", "2", "--slots", "3"),
    "asyncio": ("--pool", "asyncio", "--processes", "2", "--slots", "6"),
    "fork": ("--pool", "fork", "--processes", "4"),
}


def most_at_once(lab: Lab) -> int:
    """The most jobs that ran at the same time, by what they noted."""
    moments = sorted(
        [(float(row[1]), 1) for row in lab.lines("start")] + [(float(row[1]), -1) for row in lab.lines("end")]
    )
    running = most = 0
    for _, step in moments:
        running += step
        most = max(most, running)
    return most


@pytest.mark.parametrize("pool", POOLS)
def test_a_concurrency_limit_holds_across_processes(lab: Lab, pool: str) -> None:
    """Two at once, never three; all run, and nothing of the limit is left."""
    lab.start(*POOLS[pool], app="flow_jobs:app")
    task = anarrow if pool == "asyncio" else narrow
    jobs = [lab.app.send(task.call(n, 0.05)) for n in range(20)]
    assert [job.result(timeout=60) for job in jobs] == list(range(20))
    assert most_at_once(lab) == 2
    assert not [key for key in lab.redis.keys("*slots:*") + lab.redis.keys("*parked*")]


def test_the_slots_of_a_killed_worker_come_back(lab: Lab) -> None:
    """SIGKILL of both children that hold slots: their jobs run again, the others follow."""
    lab.start("--processes", "3", app="flow_jobs:app")
    jobs = [lab.app.send(narrow.call(n, 0.3)) for n in range(6)]
    until(lambda: len(lab.lines("start")) >= 2)
    children = [p for p in lab.workers[0].descendants() if p.pid != lab.workers[0].process.pid]
    for child in children[-2:]:
        os.kill(child.pid, signal.SIGKILL)
    assert sorted(job.result(timeout=60) for job in jobs) == list(range(6))


def test_a_rate_is_never_exceeded(lab: Lab) -> None:
    """50 a second, by four processes: no window of a second holds more than 51 starts, and none is lost."""
    lab.start("--processes", "4", app="flow_jobs:app")
    calls = [send.call(n, "mail") for n in range(150)]
    jobs = lab.app.enqueue_many(calls)
    assert [job.result(timeout=60) for job in jobs] == list(range(150))
    starts = sorted(float(row[1]) for row in lab.lines("start"))
    # A claim and its start are some milliseconds apart: hence the slack of a few of 50.
    assert all(late - early >= 0.9 for early, late in zip(starts, starts[51:], strict=False))
    assert starts[-1] - starts[0] >= 149 / 50 - 0.1


def test_retry_after_shuts_the_limit_for_all(lab: Lab, tmp_path: Path) -> None:
    """One 429: nothing of the same limit starts until it is over."""
    lab.start("--processes", "2", app="flow_jobs:app")
    first = lab.app.send(asks.call(0, "api", str(tmp_path / "gate")))
    until(lambda: (state := lab.app.limits.states("default")) and state[0].held_until_ms, what="the limit is held")
    others = [lab.app.send(asks.call(n, "api", str(tmp_path / "gate"))) for n in range(1, 5)]
    assert [job.result(timeout=30) for job in [first, *others]] == list(range(5))
    moments = [float(row[1]) for row in lab.lines("start")]
    assert all(later - moments[0] >= 0.8 for later in moments[1:])


def test_a_tenant_with_many_jobs_delays_another_by_little(lab: Lab) -> None:
    """With one worker and batches: the small tenant's jobs come among the first."""
    lab.app.enqueue_many(turn.call("big", n) for n in range(3_000))
    lab.app.enqueue_many(turn.call("small", n) for n in range(10))
    lab.start("--processes", "1", app="flow_jobs:app")
    until(lambda: len(lab.lines("start")) == 3_010, timeout_s=60)
    order = [row[1] for row in lab.lines("start")]
    last_small = max(i for i, tenant in enumerate(order) if tenant == "small")
    assert last_small <= 20


def test_a_unique_job_runs_once_however_often_it_is_enqueued(lab: Lab, tmp_path: Path) -> None:
    """Until it starts, each enqueue gives the same job; then one more may wait."""
    gate = str(tmp_path / "gate")
    jobs = [lab.app.send(once.call(1, gate)) for _ in range(5)]
    assert {job.id for job in jobs} == {jobs[0].id}
    assert [job.is_new for job in jobs] == [True, False, False, False, False]
    lab.start("--processes", "1", app="flow_jobs:app")
    until(lambda: lab.starts()[1] == 1)
    later = [lab.app.send(once.call(1, gate)) for _ in range(3)]
    assert [job.is_new for job in later] == [True, False, False]
    Path(gate).touch()
    assert later[2].result(timeout=20) == jobs[0].result(timeout=20) == 1
    assert lab.starts()[1] == 2


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_cancelled_job_that_does_not_stop_is_killed(lab: Lab, pool: str) -> None:
    """Asked first, then its process is killed; it ends as cancelled and does not run again."""
    worker = lab.start(*POOLS[pool], "--kill-after", "1", "--lease", "4", app="flow_jobs:app")
    job = lab.app.send(stubborn.call(1))
    pid = int(until(lambda: lab.lines("start"))[0][1])
    assert job.cancel()
    with pytest.raises(JobCancelled):
        job.result(timeout=30)
    assert lab.lines("asked")
    worker.wait_for("was cancelled, and did not stop when asked")
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert len(lab.lines("start")) == 1


def test_a_deadline_stops_a_job_and_what_it_enqueues(lab: Lab) -> None:
    """It is stopped at its deadline; a child job that would start later expires."""
    lab.start("--processes", "1", app="flow_jobs:app")
    job = lab.app.send(sleeps.options(deadline=3).call(1))
    with pytest.raises(JobFailed, match="JobTimeout"):
        job.result(timeout=20)
    ends = datetime.now(UTC) + timedelta(hours=1)
    child_id = lab.app.send(parent.options(deadline=ends).call(10)).result(timeout=20)
    child = lab.app.job(child_id)
    assert child.deadline is not None and abs(child.deadline - ends) < timedelta(seconds=1)


def test_a_job_past_its_deadline_does_not_start(lab: Lab) -> None:
    """It expires, as with `expires`."""
    job = lab.app.send(parent.options(deadline=0.2).call(1))
    until(lambda: datetime.now(UTC) - job.created_at > timedelta(seconds=0.3))
    lab.start("--processes", "1", app="flow_jobs:app")
    with pytest.raises(JobExpired):
        job.result(timeout=20)
    assert job.state is State.EXPIRED
    assert not lab.lines("start")
