"""Checkpoints of jobs: kept while the job may run again, given to its next run, gone with its end."""

from __future__ import annotations

import pytest
from engine_kit import Kit

from headrace.engine import ops
from headrace.engine.audit import audit
from headrace.engine.call import command
from headrace.engine.clients import SyncClient


@pytest.fixture
def kit(client: SyncClient) -> Kit:
    return Kit(client)


def keep(kit: Kit, session: str, job_id: str, state: bytes = b"\x07", *, older: str = "", fence: int = 1) -> bool:
    return kit.client.run(ops.save_state(kit.queue, (older or session, session), job_id, fence, state))


def kept(kit: Kit, job_id: str) -> bytes | None:
    return kit.client.run(ops.saved_state(kit.queue, job_id))


def ttl_ms(kit: Kit, job_id: str) -> int:
    key = kit.queue.saved(job_id)
    return kit.client.run(command("PTTL", key, key=key, decode=int))


def claimed(kit: Kit, session: str) -> set[str]:
    """The ids that this claim is told to have checkpoints."""
    settled = kit.settle(session, [], want=10)
    assert settled.claimed.claims
    return settled.claimed.with_saved or set()


def no_faults(kit: Kit) -> bool:
    return [] == kit.client.run(audit(kit.queue)).violations


def test_the_next_run_is_told_of_it_and_none_before(kit: Kit) -> None:
    """After a retry, a release, a worker's death; the last one saved counts."""
    first, other = kit.open("a"), kit.open("b")
    kit.add("job")
    assert set() == claimed(kit, first)
    assert keep(kit, first, "job", b"\x01") and keep(kit, first, "job", b"\x02")
    kit.client.run(ops.give_back([kit.queue], first, [(kit.queue.name, "job")], split=kit.split))
    assert {"job"} == claimed(kit, other)
    assert b"\x02" == kept(kit, "job")
    kit.release(other)
    assert {"job"} == claimed(kit, first)
    assert no_faults(kit)


def test_who_holds_the_job_no_more_saves_nothing(kit: Kit) -> None:
    """Nor for a job that never was, or has ended."""
    first, other = kit.open("a"), kit.open("b")
    kit.add("job")
    kit.claim(first, 1)
    assert not keep(kit, other, "job")
    kit.client.run(ops.give_back([kit.queue], first, [(kit.queue.name, "job")], split=kit.split))
    assert not keep(kit, first, "job") and not keep(kit, first, "never")
    kit.settle(other, kit.claim(other, 1))
    assert not keep(kit, other, "job")
    assert kept(kit, "job") is None and no_faults(kit)


def test_a_run_saves_through_an_adoption_and_never_over_a_newer_one(kit: Kit) -> None:
    """The session has its next name already, or an older run is still there in the same one."""
    session = kit.open("a1")
    kit.add("job")
    kit.claim(session, 1)
    kit.client.run(ops.adopt(kit.queues, "a1", "a2", 60_000, split=kit.split))
    assert keep(kit, "a2", "job", b"\x01", older="a1", fence=7)
    assert not keep(kit, "a2", "job", b"\x02", fence=6)
    assert b"\x01" == kept(kit, "job")


@pytest.mark.parametrize("kind", [ops.Kind.SUCCEEDED, ops.Kind.DROPPED, ops.Kind.CANCELLED])
def test_it_goes_with_the_end_of_the_job(kit: Kit, kind: ops.Kind) -> None:
    """Its tie, too."""
    session = kit.open("a")
    kit.add("job")
    claims = kit.claim(session, 1)
    keep(kit, session, "job")
    kit.settle(session, claims, kind, ms=60_000)
    assert kept(kit, "job") is None and no_faults(kit)
    assert 0 == kit.client.run(command("EXISTS", kit.queue.ties, key=kit.queue.ties, decode=int))


def test_a_failed_job_that_is_retried_by_hand_goes_on_from_it(kit: Kit) -> None:
    """It is kept for as long as failed jobs are."""
    session = kit.open("a")
    kit.add("job")
    claims = kit.claim(session, 1)
    keep(kit, session, "job")
    kit.settle(session, claims, ops.Kind.FAILED, ms=60_000)
    assert 0 < ttl_ms(kit, "job") <= 30 * 86_400_000 and no_faults(kit)
    assert "queued" == kit.client.run(ops.retry(kit.queue, "job"))
    assert -1 == ttl_ms(kit, "job")
    assert {"job"} == claimed(kit, session)
    assert no_faults(kit)


def test_it_goes_with_the_record(kit: Kit) -> None:
    """Deleted by hand while it waits or has failed, or forgotten when its time is up: a later job of that id starts anew."""
    session = kit.open("a")
    for name in ("waits", "failed", "old"):
        kit.add(name)
        claims = kit.claim(session, 1)
        keep(kit, session, name)
        if name == "waits":
            kit.settle(session, claims, ops.Kind.RETRY, ms=60_000)
        else:
            kit.settle(session, claims, ops.Kind.FAILED, ms=1 if name == "old" else 60_000)
    kit.client.run(ops.delete(kit.queue, "waits"))
    kit.client.run(ops.delete(kit.queue, "failed"))
    while kit.client.run(command("HEXISTS", kit.queue.jobs, "old", key=kit.queue.jobs, decode=bool)):
        kit.client.run(ops.tend(kit.queue, sweep=False))
    assert [None] * 3 == [kept(kit, name) for name in ("waits", "failed", "old")]
    assert no_faults(kit)
