"""What jobs leave to be read: items and lines, who may write them, how many are kept, and when they go."""

from __future__ import annotations

from typing import Any

import pytest
from engine_kit import Kit

from headrace.core.record import State, Stored, decode
from headrace.engine import admin, kept, ops
from headrace.engine.audit import audit, repair
from headrace.engine.call import command
from headrace.engine.clients import SyncClient


@pytest.fixture
def kit(client: SyncClient) -> Kit:
    return Kit(client)


def running(kit: Kit, session: str = "s1") -> ops.Claim:
    """A job that this session runs."""
    kit.add()
    kit.open(session)
    return kit.claim(session, 1)[0]


def run_of(claim: ops.Claim, session: str = "s1") -> kept.WritingRun:
    return kept.WritingRun(claim.id, claim.fence, (session, f"{session}-next"))


def put(kit: Kit, run: kept.WritingRun, first: int, *items: bytes, most: int = 1000) -> bool:
    return kit.client.run(kept.add_items(kit.queue, run, first, items, most))


def say(kit: Kit, run: kept.WritingRun, *lines: bytes, attempt: int = 1) -> bool:
    return kit.client.run(kept.add_lines(kit.queue, run, attempt, [(1_700_000_000_000, line) for line in lines]))


def stored(kit: Kit, job_id: str) -> list[tuple[int, bytes]]:
    key = kit.queue.stream(job_id)
    entries: list[kept.Entry] = kit.client.run(command("XRANGE", key, "-", "+", key=key, decode=kept._entries))
    return [(entry.number - 1, entry.fields[b"v"]) for entry in entries if b"v" in entry.fields]


def lines(kit: Kit, job_id: str) -> list[bytes]:
    return [entry.fields[b"l"] for entry in kit.client.run(kept.all_lines(kit.queue, job_id)) if b"l" in entry.fields]


def test_an_item_is_stored_once_whoever_sends_it(kit: Kit) -> None:
    """Sent again after a lost reply, or yielded again by a retry: what is there is passed over, the rest is added."""
    claim = running(kit)
    run = run_of(claim)
    assert put(kit, run, 0, b"a", b"b") and put(kit, run, 0, b"a", b"b") and put(kit, run, 1, b"x", b"c")
    kit.settle("s1", [claim], ops.Kind.RETRY, ms=0)
    again = kit.claim("s1", 1)[0]
    assert put(kit, run_of(again), 0, b"y", b"y", b"y", b"d")
    assert [(0, b"a"), (1, b"b"), (2, b"c"), (3, b"d")] == stored(kit, claim.id)


def test_only_the_run_that_holds_the_job_writes(kit: Kit) -> None:
    """Another session, a session that was swept, and an earlier run are refused; a session under its next name is not."""
    claim = running(kit)
    run = run_of(claim)
    other = kit.open("s2")
    assert not put(kit, run_of(claim, other), 0, b"a") and not say(kit, run_of(claim, other), b"a")
    adopted = kit.client.run(ops.adopt(kit.queues, "s1", "s1-next", 10_000, split=kit.split))
    assert [claim.id] == [one.id for one in adopted] and put(kit, run, 0, b"a")
    later = run._replace(fence=claim.fence + 1)
    assert put(kit, later, 1, b"b") and say(kit, later, b"b")
    assert not put(kit, run, 2, b"c") and not say(kit, run, b"c")
    kit.release("s1-next")
    assert not put(kit, later, 2, b"c") and not say(kit, later, b"c")
    assert [(0, b"a"), (1, b"b")] == stored(kit, claim.id) and [b"b"] == lines(kit, claim.id)


def test_the_last_items_are_kept(kit: Kit) -> None:
    """No more than the task says; those that went are not stored again by a retry."""
    claim = running(kit)
    put(kit, run_of(claim), 0, *(b"%d" % n for n in range(50)), most=10)
    put(kit, run_of(claim), 0, *(b"%d" % n for n in range(50)), most=10)
    assert [(n, b"%d" % n) for n in range(40, 50)] == stored(kit, claim.id)


