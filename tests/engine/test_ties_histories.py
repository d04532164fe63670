"""Random histories of jobs with unique keys, limits and groups: whatever happens, the limits hold and nothing is lost."""

from __future__ import annotations

import select
from dataclasses import dataclass, field

import pytest
from engine_kit import Kit
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace.core.ties import Group, Limit, Ties, Unique
from headrace.engine import ops
from headrace.engine.audit import audit
from headrace.engine.clients import ServerConfig, SyncClient

NARROW, WIDE, FAST = Limit("narrow", concurrency=1), Limit("wide", concurrency=2), Limit("fast", rate="100/s", burst=3)
TIES = [
    Ties(),
    Ties(limits=(NARROW,)),
    Ties(limits=(WIDE,)),
    Ties(limits=(WIDE, NARROW)),
    Ties(limits=(FAST, WIDE)),
    Ties(group=Group("a")),
    Ties(group=Group("b", weight=2), limits=(WIDE,)),
    Ties(unique=Unique("n"), limits=(NARROW,), group=Group("a")),
    Ties(unique=Unique("n", until="start")),
]
SESSIONS = ("s0", "s1", "s2")
KINDS = [ops.Kind.SUCCEEDED, ops.Kind.DROPPED, ops.Kind.FAILED, ops.Kind.RETRY, ops.Kind.RELEASE, ops.Kind.CANCELLED]

enqueues = st.tuples(st.just("enqueue"), st.integers(0, len(TIES) - 1), st.integers(0, 2))
claims = st.tuples(st.just("claim"), st.integers(0, 2), st.integers(1, 4))
settles = st.tuples(st.just("settle"), st.integers(0, 2), st.sampled_from(KINDS))
others = st.tuples(
    st.sampled_from(["give_back", "release", "cancel", "delete", "tend"]), st.integers(0, 2), st.integers(0, 40)
)
histories = st.lists(enqueues | enqueues | claims | claims | settles | settles | others, min_size=5, max_size=60)


@dataclass
class Seen:
    """What the history has done: ids stored, and what each session holds."""

    stored: list[str] = field(default_factory=list)
    held: dict[str, list[ops.Claim]] = field(default_factory=lambda: {name: [] for name in SESSIONS})

    def running(self) -> int:
        return sum(map(len, self.held.values()))


class History:
    """Applies steps to a queue, and looks after each."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.seen = Seen()
        self.ties: dict[str, Ties] = {}
        self.number = 0
        for session in SESSIONS:
            kit.open(session)

    def step(self, name: str, which: int, arg: object) -> None:
        kit, seen = self.kit, self.seen
        session = SESSIONS[which % 3]
        held = seen.held[session]
        if name == "enqueue":
            assert isinstance(arg, int)
            self.enqueue(TIES[which], arg)
        elif name == "claim":
            assert isinstance(arg, int)
            held += kit.claim(session, arg)
        elif name == "settle" and held:
            assert isinstance(arg, ops.Kind)
            is_again = arg in (ops.Kind.RETRY, ops.Kind.RELEASE)
            settled = kit.settle(session, held[:1], arg, ms=0 if is_again else 60_000)
            assert settled.lost == []
            del held[0]
        elif name == "give_back" and held:
            kit.client.run(ops.give_back(kit.queues, session, [(c.queue, c.id) for c in held], split=kit.split))
            held.clear()
        elif name == "release":
            kit.release(session, *[claim.id for claim in held[:1]], alone=True)
            held.clear()
            kit.open(session)
        elif name in ("cancel", "delete") and seen.stored:
            assert isinstance(arg, int)
            self.end(name, seen.stored[arg % len(seen.stored)])
        elif name == "tend":
            kit.client.run(ops.tend(kit.queue, sweep=False))
        self.look()

    def enqueue(self, ties: Ties, n: int) -> None:
        self.number += 1
        job_id = f"j{self.number:03}"
        packed = ties.of("kit.task", {"n": n})
        same = self.kit.client.enqueue("default", [ops.NewJob(job_id, self.kit.record(ties=packed), ties=packed)])
        if job_id not in same:
            self.seen.stored.append(job_id)
            self.ties[job_id] = ties

    def end(self, name: str, job_id: str) -> None:
        if any(claim.id == job_id for held in self.seen.held.values() for claim in held):
            return
        look = self.kit.look(job_id)
        if look is not None and not look.state.is_ended:
            self.kit.client.run((ops.cancel if name == "cancel" else ops.delete)(self.kit.queue, job_id))

    def look(self) -> None:
        """No limit is exceeded, and the queue is sound."""
        ids = [claim.id for held in self.seen.held.values() for claim in held]
        assert len(ids) == len(set(ids))
        for limit in (NARROW, WIDE):
            under = [job_id for job_id in ids if limit in self.ties[job_id].limits]
            assert len(under) <= (limit.concurrency or 0)
        report = self.kit.client.run(audit(self.kit.queue))
        assert report.violations == []

    def drain(self) -> None:
        """Every job that has not ended can be claimed and ended, and nothing is left behind."""
        for session in SESSIONS:
            if self.seen.held[session]:
                self.kit.settle(session, self.seen.held[session])
        while True:
            claimed = self.kit.claimed("s0", 4)
            if claimed.claims:
                self.kit.settle("s0", claimed.claims)
            elif claimed.next_due_ms is not None:
                select.select([], [], [], (claimed.next_due_ms + 1) / 1000)  # as a worker waits
            elif not claimed.more:
                break
        for job_id in self.seen.stored:
            look = self.kit.look(job_id)
            assert look is None or look.state.is_ended, (job_id, look.state)
        self.kit.client.run(ops.tend(self.kit.queue, sweep=False))
        left = {name for name in self.kit.key_names() if name.split(":")[0] in LEFTOVERS}
        assert left == set()


LEFTOVERS = {"ties", "group", "groups", "parked", "slots", "unique", "gates", "held"}


def run(url: str, history: list[tuple[str, int, object]]) -> None:
    client = SyncClient(ServerConfig(url), retry=False)
    try:
        client.run(ops.command("FLUSHALL", decode=lambda reply: reply))
        found = History(Kit(client))
        for step in history:
            found.step(*step)
        found.drain()
    finally:
        client.close()


COMMON = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(max_examples=60, derandomize=True, **COMMON)  # type: ignore[arg-type]
@given(history=histories)
def test_limits_hold_and_nothing_is_lost_whatever_happens(url: str, history: list[tuple[str, int, object]]) -> None:
    """The same sixty histories each time."""
    run(url, history)


@pytest.mark.long
@pytest.mark.timeout(1200)
@settings(max_examples=500, phases=[Phase.generate], **COMMON)  # type: ignore[arg-type]
@given(history=histories)
def test_limits_hold_in_many_histories(url: str, history: list[tuple[str, int, object]]) -> None:
    """Others each time."""
    run(url, history)
