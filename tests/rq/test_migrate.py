"""What real RQ wrote is moved whole: its keys were recorded once (`golden/`, by `rq_fill.py`), and are moved here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import rq_golden
from rq_bench import HERE, Bench

from headrace.contrib.rq import Queue, requeue_job
from headrace.contrib.rq.bring_back import bring_back
from headrace.contrib.rq.connections import app_of
from headrace.contrib.rq.convert import Refused, convert
from headrace.contrib.rq.group import Group
from headrace.contrib.rq.job import Job, JobStatus
from headrace.contrib.rq.migrate import Move, Row
from headrace.contrib.rq.serializers import JSONSerializer, PickleSerializer
from headrace.contrib.rq.source import LockHeld, LockLost, Source
from headrace.contrib.rq.stored import Place, RQKeys, Unreadable, function_name
from headrace.core.record import Record, decode
from headrace.engine import admin
from headrace.engine.keys import queue_keys
from headrace.errors import JobExists, UsageError

VERSIONS = ("1.16.2", "2.10.0", "3.0.0")


class Told(dict[str, str]):
    """The reason of each job that stays."""

    def __call__(self, job_id: str, queue: str, place: Place, reason: str) -> None:
        assert job_id not in self, "it is told of once"
        self[job_id] = reason


def move(bench: Bench, **options: Any) -> tuple[dict[tuple[str, str], Row], Told]:
    told = Told()
    rows = Move(Source(bench.connection, RQKeys()), bench.connection, tell=told, **options).run()
    return {(row.queue, row.state): row for row in rows}, told


def record(bench: Bench, job_id: str) -> Record:
    app = app_of(bench.connection)
    keys = queue_keys(app.job(job_id).queue, app.prefix)
    [data] = app.client.run(admin.read_records(keys, [job_id]))
    assert data is not None
    return decode(data)


def options(bench: Bench, job_id: str) -> Any:
    return record(bench, job_id).options


def dumped(bench: Bench) -> Any:
    return {key: entry["value"] for key, entry in rq_golden.dump(bench.connection)["keys"].items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_rq_wrote_is_moved_and_runs(bench: Bench, version: str) -> None:
    """Ids, arguments, meta, times, time limits, what is left of ttl and retries; children wait for their parents; then it all runs."""
    rq_golden.load(bench.connection, version)
    see_moved(bench, *move(bench))


def see_moved(bench: Bench, rows: dict[tuple[str, str], Row], told: Told) -> None:
    """What `rq_fill.py` made is in headrace, and runs there."""
    created = bench.connection.hget("rq:job:plain", "created_at").decode()

    def job(job_id: str) -> Job:
        return Job.fetch(job_id, bench.connection)

    assert rows["low", "failed"].moved == 1 and rows["low", "scheduled"].moved == 2
    assert rows["low", "failed"].rq_now == 0 and rows["low", "failed"].headrace_now == 1
    assert datetime.fromisoformat(created) - job("plain").created_at < timedelta(milliseconds=1)
    plain = job("plain")
    assert (plain.description, options(bench, "plain").timeout_ms) == ("the first", 77_000) and plain.is_queued
    assert options(bench, "plain").result_ttl_ms >= 900_000 and options(bench, "never-times-out").timeout_ms == 0
    assert job("with-meta").meta == {"who": "me"}
    assert 3600 < record(bench, "with-ttl").expires_at_ms / 1000 - time.time() <= 5001
    assert job("in-five-hours").is_scheduled
    due_at = job("in-five-hours").handle.due_at
    assert due_at and timedelta(hours=4) < due_at - datetime.now(UTC) <= timedelta(hours=5)
    assert [10_000, 10_000, 10_000, 30_000, 60_000] == options(bench, "with-retries").retry.delays_ms
    assert job("retried").is_scheduled and [7_200_000, 9_000_000] == options(bench, "retried").retry.delays_ms
    failed = job("failed")
    assert failed.is_failed and failed.meta == {"n": 1}
    assert "ZeroDivisionError: division by zero" in (failed.exc_info or "") and failed.ended_at is not None
    assert job("child").is_deferred and job("grandchild").is_deferred and job("child-of-any").is_deferred
    assert job("child-of-any").allow_dependency_failures and options(bench, "failed").failure_ttl_ms == 10_000_000

    job("with-retries").cancel()
    bench.work()
    ended = {job_id: job(job_id).get_status() for job_id in ("plain", "method", "child", "grandchild", "with-meta")}
    assert set(ended.values()) == {JobStatus.FINISHED}
    assert job("method").return_value() == 42 and job("with-meta").return_value() == ("with-meta", "me")
    assert job("with-keywords").return_value() == {"timeout": 1}
    ran = bench.ran()
    assert {1, 5, 6, 7, 30, 31, 105} <= set(ran) and len(ran) == len(set(ran))
    assert ran.index(1) < ran.index(30) < ran.index(31)
    if bench.connection.exists("rq:groups"):
        assert [job.id for job in Group.fetch("a-group", bench.connection).get_jobs()] == ["in-a-group"]
    left = {"in-json", "unreadable", "a-ghost", "child-of-failed", "started", "in-between"}
    assert set(told) == left
    requeue_job("failed", bench.connection)


def test_what_stays_is_told_with_its_reason_and_not_touched(bench: Bench) -> None:
    """And is moved by a later run, when the reason has gone."""
    rq_golden.load(bench.connection, "3.0.0")
    _, told = move(bench)
    assert "pass --serializer json" in told["in-json"] and "no pickle" in told["unreadable"]
    assert "expired" in told["a-ghost"] and "--abandoned" in told["started"] and "--abandoned" in told["in-between"]
    assert "waits for failed, which is failed in headrace" in told["child-of-failed"]
    before = dumped(bench)
    _, again = move(bench)
    assert again == told and dumped(bench) == before
    rows, told = move(bench, serializer=JSONSerializer, queues=["json"])
    assert rows["json", "queued"].moved == 1 and not told
    assert bench.connection.llen("rq:queue:json") == 0
    job = Job.fetch("in-json", bench.connection, "json")
    assert job.args == ([1, "a"],)


def test_a_dry_run_changes_nothing(bench: Bench) -> None:
    """It counts what would be moved, and tells of what would stay."""
    rq_golden.load(bench.connection, "2.10.0")
    before = dumped(bench)
    rows, told = move(bench, is_dry=True)
    assert rows["default", "deferred"].moved == 3 and rows["low", "failed"].moved == 1 and "in-json" in told
    assert "requeue that first" in told["child-of-failed"]
    assert dumped(bench) == before and [] == bench.connection.keys("hr:*jobs")


def test_what_rq_s_dead_workers_held_or_lost_is_moved_when_asked(bench: Bench) -> None:
    """Not while a worker of RQ's may run; then jobs that were taken, started, or are in none of RQ's lists."""
    rq_golden.load(bench.connection, "3.0.0")
    bench.connection.sadd("rq:workers", "rq:worker:alive")
    bench.connection.hset("rq:worker:alive", "state", "busy")
    with pytest.raises(UsageError, match="alive"):
        move(bench, with_held=True)
    bench.connection.delete("rq:worker:alive")
    rows, told = move(bench, with_held=True)
    moved = {state: rows[queue, state].moved for queue, state in rows if queue in ("held", "dying")}
    assert moved == {"intermediate": 1, "started": 1, "lost": 1}
    assert not {"in-between", "started", "lost"} & set(told)
    for job_id in ("in-between", "started", "lost"):
        assert Job.fetch(job_id, bench.connection).is_queued


@pytest.mark.timeout(600)
@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.long)], ids=["some points", "all points"])
def test_a_move_that_is_killed_loses_and_doubles_nothing(bench: Bench, every: int) -> None:
    """SIGKILL after a write was sent, and after it was answered; what has come runs and is forgotten; then it is moved again."""
    process = bench.start("rq_killed.py", bench.url, str(every))
    assert process.wait(500) == 0, bench.log_of(process)
    rows = [line.split() for line in bench.log_of(process).splitlines()]
    assert len(rows) > 100 // every / 2 and {row[2] for row in rows} == {"ok"}, bench.log_of(process)
    assert {row[3] for row in rows} == {"killed", "ended"} and {row[4] for row in rows} >= {"21"}


def test_one_run_at_a_time(bench: Bench) -> None:
    """A second one waits, and then refuses; one that was overtaken stops."""
    keys = RQKeys()
    first, second = Source(bench.connection, keys, 100), Source(bench.connection, keys, 100)
    first.lock()
    bench.connection.persist(keys.lock)
    with pytest.raises(LockHeld, match="wait"):
        second.lock()
    bench.connection.delete(keys.lock)
    second.lock()
    with pytest.raises(LockLost, match="nothing is lost"):
        first.renew()


def test_an_id_that_headrace_has_already_stays_in_rq(bench: Bench) -> None:
    """Also one of a failed job; RQ's copy is where it was."""
    rq_golden.load(bench.connection, "3.0.0")
    low = Queue("low", bench.connection)
    low.enqueue("rq_jobs.note", 0, job_id="failed")
    Queue("default", bench.connection).enqueue("rq_jobs.note", 0, job_id="plain")
    head = bench.connection.lindex("rq:queue:default", 0)
    rows, told = move(bench)
    assert told["failed"] == told["plain"] == "headrace has a job of that id already"
    assert head == bench.connection.lindex("rq:queue:default", 0) == b"plain"
    assert bench.connection.zscore("rq:failed:low", "failed") and rows["low", "failed"].stay == 1
    assert "which is queued in RQ" in told["child"]


