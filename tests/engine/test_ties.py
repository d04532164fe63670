"""What hangs on a job: unique keys, limits and groups, as the scripts keep them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from engine_kit import Kit, ids_of

from headrace.core.record import State
from headrace.core.ties import Group, Limit, Ties, Unique
from headrace.engine import admin, ops
from headrace.engine.clients import SyncClient
from headrace.errors import DuplicateJob, QueueFull


@pytest.fixture
def kit(client: SyncClient) -> Kit:
    kit = Kit(client)
    kit.open("one")
    kit.open("two")
    return kit


def ties(
    *,
    unique: Unique | None = None,
    limits: Sequence[Limit] = (),
    group: str | None = None,
    weight: float = 1,
    **arguments: Any,
) -> bytes:
    found = Ties(unique, tuple(limits), None if group is None else Group(group, weight))
    return found.of("kit.task", arguments)


def add(kit: Kit, job_id: str, packed: bytes, on_conflict: str = "", **options: Any) -> dict[str, str]:
    """Enqueue one job with ties; returns what was there instead."""
    new = ops.NewJob(job_id, kit.record(**options), ties=packed, on_conflict=on_conflict, **options)
    return kit.client.enqueue(kit.queue.name, [new])


class TestUnique:
    def test_a_second_job_with_the_key_is_the_first_one(self, kit: Kit) -> None:
        """By default an enqueue gives the job that is there, and stores nothing."""
        key = ties(unique=Unique(), url="a")
        assert add(kit, "first", key, "existing") == {}
        assert add(kit, "second", key, "existing") == {"second": "first"}
        assert kit.state("second") == "none"
        assert add(kit, "other", ties(unique=Unique(), url="b"), "existing") == {}

    @pytest.mark.parametrize("kind", [ops.Kind.SUCCEEDED, ops.Kind.DROPPED, ops.Kind.FAILED, ops.Kind.CANCELLED])
    def test_the_key_is_free_whatever_way_the_job_ends(self, kit: Kit, kind: ops.Kind) -> None:
        """Success kept or not, failure, cancel: the next job with the key is stored."""
        key = ties(unique=Unique())
        add(kit, "first", key)
        kit.settle("one", kit.claim("one"), kind)
        assert add(kit, "second", key) == {}

    def test_the_key_is_free_when_a_waiting_job_is_cancelled_deleted_or_purged(self, kit: Kit) -> None:
        """Those that never ran leave nothing behind either."""
        key = ties(unique=Unique())
        add(kit, "a", key)
        kit.client.run(ops.cancel(kit.queue, "a"))
        assert add(kit, "b", key) == {}
        kit.client.run(ops.delete(kit.queue, "b"))
        assert add(kit, "c", key) == {}
        kit.client.run(admin.purge(kit.queue, State.QUEUED))
        assert add(kit, "d", key) == {}

    def test_the_key_is_kept_through_a_retry(self, kit: Kit) -> None:
        """A job that will run again has not ended."""
        key = ties(unique=Unique())
        add(kit, "first", key)
        kit.settle("one", kit.claim("one"), ops.Kind.RETRY)
        assert add(kit, "second", key) == {"second": "first"}

    def test_raise_tells_the_holder(self, kit: Kit) -> None:
        """`on_conflict="raise"`: DuplicateJob, and nothing is stored."""
        key = ties(unique=Unique())
        add(kit, "first", key, "raise")
        with pytest.raises(DuplicateJob) as told:
            add(kit, "second", key, "raise")
        assert told.value.job_id == "first"
        assert kit.state("second") == "none"

    def test_until_start_frees_the_key_at_the_claim(self, kit: Kit) -> None:
        """While the first runs, a second may wait; given back unstarted, it has its key again."""
        key = ties(unique=Unique(until="start"))
        add(kit, "first", key)
        claims = kit.claim("one")
        kit.client.run(ops.give_back(kit.queues, "one", [("default", "first")], split=kit.split))
        assert add(kit, "second", key) == {"second": "first"}
        again = kit.claim("one")
        assert ids_of(again) == ids_of(claims)
        assert add(kit, "second", key) == {}
        kit.settle("one", again)
        assert add(kit, "third", key) == {"third": "second"}

    def test_a_cancelled_job_leaves_the_key_of_another_alone(self, kit: Kit) -> None:
        """Its own was free when it started; since then another has it."""
        key = ties(unique=Unique(until="start"))
        add(kit, "first", key)
        kit.claim("one")
        kit.release("one", "first")
        assert add(kit, "second", key) == {}
        assert kit.client.run(ops.cancel(kit.queue, "first")) == "cancelled"
        assert add(kit, "third", key) == {"third": "second"}

    def test_replace_gives_the_waiting_job_the_new_arguments(self, kit: Kit) -> None:
        """The job keeps its id and its place."""
        key = ties(unique=Unique(on_conflict="replace"))
        add(kit, "first", key, "replace")
        kit.add("between")
        new = kit.record(text="newer")
        same = kit.client.enqueue("default", [ops.NewJob("second", new, ties=key, on_conflict="replace")])
        assert same == {"second": "first"}
        claims = kit.claim("one")
        assert ids_of(claims) == ["first", "between"]
        assert claims[0].record == new

    def test_debounce_puts_the_job_off(self, kit: Kit) -> None:
        """Each call starts the wait anew."""
        key = ties(unique=Unique(on_conflict="debounce"))
        add(kit, "first", key, "debounce", delay_ms=1_000)
        add(kit, "second", key, "debounce", delay_ms=60_000)
        look = kit.look("first")
        assert look is not None and look.due_ms is not None
        server_ms = kit.client.run(admin.count_jobs(kit.queue)).server_ms
        assert look.due_ms > server_ms + 50_000

    def test_a_key_for_seconds_outlives_its_job(self, kit: Kit) -> None:
        """At most one in that time, also when the first has ended."""
        key = ties(unique=Unique(until=60))
        add(kit, "first", key)
        kit.settle("one", kit.claim("one"))
        assert add(kit, "second", key) == {"second": "first"}
        other = ties(unique=Unique("n", until=60), n=1)
        add(kit, "third", other)
        kit.client.run(ops.cancel(kit.queue, "third"))
        assert add(kit, "fourth", other) == {"fourth": "third"}

    def test_of_two_in_one_call_the_first_is_stored(self, kit: Kit) -> None:
        """`enqueue_many` with the same key twice."""
        key = ties(unique=Unique())
        news = [ops.NewJob(name, kit.record(), ties=key) for name in ("a", "b")]
        assert kit.client.enqueue("default", news) == {"b": "a"}
        assert ids_of(kit.claim("one")) == ["a"]

    def test_of_two_in_one_call_the_second_replaces_the_arguments_of_the_first(self, kit: Kit) -> None:
        """What a call writes is there before a later job of the same call looks."""
        key = ties(unique=Unique(on_conflict="replace"))
        old, new = kit.record(text="old"), kit.record(text="new")
        news = [ops.NewJob(name, record, ties=key, on_conflict="replace") for name, record in (("a", old), ("b", new))]
        assert kit.client.enqueue("default", news) == {"b": "a"}
        claims = kit.claim("one")
        assert [(claim.id, claim.record) for claim in claims] == [("a", new)]

    def test_priorities_and_groups_of_one_call_keep_their_order(self, kit: Kit) -> None:
        """What a call writes at once stands as if each job had come by itself."""
        news = [ops.NewJob(f"low{n}", kit.record(priority=-5), priority=-5) for n in range(3)]
        news += [ops.NewJob(f"high{n}", kit.record(priority=5), priority=5) for n in range(3)]
        news.append(ops.NewJob("first", kit.record(priority=5, at_front=True), priority=5, at_front=True))
        kit.client.enqueue("default", news)
        claimed = ids_of(kit.claim("one", want=7))
        assert claimed == ["first", "high0", "high1", "high2", "low0", "low1", "low2"]

    def test_a_call_sent_again_is_told_the_same(self, kit: Kit) -> None:
        """A lost reply: the answer is kept with the call's number."""
        key = ties(unique=Unique())
        add(kit, "first", key)
        call = ops.enqueue(kit.queue, [ops.NewJob("second", kit.record(), ties=key)], "producer", 7)
        assert kit.client.run(call) == kit.client.run(call) == {"second": "first"}

    def test_a_failed_job_cannot_come_back_beside_its_successor(self, kit: Kit) -> None:
        """Retry by hand: refused while another has the key, else the key is its own again."""
        key = ties(unique=Unique())
        packed = kit.record(ties=key)
        kit.client.enqueue("default", [ops.NewJob("first", packed, ties=key)])
        kit.settle("one", kit.claim("one"), ops.Kind.FAILED)
        add(kit, "second", key)
        with pytest.raises(DuplicateJob):
            kit.client.run(ops.retry(kit.queue, "first"))
        kit.settle("one", kit.claim("one"))
        assert kit.client.run(ops.retry(kit.queue, "first")) == "queued"
        assert add(kit, "third", key) == {"third": "first"}


