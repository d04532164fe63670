"""What each script promises, on every server that headrace supports."""

from __future__ import annotations

import time
from typing import Any

import pytest
from engine_kit import Kit, ids_of, record_bytes

from headrace.core.record import Stored, decode
from headrace.engine import admin, ops
from headrace.engine.call import command
from headrace.engine.clients import SyncClient
from headrace.errors import JobExists, JobNotFound, LayoutTooNew, ServerCorrupt, SessionGone


@pytest.fixture
def kit(client: SyncClient) -> Kit:
    return Kit(client)


def do(kit: Kit, *words: Any) -> Any:
    """One plain command on the queue's node."""
    return kit.client.run(command(*words, key=words[1], decode=lambda reply: reply))


def test_jobs_are_claimed_in_the_order_they_came(kit: Kit) -> None:
    """First in, first out."""
    kit.add("a", "b", "c")
    assert ["a", "b", "c"] == ids_of(kit.claim(kit.open("s")))


def test_priority_then_front_then_arrival_decide_the_order(kit: Kit) -> None:
    """Higher priority first; within a level by arrival; at_front before the rest; negative ones last."""
    kit.add("low", priority=-100)
    kit.add("plain1", "plain2")
    kit.add("front", at_front=True)
    kit.add("high1", "high2", priority=9)
    kit.add("top", priority=100)
    assert ["top", "high1", "high2", "front", "plain1", "plain2", "low"] == ids_of(kit.claim(kit.open("s")))


def test_a_call_sent_twice_enqueues_once(kit: Kit) -> None:
    """The reply of an enqueue was lost: sending it again changes nothing, also when the job has ended and is gone."""
    call = ops.enqueue(kit.queue, [ops.NewJob("a", record_bytes())], "producer", 1)
    kit.client.run(call)
    kit.client.run(call)
    session = kit.open("s")
    claims = kit.claim(session)
    assert ["a"] == ids_of(claims)
    kit.settle(session, claims, ops.Kind.DROPPED)
    kit.client.run(call)
    assert [] == kit.claim(session)
    assert "none" == kit.state("a")


def test_a_taken_id_refuses_the_whole_call(kit: Kit) -> None:
    """All jobs of a call are written, or none."""
    kit.add("a")
    with pytest.raises(JobExists, match="job_id a is taken") as caught:
        kit.add("b", "a")
    assert "a" == caught.value.job_id
    assert "none" == kit.state("b")


def test_a_delayed_job_waits_and_then_comes(kit: Kit) -> None:
    """It is scheduled until the server's clock says so; the claim tells how long that is."""
    kit.add("later", delay_ms=60)
    session = kit.open("s")
    first = kit.claimed(session)
    assert [] == first.claims
    assert first.next_due_ms is not None and 0 < first.next_due_ms <= 60
    assert "scheduled" == kit.state("later")
    due = do(kit, "ZSCORE", kit.queue.delayed, "later")
    do(kit, "ZADD", kit.queue.delayed, float(due) - 60, "later")
    assert ["later"] == ids_of(kit.claim(session))


def test_a_due_job_leaves_those_that_are_not_due(kit: Kit) -> None:
    kit.add("later", delay_ms=60_000)
    kit.add("soon", delay_ms=60_000)
    do(kit, "ZADD", kit.queue.delayed, 1, "soon")
    assert ["soon"] == ids_of(kit.claim(kit.open("s")))
    assert "scheduled" == kit.state("later")


def test_what_was_kept_too_long_goes_at_once_whatever_may_be_kept(kit: Kit) -> None:
    """Three have ended, two of them too long ago, and two may be kept: both go together."""
    kit.add("a", "b", "c")
    session = kit.open("s")
    kit.settle(session, kit.claim(session))
    for name in "ab":
        do(kit, "ZADD", kit.queue.done, 1, name)
    assert 2 == kit.client.run(ops.tend(kit.queue, sweep=False, done_max=2)).trimmed
    assert ["none", "none", "succeeded"] == [kit.state(name) for name in "abc"]


