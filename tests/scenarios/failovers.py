"""Work through failovers of each kind: producers of each durability, workers, and what became of every job.

The tests go through a few; `make failovers TIMES=20` (this file as a program) goes through many of each kind, prints a table of
what was lost and how long work stood still, and writes benchmarks/results/failovers-*.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from redis.crc import key_slot
from scenario_lab import Lab, Worker, until

from groups import REPLICA, Cluster, Link, Sentinels, sentinels, six_node_cluster
from headrace import Headrace, JobExists, NotDurable, ServerBusy, ServerUnreachable
from headrace.core.options import Durability
from headrace.engine.admin import count_jobs
from headrace.engine.audit import audit
from headrace.engine.keys import queue_keys

QUEUE = queue_keys("default")
SLOT = key_slot(QUEUE.ready)
WORKER = ("default", "--processes", "2", "--log-level", "warning")
PRODUCERS: tuple[tuple[str, Durability, bool], ...] = (
    ("p", "replicated", False),
    ("a", "replicated", True),
    ("f", "fsync", False),
    ("m", "memory", False),
)
BEHIND = 50
DELAY_S = 1.0
ENOUGH = 100  # confirmed, and begun, between two faults
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


class Producer:
    """Enqueues numbered jobs until told to stop, each again by its id until it is confirmed; plainly, or with asyncio.

    Every other job is due only after a second: it waits on the server when a fault comes, so it can be lost.

    Attributes:
        confirmed: their ids; `at_s`: when, on the monotonic clock.
    """

    def __init__(self, url: str, name: str, durability: Durability, *, is_async: bool = False) -> None:
        self.durability: Durability = durability
        self.confirmed: list[str] = []
        self.at_s: list[float] = []
        self.errors: Counter[str] = Counter()
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
                    app.options(job_id=job_id, delay=self._delay_s()).enqueue("ledger.fenced", job_id)
                self._is_stopped.wait(0.005)

    async def _aproduce(self) -> None:
        async with self._app as app:
            for job_id in self._next_ids():
                with self._noted(job_id):
                    await app.options(job_id=job_id, delay=self._delay_s()).aenqueue("ledger.fenced", job_id)
                await asyncio.sleep(0.005)

    def _next_ids(self) -> Iterator[str]:
        """The same again until it is confirmed."""
        while not self._is_stopped.is_set():
            yield f"{self._name}-{len(self.confirmed)}"

    def _delay_s(self) -> float:
        return DELAY_S if len(self.confirmed) % 2 else 0

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
        self.at_s.append(time.monotonic())
        self.confirmed.append(job_id)


@dataclass(frozen=True, slots=True)
class Run:
    """One line of `ledger.fenced`: which job began, under which fence of its queue, in which process, when."""

    job_id: str
    queue: str
    fence: int
    pid: int
    at_s: float


class Runs:
    """All runs so far, read from the ledger as it grows."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._read_bytes = 0
        self.rows: list[Run] = []
        self.ids: set[str] = set()

    def look(self) -> Runs:
        with self._ledger.open("rb") as file:
            file.seek(self._read_bytes)
            whole = file.read().rpartition(b"\n")[0]
        for line in whole.decode().splitlines():
            word, *row = line.split()
            if word == "fenced":
                job_id, queue, fence, pid, at_ns = row
                self.rows.append(Run(job_id, queue, int(fence), int(pid), int(at_ns) / 1e9))
                self.ids.add(job_id)
        self._read_bytes += len(whole) + 1 if whole else 0
        return self

    def fences_given_twice(self) -> list[str]:
        """Fences of a queue seen in two processes, or twice by one job, or lower than an earlier one of its process."""
        pids: dict[tuple[str, int], set[int]] = defaultdict(set)
        jobs: Counter[tuple[str, int]] = Counter()
        last: dict[int, int] = {}
        wrong = []
        for run in self.rows:
            pids[run.queue, run.fence].add(run.pid)
            jobs[run.job_id, run.fence] += 1
            if run.fence < last.get(run.pid, 0):
                wrong.append(f"{run.fence} after {last[run.pid]} in process {run.pid}")
            last[run.pid] = run.fence
        wrong += [f"{fence} in processes {sorted(found)}" for (_, fence), found in pids.items() if len(found) > 1]
        return wrong + [f"{fence} twice for {job_id}" for (job_id, fence), count in jobs.items() if count > 1]


@dataclass(slots=True)
class Figures:
    """What became of the jobs of one load.

    Attributes:
        accepted, lost: jobs by durability; "memory, cut off": those that a primary accepted while it was cut off.
        run_again: runs beyond the first of each job.
        failed_over_s: from the fault until another node has taken over.
        stood_still_s: the longest time without a job begun, of each fault.
        unconfirmed_s: the longest time without an enqueue confirmed as replicated, of each fault.
    """

    accepted: dict[str, int] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)
    fences_given_twice: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    run_again: int = 0
    failed_over_s: list[float] = field(default_factory=list)
    stood_still_s: list[float] = field(default_factory=list)
    unconfirmed_s: list[float] = field(default_factory=list)

    def broken_promises(self) -> list[str]:
        """What must never be; [] when all is well."""
        found = [f"confirmed as replicated and lost: {job_id}" for job_id in self.lost["replicated"]]
        return found + [f"fence {text}" for text in self.fences_given_twice] + self.violations


