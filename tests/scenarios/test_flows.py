"""Chains, groups, graphs, signals and dependencies on real workers."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import repeat
from pathlib import Path

import pytest
from chain_jobs import app as chain_app
from chain_jobs import breaks, double, holds, one, says, text, total
from scenario_lab import Lab, until

from headrace import (
    ArgumentsMismatch,
    Chain,
    DependencyError,
    DuplicateJob,
    Flow,
    Headrace,
    JobCancelled,
    JobFailed,
    Unique,
    UsageError,
    group,
    previous,
)
from headrace.flow import FlowRun

POOLS = {
    "prefork": ("default", "other", "--processes", "2"),
    "threads": ("default", "other", "--pool", "threads", "--slots", "3"),
    "asyncio": ("default", "other", "--pool", "asyncio", "--slots", "4"),
    "fork": ("default", "other", "--pool", "fork", "--processes", "2"),
}


def send(lab: Lab, flow: Flow | Chain[object]) -> FlowRun[object]:
    """Enqueue through the lab's app."""
    return lab.app.send_flow(flow if isinstance(flow, Flow) else flow.flow())


@pytest.mark.parametrize("pool", POOLS)
def test_a_chain_passes_results_on(lab: Lab, pool: str) -> None:
    """Over two queues, one of which keeps no results; each step once."""
    lab.start(*POOLS[pool], app="chain_jobs:app")
    run = send(lab, one.call(1) >> double >> text.call(previous, "kg") >> says.call())
    assert run.result(timeout=30) == "4kg"
    assert [row[0] for row in lab.lines("start")] == ["one", "double", "text", "says"]
    assert run.look().state == "succeeded"


@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
def test_a_group_fans_out_and_in(lab: Lab, pool: str) -> None:
    """Two hundred jobs side by side, then one with the list of their results, in order."""
    lab.start(*POOLS[pool], app="chain_jobs:app")
    run = send(lab, group(double.call(n) for n in range(200)) >> total)
    assert run.result(timeout=60) == sum(2 * n for n in range(200))
    state = run.look()
    assert [step.size for step in state.steps] == [200, 1]


def test_a_graph_joins_and_parts(lab: Lab) -> None:
    """Results of several steps among the arguments of one."""
    lab.start(*POOLS["prefork"], app="chain_jobs:app")
    flow = lab.app.flow("diamond")
    top = flow.add(one.call(1))
    left, right = flow.add(double.call(top.result)), flow.add(one.call(top.result))
    flow.add(says.call([1]), after=[left, right])
    flow.add(total.call(flow.add(group([double.call(left.result), double.call(right.result)])).result))
    run = send(lab, flow)
    assert run.result(timeout=30) == 2 * (2 * 2) + 2 * (2 + 1)


def test_a_failure_stops_what_follows_and_runs_what_makes_good(lab: Lab) -> None:
    """succeeded: cancelled, with the reason; ended: runs, with None; failed: runs."""
    lab.start(*POOLS["prefork"], app="chain_jobs:app")
    flow = lab.app.flow()
    bad = flow.add(breaks.call(1))
    stopped = flow.add(says.call("never"), after=[bad])
    flow.add(says.call("never either"), after=[stopped])
    flow.add(says.call("made-good"), after=[bad], when="failed")
    flow.add(says.call(bad.result), when="ended")
    run = send(lab, flow)
    assert run.result(timeout=30) is None
    until(lambda: run.look().state == "failed")
    assert sorted(row[1] for row in lab.lines("start") if row[0] == "says") == ["None", "made-good"]
    job = lab.app.job(f"{run.id}.1")
    assert job.state == "cancelled"
    assert job.reason == f"job {run.id}.0, which it waited for, failed"


def test_a_part_is_retried(lab: Lab, tmp_path: Path) -> None:
    """The failed step runs again, and after it what had been cancelled; what had succeeded does not."""
    lab.start(*POOLS["prefork"], app="chain_jobs:app")
    gate = tmp_path / "gate"
    flow = lab.app.flow()
    good, bad = flow.add(one.call(1)), flow.add(breaks.call(5, str(gate)))
    joined = flow.add(total.call(flow.add(group([one.call(good.result), one.call(bad.result)])).result))
    flow.add(says.call(joined.result))
    run = send(lab, flow)
    with pytest.raises(JobCancelled):
        run.result(timeout=30)
    gate.touch()
    assert run.retry() == 1
    assert run.job.refresh().wait(timeout=30) == "succeeded"
    assert [row[1] for row in lab.lines("start") if row[0] == "says"] == ["9"]
    assert [row[0] for row in lab.lines("start")].count("one") == 3


