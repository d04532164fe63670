"""Queues that age: a job rises by one priority with each step it waits, so that none waits for ever."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from engine_kit import Kit, ids_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.ties import Group, Limit, Ties, Unique
from headrace.engine import ops
from headrace.engine.audit import audit
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.why import why

STEP_MS = 60_000
SESSION = "one"


def age(kit: Kit, step_ms: int | None) -> None:
    kit.client.run(ops.bound_queue(kit.queue, {"ageing": step_ms}))


def wait(kit: Kit, ms: int) -> None:
    """As if so much time had passed for those that wait."""
    meta = kit.queue.meta
    base, since = kit.client.run(ops.command("HGET", meta, "aged", key=meta, decode=bytes.split))
    kit.client.run(ops.command("HSET", meta, "aged", b"%s %d" % (base, int(since) - ms), key=meta, decode=int))


def put(kit: Kit, job_id: str, priority: int = 0, ties: bytes = b"", **options: bool) -> None:
    record = kit.record(priority=priority, ties=ties or None)
    kit.client.enqueue(kit.queue.name, [ops.NewJob(job_id, record, priority=priority, ties=ties, **options)])


def take(kit: Kit, want: int = 1) -> list[str]:
    return ids_of(kit.claim(SESSION, want))


def assert_sound(kit: Kit) -> None:
    assert kit.client.run(audit(kit.queue)).violations == []


class TestOrder:
    @pytest.fixture
    def kit(self, client: SyncClient) -> Kit:
        found = Kit(client)
        found.open(SESSION)
        return found

    def test_a_job_rises_by_one_priority_with_each_step(self, kit: Kit) -> None:
        """Three steps make up for three priorities, and not for four."""
        age(kit, STEP_MS)
        put(kit, "low")
        wait(kit, 3 * STEP_MS)
        put(kit, "high", 4)
        put(kit, "equal", 3)
        put(kit, "less", 2)
        assert_sound(kit)
        assert take(kit, 4) == ["high", "low", "equal", "less"]

    def test_jobs_of_one_priority_keep_their_order(self, kit: Kit) -> None:
        """Also a thousand of one call after ten years of minutes, where scores have few digits left, and beside single ones."""
        age(kit, STEP_MS)
        wait(kit, 5_000_000 * STEP_MS)
        names = [f"j{n}" for n in random.Random(1).sample(range(10_000), 1_000)]
        record = kit.record()
        put(kit, "first")
        kit.client.enqueue(kit.queue.name, [ops.NewJob(name, record) for name in names])
        put(kit, "last")
        taken = [job_id for _ in range(5) for job_id in take(kit, 256)]
        assert taken == ["first", *names, "last"]

    def test_a_job_with_ties_ages_like_the_others(self, kit: Kit) -> None:
        """It does not go before those that came earlier."""
        age(kit, STEP_MS)
        wait(kit, STEP_MS)
        put(kit, "a")
        put(kit, "tied", ties=Ties(unique=Unique("n")).of("t", {"n": 1}))
        put(kit, "b")
        assert take(kit, 3) == ["a", "tied", "b"]

    def test_what_waited_before_ageing_began_counts_from_then(self, kit: Kit) -> None:
        """Of either place: those of priority 0 and the others."""
        for name, priority in (("none", 0), ("low", -3), ("high", 3), ("more", 0)):
            put(kit, name, priority)
        age(kit, STEP_MS)
        wait(kit, 2 * STEP_MS)
        for name, priority in (("new-3", 3), ("new-1", 1), ("new-0", 0), ("new-6", 6)):
            put(kit, name, priority)
        assert_sound(kit)
        assert take(kit, 8) == ["new-6", "high", "new-3", "none", "more", "new-1", "new-0", "low"]

    def test_turned_off_all_keep_the_age_they_have(self, kit: Kit) -> None:
        """New jobs go by priority again, and behind the old ones of theirs."""
        age(kit, STEP_MS)
        put(kit, "old")
        wait(kit, 5 * STEP_MS)
        put(kit, "young", -1)
        age(kit, None)
        put(kit, "none")
        put(kit, "high", 4)
        put(kit, "higher", 6)
        put(kit, "last", -1)
        assert_sound(kit)
        assert take(kit, 6) == ["higher", "old", "high", "none", "young", "last"]

    def test_turned_off_where_nothing_waits_leaves_nothing(self, kit: Kit) -> None:
        """A queue that aged once costs no more than one that never did."""
        age(kit, STEP_MS)
        put(kit, "a")
        assert take(kit) == ["a"]
        age(kit, None)
        kit.add("plain")
        meta = kit.client.run(ops.command("HKEYS", kit.queue.meta, key=kit.queue.meta, decode=set))
        assert not meta & {b"ageing", b"aged", b"arrival"}
        assert "priority" not in kit.key_names()

    def test_the_same_ageing_said_again_changes_nothing(self, kit: Kit) -> None:
        """Each deployment says it."""
        put(kit, "ready")
        age(kit, STEP_MS)
        wait(kit, 2 * STEP_MS)
        age(kit, STEP_MS)
        put(kit, "high", 1)
        assert take(kit, 2) == ["ready", "high"]

    def test_another_step_holds_from_then_on(self, kit: Kit) -> None:
        """What was gained stays."""
        age(kit, STEP_MS)
        put(kit, "low")
        wait(kit, STEP_MS)
        age(kit, 10 * STEP_MS)
        wait(kit, 10 * STEP_MS)
        put(kit, "two", 2)
        put(kit, "three", 3)
        assert take(kit, 3) == ["three", "low", "two"]

    def test_a_job_that_is_given_back_or_put_to_the_front_goes_before_its_like(self, kit: Kit) -> None:
        """However long those have waited since."""
        age(kit, STEP_MS)
        put(kit, "a")
        put(kit, "low", -2)
        claims = kit.claim(SESSION, 2)
        wait(kit, 3 * STEP_MS)
        put(kit, "b")
        put(kit, "front", 1, at_front=True)
        kit.client.run(ops.give_back(kit.queues, SESSION, [(c.queue, c.id) for c in claims], split=kit.split))
        assert_sound(kit)
        assert take(kit, 4) == ["front", "a", "low", "b"]

    def test_a_retried_job_comes_anew(self, kit: Kit) -> None:
        """Its wait counts from when it is due again."""
        age(kit, STEP_MS)
        put(kit, "a", -1)
        claims = kit.claim(SESSION)
        wait(kit, 2 * STEP_MS)
        put(kit, "b")
        kit.settle(SESSION, claims, ops.Kind.RETRY, ms=0)
        put(kit, "c")
        assert take(kit, 3) == ["b", "c", "a"]

    def test_groups_and_the_others_take_turns(self, kit: Kit) -> None:
        """Neither starves the other: jobs without a group are one more, and age among themselves."""
        age(kit, STEP_MS)
        for n in range(3):
            put(kit, f"g{n}", ties=Ties(group=Group("a")).of("t", {}))
            put(kit, f"p{n}", n)
        assert_sound(kit)
        taken = [job_id for _ in range(6) for job_id in take(kit)]
        assert [job_id for job_id in taken if job_id[0] == "p"] == ["p2", "p1", "p0"]
        assert sorted([taken[0][0], taken[1][0]]) == sorted([taken[2][0], taken[3][0]]) == ["g", "p"]

    def test_those_that_wait_for_a_limit_age_there(self, kit: Kit) -> None:
        """Its own order is by priority too."""
        age(kit, STEP_MS)
        ties = Ties(limits=(Limit("narrow", concurrency=1),)).of("t", {})
        put(kit, "running", ties=ties)
        running = kit.claim(SESSION)
        put(kit, "low", ties=ties)
        assert take(kit) == []
        wait(kit, 3 * STEP_MS)
        put(kit, "high", 2, ties=ties)
        assert take(kit) == []
        kit.settle(SESSION, running)
        assert take(kit, 2) == ["low"]

    def test_a_waiting_job_can_be_cancelled_deleted_and_put_back(self, kit: Kit) -> None:
        """Nothing of it lingers."""
        age(kit, STEP_MS)
        for name in ("cancelled", "deleted", "stays"):
            put(kit, name)
        kit.client.run(ops.cancel(kit.queue, "cancelled"))
        kit.client.run(ops.delete(kit.queue, "deleted"))
        assert "lingering" not in kit.key_names()
        kit.client.run(ops.retry(kit.queue, "cancelled"))
        assert_sound(kit)
        assert take(kit, 3) == ["stays", "cancelled"]

    def test_why_tells_its_place(self, kit: Kit) -> None:
        """Behind those before it, whatever their priority is."""
        age(kit, STEP_MS)
        put(kit, "low")
        wait(kit, 3 * STEP_MS)
        put(kit, "high", 1)
        high, low = (list(map(str, kit.client.run(why(kit.queue, name)))) for name in ("high", "low"))
        assert high[:2] == ["it stands behind 1 job", "its priority is 1, and the queue ages"]
        assert low[0] == "it is next in line"


arrivals = st.tuples(st.just("put"), st.integers(-9, 9), st.integers(1, 3))
passing = st.tuples(st.just("wait"), st.integers(1, 20), st.just(0))
claims = st.tuples(st.just("claim"), st.integers(1, 4), st.just(0))
steps = st.lists(arrivals | passing | claims, min_size=5, max_size=60)
COMMON = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
def kit_at(url: str) -> Callable[[], Kit]:
    """An empty queue that ages, with a session."""

    def make() -> Kit:
        client = SyncClient(ServerConfig(url), retry=False)
        client.run(ops.command("FLUSHALL", decode=lambda reply: reply))
        kit = Kit(client)
        kit.open(SESSION, 600_000)
        age(kit, STEP_MS)
        return kit

    return make


@settings(max_examples=40, derandomize=True, **COMMON)  # type: ignore[arg-type]
@given(history=steps)
def test_claims_go_by_priority_and_age(kit_at: Callable[[], Kit], history: list[tuple[str, int, int]]) -> None:
    """Whatever comes and goes: next is the job whose priority plus steps waited is the highest, the older one of equals."""
    kit = kit_at()
    now_steps = 0.0
    waiting: dict[str, tuple[float, int]] = {}
    number = 0
    try:
        for name, first, second in history:
            if name == "wait":
                wait(kit, first * STEP_MS // 2)
                now_steps += first / 2
            elif name == "put":
                for _ in range(second):
                    put(kit, f"j{number}", first)
                    waiting[f"j{number}"] = (now_steps - first, number)
                    number += 1
            else:
                expected = sorted(waiting, key=lambda job_id: waiting[job_id])[:first]
                assert take(kit, first) == expected
                for job_id in expected:
                    del waiting[job_id]
        assert_sound(kit)
        assert take(kit, 256) == sorted(waiting, key=lambda job_id: waiting[job_id])
    finally:
        kit.client.close()


@settings(max_examples=15, derandomize=True, **COMMON)  # type: ignore[arg-type]
@given(low=st.integers(-20, 0), high=st.integers(1, 20), load=st.integers(1, 3), seed=st.integers(0, 99))
def test_no_priority_starves(kit_at: Callable[[], Kit], low: int, high: int, load: int, seed: int) -> None:
    """While more urgent jobs come than can be run, a job runs after as many steps as it is less urgent than they, and what had come by then."""
    kit = kit_at()
    rng = random.Random(seed)
    try:
        put(kit, "patient", low)
        rounds, came, taken = 0, 0, []
        while "patient" not in taken:
            assert rounds < (high - low + 1) * (load + 1) + 1, "it starves"
            for _ in range(load):
                put(kit, f"urgent-{came}", rng.randint(max(low, 1), high))
                came += 1
            taken += take(kit)
            wait(kit, STEP_MS)
            rounds += 1
    finally:
        kit.client.close()
