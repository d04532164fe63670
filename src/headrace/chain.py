"""Steps that follow one another: chains, groups and flows, as they are written down. Nothing here talks to a server.

A step is a `JobCall`, or a group of them. `Chain` and `CallGroup` are short ways to write a `Flow`; what a flow becomes is
in `headrace.flow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar, cast, overload

from headrace.core.retry import duration_ms
from headrace.core.ties import check_name
from headrace.errors import UsageError
from headrace.wire import Input

R = TypeVar("R")
S = TypeVar("S")
A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

When: TypeAlias = Literal["succeeded", "ended", "failed"]
After: TypeAlias = "Node[Any] | Sequence[Node[Any]]"
LETTERS: dict[str, str] = {"succeeded": "s", "ended": "a", "failed": "f"}
MOST_STEPS = 10_000
MOST_MEMBERS = 1_000_000

previous: Any = Input()
"""In the arguments of a chain's step: the result of the step before. `a.call(1) >> b.call(5, previous)`."""


class Step(Protocol[R_co]):
    """A call of a task: `JobCall`."""

    @property
    def task(self) -> str: ...

    @property
    def app(self) -> Any: ...

    @property
    def gives(self) -> type[R_co]: ...


class Follows(Protocol[A_contra, R_co]):
    """A task of one argument, which takes the result of the step before: `a.call(1) >> b`."""

    def following(self) -> Step[R_co]: ...

    def call(self, result: A_contra, /) -> Any: ...


class Run(Protocol[R_co]):
    """What was enqueued: `headrace.FlowRun`."""

    @property
    def id(self) -> str: ...

    @property
    def is_new(self) -> bool: ...

    def result(self, timeout: float | None = None) -> R_co: ...

    async def aresult(self, timeout: float | None = None) -> R_co: ...

    def look(self) -> Any: ...

    async def alook(self) -> Any: ...

    def cancel(self) -> int: ...

    async def acancel(self) -> int: ...

    def retry(self) -> int: ...

    async def aretry(self) -> int: ...


class CallGroup(Generic[R_co]):
    """Calls that run side by side; what follows gets the list of their results. Made by `group(...)`."""

    __slots__ = ("calls",)

    def __init__(self, calls: Sequence[Any]) -> None:
        self.calls = calls

    @overload
    def __rshift__(self, other: Follows[R_co, S]) -> Chain[S]: ...
    @overload
    def __rshift__(self, other: Step[S]) -> Chain[S]: ...
    @overload
    def __rshift__(self, other: CallGroup[S]) -> Chain[S]: ...
    @overload
    def __rshift__(self, other: Chain[S]) -> Chain[S]: ...
    def __rshift__(self, other: Any) -> Chain[Any]:
        return Chain([self, *steps_of(other)])

    def enqueue(self) -> Run[R_co]:
        """Enqueue them as a flow of one step, whose result is that of its last call."""
        return Chain([self]).enqueue()

    async def aenqueue(self) -> Run[R_co]:
        """As `enqueue`."""
        return await Chain([self]).aenqueue()


def group(calls: Iterable[Step[R]]) -> CallGroup[list[R]]:
    """Calls that run side by side: `group(resize.call(path) for path in paths) >> make_page`.

    Raises:
        UsageError: there are none, or one is no call.
    """
    found = list(calls)
    if not 0 < len(found) <= MOST_MEMBERS:
        raise UsageError(f"group: expected 1 to {MOST_MEMBERS:,} calls, got {len(found):,}")
    for call in found:
        _see_call(call)
    return CallGroup(found)


