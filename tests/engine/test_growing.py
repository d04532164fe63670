"""What a job adds to its flow, cut off after each thing it sends: it is there whole or not at all, and keeps nothing waiting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from engine_kit import Kit

from headrace import Headrace, RunningFlow, StaleRun, UsageError, group
from headrace.context import JobContext
from headrace.engine import flows, ops
from headrace.engine.audit import audit
from headrace.engine.call import Store
from headrace.engine.clients import SyncClient
from headrace.errors import RetryIn
from headrace.growth import Added, Growth

MOST_SENT = 40
MOST_CUT = 12
LATER_MS = 2**45


class Running(JobContext):
    """A job as its code sees it, held by the session `one`."""

    __slots__ = ()

    @property
    def session(self) -> str:
        return "one"


@pytest.fixture
def app(client: SyncClient) -> Iterator[Headrace]:
    client.run(ops.command("FLUSHALL", decode=lambda reply: reply)) if not client.is_cluster else None
    app = Headrace(client.config.url)

    @app.task(name="work")
    def work(number: int) -> int:
        return number

    @app.task(name="far", queue="other")
    def far(number: int) -> int:
        return number

    yield app
    app.close()


@pytest.fixture
def kit(client: SyncClient, app: Headrace) -> Kit:
    kit = Kit(client, "default", "other")
    kit.open("one")
    return kit


def flow_of_two(app: Headrace) -> str:
    """A job, and one that waits for it."""
    flow = app.flow()
    flow.add(call(app, 1), after=())
    flow.add(call(app, 2), after=flow.nodes[0], when="ended")
    return app.send_flow(flow).id


def call(app: Headrace, number: int, task: str = "work") -> Any:
    found = app.find_task(task)
    assert found is not None
    return found.call(number)


def growth_of(app: Headrace, flow_id: str, **options: Any) -> Growth:
    """Two jobs side by side, one that follows them on another queue; the flow's second step is to wait for it."""
    more = app.flow()
    more.add(call(app, 5, "far"), after=more.add(group([call(app, 3), call(app, 4)])))
    running = RunningFlow(flow_id, Running(f"{flow_id}.0", "default", "work"))
    return running._growth(more, None, options.pop("before", 1), (), "succeeded")


def send(app: Headrace, growth: Growth, most: int = MOST_SENT) -> Added | None:
    """Send the first so many of what it sends; None: that was not all."""
    steps = growth.steps(app)
    answer: Any = None
    try:
        for _ in range(most):
            step = steps.send(answer)
            is_store = isinstance(step, Store)
            answer = app.client.enqueue(step.queue, step.jobs, step.durability) if is_store else app.client.run(step)
    except StopIteration as end:
        added: Added = end.value
        return added
    return None


def run_all(kit: Kit) -> list[str]:
    """Work until nothing is left, and what ran."""
    ran: list[str] = []
    while True:
        for queue in kit.queues:
            kit.client.run(flows.deliver(queue))
        claims = kit.claim("one", 1)
        if not claims:
            return ran
        ran.append(claims[0].id)
        kit.settle("one", claims)


def nothing_is_left(kit: Kit) -> None:
    for queue in kit.queues:
        assert kit.client.run(audit(queue)).violations == []
    if not kit.client.is_cluster:
        left = {name.partition(":")[0] for name in kit.key_names()}
        assert not left & {"waiting", "ties", "growing", "incomplete", "outbox"}, left


