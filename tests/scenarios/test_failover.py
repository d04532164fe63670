"""Primaries are killed, paused, cut off and replaced in order, under load: what is confirmed is kept, and all go on alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from failovers import WORKER, Figures, Load, cluster_fault, sentinel_fault
from scenario_lab import Lab, Worker, until

from groups import Cluster, Sentinels, sentinels, six_node_cluster


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Sentinels]:
    with sentinels(tmp_path / "servers") as found:
        yield found


@pytest.fixture
def lab(group: Sentinels, tmp_path: Path) -> Iterator[Lab]:
    with closing(Lab(group.url, tmp_path)) as found:
        yield found


def go_through(group: Sentinels, lab: Lab, workers: Sequence[Worker], kinds: Sequence[str]) -> Figures:
    load = Load(lab, workers)
    for kind in kinds:
        load.go_through(kind, partial(sentinel_fault, group, kind), group.wait_for_replica)
    return load.end()


def test_work_goes_on_after_the_primary_is_killed(lab: Lab, group: Sentinels) -> None:
    """With the same worker, app and connections; a job that ran meanwhile is settled at the new primary."""
    worker = lab.start("--processes", "1")
    assert 0 == lab.app.enqueue("ledger.work", 0).result(timeout=20)
    job = lab.app.options(durability="replicated").enqueue("ledger.work", 1, 1.0)
    lab.pid_of(1)
    until(group.is_replicated_now)
    old = group.primary()
    group.nodes[old].kill()
    assert 2 == lab.app.enqueue("ledger.work", 2).result(timeout=60)
    assert 1 == job.result(timeout=60)
    assert 1 - old == group.primary()
    assert 0 == worker.terminate()


@pytest.mark.long
def test_nothing_confirmed_is_lost_by_failovers_under_load(lab: Lab, group: Sentinels) -> None:
    """Eight of them, of four kinds; four producers and two workers, none of which is started again."""
    workers = [lab.start(*WORKER, ready=2) for _ in range(2)]
    kinds = ["kill", "pause", "partition", "planned"] * 2
    assert [] == go_through(group, lab, workers, kinds).broken_promises()


@pytest.mark.long
def test_a_replica_that_is_behind_loses_only_what_was_not_confirmed(lab: Lab, group: Sentinels) -> None:
    """Jobs accepted in memory go with the primary that was killed; those confirmed as replicated do not."""
    figures = go_through(group, lab, [lab.start(*WORKER, ready=2)], ["lag"])
    assert [] == figures.broken_promises()
    assert figures.lost["memory"]


@pytest.mark.long
def test_nothing_confirmed_is_lost_by_a_pause_of_the_primary(lab: Lab, group: Sentinels) -> None:
    """The short form: it is stopped for as long as it takes to be replaced, then wakes up and must hear of it."""
    assert [] == go_through(group, lab, [lab.start(*WORKER, ready=2)], ["pause"]).broken_promises()


# Cluster


@pytest.fixture
def cluster6(tmp_path: Path) -> Iterator[Cluster]:
    with six_node_cluster(tmp_path / "servers") as found:
        yield found


@pytest.fixture
def cluster_lab(cluster6: Cluster, tmp_path: Path) -> Iterator[Lab]:
    with closing(Lab(cluster6.url, tmp_path)) as found:
        yield found


def go_through_in_cluster(cluster: Cluster, lab: Lab, kinds: Sequence[str]) -> Figures:
    load = Load(lab, [lab.start(*WORKER, ready=2)])
    for kind in kinds:
        load.go_through(kind, partial(cluster_fault, cluster, kind), cluster.wait_for_replicas)
    return load.end()


def test_a_cluster_goes_on_when_a_slot_moves_and_a_primary_dies(cluster_lab: Lab, cluster6: Cluster) -> None:
    """The slot of the queue, key by key, under load; then its new primary is killed and its replica takes over."""
    assert [] == go_through_in_cluster(cluster6, cluster_lab, ["move", "kill"]).broken_promises()


@pytest.mark.long
def test_a_cluster_goes_on_through_many_moves_and_deaths(cluster_lab: Lab, cluster6: Cluster) -> None:
    """Two of each kind."""
    kinds = ["move", "kill", "pause", "partition", "planned", "lag"] * 2
    assert [] == go_through_in_cluster(cluster6, cluster_lab, kinds).broken_promises()
