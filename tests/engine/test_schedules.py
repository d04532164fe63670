"""Schedules on each kind of server: fired once whoever looks, and kept as declared and as changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_kit import Kit, ids_of, make_due

import faketime
from faketime import ServerClock
from headrace import QueueFull, ScheduleExists, ScheduleNotFound, ServerFull, UsageError
from headrace.core.record import decode
from headrace.core.schedule import Spec, check_schedule, new_spec, next_tick, tick_id
from headrace.engine import ops, schedules
from headrace.engine.audit import audit
from headrace.engine.call import command
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.keys import queue_keys
from headrace.engine.schedules import Declared, Fired, Found
from headrace.testing.clock import faketime_library
from soundness import violations_on

PAYLOAD = msgspec.msgpack.encode([[1]])
MINUTE = 60_000


def spec(**given: Any) -> Spec:
    return new_spec({**check_schedule(given, "here"), "task": "kit.task", "payload": PAYLOAD})


class Schedules:
    """The schedules of one queue as a worker, and an operator, see them."""

    def __init__(self, client: SyncClient) -> None:
        self.client = client
        self.kit = Kit(client)
        self.queue = self.kit.queue

    def add(self, name: str = "s", **given: Any) -> Found:
        return self.client.run(schedules.add(self.queue, name, spec(**given)))

    def get(self, name: str = "s") -> Found:
        return self.client.run(schedules.find("hr", name))

    def fire(self, *mine: Declared) -> list[Fired]:
        """What a look fires, by a worker whose code declares these."""
        return self.client.run(schedules.fire_due(self.queue, {each.name: each for each in mine}))[0]

    def ids(self) -> list[str]:
        """The ids of the jobs that a look fires."""
        return [job_id for fired in self.fire() for job_id in fired.ids]

    def make_due(self, name: str = "s", ago_ms: int = 0) -> Found:
        """As if its tick had come, whatever it is."""
        return make_due(self.client, name, ago_ms)

    def end(self) -> None:
        """Run all jobs that can be claimed."""
        session = self.kit.open("runs")
        self.kit.settle(session, self.kit.claim(session))


@pytest.fixture
def on(client: SyncClient) -> Schedules:
    return Schedules(client)


@pytest.fixture
def clocked(tmp_path: Path) -> Iterator[tuple[Schedules, ServerClock]]:
    """Schedules on a server whose clock can be moved."""
    found = faketime_library()
    if found is None:
        pytest.skip("no libfaketime: apt-get install libfaketime")
    with faketime.server_with_clock(tmp_path, found) as (url, clock):
        with closing(SyncClient(ServerConfig(url), retry=False)) as client:
            yield Schedules(client), clock
        assert [] == violations_on(url)


def test_a_due_schedule_makes_its_job_and_moves_on(on: Schedules) -> None:
    """The job is an ordinary one: its id names the tick, and a consumer claims it."""
    on.add(cron="*/5 * * * *")
    assert [] == on.fire()
    due = on.make_due()
    (fired,) = on.fire()
    assert [tick_id("s", due.entry.next_ms)] == fired.ids
    (claim,) = on.kit.claim(on.kit.open("c"))
    record = decode(claim.record)
    assert (fired.ids[0], "kit.task", PAYLOAD) == (claim.id, record.task, bytes(record.payload))
    after = on.get()
    assert (after.entry.next_ms, 1) == (next_tick(after.entry.now, due.server_ms), after.entry.fired)
    assert (fired.ids[0], due.entry.next_ms) == (after.entry.last_id, after.entry.last_ms)
    assert [] == on.fire()


def test_a_tick_is_fired_once_however_many_workers_look(on: Schedules) -> None:
    """Eight clients look at once at 20 schedules, again and again: each tick's job is made by one of them."""
    expected = set()
    for number in range(20):
        on.add(f"s{number}", every=3600)
        expected.add(tick_id(f"s{number}", on.make_due(f"s{number}").entry.next_ms))
    barrier = threading.Barrier(8)

    def look() -> list[str]:
        with closing(SyncClient(on.client.config, retry=False)) as client:
            barrier.wait(30)
            return [
                job_id
                for _ in range(3)
                for fired in client.run(schedules.fire_due(on.queue, {}))[0]
                for job_id in fired.ids
            ]

    with ThreadPoolExecutor(8) as pool:
        made = [job_id for future in [pool.submit(look) for _ in range(8)] for job_id in future.result(60)]
    assert sorted(expected) == sorted(made)
    assert expected == set(ids_of(on.kit.claim(on.kit.open("c"), 100)))