def test_a_paused_queue_gives_nothing(kit: Kit) -> None:
    kit.add("a")
    do(kit, "HSET", kit.queue.meta, "paused", "deploy")
    session = kit.open("s")
    assert [] == kit.claim(session)
    do(kit, "HDEL", kit.queue.meta, "paused")
    assert ["a"] == ids_of(kit.claim(session))


def test_seconds_to_expire_are_counted_by_the_servers_clock(kit: Kit) -> None:
    """A producer whose clock is an hour off gives its jobs the time it said."""
    now_ms = int(time.time() * 1000)
    kit.add("behind", expires_at_ms=now_ms - 3_600_000, expires_in_ms=60_000)
    kit.add("ahead", expires_at_ms=now_ms + 3_600_000, expires_in_ms=1)
    before = decode(kit.look("ahead").record).expires_at_ms  # type: ignore[union-attr]
    assert abs(before - now_ms) < 30_000
    while time.time() * 1000 <= before + 1:
        continue
    assert ["behind"] == ids_of(kit.claim(kit.open("s")))
    assert ("running", "expired") == (kit.state("behind"), kit.state("ahead"))


def test_an_id_used_again_runs_once_though_its_old_entry_waits(kit: Kit) -> None:
    """Cancelled in a paused queue, trimmed a day later, then a new job takes the id."""
    kit.add("a", "b")
    kit.client.run(ops.cancel(kit.queue, "a"))
    kit.client.run(command("ZADD", kit.queue.done, 1, "a", key=kit.queue.done, decode=int))
    kit.client.run(ops.tend(kit.queue, sweep=False))
    assert "none" == kit.state("a")
    kit.add("a")
    assert ["b", "a"] == ids_of(kit.claim(kit.open("s")))


def test_an_expired_job_never_runs(kit: Kit) -> None:
    kit.add("old", expires_at_ms=int(time.time() * 1000) - 1)
    assert [] == kit.claim(kit.open("s"))
    assert "expired" == kit.state("old")


def test_a_claim_looks_past_cancelled_jobs(kit: Kit) -> None:
    """Their entries are dropped by the claim that meets them."""
    names = [f"job{n}" for n in range(40)]
    kit.add(*names)
    for name in names[:39]:
        assert "cancelled" == kit.client.run(ops.cancel(kit.queue, name))
    session = kit.open("s")
    found: list[ops.Claim] = []
    claimed = kit.claimed(session)
    found += claimed.claims
    while claimed.more and not found:
        claimed = kit.claimed(session)
        found += claimed.claims
    assert ["job39"] == ids_of(found)


def test_settle_stores_and_claims_the_next_in_one_call(kit: Kit) -> None:
    kit.add("a", "b")
    session = kit.open("s")
    settled = kit.settle(session, kit.claim(session, 1), want=1)
    assert ["b"] == ids_of(settled.claimed.claims)
    assert "succeeded" == kit.state("a")
    assert "running" == kit.state("b")


def test_fences_grow_with_every_claim(kit: Kit) -> None:
    session = kit.open("s")
    fences = []
    for name in ("a", "b", "c"):
        kit.add(name)
        fences.append(kit.claim(session)[0].fence)
    assert sorted(set(fences)) == fences


def test_fences_grow_when_the_clock_stands_behind_the_last_one(kit: Kit) -> None:
    """After a failover to a server with an earlier clock, the last fence still counts."""
    future = 9_000_000_000_000_000
    do(kit, "HSET", kit.queue.meta, "fence", str(future))
    kit.add("a")
    assert future + 1 == kit.claim(kit.open("s"))[0].fence


def test_a_session_that_ended_can_write_nothing(kit: Kit) -> None:
    """Its claim, settle and give-back are refused, and the job stays with its new holder."""
    kit.add("a")
    zombie = kit.open("zombie")
    claims = kit.claim(zombie)
    kit.release(zombie)
    heir = kit.open("heir")
    assert ["a"] == ids_of(kit.claim(heir))
    for attempt in (
        lambda: kit.claim(zombie),
        lambda: kit.settle(zombie, claims),
        lambda: kit.client.run(ops.give_back(kit.queues, zombie, [("default", "a")], split=kit.split)),
    ):
        with pytest.raises(SessionGone):
            attempt()
    assert "running" == kit.state("a")