class Load:
    """Four producers and some workers on one group of servers, none of which is ever started again."""

    def __init__(self, lab: Lab, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self.producers = [Producer(lab.url, name, how, is_async=is_async) for name, how, is_async in PRODUCERS]
        self.cut_off: list[str] = []
        self.runs = Runs(lab.ledger)
        self._figures = Figures()
        self._app = lab.app
        until(lambda: len(self.runs.look().ids) > 50, timeout_s=60, what="work to begin")

    def confirmed(self, durability: Durability) -> int:
        return sum(len(one.confirmed) for one in self.producers if one.durability == durability)

    def go_through(self, kind: str, fault: Callable[[Load], None], wait_for_replica: Callable[[], None]) -> None:
        """One fault, until producers and workers have gone on after it."""
        began = time.monotonic()
        fault(self)
        failed_over = time.monotonic()
        wait_for_replica()
        before, runs = self.confirmed("replicated"), len(self.runs.look().ids)
        try:
            until(
                lambda: self.confirmed("replicated") > before + ENOUGH,
                timeout_s=60,
                what=f"producers to go on after {kind}",
            )
        except AssertionError as error:
            raise AssertionError(str(error), [(p.errors, p.last_error, p.problem) for p in self.producers]) from None
        until(lambda: len(self.runs.look().ids) > runs + ENOUGH, timeout_s=60, what=f"workers to go on after {kind}")
        ended = time.monotonic()
        begun_s = [run.at_s for run in self.runs.rows]
        confirmed_s = [at for one in self.producers if one.durability == "replicated" for at in one.at_s]
        figures = self._figures
        figures.failed_over_s.append(failed_over - began)
        figures.stood_still_s.append(longest_gap_s(begun_s, began, ended))
        figures.unconfirmed_s.append(longest_gap_s(confirmed_s, began, ended))
        print(
            f"  {kind}: another took over after {failed_over - began:.1f} s, "
            f"work stood still for {figures.stood_still_s[-1]:.1f} s, all on after {ended - began:.1f} s",
            flush=True,
        )

    def end(self) -> Figures:
        """Stop the producers, let the workers drain the queue, stop them, and say what became of each job."""
        for producer in self.producers:
            producer.stop()
        client = self._app.client
        try:
            until(lambda: client.run(count_jobs(QUEUE)).live == 0, timeout_s=120, what="the queue to be drained")
        except AssertionError as error:
            said = [worker.said[-2000:] for worker in self.workers]
            raise AssertionError(str(error), client.run(count_jobs(QUEUE)), client.run(audit(QUEUE)), *said) from None
        figures, ran = self._figures, self.runs.look().ids
        for producer in self.producers:
            name = producer.durability
            figures.accepted[name] = figures.accepted.get(name, 0) + len(producer.confirmed)
            figures.lost.setdefault(name, []).extend(sorted(set(producer.confirmed) - ran))
        figures.accepted["memory, cut off"] = len(self.cut_off)
        figures.lost["memory, cut off"] = sorted(set(self.cut_off) - ran)
        figures.run_again = len(self.runs.rows) - len(ran)
        figures.errors = dict(sum((one.errors for one in self.producers), Counter[str]()))
        figures.fences_given_twice = self.runs.fences_given_twice()
        figures.violations = [one.message for one in client.run(audit(QUEUE)).violations]
        for worker in self.workers:
            assert worker.process.poll() is None, worker.said[-2000:]
            assert "our bug" not in worker.said
            assert 0 == worker.terminate()
        return figures


def longest_gap_s(at_s: Sequence[float], began: float, ended: float) -> float:
    """The longest time in which nothing happened."""
    inside = sorted(at for at in at_s if began <= at <= ended)
    return max(later - earlier for earlier, later in pairwise([began, *inside, ended]))


# Two servers and three Sentinels


def sentinel_fault(group: Sentinels, kind: str, load: Load) -> None:
    """Take the primary away in one way, wait for the other node to take its place, and bring the first back."""
    old = group.primary()
    if kind == "planned":
        group.planned()
        group.wait_for_failover(old)
    elif kind == "pause":
        group.pause(old)
        group.wait_for_failover(old)
        group.resume(old)
    elif kind == "partition":
        group.links[old].cut()
        enqueue_on_its_side(f"redis://127.0.0.1:{group.nodes[old].port}/0", load)
        group.wait_for_failover(old)
        group.links[old].heal()
    else:
        if kind == "lag":
            leave_replica_behind(group.links[old], load)
        group.nodes[old].kill()
        group.wait_for_failover(old)
        group.links[old].heal()
        group.nodes[old].start()


def enqueue_on_its_side(url: str, load: Load) -> None:
    """What a producer meets that was cut off together with the old primary."""
    with Headrace(url, durability="replicated", durability_timeout=0.2) as app:
        with pytest.raises(NotDurable):
            app.enqueue("ledger.fenced", "on-the-wrong-side")
        first = len(load.cut_off)
        ids = [f"c-{number}" for number in range(first, first + 10)]
        for job_id in ids:
            app.options(job_id=job_id, durability="memory", delay=DELAY_S).enqueue("ledger.fenced", job_id)
    load.cut_off.extend(ids)


def leave_replica_behind(link: Link, load: Load) -> None:
    """Until the primary has accepted some jobs that its replica has not."""
    link.cut(REPLICA)
    before = load.confirmed("memory")
    until(lambda: load.confirmed("memory") >= before + BEHIND, timeout_s=60, what="jobs that the replica has not")


# Three primaries and three replicas


def cluster_fault(cluster: Cluster, kind: str, load: Load) -> None:
    """Take the node that serves the queue away, or the slot from it; it comes back as a replica."""
    if kind == "move":
        move_slot(cluster)
        return
    old = cluster.primary_of(SLOT)
    if kind == "planned":
        cluster.planned(old)
        cluster.wait_for_failover(SLOT, old)
    elif kind == "pause":
        cluster.pause(old)
        cluster.wait_for_failover(SLOT, old)
        cluster.resume(old)
    elif kind == "partition":
        cluster.cut(old)
        cluster.wait_for_failover(SLOT, old)
        cluster.heal()
    else:
        if kind == "lag":
            leave_replica_behind(cluster.links[old], load)
        cluster.nodes[old].kill()
        cluster.wait_for_failover(SLOT, old)
        cluster.heal()
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


# Many of each kind

KINDS = {
    "kill": "killed",
    "lag": f"killed, its replica {BEHIND} jobs behind",
    "pause": "paused (SIGSTOP)",
    "partition": "cut off by the network",
    "planned": "planned failover",
    "move": "slot moved, key by key",
}


def through_sentinels(kind: str, times: int, folder: Path) -> Figures:
    with sentinels(folder / "servers") as group, closing(Lab(group.url, folder)) as lab:
        load = Load(lab, [lab.start(*WORKER, ready=2) for _ in range(2)])
        for _ in range(times):
            load.go_through(kind, lambda load: sentinel_fault(group, kind, load), group.wait_for_replica)
        return load.end()


def through_cluster(kind: str, times: int, folder: Path) -> Figures:
    with six_node_cluster(folder / "servers") as cluster, closing(Lab(cluster.url, folder)) as lab:
        load = Load(lab, [lab.start(*WORKER, ready=2) for _ in range(2)])
        for _ in range(times):
            load.go_through(kind, lambda load: cluster_fault(cluster, kind, load), cluster.wait_for_replicas)
        return load.end()


GROUPS: dict[str, tuple[Callable[[str, int, Path], Figures], tuple[str, ...]]] = {
    "Sentinel": (through_sentinels, ("kill", "lag", "pause", "partition", "planned")),
    "Cluster": (through_cluster, ("kill", "lag", "pause", "partition", "planned", "move")),
}


def table(results: dict[str, Figures], times: int) -> str:
    """In Markdown."""
    head = ("primary", "replicated", "fsync", "memory", "fences given twice", "work stood still, p50 / max")
    rows = [head, ("---",) * len(head)]
    for name, figures in results.items():
        lost = [f"{len(figures.lost[how])} of {figures.accepted[how]:,}" for how in ("replicated", "fsync", "memory")]
        if apart := figures.accepted["memory, cut off"]:
            lost[2] += f", and {len(figures.lost['memory, cut off'])} of {apart} on its side"
        still = f"{statistics.median(figures.stood_still_s):.1f} / {max(figures.stood_still_s):.1f} s"
        rows.append((f"{name} ×{times}", *lost, str(len(figures.fences_given_twice)), still))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="failovers of each kind")
    parser.add_argument("--group", choices=GROUPS, action="append", help="only this one")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this one")
    options = parser.parse_args()
    results: dict[str, Figures] = {}
    broken: list[str] = []
    for group, (through, kinds) in GROUPS.items():
        for kind in kinds:
            if group not in (options.group or GROUPS) or kind not in (options.kind or KINDS):
                continue
            name = f"{group}: {KINDS[kind]}"
            print(name, flush=True)
            with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
                figures = results[name] = through(kind, options.times, Path(folder))
            print(f"  {figures.run_again} run again; producers met {figures.errors}", flush=True)
            broken += [f"{name}: {text}" for text in figures.broken_promises()]
    print("\nJobs lost of those accepted, by durability:\n")
    print(table(results, options.times))
    print("\n".join(["", *broken]) if broken else "\nNothing that was confirmed as replicated is lost.")
    RESULTS.mkdir(parents=True, exist_ok=True)
    found = {name: asdict(figures) for name, figures in results.items()}
    (RESULTS / time.strftime("failovers-%Y%m%dT%H%M%S.json")).write_text(json.dumps(found, indent=1))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
