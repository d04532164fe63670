"""What flows ask of the server, as pure functions like those of `ops`: edges, what an outbox delivers, graphs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from headrace.core.record import Stored
from headrace.engine import ops
from headrace.engine.admin import text_pairs
from headrace.engine.call import Arg, Call, Steps, command, script
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.engine.ops import LAYOUT_ARG
from headrace.errors import DependencyError

MOST_ARRIVALS = 100
LETTERS_A_LOOK = 32
INPUTS_A_LOOK = 500
LINK_AGAIN_AFTER_MS = 10_000
ABANDONED_AFTER_MS = 60_000
MOST_PARTS = 10_000
MOST_AT_ONE_INSTANT = 100
"""Flows of one queue that are noted within a millisecond; more than a server can."""
PART = ":"
"""In the id of what was added to a flow while it ran, between the flow's id and the rest."""
GO = "go"
"""The name of the input that the first jobs of such a part wait for: it comes when all of the part is stored."""


def _key(queue: QueueKeys, name: str) -> bytes:
    return (queue.base + name).encode()


def _raw(reply: Any) -> Any:
    return reply


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """What an outbox holds for one edge. `count`: 0 for one child, else so many, whose ids begin with `child`."""

    queue: str
    child: str
    count: int
    number: int | str
    when: str
    state: int
    parent: str
    wants: int


def arrive(
    queue: QueueKeys,
    child: str,
    number: int | str,
    when: str,
    state: int,
    parent: str,
    record: bytes,
    first: int = -1,
    count: int = 1,
) -> Call[bool]:
    """An input comes to a job of this queue, or to `count` of them from `first` on; True: its own outbox has something then."""
    found = script("arrive")
    args: list[Arg] = [LAYOUT_ARG, child, "" if first < 0 else first, count, number, when, state, parent, record]
    return Call(found, queue.block(found.keys), args, bool)


def deliver(queue: QueueKeys) -> Steps[int]:
    """Bring what is in a queue's outbox to where it belongs. Any number may do so at once. Returns how many letters."""
    delivered = 0
    todo = [queue]
    while todo:
        source = todo.pop()
        key = _key(source, "outbox")
        while True:
            letters: list[bytes] = yield command("LRANGE", key, 0, LETTERS_A_LOOK - 1, key=key, decode=list)
            for data in letters:
                target = yield from _deliver_one(source, data)
                if target is not None and target not in todo:
                    todo.append(target)
                yield command("LREM", key, 1, data, key=key, decode=int)
                delivered += 1
            if not letters:
                break
    return delivered


def _deliver_one(source: QueueKeys, data: bytes) -> Steps[QueueKeys | None]:
    """Returns the queue when its own outbox has something now."""
    length = int.from_bytes(data[:4], "big")
    letter = msgspec.msgpack.decode(data[4 : 4 + length], type=Letter)
    record = data[4 + length :] if letter.wants else b""
    target = queue_keys(letter.queue, source.prefix) if letter.queue else source
    is_more = False
    for first in range(0, max(letter.count, 1), MOST_ARRIVALS):
        count = min(MOST_ARRIVALS, max(letter.count, 1) - first)
        start = first if letter.count else -1
        more = yield arrive(
            target, letter.child, letter.number, letter.when, letter.state, letter.parent, record, start, count
        )
        is_more = is_more or more
    return target if is_more and target is not source else None


def inputs(queue: QueueKeys, job_id: str) -> Steps[dict[int, bytes]]:
    """What others sent to a job: input number -> the ended record of the sender."""
    key = _key(queue, f"inputs:{job_id}")
    found: dict[int, bytes] = {}
    cursor = b"0"
    while True:
        cursor, items = yield command("HSCAN", key, cursor, "COUNT", INPUTS_A_LOOK, key=key, decode=list)
        pairs = items.items() if isinstance(items, dict) else zip(items[::2], items[1::2], strict=True)
        found.update((int(number), record) for number, record in pairs if bytes(number).isdigit())
        if int(cursor) == 0:
            return found