def test_a_job_taken_back_meanwhile_is_reported_lost_and_left_alone(kit: Kit) -> None:
    kit.add("a", "b")
    session = kit.open("s")
    claims = kit.claim(session)
    kit.client.run(ops.give_back(kit.queues, session, [("default", "b")], split=kit.split))
    assert ["b"] == kit.settle(session, claims).lost
    assert ("succeeded", "queued") == (kit.state("a"), kit.state("b"))


def test_what_is_given_back_comes_first_in_its_order(kit: Kit) -> None:
    kit.add("a", "b", "c", "d")
    session = kit.open("s")
    kit.claim(session, 3)
    given = kit.client.run(ops.give_back(kit.queues, session, [("default", "b"), ("default", "c")], split=kit.split))
    assert ["b", "c"] == given
    assert ["b", "c", "d"] == ids_of(kit.claim(session))


def test_adopt_hands_over_all_that_the_old_session_held(kit: Kit) -> None:
    """Also a claim whose reply was lost; and the old session's calls still under way are refused."""
    kit.add("a", "b")
    old = kit.open("old")
    kit.claim(old)
    adopted = kit.client.run(ops.adopt(kit.queues, old, "new", 10_000, split=kit.split))
    assert ["a", "b"] == ids_of(adopted)
    with pytest.raises(SessionGone):
        kit.claim(old)
    kit.settle("new", adopted)
    assert ("succeeded", "succeeded") == (kit.state("a"), kit.state("b"))


def test_a_third_death_alone_fails_the_job_with_its_reason(kit: Kit) -> None:
    """Each time it is claimed alone, before others; then it is dead and says why."""
    kit.add("poison", "good")
    for n in (1, 2):
        session = kit.open(f"s{n}")
        assert ["poison"] == ids_of(kit.claim(session, 1))
        assert ["poison"] == kit.release(session, "poison").suspects
    session = kit.open("s3")
    claims = kit.claim(session, 10)
    assert ["poison"] == ids_of(claims) and claims[0].is_suspect
    assert ["poison"] == kit.release(session, "poison", reason="killed by SIGSEGV").failed
    look = kit.look("poison")
    assert look is not None and "failed" == look.state
    assert "killed by SIGSEGV" == decode(look.record).reason
    assert ["good"] == ids_of(kit.claim(kit.open("s4")))


def test_neighbours_of_a_poison_job_go_back_uncharged(kit: Kit) -> None:
    kit.add("a", "b", "c")
    session = kit.open("s")
    kit.claim(session)
    released = kit.release(session, "b", alone=False)
    assert (["b"], 2) == (released.suspects, released.returned)
    other = kit.open("t")
    assert ["b"] == ids_of(kit.claim(other))
    look = kit.look("b")
    assert look is not None and 0 == look.crashes
    assert ["a", "c"] == ids_of(kit.claim(other))


def test_suspects_wait_for_who_can_take_them_alone(kit: Kit) -> None:
    kit.add("a")
    session = kit.open("s")
    kit.claim(session)
    kit.release(session, "a", alone=False)
    busy = kit.open("busy")
    claimed = kit.claimed(busy, take_suspects=False)
    assert ([], True) == (claimed.claims, claimed.suspects_waiting)
    assert ["a"] == ids_of(kit.claim(busy))


