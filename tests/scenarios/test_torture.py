"""`headrace torture`: the same faults for the same seed, and a verdict that can be trusted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from headrace.context import JobContext
from headrace.core.record import Stored, decode, encode
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.keys import queue_keys
from headrace.errors import UsageError
from headrace.torture.chaos import OF_THE_SERVER, WEIGHTS, schedule
from headrace.torture.judge import Audit, judge
from headrace.torture.ledger import Effects, Ledger
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
    faults = schedule(5, 300.0, may_hurt_server=True)
    assert faults == schedule(5, 300.0, may_hurt_server=True)
    assert faults != schedule(6, 300.0, may_hurt_server=True)
    assert set(WEIGHTS) == {fault.name for fault in faults}
    assert not OF_THE_SERVER & {fault.name for fault in schedule(5, 300.0, may_hurt_server=False)}


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
    seen = Audit(Counter({"kept": 1, "lost": 1, "alien": 2}), Counter({"kept": 1}), {"alien": [4, 4]})
    found = judge(["kept", "lost", "silent"], seen, Effects({"kept"}, 1, 1), client)
    assert ["lost", "silent"] == found.lost
    assert ["alien"] == found.unknown
    assert 1 == found.extra_runs
    told = " / ".join(found.violations)
    assert "lost succeeded without its effect" in told
    assert "two runs of alien had one fence" in told
    assert not found.is_good
    assert encode(decode(record)) == record
    client.close()


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
