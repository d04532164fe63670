"""Edges between jobs, as the scripts keep them: inputs come once, ends are passed on, nothing waits for what cannot come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from engine_kit import Kit, ids_of

from headrace.core.record import State
from headrace.engine import admin, flows, ops
from headrace.engine.audit import repair
from headrace.engine.clients import SyncClient


@pytest.fixture
def kit(client: SyncClient) -> Kit:
    kit = Kit(client)
    kit.open("one")
    return kit


def edge(child: str, number: int = 0, when: str = "s", **more: Any) -> dict[str, Any]:
    return {"q": "", "c": child, "n": number, "w": when, **more}


def store(kit: Kit, job_id: str, *edges: dict[str, Any], inputs: int = 0, queue: str = "default", **more: Any) -> None:
    """A job with edges that waits for so many inputs."""
    ties = {**({"p": inputs} if inputs else {}), **({"e": list(edges)} if edges else {}), **more}
    packed = msgspec.msgpack.encode(ties) if ties else b""
    kit.client.enqueue(queue, [ops.NewJob(job_id, kit.record(ties=packed or None), ties=packed, pass_over=True)])


def run_next(kit: Kit, kind: ops.Kind = ops.Kind.SUCCEEDED) -> list[str]:
    claims = kit.claim("one", 1)
    kit.settle("one", claims, kind)
    return ids_of(claims)


class TestEdges:
    def test_a_child_starts_when_its_parents_have_succeeded(self, kit: Kit) -> None:
        """Two parents; it waits until both have ended."""
        store(kit, "child", inputs=2)
        store(kit, "a", edge("child", 0))
        store(kit, "b", edge("child", 1))
        assert kit.state("child") == State.WAITING
        assert run_next(kit) == ["a"]
        assert kit.state("child") == State.WAITING
        assert run_next(kit) == ["b"]
        assert run_next(kit) == ["child"]
        assert run_next(kit) == []

    def test_what_comes_after_a_child_was_cancelled_is_there_when_it_is_put_back(self, kit: Kit) -> None:
        """One parent fails, then another succeeds: the child and the failed one are retried, and the other is not needed again."""
        store(kit, "child", inputs=2)
        store(kit, "a", edge("child", 0))
        store(kit, "b", edge("child", 1))
        assert run_next(kit, ops.Kind.FAILED) == ["a"]
        assert kit.state("child") == State.CANCELLED
        assert run_next(kit) == ["b"]
        assert kit.client.run(ops.retry(kit.queue, "child")) == "queued"
        assert kit.state("child") == State.WAITING
        ties = msgspec.msgpack.encode({"e": [edge("child", 0)]})
        failed = kit.look("a")
        assert failed is not None
        kit.client.run(ops.retry(kit.queue, "a"))
        kit.client.run(flows.arrive(kit.queue, "child", 0, "s", 6, "a", kit.record(ties=ties)))
        assert kit.state("child") == State.QUEUED

    def test_a_flow_is_forgotten_after_thirty_days(self, kit: Kit) -> None:
        """What is noted of it goes as later flows of the queue are noted; younger ones stay."""
        graph = flows.encode_graph(flows.Graph("", 0, []))
        for flow_id in ("old", "young"):
            kit.client.run(flows.put_flow(kit.queue, flow_id, graph, is_whole=True))
        key = kit.queue.base + "flows"
        kit.client.run(ops.command("ZINCRBY", key, -31 * 86_400_000, "old", key=key, decode=lambda reply: reply))
        kit.client.run(flows.put_flow(kit.queue, "new", graph, is_whole=False))
        assert sorted(kit.client.run(flows.flow_ids(kit.queue, 0, -1))) == ["new", "young"]
        assert kit.client.run(flows.read_graph(kit.queue, "old")) is None
        assert kit.client.run(flows.read_graph(kit.queue, "young")) == graph

    def test_the_settle_that_frees_a_child_claims_it(self, kit: Kit) -> None:
        """A chain costs no round trip more."""
        store(kit, "child", inputs=1)
        store(kit, "a", edge("child"))
        settled = kit.settle("one", kit.claim("one"), want=1)
        assert ids_of(settled.claimed.claims) == ["child"]

    @pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one settle"])
    def test_a_child_that_reads_is_given_the_ended_records(self, kit: Kit, together: bool) -> None:
        """By input number; also of a job that is dropped as it succeeds."""
        store(kit, "child", inputs=2, i=True)
        store(kit, "a", edge("child", 0, r=True))
        store(kit, "b", edge("child", 1, r=True))
        if together:
            kit.settle("one", kit.claim("one"), ops.Kind.DROPPED)
        else:
            run_next(kit)
            run_next(kit, ops.Kind.DROPPED)
        claimed = kit.claimed("one")
        assert claimed.with_inputs == {"child"}
        inputs = kit.client.run(flows.inputs(kit.queue, "child"))
        assert sorted(inputs) == [0, 1]
        assert all(record[2] == 6 for record in inputs.values())

    @pytest.mark.parametrize(
        ("when", "kind", "becomes"),
        [
            ("s", ops.Kind.SUCCEEDED, State.QUEUED), ("s", ops.Kind.FAILED, State.CANCELLED),
            ("s", ops.Kind.CANCELLED, State.CANCELLED), ("f", ops.Kind.SUCCEEDED, State.CANCELLED),
            ("f", ops.Kind.FAILED, State.QUEUED), ("a", ops.Kind.SUCCEEDED, State.QUEUED),
            ("a", ops.Kind.FAILED, State.QUEUED), ("a", ops.Kind.CANCELLED, State.QUEUED),
            ("s", ops.Kind.RETRY, State.WAITING),
        ],
    )  # fmt: skip
    def test_what_becomes_of_a_child(self, kit: Kit, when: str, kind: ops.Kind, becomes: State) -> None:
        """By what it waits for, and how that ended; a retry is no end."""
        store(kit, "child", inputs=1)
        store(kit, "a", edge("child", when=when))
        run_next(kit, kind)
        look = kit.look("child")
        assert look is not None
        assert look.state is State.WAITING if becomes is State.WAITING else not look.session
        assert look.state in (becomes, State.RUNNING)
        if becomes is State.CANCELLED:
            reason = msgspec.msgpack.decode(look.record)[-1]
            assert reason.startswith("job a, which it waited for, ")

    @pytest.mark.parametrize("end", ["cancel", "delete", "purge", "release"])
    def test_whatever_way_a_parent_ends_its_children_hear_of_it(self, kit: Kit, end: str) -> None:
        """Cancelled, deleted or purged before it ran, or failed for its worker's deaths: nothing waits for ever."""
        store(kit, "grandchild", inputs=1)
        store(kit, "child", edge("grandchild"), inputs=1)
        store(kit, "a", edge("child"))
        ways: dict[str, Callable[[], Any]] = {
            "cancel": lambda: kit.client.run(ops.cancel(kit.queue, "a")),
            "delete": lambda: kit.client.run(ops.delete(kit.queue, "a")),
            "purge": lambda: kit.client.run(admin.purge(kit.queue, State.QUEUED)),
            "release": lambda: [die(kit) for _ in range(4)],
        }
        ways[end]()
        assert kit.state("child") == kit.state("grandchild") == State.CANCELLED

    def test_an_input_comes_once_however_often_it_is_sent(self, kit: Kit) -> None:
        """A letter that is delivered twice does not count twice."""
        store(kit, "child", inputs=2)
        call = flows.arrive(kit.queue, "child", 0, "s", 6, "a", b"")
        kit.client.run(call)
        kit.client.run(call)
        assert kit.state("child") == State.WAITING
        kit.client.run(flows.arrive(kit.queue, "child", 1, "s", 6, "b", b""))
        assert run_next(kit) == ["child"]

    def test_an_input_that_is_there_does_not_count_beside_others_that_come(self, kit: Kit) -> None:
        """It is sent again in a settle that brings another one, too."""
        store(kit, "child", inputs=3)
        store(kit, "a", edge("child", 0))
        store(kit, "b", edge("child", 1))
        kit.client.run(flows.arrive(kit.queue, "child", 0, "s", 6, "a", b""))
        kit.settle("one", kit.claim("one"))
        assert kit.state("child") == State.WAITING
        kit.client.run(flows.arrive(kit.queue, "child", 2, "s", 6, "c", b""))
        assert run_next(kit) == ["child"]

    def test_a_child_that_is_deleted_leaves_no_input(self, kit: Kit) -> None:
        store(kit, "child", inputs=2, i=True)
        store(kit, "a", edge("child", 0, r=True))
        run_next(kit)
        assert any(name.startswith("inputs:") for name in kit.key_names())
        kit.client.run(ops.delete(kit.queue, "child"))
        assert not any(name.startswith(("inputs:", "expects:")) for name in kit.key_names())

    def test_a_child_whose_record_was_lost_leaves_no_input_when_that_is_mended(self, kit: Kit) -> None:
        store(kit, "child", inputs=2, i=True)
        store(kit, "a", edge("child", 0, r=True))
        run_next(kit)
        key = kit.queue.jobs
        assert 1 == kit.client.run(ops.command("HDEL", key, "child", key=key, decode=int))
        left = [found.rule for found in kit.client.run(repair(kit.queue)).violations]
        assert [] == left
        assert not any(name.startswith(("inputs:", "expects:")) for name in kit.key_names())

    def test_many_children_start(self, kit: Kit) -> None:
        """More than one script does: the rest goes through the outbox, which the settle tells of."""
        count = 1_000
        news = [
            ops.NewJob(f"m.{n}", kit.record(), ties=msgspec.msgpack.encode({"p": 1}), pass_over=True)
            for n in range(count)
        ]
        kit.client.enqueue("default", news)
        store(kit, "a", edge("m.", k=count))
        settled = kit.settle("one", kit.claim("one", 1))
        assert [queue.name for queue in settled.outboxes or ()] == ["default"]
        kit.client.run(flows.deliver(kit.queue))
        assert kit.client.run(admin.count_jobs(kit.queue)).ready == count

    def test_a_long_chain_of_cancels_is_followed_to_its_end(self, kit: Kit) -> None:
        """No recursion, no end of the stack."""
        for n in range(1_100):
            store(kit, f"c{n}", edge(f"c{n + 1}"), inputs=1)
        store(kit, "c1100", inputs=1)
        store(kit, "a", edge("c0"))
        run_next(kit, ops.Kind.FAILED)
        kit.client.run(flows.deliver(kit.queue))
        assert kit.state("c1100") == State.CANCELLED

    def test_of_very_many_that_end_together_each_child_starts(self, kit: Kit) -> None:
        """Also those that are more than one script follows."""
        count, each = 256, 3
        waits = msgspec.msgpack.encode({"p": 1})
        children = [ops.NewJob(f"c{n}", kit.record(), ties=waits, pass_over=True) for n in range(count * each)]
        kit.client.enqueue("default", children)
        for n in range(count):
            store(kit, f"p{n}", *(edge(f"c{each * n + i}") for i in range(each)))
        settled = kit.settle("one", kit.claim("one", count))
        assert [queue.name for queue in settled.outboxes or ()] == ["default"]
        assert 512 == kit.client.run(admin.count_jobs(kit.queue)).ready
        kit.client.run(flows.deliver(kit.queue))
        assert count * each == kit.client.run(admin.count_jobs(kit.queue)).ready

    def test_a_failed_job_that_is_retried_frees_its_children_again(self, kit: Kit) -> None:
        """Children that were cancelled are put back to wait; what had come stays."""
        store(kit, "child", inputs=2)
        store(kit, "a", edge("child", 0))
        store(kit, "b", edge("child", 1))
        run_next(kit)
        run_next(kit, ops.Kind.FAILED)
        assert kit.state("child") == State.CANCELLED
        kit.client.run(ops.retry(kit.queue, "child"))
        assert kit.state("child") == State.WAITING
        kit.client.run(ops.retry(kit.queue, "b"))
        assert run_next(kit) == ["b"]
        assert run_next(kit) == ["child"]

    def test_what_waits_too_long_fails(self, kit: Kit) -> None:
        """A signal that does not come in time."""
        store(kit, "after", inputs=1)
        store(kit, "signal", edge("after"), inputs=1, x=1)
        ends = kit.client.run(admin.count_jobs(kit.queue)).server_ms + 50
        while kit.client.run(admin.count_jobs(kit.queue)).server_ms < ends:
            pass
        kit.client.run(ops.tend(kit.queue, sweep=False))
        assert kit.state("signal") == State.FAILED
        assert kit.state("after") == State.CANCELLED

    def test_nothing_is_left_when_all_is_done(self, kit: Kit) -> None:
        """No inputs, no ties, no letters."""
        store(kit, "child", inputs=1, i=True)
        store(kit, "a", edge("child", r=True))
        run_next(kit, ops.Kind.DROPPED)
        run_next(kit, ops.Kind.DROPPED)
        assert kit.key_names() <= {"meta", "producers", "sessions", "stats", "wake"}