def test_a_lease_that_ended_is_swept(kit: Kit) -> None:
    """All a lost machine held comes back, to be tried alone, uncharged."""
    kit.add("a", "b")
    lost = kit.open("lost", lease_ms=0)
    kit.claim(lost)
    assert [] == kit.client.run(ops.tend(kit.queue, sweep=False)).swept_sessions
    tended = kit.client.run(ops.tend(kit.queue, sweep=True))
    assert (["lost"], ["a", "b"]) == (tended.swept_sessions, sorted(tended.swept_jobs))
    with pytest.raises(SessionGone):
        kit.claim(lost)
    heir = kit.open("heir")
    assert ["a"] == ids_of(kit.claim(heir))
    assert ["b"] == ids_of(kit.claim(heir))


def test_a_sweep_that_comes_too_late_takes_nobody(kit: Kit) -> None:
    """By the server's clock, which jumped, or stood still with the call in its socket, it is later than the caller thinks."""
    living = kit.open("living", lease_ms=0)
    told_ms = kit.client.run(ops.tend(kit.queue, sweep=False)).server_ms
    assert [] == kit.client.run(ops.tend(kit.queue, sweep=True, until_ms=told_ms - 1)).swept_sessions
    assert [living] == kit.client.run(ops.tend(kit.queue, sweep=True, until_ms=told_ms + 60_000)).swept_sessions


def test_a_clock_that_was_put_back_keeps_no_dead_session(kit: Kit) -> None:
    """Its lease seems to end in an hour: no lease lasts longer than the longest that was ever asked for."""
    kit.add("a")
    dead = kit.open("dead", lease_ms=5_000)
    kit.claim(dead)
    now_ms = kit.client.run(ops.tend(kit.queue, sweep=False)).server_ms
    key = kit.queue.sessions
    kit.client.run(command("ZADD", key, now_ms + 3_600_000, dead, key=key, decode=int))
    kit.client.run(ops.tend(kit.queue, sweep=False))
    ends_ms = kit.client.run(command("ZSCORE", key, dead, key=key, decode=float))
    assert now_ms + 5_000 <= ends_ms <= now_ms + 60_000


def test_renew_never_brings_a_session_back(kit: Kit) -> None:
    kit.open("here")
    renewed = kit.client.run(ops.renew(kit.queues, ["here", "gone"], 10_000, split=kit.split))
    assert {"gone"} == set(renewed.gone)
    with pytest.raises(SessionGone):
        kit.claim("gone")


def test_a_running_job_is_asked_to_stop_and_its_worker_is_told(kit: Kit) -> None:
    kit.add("a")
    session = kit.open("s")
    claims = kit.claim(session)
    assert "asked" == kit.client.run(ops.cancel(kit.queue, "a"))
    renewed = kit.client.run(ops.renew(kit.queues, [session], 10_000, split=kit.split))
    assert [("default", "a")] == renewed.cancels
    kit.settle(session, claims, ops.Kind.RETRY, ms=0)
    assert "cancelled" == kit.state("a"), "a job asked to stop is never retried"
    renewed = kit.client.run(ops.renew(kit.queues, [session], 10_000, split=kit.split))
    assert [] == renewed.cancels


@pytest.mark.parametrize("options", [{}, {"delay_ms": 60_000}, {"priority": 5}])
def test_a_cancelled_job_never_runs(kit: Kit, options: dict[str, int]) -> None:
    kit.add("a", **options)
    assert "cancelled" == kit.client.run(ops.cancel(kit.queue, "a"))
    assert "ended" == kit.client.run(ops.cancel(kit.queue, "a"))
    assert [] == kit.claim(kit.open("s"))
    assert "cancelled" == kit.state("a")


def test_a_cancelled_job_that_is_retried_runs_once(kit: Kit) -> None:
    """Its old entry was still in the queue when it came back."""
    kit.add("a")
    kit.client.run(ops.cancel(kit.queue, "a"))
    assert "queued" == kit.client.run(ops.retry(kit.queue, "a"))
    assert ["a"] == ids_of(kit.claim(kit.open("s")))