def test_what_is_moved_is_signed_where_there_is_a_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """RQ's own bytes are not: who moves them vouches for them."""
    rq_golden.load(bench.connection, "3.0.0")
    monkeypatch.setenv("HEADRACE_SECRET_KEY", "a key")
    move(bench)
    monkeypatch.delenv("HEADRACE_SECRET_KEY")
    bench.work()
    assert "DeserializationError" in (Job.fetch("plain", bench.connection).exc_info or "") and not bench.ran()


def test_a_queue_that_headrace_cannot_name_stays(bench: Bench) -> None:
    """And is told of; the others are moved."""
    rq_golden.load(bench.connection, "3.0.0")
    for key in ("rq:queue:json", "rq:queue:low"):
        bench.connection.rename(key, f"{key}:a b")
    bench.connection.sadd("rq:queues", "rq:queue:low:a b")
    rows, told = move(bench)
    assert "is not allowed" in told["unreadable"]
    assert rows["low:a b", "queued"].stay == 2 and rows["default", "queued"].moved > 5


def test_the_name_of_a_function_is_read_without_unpickling() -> None:
    """A pickle that would run something when it is loaded does not."""

    class Bomb:
        def __reduce__(self) -> Any:
            return pytest.fail, ("it was loaded",)

    data = PickleSerializer.dumps(("a.function", None, (Bomb(),), {}))
    assert function_name(PickleSerializer, data) == "a.function"
    for wrong in (PickleSerializer.dumps((1, None, (), {})), PickleSerializer.dumps(Bomb()), b"", b"x"):
        with pytest.raises(Unreadable):
            function_name(PickleSerializer, wrong)