def test_a_tick_is_not_fired_before_the_servers_clock_says_so(on: Schedules) -> None:
    """A worker whose clock is wrong cannot make it early: the script decides."""
    found = on.add(every=3600)
    new = schedules._written(found.entry)
    answer = on.client.run(schedules._fire(found, new, [("early", b"", 1)], tick=found.entry.next_ms, guards=()))
    assert ("early", "none") == (answer, on.kit.state("early"))


def test_a_job_that_is_there_already_is_left_as_it_is(on: Schedules) -> None:
    """Where the schedule's place was lost and its tick comes again, the job of that tick has been made."""
    on.add(every=3600)
    due = on.make_due()
    on.kit.add(tick_id("s", due.entry.next_ms))
    before = on.kit.look(tick_id("s", due.entry.next_ms))
    on.fire()
    assert before == on.kit.look(tick_id("s", due.entry.next_ms))
    assert [tick_id("s", due.entry.next_ms)] == ids_of(on.kit.claim(on.kit.open("c")))


def test_priority_and_expiry_go_with_the_job(on: Schedules) -> None:
    """As the call that was scheduled has them."""
    wanted = msgspec.structs.replace(spec(every=3600), priority=7, expires_in_ms=50_000)
    on.client.run(schedules.add(on.queue, "s", wanted))
    on.kit.add("plain")
    on.make_due()
    (job_id,) = on.ids()
    first, _ = on.kit.claim(on.kit.open("c"))
    record = decode(first.record)
    assert (job_id, 7) == (first.id, record.priority)
    assert 0 <= record.expires_at_ms - record.created_at_ms - 50_000 < 1_000


def test_jitter_lets_a_job_start_later(on: Schedules) -> None:
    """It is made at its tick, scheduled for its start."""
    on.add(every=86_400, jitter=86_400)
    due = on.make_due()
    (job_id,) = on.ids()
    found = on.kit.look(job_id)
    assert found is not None and found.due_ms is not None
    assert ("scheduled", True) == (found.state, due.entry.next_ms < found.due_ms <= due.entry.next_ms + 86_400_000)


def test_skip_drops_a_tick_while_the_last_job_runs(on: Schedules) -> None:
    """And counts it; when the job has ended, the next tick makes one."""
    on.add(every=3600, overlap="skip")
    on.make_due(ago_ms=2)
    (first,) = on.ids()
    on.make_due(ago_ms=1)
    (fired,) = on.fire()
    assert ([], f"skipped a tick: job {first} has not ended") == (fired.ids, fired.problem)
    assert (1, 1) == (on.get().entry.skipped, on.get().entry.fired)
    on.end()
    on.make_due()
    assert 1 == len(on.ids())


def test_queue_makes_one_job_when_the_last_has_ended(on: Schedules) -> None:
    """However many ticks came meanwhile; until then it waits, and is said to."""
    on.add(every=3600, overlap="queue", catch_up="skip")
    on.make_due(ago_ms=2)
    (first,) = on.ids()
    due = on.make_due(ago_ms=1)
    (fired,) = on.fire()
    assert f"waits for job {first}, which has not ended" == fired.problem
    assert ([], due.entry.next_ms) == (on.fire(), on.get().entry.waiting_ms)
    on.end()
    assert [tick_id("s", due.entry.next_ms)] == on.ids()
    assert (0, []) == (on.get().entry.waiting_ms, on.fire())


