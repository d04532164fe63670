"""What a flow becomes: its jobs, with their ids and edges, and the graph that is kept beside them.

Job ids tell the place: `FLOW.2` is the job of step 2, `FLOW.3.17` member 17 of the group that is step 3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from headrace.chain import Flow, Node
from headrace.core.options import Plan
from headrace.core.record import JobOptions, Record, encode, new_job_id
from headrace.engine import flows, ops
from headrace.engine.call import Steps, Store
from headrace.engine.flows import Graph, GraphNode
from headrace.engine.keys import queue_keys
from headrace.errors import UsageError
from headrace.job import Job, JobCall, take_existing
from headrace.sending import ByPlace, Sender, in_parts

R = TypeVar("R")


class FlowPlan(msgspec.Struct):
    """A flow, ready to be stored: `waiting` first, then `roots`, which can run at once.

    `unique`: the last job, when it has a unique key. It is stored before all others: when the key is taken, no other is.
    """

    id: str
    home: str
    graph: bytes
    unique: list[Store]
    waiting: list[Store]
    roots: list[Store]
    last: Job[Any]


class Joint(msgspec.Struct, frozen=True):
    """How a flow becomes part `id` of another: its first jobs wait for `awaited` inputs; `onward` are edges of its last."""

    id: str
    awaited: int
    onward: list[dict[str, Any]]


def compile_flow(app: Sender, flow: Flow, joint: Joint | None = None) -> FlowPlan:
    """Give each job of a flow its id, its edges and its place. `joint`: it is added to a flow that runs.

    Raises:
        UsageError: it has no step; a job has an option that a flow cannot keep; a group spans queues.
    """
    # A flow is unique by its last step: that one ends last, whatever becomes of the others, and frees the key.
    if not flow.nodes:
        raise UsageError("the flow has no step: add one")
    flow_id = joint.id if joint else new_job_id()
    bases = _input_numbers(flow.nodes)
    edges = _edges(flow.nodes, flow_id, bases, joint.onward if joint else [])
    waiting: ByPlace = {}
    roots: ByPlace = {}
    unique: ByPlace = {}
    last: Job[Any] | None = None
    for node in flow.nodes:
        awaited = sum(max(parent.size, 1) if parent.is_group else 1 for parent, _ in node.after) + bool(node.signal)
        awaited += joint.awaited if joint and not node.after else 0
        for index, call in enumerate(node.calls):
            job_id = f"{flow_id}.{node.number}.{index}" if node.is_group else f"{flow_id}.{node.number}"
            _check_unique(call, may_be=node is flow.nodes[-1] and not node.is_group)
            new, last = _new_job(app, call, job_id, node, awaited, bases[node], edges(node, index))
            to = unique if call.plan.unique is not None else waiting if awaited else roots
            to.setdefault((call.plan.queue, call.plan.durability), []).append(new)
    assert last is not None
    nodes = [
        GraphNode(
            node.calls[0].task if not node.signal else f"signal {node.signal}", _queue_of(node), node.size if node.is_group else 0,
            [(parent.number, when) for parent, when in node.after],
        )
        for node in flow.nodes
    ]  # fmt: skip
    graph = flows.encode_graph(Graph(flow.name, time.time_ns() // 1_000_000, nodes))
    home = _queue_of(flow.nodes[0])
    return FlowPlan(flow_id, home, graph, in_parts(unique), in_parts(waiting), in_parts(roots), last)


def _check_unique(call: JobCall[Any], *, may_be: bool) -> None:
    """Only the last step's key says something of the whole flow; and only one that is kept until that step ends."""
    unique = call.plan.unique
    if unique is None:
        return
    if not may_be:
        raise UsageError(f"{call.task}: only the last step of a flow may have unique, and it stands for the whole flow")
    if unique.is_freed_at_start or unique.kept_ms is not None or unique.on_conflict not in ("existing", "raise"):
        raise UsageError(f"{call.task}: a flow is unique until its end, with on_conflict 'existing' or 'raise'")
    if unique.by is True and call.template is not None:
        raise UsageError(f"{call.task}: results of other steps are among its arguments: name those that make it unique")


def _queue_of(node: Node[Any]) -> str:
    queues = {call.plan.queue for call in node.calls}
    if len(queues) > 1:
        raise UsageError(
            f"a group's calls go to one queue; {node!r} has {', '.join(sorted(queues))}: make it several groups"
        )
    return str(queues.pop())