def test_failed_jobs_are_stored_once_and_counted_nowhere(bench: Bench) -> None:
    """The same call again does nothing, also when the job has gone; a taken id is refused, and then nothing is written."""
    rq_golden.load(bench.connection, "3.0.0")
    source, app = Source(bench.connection, RQKeys()), app_of(bench.connection)
    source.lock()
    [taken] = source.take("a-batch", Place.FAILED, "low", "low", ["failed"])
    converted = convert(taken, app, bench.connection, PickleSerializer)
    keys = queue_keys("low", app.prefix)
    rows = [("failed", converted.new.record, converted.keep_until_ms)]
    app.client.run(admin.store_ended(keys, rows, "a-batch", 1))
    app.client.run(admin.store_ended(keys, rows, "a-batch", 1))
    counts = app.client.run(admin.count_jobs(keys))
    assert (counts.dead, counts.totals.get("failed", 0)) == (1, 0)
    with pytest.raises(JobExists):
        app.client.run(admin.store_ended(keys, [("other", *rows[0][1:]), *rows], "another", 1))
    assert app.client.run(admin.count_jobs(keys)).dead == 1
    assert source.put_back(["failed"]) == 1 and bench.connection.zscore("rq:failed:low", "failed")
    with pytest.raises(Refused):
        convert(source_of(source, "a-ghost"), app, bench.connection, PickleSerializer)


