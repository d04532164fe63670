"""`headrace torture`: the same faults for the same seed, and a verdict that can be trusted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import redis
from scenario_lab import until

from headrace.context import JobContext
from headrace.core.record import Stored, decode, encode
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.keys import queue_keys
from headrace.errors import UsageError
from headrace.torture.chaos import OF_THE_CLOCK, OF_THE_SERVER, WEIGHTS, schedule
from headrace.torture.judge import Audit, Run, judge, read_audit, runs_beside
from headrace.torture.ledger import Effects, Ledger
from headrace.torture.server import HOUR_S, Victim, make_server, mends_torn_tail
from headrace.torture.watch import AFTERWARDS_S, Health
from servers import redis7_binary


def run_torture(*args: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "torture", "--json", *args], capture_output=True, text=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {row["figure"].strip(): row["value"] for row in rows}, done.stderr


def check_figures(code: int, figures: dict[str, object], told: str) -> None:
    assert code == 0, (figures, told)
    assert (0, 0, 0) == (figures["lost"], figures["ran without being acknowledged"], figures["broken invariants"])
    assert 0 == figures["of these, beside a healthy worker's"]
    assert figures["effects, counted under the fence"] == figures["jobs with an effect"]
    assert int(str(figures["jobs acknowledged"])) > 100


def test_a_short_torture_loses_nothing() -> None:
    """Eight seconds of every fault, all four pools, three queues; the audit, the ledger and the queue agree."""
    check_figures(*run_torture("--seconds", "8", "--seed", "7"))


@pytest.mark.long
@pytest.mark.parametrize("program", ["valkey", "redis7"])
def test_a_minute_of_torture_loses_nothing(program: str) -> None:
    binary = redis7_binary()
    if program == "redis7" and binary is None:
        pytest.skip("no redis-server on PATH: apt-get install redis-server")
    check_figures(*run_torture("--seconds", "60", *(("--server-program", str(binary)) if program == "redis7" else ())))


def test_a_server_of_ones_own_is_spared_and_must_be_empty(url: str) -> None:
    """Its clients are not killed, nor is it paused; jobs that are there are not touched."""
    code, figures, told = run_torture("--seconds", "5", "--seed", "3", "--url", url)
    check_figures(code, figures, told)
    assert not OF_THE_SERVER & set(figures)
    code, _, told = run_torture("--seconds", "5", "--url", url)
    assert code == 2
    assert "has been used" in told


def test_a_seed_gives_the_same_faults() -> None:
    """And none that is left out."""
    faults = schedule(5, 600.0)
    assert faults == schedule(5, 600.0)
    assert faults != schedule(6, 600.0)
    assert set(WEIGHTS) == {fault.name for fault in faults}
    assert OF_THE_CLOCK < OF_THE_SERVER
    assert not OF_THE_SERVER & {fault.name for fault in schedule(5, 600.0, leave_out=OF_THE_SERVER)}


def test_the_verdict_sees_what_is_wrong(url: str) -> None:
    """A job acknowledged and gone, one without its effect, one that nobody sent, two runs under one fence."""
    from engine_kit import Kit

    client = SyncClient(ServerConfig(url))
    kit = Kit(client)
    kit.add("kept", "lost", "silent")
    kit.settle(kit.open("s"), kit.claim("s"))
    keys = queue_keys("default")
    record = client.run(_get(keys.jobs, "kept"))
    assert decode(record).state == Stored.SUCCEEDED
    alien = [Run(4, 10, "worker-fork", 1.0, 2.0), Run(4, 11, "worker-fork", 3.0)]
    seen = Audit(Counter({"kept": 1, "lost": 1, "alien": 2}), Counter({"kept": 1}), {"alien": alien})
    found = judge(["kept", "lost", "silent"], seen, Effects({"kept"}, 1, 1), client, Health())
    assert ["lost", "silent"] == found.lost
    assert ["alien"] == found.unknown
    assert 1 == found.extra_runs
    told = " / ".join(found.violations)
    assert "lost succeeded without its effect" in told
    assert "two runs of alien had one fence" in told
    assert not found.is_good
    assert encode(decode(record)) == record
    client.close()


AUDIT = """\
start a 1 10 worker-fork 100.0
start b 2 20 worker-threads 100.0
start c 3 30 worker-prefork 100.0
start a 4 21 worker-threads 101.0
end a 1 10 worker-fork 102.0
left b 2 20 worker-threads 100.5
start b 5 11 worker-fork 101.0
start c 6 12 worker-fork 103.0
"""


def test_a_run_beside_an_older_one_is_judged_by_the_older_ones_worker(tmp_path: Path) -> None:
    """By its last line, or by its process, when it was killed before it could write one; what its worker had suffered excuses it."""
    (tmp_path / "audit").write_text(AUDIT)
    seen = read_audit(tmp_path / "audit")
    health = Health()
    assert [("a", True)] == [(said[0], was_well) for said, was_well in runs_beside(seen, health)]
    for tenth in range(40):
        health.see([30], 100.0 + tenth / 10)
    assert [("a", True), ("c", True)] == [(said[0], was_well) for said, was_well in runs_beside(seen, health)]
    health.note(["worker-fork"], 100.2, 100.4)
    health.note(["worker-prefork"], 90.0, 99.0 - AFTERWARDS_S)
    assert [("a", False), ("c", True)] == [(said[0], was_well) for said, was_well in runs_beside(seen, health)]


def test_what_is_done_to_the_server_is_undone(tmp_path: Path) -> None:
    """Filled, its disk full, stopped, an hour back and ahead: when it is healed it answers, with its data, and not in the past."""
    server, clock = make_server(tmp_path, None)
    with server:
        victim = Victim(server.url, server, clock)
        other = redis.Redis.from_url(server.url)
        other.set("kept", "1")
        before_s = other.time()[0]
        assert victim.fill()
        with pytest.raises(redis.RedisError, match="maxmemory"):
            other.set("refused", "1")
        if clock is not None:
            victim.jump(HOUR_S)
            victim.go_back(HOUR_S)
        victim.stand_still()
        victim.heal()
        assert other.set("a", "1")
        until(lambda: other.time()[0] - before_s >= (HOUR_S if clock is not None else 0))
        if sys.platform == "linux":
            victim.fill_disk(100)
            with pytest.raises(redis.ConnectionError):
                other.set("too much for the disk", "x" * 10_000)
            victim.heal()
        assert b"1" == other.get("kept")
        assert other.get("too much for the disk") is None
        other.close()
        victim.close()


def test_the_ledger_counts_an_effect_once(tmp_path: Path) -> None:
    """However often the job runs; and a ledger that was used is not used again."""
    ledger = Ledger(str(tmp_path / "ledger.sqlite"))
    ledger.create()
    for job_id, fence in (("a", 5), ("a", 6), ("b", 1)):
        ledger.count(JobContext(job_id, "default", "work", 1, fence))
    assert Effects({"a", "b"}, 3, 2) == ledger.read()
    with pytest.raises(UsageError, match="2 effects noted already"):
        ledger.create()


def _get(key: bytes, field: str):  # type: ignore[no-untyped-def]
    from headrace.engine.call import command

    return command("HGET", key, field, key=key, decode=lambda reply: reply)


def test_a_server_that_would_lose_what_follows_a_torn_tail_keeps_its_disk(tmp_path: Path) -> None:
    """The embedded one cuts off the whole of a half transaction; Redis 7.0 goes on inside of it."""
    assert mends_torn_tail(tmp_path / "valkey", None)
    seven = redis7_binary()
    if seven is None or " v=7.0." not in subprocess.run([seven, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("no redis-server 7.0: apt-get install redis-server")
    assert not mends_torn_tail(tmp_path / "redis", seven)


def test_a_server_that_cannot_start_under_libfaketime_keeps_its_clock(tmp_path: Path) -> None:
    """It is asked for its version first: some builds hang before they begin."""
    never = tmp_path / "never"
    never.write_text("#!/bin/sh\nexit 1\n")
    never.chmod(0o700)
    _, clock = make_server(tmp_path, str(never))
    assert clock is None
