"""Flows on the server: stored, found again, looked at, cancelled, retried, signalled. `flow_jobs` says what they are made of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from headrace import wire
from headrace.chain import Flow
from headrace.core.record import LAYOUT, Record, Stored, encode
from headrace.engine import flows, ops
from headrace.engine.call import Steps, command
from headrace.engine.clients import AsyncClient, SyncClient
from headrace.engine.flows import Graph, GraphNode, Part
from headrace.engine.keys import QueueKeys, check_queue_name, queue_keys
from headrace.errors import DuplicateJob, JobNotFound, UsageError
from headrace.flow_jobs import compile_flow
from headrace.job import Job, take_existing
from headrace.sending import Sender, announce

R_co = TypeVar("R_co", covariant=True)
RECORDS_A_LOOK = 500
JOBS_A_LIST = 20_000
"""So many jobs are counted for a list of flows; of those that are larger, the last step is looked at."""


class App(Sender, Protocol):
    """What flows need of the app."""

    @property
    def client(self) -> SyncClient: ...

    @property
    def aclient(self) -> AsyncClient: ...

    def job(self, job_id: str, queue: str | None = None) -> Job[Any]: ...

    async def ajob(self, job_id: str, queue: str | None = None) -> Job[Any]: ...

    def result_type(self, task: str) -> Any: ...


class StepState(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a flow that runs. `states`: how many of its jobs are in each state; a job no longer kept is "gone".

    `before`: of a step that was added while the flow ran, earlier ones that wait for it.
    """

    number: int
    task: str
    queue: str
    size: int
    after: list[tuple[int, str]]
    states: dict[str, int]
    first_error: str = ""
    before: list[int] = []


class FlowState(msgspec.Struct, frozen=True, kw_only=True):
    """A flow at one look. `state`: running, succeeded, failed (a job of it failed or expired), or cancelled."""

    id: str
    name: str
    queue: str
    created_at: datetime
    state: str
    steps: list[StepState]


class FlowRun(Generic[R_co]):
    """A flow that was enqueued. Its result is that of its last step.

    `job` is that step. `is_new` is False when an enqueue gave the flow that has the same unique key already.
    """

    __slots__ = ("_app", "home", "id", "is_new", "job")

    def __init__(self, app: App, flow_id: str, home: str, job: Job[R_co]) -> None:
        self._app = app
        self.id = flow_id
        self.home = home
        self.job = job
        self.is_new = True

    def __repr__(self) -> str:
        return f"<FlowRun {self.id}>"

    def result(self, timeout: float | None = None) -> R_co:
        """Wait for the last step and give its result; raises as `Job.result` does."""
        return self.job.result(timeout)

    async def aresult(self, timeout: float | None = None) -> R_co:
        """As `result`."""
        return await self.job.aresult(timeout)

    def look(self) -> FlowState:
        """How each step stands; raises JobNotFound when it is no longer kept."""
        return self._app.client.run(look_at(queue_keys(self.home, self._app.prefix), self.id))

    async def alook(self) -> FlowState:
        """As `look`."""
        return await self._app.aclient.run(look_at(queue_keys(self.home, self._app.prefix), self.id))

    def cancel(self) -> int:
        """Cancel all jobs that have not ended; returns how many."""
        return self._app.client.run(cancel(queue_keys(self.home, self._app.prefix), self.id))

    async def acancel(self) -> int:
        """As `cancel`."""
        return await self._app.aclient.run(cancel(queue_keys(self.home, self._app.prefix), self.id))

    def retry(self) -> int:
        """Run what failed again, and after it what was cancelled for that; returns how many failed jobs are queued again."""
        return self._app.client.run(retry(queue_keys(self.home, self._app.prefix), self.id))

    async def aretry(self) -> int:
        """As `retry`."""
        return await self._app.aclient.run(retry(queue_keys(self.home, self._app.prefix), self.id))


def store_flow(app: App, flow: Flow) -> Steps[FlowRun[Any]]:
    """Store all jobs of a flow: those that wait first, so that nothing can end before what follows is there."""
    plan = compile_flow(app, flow)
    home = queue_keys(plan.home, app.prefix)
    yield from announce(app, *(part.queue for part in (*plan.unique, *plan.waiting, *plan.roots)))
    yield flows.put_flow(home, plan.id, plan.graph, is_whole=False)
    for part in plan.unique:
        try:
            same = yield part
        except DuplicateJob:
            yield from flows.drop_flow(home, plan.id)
            raise
        if plan.last.id in same:
            yield from flows.drop_flow(home, plan.id)
            return _existing_flow(app, plan.home, take_existing(plan.last, same))
    for part in (*plan.waiting, *plan.roots):
        yield part
    yield flows.put_flow(home, plan.id, b"", is_whole=True)
    return FlowRun(app, plan.id, plan.home, plan.last)