class TestAcrossQueues:
    def test_a_child_on_another_queue_starts(self, client: SyncClient) -> None:
        """Through the outbox; delivered twice by two who look at once, it starts once."""
        kit = Kit(client, "default", "other")
        kit.open("one")
        store(kit, "child", inputs=1, queue="other")
        store(kit, "a", {**edge("child"), "q": "other"})
        settled = kit.settle("one", kit.claim("one", 1))
        assert [queue.name for queue in settled.outboxes or ()] == ["default"]
        assert client.run(flows.deliver(kit.queue)) == 1
        assert client.run(flows.deliver(kit.queue)) == 0
        assert ids_of(kit.claim("one", 1)) == ["child"]

    def test_a_supervisor_delivers_what_a_dead_worker_left(self, client: SyncClient) -> None:
        """The letter was written with the parent's end; whoever tends the queue brings it."""
        kit = Kit(client, "default", "other")
        kit.open("one")
        store(kit, "child", inputs=1, queue="other")
        store(kit, "a", {**edge("child"), "q": "other"})
        kit.settle("one", kit.claim("one", 1))
        tended = client.run(ops.tend(kit.queue, sweep=False))
        assert tended.has_letters
        client.run(flows.sweep(kit.queue, tended.server_ms))
        assert ids_of(kit.claim("one", 1)) == ["child"]