@pytest.mark.parametrize("forget", ["purge", "trim"])
def test_an_id_whose_cancelled_job_is_forgotten_runs_once_when_it_is_used_again(kit: Kit, forget: str) -> None:
    """The old entry still stood in the ready list when the record went."""
    kit.add("a")
    kit.client.run(ops.cancel(kit.queue, "a"))
    if forget == "purge":
        assert 1 == kit.client.run(admin.purge_jobs(kit.queue, "done", ["a"]))
    else:
        do(kit, "ZADD", kit.queue.done, 1, "a")
        assert 1 == kit.client.run(ops.tend(kit.queue, sweep=False)).trimmed
    kit.add("a")
    assert ["a"] == ids_of(kit.claim(kit.open("s"), 1))
    assert [] == kit.claim(kit.open("t"))


def test_an_id_given_twice_in_one_call_is_refused(kit: Kit) -> None:
    """Two callers of one turn of an event loop go out together: one id must not become two entries."""
    with pytest.raises(JobExists):
        kit.add("a", "a")
    assert "none" == kit.state("a")


def test_a_suspect_that_is_cancelled_is_a_suspect_no_more(kit: Kit) -> None:
    """Its worker ended without blame while the job was asked to stop."""
    kit.add("a")
    kit.claim(kit.open("s"))
    kit.release("s", "a", alone=False)
    kit.claim(kit.open("t"))
    assert "asked" == kit.client.run(ops.cancel(kit.queue, "a"))
    kit.release("t")
    assert "cancelled" == kit.state("a")
    assert 0 == do(kit, "HLEN", kit.queue.crashes)


def test_a_job_that_was_stopped_keeps_the_first_reason(kit: Kit) -> None:
    """Whoever claimed it next was stopped too, or died three times: its record can still be read."""
    kit.add("a", "b")
    for n in range(2):
        for job_id in ("a", "b"):
            kit.claim(kit.open(f"s{n}{job_id}"), 1)
        for job_id in ("b", "a"):
            ended = ops.release(
                kit.queues,
                f"s{n}{job_id}",
                blamed=[job_id],
                alone=True,
                reason=f"stop {n}",
                stopped=True,
                split=kit.split,
            )
            kit.client.run(ended)
    for n in range(3):
        kit.claim(kit.open(f"t{n}"), 1)
        kit.release(f"t{n}", "a")
    found = {job_id: kit.look(job_id) for job_id in ("a", "b")}
    told = {job_id: (str(look.state), decode(look.record).reason) for job_id, look in found.items() if look}
    assert {"a": ("failed", "stop 0"), "b": ("queued", "stop 0")} == told


def test_a_failed_job_can_be_retried_and_a_live_one_not(kit: Kit) -> None:
    kit.add("a")
    session = kit.open("s")
    assert "live" == kit.client.run(ops.retry(kit.queue, "a"))
    kit.settle(session, kit.claim(session), ops.Kind.FAILED)
    assert "failed" == kit.state("a")
    assert "queued" == kit.client.run(ops.retry(kit.queue, "a"))
    assert ["a"] == ids_of(kit.claim(session))
    with pytest.raises(JobNotFound):
        kit.client.run(ops.retry(kit.queue, "nothing"))


def test_a_job_that_waits_for_its_time_runs_now_when_told_to(kit: Kit) -> None:
    """Scheduled or retrying, by priority or plain: first of its level. One that runs, waits or has ended is left alone."""
    session = kit.open("s")
    kit.add("fails")
    kit.settle(session, kit.claim(session), ops.Kind.RETRY, ms=60_000)
    kit.add("ready")
    kit.add("later", delay_ms=60_000)
    kit.add("high", delay_ms=60_000, priority=5)
    for name in ("later", "fails", "high"):
        assert "queued" == kit.client.run(ops.run_now(kit.queue, name))
    assert "live" == kit.client.run(ops.run_now(kit.queue, "ready"))
    claims = kit.claim(session)
    assert ["high", "fails", "later", "ready"] == ids_of(claims)
    assert "live" == kit.client.run(ops.run_now(kit.queue, "high"))
    kit.settle(session, claims)
    assert "ended" == kit.client.run(ops.run_now(kit.queue, "high"))
    with pytest.raises(JobNotFound):
        kit.client.run(ops.run_now(kit.queue, "nothing"))


