"""What an operator sees and does, on every kind of server."""

import msgspec
import pytest
from engine_kit import Kit

from headrace.core.record import AttemptError, State, Stored, decode, encode
from headrace.engine import admin, ops
from headrace.engine.clients import SyncClient


@pytest.fixture
def kit(client: SyncClient) -> Kit:
    return Kit(client)


def all_ids(kit: Kit, *states: State, limit: int = 100) -> list[str]:
    """Every job in these states, page by page."""
    ids: list[str] = []
    cursor = ""
    while True:
        page = kit.client.run(admin.list_jobs(kit.queue, states, cursor=cursor, limit=limit))
        assert len(page.rows) <= limit
        ids += [row.id for row in page.rows]
        cursor = page.cursor
        if not cursor:
            return ids


def fail(kit: Kit, session: str, *messages: str) -> None:
    """Claim a job for each message, and fail it with that."""
    for claim, message in zip(kit.claim(session, len(messages)), messages, strict=True):
        record = decode(claim.record)
        error = AttemptError(1, "ValueError", message)
        record = msgspec.structs.replace(record, state=int(Stored.FAILED), errors=[error], ended_at_ms=7)
        settlement = ops.Settlement("default", claim.id, ops.Kind.FAILED, encode(record), keep_ms=60_000)
        kit.client.run(ops.settle(kit.queues, session, [settlement], split=kit.split))


def test_counts_tell_where_every_job_stands(kit):
    """Ready, by priority, delayed, running, done: each is counted once, and the totals are kept."""
    kit.add("a", "b", "c")
    kit.add("p", priority=5)
    kit.add("later", delay_ms=60_000)
    kit.open("s")
    claims = kit.claim("s", 2)
    kit.settle("s", claims[:1])
    counts = kit.client.run(admin.count_jobs(kit.queue))
    assert (counts.queued, counts.running, counts.delayed, counts.done, counts.dead) == (2, 1, 1, 1, 0)
    assert (counts.live, counts.records, counts.sessions) == (4, 5, 1)
    assert counts.totals == {"enqueued": 5, "succeeded": 1}


def test_a_list_shows_each_job_once_however_small_its_pages(kit):
    """Running first, then in the order in which they would run, then those that are due later."""
    ready = [f"r{n:03}" for n in range(300)]
    kit.add(*ready)
    kit.add("later", delay_ms=60_000)
    kit.open("s")
    kit.claim("s", 3)
    for limit in (7, 100, 1000):
        assert all_ids(kit, State.RUNNING, State.QUEUED, State.SCHEDULED, limit=limit) == [*ready, "later"]
        assert all_ids(kit, State.RUNNING, limit=limit) == ready[:3]
    assert all_ids(kit, State.FAILED, State.RETRYING) == []


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(kit):
    """The reason is kept; pausing and resuming twice is no harm."""
    kit.add("a")
    kit.open("s")
    assert kit.client.run(admin.pause(kit.queue, "provider is down"))
    assert not kit.client.run(admin.pause(kit.queue, "still down"))
    counts = kit.client.run(admin.count_jobs(kit.queue))
    assert counts.paused == "still down"
    assert counts.paused_at_ms is not None
    assert counts.paused_at_ms <= counts.server_ms
    assert kit.claim("s") == []
    assert kit.client.run(admin.resume(kit.queue))
    assert not kit.client.run(admin.resume(kit.queue))
    assert [claim.id for claim in kit.claim("s")] == ["a"]


def test_a_pause_for_a_time_ends_by_itself_and_wakes_a_consumer(kit):
    """Whoever tends the queue ends it, and counts say so before; a pause without an end takes its place for good."""
    kit.add("a")
    kit.open("s")
    kit.client.run(admin.pause(kit.queue, "deploy", 60_000))
    counts = kit.client.run(admin.count_jobs(kit.queue))
    assert counts.paused_until_ms is not None and 0 < counts.paused_until_ms - counts.server_ms <= 60_000
    kit.client.run(ops.tend(kit.queue, sweep=False))
    assert kit.claim("s") == []
    kit.client.run(admin.pause(kit.queue, "deploy", 1))
    while kit.client.run(admin.count_jobs(kit.queue)).paused is not None:
        pass
    assert kit.claim("s") == []
    kit.client.run(admin.drop_key(kit.queue.wake))
    kit.client.run(ops.tend(kit.queue, sweep=False))
    assert "wake" in kit.key_names() and [claim.id for claim in kit.claim("s")] == ["a"]
    kit.client.run(admin.pause(kit.queue, "deploy", 60_000))
    kit.client.run(admin.pause(kit.queue, "for good"))
    assert kit.client.run(admin.count_jobs(kit.queue)).paused_until_ms is None