class TestLinks:
    def test_a_job_waits_for_one_that_is_there(self, kit: Kit) -> None:
        """Linked before its end, or after: it starts."""
        kit.add("before", "after")
        claims = kit.claim("one", 2)
        kit.settle("one", claims[:1])
        store(kit, "child", inputs=2, o=[("default", "before", "s"), ("default", "after", "s")])
        parents = [("default", "before", "s"), ("default", "after", "s")]
        assert kit.client.run(flows.link_all(kit.queue, "child", parents)) == ""
        kit.client.run(flows.link_all(kit.queue, "child", parents))
        assert kit.state("child") == State.WAITING
        kit.settle("one", claims[1:])
        assert run_next(kit) == ["child"]

    def test_a_producer_that_died_before_it_linked_is_made_good(self, kit: Kit) -> None:
        """The sweep links again, once it has waited long enough."""
        kit.add("parent")
        store(kit, "child", inputs=1, o=[("default", "parent", "s")])
        server_ms = ops.tend(kit.queue, sweep=False)
        tended = kit.client.run(server_ms)
        assert tended.is_half_done
        kit.client.run(flows.sweep(kit.queue, tended.server_ms + flows.LINK_AGAIN_AFTER_MS + 1))
        run_next(kit)
        assert run_next(kit) == ["child"]
        assert not kit.client.run(ops.tend(kit.queue, sweep=False)).is_half_done

    def test_a_flow_that_was_never_whole_is_given_up(self, kit: Kit) -> None:
        """Its producer died after the jobs that wait, before those that begin."""
        graph = flows.Graph(
            "half", 0, [flows.GraphNode("t", "default", 0, []), flows.GraphNode("t", "default", 0, [(0, "s")])]
        )
        kit.client.run(flows.put_flow(kit.queue, "flow", flows.encode_graph(graph), is_whole=False))
        store(kit, "flow.1", inputs=1)
        now = kit.client.run(ops.tend(kit.queue, sweep=False)).server_ms
        kit.client.run(flows.sweep(kit.queue, now))
        assert kit.state("flow.1") == State.WAITING
        kit.client.run(flows.sweep(kit.queue, now + flows.ABANDONED_AFTER_MS + 1))
        assert kit.state("flow.1") == State.CANCELLED


def die(kit: Kit) -> None:
    """The worker of the next job dies; another begins."""
    claims = kit.claim("one", 1)
    kit.release("one", *[claim.id for claim in claims])
    kit.open("one")