def test_cancel_ends_the_last_job_and_then_makes_the_next(on: Schedules) -> None:
    """A running job is asked to stop, and the next is not made before it has; a waiting one ends at once."""
    on.add(every=3600, overlap="cancel")
    on.make_due(ago_ms=3)
    (first,) = on.ids()
    claims = on.kit.claim(on.kit.open("c"))
    due = on.make_due(ago_ms=2)
    on.fire()
    assert on.client.run(ops.is_cancel_asked(on.queue, first))
    assert [] == on.ids()
    on.kit.settle("c", claims, ops.Kind.CANCELLED)
    assert [tick_id("s", due.entry.next_ms)] == on.ids()
    (second,) = on.get().entry.live
    due = on.make_due(ago_ms=1)
    on.fire()
    assert "cancelled" == on.kit.state(second)
    assert [tick_id("s", due.entry.next_ms)] == on.ids()


def test_allow_lets_jobs_run_side_by_side(on: Schedules) -> None:
    """The default."""
    on.add(every=3600)
    made = [on.make_due(ago_ms=ago) and on.ids() for ago in (2, 1)]
    assert [1, 1] == [len(ids) for ids in made]
    assert 2 == len(on.kit.claim(on.kit.open("c")))


def test_a_paused_schedule_makes_no_job_and_goes_on_with_the_next_tick(on: Schedules) -> None:
    """What came while it was paused is not caught up."""
    on.add(every=3600)
    paused = on.client.run(schedules.pause(on.make_due(), "no reason"))
    assert ("paused", None, []) == (paused.state, on.get().look_at_ms, on.fire())
    resumed = on.client.run(schedules.resume(on.get()))
    assert ("active", []) == (resumed.state, on.fire())
    assert on.get().look_at_ms == on.get().entry.next_ms > on.get().server_ms


def test_ticks_can_be_skipped_ahead(on: Schedules) -> None:
    """The next two are left out; who is paused has none to skip."""
    before = on.add(every=3600)
    after = on.client.run(schedules.skip(before, 2))
    assert before.entry.next_ms + 2 * 3_600_000 == after.entry.next_ms == on.get().look_at_ms
    with pytest.raises(UsageError, match="schedule 's' is paused: there is no tick to skip"):
        on.client.run(schedules.skip(on.client.run(schedules.pause(after, "")), 1))


def test_run_now_makes_a_job_beside_the_ticks(on: Schedules) -> None:
    """Also of a paused one; its next tick stays, and the job counts for the overlap."""
    before = on.add(every=3600, overlap="skip")
    job_id, _ = on.client.run(schedules.run_now(before))
    assert ("queued", before.entry.next_ms) == (on.kit.state(job_id), on.get().look_at_ms)
    on.make_due()
    assert [] == on.ids()
    on.end()
    on.client.run(schedules.pause(on.get(), ""))
    assert "queued" == on.kit.state(on.client.run(schedules.run_now(on.get()))[0])
    assert None is on.get().look_at_ms


def test_a_schedule_that_has_ended_makes_no_more(on: Schedules) -> None:
    """After its end it is kept, and shown; a later end makes it go on."""
    now_ms = on.add("probe", every=3600).server_ms
    whole = msgspec.structs.replace(spec(every=10), start_ms=now_ms - 5_000, end_ms=now_ms + 5_000)
    on.client.run(schedules.add(on.queue, "s", whole))
    assert ("ended", None) == (on.get().state, on.get().look_at_ms)
    on.client.run(schedules.change(on.get(), {"end_ms": 0}, "me"))
    assert ("active", now_ms + 5_000) == (on.get().state, on.get().look_at_ms)


