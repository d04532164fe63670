"""The audit finds each way in which a queue's data can be wrong, and nothing in a queue that is right."""

import pytest
from engine_kit import Kit

from headrace.engine import ops
from headrace.engine.audit import audit
from headrace.engine.call import command
from headrace.engine.clients import SyncClient


@pytest.fixture
def kit(client: SyncClient) -> Kit:
    """A queue with a job in every place."""
    kit = Kit(client)
    kit.open("s")
    kit.add("done", "dead", "held")
    claims = kit.claim("s", 3)
    kit.settle("s", claims[:1])
    kit.settle("s", claims[1:2], ops.Kind.FAILED)
    kit.add("first", "cancelled", "second")
    kit.add("urgent", priority=9)
    kit.add("later", delay_ms=60_000)
    client.run(ops.cancel(kit.queue, "cancelled"))
    return kit


def rules(kit: Kit) -> list[tuple[str, str]]:
    return sorted((found.rule, found.job_id) for found in kit.client.run(audit(kit.queue)).violations)


def send(kit: Kit, *words: str | bytes | int) -> None:
    kit.client.run(command(*words, key=kit.queue.jobs, decode=lambda _: None))


def test_a_sound_queue_has_no_violation(kit):
    """Also not for the entry of a cancelled job that no claim has met yet."""
    report = kit.client.run(audit(kit.queue))
    assert report.violations == []
    assert report.jobs == 8


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("LREM", "ready", 0, "first"), [("place", "first")]),
        (("RPUSH", "ready", "first"), [("place", "first")]),
        (("RPUSH", "ready", "held"), [("place", "held")]),
        (("RPUSH", "ready", "done"), [("place", "done")]),
        (("RPUSH", "suspects", "ghost"), [("record", "ghost")]),
        (("ZADD", "dead", 1, "done"), [("counters", ""), ("place", "done")]),
        (("ZREM", "dead", "dead"), [("counters", ""), ("place", "dead")]),
        (("ZREM", "delayed", "later"), [("place", "later")]),
        (("ZADD", "delayed", 1, "urgent"), [("place", "urgent")]),
        (("ZREM", "sessions", "s"), [("place", "held"), ("session", "")]),
        (("HDEL", "jobs", "held"), [("counters", ""), ("record", "held")]),
        (("HSET", "crashes", "done", 1), [("hash", "done")]),
        (("HSET", "progress", "gone", b"x"), [("hash", "gone")]),
        (("HSET", "unique", "key", "done"), [("unique", "done")]),
        (("HINCRBY", "stats", "enqueued", 1), [("counters", "")]),
    ],
)
def test_each_kind_of_damage_is_found(kit, words, found):
    """One thing is made wrong; the audit names it and the job."""
    name, key, *rest = words
    send(kit, name, getattr(kit.queue, key), *rest)
    assert rules(kit) == found


def test_an_audit_changes_nothing(kit):
    """Twice the same, and every job is still there to be claimed."""
    assert rules(kit) == rules(kit) == []
    assert {claim.id for claim in kit.claim("s")} == {"urgent", "first", "second"}