def _existing_flow(app: App, home: str, job: Job[Any]) -> FlowRun[Any]:
    """The flow that has the unique key of another: `job` is its last.

    Raises:
        DuplicateJob: a job that is of no flow has the key.
    """
    flow_id, point, _ = job.id.partition(".")
    if not point:
        raise DuplicateJob(f"the unique key of this flow is that of job {job.id}, which is of no flow", job.id)
    run = FlowRun(app, flow_id, home, job)
    run.is_new = False
    return run


class Flows:
    """Find flows, and send them signals: `app.flows`. A flow's home is the queue of its first step."""

    def __init__(self, app: App) -> None:
        self._app = app

    def _keys(self, queue: str | None) -> QueueKeys:
        return queue_keys(check_queue_name(queue or self._app.default_queue), self._app.prefix)

    def get(self, flow_id: str, *, queue: str | None = None) -> FlowRun[Any]:
        """A flow by its id; raises JobNotFound."""
        home = self._keys(queue)
        graph = self._app.client.run(_graph(home, flow_id))
        job_id, keys = _last_of(flow_id, graph, self._app.prefix)
        return FlowRun(self._app, flow_id, home.name, self._app.job(job_id, keys.name))

    async def aget(self, flow_id: str, *, queue: str | None = None) -> FlowRun[Any]:
        """As `get`."""
        home = self._keys(queue)
        graph = await self._app.aclient.run(_graph(home, flow_id))
        job_id, keys = _last_of(flow_id, graph, self._app.prefix)
        return FlowRun(self._app, flow_id, home.name, await self._app.ajob(job_id, keys.name))

    def list(self, *, queue: str | None = None, limit: int = 100) -> list[FlowState]:
        """The newest flows of a queue."""
        return self._app.client.run(newest(self._keys(queue), limit))

    def signal(self, flow_id: str, name: str, value: Any = None, *, queue: str | None = None) -> None:
        """Give the flow what its step `flow.signal(name)` waits for; again does no harm. Raises JobNotFound for no such step."""
        self._app.client.run(send_signal(self._keys(queue), flow_id, name, value))

    async def asignal(self, flow_id: str, name: str, value: Any = None, *, queue: str | None = None) -> None:
        """As `signal`."""
        await self._app.aclient.run(send_signal(self._keys(queue), flow_id, name, value))


def _graph(home: QueueKeys, flow_id: str) -> Steps[Graph]:
    data: bytes | None = yield flows.read_graph(home, flow_id)
    if data is None:
        raise JobNotFound(
            f"no flow {flow_id} in queue {home.name!r}: it never was, is no longer kept, or began on another queue"
        )
    return flows.decode_graph(data)


def _last_of(flow_id: str, graph: Graph, prefix: str) -> tuple[str, QueueKeys]:
    number, node = len(graph.nodes) - 1, graph.nodes[-1]
    return node.ids(flow_id, number)[-1], queue_keys(node.queue, prefix)


def newest(home: QueueKeys, limit: int) -> Steps[list[FlowState]]:
    ids: list[str] = yield flows.flow_ids(home, 0, limit - 1)
    found = []
    for flow_id in ids:
        found.append((yield from look_at(home, flow_id)))
    return found


class Placed(msgspec.Struct, frozen=True):
    """A step of what runs, as it was declared or added: its number in the whole, and that within its own `base`."""

    base: str
    own_number: int
    node: GraphNode
    after: list[tuple[int, str]]
    before: list[int]

    @property
    def ids(self) -> list[str]:
        return self.node.ids(self.base, self.own_number)

    @property
    def span(self) -> flows.Span:
        return self.node.span(self.base, self.own_number)


class Layout:
    """All steps of a flow, those first that it was enqueued with; what its jobs add is found by `more`."""

    def __init__(self, home: QueueKeys, flow_id: str, graph: Graph) -> None:
        self.flow_id = flow_id
        self.prefix = home.prefix
        self.steps: list[Placed] = []
        self._starts: dict[str, int] = {}
        self._put(flow_id, graph, [], [])
        self.declared = len(self.steps)

    def more(self) -> Steps[bool]:
        """Look for what was added since; whether there was something."""
        before = len(self.steps)
        found: dict[str, Part] = {}
        for name in dict.fromkeys(step.node.queue for step in self.steps):
            found |= yield from flows.parts_of(queue_keys(name, self.prefix), self.flow_id)
        new = {part_id: part for part_id, part in found.items() if part_id not in self._starts}
        for part_id, part in sorted(new.items(), key=lambda item: (item[1].graph.created_at_ms, item[0])):
            base, number = part.adder.split(".")[:2]
            if base in self._starts:  # else it was added by a part that is not known yet: the next look has both
                waiters = [int(waiter.child.split(".")[1]) for waiter in part.waiters]
                self._put(part_id, part.graph, [(self._starts[base] + int(number), "a")], waiters)
        return len(self.steps) > before

    def _put(self, base: str, graph: Graph, adder: list[tuple[int, str]], before: list[int]) -> None:
        start = self._starts[base] = len(self.steps)
        inner = {parent for node in graph.nodes for parent, _ in node.after}
        for number, node in enumerate(graph.nodes):
            after = [(start + parent, when) for parent, when in node.after] or adder
            self.steps.append(Placed(base, number, node, after, [] if number in inner else before))