class Chain(Generic[R_co]):
    """Steps one after the other; each may take the result of the one before. Made by `>>`."""

    __slots__ = ("steps",)

    def __init__(self, steps: list[Any]) -> None:
        self.steps = steps

    @overload
    def __rshift__(self, other: Follows[R_co, S]) -> Chain[S]: ...
    @overload
    def __rshift__(self, other: Step[S]) -> Chain[S]: ...
    @overload
    def __rshift__(self, other: CallGroup[S]) -> Chain[S]: ...
    @overload
    def __rshift__(self, other: Chain[S]) -> Chain[S]: ...
    def __rshift__(self, other: Any) -> Chain[Any]:
        return Chain([*self.steps, *steps_of(other)])

    def flow(self, name: str = "") -> Flow:
        """The same as a Flow, for more steps."""
        flow = Flow(_app_of(self.steps[0]), name)
        last: Node[Any] | None = None
        for step in self.steps:
            last = flow.add(step, after=() if last is None else (last,))
        return flow

    def enqueue(self) -> Run[R_co]:
        """Store all its jobs; the first can run at once. Returns the FlowRun, whose result is the last step's."""
        return cast("Run[R_co]", self.flow().enqueue())

    async def aenqueue(self) -> Run[R_co]:
        """As `enqueue`."""
        return cast("Run[R_co]", await self.flow().aenqueue())


def steps_of(other: Any) -> list[Any]:
    """What stands on the right of `>>`, as steps."""
    if isinstance(other, Chain):
        return list(other.steps)
    if isinstance(other, CallGroup):
        return [other]
    following = getattr(other, "following", None)
    return [following()] if following is not None else [_see_call(other)]


def _see_call(call: Any) -> Any:
    if not hasattr(call, "plan") or not hasattr(call, "payload"):
        raise UsageError(f"expected a call made by task.call(...), got {call!r:.80}")
    return call


def _app_of(step: Any) -> Any:
    app = (step.calls[0] if isinstance(step, CallGroup) else step).app
    if not hasattr(app, "send_flow"):
        raise UsageError("a chain cannot go through an outbox: enqueue a job that enqueues the chain")
    return app


class Node(Generic[R_co]):
    """One step of a flow. `result`: stands for what it will give, in the arguments of later steps."""

    __slots__ = ("after", "calls", "flow", "is_group", "number", "signal", "timeout_ms")

    def __init__(self, flow: Flow, number: int, calls: Sequence[Any], *, is_group: bool) -> None:
        self.flow = flow
        self.number = number
        self.calls = calls
        self.is_group = is_group
        self.after: list[tuple[Node[Any], str]] = []
        self.signal = ""
        self.timeout_ms = 0

    @property
    def result(self) -> R_co:
        return cast("R_co", Input(self))

    @property
    def size(self) -> int:
        return len(self.calls)

    def __repr__(self) -> str:
        return f"<step {self.number} {self.calls[0].task}{f' x {self.size}' if self.is_group else ''}>"