class TestConcurrency:
    LIMIT = (Limit("db", concurrency=2),)

    def test_no_more_run_than_the_limit_allows(self, kit: Kit) -> None:
        """One at a time for each consumer, two in all; an end lets the next one in, in order."""
        for name in "abcd":
            add(kit, name, ties(limits=self.LIMIT))
        first, second = kit.claim("one"), kit.claim("two")
        assert ids_of(first) + ids_of(second) == ["a", "b"]
        kit.open("three")
        assert kit.claim("three") == []
        assert ids_of(kit.settle("one", first, want=5).claimed.claims) == ["c"]
        assert ids_of(kit.settle("two", second, want=5).claimed.claims) == ["d"]

    def test_who_runs_its_jobs_side_by_side_gets_all_that_may_run(self, kit: Kit) -> None:
        """An event loop: it would else need a round trip for each job that holds a slot."""
        for name in "abc":
            add(kit, name, ties(limits=self.LIMIT))
        add(kit, "other", ties(limits=(Limit("elsewhere", concurrency=1),)))
        assert ids_of(kit.claim("one", side_by_side=True)) == ["a", "b", "other"]
        assert kit.client.run(command_count(kit, "slots:db")) == 2

    def test_others_pass_by(self, kit: Kit) -> None:
        """A job that is parked does not hold up those behind it."""
        for name in "abc":
            add(kit, name, ties(limits=(Limit("db", concurrency=1),)))
        kit.add("free")
        assert ids_of(kit.claim("one", 1)) == ["a"]
        assert ids_of(kit.claim("two", 5)) == ["free"]

    def test_the_slots_of_a_dead_worker_come_back(self, kit: Kit) -> None:
        """Released with the session, whoever is blamed."""
        for name in "ab":
            add(kit, name, ties(limits=(Limit("db", concurrency=1),)))
        assert ids_of(kit.claim("one")) == ["a"]
        assert kit.claim("two") == []
        kit.release("one", "a")
        assert ids_of(kit.claim("two")) == ["a"]  # the suspect, first and alone
        assert kit.client.run(command_count(kit, "slots:db")) == 1

    def test_a_suspect_keeps_to_its_limits(self, kit: Kit) -> None:
        """Its slot went to another job meanwhile, or its rate is spent: it waits for its turn, alone as before, and others pass."""
        kit.open("two")
        for name in "ab":
            add(kit, name, ties(limits=(Limit("narrow", concurrency=1),)))
        assert ids_of(kit.claim("two", 1)) == ["a"]
        kit.release("two", "a", alone=False)
        kit.open("two")
        held = kit.claim("two", take_suspects=False)
        assert ids_of(held) == ["b"]
        kit.add("c")
        assert ids_of(kit.claim("one")) == ["c"]
        assert kit.claim("one") == []
        kit.settle("two", held)
        again = kit.claim("one")
        assert ids_of(again) == ["a"] and again[0].is_suspect
        kit.settle("one", again)
        add(kit, "slow", ties(limits=(Limit("slow", rate="1/h"),)))
        kit.claim("two")
        kit.release("two", "slow", alone=False)
        claimed = kit.claimed("one")
        assert claimed.claims == [] and not claimed.more
        assert claimed.next_due_ms is not None and 0 < claimed.next_due_ms <= 3_600_000

    def test_each_value_of_an_argument_has_its_own_limit(self, kit: Kit) -> None:
        """`Limit("stripe:{account}")`."""
        limit = Limit("stripe:{account}", concurrency=1)
        for name, account in (("a", 1), ("b", 1), ("c", 2)):
            add(kit, name, ties(limits=(limit,), account=account))
        assert ids_of(kit.claim("one")) == ["a"]
        assert ids_of(kit.claim("two")) == ["c"]

    def test_all_limits_of_a_job_count(self, kit: Kit) -> None:
        """None is taken while another is shut."""
        narrow, wide = Limit("narrow", concurrency=1), Limit("wide", concurrency=2)
        add(kit, "a", ties(limits=(narrow,)))
        add(kit, "b", ties(limits=(wide, narrow)))
        add(kit, "c", ties(limits=(wide,)))
        first = kit.claim("one")
        assert ids_of(first) == ["a"]
        second = kit.claim("two")
        assert ids_of(second) == ["c"]
        assert kit.client.run(command_count(kit, "slots:wide")) == 1
        kit.settle("one", first)
        assert ids_of(kit.claim("one")) == ["b"]

    IN_ORDER = (Limit("user:{user}", concurrency=1, until="finish"),)

    def test_a_slot_kept_until_the_finish_keeps_jobs_in_order_through_retries(self, kit: Kit) -> None:
        """The first is retried, given back and loses its worker: the second waits all the while, and others do not."""
        for name, user in (("a1", "ann"), ("a2", "ann"), ("b1", "bob"), ("a3", "ann")):
            add(kit, name, ties(limits=self.IN_ORDER, user=user))
        first = kit.claim("one")
        assert ids_of(first) == ["a1"]
        bob = kit.claim("two")
        assert ids_of(bob) == ["b1"]
        kit.settle("two", bob)
        kit.settle("one", first, ops.Kind.RETRY, ms=60_000)
        assert kit.claim("one") == []
        kit.client.run(ops.command("ZADD", kit.queue.delayed, 0, "a1", key=kit.queue.delayed, decode=int))  # due now
        again = kit.claim("one")
        assert ids_of(again) == ["a1"]
        kit.client.run(ops.give_back(kit.queues, "one", [(c.queue, c.id) for c in again], split=kit.split))
        assert ids_of(kit.claim("two")) == ["a1"]
        kit.release("two", "a1")
        last = kit.claim("one")
        assert ids_of(last) == ["a1"]
        assert ids_of(kit.settle("one", last, want=5).claimed.claims) == ["a2"]

    @pytest.mark.parametrize("kind", [ops.Kind.SUCCEEDED, ops.Kind.DROPPED, ops.Kind.FAILED, ops.Kind.CANCELLED])
    def test_a_kept_slot_is_free_whatever_way_the_job_ends(self, kit: Kit, kind: ops.Kind) -> None:
        for name in ("a1", "a2"):
            add(kit, name, ties(limits=self.IN_ORDER, user="ann"))
        first = kit.claim("one")
        assert ids_of(first) == ["a1"] and kit.claim("two") == []
        assert ids_of(kit.settle("one", first, kind, want=1).claimed.claims) == ["a2"]

    def test_a_kept_slot_is_free_when_the_job_is_cancelled_or_deleted_between_its_runs(self, kit: Kit) -> None:
        for name in ("a1", "a2", "a3"):
            add(kit, name, ties(limits=self.IN_ORDER, user="ann"))
        kit.settle("one", kit.claim("one"), ops.Kind.RETRY)
        assert kit.claim("one") == []
        assert kit.client.run(ops.cancel(kit.queue, "a1")) == "cancelled"
        second = kit.claim("one")
        assert ids_of(second) == ["a2"]
        kit.settle("one", second, ops.Kind.RETRY)
        assert kit.client.run(ops.delete(kit.queue, "a2")) == "deleted"
        assert ids_of(kit.claim("one")) == ["a3"]

    def test_who_kept_a_slot_stands_first_at_the_other_limits(self, kit: Kit) -> None:
        """Others of its user wait for it: it does not go to the end of a provider's line with each retry."""
        limits = (*self.IN_ORDER, Limit("sms", rate="1/min"))
        for n in range(5):
            add(kit, f"n{n}", ties(limits=limits, user=str(n)))
        first = kit.claim("one")
        assert ids_of(first) == ["n0"] and kit.claim("one") == []
        kit.settle("one", first, ops.Kind.RETRY, ms=0)
        assert kit.claim("one") == []
        kit.client.run(ops.refund_limit(kit.queue, "sms", 60_000))
        assert ids_of(kit.claim("one")) == ["n0"]

    def test_a_job_keeps_its_place_when_it_goes_from_one_limit_to_another(self, kit: Kit) -> None:
        """The second job of a user meets the first one at the head of the provider's line, and is not sent to its end."""
        limits = (*self.IN_ORDER, Limit("sms", rate="1/min"))
        for name, user in (("a1", "ann"), ("a2", "ann"), ("b1", "bob"), ("c1", "cy")):
            add(kit, name, ties(limits=limits, user=user))
        first = kit.claim("one")
        assert ids_of(first) == ["a1"] and kit.claim("two") == []
        kit.client.run(ops.refund_limit(kit.queue, "sms", 60_000))
        second = kit.claim("two")
        assert ids_of(second) == ["b1"]  # a2 stands aside
        kit.settle("one", first)
        kit.settle("two", second)
        assert kit.claim("one") == []
        kit.client.run(ops.refund_limit(kit.queue, "sms", 60_000))
        assert ids_of(kit.claim("one")) == ["a2"]

    def test_a_limit_is_changed_at_run_time(self, kit: Kit) -> None:
        """What was set holds over what jobs say, at once, until it is taken back."""
        for name in "abc":
            add(kit, name, ties(limits=(Limit("db", concurrency=1),)))
        kit.claim("one")
        assert kit.claim("two") == []
        kit.client.run(ops.set_limit(kit.queue, "db", {"c": 2}))
        assert ids_of(kit.claim("two")) == ["b"]

    def test_urgent_ones_overtake(self, kit: Kit) -> None:
        """Parked jobs stand by priority, then arrival."""
        one = (Limit("db", concurrency=1),)
        add(kit, "a", ties(limits=one))
        running = kit.claim("one")
        for name in "bc":
            add(kit, name, ties(limits=one))
        assert kit.claim("two") == []
        add(kit, "urgent", ties(limits=one), priority=50)
        assert kit.claim("two") == []
        assert ids_of(kit.settle("one", running, want=1).claimed.claims) == ["urgent"]

    def test_a_parked_job_can_be_cancelled_and_deleted(self, kit: Kit) -> None:
        """It leaves the limit's queue."""
        for name in "abc":
            add(kit, name, ties(limits=(Limit("db", concurrency=1),)))
        running = kit.claim("one")
        kit.claim("two")
        assert kit.client.run(ops.cancel(kit.queue, "b")) == "cancelled"
        assert kit.client.run(ops.delete(kit.queue, "c")) == "deleted"
        assert kit.settle("one", running, want=5).claimed.claims == []


