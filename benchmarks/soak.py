"""A day's work in 72 minutes: every pool, every kind of job, on a clock that runs 20 times as fast; nothing may grow, nothing may be left.

`python benchmarks/soak.py [--minutes 72]` (`make soak MINUTES=72`). libfaketime is under the server and the workers: leases, beats,
retries, timeouts and retention are those of 24 hours, at the machine's own speed. The producers keep the true time. Prints a row a
twelfth of the run and the verdicts, and writes benchmarks/results/soak.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from itertools import combinations
from operator import itemgetter
from pathlib import Path
from typing import Any

import psutil
import redis

from headrace import Headrace, Job, State
from headrace.engine.admin import count_jobs, purge
from headrace.engine.audit import audit
from headrace.engine.call import script
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.keys import queue_keys
from headrace.engine.stats import Unit
from headrace.server import EmbeddedServer, embedded_binary
from headrace.testing.clock import faketime_library
from lab import HERE, pause, until
from soak_tasks import POOLS

SPEED = 20
JOBS = 2_000_000
FULL_MINUTES = 72.0
SAMPLE_EVERY_S = 5.0
WARM_UP = 1 / 3
# An hour of true time, in which 1.7 million jobs run. Of those that tell what they have in use: in use, and RSS an hour of the fast clock.
MOST_GROWTH_MB = 1.0
MOST_BLOCKS_GROWTH = 10_000  # the same, in Python's blocks of 100 bytes or so
STILL_WARMING_MB = 2.0  # in a shorter run: a process takes what it keeps within its first 10 minutes
MEMORY_MAY_DIFFER = 0.01
WORKERS = {
    "prefork": ("--processes", "2"),
    "threads": ("--slots", "4"),
    "asyncio": ("--slots", "8"),
    "fork": ("--processes", "1"),
}
MEASURE_EVERY = 6  # samples
MEASURED = {"prefork": 4, "threads": 1, "asyncio": 1, "fork": 1}  # jobs that tell
# On this clock every call is slow, and would be kept. A histogram is made for each command at its first use.
QUIET = {"commandlog-execution-slower-than": "-1", "latency-tracking": "no"}
MOST_CALLS_AT_ONCE = 16
NOT_A_PART = ("allocator", "fragmentation", "rss", "peak", "total", "keys", "startup")
QUEUES = [queue_keys(name) for name in POOLS]
SCRIPTS = sorted(path.stem for path in Path(str(files("headrace.engine") / "lua")).glob("*.lua"))
HELD = re.compile(r"held:.*")


@contextmanager
def fast_clock() -> Iterator[dict[str, str]]:
    """The environment in which programs share one clock, SPEED times as fast."""
    found = faketime_library()
    if found is None:
        raise SystemExit("the soak needs libfaketime: apt-get install libfaketime")
    names = {"LD_PRELOAD": found, "FAKETIME": f"+0 x{SPEED}"}
    for _ in range(9):
        keeper = subprocess.Popen(
            [sys.executable, "-c", "import os, sys; print(os.environ.get('FAKETIME_SHARED', ''), flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **names}, text=True,
        )  # fmt: skip
        assert keeper.stdin is not None and keeper.stdout is not None
        shared = keeper.stdout.readline().strip()
        if shared:
            break
        keeper.communicate()  # what a killed process of this number had left is in its way
    else:
        raise SystemExit("libfaketime shares no clock: remove /dev/shm/*faketime*")
    try:
        yield {**names, "FAKETIME_SHARED": shared}
    finally:
        keeper.stdin.close()
        keeper.wait(10)
        keeper.stdout.close()


class Worker:
    """One `headrace worker` on the queue that has its pool's name, under the fast clock."""

    def __init__(self, pool: str, url: str, clock: dict[str, str], folder: Path) -> None:
        self.pool = pool
        self.log = folder / f"{pool}.log"
        # The lease is 3 s of true time, so that a busy machine does not lose it.
        command = [
            sys.executable, "-m", "headrace", "worker", pool, "-A", "soak_tasks:app", "--pool", pool, *WORKERS[pool],
            "--lease", "60", "--log-level", "warning",
        ]  # fmt: skip
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=HERE, env={**os.environ, **clock, "HEADRACE_URL": url}, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def processes(self) -> dict[int, str]:
        """The name of each of its processes, those that live only for one job apart."""
        found = {self.process.pid: f"{self.pool} supervisor"}
        with suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children()
            for child in children:
                with suppress(psutil.Error):
                    role = "spawner" if child.pid == min(one.pid for one in children) else "child"
                    found[child.pid] = f"{self.pool} {role}"
        return found

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@dataclass(slots=True)
class Sample:
    """What one process takes at one moment."""

    at_s: float
    rss_kb: int
    pss_kb: int
    fds: int
    threads: int


