"""The server's clock jumps, or stands still, under real workers: no living lease is taken over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario_lab import Lab, until

from faketime import ServerClock, server_with_clock
from headrace.testing.clock import faketime_library
from soundness import violations_on

ROUNDS = 3
WORKERS = 3
QUIET_MS = 3_500
"""A lease of 2 s, and some: then a worker may take over sessions that seem dead."""


@pytest.fixture
def clocked(tmp_path: Path) -> Iterator[tuple[Lab, ServerClock]]:
    """A lab on a server whose clock can be moved."""
    library = faketime_library()
    if library is None:
        pytest.skip("no libfaketime: apt-get install libfaketime")
    with server_with_clock(tmp_path, library) as (url, clock):
        lab = Lab(url, tmp_path)
        try:
            yield lab, clock
        finally:
            lab.close()
        assert [] == violations_on(url)


def pass_quietly(clock: ServerClock) -> None:
    began_ms = clock.now_ms()
    until(lambda: clock.now_ms() - began_ms > QUIET_MS, what="a lease without a fault")


def stand_still(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        until(lambda: time.monotonic() - began_s > seconds, what="longer than the lease")
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("fault", ["jumps", "stands still"])
def test_no_running_job_is_taken_from_a_living_worker(clocked: tuple[Lab, ServerClock], fault: str) -> None:
    """All leases end at once by the server's clock; whoever looks next must not believe it."""
    lab, clock = clocked
    workers = [lab.start("--processes", "1", "--lease", "2s") for _ in range(WORKERS)]
    for number in range(WORKERS):
        lab.app.enqueue("ledger.waits_for", number, str(lab.folder / "go"))
    until(lambda: len(lab.starts()) == WORKERS, what="running jobs")
    server = lab.redis.info("server")["process_id"]
    for _ in range(ROUNDS):
        pass_quietly(clock)
        if fault == "jumps":
            clock.advance(3_600)
        else:
            stand_still(server, 3.0)
    pass_quietly(clock)
    (lab.folder / "go").touch()
    until(lambda: len(lab.ends()) == WORKERS, what="ends")
    assert {number: 1 for number in range(WORKERS)} == dict(lab.starts())
    assert "" == "".join(worker.said for worker in workers if "took over" in worker.said)