class TestRate:
    def test_jobs_start_no_faster_than_the_rate(self, kit: Kit) -> None:
        """Two at once (the burst), then parked; the claim says when to look again."""
        for name in "abcd":
            add(kit, name, ties(limits=(Limit("api", rate="1/min", burst=2),)))
        claimed = kit.claimed("one")
        assert ids_of(claimed.claims) == ["a", "b"]
        assert claimed.next_due_ms is not None and 50_000 < claimed.next_due_ms <= 60_000
        assert kit.claim("two") == []

    def test_cost_is_taken_from_the_burst(self, kit: Kit) -> None:
        """A job of cost 3 takes as much as three."""
        for name in "abc":
            add(kit, name, ties(limits=(Limit("api", rate="1/min", burst=4, cost=3),)))
        assert ids_of(kit.claim("one")) == ["a"]

    def test_a_cheap_job_does_not_pass_a_dear_one_that_is_parked(self, kit: Kit) -> None:
        """Else one that needs much of a rate would wait for ever."""
        for name, cost in (("a", 1), ("dear", 3), ("cheap", 1)):
            add(kit, name, ties(limits=(Limit("api", rate="1/min", burst=3, cost=cost),)))
        assert ids_of(kit.claim("one")) == ["a"]

    def test_what_is_given_back_unstarted_costs_nothing(self, kit: Kit) -> None:
        """The next claim may take it at once."""
        for name in "abc":
            add(kit, name, ties(limits=(Limit("api", rate="1/min", burst=2),)))
        claims = kit.claim("one")
        kit.client.run(ops.give_back(kit.queues, "one", [(c.queue, c.id) for c in claims], split=kit.split))
        assert ids_of(kit.claim("two")) == ["a", "b"]

    def test_a_limit_is_held_for_a_while(self, kit: Kit) -> None:
        """What a 429 with Retry-After asks for."""
        add(kit, "a", ties(limits=(Limit("api", rate="100/s", burst=100),)))
        kit.client.run(ops.hold_limit(kit.queue, "api", 60_000))
        claimed = kit.claimed("one")
        assert claimed.claims == []
        assert claimed.next_due_ms is not None and claimed.next_due_ms > 50_000

    def test_a_share_is_refunded(self, kit: Kit) -> None:
        """A job that did not call after all gives its share back."""
        for name in "ab":
            add(kit, name, ties(limits=(Limit("api", rate="1/min"),)))
        assert ids_of(kit.claim("one")) == ["a"]
        assert kit.claim("two") == []
        kit.client.run(ops.refund_limit(kit.queue, "api", 60_000))
        assert ids_of(kit.claim("two")) == ["b"]

    def test_many_over_the_limit_are_parked_in_one_look(self, kit: Kit) -> None:
        """A claim passes over them to what may run."""
        packed = ties(limits=(Limit("api", rate="1/min"),))
        kit.client.enqueue("default", [ops.NewJob(f"j{n:03}", kit.record(), ties=packed) for n in range(200)])
        kit.add("free")
        assert ids_of(kit.claim("one", 8)) == ["j000", "free"]

    def test_jobs_parked_together_keep_the_order_in_which_they_came(self, kit: Kit) -> None:
        """Not that of their ids."""
        packed = ties(limits=(Limit("api", rate="1/min"),))
        kit.client.enqueue("default", [ops.NewJob(name, kit.record(), ties=packed) for name in "xdcba"])
        assert ids_of(kit.claim("one", 8)) == ["x"]
        key = kit.queue.base + "parked:api"
        assert kit.client.run(ops.command("ZRANGE", key, 0, -1, key=key, decode=list)) == [b"d", b"c", b"b", b"a"]

    def test_a_claim_of_one_job_passes_many_that_are_shut_out(self, kit: Kit) -> None:
        """It looks at more than it wants, hands out one, and the others keep their order."""
        packed = ties(limits=(Limit("api", rate="1/min"),))
        kit.client.enqueue("default", [ops.NewJob(f"j{n:03}", kit.record(), ties=packed) for n in range(400)])
        open_ = ties(limits=(Limit("wide", rate="1000/s", burst=100),))
        kit.client.enqueue("default", [ops.NewJob(f"o{n}", kit.record(), ties=open_) for n in range(9)])
        assert ids_of(kit.claim("one", 1)) == ["j000"]
        assert [ids_of(kit.claim("one", 1)) for _ in range(9)] == [[f"o{n}"] for n in range(9)]
        assert kit.claimed("one", 1).more is False
        key = kit.queue.base + "parked:api"
        parked = kit.client.run(ops.command("ZRANGE", key, 0, -1, key=key, decode=list))
        assert parked == [b"j%03d" % n for n in range(1, 400)]

    def test_the_end_of_a_job_opens_no_gate_of_a_rate(self, kit: Kit) -> None:
        """Nothing of a rate comes back with an end: who is parked is looked at when the gate is due, not before."""
        packed = ties(limits=(Limit("api", rate="1/min"),))
        for n in range(3):
            add(kit, f"j{n}", packed)
        claims = kit.claim("one", 3)
        key = kit.queue.base + "gates"
        before = kit.client.run(ops.command("ZSCORE", key, "api", key=key, decode=float))
        kit.settle("one", claims)
        assert kit.client.run(ops.command("ZSCORE", key, "api", key=key, decode=float)) == before