class Flow:
    """A graph of jobs: each starts when those it comes after have ended as it wants.

    >>> flow = app.flow("import")
    >>> rows = flow.add(load.call("a.csv"))
    >>> checked = flow.add(check.call(rows.result))
    >>> flow.add(tell.call("it failed"), after=[checked], when="failed")
    >>> run = flow.enqueue()
    """

    def __init__(self, app: Any, name: str = "") -> None:
        self.app = app
        self.name = check_name("flow", name) if name else ""
        self.nodes: list[Node[Any]] = []

    @overload
    def add(self, step: Step[R], *, after: After = (), when: When = "succeeded") -> Node[R]: ...
    @overload
    def add(self, step: CallGroup[R], *, after: After = (), when: When = "succeeded") -> Node[R]: ...
    @overload
    def add(self, step: Chain[R], *, after: After = (), when: When = "succeeded") -> Node[R]: ...
    @overload
    def add(self, step: Flow, *, after: After = (), when: When = "succeeded") -> Node[Any]: ...
    def add(self, step: Any, *, after: After = (), when: When = "succeeded") -> Node[Any]:
        """Add a step: a call, a group, a chain, or another flow, which becomes a part of this one.

        Args:
            after: the steps it waits for, beside those whose `result` is among its arguments.
            when: "succeeded": all of them must have, else this step is cancelled, and so is what follows it. "ended": it runs
                whatever became of them; the result of one that gave none is None. "failed": it runs only if each has failed, to
                make good what they did.

        Raises:
            UsageError: a step of another flow; no call; a `when` that is none.
        """
        if when not in LETTERS:
            raise UsageError(f"when: expected 'succeeded', 'ended' or 'failed', got {when!r:.40}")
        parents = [after] if isinstance(after, Node) else list(after)
        for parent in parents:
            if not isinstance(parent, Node) or parent.flow is not self:
                raise UsageError(f"after: expected steps of this flow, got {parent!r:.80}")
        if isinstance(step, Flow):
            return self._add_flow(step, parents, when)
        if isinstance(step, Chain):
            for each in step.steps[:-1]:
                parents, when = [self.add(each, after=parents, when=when)], "succeeded"
            return self.add(step.steps[-1], after=parents, when=when)
        calls = step.calls if isinstance(step, CallGroup) else steps_of(step)
        return self._add_node(calls, parents, when, is_group=isinstance(step, CallGroup))

    def signal(self, name: str, *, after: After = (), timeout: float | None = None) -> Node[Any]:
        """Add a step that waits until `app.flows.signal(run.id, name, value)` is called; its result is that value.

        Args:
            timeout: seconds after the flow was enqueued; then the step has failed. None: it waits for ever.
        """
        check_name("signal", name)
        if any(node.signal == name for node in self.nodes):
            raise UsageError(f"signal: this flow has a signal {name!r} already")
        parents = [after] if isinstance(after, Node) else list(after)
        node = self._add_node([self.app.signal_call()], parents, "succeeded", is_group=False, is_signal=True)
        node.signal = name
        node.timeout_ms = 0 if timeout is None else duration_ms("timeout", timeout)
        return node

    def _add_node(
        self, calls: Sequence[Any], parents: Sequence[Node[Any]], when: str, *, is_group: bool, is_signal: bool = False
    ) -> Node[Any]:
        if len(self.nodes) >= MOST_STEPS:
            raise UsageError(f"a flow has at most {MOST_STEPS:,} steps: use a group for many jobs of one kind")
        node: Node[Any] = Node(self, len(self.nodes), calls, is_group=is_group)
        letter = LETTERS[when]
        node.after = [(parent, letter) for parent in dict.fromkeys(parents)]
        known = set(parents)
        for call in calls:
            _see_call(call)
            for source in call.sources():
                if source is not None and source.flow is not self:
                    raise UsageError(f"{call.task}: takes the result of a step of another flow")
                if source is None and len(parents) != 1 and not is_signal:
                    raise UsageError(
                        f"{call.task}: `previous` stands for one step; this one comes after {len(parents)}"
                    )
                if source is not None and source not in known:
                    known.add(source)
                    node.after.append((source, letter))
        self.nodes.append(node)
        return node

    def _add_flow(self, other: Flow, parents: Sequence[Node[Any]], when: str) -> Node[Any]:
        if other is self:
            raise UsageError("a flow cannot be a part of itself: its steps would wait for each other in a circle")
        if not other.nodes:
            raise UsageError("a flow can take in another one that has steps")
        copies: dict[Node[Any], Node[Any]] = {}
        for node in other.nodes:
            copy: Node[Any] = Node(self, len(self.nodes), node.calls, is_group=node.is_group)
            copy.signal, copy.timeout_ms = node.signal, node.timeout_ms
            copy.after = [(copies[parent], letter) for parent, letter in node.after]
            if not node.after:
                copy.after = [(parent, LETTERS[when]) for parent in parents]
            copy.calls = [call.moved(copies) for call in node.calls]
            copies[node] = copy
            self.nodes.append(copy)
        return copies[other.nodes[-1]]

    def enqueue(self) -> Run[Any]:
        """Store all its jobs; those that wait for nothing can run at once. Returns the FlowRun.

        Raises:
            UsageError: it has no step, or a step has options that a flow cannot keep.
        """
        return cast("Run[Any]", self.app.send_flow(self))

    async def aenqueue(self) -> Run[Any]:
        """As `enqueue`."""
        return cast("Run[Any]", await self.app.asend_flow(self))

    def copy(self) -> Self:
        """The same steps, to be enqueued again or added to."""
        new = type(self)(self.app, self.name)
        new._add_flow(self, (), "succeeded")
        return new