class TestGrowing:
    def test_what_was_cut_off_is_added_whole_by_the_next_run(self, kit: Kit, app: Headrace) -> None:
        """After each thing that is sent: the run ends there, the next adds the same, and each job of it runs once."""
        for sent in range(MOST_CUT):
            flow_id = flow_of_two(app)
            first = kit.claim("one", 1)
            send(app, growth_of(app, flow_id), sent)
            kit.release("one")
            kit.open("one")
            again = kit.claim("one", 1)
            assert [claim.id for claim in again] == [claim.id for claim in first]
            added = send(app, growth_of(app, flow_id))
            assert added is not None
            kit.settle("one", again)
            ran = run_all(kit)
            assert ran[-1] == f"{flow_id}.1"
            assert sorted(ran[:-1]) == [f"{added.id}.0.0", f"{added.id}.0.1", f"{added.id}.1"]
            nothing_is_left(kit)

    def test_what_was_cut_off_for_good_keeps_nothing_waiting(self, kit: Kit, app: Headrace) -> None:
        """The job fails instead: what it had begun to add is taken away by those who tend the queue, or was added whole."""
        for sent in range(MOST_CUT):
            flow_id = flow_of_two(app)
            claims = kit.claim("one", 1)
            send(app, growth_of(app, flow_id), sent)
            kit.client.run(flows.sweep(kit.queue, LATER_MS))
            kit.settle("one", claims, ops.Kind.FAILED)
            for _ in range(2):
                kit.client.run(flows.sweep(kit.queue, LATER_MS))
            ran = run_all(kit)
            assert ran[-1] == f"{flow_id}.1"
            assert len(ran) in (1, 4)
            nothing_is_left(kit)

    def test_who_does_not_hold_the_job_adds_nothing(self, kit: Kit, app: Headrace) -> None:
        """Neither at the start nor at the end of it."""
        flow_id = flow_of_two(app)
        growth = growth_of(app, flow_id)
        with pytest.raises(StaleRun):
            send(app, growth)
        kit.claim("one", 1)
        begun = growth.steps(app)
        answer: Any = None
        for _ in islice(range(MOST_SENT), 4):
            step = begun.send(answer)
            answer = app.client.enqueue(step.queue, step.jobs) if isinstance(step, Store) else app.client.run(step)
        kit.release("one")
        kit.open("two")
        with pytest.raises(StaleRun):
            while True:
                step = begun.send(answer)
                answer = app.client.enqueue(step.queue, step.jobs) if isinstance(step, Store) else app.client.run(step)

    def test_what_does_not_wait_any_more_cannot_be_told_to(self, kit: Kit, app: Headrace) -> None:
        """The adding job's own step (that would be a circle), and steps there are not; then nothing waits for ever."""
        flow_id = flow_of_two(app)
        claims = kit.claim("one", 1)
        with pytest.raises(UsageError, match=rf"job {flow_id}\.0 does not wait any more"):
            send(app, growth_of(app, flow_id, before=[1, 0]))
        with pytest.raises(UsageError, match="no such step 7"):
            send(app, growth_of(app, flow_id, before=7))
        with pytest.raises(UsageError, match="2 steps run it"):
            send(app, growth_of(app, flow_id, before="work"))
        kit.settle("one", claims)
        assert run_all(kit) == [f"{flow_id}.1"]
        kit.client.run(flows.sweep(kit.queue, LATER_MS))
        nothing_is_left(kit)

    def test_an_added_step_that_failed_is_retried_with_what_waited_for_it(self, kit: Kit, app: Headrace) -> None:
        """`retry` of the flow reaches it, and the declared step waits for it again; `cancel` reaches it too."""
        flow = app.flow()
        flow.add(call(app, 2), after=flow.add(call(app, 1)))
        run = app.send_flow(flow)
        claims = kit.claim("one", 1)
        added = send(app, growth_of(app, run.id))
        assert added is not None
        kit.settle("one", claims)
        failing = kit.claim("one", 1)
        kit.settle("one", failing, ops.Kind.FAILED)
        run_all(kit)
        state = run.look()
        assert state.state == "failed"
        assert [step.states for step in state.steps] == [
            {"succeeded": 1}, {"cancelled": 1}, {"failed": 1, "succeeded": 1}, {"cancelled": 1}
        ]  # fmt: skip
        assert run.retry() == 1
        assert run_all(kit) == [failing[0].id, f"{added.id}.1", f"{run.id}.1"]
        assert run.look().state == "succeeded"
        nothing_is_left(kit)

    def test_a_cancelled_flow_cancels_what_was_added(self, kit: Kit, app: Headrace) -> None:
        """Also what waits among it."""
        flow_id = flow_of_two(app)
        claims = kit.claim("one", 1)
        send(app, growth_of(app, flow_id))
        run = app.flows.get(flow_id)
        assert run.cancel() == 5
        kit.settle("one", claims, ops.Kind.CANCELLED)
        assert run_all(kit) == []
        assert run.look().state == "cancelled"
        nothing_is_left(kit)

    def test_what_is_being_taken_away_is_added_later(self, kit: Kit, app: Headrace) -> None:
        """A failed job is put back while its remains are cleared: its run comes back in a second."""
        flow_id = flow_of_two(app)
        claims = kit.claim("one", 1)
        growth = growth_of(app, flow_id)
        send(app, growth, 3)
        kit.settle("one", claims, ops.Kind.FAILED)
        clearing = flows.sweep(kit.queue, LATER_MS)
        answer: Any = None
        while True:
            step = clearing.send(answer)
            answer = kit.client.run(step)
            if step.script is not None and step.script.name == "grow_clear":
                break
        kit.client.run(ops.retry(kit.queue, f"{flow_id}.0"))
        kit.claim("one", 1)
        with pytest.raises(RetryIn):
            send(app, growth)
        kit.client.run(flows.sweep(kit.queue, LATER_MS))
        with pytest.raises(UsageError, match=rf"job {flow_id}\.1 does not wait any more"):
            send(app, growth)
        assert send(app, growth_of(app, flow_id, before=())) is not None