class TestGroups:
    def test_groups_take_turns(self, kit: Kit) -> None:
        """A tenant with many jobs delays another's first by one job."""
        for n in range(50):
            add(kit, f"big{n:02}", ties(group="big"))
        assert ids_of(kit.claim("one", 3)) == ["big00", "big01", "big02"]
        add(kit, "small0", ties(group="small"))
        assert "small0" in ids_of(kit.claim("two", 2))

    def test_a_group_of_weight_three_has_three_turns(self, kit: Kit) -> None:
        """Over a while each gets its share."""
        for n in range(40):
            add(kit, f"a{n:02}", ties(group="a", weight=3))
            add(kit, f"b{n:02}", ties(group="b"))
        assert Counter(name[0] for name in ids_of(kit.claim("one", 40))) == {"a": 30, "b": 10}

    def test_jobs_without_a_group_are_one_more(self, kit: Kit) -> None:
        """Plain jobs and groups do not starve each other."""
        kit.add(*(f"plain{n}" for n in range(10)))
        for n in range(10):
            add(kit, f"group{n}", ties(group="g"))
        first = ids_of(kit.claim("one", 10))
        assert sum(name.startswith("group") for name in first) == 5

    def test_order_within_a_group_is_kept_through_a_give_back(self, kit: Kit) -> None:
        """What was claimed and not started stands first again."""
        for n in range(4):
            add(kit, f"a{n}", ties(group="a"))
        claims = kit.claim("one", 2)
        kit.client.run(ops.give_back(kit.queues, "one", [(c.queue, c.id) for c in claims], split=kit.split))
        assert ids_of(kit.claim("two", 4)) == ["a0", "a1", "a2", "a3"]

    def test_nothing_is_left_when_all_is_done(self, kit: Kit) -> None:
        """The keys of groups and limits are gone with their jobs."""
        kit.add("plain")
        for n in range(4):
            add(kit, f"a{n}", ties(group="a", limits=(Limit("db", concurrency=5),), unique=Unique("n"), n=n))
        while claims := kit.claim("one"):
            kit.settle("one", claims, ops.Kind.DROPPED)
        kit.client.run(ops.tend(kit.queue, sweep=False))
        kept = {"meta", "producers", "sessions", "stats", "wake"}
        assert kit.key_names() <= kept