def link(parent: QueueKeys, parent_id: str, child: QueueKeys, child_id: str, number: int | str, when: str) -> Call[int]:
    """The parent's end reaches the child: 1 linked, 0 it has ended (deliver its outbox), -1 there is no such job."""
    found = script("link")
    to = "" if child.name == parent.name else child.name
    return Call(found, parent.block(found.keys), [LAYOUT_ARG, parent_id, to, child_id, number, when], int)


def link_all(
    child: QueueKeys, child_id: str, parents: Sequence[tuple[str, str, str]], *, is_gone_done: bool = False
) -> Steps[str]:
    """Link a job to those it waits for: (queue, id, when) each. Returns the id of one that is not there, or "".

    May be done again: an edge is noted once, and an input comes once. `is_gone_done`: one that is not there has succeeded, and nothing
    was to be kept of it.
    """
    missing = ""
    for number, (name, parent_id, when) in enumerate(parents):
        keys = queue_keys(name, child.prefix)
        answer: int = yield link(keys, parent_id, child, child_id, number, when)
        if answer == 0:
            yield from deliver(keys)
        elif answer < 0 and is_gone_done:
            yield arrive(child, child_id, number, when, int(Stored.SUCCEEDED), parent_id, b"")
        elif answer < 0:
            missing = missing or parent_id
    key = _key(child, "linking")
    if not missing:
        yield command("ZREM", key, child_id, key=key, decode=int)
    return missing


def when_of(or_failed: bool) -> str:
    """Which ends of the jobs it waits for let a job start."""
    return "d" if or_failed else "s"


def dependent_ties(packed: bytes, parents: Sequence[tuple[str, str]], delay_ms: int, when: str) -> bytes:
    """The ties of a job that waits for these: (queue, id) each."""
    ties: dict[str, Any] = msgspec.msgpack.decode(packed) if packed else {}
    ties |= {"p": len(parents), "o": [(queue, job_id, when) for queue, job_id in parents]}
    if delay_ms:
        ties["d"] = delay_ms
    return msgspec.msgpack.encode(ties)


def see_parents(prefix: str, parents: Sequence[tuple[str, str]]) -> Steps[None]:
    """See that the jobs to wait for are there.

    Raises:
        DependencyError: naming the first that is not.
    """
    for name, job_id in parents:
        key = queue_keys(name, prefix).jobs
        if not (yield command("HEXISTS", key, job_id, key=key, decode=bool)):
            raise DependencyError(
                f"depends_on: no job {job_id} in queue {name!r}: it never was, or is no longer kept", job_id
            )


def link_new(child: QueueKeys, child_id: str, parents: Sequence[tuple[str, str]], when: str) -> Steps[None]:
    """Link a job that was just stored; one whose parent has gone meanwhile is cancelled.

    Raises:
        DependencyError
    """
    missing = yield from link_all(child, child_id, [(queue, job_id, when) for queue, job_id in parents])
    if missing:
        yield from _give_up(child, child_id)
        raise DependencyError(f"depends_on: job {missing} is no longer kept", missing)


def free_dependents(queue: QueueKeys, job_id: str) -> Steps[list[tuple[str, str]]]:
    """Let the jobs that wait for this one start as if it had succeeded; those that want its result wait on. (queue, id) each."""
    packed: bytes | None = yield command("HGET", queue.ties, job_id, key=queue.ties, decode=_raw)
    edges = msgspec.msgpack.decode(packed).get("e", []) if packed else []
    freed = []
    for edge in edges:
        if not edge.get("r") and not edge.get("k"):
            target = queue_keys(edge["q"], queue.prefix) if edge["q"] else queue
            if (yield arrive(target, edge["c"], edge["n"], edge["w"], int(Stored.SUCCEEDED), job_id, b"")):
                yield from deliver(target)
            freed.append((target.name, edge["c"]))
    return freed


def put_flow(home: QueueKeys, flow_id: str, graph: bytes, *, is_whole: bool) -> Call[None]:
    """Note a flow; then, when all its jobs are stored, that it is whole."""
    found = script("flow_put")
    return Call(found, home.block(found.keys), [LAYOUT_ARG, flow_id, graph, int(is_whole)], lambda _: None)