def test_a_change_is_kept_beside_what_was_declared(on: Schedules) -> None:
    """The times that hold are the changed ones; reset goes back."""
    on.add(every=3600)
    on.client.run(schedules.change(on.get(), check_schedule({"cron": "0 3 * * *"}, ""), "me@here"))
    found = on.get()
    assert found.entry.change is not None
    assert ("0 3 * * *", 3_600_000, "me@here") == (
        found.entry.now.cron, found.entry.spec.every_ms, found.entry.change.by,
    )  # fmt: skip
    assert found.look_at_ms == next_tick(found.entry.now, found.server_ms)
    on.client.run(schedules.reset(found))
    assert (None, 3_600_000) == (on.get().entry.change, on.get().entry.now.every_ms)


def test_a_change_by_another_is_not_lost(on: Schedules) -> None:
    """Two people look, then both change: the second decides anew on what the first has made."""
    first = second = on.add(every=3600)
    on.client.run(schedules.pause(first, "why"))
    on.client.run(schedules.change(second, {"jitter_ms": 5}, "me"))
    assert ("paused", 5, None) == (on.get().state, on.get().entry.now.jitter_ms, on.get().look_at_ms)


def test_a_tick_is_fired_as_the_schedule_stands_now(on: Schedules) -> None:
    """Changed between a worker's look and its call: nothing is fired by the old entry, and the change stays."""
    on.add(every=3600)
    before = on.make_due()
    on.client.run(schedules.change(before, {"priority": 5}, "me"))
    assert [] == on.client.run(schedules._fire_one(before))
    assert 1 == len(on.ids())
    (claim,) = on.kit.claim(on.kit.open("c"))
    assert (5, 5) == (decode(claim.record).priority, on.get().entry.now.priority)


def test_a_name_is_taken_once_in_all_queues(on: Schedules) -> None:
    """Adding it again is refused; removed, it is gone, and free."""
    on.add(every=3600)
    with pytest.raises(ScheduleExists, match="in queue 'default'"):
        on.client.run(schedules.add(queue_keys("other"), "s", spec(every=60)))
    on.client.run(schedules.remove(on.get()))
    with pytest.raises(ScheduleNotFound, match="no schedule 's' in any queue"):
        on.get()
    on.client.run(schedules.add(queue_keys("other"), "s", spec(every=60)))
    assert ["other"] == [row.queue.name for row in on.client.run(schedules.list_schedules("hr"))]


def declare(on: Schedules, wanted: Declared, *, is_start: bool = True) -> str:
    return on.client.run(schedules.declare("hr", wanted, is_start=is_start))


def test_a_worker_that_starts_again_changes_nothing(on: Schedules) -> None:
    """The same declaration keeps the tick that is due; another keeps it unless the times are others."""
    wanted = Declared("s", "default", spec(every=3600))
    assert "" == declare(on, wanted)
    due = on.make_due()
    assert "" == declare(on, wanted)
    assert due.entry == on.get().entry
    assert "" == declare(on, Declared("s", "default", msgspec.structs.replace(wanted.spec, priority=3)))
    assert due.look_at_ms == on.get().look_at_ms
    assert [tick_id("s", due.entry.next_ms)] == on.ids()


def test_code_does_not_take_a_name_that_was_added_at_run_time(on: Schedules) -> None:
    """Nor lose it: the worker says so."""
    on.add(every=3600)
    for queue in ("default", "other"):
        assert "added at run time" in declare(on, Declared("s", queue, spec(every=60)))
    assert 3_600_000 == on.get().entry.now.every_ms


def test_what_running_code_declares_cannot_be_removed(on: Schedules) -> None:
    """It would be back in seconds."""
    declare(on, Declared("s", "default", spec(every=3600)))
    with pytest.raises(UsageError, match="is declared by running workers' code"):
        on.client.run(schedules.remove(on.get()))


def test_the_code_that_started_last_counts_while_older_workers_run(on: Schedules) -> None:
    """A rolling deploy: the old workers' word keeps the old declaration, and overrides nothing."""
    old, new = Declared("s", "default", spec(every=3600)), Declared("s", "default", spec(every=60))
    declare(on, old)
    declare(on, new)
    assert [] == on.client.run(schedules.renew("hr", [old]))
    assert (60_000, True) == (on.get().entry.now.every_ms, on.get().is_held)


