"""What became of jobs, minute by minute, on every kind of server."""

from __future__ import annotations

import pytest
from engine_kit import Kit

from headrace.engine import admin, stats
from headrace.engine.audit import audit
from headrace.engine.call import command
from headrace.engine.clients import SyncClient
from headrace.engine.stats import Added, Unit


@pytest.fixture
def kit(client: SyncClient) -> Kit:
    return Kit(client)


def last(kit: Kit, unit: Unit = Unit.HOUR) -> stats.Bucket:
    """All of the last two buckets: a test may run over the turn of an hour."""
    history = kit.client.run(stats.read_history(kit.queue, unit, 2))
    tasks: dict[str, dict[str, int]] = {}
    for bucket in history.buckets:
        for task, sums in bucket.tasks.items():
            for name, count in sums.items():
                row = tasks.setdefault(task, {})
                row[name] = row.get(name, 0) + count
    return stats.Bucket(history.buckets[-1].at_ms, tasks)


def test_what_two_workers_count_is_added_up(kit):
    """In the minute, the hour, the day and in all."""
    for _ in range(2):
        kit.client.run(stats.tally(kit.queue, [Added(0, "mail.send", {"succeeded": 3, "r20": 3, "run_us": 90})]))
    for unit in Unit:
        assert last(kit, unit).tasks == {"mail.send": {"succeeded": 6, "r20": 6, "run_us": 180}}
    assert kit.client.run(stats.read_totals(kit.queue)) == {"mail.send": {"succeeded": 6, "r20": 6, "run_us": 180}}


def test_the_growth_of_the_totals_is_noted_once(kit):
    """Whoever asks, and how often: the next note has only what came since."""
    kit.add("a", "b")
    kit.client.run(stats.tally(kit.queue))
    kit.client.run(stats.tally(kit.queue))
    assert last(kit).queue == {"enqueued": 2}
    kit.open("s")
    kit.settle("s", kit.claim("s", 1))
    kit.add("c")
    kit.client.run(stats.tally(kit.queue))
    assert last(kit).queue == {"enqueued": 3, "succeeded": 1}


def test_an_idle_queue_is_not_written_to(kit):
    """No key is made for a queue that never had a job, and none grows while nothing happens."""
    assert kit.client.run(stats.tally(kit.queue)) == 0
    assert kit.key_names() == set()
    kit.add("a")
    assert kit.client.run(stats.tally(kit.queue)) == 3
    assert kit.client.run(stats.tally(kit.queue)) == 0


def test_what_was_counted_some_minutes_ago_stands_in_its_minute(kit):
    """A job that ran before a long one is not told of in the long one's last minute."""
    kit.client.run(stats.tally(kit.queue, [Added(3, "a", {"succeeded": 1}), Added(0, "b", {"succeeded": 1})]))
    history = kit.client.run(stats.read_history(kit.queue, Unit.MINUTE, 6))
    at = {task: n for n, bucket in enumerate(history.buckets) for task in bucket.tasks}
    assert at["b"] - at["a"] == 3


def test_the_tasks_past_the_hundredth_are_counted_together(kit):
    """However many names there are, a bucket stays small."""
    for first in range(0, 300, 100):
        rows = [Added(0, f"task{first + n}", {"succeeded": 1}) for n in range(100)]
        kit.client.run(stats.tally(kit.queue, rows))
    totals = kit.client.run(stats.read_totals(kit.queue))
    assert len(totals) <= 102
    assert totals[stats.OTHERS]["succeeded"] > 100
    assert sum(sums["succeeded"] for sums in totals.values()) == 300


def test_old_buckets_are_dropped(kit):
    """A day of minutes is kept, whatever was there."""
    for first in range(0, 2000, 500):
        old: list[object] = [item for n in range(first, first + 500) for item in (n, b"\x80")]
        kit.client.run(command("HSET", kit.queue.minutes, *old, key=kit.queue.minutes, decode=int))
    assert [found.rule for found in kit.client.run(audit(kit.queue)).violations] == ["history"]
    kit.client.run(stats.tally(kit.queue, [Added(0, "a", {"succeeded": 1})]))
    assert kit.client.run(command("HLEN", kit.queue.minutes, key=kit.queue.minutes, decode=int)) == 1
    assert kit.client.run(audit(kit.queue)).violations == []


def test_a_dropped_queue_leaves_no_history(kit):
    """It goes with the rest."""
    kit.add("a")
    kit.client.run(stats.tally(kit.queue))
    kit.client.run(admin.drop_queue(kit.queue))
    assert kit.key_names() == set()