def drop_flow(home: QueueKeys, flow_id: str) -> Steps[None]:
    """Forget a flow of which no job was stored."""
    for name in ("flows", "incomplete"):
        yield forget(home, name, flow_id)
    key = _key(home, "graphs")
    yield command("HDEL", key, flow_id, key=key, decode=int)


def read_graph(home: QueueKeys, flow_id: str) -> Call[bytes | None]:
    key = _key(home, "graphs")
    return command("HGET", key, flow_id, key=key, decode=_raw)


def flow_ids(home: QueueKeys, first: int, last: int) -> Call[list[str]]:
    """The ids of flows that a queue is home to, the newest first."""
    key = _key(home, "flows")
    return command("ZREVRANGE", key, first, last, key=key, decode=lambda reply: [item.decode() for item in reply])


Place: TypeAlias = "tuple[int, str]"
"""Where a flow stands among all, the newest first: when it was noted, ms, and its id."""


def graphs_before(home: QueueKeys, before: Place | None, limit: int) -> Steps[list[tuple[Place, Graph]]]:
    """The newest flows that a queue is home to and that come after a place in that order: their places and graphs."""
    key = _key(home, "flows")
    most = "+inf" if before is None else before[0]
    pairs: list[tuple[bytes, Any]] = yield command(
        "ZREVRANGEBYSCORE", key, most, "-inf", "WITHSCORES", "LIMIT", 0, limit + MOST_AT_ONE_INSTANT, key=key,
        decode=lambda reply: list(text_pairs(reply)),
    )  # fmt: skip
    places = [(int(float(at)), flow_id.decode()) for flow_id, at in pairs]
    places = [place for place in places if before is None or place < before][:limit]
    if not places:
        return []
    graphs = _key(home, "graphs")
    ids = [flow_id for _, flow_id in places]
    found: list[bytes | None] = yield command("HMGET", graphs, *ids, key=graphs, decode=list)
    return [(place, decode_graph(data)) for place, data in zip(places, found, strict=True) if data is not None]


Span: TypeAlias = "tuple[str, int, int]"
"""Jobs by id: a prefix, the first number behind it, how many; or one id, 0, and 0."""
_STATES = (
    "gone",
    "waiting",
    "scheduled",
    "retrying",
    "queued",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "expired",
)


def count_states(queue: QueueKeys, spans: Sequence[Span]) -> Steps[list[tuple[dict[str, int], bytes | None]]]:
    """In which states these jobs of a queue are: for each span its counts, and the record of the first that failed.

    One call for each 1,000 jobs, whatever their states: a group of 100,000 takes a hundred.
    """
    totals: list[dict[str, int]] = [{} for _ in spans]
    failed: list[bytes | None] = [None] * len(spans)
    found = script("count_states")
    for numbers, parts in _portions(spans):
        args: list[Arg] = [LAYOUT_ARG, *(word for part in parts for word in part)]
        rows: list[list[Any]] = yield Call(found, queue.block(found.keys), args, list)
        for number, row in zip(numbers, rows, strict=True):
            for state, count in zip(_STATES, row, strict=False):
                if count:
                    totals[number][state] = totals[number].get(state, 0) + count
            failed[number] = failed[number] or row[-1] or None
    return list(zip(totals, failed, strict=True))


def _portions(spans: Sequence[Span]) -> Iterator[tuple[list[int], list[Span]]]:
    """The spans cut into calls of at most 1,000 jobs each: which of them, and the part."""
    numbers: list[int] = []
    parts: list[Span] = []
    room = ops.MOST_JOBS_A_CALL
    for number, (name, first, count) in enumerate(spans):
        end = first + max(count, 1)
        while first < end:
            taken = min(room, end - first)
            numbers.append(number)
            parts.append((name, first, taken if count else 0))
            first, room = first + taken, room - taken
            if not room:
                yield numbers, parts
                numbers, parts, room = [], [], ops.MOST_JOBS_A_CALL
    if numbers:
        yield numbers, parts


def half_done(queue: QueueKeys, name: str, older_ms: int, server_ms: int) -> Call[list[str]]:
    """Ids in `linking` or `incomplete` that have been there for longer."""
    key = _key(queue, name)
    return command(
        "ZRANGEBYSCORE", key, "-inf", server_ms - older_ms, "LIMIT", 0, 16, key=key,
        decode=lambda reply: [item.decode() for item in reply],
    )  # fmt: skip