def test_the_last_lines_of_the_last_runs_are_kept(kit: Kit) -> None:
    """200 of a run, 64 KB of a run, and ten runs; one line that is larger by itself stays."""
    claim = running(kit)
    run = run_of(claim)
    say(kit, run, *(b"%d" % n for n in range(150)))
    say(kit, run, *(b"%d" % n for n in range(150, 300)))
    assert [b"%d" % n for n in range(100, 300)] == lines(kit, claim.id)
    long = b"x" * 20_000
    say(kit, run._replace(fence=run.fence + 1), long, b"second", long, long, long, b"last", attempt=2)
    assert [b"299", b"second", long, long, long, b"last"] == lines(kit, claim.id)[199:]
    say(kit, run._replace(fence=run.fence + 1), b"y" * 100_000, attempt=2)
    assert [b"299", b"y" * 100_000] == lines(kit, claim.id)[199:]
    for n in range(2, 12):
        say(kit, run._replace(fence=run.fence + n), b"run %d" % n, attempt=2)
    assert [b"run %d" % n for n in range(2, 12)] == lines(kit, claim.id)


@pytest.mark.parametrize("how", ["delete", "purge", "trim", "drop", "delete live", "purge live"])
def test_what_a_job_left_goes_with_its_record(kit: Kit, how: str) -> None:
    """However the record goes; dropped as it ends, it goes a minute later, for those who read along."""
    claim = running(kit)
    put(kit, run_of(claim), 0, b"a")
    say(kit, run_of(claim), b"b")
    if how == "drop":
        kit.settle("s1", [claim], ops.Kind.DROPPED)
        for key in (kit.queue.stream(claim.id), kit.queue.lines(claim.id)):
            assert 0 < kit.client.run(command("PTTL", key, key=key, decode=int)) <= 60_000
        assert "kept" not in kit.key_names()
        return
    if how.endswith("live"):
        kit.settle("s1", [claim], ops.Kind.RETRY, ms=0 if how.startswith("purge") else 60_000)
    else:
        kit.settle("s1", [claim], ms=1 if how == "trim" else 60_000)
    if how.startswith("delete"):
        kit.client.run(ops.delete(kit.queue, claim.id))
    elif how.startswith("purge"):
        kit.client.run(admin.purge(kit.queue, State.QUEUED if how.endswith("live") else State.SUCCEEDED))
    else:
        while kit.look(claim.id) is not None:
            kit.client.run(ops.tend(kit.queue, sweep=False))
    left = {name for name in kit.key_names() if name.startswith(("stream:", "lines:", "kept"))}
    assert left == set()


def test_a_job_of_the_same_id_begins_with_nothing(kit: Kit) -> None:
    """What the one before left for a minute is none of its items."""
    claim = running(kit)
    put(kit, run_of(claim), 0, b"a", b"b")
    kit.settle("s1", [claim], ops.Kind.DROPPED)
    kit.add(claim.id)
    again = kit.claim("s1", 1)[0]
    put(kit, run_of(again), 0, b"c")
    assert [(0, b"c")] == stored(kit, claim.id)


def test_a_retry_by_hand_goes_on_with_what_is_there(kit: Kit) -> None:
    """The end that readers were told of is passed over, and the job is still noted when its end drops it."""
    claim = running(kit)
    put(kit, run_of(claim), 0, b"a")
    reading = kept.read_along(kit.queue, claim.id, kit.queue.stream(claim.id), "0", 20)
    assert [0] == drive(kit, reading, most=1)
    kit.settle("s1", [claim], ops.Kind.FAILED)
    kit.client.run(ops.retry(kit.queue, claim.id))
    again = kit.claim("s1", 1)[0]
    put(kit, run_of(again), 0, b"a", b"b")
    later = kept.read_along(kit.queue, claim.id, kit.queue.stream(claim.id), "0", 20)
    assert [0, 1] == drive(kit, later, most=2)
    kit.settle("s1", [again], ops.Kind.DROPPED)
    assert "kept" not in kit.key_names()


def test_who_reads_along_gets_the_ended_record(kit: Kit) -> None:
    """After all items, whatever was told in between."""
    claim = running(kit)
    put(kit, run_of(claim), 0, b"a")
    kit.settle("s1", [claim], ops.Kind.FAILED)
    reading = kept.read_along(kit.queue, claim.id, kit.queue.stream(claim.id), "0", 20)
    found: list[Any] = []
    record = run_to_end(kit, reading, found)
    assert record is not None and decode(record).state == Stored.FAILED and [0] == found


def drive(kit: Kit, reading: kept.Reading, most: int) -> list[int]:
    """The numbers of the first items that are read."""
    found: list[int] = []
    told = next(reading)
    while len(found) < most:
        if isinstance(told, list):
            found += [entry.number - 1 for entry in told]
            told = next(reading)
        else:
            told = reading.send(kit.client.run(told.call))
    reading.close()
    return found


