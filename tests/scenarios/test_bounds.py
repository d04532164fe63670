"""Limits and unique keys over many jobs, while children and whole workers are killed: never exceeded, and nothing left."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import psutil
import pytest
from bounded_jobs import BURST, EACH, PACE, TOTAL, bounded, only
from scenario_lab import Lab, until

from headrace.engine.audit import audit
from headrace.engine.keys import queue_keys

WORKERS = 2
ARGS = ("--processes", "4", "--lease", "3")


class Killer:
    """Kills children and workers, and knows when: what a killed process ran was over then."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.rng = random.Random(seed)
        self.killed_at_s: dict[int, float] = {}
        self.workers = [lab.start(*ARGS, app="bounded_jobs:app", ready=4) for _ in range(WORKERS)]

    def kill_a_child(self) -> None:
        worker = self.rng.choice(self.workers)
        children = worker.descendants()
        if len(children) > 1:
            self._kill([children[-1 - self.rng.randrange(min(3, len(children) - 1))]])

    def kill_a_worker(self) -> None:
        """All of it at once, as when a machine dies; another takes its place."""
        place = self.rng.randrange(WORKERS)
        self._kill([psutil.Process(self.workers[place].process.pid), *self.workers[place].descendants()])
        self.workers[place].process.wait(20)
        self.workers[place] = self.lab.start(*ARGS, app="bounded_jobs:app", wait=False)

    def _kill(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            self.killed_at_s.setdefault(process.pid, time.monotonic())
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def runs(self) -> Iterator[tuple[float, float, int, str]]:
        """When each run began and was over, its job, and its key."""
        ends = {(row[0], row[2], row[4]): float(row[1]) for row in self.lab.lines("end")}
        for number, at_s, pid, key, attempt in self.lab.lines("start"):
            over_s = ends.get((number, pid, attempt))
            if over_s is None:
                assert int(pid) in self.killed_at_s, (
                    f"job {number} began in {pid}, which was not killed, and did not end"
                )
                over_s = max(self.killed_at_s[int(pid)], float(at_s))
            yield float(at_s), over_s, int(number), key


def most_at_once(runs: list[tuple[float, float, int, str]]) -> int:
    moments = sorted([(began, 1) for began, *_ in runs] + [(over, -1) for _, over, *_ in runs])
    running = most = 0
    for _, step in moments:
        running += step
        most = max(most, running)
    return most


def kill_while(killer: Killer, is_done: Callable[[], bool], jobs: int, kills: int, timeout_s: float) -> None:
    """So many kills, evenly over the jobs' ends; each fifth takes a whole worker."""
    for n in range(kills):
        until(lambda n=n: len(killer.lab.lines("end")) >= jobs * n // kills, timeout_s=timeout_s, what=f"part {n}")  # type: ignore[misc]
        (killer.kill_a_worker if n % 5 == 4 else killer.kill_a_child)()
    until(is_done, timeout_s=timeout_s, what="all jobs ended")


def is_empty(lab: Lab) -> bool:
    return not lab.live_jobs() and not lab.redis.exists("hr:{default}:parked", "hr:{default}:ties")


def nothing_is_left(lab: Lab) -> None:
    assert lab.app.client.run(audit(queue_keys("default"))).violations == []
    left = {key.split("}:")[1].partition(":")[0] for key in lab.redis.scan_iter("hr:{default}:*")}
    assert not left & {"slots", "parked", "ties", "unique", "throttled", "suspects", "crashes"}, left
    assert [state for state in lab.app.limits.states("default") if state.running or state.parked] == []


def prove_limits(lab: Lab, jobs: int, kills: int, timeout_s: float) -> None:
    killer = Killer(lab, jobs)
    for first in range(0, jobs, 1_000):
        lab.app.enqueue_many(bounded.call(n, n % 9) for n in range(first, min(first + 1_000, jobs)))
    kill_while(killer, lambda: is_empty(lab), jobs, kills, timeout_s)
    runs = list(killer.runs())
    assert {number for _, _, number, _ in runs} == set(range(jobs))
    assert most_at_once(runs) <= TOTAL
    by_account = defaultdict(list)
    for run in runs:
        by_account[run[3]].append(run)
    assert max(most_at_once(found) for found in by_account.values()) <= EACH
    starts = sorted(began for began, *_ in runs)
    # A claim and its start are some milliseconds apart, more on a busy machine: hence a window of four seconds, and a tenth of slack.
    window = 4 * PACE + BURST
    assert all(late - early >= 3.6 for early, late in zip(starts, starts[window:], strict=False))
    nothing_is_left(lab)


def prove_unique(lab: Lab, calls: int, kills: int, timeout_s: float) -> None:
    """Each key's holder runs alone; who is refused is told the holder."""
    killer = Killer(lab, calls)
    rng = random.Random(calls)
    new: set[int] = set()
    kill_every = calls // kills
    for n in range(calls):
        if lab.app.send(only.call(n, rng.randrange(20))).is_new:
            new.add(n)
        if n % kill_every == kill_every - 1:
            (killer.kill_a_worker if n // kill_every % 5 == 4 else killer.kill_a_child)()
    until(lambda: is_empty(lab), timeout_s=timeout_s, what="all jobs ended")
    runs = list(killer.runs())
    assert {number for _, _, number, _ in runs} == new
    by_key = defaultdict(list)
    for run in runs:
        by_key[run[3]].append(run)
    assert max(most_at_once(found) for found in by_key.values()) == 1
    nothing_is_left(lab)


def test_limits_hold_while_workers_are_killed(lab: Lab) -> None:
    """Three limits on each of 400 jobs, five kills."""
    prove_limits(lab, 400, 5, 90)


def test_a_unique_key_has_one_holder_while_workers_are_killed(lab: Lab) -> None:
    """600 calls for 20 keys, five kills."""
    prove_unique(lab, 600, 5, 90)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_limits_hold_over_ten_thousand_jobs(lab: Lab) -> None:
    """Three limits on each, fifty kills."""
    prove_limits(lab, 10_000, 50, 600)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_unique_key_has_one_holder_over_ten_thousand_calls(lab: Lab) -> None:
    """10,000 calls for 20 keys, fifty kills."""
    prove_unique(lab, 10_000, 50, 600)
