"""Flows that grow while they run: what their jobs add is part of them, once, whatever dies."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from growing_jobs import acrawl, crawl, end, far, leaf, stalls, twice
from scenario_lab import Lab, until

from headrace import UsageError, current_flow, group
from headrace.context import JobContext, enter_job, leave_job
from headrace.engine.audit import audit
from headrace.engine.keys import queue_keys

POOLS = {
    "prefork": ("default", "other", "--processes", "2"),
    "threads": ("default", "other", "--pool", "threads", "--slots", "3"),
    "asyncio": ("default", "other", "--pool", "asyncio", "--slots", "4"),
    "fork": ("default", "other", "--pool", "fork", "--processes", "2"),
}


def names(lab: Lab, task: str) -> Counter[str]:
    return Counter(row[1] for row in lab.lines("start") if row[0] == task)


def tree(depth: int, width: int) -> list[str]:
    """The names that `crawl` gives its jobs."""
    found = level = ["r"]
    for _ in range(depth):
        level = [f"{name}{n}" for name in level for n in range(width)]
        found = found + level
    return found


@pytest.mark.parametrize("pool", POOLS)
def test_a_flow_ends_after_what_its_jobs_have_added(lab: Lab, pool: str) -> None:
    """A tree that grows level by level, over two queues: each job once, and the step that was told to wait comes last."""
    lab.start(*POOLS[pool], app="growing_jobs:app")
    run = lab.app.send_flow((crawl.call("r", 2, 2) >> end).flow())
    assert run.result(timeout=60) == "end"
    assert names(lab, "crawl") == Counter(tree(2, 2)) == names(lab, "far")
    assert lab.lines("start")[-1] == ["end"]
    state = run.look()
    assert state.state == "succeeded"
    assert [(step.after, step.before) for step in state.steps[:2]] == [([], []), ([(0, "s")], [])]
    assert Counter(step.task for step in state.steps) == {
        "growing_jobs.crawl": 7,
        "growing_jobs.far": 7,
        "growing_jobs.end": 1,
    }
    assert all(step.before == [1] for step in state.steps[2:])


def test_async_code_adds_a_chain(lab: Lab) -> None:
    """A group and what joins it, in one call; the results go from one to the other."""
    lab.start(*POOLS["asyncio"], app="growing_jobs:app")
    run = lab.app.send_flow((acrawl.call("x") >> end).flow())
    assert run.result(timeout=30) == "end"
    assert [row for row in lab.lines("start") if row[0] in ("join", "end")] == [["join", "x0,x1,x2"], ["end"]]


def test_a_retry_adds_nothing_twice(lab: Lab) -> None:
    """Three runs: by what it calls, or by its key, each job is added once, and no more when it has ended and left nothing."""
    lab.start(*POOLS["prefork"], app="growing_jobs:app")
    run = lab.app.send_flow((twice.call("t", "") >> end).flow())
    assert run.result(timeout=30) == "end"
    assert names(lab, "far") == {"t": 1}
    assert names(lab, "leaf") == {"t-after": 1, "t-1": 1}
    assert [row[1:] for row in lab.lines("start") if row[0] == "added"] == [["True"] * 3, ["False"] * 3, ["False"] * 3]


def test_a_run_that_was_taken_for_dead_adds_nothing(lab: Lab) -> None:
    """It stands still until its lease has ended and another has the job; then it is refused."""
    first = lab.start("default", "--processes", "1", "--lease", "2", app="growing_jobs:app")
    gate = lab.folder / "gate"
    run = lab.app.send_flow((stalls.call(str(gate)) >> end).flow())
    pid = int(until(lambda: [row for row in lab.lines("start") if row[0] == "stalls"])[0][1])
    frozen = [first.process, *first.descendants()]
    for process in frozen:
        os.kill(process.pid, signal.SIGSTOP)
    lab.start("default", "other", "--processes", "1", "--lease", "2", app="growing_jobs:app")
    until(lambda: ["grew", "False"] in lab.lines("start"), timeout_s=60)
    gate.touch()
    os.kill(pid, signal.SIGCONT)
    until(lambda: ["refused"] in lab.lines("start"), timeout_s=60)
    for process in frozen:
        os.kill(process.pid, signal.SIGCONT)
    assert run.result(timeout=60) == "end"
    assert names(lab, "leaf") == {"fresh": 1}


def test_killed_workers_neither_lose_nor_double_what_is_added(lab: Lab) -> None:
    """Children die all the time while trees grow: each job of them has run, the end comes last, and nothing is left."""
    worker = lab.start("default", "other", "--processes", "3", app="growing_jobs:app")
    runs = [lab.app.send_flow((crawl.call("r", 2, 3) >> end).flow()) for _ in range(4)]
    for n in range(8):
        until(lambda n=n: len(lab.lines("start")) > 10 * n, timeout_s=60)
        children = [p for p in worker.descendants() if p.pid != worker.process.pid]
        if len(children) > 1:
            os.kill(children[-1].pid, signal.SIGKILL)
    assert [run.result(timeout=120) for run in runs] == ["end"] * 4
    for run in runs:
        state = run.look()
        assert state.state == "succeeded"
        assert len(state.steps) == 2 + 2 * len(tree(2, 3)) - 1
    assert set(names(lab, "far")) == set(tree(2, 3))
    for name in ("default", "other"):
        keys = queue_keys(name)
        assert lab.app.client.run(audit(keys)).violations == []
        left = {key.removeprefix(keys.base).partition(":")[0] for key in lab.redis.scan_iter(keys.base + "*")}
        assert not left & {"waiting", "ties", "growing", "incomplete", "outbox", "expects", "inputs"}


def test_wrong_additions_are_refused_with_the_reason(lab: Lab) -> None:
    """Outside of a job or a flow; what is not of this flow; a circle; a signal; too many steps."""
    with pytest.raises(UsageError, match="runs in no job"):
        current_flow()
    token = enter_job(JobContext("invoice.7", "default", "t"))
    with pytest.raises(UsageError, match=r"invoice\.7 is no step of a flow"):
        current_flow()
    leave_job(token)
    token = enter_job(JobContext("1k84q0d9bc6hsm7cgcaf.0", "default", "t"))
    try:
        flow = current_flow()
        with pytest.raises(UsageError, match="expected what this job has added"):
            flow.add(leaf.call("x"), after=lab.app.flow().add(leaf.call("y")))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="a signal cannot be added"):
            more = lab.app.flow()
            more.signal("s")
            flow.add(more)
        with pytest.raises(UsageError, match="at most 1,000 steps"):
            more = lab.app.flow()
            for n in range(1_001):
                more.add(leaf.call(str(n)))
            flow.add(more)
        with pytest.raises(UsageError, match="expected a call made by"):
            flow.add("leaf")  # type: ignore[arg-type]
    finally:
        leave_job(token)
    assert group([far.call("x")]).calls