@dataclass(slots=True)
class InUse:
    """What one process has in use at one moment, as it told: RSS also counts what its allocators keep for later."""

    at_s: float
    blocks: int
    heap_bytes: int


@dataclass(slots=True)
class Traced:
    """All samples of one process."""

    name: str
    samples: list[Sample] = field(default_factory=list)
    in_use: list[InUse] = field(default_factory=list)

    def after_warm_up(self, ended_s: float) -> list[Sample]:
        return [one for one in self.samples if one.at_s >= ended_s * WARM_UP]

    def growth_mb(self, ended_s: float) -> float:
        """Of RSS, after the warm-up, per hour of true time."""
        return slope([(one.at_s, one.rss_kb / 1024) for one in self.after_warm_up(ended_s)])

    def growth_in_use(self, ended_s: float) -> tuple[float, float]:
        """After the warm-up, per hour of true time: Python's blocks, and MB of the C library's."""
        after = [one for one in self.in_use if one.at_s >= ended_s * WARM_UP]
        return slope([(one.at_s, one.blocks) for one in after]), slope(
            [(one.at_s, one.heap_bytes / 1e6) for one in after]
        )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Per hour, of values by seconds: the median of the slopes of all pairs (Theil, 1950; Sen, 1968)."""
    pairs = combinations(points[-400:], 2)
    slopes = [
        (later - earlier) / (later_s - earlier_s)
        for (earlier_s, earlier), (later_s, later) in pairs
        if later_s > earlier_s
    ]
    return statistics.median(slopes) * 3600 if slopes else 0.0


class Soak:
    """The server, the workers, the producers, and what is measured of them."""

    def __init__(
        self, server: EmbeddedServer, clock: dict[str, str], folder: Path, minutes: float, rate: float
    ) -> None:
        self.server = server
        self.minutes = minutes
        self.rate = rate
        self.folder = folder
        self.redis: Any = redis.Redis.from_url(server.url, decode_responses=True)
        self.client = SyncClient(ServerConfig(server.url))
        self.workers = [Worker(pool, server.url, clock, folder) for pool in POOLS]
        self.traced: dict[int, Traced] = {}
        self.served: list[dict[str, float]] = []
        self.accepted: Counter[str] = Counter()
        self.gone = 0
        self.late = 0
        self.app = Headrace(server.url)
        self.asked: list[Job[Any]] = []
        self.began = time.monotonic()

    # Work

    def produce(self, seconds: float) -> None:
        """Both producers for so long, sampling meanwhile."""
        producers = [
            subprocess.Popen(
                [sys.executable, "soak_load.py", str(self.rate / 2), how], cwd=HERE, text=True,
                env={**os.environ, "HEADRACE_URL": self.server.url}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for how in ("sync", "async")
        ]  # fmt: skip
        self.began = time.monotonic()
        rows = 0
        while (now_s := self.now_s()) < seconds:
            self.sample({producer.pid: f"producer {n + 1}" for n, producer in enumerate(producers)})
            if len(self.served) % MEASURE_EVERY == 0:
                self.measure()
            if now_s >= rows * seconds / 12:
                self.print_row()
                rows += 1
            pause(min(SAMPLE_EVERY_S, seconds / 60))
        for producer in producers:
            said, _ = producer.communicate(timeout=120)
            assert producer.returncode == 0, "a producer failed"
            told = json.loads(said)
            self.accepted.update(told["accepted"])
            self.gone += told["gone"]
            self.late += told["late"]
            self.traced[producer.pid].in_use = [InUse(*one) for one in told["in_use"]]

    def drain(self) -> None:
        """Until no job is left that has not ended."""
        until(lambda: self.live() == 0, timeout_s=600, every_s=0.2)

    def live(self) -> int:
        return sum(self.client.run(count_jobs(queue)).live for queue in QUEUES)

    def forget(self) -> None:
        """Delete the ended jobs, and what is kept for its time: the logs of jobs, and the statistics."""
        for queue in QUEUES:
            for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED):
                self.client.run(purge(queue, state))
            for unit in Unit:
                self.redis.delete(getattr(queue, unit.key))
        for key in self.redis.scan_iter("*:log:*", count=1_000):
            self.redis.unlink(key)

    # Measure

    def now_s(self) -> float:
        return time.monotonic() - self.began

    def sample(self, others: dict[int, str]) -> None:
        at_s = self.now_s()
        named = dict(others)
        for worker in self.workers:
            assert worker.process.poll() is None, f"{worker.pool}: ended\n{worker.log.read_text()[-2000:]}"
            named |= worker.processes()
        for pid, name in named.items():
            with suppress(psutil.Error, OSError):
                process = psutil.Process(pid)
                memory = process.memory_full_info()
                self.traced.setdefault(pid, Traced(name)).samples.append(
                    Sample(
                        at_s, memory.rss // 1024, memory.pss // 1024, process.num_fds(), process.num_threads()
                    )
                )  # fmt: skip
        counts = [self.client.run(count_jobs(queue)) for queue in QUEUES]
        self.served.append(
            {
                "at_s": at_s,
                "used_memory": self.used_memory(),
                "keys": self.redis.dbsize(),
                "enqueued": sum(one.totals.get("enqueued", 0) for one in counts),
                "live": sum(one.live for one in counts),
            }
        )

    def measure(self) -> None:
        """Read what was asked for the last time, and ask anew."""
        for job in self.asked:
            pid, parent_pid, *found = job.result(timeout=300)
            told = self.traced.get(pid) or self.traced[parent_pid]
            told.in_use.append(InUse(self.now_s(), *found))
        self.asked = [
            self.app.queue(pool).enqueue("soak_tasks.measures") for pool, jobs in MEASURED.items() for _ in range(jobs)
        ]
        self.accepted["measures"] += len(self.asked)

    def used_memory(self) -> int:
        return int(self.redis.info("memory")["used_memory"])

    def settled_memory(self) -> dict[str, int]:
        """What the server says it is used for, when nothing moves: the least of some readings, as clients' buffers come and go."""
        found = []
        for _ in range(20):
            stats = self.redis.memory_stats()
            found.append({name: value for name, value in flat(stats) if isinstance(value, int)})
            pause(0.1)
        least = min(found, key=itemgetter("total.allocated"))
        sizes = Counter[str]()
        for key in self.redis.scan_iter(count=1_000):
            sizes[HELD.sub("held", key)] += self.redis.memory_usage(key, samples=0) or 0
        return least | sizes

    def lasting_keys(self) -> set[str]:
        """The names of all keys, whichever sessions there are."""
        return {HELD.sub("held", key) for key in self.redis.scan_iter(count=1_000)}

    def print_row(self) -> None:
        """RSS of each worker: its supervisor, its spawner, its children."""
        row = self.served[-1]
        sizes: dict[str, list[str]] = defaultdict(list)
        for one in self.traced.values():
            if one.samples[-1].at_s == row["at_s"]:
                sizes[one.name.split()[0]].append(str(one.samples[-1].rss_kb // 1024))
        shown = "  ".join(f"{name} {'+'.join(found)}" for name, found in sizes.items())
        print(
            f"{row['at_s'] / 60:5.1f} min {row['at_s'] * SPEED / 3600:5.1f} h {row['enqueued']:>9,.0f} jobs {row['live']:>7,.0f} live "
            f"{row['keys']:>6,.0f} keys {row['used_memory'] / 1e6:6.1f} MB | RSS, MB: {shown}",
            flush=True,
        )


def flat(stats: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in stats.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@dataclass(frozen=True, slots=True)
class Verdict:
    what: str
    is_good: bool
    found: str


def judge_processes(soak: Soak, ended_s: float) -> Iterator[Verdict]:
    """Each process that lived through all of the run after the warm-up: what it takes from the system, and what it has in use."""
    hours = ended_s * (1 - WARM_UP) / 3600
    is_whole = soak.minutes >= FULL_MINUTES
    hours_judged = hours if is_whole else max(hours, STILL_WARMING_MB)
    for one in soak.traced.values():
        after = one.after_warm_up(ended_s)
        if len(after) < 0.9 * max(len(other.after_warm_up(ended_s)) for other in soak.traced.values()):
            continue
        growth = one.growth_mb(ended_s)
        is_good = growth * hours < (MOST_GROWTH_MB * SPEED if one.in_use else MOST_GROWTH_MB) * hours_judged
        text = (
            f"{growth:+6.2f} MB an hour, {growth / SPEED:+5.2f} of the fast clock, now {after[-1].rss_kb / 1024:.1f} MB"
        )
        if one.in_use:
            blocks, heap_mb = one.growth_in_use(ended_s)
            is_good = is_good and blocks * hours < MOST_BLOCKS_GROWTH * hours_judged
            is_good = is_good and heap_mb * hours < MOST_GROWTH_MB * hours_judged
            text += f"; in use {blocks:+,.0f} blocks and {heap_mb:+.2f} MB an hour"
        third = max(1, len(after) // 3)
        for what, unit in (("fds", "descriptors"), ("threads", "threads")):
            first, last = (
                statistics.median(getattr(sample, what) for sample in part) for part in (after[:third], after[-third:])
            )
            # A producer has a connection for each call that was ever under way at once, as when the machine stood still.
            is_good = is_good and last <= first + (MOST_CALLS_AT_ONCE if one.name.startswith("producer") else 1)
            text += f"; {unit} {first:g} to {last:g}"
        yield Verdict(one.name, is_good, text)


def judge_queues(soak: Soak) -> Iterator[Verdict]:
    """Every job that was accepted has ended as its kind does; the invariants hold."""
    totals: Counter[str] = Counter()
    for queue in QUEUES:
        totals.update(soak.client.run(count_jobs(queue)).totals)
        found = [one.message for one in soak.client.run(audit(queue)).violations]
        yield Verdict(f"queue {queue.name}: headrace check", not found, "; ".join(found[:3]) or "clean")
    accepted = soak.accepted.total()
    ended = sum(totals[name] for name in ("succeeded", "failed", "cancelled", "expired"))
    fails = soak.accepted["breaks"] + soak.accepted["overdue"]
    text = f"{accepted:,} accepted, {totals['enqueued']:,} stored, {ended:,} ended"
    yield Verdict("totals", accepted == totals["enqueued"] == ended, text)
    yield Verdict("failed are those that fail", totals["failed"] == fails, f"{totals['failed']:,} of {fails:,}")
    yield Verdict("results", not soak.gone, f"{soak.gone:,} of {soak.accepted['awaited']:,} asked for were gone")
    cancelled = totals["cancelled"]
    most = soak.accepted["cancelled"] + soak.accepted["patient"]
    text = f"{cancelled:,} of {most:,}, of which {soak.late:,} had ended, as the call said, and some ran and may end as they like"
    yield Verdict("cancelled", soak.accepted["cancelled"] - soak.late <= cancelled <= most, text)


def judge_server(soak: Soak, base_keys: set[str], base: dict[str, int]) -> Iterator[Verdict]:

    def is_as_before() -> bool:
        soak.forget()  # again: a worker sends what it has counted up to 10 s later
        return soak.lasting_keys() <= base_keys

    with suppress(TimeoutError):  # then the verdict tells
        until(is_as_before, timeout_s=30, every_s=0.2)
    left = sorted(soak.lasting_keys() - base_keys)
    yield Verdict(
        "keys", not left, f"{len(left)} more than before: {left[:4]}" if left else f"{len(base_keys)}, as before"
    )
    now = soak.settled_memory()
    before_bytes, now_bytes = base["total.allocated"], now["total.allocated"]
    grown = now_bytes / before_bytes - 1
    text = f"{before_bytes / 1e6:.3f} to {now_bytes / 1e6:.3f} MB ({grown:+.2%})"
    if grown > MEMORY_MAY_DIFFER:
        parts = [name for name in now if not name.startswith(NOT_A_PART)]
        more = sorted(((now[name] - base.get(name, 0), name) for name in parts), reverse=True)
        text += "".join(f"; {name} {bytes_:+,}" for bytes_, name in more[:8])
    yield Verdict("used_memory", grown <= MEMORY_MAY_DIFFER, text)


def run(minutes: float, rate: float, folder: Path) -> tuple[Soak, list[Verdict]]:
    with ExitStack() as stack:
        clock = stack.enter_context(fast_clock())
        wrapper = folder / "server"
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in clock.items())
        wrapper.write_text(f'#!/bin/sh\nexec env {words} {shlex.quote(embedded_binary())} "$@"\n')
        wrapper.chmod(0o700)
        server = stack.enter_context(EmbeddedServer(binary=str(wrapper), config=QUIET))
        soak = Soak(server, clock, folder, minutes, rate)
        stack.callback(soak.client.close)
        stack.callback(soak.redis.close)
        stack.callback(soak.app.close)
        for worker in soak.workers:
            stack.callback(kill, worker)
        until(lambda: all(soak.redis.zcard(queue.sessions) for queue in QUEUES), timeout_s=60)
        for name in SCRIPTS:  # also those that are seldom needed: the server keeps what it has run once
            soak.redis.script_load(script(name).source)
        print("the base: some of each kind first", flush=True)
        soak.produce(min(20.0, minutes * 60 / 6))
        soak.drain()
        soak.forget()
        pause(1.0)  # 20 s of the fast clock: workers have sent what they had counted
        soak.forget()
        base_keys, base = soak.lasting_keys(), soak.settled_memory()
        soak.traced.clear()
        soak.asked.clear()
        soak.served.clear()
        print(f"{minutes:g} minutes, {minutes * SPEED / 60:g} hours of the fast clock", flush=True)
        soak.produce(minutes * 60)
        ended_s = soak.now_s()
        soak.drain()
        verdicts = [
            *judge_processes(soak, ended_s),
            *judge_queues(soak),
            *judge_server(soak, base_keys, base),
        ]
        for worker in soak.workers:
            code = worker.stop()
            said = worker.log.read_text(errors="replace").splitlines()
            is_good = code == 0 and not any("our bug" in line or "Traceback" in line for line in said)
            text = f"exit code {code}, {len(said)} warnings" + (f", the last: {said[-1][:200]}" if said else "")
            verdicts.append(Verdict(f"{worker.pool}: worker", is_good, text))
        return soak, verdicts


def kill(worker: Worker) -> None:
    if worker.process.poll() is None:
        family = psutil.Process(worker.process.pid).children(recursive=True)
        for process in [worker.process, *family]:
            with suppress(psutil.Error):
                process.kill()
        worker.process.wait(10)


def show(verdicts: Sequence[Verdict]) -> None:
    width = max(len(one.what) for one in verdicts)
    for one in verdicts:
        print(f"{'ok   ' if one.is_good else 'WRONG'} {one.what:<{width}}  {one.found}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=FULL_MINUTES, help="of true time; 72 are 24 hours of the fast clock"
    )
    parser.add_argument("--rate", type=float, default=JOBS / FULL_MINUTES / 60, help="jobs a second")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "soak.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        soak, verdicts = run(options.minutes, options.rate, Path(folder))
    show(verdicts)
    wrong = sum(not one.is_good for one in verdicts)
    print(
        f"{soak.accepted.total():,} jobs in {options.minutes:g} minutes; {wrong} of {len(verdicts)} verdicts are wrong"
    )
    found = {
        "minutes": options.minutes, "jobs": soak.accepted, "verdicts": [asdict(one) for one in verdicts],
        "server": soak.served, "processes": [asdict(one) for one in soak.traced.values()],
    }  # fmt: skip
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps(found, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
