"""The audit finds each way in which a queue's data can be wrong, and nothing in a queue that is right; repair mends it."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest
from engine_kit import Kit, ids_of, make_due, record_bytes

from headrace import ServerCorrupt
from headrace.core.record import Stored
from headrace.core.schedule import Spec
from headrace.core.ties import Limit, Ties, Unique
from headrace.engine import audit as auditing
from headrace.engine import ops, schedules, seats
from headrace.engine.audit import audit, repair
from headrace.engine.call import command
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.seats import Seat, faults, home_of, seats_of

ONE_AT_ONCE = Ties(limits=(Limit("door", concurrency=1),))


@pytest.fixture
def kit(client: SyncClient) -> Kit:
    """A queue with a job in every place, and one that was cancelled there."""
    kit = Kit(client)
    kit.open("s")
    kit.add("done", "dead", "held")
    claims = kit.claim("s", 3)
    kit.settle("s", claims[:1])
    kit.settle("s", claims[1:2], ops.Kind.FAILED)
    kit.add("first", "cancelled", "second")
    kit.add("urgent", priority=9)
    kit.add("later", delay_ms=60_000)
    kit.open("lost")
    kit.client.run(ops.claim(kit.queues, "lost", 1, split=kit.split))
    kit.release("lost", "urgent", alone=False)
    kit.client.run(ops.cancel(kit.queue, "cancelled"))
    kit.client.run(ops.set_progress(kit.queue, ("s", ""), "held", b"\x90"))
    kit.client.run(schedules.add(kit.queue, "hourly", Spec(every_ms=3_600_000, task="kit.task", payload=b"\x91\x90")))
    kit.client.run(schedules.add(kit.queue, "paused", Spec(every_ms=3_600_000, task="kit.task", payload=b"\x91\x90")))
    kit.client.run(schedules.pause(kit.client.run(schedules.find("hr", "paused")), ""))
    return kit


def rules(kit: Kit) -> list[tuple[str, str]]:
    return sorted((found.rule, found.job_id) for found in kit.client.run(audit(kit.queue)).violations)


def send(kit: Kit, *words: str | bytes | int) -> Any:
    return kit.client.run(command(*words, key=kit.queue.jobs, decode=lambda reply: reply))


def test_a_sound_queue_has_no_violation(kit: Kit) -> None:
    """Also not for the entry of a cancelled job that no claim has met yet, and a repair changes nothing."""
    before = kit.client.run(audit(kit.queue))
    assert ([], 8) == (before.violations, before.jobs)
    assert before == kit.client.run(repair(kit.queue))


DAMAGES = [
    (("LREM", "ready", 0, "first"), [("place", "first")]),
    (("RPUSH", "ready", "first"), [("place", "first")]),
    (("RPUSH", "ready", "first", "first", "first"), [("place", "first")]),
    (("RPUSH", "ready", "held"), [("place", "held")]),
    (("RPUSH", "ready", "done"), [("place", "done")]),
    (("RPUSH", "ready", "ghost"), [("record", "ghost")]),
    (("RPUSH", "ready", "urgent"), [("place", "urgent")]),
    (("RPUSH", "ready", "cancelled"), [("beside", "cancelled"), ("place", "cancelled")]),
    (("RPUSH", "suspects", "ghost"), [("record", "ghost")]),
    (("RPUSH", "suspects", "second"), [("place", "second")]),
    (("LREM", "suspects", 0, "urgent"), [("place", "urgent")]),
    (("ZADD", "dead", 1, "done"), [("place", "done")]),
    (("ZADD", "dead", 1, "ghost"), [("record", "ghost")]),
    (("ZADD", "done", 1, "first"), [("place", "first")]),
    (("ZREM", "dead", "dead"), [("place", "dead")]),
    (("ZREM", "done", "cancelled"), [("place", "cancelled")]),
    (("ZREM", "delayed", "later"), [("place", "later")]),
    (("ZADD", "delayed", 1, "first"), [("place", "first")]),
    (("ZADD", "delayed", 1, "ghost"), [("record", "ghost")]),
    (("ZADD", "priority", 1, "first"), [("place", "first")]),
    (("ZREM", "sessions", "s"), [("place", "held"), ("session", "")]),
    (("ZADD", "sessions", 9_000_000_000_000, "s"), [("session", "")]),
    (("HDEL", "jobs", "held"), [("beside", "held"), ("beside", "held"), ("record", "held")]),
    (("HDEL", "jobs", "second"), [("record", "second")]),
    (("HSET", "crashes", "done", 1), [("beside", "done")]),
    (("HSET", "crashes", "second", 1), [("beside", "second")]),
    (("HDEL", "crashes", "urgent"), [("beside", "urgent")]),
    (("HSET", "progress", "gone", b"x"), [("beside", "gone")]),
    (("HSET", "watched", "gone", b"w:me"), [("beside", "gone")]),
    (("HDEL", "watched", "held"), [("beside", "held")]),
    (("SADD", "cancels", "held"), [("beside", "held")]),
    (("SADD", "cancels", "done"), [("beside", "done")]),
    (("SADD", "lingering", "first"), [("beside", "first")]),
    (("SREM", "lingering", "cancelled"), [("place", "cancelled")]),
    (("HSET", "unique", "key", "done"), [("unique", "done")]),
    (("HINCRBY", "stats", "enqueued", 1), [("counters", "")]),
    (("HDEL", "stats", "failed"), [("counters", "")]),
    (("HSET", "meta", "fence", "lost"), [("meta", "")]),
    (("ZREM", "schedules", "hourly"), [("schedule", "")]),
    (("ZADD", "schedules", 5, "hourly"), [("schedule", "")]),
    (("ZADD", "schedules", 5, "paused"), [("schedule", "")]),
    (("ZADD", "schedules", 5, "ghost"), [("schedule", "")]),
    (("HDEL", "schedule_specs", "hourly"), [("schedule", "")]),
    (("HDEL", "meta", "layout", "fence"), [("meta", ""), ("meta", "")]),
]


@pytest.mark.damages
def test_a_schedule_that_cannot_be_read_is_named_and_stops_no_other(kit: Kit) -> None:
    """Its queue's other schedules are fired; a person must remove it."""
    send(kit, "HSET", kit.queue.schedule_specs, "broken", b"\x01")
    send(kit, "ZADD", kit.queue.schedules, 5, "broken")
    make_due(kit.client, "hourly")
    fired, _ = kit.client.run(schedules.fire_due(kit.queue, {}))
    assert [("broken", 0), ("hourly", 1)] == [(one.name, len(one.ids)) for one in fired]
    assert "schedule 'broken' of queue 'default' cannot be read" in fired[0].problem
    with pytest.raises(ServerCorrupt, match="cannot be read"):
        kit.client.run(schedules.list_schedules("hr"))
    (found,) = kit.client.run(repair(kit.queue)).violations
    assert "has an entry that cannot be read: remove it from hr:{default}:schedule_specs" in found.message


