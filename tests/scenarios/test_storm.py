"""Kills of every kind at random moments, and a server that misbehaves, under load: every job runs, nothing leaks."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from scenario_lab import QUEUES, Lab, until

from headrace.engine.keys import queue_keys
from headrace.server import EmbeddedServer

ARGS = (*QUEUES, "--processes", "3", "--log-level", "warning")


def enqueue_all(lab: Lab, count: int, seconds: float) -> None:
    work = lab.app.task(name="ledger.work")(_work)
    for queue in QUEUES:
        numbers = [n for n in range(count) if QUEUES[n % 3] == queue]
        lab.app.enqueue_many(work.options(queue=queue, result_ttl=0).call(n, seconds) for n in numbers)


def _work(number: int, seconds: float = 0.0) -> int:
    return number


def hurt(lab: Lab, chance: random.Random) -> str:
    """One kill: of a child, of a supervisor, or an ordinary SIGTERM; what ended is started again."""
    at = chance.randrange(len(lab.workers))
    worker = lab.workers[at]
    kind = chance.choice(["child", "child", "supervisor", "SIGTERM"])
    if kind == "child":
        pids = {int(row[2]) for row in lab.lines("start")} & {process.pid for process in worker.descendants()}
        if not pids:
            return "nobody"
        os.kill(chance.choice(sorted(pids)), signal.SIGKILL)
        return kind
    if kind == "supervisor":
        worker.kill()
    else:
        # -15: it had only begun to start, and held nothing.
        assert worker.terminate() in {0, 143, -signal.SIGTERM}, worker.said[-2000:]
    del lab.workers[at]
    lab.start(*ARGS, wait=False)
    return kind


@pytest.mark.parametrize(
    ("count", "kills"), [(800, 8), pytest.param(4_000, 40, marks=pytest.mark.long)], ids=["8 kills", "40 kills"]
)
def test_no_job_is_lost_by_kills_at_random_moments(lab: Lab, count: int, kills: int) -> None:
    """Three queues, two workers: every job ran, none is left anywhere, no key leaks."""
    seed = int(os.environ.get("SEED", "0")) or random.randrange(10_000)
    print("SEED", seed)
    chance = random.Random(seed)
    lab.start(*ARGS, ready=3)
    lab.start(*ARGS, ready=3)
    before = set(lab.redis.scan_iter("*"))
    enqueue_all(lab, count, 0.01)
    done_at = [int((n + chance.random()) * count * 0.9 / kills) for n in range(kills)]
    kinds = []
    for due in done_at:
        until(lambda due=due: len(lab.ends()) >= due, timeout_s=90)
        kinds.append(hurt(lab, chance))
    print(kinds)
    until(lambda: len(lab.ends()) == count, timeout_s=120, what=f"{count} jobs ended")
    until(lambda: not lab.live_jobs(), timeout_s=60, what="nothing left")
    assert set(range(count)) == set(lab.ends())
    for worker in lab.workers:
        worker.terminate()
    left = set(lab.redis.scan_iter("*")) - before
    own = {key for name in QUEUES for key in map(bytes.decode, _own_keys(name))}
    assert left <= own | {"hr:queues", "hr:workers"} | {
        k for k in left if ":held:" in k and lab.redis.type(k) == "none"
    }


def _own_keys(name: str) -> list[bytes]:
    keys = queue_keys(name)
    own = [keys.meta, keys.stats, keys.producers, keys.wake, keys.sessions, keys.crashes]
    return [*own, keys.minutes, keys.hours, keys.days]


FAULTS = {
    "SCRIPT FLUSH": lambda lab: lab.redis.script_flush(),
    "CLIENT PAUSE": lambda lab: lab.redis.client_pause(700),
    "CLIENT KILL": lambda lab: lab.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
    "DEBUG SLEEP": lambda lab: lab.redis.execute_command("DEBUG", "SLEEP", "0.7"),
}


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "fork"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_goes_on_by_itself(lab: Lab, pool: str, fault: str) -> None:
    """Scripts flushed, clients paused or killed, a server busy with somebody's script: nothing is lost."""
    lab.start("--pool", pool, *(("--slots", "3") if pool in {"threads", "asyncio"} else ("--processes", "3")))
    jobs = [lab.app.enqueue("ledger.work", n, seconds=0.02) for n in range(150)]
    for due in (20, 60, 100):
        until(lambda due=due: len(lab.ends()) >= due)
        FAULTS[fault](lab)
    assert list(range(150)) == [job.result(timeout=30) for job in jobs]
    until(lambda: not lab.live_jobs())


def test_a_server_restart_loses_nothing(tmp_path: Path) -> None:
    """With an append-only file: workers wait, connect again, and go on; outcomes that were waiting are kept."""
    with EmbeddedServer(data_dir=tmp_path / "data", config={"appendonly": "yes", "appendfsync": "always"}) as server:
        lab = Lab(server.url, tmp_path)
        try:
            lab.start("--processes", "3", ready=3)
            jobs = [lab.app.enqueue("ledger.work", n, seconds=0.02) for n in range(200)]
            for due in (30, 90):
                until(lambda due=due: len(lab.ends()) >= due)
                server.kill()
                server.start()
            assert list(range(200)) == [job.result(timeout=40) for job in jobs]
            until(lambda: not lab.live_jobs())
        finally:
            lab.close()


def test_a_full_server_refuses_clearly_and_drains(tmp_path: Path) -> None:
    """Enqueue says so; workers go on, and then there is room again."""
    from headrace import ServerFull

    with EmbeddedServer(config={"maxmemory": "12mb", "maxmemory-policy": "noeviction"}) as server:
        lab = Lab(server.url, tmp_path)
        try:
            count = 0
            with pytest.raises(ServerFull, match="maxmemory"):
                while True:
                    lab.app.options(result_ttl=0, description="x" * 1_000).enqueue("ledger.work", count)
                    count += 1
            assert count > 100
            lab.start("--processes", "2", ready=2)
            until(lambda: len(lab.ends()) == count, timeout_s=60)
            until(lambda: not lab.live_jobs())
            assert -1 == lab.app.enqueue("ledger.work", -1).result(timeout=10)
        finally:
            lab.close()


def test_a_paused_worker_does_not_run_jobs_twice_for_ever(lab: Lab) -> None:
    """SIGSTOP longer than the lease: another worker takes over; the woken one's results are refused, and it goes on."""
    first = lab.start("--processes", "1", "--lease", "2")
    lab.start("--processes", "1", "--lease", "2")
    job = lab.app.enqueue("ledger.work", 1, seconds=6)
    pid = lab.pid_of(1)
    stopped = lab.workers[0] if pid in {p.pid for p in first.descendants()} else lab.workers[1]
    family = [psutil.Process(stopped.process.pid), *stopped.descendants()]
    for process in family:
        process.suspend()
    began = time.monotonic()
    until(lambda: lab.starts()[1] == 2, timeout_s=20)
    assert time.monotonic() - began < 10
    for process in reversed(family):
        process.resume()
    assert 1 == job.result(timeout=30)
    assert 2 == lab.app.enqueue("ledger.work", 2).result(timeout=10)
    until(lambda: not lab.live_jobs())