def run_to_end(kit: Kit, reading: kept.Reading, found: list[Any]) -> bytes | None:
    try:
        told = next(reading)
        while True:
            if isinstance(told, list):
                found += [entry.number - 1 for entry in told]
                told = next(reading)
            else:
                told = reading.send(kit.client.run(told.call))
    except StopIteration as stop:
        record: bytes | None = stop.value
        return record


@pytest.mark.damages
@pytest.mark.parametrize("damage", ["record", "token", "note"])
def test_what_would_stay_for_ever_is_found_and_mended(kit: Kit, damage: str) -> None:
    """A stream whose job has no record; one that the job's end would leave behind; one that is noted nowhere."""
    claim = running(kit)
    put(kit, run_of(claim), 0, b"a")
    queue, job_id = kit.queue, claim.id
    assert [] == kit.client.run(audit(queue)).violations
    if damage == "record":
        kit.settle("s1", [claim])
        for name, key in (("HDEL", queue.jobs), ("ZREM", queue.done)):
            kit.client.run(command(name, key, job_id, key=key, decode=int))
    elif damage == "token":
        kit.client.run(command("HDEL", queue.watched, job_id, key=queue.watched, decode=int))
    else:
        kit.client.run(command("HDEL", queue.base + "kept", job_id, key=queue.base + "kept", decode=int))
        kit.settle("s1", [claim])
    found = kit.client.run(audit(queue)).violations
    assert ("beside", job_id) in [(one.rule, one.job_id) for one in found]
    assert [] == [one for one in kit.client.run(repair(queue)).violations if one.rule != "counters"]
    names = {name for name in kit.key_names() if name.startswith("stream:")}
    assert bool(names) == (damage != "record")


def notes(kit: Kit, job_id: str) -> dict[str, bytes]:
    return kit.client.run(kept.notes(kit.queue, job_id))


def note(kit: Kit, job_id: str, **values: bytes) -> bool:
    return kit.client.run(kept.note(kit.queue, job_id, values))


def test_notes_are_kept_for_as_long_as_the_record(kit: Kit) -> None:
    """Whatever the job does: before, while and after it runs, and through a retry by hand; a stream beside them stays."""
    [job_id] = kit.add()
    assert note(kit, job_id, a=b"1", b=b"2") and note(kit, job_id, b=b"", c=b"3")
    kit.open("s1")
    claim = kit.claim("s1", 1)[0]
    assert put(kit, run_of(claim), 0, b"x") and note(kit, job_id, d=b"4")
    kit.settle("s1", [claim], ops.Kind.FAILED)
    kit.client.run(ops.retry(kit.queue, job_id))
    assert notes(kit, job_id) == {"a": b"1", "c": b"3", "d": b"4"} and stored(kit, job_id) == [(0, b"x")]
    kit.settle("s1", kit.claim("s1", 1))
    assert note(kit, job_id, e=b"5") and len(notes(kit, job_id)) == 4
    kit.client.run(ops.delete(kit.queue, job_id))
    assert notes(kit, job_id) == {} and not note(kit, job_id, a=b"1") and notes(kit, job_id) == {}


@pytest.mark.parametrize("how", ["dropped", "purged", "ended before"])
def test_notes_go_with_the_record(kit: Kit, how: str) -> None:
    """Of a job of which nothing is kept, one that is purged where it waits, and one that was noted after its end."""
    [job_id] = kit.add()
    kit.open("s1")
    if how != "ended before":
        note(kit, job_id, a=b"1")
    if how == "purged":
        assert kit.client.run(admin.purge(kit.queue, State.QUEUED)) == 1
    else:
        kit.settle("s1", kit.claim("s1", 1), ops.Kind.DROPPED if how == "dropped" else ops.Kind.SUCCEEDED)
    if how == "ended before":
        assert note(kit, job_id, a=b"1") and not kit.client.run(
            command("EXISTS", kit.queue.watched, key=kit.queue.watched, decode=int)
        )
        assert kit.client.run(admin.purge(kit.queue, State.SUCCEEDED)) == 1
    assert notes(kit, job_id) == {} and [] == kit.client.run(audit(kit.queue)).violations
    kit.add(job_id)
    assert notes(kit, job_id) == {}
