"""What a job tells from inside, in each pool: how far it is, and where a later run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from inside_jobs import STEPS, acounts, app, asteps, counts, saves_wrongly, steps
from scenario_lab import Lab, until

from headrace import Headrace, Job, JobFailed
from headrace.task import Task

POOLS = {
    "prefork": ("--processes", "1"),
    "fork": ("--pool", "fork", "--processes", "1"),
    "threads": ("--pool", "threads", "--slots", "2"),
    "asyncio": ("--pool", "asyncio", "--slots", "2"),
}


def open_gate(lab: Lab) -> None:
    (lab.folder / "open").touch()


def enqueue(lab: Lab, task: Task[..., object], *args: object) -> Job[object]:
    client = Headrace(lab.url)
    client.tasks.update(app.tasks)
    return client.enqueue(task.name, *args)


def writes(lab: Lab) -> int:
    """How often a field of a hash was set on the server."""
    return int(lab.redis.info("commandstats").get("cmdstat_hset", {"calls": 0})["calls"])


@pytest.mark.parametrize("task", [steps, asteps], ids=["sync", "async"])
@pytest.mark.parametrize("pool", POOLS)
def test_a_job_that_raised_goes_on_where_it_was(lab: Lab, pool: str, task: Task[..., object]) -> None:
    """No step is done twice, in any pool, by a sync or an async task."""
    lab.start(*POOLS[pool], app="inside_jobs:app")
    job = enqueue(lab, task, 1)
    until(lambda: lab.lines("stands"))
    open_gate(lab)
    assert list(range(STEPS)) == job.result(timeout=30)
    assert [["1", str(step)] for step in range(STEPS)] == lab.lines("step")
    assert ["0", str(STEPS // 2)] == [row[2] for row in lab.lines("begin")]


@pytest.mark.parametrize("pool", POOLS)
def test_a_job_whose_process_was_killed_goes_on_where_it_was(lab: Lab, pool: str) -> None:
    """At the last checkpoint, in each pool."""
    lab.start(*POOLS[pool], app="inside_jobs:app")
    job = enqueue(lab, steps, 1)
    standing = until(lambda: lab.lines("stands"))
    open_gate(lab)
    os.kill(int(standing[0][1]), signal.SIGKILL)
    assert list(range(STEPS)) == job.result(timeout=30)
    assert [["1", str(step)] for step in range(STEPS)] == lab.lines("step")


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("task", [counts, acounts], ids=["sync", "async"])
def test_the_last_progress_is_there_whatever_came_just_before(lab: Lab, pool: str, task: Task[..., object]) -> None:
    """Of many thousand, only a few are sent; `job wait --progress` tells them line by line."""
    lab.start(*POOLS[pool], app="inside_jobs:app")
    before = writes(lab)
    job = enqueue(lab, task, 3_000)
    found = until(lambda: (seen := job.refresh().progress) and seen.text == "nearly" and seen)
    assert 0.75 == found.fraction and found.done is None
    waiting = subprocess.Popen(
        [sys.executable, "-m", "headrace", "job", "wait", job.id, "--progress"],
        env={**os.environ, "HEADRACE_URL": lab.url}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert waiting.stderr is not None
    assert "75 %  nearly\n" == waiting.stderr.readline()
    open_gate(lab)
    assert 0 == waiting.wait(30)
    waiting.stderr.close()
    assert writes(lab) - before < 100
    assert job.refresh().progress is None


def test_a_coroutine_is_told_to_save_without_blocking(lab: Lab) -> None:
    """The error says how."""
    lab.start("--processes", "1", app="inside_jobs:app")
    with pytest.raises(JobFailed, match="await current_job"):
        enqueue(lab, saves_wrongly).result(timeout=30)


def test_on_a_terminal_the_bar_makes_way_for_the_result(lab: Lab) -> None:
    """It is drawn while the job runs, and wiped away before what the job returned is printed, on a line of its own."""
    lab.start("--processes", "1", app="inside_jobs:app")
    job = enqueue(lab, counts, 10)
    until(lambda: job.refresh().progress)
    reading, writing = os.openpty()
    waiting = subprocess.Popen(
        [sys.executable, "-m", "headrace", "job", "wait", job.id, "--progress"],
        env={**os.environ, "HEADRACE_URL": lab.url, "TERM": "xterm"}, stdin=writing, stdout=writing, stderr=writing,
    )  # fmt: skip
    os.close(writing)
    shown = b""
    while b"75 %  nearly" not in shown:
        shown += os.read(reading, 4096)
    open_gate(lab)
    with suppress(OSError):  # the terminal's other end was closed: all is read
        while part := os.read(reading, 4096):
            shown += part
    os.close(reading)
    assert 0 == waiting.wait(30)
    assert shown.endswith(b"\x1b[2Knull\r\n")
