"""Random graphs of jobs over two queues: each runs if, and only if, what it waits for ended as it wants."""

from __future__ import annotations

import random
from dataclasses import dataclass

import msgspec
import pytest
from engine_kit import Kit
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace.engine import flows, ops
from headrace.engine.audit import audit
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.keys import QueueKeys

QUEUES = ("default", "other")
KINDS = {"s": ops.Kind.SUCCEEDED, "d": ops.Kind.DROPPED, "f": ops.Kind.FAILED, "c": ops.Kind.CANCELLED}


@dataclass
class Node:
    """`end`: how it ends when it runs; `after`: parent and when."""

    queue: int
    end: str
    after: list[tuple[int, str]]


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    nodes: list[Node] = []
    for number in range(draw(st.integers(2, 9))):
        parents = draw(st.lists(st.integers(0, number - 1), unique=True, max_size=3)) if number else []
        after = [(parent, draw(st.sampled_from("ssaf"))) for parent in parents]
        nodes.append(Node(draw(st.integers(0, 1)), draw(st.sampled_from("sssdffc")), after))
    return nodes


def expected(nodes: list[Node]) -> list[str]:
    """How each job ends: by its own end if it runs, else cancelled ('c')."""
    ends: list[str] = []
    for node in nodes:
        met = [
            when == "a" or (when == "s" and ends[parent] in "sd") or (when == "f" and ends[parent] == "f")
            for parent, when in node.after
        ]
        ends.append(node.end if all(met) else "c")
    return ends


def store(kit: Kit, nodes: list[Node]) -> None:
    """Those that wait first; each once, though it is sent twice."""
    edges: list[list[dict[str, object]]] = [[] for _ in nodes]
    for number, node in enumerate(nodes):
        for index, (parent, when) in enumerate(node.after):
            to = "" if nodes[parent].queue == node.queue else QUEUES[node.queue]
            edges[parent].append({"q": to, "c": f"f.{number}", "n": index, "w": when, "r": True})
    order = sorted(range(len(nodes)), key=lambda number: not nodes[number].after)
    for number in order:
        node = nodes[number]
        ties = {**({"p": len(node.after), "i": True} if node.after else {}), "e": edges[number]}
        packed = msgspec.msgpack.encode(ties)
        for _ in range(2):
            new = ops.NewJob(f"f.{number}", kit.record(ties=packed), ties=packed, pass_over=True)
            kit.client.enqueue(QUEUES[node.queue], [new])


def run(url: str, nodes: list[Node], seed: int) -> None:
    client = SyncClient(ServerConfig(url), retry=False)
    rng = random.Random(seed)
    try:
        client.run(ops.command("FLUSHALL", decode=lambda reply: reply))
        kit = Kit(client, *QUEUES)
        kit.open("one")
        store(kit, nodes)
        drive(kit, nodes, rng)
        ran_as_expected(kit, nodes)
    finally:
        client.close()


def drive(kit: Kit, nodes: list[Node], rng: random.Random) -> None:
    """Work on it as careless workers would: retries, deaths, letters delivered twice, or late."""
    idle = 0
    tries: dict[str, int] = {}
    while idle < 3:
        claims = kit.claim("one", rng.randint(1, 4))
        idle = 0 if claims else idle + 1
        if claims and rng.random() < 0.15:
            kit.release("one")
            kit.open("one")
            continue
        for claim in claims:
            tries[claim.id] = tries.get(claim.id, 0) + 1
            node = nodes[int(claim.id.partition(".")[2])]
            is_retried = rng.random() < 0.3 and tries[claim.id] < 3
            kit.settle(
                "one", [claim], ops.Kind.RETRY if is_retried else KINDS[node.end], ms=0 if is_retried else 60_000
            )
            inputs = kit.client.run(flows.inputs(kit.queues[node.queue], claim.id))
            assert is_retried is False or len(inputs) == len(node.after)
        if rng.random() < 0.5 or not claims:
            for queue in kit.queues:
                deliver_twice(kit, queue)
        for queue in kit.queues:
            assert kit.client.run(audit(queue)).violations == []


def deliver_twice(kit: Kit, queue: QueueKeys) -> None:
    key = queue.base + "outbox"
    letters = kit.client.run(ops.command("LRANGE", key, 0, -1, key=key, decode=list))
    kit.client.run(flows.deliver(queue))
    if letters:
        kit.client.run(ops.command("RPUSH", key, *letters, key=key, decode=int))
        kit.client.run(flows.deliver(queue))


def ran_as_expected(kit: Kit, nodes: list[Node]) -> None:
    states = {"s": "succeeded", "d": "none", "f": "failed", "c": "cancelled"}
    for number, (node, end) in enumerate(zip(nodes, expected(nodes), strict=True)):
        look = kit.client.run(ops.look(kit.queues[node.queue], f"f.{number}"))
        assert ("none" if look is None else str(look.state)) == states[end], number
    for queue in kit.queues:
        for name in ("waiting", "outbox", "ties"):
            key = queue.base + name
            assert not kit.client.run(ops.command("EXISTS", key, key=key, decode=bool)), name


COMMON = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(max_examples=50, derandomize=True, **COMMON)  # type: ignore[arg-type]
@given(nodes=graphs(), seed=st.integers(0, 1 << 30))
def test_each_job_of_a_graph_ends_as_its_conditions_say(url: str, nodes: list[Node], seed: int) -> None:
    """The same fifty graphs each time."""
    run(url, nodes, seed)


@pytest.mark.long
@pytest.mark.timeout(1200)
@settings(max_examples=500, phases=[Phase.generate], **COMMON)  # type: ignore[arg-type]
@given(nodes=graphs(), seed=st.integers(0, 1 << 30))
def test_jobs_of_many_graphs_end_as_their_conditions_say(url: str, nodes: list[Node], seed: int) -> None:
    """Others each time."""
    run(url, nodes, seed)
