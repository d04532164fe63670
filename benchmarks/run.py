"""The budgets, measured: `make bench`. Each figure that depends on the machine stands beside the bare loop's of the same run.

Prints a table, says which budget is missed, writes benchmarks/results/*.json with machine and versions.
`python benchmarks/run.py NAME…` runs some; `--quick` uses a tenth of the jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import bare
import features
import flow_load
import pages
import tasks
from headrace import Headrace
from headrace.server import EmbeddedServer
from lab import HERE, QUEUE, URL, Server, pause, until, worker

REPEATS = 3


@dataclass
class Figure:
    """One line of the table. `budget` None: for information. `within`: at most (or at least) the budget."""

    what: str
    value: float
    unit: str
    budget: float | None = None
    is_least: bool = False
    note: str = ""

    @property
    def is_missed(self) -> bool:
        if self.budget is None:
            return False
        return self.value < self.budget if self.is_least else self.value > self.budget


def server_cost(server: Server, scale: float) -> list[Figure]:
    """Server CPU and memory a job: enqueue + claim + settle, in batches of 100, and one by one, 32 in a pipeline."""
    link = bare.connect(server.url)
    body = bare.record()
    figures = []
    total = int(100_000 * scale)
    for kept in (False, True):
        costs, memory = [], 0.0
        for _ in range(REPEATS):
            server.reset()
            before = server.memory()
            began = server.cpu_s()
            bare.enqueue(link, QUEUE, total, 100, body)
            memory = (server.memory() - before) / total - len(body)
            bare.work(link, QUEUE, total, 100, kept)
            costs.append((server.cpu_s() - began) / total * 1e6)
        name = "kept" if kept else "dropped"
        figures.append(Figure(f"server CPU a job, batches of 100, {name}", min(costs), "µs", None if kept else 5.0))
        if not kept:
            figures.append(Figure("memory a pending job over its record", memory, "bytes", 150.0))
    one = min(bare.pipelined_cost(link, server, QUEUE, int(10_000 * max(scale, 0.3)), body) for _ in range(REPEATS))
    figures.append(Figure("server CPU a job, one by one", one, "µs", 35.0))
    return figures


def flow_features(server: Server, scale: float) -> list[Figure]:
    """What unique keys, limits, groups and chains cost the server, against plain jobs of the same run."""
    figures = []
    for batch, total in ((1, int(6_000 * max(scale, 0.3))), (100, int(40_000 * scale))):
        how = "one by one" if batch == 1 else f"batches of {batch}"
        best = {
            name: min(features.cost(server, make, total, batch) for _ in range(REPEATS))
            for name, make in features.FEATURES.items()
        }
        aged = (
            features.cost(server, features.FEATURES["plain"], total, batch, ageing_ms=60_000) for _ in range(REPEATS)
        )
        best["ageing"] = min(aged)
        best["chains"] = min(features.chain_cost(server, total, batch) for _ in range(REPEATS))
        plain = best.pop("plain")
        for name, value in best.items():
            # One job that holds a slot is handed out a call: in batches there is no figure to hold it to.
            budget = None if batch > 1 and "concurrency" in name else 2.0
            figures.append(Figure(f"{name}, {how}", value / plain, "×", budget, note=f"{value:.1f} of {plain:.1f} µs"))
    width = int(100_000 * scale)
    figures.append(Figure(f"a fan-in of {width:,}: server CPU", features.fan_in(server, width), "s"))
    return figures


def flow_scale(server: Server, scale: float) -> list[Figure]:
    """What a claim costs with many groups, and with many limits, against few of the same run."""
    figures = []
    stored = max(int(100_000 * scale), 10_000) // 1_000 * 1_000
    for batch, claimed in ((1, int(5_000 * max(scale, 0.3))), (100, stored // 2)):
        how = "one by one" if batch == 1 else f"batches of {batch}"
        for kinds in (features.GROUPS, features.LIMITS):
            best = {
                name: min(features.claim_cost(server, make, stored, claimed, batch) for _ in range(REPEATS))
                for name, make in kinds.items()
            }
            few, base = next(iter(best.items()))
            for name, value in list(best.items())[1:]:
                what = f"claim and settle, {name} against {few}, {how}"
                figures.append(Figure(what, value / base, "×", note=f"{value:.1f} of {base:.1f} µs"))
    return figures


def flow_throughput(server: Server, scale: float) -> list[Figure]:
    """Jobs a second of one prefork process with each feature of flow on, against plain jobs of the same run."""
    total = int(20_000 * max(scale, 0.1))
    rates = {name: statistics.median(_with(server, name, total) for _ in range(REPEATS)) for name in flow_load.KINDS}
    plain = rates.pop("plain")
    return [
        Figure(f"throughput, {name}", rate / plain, "×", note=f"{rate:,.0f} of {plain:,.0f} jobs/s")
        for name, rate in rates.items()
    ]


def _with(server: Server, kind: str, total: int) -> float:
    server.reset()
    server.pause()
    flow_load.fill(server, kind, total)
    with worker(server, "--processes", "1"):
        began = time.perf_counter()
        server.resume()
        until(lambda: server.succeeded() >= total)
        return total / (time.perf_counter() - began)


def script_calls(server: Server, scale: float) -> list[Figure]:
    """Redis calls a script makes, the worst of both, whatever the batch."""
    link = bare.connect(server.url)
    most = 0.0
    for batch in (1, 10, 256):
        for kept in (False, True):
            server.reset()
            bare.enqueue(link, QUEUE, batch, batch, bare.record())
            bare.work(link, QUEUE, batch, batch, kept)
            server.reset()
            before = server.calls()
            bare.enqueue(link, QUEUE, 10 * batch, batch, bare.record())
            middle = server.calls()
            bare.work(link, QUEUE, 10 * batch, batch, kept)
            most = max(most, _inner(before, middle), _inner(middle, server.calls()))
    return [Figure("redis calls a script, at most, batches of 1 to 256", most, "calls", 18.0)]


def _inner(before: dict[str, int], after: dict[str, int]) -> float:
    outer = {"evalsha", "eval", "info", "flushall"}
    scripts = after["evalsha"] - before.get("evalsha", 0)
    return sum(count - before.get(name, 0) for name, count in after.items() if name not in outer) / scripts


def throughput(server: Server, scale: float) -> list[Figure]:
    """No-op jobs a second of one prefork process against the bare loop, in turn, as a ratio of medians."""
    total = int(200_000 * max(scale, 0.5))  # fewer would measure how a worker wakes up
    figures = []
    for kept in (False, True):
        ours, theirs = [], []
        for _ in range(REPEATS):
            ours.append(_ours(server, total, "noop_kept" if kept else "noop"))
            theirs.append(_bare(server, total, kept))
        rate, bare_rate = statistics.median(ours), statistics.median(theirs)
        figures.append(
            Figure(
                f"throughput, results {'kept' if kept else 'dropped'}, of the bare loop", rate / bare_rate, "×",
                0.4 if kept else 0.6, is_least=True, note=f"{rate:,.0f} of {bare_rate:,.0f} jobs/s",
            )
        )  # fmt: skip
    two = statistics.median(_ours(server, total, "noop", processes=2) for _ in range(REPEATS))
    figures.append(Figure("throughput, two processes, results dropped", two, "jobs/s"))
    return figures


def _fill(server: Server, task: str, total: int) -> None:
    link = bare.connect(server.url)
    bare.enqueue(link, QUEUE, total, 500, bare.record(f"tasks.{task}"))


def _ours(server: Server, total: int, task: str, processes: int = 1) -> float:
    server.reset()
    server.pause()
    _fill(server, task, total)
    with worker(server, "--processes", str(processes), consumers=processes):
        began = time.perf_counter()
        server.resume()
        until(lambda: server.succeeded() >= total)
        return total / (time.perf_counter() - began)


def _bare(server: Server, total: int, kept: bool) -> float:
    server.reset()
    _fill(server, "noop", total)
    command = [
        sys.executable,
        str(HERE / "bare.py"),
        server.url,
        QUEUE.name,
        str(total),
        "256",
        "kept" if kept else "dropped",
    ]
    return total / float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def latency(server: Server, scale: float) -> list[Figure]:
    """Enqueue to the first line of the body, on a warm, idle worker of each pool, one job each 10 ms."""
    figures = []
    for pool, args in POOLS.items():
        with tempfile.NamedTemporaryFile() as stamps:
            server.reset()
            app = Headrace(server.url)
            with worker(server, "--pool", pool, *args, env={"HEADRACE_BENCH_STAMPS": stamps.name}):
                count = max(int(300 * scale), 50)
                for done in range(count):
                    _stamp(app)
                    until(lambda done=done: Path(stamps.name).read_bytes().count(b"\n") > done, every_s=0.01)
                waits = [int(line) for line in Path(stamps.name).read_bytes().split()][10:]
            app.close()
            figures.append(
                Figure(f"enqueue to start, idle, {pool}, median", statistics.median(waits) / 1000, "ms", 2.0 if pool != "fork" else None,
                       note=f"p99 {statistics.quantiles(waits, n=100)[98] / 1000:.2f} ms")
            )  # fmt: skip
    return figures


POOLS = {
    "prefork": ("--processes", "1"),
    "threads": ("--slots", "4"),
    "asyncio": ("--slots", "10"),
    "fork": ("--processes", "1"),
}


def _stamp(app: Headrace) -> None:
    app.queue("bench").enqueue("tasks.stamp", time.monotonic_ns())


def idle(server: Server, scale: float) -> list[Figure]:
    """Commands a second that ten idle consumers of one worker send."""
    server.reset()
    with worker(server, "--processes", "10", consumers=10):
        pause(3)
        before = server.calls()
        seconds = max(20 * scale, 6)
        pause(seconds)
        after = server.calls()
    sent = sum(
        after[name] - before.get(name, 0) for name in ("evalsha", "eval", "bzpopmin", "hset", "sadd") if name in after
    )
    own = sum(after[name] - before.get(name, 0) for name in after)
    return [
        Figure(
            "commands a second, ten idle consumers",
            sent / seconds,
            "/s",
            10.0,
            note=f"{own / seconds:.0f}/s with those inside scripts",
        )
    ]


def million(server: Server, scale: float) -> list[Figure]:
    """A million pending jobs against a thousand: wall time of an enqueue, and of a claim and settle, one by one."""
    link = bare.connect(server.url)
    body = bare.record()
    medians: dict[int, tuple[float, float]] = {}
    for pending in (1_000, int(1_000_000 * scale) // 1000 * 1000):
        server.reset()
        bare.enqueue(link, QUEUE, pending, 500, body)
        medians[pending] = bare.one_by_one(link, QUEUE, 2_000, body)
    small, large = medians[1_000], medians[max(medians)]
    return [
        Figure(
            f"enqueue with {max(medians):,} pending against 1,000",
            large[0] / small[0],
            "×",
            1.5,
            note=f"{large[0]:.0f} µs against {small[0]:.0f}",
        ),
        Figure(
            f"claim and settle with {max(medians):,} pending",
            large[1] / small[1],
            "×",
            1.5,
            note=f"{large[1]:.0f} µs against {small[1]:.0f}",
        ),
    ]


def producer(server: Server, scale: float) -> list[Figure]:
    """What an enqueue costs its caller: Python calls of our own, round trips, and jobs a second."""
    server.reset()
    app = Headrace(server.url)
    task = tasks.noop
    other = app.task(queue="bench", name="tasks.noop")(task.fn)
    other.enqueue(URL)
    calls = bare.own_calls(lambda: other.enqueue(URL))
    before = server.calls()
    count = int(10_000 * scale)
    began = time.perf_counter()
    for _ in range(count):
        other.enqueue(URL)
    rate = count / (time.perf_counter() - began)
    trips = (server.calls()["evalsha"] - before["evalsha"]) / count
    app.close()
    return [
        Figure("round trips an enqueue", trips, "calls", 1.0),
        Figure(
            "Python calls of our own an enqueue", calls, "calls", 15.0, note=f"{rate:,.0f} enqueues/s, one producer"
        ),
    ]


def worker_calls(server: Server, scale: float) -> list[Figure]:
    """Python calls of our own a no-op job, in the thread that runs it: in a batch, and enqueued one by one to an idle worker."""
    figures = []
    for what, count, most in (("in a batch", int(20_000 * scale), 10.0), ("one by one", 200, 25.0)):
        with tempfile.NamedTemporaryFile() as told:
            server.reset()
            if count > 200:
                server.pause()
                _fill(server, "noop", count)
            with worker(server, "--processes", "1", env={"HEADRACE_BENCH_CALLS": told.name}):
                if count > 200:
                    server.resume()
                for done in range(0 if count > 200 else count):
                    _fill(server, "noop", 1)
                    until(lambda done=done: server.succeeded() > done, every_s=0.001)
                until(lambda count=count: server.succeeded() >= count)
            calls = int(Path(told.name).read_text()) / count
        figures.append(Figure(f"Python calls of our own a job run, {what}", calls, "calls", most))
    return figures


def imports(server: Server, scale: float) -> list[Figure]:
    """`import headrace` over `import redis, msgspec`, and `headrace --help`."""

    def best(*command: str) -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1000

    base, ours = best("-c", "import redis, msgspec"), best("-c", "import redis, msgspec; from headrace import Headrace")
    return [
        Figure("import headrace over redis and msgspec", ours - base, "ms", 60.0),
        Figure(
            "headrace --help",
            best("-m", "headrace", "--help"),
            "ms",
            150.0,
            note=f"python alone {best('-c', ''):.0f} ms",
        ),
    ]


def dashboard(server: Server, scale: float) -> list[Figure]:
    """The time of each page before a million jobs, and what viewers of the overview and the queues cost."""
    pending = int(1_000_000 * max(scale, 0.1))
    pages.fill(server, pending)
    figures = []
    with pages.shown(server) as client:
        for path in pages.PAGES:
            figures.append(Figure(f"page {path}, {pending:,} jobs", pages.times(client, path), "ms", 300.0))
        for viewers in (1, 50):
            sent = pages.commands_at_rest(server, client, viewers, max(30 * scale, 10))
            figures.append(Figure(f"commands a second of the dashboard, viewers: {viewers}", sent, "/s", 5.0))
    return figures


MEASURES: dict[str, Callable[[Server, float], list[Figure]]] = {
    "server_cost": server_cost, "script_calls": script_calls, "flow_features": flow_features,
    "flow_scale": flow_scale, "flow_throughput": flow_throughput, "producer": producer, "worker_calls": worker_calls,
    "throughput": throughput,
    "latency": latency, "idle": idle, "million": million, "imports": imports,
    "dashboard": dashboard,
}  # fmt: skip


def show(figure: Figure) -> str:
    budget = (
        ""
        if figure.budget is None
        else f"{'≥' if figure.is_least else '≤'} {figure.budget:g} {'MISSED' if figure.is_missed else 'ok'}"
    )
    return f"{figure.what:<58} {figure.value:>10,.2f} {figure.unit:<7} {budget:<16} {figure.note}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(MEASURES)}")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    figures: list[Figure] = []
    with EmbeddedServer() as embedded:
        server = Server(embedded.url)
        what = server.redis.info("server")
        for name in options.names or MEASURES:
            for figure in MEASURES[name](server, 0.1 if options.quick else 1.0):
                figures.append(figure)
                print(show(figure), flush=True)
    missed = [figure.what for figure in figures if figure.is_missed]
    print(
        f"\n{len(missed)} of {sum(f.budget is not None for f in figures)} budgets missed"
        + "".join(f"\n  {m}" for m in missed)
    )
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    path = results / time.strftime("%Y%m%dT%H%M%S.json")
    machine = {
        "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(),
        "server": f"{what.get('server_name', 'redis')} {what.get('valkey_version') or what['redis_version']}",
        **{name: version(name) for name in ("headrace", "redis", "hiredis", "msgspec")},
    }  # fmt: skip
    path.write_text(
        json.dumps({"machine": machine, "quick": options.quick, "figures": [asdict(f) for f in figures]}, indent=1)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
