"""RQ and headrace.contrib.rq beside each other: the tutorial's ten workers under restarts, throughput, and trips to the server.

    python benchmarks/rq_side_by_side.py [--rq 3.0.0] [--jobs 4000] [--restarts 40] [--seed 7]

Both run the same program, `rq_program.py`; the imports aside it is one text. RQ is installed from PyPI into `.versus/rq-VERSION`.
The report is Markdown. Rates are of this machine and this run: read them beside each other.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import redis

from headrace.server import EmbeddedServer
from lab import pause, until

HERE = Path(__file__).parent
ROOT = HERE.parent
QUEUES = ("high", "default", "low")
STUCK_S = 60.0


@dataclass
class Side:
    """One of the two: how its programs are started, and how one asks it what became of a job."""

    name: str
    package: str
    python: str
    paths: list[str]
    server: EmbeddedServer = field(init=False)
    folder: Path = field(init=False)

    @property
    def connection(self) -> Any:
        return redis.from_url(self.server.url)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE", "PYTHON", "RQ_"))}
        paths = os.pathsep.join([*self.paths, str(HERE)])
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self.python, str(HERE / "rq_program.py"), *words], stdout=log, stderr=log, start_new_session=True,
                env={**kept, "PYTHONPATH": paths, "RQ_PACKAGE": self.package, "REDISTOGO_URL": self.server.url, "LEDGER": str(self.ledger)},
            )  # fmt: skip

    def ran(self) -> Counter[int]:
        return Counter(int(line) for line in self.ledger.read_text().split())

    def run(self, *words: str) -> str:
        before = (self.folder / "log").stat().st_size if (self.folder / "log").exists() else 0
        process = self.start(*words)
        if process.wait(600) != 0:
            raise SystemExit(f"{self.name}: {' '.join(words)} failed:\n{(self.folder / 'log').read_text()[before:]}")
        return (self.folder / "log").read_text()[before:]


def sides(version: str) -> list[Side]:
    target = ROOT / ".versus" / f"rq-{version}"
    if not target.exists():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), f"rq=={version}"], check=True
        )
    return [
        Side(f"rq {version}", "rq", sys.executable, [str(target)]),
        Side("headrace.contrib.rq", "headrace.contrib.rq", sys.executable, [str(ROOT / "src")]),
    ]


# Restarts


@dataclass
class Fate:
    """What became of the acknowledged jobs. `failed`: of those that did not run, RQ says so; `lost`: nobody says anything."""

    jobs: int
    ran: int
    lost: int
    failed: int
    waiting: int
    twice: int
    seconds: float


def restarts(side: Side, jobs: int, times: int, seed: int) -> Fate:
    """Ten workers on three queues; `times` of them are stopped or killed with all they have, and one is started for each."""
    chance = random.Random(seed)
    began = time.monotonic()
    workers = [side.start("work") for _ in range(10)]
    side.run("enqueue", str(jobs), "0.05")
    for turn in range(times):
        due = turn * jobs // (times + 1)
        _until(lambda due=due: sum(side.ran().values()) > due, STUCK_S)
        chosen = chance.randrange(len(workers))
        worker = workers.pop(chosen)
        how = chance.choice([signal.SIGTERM, signal.SIGKILL])
        if how is signal.SIGKILL:
            _kill_all(worker)
        else:
            worker.send_signal(how)
        workers.append(side.start("work"))
    last = -1
    while (now := len(side.ran())) not in (last, jobs):  # as long as there is something new in so many seconds
        last = now
        _until(lambda: len(side.ran()) == jobs, STUCK_S)
    ran = side.ran()
    took = time.monotonic() - began
    told = Counter(line.split()[-1] for line in side.run("fates").splitlines() if line.startswith("fate"))
    for worker in workers:
        _kill_all(worker)
    missing = jobs - len(ran)
    return Fate(
        jobs=jobs,
        ran=len(ran),
        lost=missing - told["failed"] - told["waiting"],
        failed=told["failed"],
        waiting=told["waiting"],
        twice=sum(count > 1 for count in ran.values()),
        seconds=took,
    )


def _kill_all(worker: subprocess.Popen[bytes]) -> None:
    try:
        whole = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        whole = []
    for process in whole:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    worker.wait(20)


def _until(done: Callable[[], Any], timeout_s: float) -> None:
    try:
        until(done, timeout_s=timeout_s, every_s=0.05)
    except TimeoutError:
        return  # what did not come is counted


# Throughput and trips


@dataclass
class Pace:
    """`trips`: read events that the server counts, a job; `commands`: what it runs for a job, scripts' own calls included."""

    jobs: int
    rate: float
    trips: float
    commands: float


def pace(side: Side, word: str, jobs: int) -> Pace:
    """Enqueue, or run with one worker, so many jobs that do nothing."""
    connection = side.connection
    before = _counted(connection)
    output = side.run(word, str(jobs))
    after = _counted(connection)
    seconds = float(next(line.split()[1] for line in output.splitlines() if line.startswith("seconds")))
    return Pace(jobs, jobs / seconds, (after[0] - before[0]) / jobs, (after[1] - before[1]) / jobs)


def _counted(connection: Any) -> tuple[int, int]:
    info = connection.info("all")
    calls = sum(row["calls"] for name, row in info.items() if name.startswith("cmdstat_") and "info" not in name)
    return int(info["total_reads_processed"]), int(calls)


# The report


def report(pairs: list[tuple[Side, Fate, dict[str, Pace]]], restarts_: int) -> str:
    lines = [
        f"{restarts_} SIGTERMs and SIGKILLs, ten workers, three queues, jobs of 50 ms:",
        "",
        "| | jobs | ran | lost | failed | not run | ran twice | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for side, fate, _ in pairs:
        lines.append(
            f"| {side.name} | {fate.jobs:,} | {fate.ran:,} | {fate.lost} | {fate.failed} | {fate.waiting} | {fate.twice} | {fate.seconds:.0f} |"
        )
    lines += ["", "One producer, one worker, jobs that do nothing:", ""]
    lines += ["| | | jobs/s | trips a job | commands a job |", "| --- | --- | --- | --- | --- |"]
    for side, _, paces in pairs:
        for what, found in paces.items():
            lines.append(f"| {side.name} | {what} | {found.rate:,.0f} | {found.trips:.1f} | {found.commands:.1f} |")
    return "\n".join(lines)


PACES = {
    "enqueue": ("enqueue-nothing", 2000),
    "run, a process for each job (`Worker`)": ("run-forking", 500),
    "run, in one process (`SimpleWorker`)": ("run-simple", 1500),
}


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rq", default="3.0.0", metavar="VERSION")
    options.add_argument("--jobs", type=int, default=4000)
    options.add_argument("--restarts", type=int, default=40)
    options.add_argument("--seed", type=int, default=7)
    given = options.parse_args()
    pairs = []
    for side in sides(given.rq):
        with TemporaryDirectory() as folder, EmbeddedServer() as server:
            side.folder, side.server = Path(folder), server
            side.ledger.touch()
            paces = {}
            for what, (word, jobs) in PACES.items():
                if word != "enqueue-nothing":
                    side.connection.flushall()
                    side.run("enqueue-nothing", str(jobs))
                paces[what] = pace(side, word, jobs)
            side.connection.flushall()
            pairs.append((side, restarts(side, given.jobs, given.restarts, given.seed), paces))
            pause(0)
    print(report(pairs, given.restarts))


if __name__ == "__main__":
    main()
