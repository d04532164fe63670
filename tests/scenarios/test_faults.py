"""Workers die, stop, hang and lose their server; no job is lost, and only the guilty one is blamed."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from scenario_lab import Lab, until

from headrace import Retry
from headrace.engine import admin

POOLS = {
    "prefork": ("--pool", "prefork", "--processes", "2"),
    "threads": ("--pool", "threads", "--slots", "2"),
    "asyncio": ("--pool", "asyncio", "--slots", "2"),
    "fork": ("--pool", "fork", "--processes", "2"),
}


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return POOLS[request.param]


def test_def_and_async_def_run_in_every_pool(lab: Lab, pool: tuple[str, ...]) -> None:
    """Results come back, retries happen, errors are told."""
    lab.start(*pool)
    ok, aok = lab.app.enqueue("ledger.work", 1), lab.app.enqueue("ledger.awork", 2)
    again, never, asked = (
        lab.app.enqueue(f"ledger.{name}", n) for n, name in enumerate(("fails_twice", "always_fails", "asks_again"), 3)
    )
    assert (1, 2, 3) == (ok.result(timeout=10), aok.result(timeout=10), again.result(timeout=10))
    assert "attempt 2" == asked.result(timeout=10)
    until(lambda: lab.app.job(never.id).state == "failed")
    failed = lab.app.job(never.id)
    assert ["KeyError"] * 3 == [error.type for error in failed.errors]


def test_a_killed_child_loses_no_job_and_is_replaced_within_a_second(lab: Lab, pool: tuple[str, ...]) -> None:
    """SIGKILL in the middle of a job: it runs again elsewhere, at once."""
    lab.start(*pool)
    job = lab.app.enqueue("ledger.work", 7, seconds=1.5)
    victim = lab.pid_of(7)
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    until(lambda: lab.starts()[7] == 2)
    assert time.monotonic() - killed < 1.0
    assert 7 == job.result(timeout=20)
    assert 1 == lab.ends()[7]


@pytest.mark.parametrize("task", ["poison", "segfault", "quits"])
def test_a_poison_job_takes_only_itself(lab: Lab, pool: tuple[str, ...], task: str) -> None:
    """Three crashes and it is failed, with the reason; its neighbours all succeed."""
    lab.start(*pool)
    good = [lab.app.enqueue("ledger.work", n) for n in range(10)]
    bad = lab.app.enqueue(f"ledger.{task}", 99)
    good += [lab.app.enqueue("ledger.work", n) for n in range(10, 20)]
    assert list(range(20)) == [job.result(timeout=30) for job in good]
    until(lambda: lab.app.job(bad.id).state == "failed", what=task)
    assert 3 <= lab.starts()[99] <= 4
    assert {} == lab.live_jobs()


def test_a_killed_supervisor_takes_its_children_along(lab: Lab, pool: tuple[str, ...]) -> None:
    """Nothing goes on running unsupervised."""
    worker = lab.start(*pool)
    lab.app.enqueue("ledger.work", 1, 30)
    lab.pid_of(1)
    family = worker.descendants()
    assert family
    worker.kill()
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family), timeout_s=2)


@pytest.mark.parametrize(
    ("lease_s", "most_s"), [(2, 5), pytest.param(10, 15, marks=pytest.mark.long)], ids=["lease 2 s", "lease 10 s"]
)
def test_a_dead_worker_is_taken_over_when_its_leases_end(lab: Lab, lease_s: int, most_s: int) -> None:
    """By a worker that has seen a steady server for a full lease."""
    arguments = ("--processes", "1", "--lease", str(lease_s))
    heir = lab.start(*arguments)
    began = time.monotonic()
    until(lambda: time.monotonic() - began > lease_s + 1.5, what="a full lease of a steady server")
    os.kill(heir.process.pid, signal.SIGTSTP)  # quiet: the other one gets the job
    heir.wait_for("quiet")
    doomed = lab.start(*arguments)
    lab.app.enqueue("ledger.work", 1, seconds=1)
    lab.pid_of(1)
    os.kill(heir.process.pid, signal.SIGCONT)
    doomed.kill()
    killed = time.monotonic()
    until(lambda: lab.starts()[1] == 2, timeout_s=most_s + 10)
    took = time.monotonic() - killed
    print(f"taken over after {took:.1f} s, lease {lease_s} s")
    assert took < most_s
    until(lambda: lab.ends()[1] == 1)


@pytest.mark.long
def test_a_worker_just_started_takes_over_within_25_seconds(lab: Lab) -> None:
    """It must first have seen the server steady for a lease of 10 s."""
    doomed = lab.start("--processes", "1")
    lab.app.enqueue("ledger.work", 1, seconds=1)
    lab.pid_of(1)
    doomed.kill()
    killed = time.monotonic()
    lab.start("--processes", "1")
    until(lambda: lab.starts()[1] == 2, timeout_s=30)
    print(f"taken over after {time.monotonic() - killed:.1f} s")
    assert time.monotonic() - killed < 25


def test_sigterm_lets_the_running_job_finish_and_gives_the_rest_back(lab: Lab, pool: tuple[str, ...]) -> None:
    """No attempt is used up, and the exit code is 0."""
    worker = lab.start(*pool)
    jobs = [lab.app.enqueue("ledger.work", n, seconds=0.5) for n in range(8)]
    lab.pid_of(0)
    assert 0 == worker.terminate()
    done = len(lab.ends())
    assert lab.ends() == lab.starts(), "what was started was finished"
    assert done < 8
    assert {"default ready": 8 - done} == lab.live_jobs()
    lab.start(*pool)
    assert list(range(8)) == [job.result(timeout=20) for job in jobs]
    assert set(lab.starts().values()) == {1}


def test_grace_over_the_job_is_released_uncharged(lab: Lab, pool: tuple[str, ...]) -> None:
    worker = lab.start(*pool, "--grace", "0.5")
    job = lab.app.enqueue("ledger.work", 1, 30)
    lab.pid_of(1)
    assert 143 == worker.terminate()
    assert 1 == sum(lab.live_jobs().values())
    assert (0, "queued") == (lab.app.job(job.id).attempt, lab.app.job(job.id).state)


@pytest.mark.parametrize("task", ["too_long", "atoo_long"])
def test_a_job_over_its_timeout_is_stopped(lab: Lab, pool: tuple[str, ...], task: str) -> None:
    """JobTimeout is raised in it; the next job runs as ever."""
    lab.start(*pool)
    job = lab.app.enqueue(f"ledger.{task}", 1)
    until(lambda: lab.app.job(job.id).state == "failed")
    assert ["JobTimeout"] == [error.type.rpartition(".")[2] for error in lab.app.job(job.id).errors]
    assert 2 == lab.app.enqueue("ledger.work", 2).result(timeout=10)


def test_a_job_that_holds_the_gil_over_its_timeout_is_killed(lab: Lab, pool: tuple[str, ...]) -> None:
    """The hard deadline: an attempt like any other, retried as its policy says; its worker goes on."""
    lab.start(*pool, "--kill-after", "0.5")
    job = lab.app.options(retry=Retry(1, delay=0.1)).enqueue("ledger.holds_the_gil", 1)
    until(lambda: lab.app.job(job.id).state == "failed", timeout_s=40)
    errors = lab.app.job(job.id).errors
    assert [(1, True), (2, True)] == [(error.attempt, "its process was killed" in error.message) for error in errors]
    assert {"JobTimeout"} == {error.type.rpartition(".")[2] for error in errors}
    assert 2 == lab.starts()[1]
    assert 2 == lab.app.enqueue("ledger.work", 2).result(timeout=10)


@pytest.mark.parametrize("task", ["is_called", "ais_called"])
def test_each_job_is_the_current_one_in_its_own_code(lab: Lab, pool: tuple[str, ...], task: str) -> None:
    """Also when an earlier job ran on the same loop, or in the same thread."""
    lab.start(*pool)
    jobs = [lab.app.enqueue(f"ledger.{task}") for _ in range(12)]
    assert [job.id for job in jobs] == [job.result(timeout=10) for job in jobs]


def test_a_running_job_is_cancelled(lab: Lab, pool: tuple[str, ...]) -> None:
    lab.start(*pool)
    job = lab.app.enqueue("ledger.reports", 1)
    until(lambda: lab.app.job(job.id).progress)
    job.cancel()
    until(lambda: lab.app.job(job.id).state in {"cancelled", "succeeded"}, timeout_s=15)
    assert "ran to its end" not in str(lab.app.job(job.id))


def test_a_cancel_is_heard_long_before_leases_are_renewed(lab: Lab) -> None:
    """A lease of an hour is renewed each quarter of one; the running job hears of its cancel all the same."""
    lab.start("--processes", "1", "--lease", "3600")
    job = lab.app.enqueue("ledger.work", 1, 120.0)
    until(lambda: lab.app.job(job.id).state == "running")
    job.cancel()
    until(lambda: lab.app.job(job.id).state == "cancelled", timeout_s=30)


def test_processes_a_job_left_behind_end_with_its_child(lab: Lab) -> None:
    worker = lab.start("--processes", "1")
    pid = lab.app.enqueue("ledger.leaves_a_child", 1).result(timeout=10)
    assert 0 == worker.terminate()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, timeout_s=5)


def test_an_unknown_task_waits_for_a_worker_that_knows_it(lab: Lab) -> None:
    """Never lost, no attempt used, and the worker says so."""
    worker = lab.start("--processes", "1")
    job = lab.app.enqueue("ledger.of_tomorrow", 1)
    worker.wait_for("of_tomorrow")
    until(lambda: lab.app.job(job.id).state == "scheduled")
    assert 0 == lab.app.job(job.id).attempt
    assert 2 == lab.app.enqueue("ledger.work", 2).result(timeout=10)


def test_a_result_that_cannot_be_stored_is_a_success_that_says_so(lab: Lab) -> None:
    lab.start("--processes", "1")
    from headrace import ResultNotKept

    job = lab.app.enqueue("ledger.returns_a_lambda", 1)
    with pytest.raises(ResultNotKept, match="function"):
        job.result(timeout=10)
    assert "succeeded" == lab.app.job(job.id).state


def test_system_exit_in_a_job_fails_the_job_alone(lab: Lab, pool: tuple[str, ...]) -> None:
    lab.start(*pool)
    job = lab.app.enqueue("ledger.exits", 1)
    until(lambda: lab.app.job(job.id).state == "failed")
    assert 2 == lab.app.enqueue("ledger.work", 2).result(timeout=10)


def test_burst_ends_when_the_queues_are_empty(lab: Lab, pool: tuple[str, ...]) -> None:
    for n in range(50):
        lab.app.enqueue("ledger.noop", n)
    worker = lab.start(*pool, "--burst", wait=False)
    assert 0 == worker.process.wait(30)
    assert {} == lab.live_jobs()


def test_a_worker_ends_when_it_has_had_nothing_to_do_for_so_long(lab: Lab) -> None:
    """A job that runs longer than that is no idleness; a command kills what runs, and the worker goes on."""
    worker = lab.start("--max-idle", "1s", "--processes", "2", "--name", "idler")
    killed = lab.app.enqueue("ledger.work", 1, 30)
    until(lambda: killed.refresh() or killed.state == "running")
    (seen,) = lab.app.client.run(admin.list_workers(lab.app.prefix))
    assert seen.info["name"] == "idler" and lab.app.client.run(admin.send_command(lab.app.prefix, seen.id, "kill"))
    until(lambda: lab.app.job(killed.id).state == "failed")
    assert "an operator killed its process" in str(lab.app.job(killed.id).reason)
    assert 2 == lab.app.enqueue("ledger.work", 2, 1.5).result(timeout=10)
    assert 0 == worker.process.wait(30)


def test_strict_order_runs_the_first_queue_first(lab: Lab) -> None:
    for name, first in (("low", 20), ("default", 10), ("high", 0)):
        for n in range(first, first + 5):
            lab.app.queue(name).enqueue("ledger.work", n)
    worker = lab.start("high", "default", "low", "--processes", "1", "--burst", wait=False)
    assert 0 == worker.process.wait(30)
    order = [int(row[0]) for row in lab.lines("start")]
    assert [*range(5), *range(10, 15), *range(20, 25)] == order


def test_max_jobs_recycles_the_child(lab: Lab) -> None:
    lab.start("--processes", "1", "--max-jobs", "3")
    jobs = [lab.app.enqueue("ledger.work", n) for n in range(10)]
    assert list(range(10)) == [job.result(timeout=30) for job in jobs]
    assert len({row[2] for row in lab.lines("start")}) >= 3


def test_hooks_middleware_and_events_go_around_the_jobs(
    lab: Lab, pool: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start and stop hooks once a child, sync or async; middleware around each job; events told."""
    monkeypatch.setenv("LEDGER_HOOKS", "1")
    worker = lab.start(*pool)
    jobs = [lab.app.enqueue("ledger.work", 1), lab.app.enqueue("ledger.awork", 2)]
    assert [1, 2] == [job.result(timeout=10) for job in jobs]
    assert 0 == worker.terminate()
    hooks = lab.lines("hook")
    children = {row[1] for row in hooks if row[0] == "start"}
    assert children == {row[1] for row in hooks if row[0] == "stop"}
    for job in jobs:
        assert ["in", "out"] == [row[1] for row in lab.lines("around") if row[0] == job.id]
        assert ["job.succeeded", job.id] in lab.lines("event")