def test_delete_removes_a_job_anywhere_but_not_a_running_one(kit: Kit) -> None:
    kit.add("ready")
    kit.add("delayed", delay_ms=60_000)
    kit.add("high", priority=1)
    for name in ("ready", "delayed", "high"):
        assert "deleted" == kit.client.run(ops.delete(kit.queue, name))
        assert "none" == kit.state(name)
    kit.add("a")
    session = kit.open("s")
    claims = kit.claim(session)
    assert ["a"] == ids_of(claims)
    assert "running" == kit.client.run(ops.delete(kit.queue, "a"))
    kit.settle(session, claims)
    assert "deleted" == kit.client.run(ops.delete(kit.queue, "a"))


def test_who_waits_for_a_job_gets_its_record_at_its_end(kit: Kit) -> None:
    """Also when nothing of the job is kept."""
    kit.add("a")
    session = kit.open("s")
    assert kit.client.run(ops.watch(kit.queue, "a", "w1")) is None
    assert kit.client.run(ops.watch(kit.queue, "a", "w2")) is None
    claims = kit.claim(session)
    record = claims[0].record.replace(b"\x01\x03", b"\x01\x06", 1)
    outcome = ops.Settlement("default", "a", ops.Kind.DROPPED, record)
    kit.client.run(ops.settle(kit.queues, session, [outcome], split=kit.split))
    for waiter in ("w1", "w2"):
        assert record == kit.client.block(ops.wait_ring(kit.queue, waiter, 5), 5)
    with pytest.raises(JobNotFound):
        kit.client.run(ops.watch(kit.queue, "a", "w3"))


def test_what_has_ended_is_kept_no_longer_than_asked(kit: Kit) -> None:
    kit.add("a", "b", "c")
    session = kit.open("s")
    claims = kit.claim(session)
    kit.settle(session, claims[:1], ms=0)
    kit.settle(session, claims[1:])
    kit.client.run(ops.tend(kit.queue, sweep=False))
    assert ["none", "succeeded", "succeeded"] == [kit.state(name) for name in "abc"]
    kit.client.run(ops.tend(kit.queue, sweep=False, done_max=1))
    assert 1 == [kit.state(name) for name in "bc"].count("succeeded")


@pytest.mark.damages
def test_a_queue_written_by_a_newer_headrace_is_left_alone(kit: Kit) -> None:
    kit.add("b", "c")
    kit.settle(kit.open("before"), kit.claim("before", 1))
    do(kit, "HSET", kit.queue.meta, "layout", "99")
    for change in (ops.cancel(kit.queue, "c"), ops.delete(kit.queue, "c"), ops.retry(kit.queue, "b")):
        with pytest.raises(LayoutTooNew):
            kit.client.run(change)
    with pytest.raises(LayoutTooNew, match=r"layout 99.*upgrade"):
        kit.add("a")
    with pytest.raises(LayoutTooNew):
        kit.open("s")
    assert "none" == kit.state("a")


def test_a_record_of_a_newer_layout_waits_for_a_newer_worker(kit: Kit) -> None:
    kit.client.enqueue("default", [ops.NewJob("new", record_bytes(layout=2))])
    claimed = kit.claimed(kit.open("s"))
    assert [] == claimed.claims
    assert "scheduled" == kit.state("new")


@pytest.mark.damages
def test_a_foreign_key_under_our_prefix_is_named_as_such(kit: Kit) -> None:
    do(kit, "SET", kit.queue.ready, "mine")
    with pytest.raises(ServerCorrupt, match="holds something else"):
        kit.add("a")


def test_flushed_scripts_are_sent_again(kit: Kit) -> None:
    kit.add("a")
    do(kit, "SCRIPT", "FLUSH")
    assert ["a"] == ids_of(kit.claim(kit.open("s")))


