"""Adding to a flow while it runs, by its own jobs: `current_flow()`.

What is added is stored as jobs that wait; one script, which refuses who does not hold the adding job any more, then makes
them part of the flow and lets the first of them start. So it is added whole or not at all, and once: its ids are made of
the adding job's id and a key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from headrace.chain import LETTERS, CallGroup, Chain, Flow, Node, When
from headrace.context import BatchContext, JobContext, get_current
from headrace.core.record import Stored
from headrace.engine import admin, flows
from headrace.engine.call import Steps
from headrace.engine.flows import PART, Graph, Part, Waiter
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.errors import JobNotFound, RetryIn, StaleRun, UsageError
from headrace.flow import App
from headrace.flow_jobs import Joint, compile_flow
from headrace.job import JobCall
from headrace.sending import Sender, announce

MOST_STEPS_ADDED = 1_000
MOST_LINKS = 10_000
ID_CHARS = 20  # of a flow's id, as `new_job_id` makes it
Target: TypeAlias = "int | str | Any"


class Added(msgspec.Struct, frozen=True):
    """What `current_flow().add(...)` has added. `is_new`: False when an earlier run of the job did.

    `last`: (queue, id) of the jobs that nothing of it comes after: what `after=` waits for.
    """

    id: str
    adder: str
    is_new: bool
    last: list[tuple[str, str]]


class RunningFlow:
    """The flow that the current job is a step of: what `current_flow()` gives."""

    __slots__ = ("_job", "id")

    def __init__(self, flow_id: str, job: JobContext) -> None:
        self.id = flow_id
        self._job = job

    def __repr__(self) -> str:
        return f"<RunningFlow {self.id}>"

    def add(
        self,
        step: JobCall[Any] | CallGroup[Any] | Chain[Any] | Flow,
        *,
        key: str | None = None,
        before: Target | Sequence[Target] = (),
        after: Added | Sequence[Added] = (),
        when: When = "succeeded",
    ) -> Added:
        """Add a call, a group, a chain or a whole graph to this flow; it runs at once, and the flow ends no sooner.

        All of it is added, or nothing; and once, though this job be run again.

        Args:
            key: names it among what this job adds. Without one, its tasks and arguments do: the same twice is added once.
            before: steps of the flow that are to wait for it too: their numbers, as `headrace flow show` tells, or their tasks.
            after: what this job added before, and this is to wait for; `when` is as in `Flow.add`.

        Raises:
            UsageError: a step in `before` does not wait any more (this job's own does not); `after` is nothing of this job's;
                too many steps; a signal.
            StaleRun: a newer run of this job has begun; nothing was added.
            JobNotFound: the flow is no longer kept.
        """
        growth = self._growth(step, key, before, after, when)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            app: App = growth.flow.app
            return app.client.run(growth.steps(app))
        raise UsageError("add would block the event loop: write `await current_flow().aadd(...)`")

    async def aadd(
        self,
        step: JobCall[Any] | CallGroup[Any] | Chain[Any] | Flow,
        *,
        key: str | None = None,
        before: Target | Sequence[Target] = (),
        after: Added | Sequence[Added] = (),
        when: When = "succeeded",
    ) -> Added:
        """As `add`, for async code."""
        growth = self._growth(step, key, before, after, when)
        app: App = growth.flow.app
        return await app.aclient.run(growth.steps(app))

    def _growth(self, step: Any, key: str | None, before: Any, after: Any, when: When) -> Growth:
        flow = step if isinstance(step, Flow) else _as_flow(step)
        if len(flow.nodes) > MOST_STEPS_ADDED:
            raise UsageError(
                f"at most {MOST_STEPS_ADDED:,} steps are added at once: use a group for many jobs of one kind"
            )
        if any(node.signal for node in flow.nodes):
            raise UsageError("a signal cannot be added to a flow that runs: let it be a step from the start")
        before = list(before) if isinstance(before, (list, tuple)) else [before]
        after = list(after) if isinstance(after, (list, tuple)) else [after]
        for each in after:
            if not isinstance(each, Added) or each.adder != self._job.id:
                raise UsageError(f"after: expected what this job has added to its flow, got {each!r:.80}")
        if when not in LETTERS:
            raise UsageError(f"when: expected 'succeeded', 'ended' or 'failed', got {when!r:.40}")
        name = key if key is not None else _content(flow)
        digest = hashlib.blake2b(f"{self._job.id} {name}".encode(), digest_size=8).hexdigest()
        return Growth(self.id, self._job, flow, f"{self.id}{PART}{digest}", before, after, LETTERS[when])


def current_flow() -> RunningFlow:
    """The flow that the current job is a step of, to add to it.

    Raises:
        UsageError: this runs in no job, in one that is of no flow, or in several at once (a batch task).
    """
    job = get_current()
    if job is None or isinstance(job, BatchContext) or not job.id:
        raise UsageError("current_flow: this code runs in no job of a flow")
    flow_id = job.id.split(".")[0].partition(PART)[0]
    if "." not in job.id or len(flow_id) != ID_CHARS or not all(part.isdigit() for part in job.id.split(".")[1:]):
        raise UsageError(f"current_flow: job {job.id} is no step of a flow")
    return RunningFlow(flow_id, job)


def _as_flow(step: Any) -> Flow:
    if isinstance(step, Chain):
        return step.flow()
    calls = step.calls if isinstance(step, CallGroup) else [step]
    if not isinstance(calls[0], JobCall):
        raise UsageError(f"add: expected a call made by task.call(...), a group, a chain or a flow, got {step!r:.80}")
    app = calls[0].app
    if not hasattr(app, "send_flow"):
        raise UsageError("what is added to a flow cannot go through an outbox")
    flow = Flow(app)
    flow.add(step)
    return flow


def _content(flow: Flow) -> str:
    """What tells one addition from another: its tasks, their arguments, and how they hang together."""
    digest = hashlib.blake2b(digest_size=16)
    for node in flow.nodes:
        digest.update(repr([(parent.number, when) for parent, when in node.after]).encode())
        for call in node.calls:
            payload = call.packed(lambda source: (source.number if source is not None else 0, 0))
            digest.update(f"{call.task} {call.plan.queue} {len(payload)} ".encode() + payload)
    return digest.hexdigest()


class Growth(msgspec.Struct, frozen=True):
    """One addition to a flow that runs, and how it is made."""

    flow_id: str
    job: JobContext
    flow: Flow
    part_id: str
    before: list[Any]
    after: list[Added]
    when: str

    def steps(self, app: Sender) -> Steps[Added]:
        """What is sent, one after the other: everything waits until the last script."""
        queue = queue_keys(self.job.queue, app.prefix)
        graph = yield from _declared(queue, self.flow_id, app.default_queue)
        waiters = [_waiter(self.flow_id, graph, target, _last_count(self.flow)) for target in self.before]
        links = [(parent, child) for parent in self._parents() for child in self._first_jobs()]
        if len(links) > MOST_LINKS:
            raise UsageError(f"after: {len(links):,} edges are too many: add both as one flow")
        onward = [_edge(waiter, when) for waiter, when in waiters]
        plan = compile_flow(app, self.flow, Joint(self.part_id, 1 + len(self._parents()), onward))
        part = Part(self.job.id, flows.decode_graph(plan.graph), [waiter for waiter, _ in waiters])
        added = Added(self.part_id, self.job.id, True, self._last_jobs())
        if not (yield from self._ask(queue, flows.encode_part(part))):
            return msgspec.structs.replace(added, is_new=False)
        for waiter, _ in waiters:
            late = yield from waiter.expect(app.prefix, self.part_id, is_on=True)
            if late:
                yield from self._withdraw([waiter for waiter, _ in waiters], app.prefix)
                raise UsageError(f"before: job {late} does not wait any more: it runs, or has ended")
        for stored in plan.waiting:
            yield from announce(app, stored.queue)
            yield stored
        for (name, parent), (child_queue, child) in links:
            yield from _link(
                queue_keys(name, app.prefix), parent, queue_keys(child_queue, app.prefix), child, self.when
            )
        letters = [
            flows.go_letter(
                "" if node.queue == queue.name else node.queue,
                self.job.id,
                f"{self.part_id}.{number}" + ("." if node.count else ""),
                node.count,
            )
            for number, node in enumerate(part.graph.nodes)
            if not node.after
        ]
        if not (yield from self._ask(queue, b"", letters)):
            return msgspec.structs.replace(added, is_new=False)
        yield from flows.deliver(queue)
        return added

    def _ask(self, queue: QueueKeys, part: bytes, letters: Sequence[bytes] = ()) -> Steps[bool]:
        """Begin or end it on the server; False: an earlier run of the job has added it."""
        answer = yield flows.grow(queue, self.job.session, self.job.id, self.part_id, part, letters)
        if answer == "stale":
            raise StaleRun(
                f"a newer run of job {self.job.id} has begun; this one was taken for dead, and added nothing"
            )
        if answer == "full":
            raise UsageError(f"flow {self.flow_id} has been added to {flows.MOST_PARTS:,} times: add groups")
        if answer == "clearing":
            raise RetryIn(1, "what an earlier run of this job left half added is being cleared away")
        return bool(answer == "done")

    def _withdraw(self, waiters: Sequence[Waiter], prefix: str) -> Steps[None]:
        for waiter in waiters:
            yield from waiter.expect(prefix, self.part_id, is_on=False)

    def _parents(self) -> list[tuple[str, str]]:
        return [parent for added in self.after for parent in added.last]

    def _first_jobs(self) -> list[tuple[str, str]]:
        return [job for node in self.flow.nodes if not node.after for job in self._jobs_of(node)]

    def _last_jobs(self) -> list[tuple[str, str]]:
        return [job for node in _last_nodes(self.flow) for job in self._jobs_of(node)]

    def _jobs_of(self, node: Node[Any]) -> list[tuple[str, str]]:
        queue, first = str(node.calls[0].plan.queue), f"{self.part_id}.{node.number}"
        return [(queue, f"{first}.{i}") for i in range(node.size)] if node.is_group else [(queue, first)]


def _last_nodes(flow: Flow) -> list[Node[Any]]:
    inner = {parent for node in flow.nodes for parent, _ in node.after}
    return [node for node in flow.nodes if node not in inner]


def _last_count(flow: Flow) -> int:
    return sum(node.size if node.is_group else 1 for node in _last_nodes(flow))


def _declared(queue: QueueKeys, flow_id: str, default: str) -> Steps[Graph]:
    """The graph that the flow was enqueued with: mostly it began on the job's own queue."""
    for name in dict.fromkeys([queue.name, default]):
        data: bytes | None = yield flows.read_graph(queue_keys(name, queue.prefix), flow_id)
        if data is not None:
            return flows.decode_graph(data)
    for name in (yield admin.queue_names(queue.prefix)):
        data = yield flows.read_graph(queue_keys(name, queue.prefix), flow_id)
        if data is not None:
            return flows.decode_graph(data)
    raise JobNotFound(f"the flow {flow_id} is no longer kept: nothing can be added to it")


def _waiter(flow_id: str, graph: Graph, target: Target, inputs: int) -> tuple[Waiter, str]:
    """A step of the flow that is to wait for a part, and how its end counts there."""
    name = getattr(target, "name", target)
    if isinstance(name, int) and not isinstance(name, bool):
        found = [name] if 0 <= name < len(graph.nodes) else []
    else:
        found = [number for number, node in enumerate(graph.nodes) if node.task == name]
    if len(found) != 1:
        what = f"{len(found)} steps run it: give the number of one" if found else f"it has {len(graph.nodes)} steps"
        raise UsageError(f"before: flow {flow_id} has no such step {name!r:.80}; {what}")
    node, number = graph.nodes[found[0]], found[0]
    child = f"{flow_id}.{number}." if node.count else f"{flow_id}.{number}"
    when = "s" if all(letter == "s" for _, letter in node.after) else "a"
    return Waiter(node.queue, child, node.count, inputs), when


def _edge(waiter: Waiter, when: str) -> dict[str, Any]:
    edge: dict[str, Any] = {"q": waiter.queue, "c": waiter.child, "n": "", "w": when}
    return {**edge, "k": waiter.count} if waiter.count else edge


def _link(parent_queue: QueueKeys, parent: str, child_queue: QueueKeys, child: str, when: str) -> Steps[None]:
    """Have a job of a part wait for one of an earlier part; which, if it is no longer kept, had succeeded."""
    answer: int = yield flows.link(parent_queue, parent, child_queue, child, parent, when)
    if answer == 0:
        yield from flows.deliver(parent_queue)
    elif answer < 0:
        yield flows.arrive(child_queue, child, parent, when, int(Stored.SUCCEEDED), parent, b"")