@pytest.mark.parametrize(("words", "found"), DAMAGES, ids=[" ".join(map(str, words)) for words, _ in DAMAGES])
@pytest.mark.parametrize("size", ["small", "large"])
def test_each_kind_of_damage_is_found_and_mended(
    kit: Kit, words: tuple[Any, ...], found: list[tuple[str, str]], size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thing is made wrong; the audit names it and the job; after the repair there is nothing to find, and no job is lost."""
    if size == "large":
        monkeypatch.setattr(seats, "MOST_AT_ONCE", 2)
    name, key, *rest = words
    send(kit, name, getattr(kit.queue, key), *rest)
    assert found == rules(kit)
    assert [] == kit.client.run(repair(kit.queue)).violations
    assert found != rules(kit) == []
    missing = {words[2]} if words[:2] == ("HDEL", "jobs") else set()
    live = {"held", "first", "second", "urgent", "later"} - missing
    if "later" in live:
        send(kit, "ZADD", kit.queue.delayed, "XX", 1, "later")
    kit.open("heir")
    claimed: list[str] = []
    while claims := kit.claim("heir"):
        claimed += ids_of(claims)
    held_still = set() if words[:2] == ("ZREM", "sessions") else {"held"}
    assert sorted(claimed) == sorted(live - held_still)


def test_a_lost_priority_is_found_and_comes_back(kit: Kit) -> None:
    """A job of priority 9 stands among the plain ones, another one in the wrong level."""
    kit.add("high", "higher", priority=9)
    send(kit, "ZREM", kit.queue.priority, "high")
    send(kit, "RPUSH", kit.queue.ready, "high")
    send(kit, "ZADD", kit.queue.priority, 5, "higher")
    assert [("order", "high"), ("order", "higher")] == rules(kit)
    assert [] == kit.client.run(repair(kit.queue)).violations
    kit.claim("s", 1)
    assert ["high", "higher", "first"] == ids_of(kit.claim("s", 3))


@pytest.mark.damages
def test_a_record_that_cannot_be_read_is_told_and_left(kit: Kit) -> None:
    """A repair that cannot know what is right changes nothing of it."""
    send(kit, "HSET", kit.queue.jobs, "second", b"not a record")
    assert [("record", "second")] == rules(kit)
    assert ["record"] == [found.rule for found in kit.client.run(repair(kit.queue)).violations]
    assert b"not a record" == send(kit, "HGET", kit.queue.jobs, "second")


@pytest.mark.parametrize("session", ["s", "a worker's session"])
def test_a_job_that_two_sessions_hold_stays_with_one(kit: Kit, session: str) -> None:
    """With the one whose lease ends last; the other one's claim is dropped, and its settle is refused."""
    other = kit.open(session if session != "s" else "t", lease_ms=60_000)
    send(kit, "SADD", kit.queue.held(other), "held")
    assert [("place", "held")] == rules(kit)
    assert [] == kit.client.run(repair(kit.queue)).violations
    assert [b"held"] == list(send(kit, "SMEMBERS", kit.queue.held(other)))
    assert [] == list(send(kit, "SMEMBERS", kit.queue.held("s")))


@pytest.mark.parametrize("size", ["small", "large"])
def test_claims_that_would_not_look_at_a_limit_are_told_and_mended(
    client: SyncClient, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The word that makes them look is lost: the audit says so while a limit hangs on a job; a unique key needs no look."""
    if size == "large":
        monkeypatch.setattr(seats, "MOST_AT_ONCE", 1)
    kit = Kit(client)
    kit.open("s")
    for name, ties in (("key", Ties(unique=Unique())), ("one", ONE_AT_ONCE), ("two", ONE_AT_ONCE)):
        packed = ties.of("kit.task", {})
        kit.client.enqueue("default", [ops.NewJob(name, kit.record(ties=packed), ties=packed)])
        if name == "key":
            assert [] == rules(kit)
    send(kit, "HDEL", kit.queue.meta, "weighs")
    (found,) = kit.client.run(audit(kit.queue)).violations
    assert ("meta", True) == (
        found.rule,
        "as those of job one" in found.message or "as those of job two" in found.message,
    )
    assert [] == kit.client.run(repair(kit.queue)).violations
    claims = kit.claim("s")
    assert {"key", "one"} == set(ids_of(claims))
    kit.settle("s", claims)
    kit.settle("s", kit.claim("s"))
    assert [] == rules(kit)


def test_many_faults_are_mended_a_slice_at_a_time(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a report names: it says so, and one repair mends all."""
    monkeypatch.setattr(auditing, "MOST_REPORTED", 4)
    names = [f"job{n}" for n in range(10)]
    kit.add(*names)
    for name in names:
        send(kit, "LREM", kit.queue.ready, 0, name)
    report = kit.client.run(audit(kit.queue))
    assert (True, 4) == (report.truncated, len(report.violations))
    report = kit.client.run(repair(kit.queue))
    assert (False, []) == (report.truncated, report.violations)


def test_who_waits_for_a_job_that_is_gone_is_told(kit: Kit) -> None:
    """The repair drops its entry, and its waiter need not wait until its timeout."""
    kit.client.run(ops.watch(kit.queue, "first", "me"))
    send(kit, "HDEL", kit.queue.jobs, "first")
    kit.client.run(repair(kit.queue))
    assert b"" == kit.client.block(ops.wait_ring(kit.queue, "me", 5), 5)


def test_an_audit_changes_nothing(kit: Kit) -> None:
    """Twice the same, and every job is still there to be claimed."""
    assert rules(kit) == rules(kit) == []
    assert {"urgent"} == {claim.id for claim in kit.claim("s")}
    assert {"first", "second"} == {claim.id for claim in kit.claim("s")}


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_queue_that_moves_is_sound(url: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs come, run, fail, are tried again and end while the audit looks: it finds nothing, and a repair does nothing."""
    if size == "large":
        monkeypatch.setattr(seats, "MOST_AT_ONCE", 0)
    with (
        closing(SyncClient(ServerConfig(url), retry=False)) as looker,
        closing(SyncClient(ServerConfig(url), retry=False)) as client,
    ):
        kit = Kit(client)
        stop = threading.Event()
        mover = threading.Thread(target=_move, args=(kit, stop))
        mover.start()
        try:
            found = [
                violation
                for _ in range(40)
                for violation in (*looker.run(audit(kit.queue)).violations, *looker.run(repair(kit.queue)).violations)
            ]
        finally:
            stop.set()
            mover.join()
        assert [] == found
        assert not looker.run(command("HEXISTS", kit.queue.stats, "mended", key=kit.queue.stats, decode=bool))


def _move(kit: Kit, stop: threading.Event) -> None:
    kinds = [ops.Kind.SUCCEEDED, ops.Kind.FAILED, ops.Kind.RETRY, ops.Kind.DROPPED, ops.Kind.PARK]
    turn = 0
    while not stop.is_set():
        turn += 1
        session = kit.open(f"s{turn % 3}")
        names = kit.add(*(f"job{turn}-{n}" for n in range(4)), priority=turn % 3)
        kit.client.run(ops.cancel(kit.queue, names[1]))
        claims = kit.claim(session, 6)
        for claim in claims[:1]:
            kit.client.run(ops.set_progress(kit.queue, (session, ""), claim.id, b"\x90"))
            kit.client.run(ops.save_state(kit.queue, (session, ""), claim.id, claim.fence, b"\x90"))
        for n, claim in enumerate(claims[:5]):
            kit.settle(session, [claim], kinds[n], ms=1 if n % 2 else 0)
        if turn % 5 == 0:
            kit.release(session, *ids_of(claims[5:]), alone=False)
        kit.client.run(ops.tend(kit.queue, sweep=False))


def test_where_a_job_belongs() -> None:
    """Who holds it keeps it; a suspect stays one; sooner goes before later; what stands nowhere goes back."""
    seat = Seat
    live = int(Stored.LIVE)
    assert ("held", "b") == home_of(seat(state=live, ready=1, delayed=True, holders=("a", "b"), crashes=True))
    assert ("suspects", "") == home_of(seat(state=live, ready=2, crashes=True))
    assert ("ready", "") == home_of(seat(state=live, ready=1, delayed=True))
    assert ("priority", "") == home_of(seat(state=live, priority=3))
    assert ("delayed", "") == home_of(seat(state=live, delayed=True, crashes=True))
    assert ("dead", 30 * seats.DAY_MS) == home_of(seat(state=int(Stored.FAILED), done=True))
    assert ("none", "") == home_of(seat(done=True))
    assert home_of(seat(state=seats.UNREADABLE)) is None
    assert [] == faults(seat())


@pytest.mark.damages
def test_a_job_that_moved_since_the_look_is_left_alone(kit: Kit) -> None:
    """The script that mends compares: here a worker takes the job in between."""
    send(kit, "RPUSH", kit.queue.ready, "second")
    looked = kit.client.run(seats_of(kit.queue, ["second"]))["second"][1]
    kit.claim("s", 1)
    kit.client.run(ops.claim(kit.queues, "s", 2, split=kit.split))
    mend = seats.admin_call("admin_mend", kit.queue, ("second", looked, "ready", ""))
    assert 0 == kit.client.run(mend)
    assert record_bytes()[:3] == send(kit, "HGET", kit.queue.jobs, "second")[:3]
