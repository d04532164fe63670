"""Whole workers on each kind of server that headrace supports."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario_lab import QUEUES, Lab, until


@pytest.fixture(params=["redis7_url", "cluster_url"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    found = Lab(request.getfixturevalue(request.param), tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
def test_three_queues_are_worked_through_with_a_kill_on_the_way(elsewhere: Lab, pool: str) -> None:
    """Retries, delays, priorities and a killed process: on Redis 7.0, and on a cluster where each queue has its own node."""
    lab = elsewhere
    lab.start(*QUEUES, "--pool", pool, "--slots" if pool == "asyncio" else "--processes", "3")
    jobs = [lab.app.queue(QUEUES[n % 3]).enqueue("ledger.work", n, 0.01) for n in range(60)]
    jobs.append(lab.app.options(queue="low", delay=0.2, priority=5).enqueue("ledger.work", 60))
    again = lab.app.queue("high").enqueue("ledger.fails_twice", 61)
    until(lambda: len(lab.ends()) > 10)
    slow = lab.app.queue("high").enqueue("ledger.work", 62, 1.0)
    os.kill(lab.pid_of(62), signal.SIGKILL)
    assert [*range(61)] == [job.result(timeout=30) for job in jobs]
    assert (3, 62) == (again.result(timeout=30), slow.result(timeout=30))
    assert lab.starts()[62] >= 2