def test_a_purge_deletes_the_jobs_of_one_state_and_no_other(kit):
    """Queued ones by list and by priority; the running, the scheduled and the ended stay."""
    kit.open("s")
    kit.add("done", "running")
    kit.settle("s", kit.claim("s", 1))
    kit.claim("s", 1)
    kit.add(*(f"r{n}" for n in range(600)))
    kit.add("p", priority=3)
    kit.add("later", delay_ms=60_000)
    assert kit.client.run(admin.purge(kit.queue, State.QUEUED)) == 601
    assert all_ids(kit, *State) == ["running", "later", "done"]
    assert kit.client.run(admin.purge(kit.queue, State.SCHEDULED)) == 1
    assert kit.client.run(admin.purge(kit.queue, State.SUCCEEDED)) == 1
    assert kit.client.run(admin.purge(kit.queue, State.RUNNING)) == 0
    assert all_ids(kit, *State) == ["running"]


def test_a_cancelled_job_is_no_longer_counted_as_queued(kit):
    """Though its entry stands in the list until a claim meets it."""
    kit.add("a", "b", "c")
    kit.client.run(ops.cancel(kit.queue, "b"))
    counts = kit.client.run(admin.count_jobs(kit.queue))
    assert (counts.queued, counts.done, counts.ready) == (2, 1, 3)
    kit.client.run(ops.delete(kit.queue, "a"))
    assert kit.client.run(admin.count_jobs(kit.queue)).queued == 1


def test_a_purge_leaves_the_record_of_a_cancelled_job_whose_entry_lingers(kit):
    """It has ended: it is kept where ended jobs are."""
    kit.add("a", "b")
    kit.client.run(ops.cancel(kit.queue, "a"))
    assert kit.client.run(admin.purge(kit.queue, State.QUEUED)) == 1
    assert kit.state("a") == State.CANCELLED
    assert kit.look("b") is None


def test_a_purged_job_is_told_to_who_waits_for_it(kit):
    """An empty ring: the job was deleted."""
    kit.add("a")
    assert kit.client.run(ops.watch(kit.queue, "a", "me")) is None
    kit.client.run(admin.purge(kit.queue, State.QUEUED))
    assert kit.client.block(ops.wait_ring(kit.queue, "me", 2), 2) == b""


def test_failures_of_one_cause_are_one_group(kit):
    """Numbers and quoted parts of a message do not matter; the type and the other words do."""
    kit.add(*"abcd")
    kit.open("s")
    fail(kit, "s", "no row 17 in 'users'", "no row 4 in 'orders'", "no row 5", "no row 9 in 'x'")
    groups = kit.client.run(admin.group_failures(kit.queue))
    assert [(group.count, group.type, group.task) for group in groups] == [
        (3, "ValueError", "kit.task"),
        (1, "ValueError", "kit.task"),
    ]
    assert len({group.fingerprint for group in groups}) == 2


def test_dropping_a_queue_leaves_no_key(kit):
    """Jobs, records, totals: all of it."""
    kit.add("a", "b")
    kit.add("later", delay_ms=60_000)
    kit.client.run(admin.drop_queue(kit.queue))
    counts = kit.client.run(admin.count_jobs(kit.queue))
    assert counts.records == counts.queued == counts.delayed == 0
    assert counts.totals == {}


def test_a_worker_is_listed_while_it_beats_and_takes_its_command_once(kit):
    """What it tells of itself is shown; a command for one that is not there is refused."""
    info = {"pid": 17, "queues": ["default"]}
    kit.client.run(ops.beat("hr", "w1", msgspec.msgpack.encode(info)))
    (worker,) = kit.client.run(admin.list_workers("hr"))
    assert (worker.id, worker.info) == ("w1", info)
    assert kit.client.run(admin.send_command("hr", "w1", "quiet"))
    assert not kit.client.run(admin.send_command("hr", "w2", "quiet"))
    assert kit.client.run(ops.beat("hr", "w1", msgspec.msgpack.encode(info))) == "quiet"
    assert kit.client.run(ops.beat("hr", "w1", msgspec.msgpack.encode(info), taken="quiet")) is None
    assert kit.client.run(ops.beat("hr", "w1", msgspec.msgpack.encode(info))) is None


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("ValueError: no", ("ValueError", "no, never")),
        ("worker lost: its lease ended", ("WorkerLost", "worker lost: its lease ended")),
        (None, ("ValueError", "no, never")),
    ],
)
def test_what_a_job_died_of_is_its_last_error_unless_its_worker_was_lost(reason, told):
    """The reason of a failed record repeats its last error, or tells what came after it."""
    record = msgspec.structs.replace(
        decode(Kit.record(None)),  # type: ignore[arg-type]
        state=int(Stored.FAILED),
        errors=[AttemptError(1, "ValueError", "no, never")],
        reason=reason,
    )
    assert admin.error_of(record) == told