def _input_numbers(nodes: Sequence[Node[Any]]) -> dict[Node[Any], dict[Node[Any], tuple[int, int]]]:
    """For each step, and each step before it: the number of its first input from there, and how many (0: a single one)."""
    found: dict[Node[Any], dict[Node[Any], tuple[int, int]]] = {}
    for node in nodes:
        first = int(bool(node.signal))
        found[node] = {}
        for parent, _ in node.after:
            found[node][parent] = (first, parent.size if parent.is_group else 0)
            first += parent.size if parent.is_group else 1
    return found


def _edges(
    nodes: Sequence[Node[Any]],
    flow_id: str,
    bases: dict[Node[Any], dict[Node[Any], tuple[int, int]]],
    onward: Sequence[dict[str, Any]],
) -> Callable[[Node[Any], int], list[dict[str, Any]]]:
    """A function that gives the edges that leave one job: those of a step, and its index in it. `onward`: of a last step."""
    children: dict[Node[Any], list[tuple[Node[Any], str]]] = {node: [] for node in nodes}
    for node in nodes:
        for parent, when in node.after:
            children[parent].append((node, when))

    def of(node: Node[Any], index: int) -> list[dict[str, Any]]:
        found = []
        for child, when in children[node]:
            to = _queue_of(child)
            edge: dict[str, Any] = {
                "q": "" if to == _queue_of(node) else to,
                "c": f"{flow_id}.{child.number}." if child.is_group else f"{flow_id}.{child.number}",
                "n": bases[child][node][0] + index,
                "w": when,
            }
            if child.is_group:
                edge["k"] = child.size
            if any(call.template is not None for call in child.calls):
                edge["r"] = True
            found.append(edge)
        for edge in onward if not children[node] else ():
            to = "" if edge["q"] == _queue_of(node) else edge["q"]
            number = f"{flow_id}.{node.number}.{index}" if node.is_group else f"{flow_id}.{node.number}"
            found.append({**edge, "q": to, "n": number})
        return found

    return of


def _new_job(
    app: Sender,
    call: JobCall[Any],
    job_id: str,
    node: Node[Any],
    awaited: int,
    base: dict[Node[Any], tuple[int, int]],
    edges: list[dict[str, Any]],
) -> tuple[ops.NewJob, Job[Any]]:
    plan = call.plan
    if plan.job_id is not None or plan.depends_on:
        raise UsageError(f"{call.task}: a job of a flow has no job_id or depends_on of its own")
    if awaited and (plan.at_ms or plan.at_front):
        raise UsageError(
            f"{call.task}: at and at_front are not for a job that waits for others; delay counts from when it may run"
        )
    ties: dict[str, Any] = msgspec.msgpack.decode(call.ties) if call.ties else {}
    if awaited:
        ties["p"] = awaited
        if plan.delay_ms:
            ties["d"] = plan.delay_ms
        if node.timeout_ms:
            ties["x"] = node.timeout_ms
    if call.template is not None:
        ties["i"] = True
    if edges:
        ties["e"] = edges

    def number_of(source: Any) -> tuple[int, int]:
        if node.signal:
            return 0, 0
        return base[source] if source is not None else next(iter(base.values()))

    packed = msgspec.msgpack.encode(ties) if ties else b""
    payload = call.packed(number_of)
    if awaited and plan.delay_ms:
        plan = msgspec.structs.replace(plan, delay_ms=0)
    plan = msgspec.structs.replace(plan, job_id=job_id)
    ready = msgspec.structs.replace(call, payload=payload, ties=packed, plan=plan, template=None)
    new, job = app.new_job(ready)
    if call.template is not None:
        record = msgspec.msgpack.decode(new.record, type=Record)
        options = msgspec.structs.replace(record.options or JobOptions(), inputs=awaited)
        new = msgspec.structs.replace(new, record=encode(msgspec.structs.replace(record, options=options)))
    return msgspec.structs.replace(new, check_id=False, pass_over=True), job


def store_dependent(app: Sender, new: ops.NewJob, job: Job[R], plan: Plan) -> Steps[Job[R]]:
    """Store one job that waits for others (`depends_on=`): it first, and then, at each of them, that it waits."""
    yield from flows.see_parents(app.prefix, plan.depends_on)
    same = yield Store(plan.queue, (new,), plan.durability)
    if job.id in same:
        return take_existing(job, same)
    queue = queue_keys(plan.queue, app.prefix)
    yield from flows.link_new(queue, job.id, plan.depends_on, flows.when_of(plan.or_failed))
    app.tell_enqueued([job])
    return job