def sweep(queue: QueueKeys, server_ms: int) -> Steps[None]:
    """Do what others began and did not end: letters, links, flows whose producer died before all was stored.

    A flow whose first jobs are missing a minute later is given up: those that wait for them are cancelled.
    """
    yield from deliver(queue)
    for job_id in (yield half_done(queue, "linking", LINK_AGAIN_AFTER_MS, server_ms)):
        missing = yield from link_again(queue, job_id)
        if missing:
            yield from _give_up(queue, job_id)
    for flow_id in (yield half_done(queue, "incomplete", ABANDONED_AFTER_MS, server_ms)):
        if PART in flow_id:
            yield from _clear_part(queue, flow_id)
            continue
        graph: bytes | None = yield read_graph(queue, flow_id)
        if graph is not None:
            yield from _give_up_stuck(flow_id, decode_graph(graph), queue.prefix)
        yield forget(queue, "incomplete", flow_id)


def link_again(queue: QueueKeys, job_id: str, *, is_gone_done: bool = False) -> Steps[str]:
    """As `link_all`, to those that a stored job says it waits for; of a job that has ended, nothing."""
    key = queue.ties
    packed: bytes | None = yield command("HGET", key, job_id, key=key, decode=_raw)
    if packed is None:
        yield forget(queue, "linking", job_id)
        return ""
    parents = [tuple(parent) for parent in msgspec.msgpack.decode(packed).get("o", [])]
    return (yield from link_all(queue, job_id, parents, is_gone_done=is_gone_done))


def _give_up(queue: QueueKeys, job_id: str) -> Steps[None]:
    """End a job that waits for what will never come."""
    key = _key(queue, "waiting")
    if (yield command("HEXISTS", key, job_id, key=key, decode=bool)):
        yield from ops.cancel(queue, job_id)


def _give_up_stuck(flow_id: str, graph: Graph, prefix: str) -> Steps[None]:
    """Cancel the jobs that wait for one which was never stored: it has no record, and sent nothing."""
    for number, node in enumerate(graph.nodes):
        keys = queue_keys(node.queue, prefix)
        first = int(node.task.startswith("signal "))
        senders: dict[int, tuple[QueueKeys, str]] = {}
        for parent, _ in node.after:
            ids = graph.nodes[parent].ids(flow_id, parent)
            at = queue_keys(graph.nodes[parent].queue, prefix)
            senders.update((first + i, (at, job_id)) for i, job_id in enumerate(ids))
            first += len(ids)
        absent: list[int] = []
        for input_number, (at, job_id) in senders.items():
            if not (yield command("HEXISTS", at.jobs, job_id, key=at.jobs, decode=bool)):
                absent.append(input_number)
        for job_id in node.ids(flow_id, number) if absent else ():
            key = _key(keys, f"inputs:{job_id}")
            came: list[bytes | None] = yield command("HMGET", key, *absent, key=key, decode=list)
            if None in came:
                yield from _give_up(keys, job_id)


class GraphNode(msgspec.Struct, frozen=True, array_like=True):
    """One step of a flow. `count`: 0 for one job, else that many. `after`: (number of a node, when) each."""

    task: str
    queue: str
    count: int
    after: list[tuple[int, str]]

    def ids(self, flow_id: str, number: int) -> list[str]:
        if not self.count:
            return [f"{flow_id}.{number}"]
        return [f"{flow_id}.{number}.{i}" for i in range(self.count)]

    def span(self, flow_id: str, number: int) -> Span:
        """The same jobs, as `count_states` takes them."""
        return (f"{flow_id}.{number}.", 0, self.count) if self.count else (f"{flow_id}.{number}", 0, 0)

    @property
    def size(self) -> int:
        return self.count or 1