def look_at(home: QueueKeys, flow_id: str) -> Steps[FlowState]:
    """How each step of a flow stands."""
    graph = yield from _graph(home, flow_id)
    layout = Layout(home, flow_id, graph)
    steps: list[StepState] = []
    while len(steps) < len(layout.steps):  # what a job adds is there before it ends: so who ended has nothing unseen
        steps += yield from _step_states(layout.steps[len(steps) :], len(steps), home.prefix)
        yield from layout.more()
    created = datetime.fromtimestamp(graph.created_at_ms / 1000, UTC)
    state = _whole_state(steps, steps[layout.declared - 1])
    return FlowState(id=flow_id, name=graph.name, queue=home.name, created_at=created, state=state, steps=steps)


def _step_states(some: Sequence[Placed], first: int, prefix: str) -> Steps[list[StepState]]:
    found: dict[int, StepState] = {}
    for queue in dict.fromkeys(placed.node.queue for placed in some):
        mine = [(number, placed) for number, placed in enumerate(some, first) if placed.node.queue == queue]
        rows = yield from flows.count_states(queue_keys(queue, prefix), [placed.span for _, placed in mine])
        for (number, placed), (counts, failed) in zip(mine, rows, strict=True):
            error = "" if failed is None else msgspec.msgpack.decode(failed, type=Record).reason or ""
            found[number] = StepState(
                number=number, task=placed.node.task, queue=queue, size=placed.node.size, after=placed.after, states=counts,
                first_error=error, before=placed.before,
            )  # fmt: skip
    return [found[number] for number in sorted(found)]


class FlowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A flow in a list, without what its jobs have added. `done`: jobs that succeeded; None where there are too many to count.

    `state`: as of a FlowState; of one too large to count, "running" or "ended".
    """

    id: str
    name: str
    queue: str
    created_at_ms: int
    state: str
    jobs: int
    done: int | None

    @property
    def place(self) -> flows.Place:
        return self.created_at_ms, self.id


def summaries(prefix: str, queues: Sequence[str], before: flows.Place | None, limit: int) -> Steps[list[FlowSummary]]:
    """The newest flows of these queues that come after a place, at a cost that is bounded, whatever their size."""
    rows: list[tuple[int, str, str, Graph]] = []
    for name in queues:
        for (at_ms, flow_id), graph in (yield from flows.graphs_before(queue_keys(name, prefix), before, limit)):
            rows.append((at_ms, flow_id, name, graph))
    rows = sorted(rows, key=lambda row: row[:2], reverse=True)[:limit]
    wanted: dict[str, list[tuple[str, int, flows.Span]]] = {}
    room = JOBS_A_LIST
    small: set[str] = set()
    for _, flow_id, _, graph in rows:
        jobs = sum(node.size for node in graph.nodes)
        if jobs <= room:
            room -= jobs
            small.add(flow_id)
        for number, node in enumerate(graph.nodes):
            if flow_id in small:
                wanted.setdefault(node.queue, []).append((flow_id, number, node.span(flow_id, number)))
        if flow_id not in small:
            last, node = len(graph.nodes) - 1, graph.nodes[-1]
            wanted.setdefault(node.queue, []).append((flow_id, last, (node.ids(flow_id, last)[-1], 0, 0)))
    states: dict[tuple[str, int], dict[str, int]] = {}
    for name, asked in wanted.items():
        counts = yield from flows.count_states(queue_keys(name, prefix), [span for _, _, span in asked])
        states.update(
            {(flow_id, number): found for (flow_id, number, _), (found, _) in zip(asked, counts, strict=True)}
        )
    return [_summary(row, states, is_counted=row[1] in small) for row in rows]


def _summary(
    row: tuple[int, str, str, Graph], states: dict[tuple[str, int], dict[str, int]], *, is_counted: bool
) -> FlowSummary:
    at_ms, flow_id, queue, graph = row
    jobs, last = sum(node.size for node in graph.nodes), len(graph.nodes) - 1
    mine = [states[flow_id, number] for number in range(last + 1)] if is_counted else [states[flow_id, last]]
    state = _state_of_all(mine, mine[-1])
    done = sum(counts.get("succeeded", 0) + counts.get("gone", 0) for counts in mine) if is_counted else None
    return FlowSummary(
        id=flow_id, name=graph.name, queue=queue, created_at_ms=at_ms, jobs=jobs,
        state=state if is_counted or state == "running" else "ended", done=done,
    )  # fmt: skip


def _read(keys: QueueKeys, ids: list[str]) -> Steps[list[bytes | None]]:
    records: list[bytes | None] = yield command("HMGET", keys.jobs, *ids, key=keys.jobs, decode=list)
    return records


def _whole_state(steps: list[StepState], last: StepState) -> str:
    return _state_of_all([step.states for step in steps], last.states)


def _state_of_all(states: Sequence[dict[str, int]], last: dict[str, int]) -> str:
    counts: Counter[str] = Counter()
    for each in states:
        counts.update(each)
    ended = {"succeeded", "failed", "cancelled", "expired", "gone"}
    if set(counts) - ended:
        return "running"
    if counts["failed"] or counts["expired"]:
        return "failed"
    return "cancelled" if last.keys() == {"cancelled"} else "succeeded"


def cancel(home: QueueKeys, flow_id: str) -> Steps[int]:
    """Cancel what has not ended, the last steps first, so that nothing starts meanwhile."""
    layout = Layout(home, flow_id, (yield from _graph(home, flow_id)))
    while (yield from layout.more()):
        pass
    count = known = 0
    while known < len(layout.steps):
        new, known = layout.steps[known:], len(layout.steps)
        for placed in reversed(new):
            for job_id in placed.ids:
                try:
                    count += (yield from ops.cancel(queue_keys(placed.node.queue, home.prefix), job_id)) != "ended"
                except JobNotFound:
                    continue  # ended, and not kept
        yield from layout.more()
    return count


def retry(home: QueueKeys, flow_id: str) -> Steps[int]:
    """Put back what failed, and before it what waits for it."""
    layout = Layout(home, flow_id, (yield from _graph(home, flow_id)))
    while (yield from layout.more()):
        pass
    failed: list[tuple[QueueKeys, str]] = []
    cancelled: dict[int, list[tuple[QueueKeys, str]]] = {}
    redo: set[int] = set()
    for number, placed in enumerate(layout.steps):
        keys, ids = queue_keys(placed.node.queue, home.prefix), placed.ids
        for start in range(0, len(ids), RECORDS_A_LOOK):
            part = ids[start : start + RECORDS_A_LOOK]
            records = yield from _read(keys, part)
            for job_id, state in zip(part, flows.states_of(records), strict=True):
                if state in (Stored.FAILED, Stored.EXPIRED):
                    failed.append((keys, job_id))
                    redo.add(number)
                elif state == Stored.CANCELLED:
                    cancelled.setdefault(number, []).append((keys, job_id))
    for number in _followers(layout.steps, redo, set(cancelled)):
        for keys, job_id in cancelled[number]:
            yield from ops.retry(keys, job_id)
    for keys, job_id in failed:
        yield from ops.retry(keys, job_id)
    return len(failed)


def _followers(steps: list[Placed], redo: set[int], cancelled: set[int]) -> list[int]:
    """The steps with cancelled jobs that come, by one another, after those of `redo`."""
    children: dict[int, set[int]] = {}
    for number, placed in enumerate(steps):
        for parent, _ in placed.after:
            children.setdefault(parent, set()).add(number)
        children.setdefault(number, set()).update(placed.before)
    found: dict[int, None] = {}
    todo = list(redo)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child in cancelled and child not in found:
                found[child] = None
                todo.append(child)
    return list(found)


def send_signal(home: QueueKeys, flow_id: str, name: str, value: Any) -> Steps[None]:
    """Give a signal's step its input: what a job would send that ended with this value."""
    graph = yield from _graph(home, flow_id)
    for number, node in enumerate(graph.nodes):
        if node.task == f"signal {name}":
            result, why_not = wire.encode_result(value, 1 << 20)
            if why_not:
                raise UsageError(f"signal {name!r}: {why_not}")
            now_ms = time.time_ns() // 1_000_000
            record = encode(
                Record(
                    LAYOUT,
                    Stored.SUCCEEDED,
                    0,
                    0,
                    f"signal {name}",
                    msgspec.Raw(b"\x91\x90"),
                    now_ms,
                    ended_at_ms=now_ms,
                    result=result,
                )
            )
            keys = queue_keys(node.queue, home.prefix)
            more = yield flows.arrive(
                keys, f"{flow_id}.{number}", 0, "a", int(Stored.SUCCEEDED), f"signal {name}", record
            )
            if more:
                yield from flows.deliver(keys)
            return
    raise JobNotFound(f"flow {flow_id} has no step that waits for the signal {name!r}")