def test_nothing_is_left_after_a_drain(kit: Kit) -> None:
    """Every key but the queue's own few is gone."""
    kit.add(*[f"job{n}" for n in range(50)])
    kit.add("high", priority=3)
    kit.add("later", delay_ms=1, at_front=True)
    kit.add("never")
    kit.client.run(ops.cancel(kit.queue, "never"))
    kit.client.run(ops.delete(kit.queue, "never"))
    session = kit.open("s")
    settled = kit.settle(session, [], want=100)
    kit.client.run(ops.set_progress(kit.queue, ("s", ""), "job1", b"\x90"))
    kit.client.run(ops.save_state(kit.queue, ("s", ""), "job1", 1, b"\x90"))
    while settled.claimed.claims or settled.claimed.next_due_ms is not None:
        settled = kit.settle(session, settled.claimed.claims, ops.Kind.DROPPED, want=100)
    kit.release(session)
    base = kit.queue.base.encode()
    left = {key for key in _all_keys(kit) if key.startswith(base)}
    assert left <= {kit.queue.meta, kit.queue.stats, kit.queue.producers, kit.queue.wake}


def _all_keys(kit: Kit) -> list[bytes]:
    """Every key on the queue's node."""
    return kit.client.run(
        command("SCAN", "0", "COUNT", 10_000, key=kit.queue.meta, decode=lambda reply: list(reply[1]))
    )


def test_two_queues_are_claimed_in_the_order_given(client: SyncClient) -> None:
    """Strict order: nothing of the second while the first has work; one call on one server."""
    both = Kit(client, "high", "low")
    both.client.enqueue("low", [ops.NewJob("l1", record_bytes())])
    both.client.enqueue("high", [ops.NewJob("h1", record_bytes()), ops.NewJob("h2", record_bytes())])
    session = both.open("s")
    assert ["h1", "h2", "l1"] == ids_of(both.claim(session))
    assert (
        Stored.LIVE
        == decode(both.client.run(command("HGET", both.queue.jobs, "h1", key=both.queue.jobs, decode=bytes))).state
    )


def test_two_queues_give_no_more_than_was_wanted(client: SyncClient) -> None:
    """What the first gave counts when the second is asked."""
    both = Kit(client, "high", "low")
    for name in ("high", "low"):
        both.client.enqueue(name, [ops.NewJob(f"{name}{n}", record_bytes()) for n in range(3)])
    session = both.open("s")
    assert ["high0", "high1", "high2", "low0"] == ids_of(both.claim(session, 4))
    assert ["low1"] == ids_of(both.claim(session, 1))


@pytest.mark.parametrize("suspect", ["high", "low"])
def test_a_suspect_of_one_queue_is_claimed_without_jobs_of_the_other(client: SyncClient, suspect: str) -> None:
    """It may take its worker with it, and nothing else."""
    both = Kit(client, "high", "low")
    other = "low" if suspect == "high" else "high"
    both.client.enqueue(suspect, [ops.NewJob("poison", record_bytes())])
    both.claim(both.open("lost"))
    both.release("lost", "poison", alone=False)
    both.client.enqueue(other, [ops.NewJob("good", record_bytes())])
    session = both.open("s")
    first = both.claim(session)
    assert [("poison", True)] == [(claim.id, claim.is_suspect) for claim in first] or ["good"] == ids_of(first)
    rest = both.claim(session)
    assert ["good", "poison"] == sorted(ids_of(first + rest))


def test_a_session_opened_meanwhile_is_not_overlooked(kit: Kit) -> None:
    """Cancel and delete read the sessions first; one that claims the job before the script runs is looked at, too."""
    kit.add("a", "b")
    for operation, answer in ((ops.cancel, "asked"), (ops.delete, "running")):
        job_id = "a" if operation is ops.cancel else "b"
        steps = operation(kit.queue, job_id)
        ask_for_sessions = steps.send(kit.client.run(next(steps)))
        sessions = kit.client.run(ask_for_sessions)
        assert [job_id] == ids_of(kit.claim(kit.open(f"holder of {job_id}"), 1))
        assert answer == _finished(kit, steps, sessions)


