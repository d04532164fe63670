"""Flows of random shape over two queues while workers are killed: each edge is taken exactly once, and every job ends once."""

from __future__ import annotations

import os
import random
import signal

import pytest
from chain_jobs import adds, adds_far
from scenario_lab import Lab, until

from headrace.chain import Node
from headrace.engine.audit import audit
from headrace.engine.keys import queue_keys


def send_random(lab: Lab, rng: random.Random, size: int) -> tuple[object, int]:
    """A flow of so many jobs, and the result of its last, which tells how often each edge was taken on all ways to it."""
    flow = lab.app.flow()
    nodes: list[Node[int]] = []
    values: list[int] = []
    for number in range(size):
        last = number == size - 1
        parents = rng.sample(range(number), min(number, 6 if last else rng.randint(0, 3)))
        task = rng.choice((adds, adds_far))
        nodes.append(flow.add(task.call(number, *[nodes[parent].result for parent in parents])))
        values.append(1 + sum(values[parent] for parent in parents))
    return lab.app.send_flow(flow), values[-1]


def prove(lab: Lab, flows: int, size: int, kills: int, timeout_s: float) -> None:
    rng = random.Random(size)
    workers = [
        lab.start("default", "other", "--processes", "3", "--lease", "3", app="chain_jobs:app") for _ in range(2)
    ]
    runs = [send_random(lab, rng, size) for _ in range(flows)]
    for n in range(kills):
        until(lambda n=n: len(lab.lines("start")) >= flows * size * n // kills, timeout_s=timeout_s)
        worker = rng.choice(workers)
        if n % 5 == 4:
            workers.remove(worker)
            worker.kill()
            workers.append(
                lab.start("default", "other", "--processes", "3", "--lease", "3", app="chain_jobs:app", wait=False)
            )
            continue
        children = worker.descendants()
        if len(children) > 1:
            os.kill(children[-1].pid, signal.SIGKILL)
    for run, value in runs:
        assert run.result(timeout=timeout_s) == value  # type: ignore[attr-defined]
    until(lambda: {run.look().state for run, _ in runs} == {"succeeded"}, timeout_s=timeout_s)  # type: ignore[attr-defined]
    ended = sum(int(lab.redis.hget(queue_keys(name).stats, "succeeded")) for name in ("default", "other"))
    assert ended == flows * size
    for name in ("default", "other"):
        keys = queue_keys(name)
        assert lab.app.client.run(audit(keys)).violations == []
        left = {key.removeprefix(keys.base).partition(":")[0] for key in lab.redis.scan_iter(keys.base + "*")}
        assert not left & {"waiting", "ties", "inputs", "outbox", "incomplete"}, left


def test_flows_of_random_shape_end_right_while_workers_are_killed(lab: Lab) -> None:
    """Ten flows of 12 jobs, five kills."""
    prove(lab, 10, 12, 5, 60)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_many_flows_of_random_shape_end_right_while_workers_are_killed(lab: Lab) -> None:
    """A hundred flows of 40 jobs, fifty kills."""
    prove(lab, 100, 40, 50, 300)