def test_a_schedule_that_moves_to_another_queue_takes_everything_along(on: Schedules) -> None:
    """Its tick, its pause and what was changed; workers of the old code leave it there."""
    old, new = Declared("s", "default", spec(every=3600)), Declared("s", "other", spec(every=3600))
    declare(on, old)
    on.client.run(schedules.change(on.get(), {"jitter_ms": 5}, "me"))
    due = on.make_due()
    declare(on, new)
    rows = on.client.run(schedules.list_schedules("hr"))
    assert [("other", due.look_at_ms, 5)] == [(row.queue.name, row.look_at_ms, row.entry.now.jitter_ms) for row in rows]
    assert [old] == on.client.run(schedules.renew("hr", [old]))
    assert "" == declare(on, old, is_start=False)
    assert ["other"] == [row.queue.name for row in on.client.run(schedules.list_schedules("hr"))]


def test_a_schedule_that_no_code_declares_stops_and_comes_back(clocked: tuple[Schedules, ServerClock]) -> None:
    """A minute after the last worker that has it said so. Declared again, it catches up as asked."""
    on, clock = clocked
    wanted = Declared("s", "default", spec(every=600))
    declare(on, wanted)
    due_ms = on.get().look_at_ms
    clock.advance(700)
    assert "undeclared" == on.get().state
    (fired,) = on.fire()
    assert "makes no more jobs: no running code declares it" == fired.problem
    assert ([], None) == (on.fire(), on.get().look_at_ms)
    assert [wanted] == on.client.run(schedules.renew("hr", [wanted]))
    assert "" == declare(on, wanted, is_start=False)
    assert (due_ms, 1) == (on.get().look_at_ms, len(on.ids()))
    clock.advance(61)
    on.client.run(schedules.remove(on.get()))


def test_a_worker_whose_code_has_a_schedule_says_so_before_it_gives_it_up(
    clocked: tuple[Schedules, ServerClock],
) -> None:
    """The server's clock has leapt over its last word: it says it again, and fires at the next look."""
    on, clock = clocked
    due_ms = clock.now_ms() + 100_000
    wanted = Declared("s", "default", msgspec.structs.replace(spec(every=600), start_ms=due_ms))
    declare(on, wanted)
    clock.advance(300)
    assert [] == on.fire(wanted)
    assert [[tick_id("s", due_ms)]] == [fired.ids for fired in on.fire(wanted)]


def test_old_workers_take_over_when_the_new_ones_are_gone(clocked: tuple[Schedules, ServerClock]) -> None:
    """A deploy that is taken back: what the old code declares holds again."""
    on, clock = clocked
    old, new = Declared("s", "default", spec(every=3600)), Declared("s", "default", spec(every=60))
    declare(on, old)
    declare(on, new)
    clock.advance(61)
    assert [old] == on.client.run(schedules.renew("hr", [old]))
    assert "" == declare(on, old, is_start=False)
    assert 3_600_000 == on.get().entry.now.every_ms