def source_of(source: Source, job_id: str) -> Any:
    from headrace.contrib.rq.convert import Moving

    return Moving(id=job_id, job=source.read([job_id])[0], place=Place.QUEUED, to="low")


def test_what_was_moved_and_has_not_run_goes_back(bench: Bench) -> None:
    """RQ has its lists, sets and parents again, and headrace nothing of them; what has run stays; done again it does nothing."""
    rq_golden.load(bench.connection, "3.0.0")
    before = dumped(bench)
    move(bench, queues=["default", "low"])
    Queue("default", bench.connection).remove("with-ttl")
    source = Source(bench.connection, RQKeys())
    found = bring_back(source, bench.connection)
    again = bring_back(source, bench.connection)
    after = dumped(bench)
    places = (
        "rq:scheduled:low",
        "rq:failed:low",
        "rq:deferred:default",
        "rq:job:plain:dependents",
        "rq:job::child:dependencies",
    )
    assert {key: before[key] for key in places} == {key: after[key] for key in places}
    lost = {"with-ttl"}
    assert set(before["rq:queue:default"]) - lost == set(after["rq:queue:default"])
    assert after["rq:queue:default"][0] == "plain"  # the oldest
    assert found["low"] == 3 and not again and after.keys() >= before.keys() - {"rq:job:with-ttl"}
    app = app_of(bench.connection)
    counts = [app.client.run(admin.count_jobs(queue_keys(queue, app.prefix))) for queue in ("default", "low")]
    assert [(0, 0), (0, 0)] == [(count.live, count.dead) for count in counts]
    rows, _ = move(bench, queues=["low"])
    assert rows["low", "failed"].moved == 1 and Job.fetch("failed", bench.connection).is_failed


def test_the_command_prints_both_sides(bench: Bench) -> None:
    """A table, or JSON; what stays on stderr, and exit code 4; 0 when nothing does; 69 when RQ's server is away."""
    rq_golden.load(bench.connection, "3.0.0")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "headrace", "rq", "migrate", "--url", bench.url, *words]
        return subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60, env={**os.environ})

    done = run("--from", bench.url, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (
        done.returncode == 4
        and {"queue": "low", "state": "failed", "in_rq": 1, "moved": 1, "stay": 0, "rq_now": 0, "headrace_now": 1}
        in rows
    )
    assert "stays: in-json (json, queued): its arguments are JSON: pass --serializer json" in done.stderr
    done = run("--from", bench.url, "--queue", "json", "-S", "json")
    assert (done.returncode, done.stdout) == (0, "json\tqueued\t1\t1\t0\t0\t1\n")
    done = run("--from", bench.url, "--queue", "json", "--back")
    assert (done.returncode, done.stdout) == (0, "json\t1\n") and bench.connection.llen("rq:queue:json") == 1
    assert run("--from", "redis://127.0.0.1:1/0").returncode == 69
    assert run("--from", bench.url, "-S", "no.such").returncode == 2