class TestQueueLimits:
    def test_no_more_run_than_the_queue_allows(self, kit: Kit) -> None:
        """`max_running` counts what all sessions hold."""
        kit.add(*"abcde")
        kit.client.run(ops.bound_queue(kit.queue, {"max_running": 3}))
        assert len(kit.claim("one", 2)) == 2
        second = kit.claim("two", 5)
        assert len(second) == 1
        assert kit.claim("two", 5) == []
        assert len(kit.settle("two", second, want=5).claimed.claims) == 1

    def test_a_full_queue_refuses_and_says_so(self, kit: Kit) -> None:
        """Nothing of the call is stored."""
        kit.client.run(ops.bound_queue(kit.queue, {"max_length": 2}))
        kit.add("a")
        with pytest.raises(QueueFull, match="may have 2"):
            kit.add("b", "c")
        assert kit.state("b") == "none"
        kit.add("b")

    def test_a_full_queue_drops_the_oldest_when_told_to(self, kit: Kit) -> None:
        """They end as cancelled, with the reason."""
        kit.client.run(ops.bound_queue(kit.queue, {"max_length": 2, "overflow": "drop_oldest"}))
        kit.add("a", "b")
        kit.add("c")
        assert kit.state("a") == "cancelled"
        assert ids_of(kit.claim("one")) == ["b", "c"]


def command_count(kit: Kit, name: str) -> Any:
    return ops.command("SCARD", kit.queue.base + name, key=kit.queue.base + name, decode=int)