@pytest.mark.parametrize(("catch_up", "made"), [("skip", 0), ("one", 1), ("all", 10), (3, 3)])
def test_after_an_outage_what_was_missed_is_caught_up_as_asked(
    clocked: tuple[Schedules, ServerClock], catch_up: Any, made: int
) -> None:
    """No worker for ten ticks and a half: the newest of them are made, each under its own id, and once."""
    on, clock = clocked
    now_ms = on.add("probe", every=86_400).server_ms
    wanted = msgspec.structs.replace(spec(every=600, catch_up=catch_up), start_ms=now_ms)
    first_ms = on.client.run(schedules.add(on.queue, "s", wanted)).entry.next_ms
    clock.advance((first_ms - now_ms) // 1000 + 9 * 600 + 300)
    ids = on.ids()
    assert [tick_id("s", first_ms + number * 600_000) for number in range(10)][10 - made :] == ids
    assert (ids, []) == (ids_of(on.kit.claim(on.kit.open("c"), 100)), on.ids())
    clock.advance(301)
    assert [tick_id("s", first_ms + 10 * 600_000)] == on.ids()


def test_a_full_server_is_not_made_fuller_by_a_tick(url: str) -> None:
    """It is refused, and made when there is room."""
    with closing(SyncClient(ServerConfig(url), retry=False)) as client:
        on = Schedules(client)
        on.add(every=3600)
        due = on.make_due()
        client.run(command("CONFIG", "SET", "maxmemory", 1_000, decode=lambda reply: reply))
        try:
            with pytest.raises(ServerFull):
                on.fire()
            assert "paused" == client.run(schedules.pause(on.get(), "")).state
        finally:
            client.run(command("CONFIG", "SET", "maxmemory", 0, decode=lambda reply: reply))
        client.run(schedules.resume(on.get()))
        on.make_due(ago_ms=0)
        assert 1 == len(on.ids())
        assert due.server_ms > 0


def test_what_hangs_on_the_call_hangs_on_its_jobs(on: Schedules) -> None:
    """A group, a limit and a deadline, as of a job that is enqueued."""
    ties = msgspec.msgpack.encode({"g": "ann", "w": 1, "l": [{"n": "one", "t": "one", "c": 1, "k": 1}]})
    wanted = msgspec.structs.replace(spec(every=3600), ties=ties, deadline_in_ms=50_000)
    on.client.run(schedules.add(on.queue, "s", wanted))
    on.make_due(ago_ms=2)
    first = on.ids()
    on.make_due(ago_ms=1)
    second = on.ids()
    (claim,) = on.kit.claim(on.kit.open("c"))
    assert first == [claim.id]
    assert "waiting" == on.kit.state(second[0]), "one at a time"
    record = decode(claim.record)
    assert record.options is not None
    assert (ties, record.created_at_ms + 50_000) == (record.options.ties, record.options.deadline_ms)
    assert record.expires_at_ms == record.options.deadline_ms


def test_a_tick_whose_unique_key_is_taken_makes_no_job(on: Schedules) -> None:
    """There is one already, whoever enqueued it; when it has ended, the next tick makes one."""
    ties = msgspec.msgpack.encode({"u": "key"})
    on.client.run(schedules.add(on.queue, "s", msgspec.structs.replace(spec(every=3600), ties=ties)))
    on.make_due(ago_ms=3)
    (first,) = on.ids()
    on.make_due(ago_ms=2)
    on.fire()
    assert [first] == ids_of(on.kit.claim(on.kit.open("runs")))
    on.client.run(ops.close_session([on.queue], "runs", split=on.kit.split))
    on.end()
    on.make_due(ago_ms=1)
    (third,) = on.ids()
    assert [third] == ids_of(on.kit.claim(on.kit.open("c")))


def test_a_queue_of_limited_length_gets_no_more_by_a_tick(on: Schedules) -> None:
    """It is refused, and made when there is room; where the oldest is dropped for it, at once."""
    on.add(every=3600)
    on.kit.add("waits")
    on.client.run(ops.bound_queue(on.queue, {"max_length": 1}))
    due = on.make_due()
    with pytest.raises(QueueFull):
        on.fire()
    on.end()
    assert [tick_id("s", due.entry.next_ms)] == on.ids()
    on.client.run(ops.bound_queue(on.queue, {"max_length": 1, "overflow": "drop_oldest"}))
    on.make_due()
    assert 1 == len(on.ids())


def test_a_queue_without_schedules_is_told_that_it_has_none(on: Schedules) -> None:
    """The tending of a queue says when to look for schedules, and that costs one command."""
    assert None is on.client.run(ops.tend(on.queue, sweep=False)).next_tick_ms
    on.add(every=3600)
    assert on.get().look_at_ms == on.client.run(ops.tend(on.queue, sweep=False)).next_tick_ms
    assert [] == on.client.run(audit(on.queue)).violations
