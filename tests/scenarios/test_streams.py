"""What a generator task yields, while the processes that run it are killed: each item once, and none is missing."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
from scenario_lab import Lab, until
from stream_jobs import ITEMS, aitems, app, items

from headrace import Headrace, State
from headrace.task import Task

POOLS = {
    "prefork": ("--processes", "1"),
    "fork": ("--pool", "fork", "--processes", "1"),
    "threads": ("--pool", "threads", "--slots", "2"),
    "asyncio": ("--pool", "asyncio", "--slots", "2"),
}


@pytest.mark.parametrize("task", [items, aitems], ids=["anew", "from a checkpoint"])
@pytest.mark.parametrize("pool", POOLS)
def test_a_killed_run_leaves_no_hole_and_no_double(lab: Lab, pool: str, task: Task[..., Any]) -> None:
    """A reader sees the items of both runs as one stream, live, and its end; both runs' words are kept."""
    lab.start(*POOLS[pool], app="stream_jobs:app")
    producer = Headrace(lab.url)
    producer.tasks.update(app.tasks)
    job = producer.enqueue(task.name)
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.extend(job.stream(timeout=60)))
    reader.start()
    standing = until(lambda: lab.lines("stands"))
    (lab.folder / "open").touch()
    os.kill(int(standing[0][0]), signal.SIGKILL)
    reader.join(60)
    assert list(range(ITEMS)) == seen == list(job.stream())
    assert job.refresh().state is State.SUCCEEDED
    if task is aitems:
        assert ["0", str(ITEMS // 2)] == [row[0] for row in lab.lines("begin")]
    # The first run's words may have been under way when it was killed; the last run's are there at its end.
    assert ["a run"] == sorted({line.text for line in job.logs()})
    producer.close()