@pytest.mark.parametrize("pool_name", ["prefork", "threads"])
def test_tiny_jobs_do_not_wait_behind_a_long_one(lab: Lab, pool_name: str) -> None:
    """A batch of tiny jobs that hides a long one: the unstarted ones go back, and another consumer runs them at once."""
    lab.start(*POOLS[pool_name])
    for n in range(2_000):  # batches grow
        lab.app.queue("default").enqueue("ledger.noop", n)
    until(lambda: not lab.live_jobs())
    began = time.monotonic()
    work = lab.app.options(result_ttl=0)
    for n in range(400):
        work.enqueue("ledger.work", n, 3.0 if n == 100 else 0.0)
    until(lambda: len(lab.ends()) == 399, timeout_s=2.9, what="all but the long one")
    assert time.monotonic() - began < 3.0
    until(lambda: len(lab.ends()) == 400)
    assert set(lab.starts().values()) == {1}


def test_weighted_queues_all_get_their_share(lab: Lab) -> None:
    """Low is not starved while high has work."""
    for n in range(300):
        lab.app.queue("high" if n % 2 else "low").options(result_ttl=0).enqueue("ledger.work", n, 0.002)
    lab.start("--weighted", "high=3", "--weighted", "low=1", "--processes", "1", "--burst", wait=False).process.wait(60)
    order = [int(row[0]) % 2 for row in lab.lines("start")]
    assert 300 == len(order)
    assert 0.55 < sum(order[:150]) / 150 < 0.95