def test_a_job_that_ends_while_it_is_being_cancelled_keeps_its_end(kit: Kit) -> None:
    """It lived when the operator looked; the script finds that it has succeeded."""
    kit.add("a")
    session = kit.open("s")
    claims = kit.claim(session)
    steps = ops.cancel(kit.queue, "a")
    old = kit.client.run(next(steps))
    kit.settle(session, claims)
    assert "ended" == _finished(kit, steps, old)
    assert "succeeded" == kit.state("a")


def test_a_job_that_is_retried_twice_at_once_comes_back_once(kit: Kit) -> None:
    """Two operators read the same ended record; the second finds that it came back."""
    kit.add("a")
    session = kit.open("s")
    kit.settle(session, kit.claim(session), ops.Kind.FAILED)
    steps = ops.retry(kit.queue, "a")
    old = kit.client.run(next(steps))
    assert "queued" == kit.client.run(ops.retry(kit.queue, "a"))
    assert "queued" == _finished(kit, steps, old)
    assert ["a"] == ids_of(kit.claim(session))
    assert [] == kit.claim(kit.open("t"))


def test_a_claim_past_cancelled_jobs_gives_no_more_than_was_wanted(kit: Kit) -> None:
    """What the first look found counts when it looks again."""
    kit.add("a", "b", "c", "d", "e")
    kit.client.run(ops.cancel(kit.queue, "a"))
    session = kit.open("s")
    assert ["b", "c"] == ids_of(kit.claim(session, 2))
    assert ["d", "e"] == ids_of(kit.claim(session, 2))


def test_a_claim_of_urgent_and_plain_jobs_gives_no_more_than_was_wanted(kit: Kit) -> None:
    """What the urgent ones take of it, the plain ones do not get."""
    kit.add("plain1", "plain2", "plain3")
    kit.add("urgent", priority=5)
    session = kit.open("s")
    assert ["urgent", "plain1"] == ids_of(kit.claim(session, 2))
    assert ["plain2", "plain3"] == ids_of(kit.claim(session, 2))


def test_a_released_suspect_is_the_next_again(kit: Kit) -> None:
    """It goes before the suspects that came after it."""
    kit.add("a", "b")
    kit.claim(kit.open("lost"))
    kit.release("lost", "a", "b", alone=False)
    session = kit.open("s")
    claims = kit.claim(session)
    assert ["a"] == ids_of(claims)
    kit.settle(session, claims, ops.Kind.RELEASE)
    assert ["a"] == ids_of(kit.claim(session))


def test_a_suspect_that_was_not_held_alone_is_not_charged_for_a_lost_machine(kit: Kit) -> None:
    """Its session was adopted by one that held another job, and then its lease ended."""
    kit.add("a", "b")
    kit.claim(kit.open("dead"), 1)
    kit.release("dead", "a", alone=False)
    lost = kit.open("lost", lease_ms=0)
    assert ["a"] == ids_of(kit.claim(kit.open("s")))
    assert ["b"] == ids_of(kit.claim(lost))
    kit.client.run(ops.adopt(kit.queues, "s", lost, 0, split=kit.split))
    assert ["a", "b"] == sorted(kit.client.run(ops.tend(kit.queue, sweep=True)).swept_jobs)
    look = kit.look("a")
    assert look is not None and 0 == look.crashes


def test_a_purged_suspect_leaves_nothing(kit: Kit) -> None:
    """Its crash count goes with it."""
    kit.add("a")
    kit.claim(kit.open("lost"))
    kit.release("lost", "a", alone=False)
    assert 1 == kit.client.run(admin.purge_queued(kit.queue))
    assert 0 == do(kit, "HLEN", kit.queue.crashes)


def _finished(kit: Kit, steps: ops.Steps[str], reply: Any) -> str:
    """The result of an operation whose last call has been answered with `reply`."""
    try:
        while True:
            reply = kit.client.run(steps.send(reply))
    except StopIteration as stop:
        return str(stop.value)