def test_a_cancelled_flow_runs_no_further(lab: Lab, tmp_path: Path) -> None:
    """What waits ends at once; what runs is asked to stop."""
    lab.start(*POOLS["prefork"], app="chain_jobs:app")
    run = send(lab, holds.call(str(tmp_path / "gate")) >> says.call("never"))
    until(lambda: lab.lines("start"))
    assert run.cancel() == 2
    with pytest.raises(JobCancelled):
        run.result(timeout=30)
    until(lambda: run.look().state == "cancelled", what="the running step has stopped")


def test_a_flow_waits_for_an_approval(lab: Lab) -> None:
    """A signal from outside, with a value; sent twice it counts once. Without it the step fails in time."""
    lab.start(*POOLS["prefork"], app="chain_jobs:app")
    flow = lab.app.flow()
    ready = flow.add(one.call(1))
    approved = flow.signal("approve", after=[ready], timeout=60)
    flow.add(says.call(approved.result))
    run = send(lab, flow)
    until(lambda: run.look().steps[0].states == {"succeeded": 1})
    for _ in range(2):
        lab.app.flows.signal(run.id, "approve", {"by": "Lan"})
    assert run.result(timeout=30) == {"by": "Lan"}
    late = lab.app.flow()
    late.add(says.call("x"), after=[late.signal("never", timeout=0.5)])
    with pytest.raises(JobCancelled):
        send(lab, late).result(timeout=30)


def test_a_job_waits_for_others_that_are_there(lab: Lab, tmp_path: Path) -> None:
    """depends_on: one runs, one has ended, on two queues; a job of a flow may add others."""
    lab.start(*POOLS["prefork"], app="chain_jobs:app")
    ended = lab.app.send(one.call(1))
    ended.wait(timeout=30)
    running = lab.app.send(holds.options(queue="other").call(str(tmp_path / "gate")))
    child = lab.app.send(says.options(depends_on=[ended, running]).call("after"))
    until(lambda: child.refresh().state == "waiting")
    (tmp_path / "gate").touch()
    assert child.result(timeout=30) == "after"
    failed = lab.app.send(breaks.call(1))
    with pytest.raises(JobCancelled):
        lab.app.send(says.options(depends_on=failed).call("never")).result(timeout=30)
    failed.delete()
    with pytest.raises(DependencyError, match="never was, or is no longer kept"):
        lab.app.send(says.options(depends_on=failed).call("never"))


def test_a_killed_worker_loses_no_step(lab: Lab) -> None:
    """Children are killed all the time while fifty chains over two queues run: each ends, with the right result."""
    worker = lab.start("default", "other", "--processes", "3", app="chain_jobs:app")
    runs = [send(lab, one.call(n) >> double >> double >> one) for n in range(50)]
    for n in range(12):
        until(lambda n=n: len(lab.lines("start")) > 12 * n, timeout_s=60)
        children = [p for p in worker.descendants() if p.pid != worker.process.pid]
        if len(children) > 1:
            os.kill(children[-1].pid, signal.SIGKILL)
    assert [run.result(timeout=60) for run in runs] == [4 * (n + 1) + 1 for n in range(50)]


def test_wrong_flows_are_refused_where_they_are_written() -> None:
    """Before anything is sent."""
    other = chain_app.flow()
    with pytest.raises(UsageError, match="has no step"):
        chain_app.flow().enqueue()
    with pytest.raises(UsageError, match="steps of this flow"):
        chain_app.flow().add(one.call(1), after=[other.add(one.call(1))])
    with pytest.raises(UsageError, match="`previous` stands for one step"):
        chain_app.flow().add(one.call(previous))
    with pytest.raises(ArgumentsMismatch, match="in a chain or a flow"):
        chain_app.send(text.call(previous, "kg"))
    with pytest.raises(UsageError, match="no job_id or depends_on"):
        chain_app.send_flow((one.call(1) >> one.options(job_id="mine").call()).flow())
    with pytest.raises(UsageError, match="when: expected"):
        chain_app.flow().add(one.call(1), when="always")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="in a circle"):
        other.add(other)
    with pytest.raises(UsageError, match="has steps"):
        other.add(chain_app.flow())


