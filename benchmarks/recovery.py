"""How soon a job runs again: after its process, its whole worker, or its machine's network has died.

`python benchmarks/recovery.py [--times N]`: prints p50, p99 and the worst of each, and writes benchmarks/results/recovery-*.json. A machine's death is a
link to the server that goes silent both ways, with the worker behind it left running.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from headrace import Headrace
from headrace.server import EmbeddedServer
from headrace.testing.proxy import FaultProxy
from lab import HERE, QUEUE, Server, until


@contextmanager
def worker(url: str, stamps: str) -> Iterator[subprocess.Popen[bytes]]:
    """One prefork process with the usual lease of 10 s."""
    command = [
        sys.executable,
        "-m",
        "headrace",
        "worker",
        "-A",
        "tasks:app",
        "--processes",
        "1",
        "--log-level",
        "error",
    ]
    names = {**os.environ, "HEADRACE_URL": url, "HEADRACE_BENCH_STAMPS": stamps}
    process = subprocess.Popen(command, cwd=HERE, env=names, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        family = (
            [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            if process.poll() is None
            else []
        )
        for member in family:
            member.kill()
        process.wait()


def starts(stamps: Path) -> list[tuple[int, float]]:
    """(pid, CLOCK_MONOTONIC) of each start, in order."""
    return [(int(pid), int(at_ns) / 1e9) for pid, at_ns in (line.split() for line in stamps.read_text().splitlines())]


def once(server: Server, what: str) -> float:
    """Seconds from the death to the second start of the job that ran."""
    server.reset()
    with ExitStack() as stack:
        stamps = Path(stack.enter_context(tempfile.NamedTemporaryFile()).name)
        link = stack.enter_context(FaultProxy(server.url))
        first = stack.enter_context(worker(link.url, str(stamps)))
        until(lambda: server.redis.zcard(QUEUE.sessions) == 1, timeout_s=30)
        app = Headrace(server.url)
        stack.callback(app.close)
        app.queue("bench").enqueue("tasks.hold")
        until(lambda: len(starts(stamps)) == 1, timeout_s=30)
        if what != "a process":
            stack.enter_context(worker(server.url, str(stamps)))
            until(lambda: server.redis.zcard(QUEUE.sessions) == 2, timeout_s=30)
            # Who takes over must first have seen the server for a whole lease.
            until(lambda: time.monotonic() - starts(stamps)[0][1] > 13, timeout_s=30)
        died = time.monotonic()
        if what == "a process":
            os.kill(starts(stamps)[0][0], signal.SIGKILL)
        elif what == "a worker":
            first.kill()
        else:
            link.cut("both")
        until(lambda: len(starts(stamps)) == 2, timeout_s=60)
        return starts(stamps)[1][1] - died


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="deaths of a process; a quarter as many of the others")
    options = parser.parse_args()
    results: dict[str, list[float]] = {}
    with EmbeddedServer() as embedded:
        server = Server(embedded.url)
        for what in ("a process", "a worker", "a machine's network"):
            times = options.times if what == "a process" else max(3, options.times // 4)
            found = results[what] = sorted(once(server, what) for _ in range(times))
            p99 = statistics.quantiles(found, n=100, method="inclusive")[98]
            print(
                f"{what:<22} p50 {statistics.median(found):6.2f} s   p99 {p99:6.2f} s   worst {found[-1]:6.2f} s   of {times}",
                flush=True,
            )
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / time.strftime("recovery-%Y%m%dT%H%M%S.json")).write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