class Graph(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a flow beside its jobs."""

    name: str
    created_at_ms: int
    nodes: list[GraphNode]


class Waiter(msgspec.Struct, frozen=True, array_like=True):
    """A step that waits for a part, too. `child`: the id of its job, or of `count` jobs the prefix. `inputs`: how many more."""

    queue: str
    child: str
    count: int
    inputs: int

    def expect(self, prefix: str, part_id: str, *, is_on: bool) -> Steps[str]:
        """Have its jobs wait for the part, or no longer; returns the id of one that does not wait any more, or ""."""
        keys = queue_keys(self.queue, prefix)
        found = script("expect")
        inputs = self.inputs if is_on else 0
        for first in range(0, max(self.count, 1), ops.MOST_JOBS_A_CALL):
            count = min(ops.MOST_JOBS_A_CALL, max(self.count, 1) - first)
            args: list[Arg] = [LAYOUT_ARG, self.child, first if self.count else "", count, part_id, inputs]
            answer = yield Call(found, keys.block(found.keys), args, _raw)
            if answer != 1:
                return str(answer.decode())
        return ""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What a job added to the flow that it is of: who, which steps, and which others wait for them."""

    adder: str
    graph: Graph
    waiters: list[Waiter]


encode_part = msgspec.msgpack.Encoder().encode
decode_part = msgspec.msgpack.Decoder(Part).decode


def grow(
    queue: QueueKeys, session: str, adder: str, part_id: str, part: bytes = b"", letters: Sequence[bytes] = ()
) -> Call[str]:
    """Begin to add a part (`part`), or end it (`letters`), for who holds the job `adder`: see grow.lua for the answers."""
    found = script("grow")
    flow_id = part_id.partition(PART)[0]
    args: list[Arg] = [LAYOUT_ARG, adder, flow_id, part_id, part, MOST_PARTS, *letters]
    keys = [*queue.block(found.keys[:-1]), queue.held(session)]
    return Call(found, keys, args, lambda reply: str(reply.decode()))


def go_letter(queue: str, adder: str, child: str, count: int) -> bytes:
    """What lets the first jobs of a part start: the outbox holds it like what a job's end sends."""
    head = msgspec.msgpack.encode(Letter(queue, child, count, GO, "a", 0, adder, 0))
    return len(head).to_bytes(4, "big") + head


def parts_of(queue: QueueKeys, flow_id: str) -> Steps[dict[str, Part]]:
    """What jobs of this queue have added to a flow, by id."""
    key = _key(queue, f"grown:{flow_id}")
    found: list[bytes] | dict[bytes, bytes] = yield command("HGETALL", key, key=key, decode=_raw)
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    return {part_id.decode(): decode_part(data) for part_id, data in pairs if data}


def _clear_part(queue: QueueKeys, part_id: str) -> Steps[None]:
    """Take away what a job began to add and did not end, once that job has ended."""
    key = _key(queue, "growing")
    data: bytes | None = yield command("HGET", key, part_id, key=key, decode=_raw)
    if data is None:
        yield forget(queue, "incomplete", part_id)
        return
    part = decode_part(data)
    if not (yield _clear(queue, "begin", part.adder, part_id)):
        return
    for number, node in enumerate(part.graph.nodes):
        keys = queue_keys(node.queue, queue.prefix)
        ids = node.ids(part_id, number)
        for first in range(0, len(ids), ops.MOST_JOBS_A_CALL):
            yield _clear(keys, "drop", part.adder, part_id, ids[first : first + ops.MOST_JOBS_A_CALL])
    for waiter in part.waiters:
        yield from waiter.expect(queue.prefix, part_id, is_on=False)
    yield _clear(queue, "end", part.adder, part_id)


def _clear(queue: QueueKeys, verb: str, adder: str, part_id: str, ids: Sequence[str] = ()) -> Call[bool]:
    found = script("grow_clear")
    args: list[Arg] = [LAYOUT_ARG, verb, adder, part_id.partition(PART)[0], part_id, *ids]
    return Call(found, queue.block(found.keys), args, bool)


encode_graph = msgspec.msgpack.Encoder().encode
decode_graph = msgspec.msgpack.Decoder(Graph).decode


def forget(queue: QueueKeys, name: str, item: str) -> Call[int]:
    key = _key(queue, name)
    return command("ZREM", key, item, key=key, decode=int)


def states_of(records: Iterable[bytes | None]) -> list[int]:
    """The state byte of each record; 0 where there is none."""
    return [record[2] if record else 0 for record in records]
