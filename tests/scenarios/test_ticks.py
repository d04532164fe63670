"""Schedules with real workers: each tick makes one job, whoever is killed, and on time."""

from __future__ import annotations

import functools
import os
import random
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from scenario_lab import Lab, until
from ticks import assert_each_tick_made_one_job, ticks_run, wait_for_ticks

import faketime
from headrace import ScheduleNotFound, crash
from headrace.testing.clock import faketime_library


def test_five_workers_of_which_four_are_killed_make_each_tick_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three before, in and after the call that fires; one by an outsider. The last one goes on."""
    doomed = []
    for phase in crash.PHASES:
        monkeypatch.setenv("HEADRACE_CRASH", f"fire.{phase}:2")
        doomed.append(lab.start("--processes", "1", "--lease", "2", app="clockwork:app", wait=False))
    monkeypatch.delenv("HEADRACE_CRASH")
    doomed.append(lab.start("--processes", "1", "--lease", "2", app="clockwork:app"))
    lab.start("--processes", "1", "--lease", "2", app="clockwork:app")
    for worker in doomed[:3]:
        assert -signal.SIGKILL == worker.process.wait(60)
    os.kill(doomed[3].process.pid, signal.SIGKILL)
    wait_for_ticks(lab, 3)
    assert_each_tick_made_one_job(lab)


def test_a_worker_that_comes_back_catches_up(lab: Lab) -> None:
    """No worker for some seconds: with catch_up="all", their ticks are made as the next one starts."""
    first = lab.start("--processes", "1", app="clockwork:app")
    wait_for_ticks(lab, 2)
    assert 0 == first.terminate()
    stopped_at = ticks_run(lab)[-1]
    until(lambda: int(lab.redis.time()[0]) > stopped_at + 3, what="three seconds")
    lab.start("--processes", "1", app="clockwork:app")
    wait_for_ticks(lab, 3)
    assert_each_tick_made_one_job(lab)


def test_a_worker_tells_what_its_app_declares(lab: Lab) -> None:
    """Before that, nobody knows it; then it is there, for whoever looks, with its next tick."""
    with pytest.raises(ScheduleNotFound):
        lab.app.schedules.get("nightly")
    lab.start("--processes", "1", app="clockwork:app")
    until(lambda: len(lab.app.schedules.list()) == 2, what="declared")
    found = lab.app.schedules.get("nightly")
    assert ("active", "default", True) == (found.state, found.queue, found.is_declared)
    assert found.next_tick is not None
    assert ("03:00", "Asia/Ho_Chi_Minh") == (f"{found.next_tick:%H:%M}", str(found.next_tick.tzinfo))
    assert "clockwork.tick" == found.declared["task"]


def test_a_tick_that_cancels_the_running_job_starts_when_that_has_ended(lab: Lab) -> None:
    """With real workers: two never run at once, and each new one stops the one before."""
    lab.start("--processes", "2", app="clockwork:app", ready=2)
    lab.app.schedules.add("slow", lab.app.queue("default").call("clockwork.holds"), every=2, overlap="cancel")
    until(lambda: len(lab.lines("begin")) >= 3, timeout_s=60, what="three began")
    lab.app.schedules.pause("slow")
    lab.app.schedules.pause("pulse")
    words = [line.split()[0] for line in lab.ledger.read_text().splitlines() if line.startswith(("begin", "stop"))]
    assert ["begin", "stop"] * (len(words) // 2) == words[: len(words) // 2 * 2]
    last = lab.app.schedules.get("slow").last_job_id
    assert last is not None
    lab.app.job(last).cancel()
    until(lambda: not lab.live_jobs(), what="all ended")


def test_the_servers_clock_decides_when_a_worker_fires(tmp_path: Path) -> None:
    """Its clock leaps over a night: the nightly job is made once, though the leases of declarations have run out too."""
    found = faketime_library()
    if found is None:
        pytest.skip("no libfaketime: apt-get install libfaketime")
    with faketime.server_with_clock(tmp_path, found) as (url, clock):
        lab = Lab(url, tmp_path)
        try:
            lab.start("--processes", "1", app="clockwork:app")
            until(lambda: len(lab.app.schedules.list()) == 2, what="declared")
            lab.app.schedules.pause("pulse")
            tick = lab.app.schedules.get("nightly").next_tick
            assert tick is not None
            clock.advance(int(tick.timestamp() - clock.now_ms() / 1000) + 90)
            until(lambda: lab.app.schedules.get("nightly").last_tick == tick, timeout_s=60, what="the nightly job")
            after = lab.app.schedules.get("nightly")
            assert (1, tick + timedelta(days=1)) == (after.fired, after.next_tick)
            until(lambda: [after.last_job_id] in lab.lines("tick"), timeout_s=60, what="its job ran")
        finally:
            lab.close()


def prove_ticks(tmp_path: Path, rounds: int) -> None:
    """In each round a worker is killed, another starts, and the server's clock steps, forward or back."""
    found = faketime_library()
    if found is None:
        pytest.skip("no libfaketime: apt-get install libfaketime")
    rng = random.Random(rounds)
    with faketime.server_with_clock(tmp_path, found) as (url, clock):
        lab = Lab(url, tmp_path)
        try:
            start = functools.partial(lab.start, "--processes", "1", "--lease", "2", app="clockwork:app", wait=False)
            workers = [start() for _ in range(5)]
            wait_for_ticks(lab, 2)
            for n in range(rounds):
                workers.pop(rng.randrange(len(workers))).kill()
                clock.advance(rng.randint(2, 6) if n % 2 == 0 else -rng.randint(1, 3))
                workers.append(start())
                wait_for_ticks(lab, 2)
            assert_each_tick_made_one_job(lab)
        finally:
            lab.close()


def test_each_tick_is_made_once_though_the_clock_steps_and_workers_die(tmp_path: Path) -> None:
    """Five workers, three rounds: a step forward is caught up, one back makes nothing twice."""
    prove_ticks(tmp_path, 3)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_each_tick_is_made_once_over_many_steps_and_deaths(tmp_path: Path) -> None:
    """Thirty rounds."""
    prove_ticks(tmp_path, 30)