def test_a_flow_of_a_million_steps_is_refused_and_told_of_groups() -> None:
    """Steps are capped, and so are the calls of a group; nothing is sent."""
    large = chain_app.flow()
    with pytest.raises(UsageError, match="at most 10,000 steps: use a group"):
        for _ in range(1_000_000):
            large.add(one.call(1))
    assert len(large.nodes) == 10_000
    with pytest.raises(UsageError, match="expected 1 to 1,000,000 calls, got 1,000,001"):
        group(repeat(one.call(1), 1_000_001))


def test_a_flow_is_unique_by_its_last_step_until_it_has_ended(lab: Lab) -> None:
    """The second equal one is the first, and nothing of it is stored. When a flow has ended, any way, the next is new."""
    named = group(double.call(n) for n in range(3)) >> total.options(unique="sum:all").call(previous)
    first, again = send(lab, named), send(lab, named)
    assert (True, False) == (first.is_new, again.is_new)
    assert (first.id, first.job.id) == (again.id, again.job.id)
    assert [first.id] == [state.id for state in lab.app.flows.list(queue="other")]
    assert 3 == first.job.refresh().awaited
    assert 4 == first.cancel()
    second = send(lab, named)
    assert (True, True) == (second.is_new, second.id != first.id)
    lab.start(*POOLS["prefork"], app="chain_jobs:app")
    assert [6, 6] == [run.result(timeout=30) for run in (second, send(lab, named))]
    third = send(lab, named)
    assert third.is_new and 6 == third.result(timeout=30)


def test_of_equal_flows_asked_for_at_once_one_is_stored(lab: Lab) -> None:
    """By 20 callers of one program, side by side; another key is another flow, and a plain job's key is refused."""

    def named(key: str) -> Flow:
        return (group(double.call(n) for n in range(3)) >> total.options(unique=key).call(previous)).flow()

    async def ask() -> list[FlowRun[object]]:
        async with Headrace(lab.url) as app:
            return await asyncio.gather(*(app.asend_flow(named(f"sum:{n % 2}")) for n in range(20)))

    runs = asyncio.run(ask())
    assert (
        2 == sum(run.is_new for run in runs) == len({run.id for run in runs}) == len(lab.app.flows.list(queue="other"))
    )
    with pytest.raises(DuplicateJob) as caught:
        send(lab, (one.call(1) >> total.options(unique=Unique("sum:0", on_conflict="raise")).call([1])).flow())
    assert runs[0].job.id == caught.value.job_id
    plain = lab.app.queue("default").options(unique="sum:plain").enqueue("chain_jobs.one", 1)
    with pytest.raises(DuplicateJob, match=f"{plain.id}, which is of no flow"):
        send(lab, named("sum:plain"))
    assert 2 == len(lab.app.flows.list(queue="other"))


def test_only_what_ends_last_can_make_a_flow_unique() -> None:
    """And only until its end; with arguments that are known when it is stored."""
    for step in (one.options(unique=True).call(1) >> double, one.call(1) >> group([one.options(unique=True).call(2)])):
        with pytest.raises(UsageError, match="only the last step"):
            chain_app.send_flow(step.flow())
    for unique in (Unique("a:b", until="start"), Unique("a:b", until=60), Unique("a:b", on_conflict="replace")):
        with pytest.raises(UsageError, match="until its end"):
            chain_app.send_flow((one.call(1) >> one.options(unique=unique).call(2)).flow())
    with pytest.raises(UsageError, match="name those"):
        chain_app.send_flow((one.call(1) >> total.options(unique=True).call(previous)).flow())


def test_a_failed_flow_tells_why(lab: Lab) -> None:
    """The first error of each step is shown."""
    lab.start(*POOLS["prefork"], app="chain_jobs:app")
    run = send(lab, breaks.call(1) >> says.call())
    with pytest.raises(JobCancelled):
        run.result(timeout=30)
    assert run.look().steps[0].first_error == "ValueError: broken"
    with pytest.raises(JobFailed):
        lab.app.job(f"{run.id}.0").result(timeout=1)
