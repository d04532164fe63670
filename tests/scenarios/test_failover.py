"""Primaries are killed, paused, cut off and replaced in order, under load: what is confirmed is kept, and all go on alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from redis.crc import key_slot
from scenario_lab import Lab, Worker, until

from groups import Cluster, Sentinels, sentinels, six_node_cluster
from headrace import Headrace, JobExists, NotDurable, ServerBusy, ServerUnreachable
from headrace.core.options import Durability
from headrace.engine.keys import queue_keys

WORKER = ("--processes", "2", "--log-level", "warning")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Sentinels]:
    with sentinels(tmp_path / "servers") as found:
        yield found


@pytest.fixture
def lab(group: Sentinels, tmp_path: Path) -> Iterator[Lab]:
    with closing(Lab(group.url, tmp_path)) as found:
        yield found


class Producer:
    """Enqueues numbered jobs until told to stop, each again by its id until it is confirmed; plainly, or with asyncio."""

    def __init__(self, url: str, name: str, durability: Durability, *, is_async: bool = False) -> None:
        self.confirmed: list[str] = []
        self.errors: dict[str, int] = defaultdict(int)
        self.last_error = ""
        self.problem: BaseException | None = None
        self._name = name
        self._app = Headrace(url, durability=durability, durability_timeout=0.5)
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(is_async,), name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._is_stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.problem is None, repr(self.problem)

    def _run(self, is_async: bool) -> None:
        try:
            if is_async:
                asyncio.run(self._aproduce())
            else:
                self._produce()
        except BaseException as error:  # told by `stop`
            self.problem = error

    def _produce(self) -> None:
        with self._app as app:
            for job_id in self._next_ids():
                with self._noted(job_id):
                    app.options(job_id=job_id).enqueue("ledger.fenced", job_id)
                self._is_stopped.wait(0.005)

    async def _aproduce(self) -> None:
        async with self._app as app:
            for job_id in self._next_ids():
                with self._noted(job_id):
                    await app.options(job_id=job_id).aenqueue("ledger.fenced", job_id)
                await asyncio.sleep(0.005)

    def _next_ids(self) -> Iterator[str]:
        """The same again until it is confirmed."""
        while not self._is_stopped.is_set():
            yield f"{self._name}-{len(self.confirmed)}"

    @contextmanager
    def _noted(self, job_id: str) -> Iterator[None]:
        try:
            yield
        except JobExists:
            pass  # an earlier try has stored it; now it is confirmed
        except (NotDurable, ServerUnreachable, ServerBusy) as error:
            self.errors[type(error).__name__] += 1
            self.last_error = str(error)
            return
        self.confirmed.append(job_id)


def ran(lab: Lab) -> set[str]:
    return {row[0] for row in lab.lines("fenced")}


def assert_fences_never_repeat(lab: Lab) -> None:
    """One claim, one fence: in one process only, and higher in every later run of a job."""
    processes: dict[tuple[str, int], set[str]] = defaultdict(set)
    runs: dict[str, list[int]] = defaultdict(list)
    of_process: dict[str, list[int]] = defaultdict(list)
    for job_id, queue, fence, pid in lab.lines("fenced"):
        processes[queue, int(fence)].add(pid)
        runs[job_id].append(int(fence))
        of_process[pid].append(int(fence))
    assert {} == {fence: pids for fence, pids in processes.items() if len(pids) > 1}
    assert {} == {job_id: fences for job_id, fences in runs.items() if len(set(fences)) < len(fences)}
    assert all(fences == sorted(fences) for fences in of_process.values())


def fail_over(group: Sentinels, kind: str) -> None:
    """Take the primary away in one way, wait for the other node to take its place, and bring the first back."""
    old = group.primary()
    if kind == "kill":
        group.nodes[old].kill()
        group.wait_for_failover(old)
        group.nodes[old].start()
    elif kind == "pause":
        group.pause(old)
        group.wait_for_failover(old)
        group.resume(old)
    elif kind == "partition":
        group.links[old].cut()
        on_its_side = f"redis://127.0.0.1:{group.nodes[old].port}/0"
        with (
            Headrace(on_its_side, durability="replicated", durability_timeout=0.2) as app,
            pytest.raises(NotDurable),
        ):
            app.enqueue("ledger.fenced", "on-the-wrong-side")
        group.wait_for_failover(old)
        group.links[old].heal()
    else:
        group.planned()
        group.wait_for_failover(old)


def go_on_through(
    lab: Lab, faults: list[tuple[str, Callable[[], None]]], wait_for_replica: Callable[[], None], workers: list[Worker]
) -> None:
    """Producers and workers, started once, through one fault after another; then the judgement."""
    producers = [Producer(lab.url, "p", "replicated"), Producer(lab.url, "a", "replicated", is_async=True)]
    others = [Producer(lab.url, "m", "memory")]

    def confirmed() -> int:
        return sum(len(producer.confirmed) for producer in producers)

    until(lambda: len(ran(lab)) > 50, timeout_s=60)
    for kind, enter in faults:
        began = time.monotonic()
        enter()
        failed_over_s = time.monotonic() - began
        wait_for_replica()
        before, runs = confirmed(), len(ran(lab))
        try:
            until(
                lambda before=before: confirmed() > before + 20, timeout_s=60, what=f"producers to go on after {kind}"
            )
        except AssertionError as error:
            raise AssertionError(str(error), [(p.errors, p.last_error, p.problem) for p in producers]) from None
        until(lambda runs=runs: len(ran(lab)) > runs + 20, timeout_s=60, what=f"workers to go on after {kind}")
        print(f"{kind}: {failed_over_s:.1f} s to the new primary, all on after {time.monotonic() - began:.1f} s")
    for producer in producers + others:
        producer.stop()
    wanted = {job_id for producer in producers for job_id in producer.confirmed}
    try:
        until(lambda: wanted <= ran(lab), timeout_s=60)
    finally:
        lost = wanted - ran(lab)
        again = len(lab.lines("fenced")) - len(ran(lab))
        print(f"{len(wanted)} confirmed, {len(lost)} lost, {again} run again", [dict(p.errors) for p in producers])
        accepted = set(others[0].confirmed)
        print(f"from memory: {len(accepted)} accepted, {len(accepted - ran(lab))} lost", dict(others[0].errors))
    assert_fences_never_repeat(lab)
    for worker in workers:
        assert worker.process.poll() is None, worker.said[-2000:]
        assert "our bug" not in worker.said
        assert 0 == worker.terminate()


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
    """Eight of them, of four kinds; two producers and two workers, none of which is started again."""
    workers = [lab.start(*WORKER, ready=2) for _ in range(2)]
    kinds = ["kill", "pause", "partition", "planned"] * 2
    go_on_through(lab, [(kind, partial(fail_over, group, kind)) for kind in kinds], group.wait_for_replica, workers)


@pytest.mark.long
def test_nothing_confirmed_is_lost_by_a_pause_of_the_primary(lab: Lab, group: Sentinels) -> None:
    """The short form: it is stopped for as long as it takes to be replaced, then wakes up and must hear of it."""
    go_on_through(
        lab, [("pause", partial(fail_over, group, "pause"))], group.wait_for_replica, [lab.start(*WORKER, ready=2)]
    )


# Cluster

SLOT = key_slot(queue_keys("default").ready)


@pytest.fixture
def cluster6(tmp_path: Path) -> Iterator[Cluster]:
    with six_node_cluster(tmp_path / "servers") as found:
        yield found


@pytest.fixture
def cluster_lab(cluster6: Cluster, tmp_path: Path) -> Iterator[Lab]:
    with closing(Lab(cluster6.url, tmp_path)) as found:
        yield found


def kill_primary(cluster: Cluster) -> None:
    """The node that serves the queue; it comes back as a replica."""
    old = cluster.primary_of(SLOT)
    cluster.nodes[old].kill()
    cluster.wait_for_failover(SLOT, old)
    cluster.nodes[old].start()


def move_slot(cluster: Cluster) -> None:
    """To another primary, no faster than that calls meet each step of it."""
    source = cluster.primary_of(SLOT)
    sink = next(n for n in range(6) if n != source and cluster.info(n, "replication")["role"] == "master")

    def redirected() -> int:
        """How often the two nodes have said that they cannot do it now."""
        stats = [cluster.info(number, "errorstats") for number in (source, sink)]
        return sum(
            int(found.get(f"errorstat_{name}", "count=0").removeprefix("count="))
            for found in stats
            for name in ("ASK", "TRYAGAIN", "MOVED")
        )

    def wait_for_one_more() -> None:
        before = redirected()
        until(lambda: redirected() > before, what="a call that meets the slot half moved")

    cluster.migrate(SLOT, source, sink, pause=wait_for_one_more)


def test_a_cluster_goes_on_when_a_slot_moves_and_a_primary_dies(cluster_lab: Lab, cluster6: Cluster) -> None:
    """The slot of the queue, key by key, under load; then its new primary is killed and its replica takes over."""
    faults = [("move", partial(move_slot, cluster6)), ("kill", partial(kill_primary, cluster6))]
    go_on_through(cluster_lab, faults, cluster6.wait_for_replicas, [cluster_lab.start("default", *WORKER, ready=2)])


@pytest.mark.long
def test_a_cluster_goes_on_through_many_moves_and_deaths(cluster_lab: Lab, cluster6: Cluster) -> None:
    """Four of each."""
    faults = [("move", partial(move_slot, cluster6)), ("kill", partial(kill_primary, cluster6))] * 4
    go_on_through(cluster_lab, faults, cluster6.wait_for_replicas, [cluster_lab.start("default", *WORKER, ready=2)])
