"""What workers tell of the jobs that they have run, with real workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario_lab import Lab

from headrace.core.tally import times_in
from headrace.engine import stats
from headrace.engine.keys import queue_keys


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "fork"])
def test_every_job_of_a_burst_is_counted_once_with_its_times(url: str, tmp_path: Path, pool: str) -> None:
    """Whatever runs it: what a process has not sent yet it sends as it ends."""
    lab = Lab(url, tmp_path)
    try:
        for number in range(30):
            lab.app.options(queue="default").enqueue("ledger.work", number)
        worker = lab.start("--pool", pool, "--processes", "1", "--burst", wait=False)
        assert worker.process.wait(60) == 0, worker.said
        found = lab.app.client.run(stats.read_totals(queue_keys("default")))
        sums = found["ledger.work"]
        assert sums["succeeded"] == 30
        assert times_in(sums, "run").count == times_in(sums, "wait").count == 30
        assert times_in(sums, "wait").total_us > 0
    finally:
        lab.close()
