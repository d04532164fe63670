"""Whatever reply is lost or torn, or request lost: the client asks again, and all is as if it had been asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from engine_kit import Kit, ended, ids_of, make_due, record_bytes

from headrace.core.record import Stored
from headrace.core.schedule import Spec, next_ticks
from headrace.engine import admin, ops, schedules
from headrace.engine.audit import audit
from headrace.engine.call import Op, command
from headrace.engine.clients import AsyncClient, ServerConfig, SyncClient
from headrace.engine.schedules import Declared
from headrace.errors import JobNotFound, ServerUnreachable
from headrace.testing import FaultProxy, Trap, runs
from headrace.testing.proxy import Matches
from headrace.worker.board import Board
from headrace.worker.settle import Session, aexchange, exchange


@pytest.fixture
def kit(url: str) -> Iterator[Kit]:
    """The queue, seen past the link."""
    client = SyncClient(ServerConfig(url))
    yield Kit(client)
    assert [] == client.run(audit(Kit(client).queue)).violations
    client.close()


@pytest.fixture
def link(url: str) -> Iterator[FaultProxy]:
    with FaultProxy(url) as found:
        yield found


FAULTS: dict[str, Callable[[FaultProxy, Matches], Trap]] = {
    "reply lost": lambda link, matches: link.lose_reply(matches),
    "three replies lost": lambda link, matches: link.lose_reply(matches, times=3),
    "reply torn": lambda link, matches: link.tear_reply(matches, after_bytes=3),
    "request lost": lambda link, matches: link.lose_request(matches),
}


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest) -> Callable[[FaultProxy, Matches], Trap]:
    return FAULTS[request.param]


def send_sync(url: str, make: Callable[[], Op[Any]]) -> Any:
    client = SyncClient(ServerConfig(url))
    try:
        return client.run(make())
    finally:
        client.close()


def send_async(url: str, make: Callable[[], Op[Any]]) -> Any:
    async def main() -> Any:
        client = AsyncClient(ServerConfig(url))
        try:
            return await client.run(make())
        finally:
            await client.aclose()

    return asyncio.run(main())


def number(kit: Kit, *words: str | bytes | int) -> int:
    return kit.client.run(command(*words, key=kit.queue.jobs, decode=lambda reply: int(float(reply or 0))))


@dataclass(frozen=True)
class Case:
    """An operation, what must be there before, what it answers, and what must be true afterwards."""

    prepare: Callable[[Kit], Any]
    make: Callable[[Kit], Op[Any]]
    answer: Any
    check: Callable[[Kit], bool]


def _with_held(kit: Kit) -> None:
    kit.open("s")
    kit.add("a", "b")
    kit.claim("s", 2)


def _with_failed(kit: Kit) -> None:
    kit.open("s")
    kit.add("a")
    kit.settle("s", kit.claim("s", 1), ops.Kind.FAILED)


def _with_schedule(kit: Kit) -> None:
    kit.client.run(schedules.add(kit.queue, "s", HOURLY))


def _with_due_schedule(kit: Kit) -> None:
    _with_schedule(kit)
    make_due(kit.client, "s")


def schedule(kit: Kit) -> schedules.Found:
    return kit.client.run(schedules.find("hr", "s"))


ANY = object()
HOURLY = Spec(every_ms=3_600_000, task="kit.task", payload=b"\x91\x90")
SESSIONS = "ZCARD", "hr:{default}:sessions"
CASES = {
    "open": Case(
        lambda kit: None,
        lambda kit: ops.open_session(kit.queues, "s", 10_000, split=False),
        None,
        lambda kit: number(kit, *SESSIONS) == 1,
    ),
    "renew": Case(
        _with_held,
        lambda kit: ops.renew(kit.queues, ["s"], 60_000, split=False),
        ANY,
        lambda kit: number(kit, "ZSCORE", kit.queue.sessions, "s") - kit.client.run(SERVER_MS(kit)) > 30_000,
    ),
    "adopt": Case(
        _with_held,
        lambda kit: ops.adopt(kit.queues, "s", "t", 10_000, split=False),
        ANY,
        lambda kit: (
            (number(kit, *SESSIONS), number(kit, "SCARD", kit.queue.held("t")), kit.state("a")) == (1, 2, "running")
        ),
    ),
    "give_back": Case(
        _with_held,
        lambda kit: ops.give_back(kit.queues, "s", [("default", "a"), ("default", "b")], split=False),
        ANY,
        lambda kit: ["a", "b"] == ids_of(kit.claim("s", 10)),
    ),
    "release": Case(
        _with_held,
        lambda kit: ops.release(kit.queues, "s", blamed=("a",), alone=True, reason="gone", split=False),
        ANY,
        lambda kit: (
            (1, 0) == (number(kit, "HGET", kit.queue.crashes, "a"), number(kit, *SESSIONS))
            and (["a"], ["b"])
            == (ids_of(kit.claim(kit.open("t"), 10)), ids_of(kit.claim("t", 10, take_suspects=False)))
        ),
    ),
    "tend": Case(
        lambda kit: (kit.open("s", 1), kit.add("a", "b", delay_ms=1)),
        lambda kit: ops.tend(kit.queue, sweep=True),
        ANY,
        lambda kit: ["a", "b"] == ids_of(kit.claim(kit.open("t"), 10)),
    ),
    "cancel": Case(
        lambda kit: kit.add("a"),
        lambda kit: ops.cancel(kit.queue, "a"),
        "cancelled",
        lambda kit: kit.state("a") == "cancelled" and number(kit, "HGET", kit.queue.stats, "cancelled") == 1,
    ),
    "cancel of a running job": Case(
        _with_held,
        lambda kit: ops.cancel(kit.queue, "a"),
        "asked",
        lambda kit: kit.client.run(ops.is_cancel_asked(kit.queue, "a")),
    ),
    "requeue": Case(
        _with_failed,
        lambda kit: ops.retry(kit.queue, "a"),
        "queued",
        lambda kit: ["a"] == ids_of(kit.claim("s", 10)) and number(kit, "HGET", kit.queue.stats, "requeued") == 1,
    ),
    "run_now": Case(
        lambda kit: (kit.add("first"), kit.add("a", delay_ms=60_000), kit.open("s")),
        lambda kit: ops.run_now(kit.queue, "a"),
        "queued",
        lambda kit: ["a", "first"] == ids_of(kit.claim("s", 10)),
    ),
    "delete": Case(
        lambda kit: kit.add("a"),
        lambda kit: ops.delete(kit.queue, "a"),
        "deleted",
        lambda kit: kit.state("a") == "none" and number(kit, "HGET", kit.queue.stats, "deleted") == 1,
    ),
    "schedule_put of add": Case(
        lambda kit: None,
        lambda kit: schedules.add(kit.queue, "s", HOURLY),
        ANY,
        lambda kit: schedule(kit).state == "active",
    ),
    "schedule_put of skip": Case(
        _with_schedule,
        lambda kit: schedules.skip(schedule(kit), 2),
        ANY,
        lambda kit: (
            [schedule(kit).look_at_ms]
            == next_ticks(HOURLY, schedule(kit).server_ms, 3)[2:]
            == [schedule(kit).entry.next_ms]
        ),
    ),
    "schedule_put of declare": Case(
        lambda kit: None,
        lambda kit: schedules.declare("hr", Declared("s", "default", HOURLY), is_start=True),
        "",
        lambda kit: schedule(kit).is_held,
    ),
    "schedule_put of remove": Case(
        _with_schedule,
        lambda kit: schedules.remove(schedule(kit)),
        None,
        lambda kit: [] == kit.client.run(schedules.list_schedules("hr")),
    ),
    "fire of run_now": Case(
        _with_schedule,
        lambda kit: schedules.run_now(schedule(kit)),
        ANY,
        lambda kit: 1 == number(kit, "LLEN", kit.queue.ready) == number(kit, "HGET", kit.queue.stats, "enqueued"),
    ),
    "fire": Case(
        _with_due_schedule,
        lambda kit: schedules.fire_due(kit.queue, {}),
        ANY,
        lambda kit: (1, 1) == (number(kit, "LLEN", kit.queue.ready), schedule(kit).entry.fired),
    ),
}


def SERVER_MS(kit: Kit) -> Op[int]:
    return command("TIME", key=kit.queue.jobs, decode=lambda reply: int(reply[0]) * 1000)


@pytest.mark.parametrize("send", [send_sync, send_async])
@pytest.mark.parametrize("name", CASES)
def test_an_operation_is_done_once(
    kit: Kit, link: FaultProxy, fault: Callable[[FaultProxy, Matches], Trap], send: Callable[..., Any], name: str
) -> None:
    """Its answer is the one that was lost, and the queue is as after one call."""
    case = CASES[name]
    case.prepare(kit)
    trap = fault(link, runs(name.partition(" ")[0]))
    answer = send(link.url, lambda: case.make(kit))
    assert trap.hits >= 1
    assert case.answer in (ANY, answer)
    assert case.check(kit)


def test_a_job_that_ran_again_meanwhile_is_not_requeued_twice(kit: Kit, link: FaultProxy) -> None:
    """The reply of a requeue is lost, the job runs at once: the second try finds it ended, and lets it be."""
    _with_failed(kit)
    trap = link.lose_reply(runs("requeue"))

    def runs_again_first(request: bytes) -> bool:
        if trap.hits and runs("requeue")(request):
            kit.settle("s", kit.claim("s", 1))
        return False

    link.lose_request(runs_again_first)
    answer = send_sync(link.url, lambda: ops.retry(kit.queue, "a"))
    assert ("queued", "succeeded") == (answer, kit.state("a"))
    assert 1 == number(kit, "HGET", kit.queue.stats, "requeued")


@pytest.mark.parametrize("send", [send_sync, send_async])
def test_what_is_not_there_is_still_said_so(kit: Kit, link: FaultProxy, send: Callable[..., Any]) -> None:
    """A lost reply does not make a job that never was into one that was deleted or cancelled."""
    for make in (ops.delete, ops.cancel, ops.retry, ops.run_now):
        link.lose_reply(lambda request: b"nothing" in request)
        with pytest.raises(JobNotFound):
            send(link.url, lambda make=make: make(kit.queue, "nothing"))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("count", [1, 300])
def test_jobs_are_stored_once(
    kit: Kit, link: FaultProxy, fault: Callable[[FaultProxy, Matches], Trap], is_async: bool, count: int
) -> None:
    """Also when they have run, ended and gone before the client asks again."""
    asks = runs("enqueue")
    began: list[bytes] = []

    def run_all_before_the_second(request: bytes) -> bool:
        if not asks(request):
            return False
        began.append(request)
        if len(began) > 1:
            kit.settle("s", kit.claim("s", 256), ops.Kind.DROPPED)
            kit.settle("s", kit.claim("s", 256), ops.Kind.DROPPED)
        return True

    kit.open("s")
    trap = fault(link, run_all_before_the_second)
    jobs = [ops.NewJob(f"j{n}", record_bytes()) for n in range(count)]
    enqueue(link.url, is_async, jobs)
    assert trap.hits >= 1
    assert count == number(kit, "HGET", kit.queue.stats, "enqueued")
    kit.settle("s", kit.claim("s", 256), ops.Kind.DROPPED)
    kit.settle("s", kit.claim("s", 256), ops.Kind.DROPPED)
    assert (0, 0) == (number(kit, "HLEN", kit.queue.jobs), number(kit, "LLEN", kit.queue.ready))


def enqueue(url: str, is_async: bool, jobs: list[ops.NewJob], durability: str = "memory") -> None:
    async def main() -> None:
        client = AsyncClient(ServerConfig(url))
        try:
            await asyncio.gather(*(client.enqueue("default", [job], durability) for job in jobs))
        finally:
            await client.aclose()

    if is_async:
        asyncio.run(main())
        return
    client = SyncClient(ServerConfig(url))
    client.enqueue("default", jobs, durability)
    client.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_enqueue_that_asks_for_more_safety_is_stored_once_too(kit: Kit, link: FaultProxy, is_async: bool) -> None:
    """With WAITAOF in the same write, the first of two replies is the one that is lost."""
    kit.client.run(command("CONFIG", "SET", "appendonly", "yes", decode=lambda _: None))
    trap = link.lose_reply(runs("enqueue"))
    try:
        enqueue(link.url, is_async, [ops.NewJob("a", record_bytes())], "fsync")
    finally:
        kit.client.run(command("CONFIG", "SET", "appendonly", "no", decode=lambda _: None))
    assert (1, 1) == (trap.hits, number(kit, "HGET", kit.queue.stats, "enqueued"))
    assert 1 == number(kit, "LLEN", kit.queue.ready)


# A worker's own calls: what was claimed or settled is known again by adopting the session.


class Consumer:
    """A session as a worker drives it, by way of the link."""

    def __init__(self, kit: Kit, link: FaultProxy, is_async: bool) -> None:
        self._link = link
        self._is_async = is_async
        self._board = Board.create(1, 1)
        self.session = Session(kit.queues, lambda epoch: f"s{epoch}", self._board.slot(0, 0), 10_000, split=False)
        kit.client.run(self.session.open())

    def exchange(self, outcomes: list[ops.Settlement], want: int) -> ops.Settled:
        config = ServerConfig(self._link.url)

        async def main() -> ops.Settled | None:
            client = AsyncClient(config, retry=False)
            try:
                return await aexchange(client, self.session, outcomes, want, True, lambda: False)
            finally:
                await client.aclose()

        if self._is_async:
            settled = asyncio.run(main())
        else:
            client = SyncClient(config, retry=False)
            settled = exchange(client, self.session, outcomes, want, True, -1, lambda: False)
            client.close()
        assert settled is not None
        return settled


def succeeded(claims: list[ops.Claim]) -> list[ops.Settlement]:
    return [
        ops.Settlement(claim.queue, claim.id, ops.Kind.SUCCEEDED, ended(claim.record, Stored.SUCCEEDED), keep_ms=60_000)
        for claim in claims
    ]


ALSO: dict[str, Callable[[FaultProxy], list[Trap]]] = {
    "and nothing else": lambda link: [],
    "and adopt's": lambda link: [link.lose_reply(runs("adopt"))],
    "and adopt's and give_back's": lambda link: [link.lose_reply(runs(name)) for name in ("adopt", "give_back")],
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("also", ALSO)
def test_claims_and_outcomes_are_never_half_known(
    kit: Kit, link: FaultProxy, fault: Callable[[FaultProxy, Matches], Trap], is_async: bool, also: str
) -> None:
    """Each of ten jobs is claimed, settled once, and claimed by nobody else; none is forgotten in a session."""
    consumer = Consumer(kit, link, is_async)
    names = [f"j{n}" for n in range(10)]
    kit.add(*names)
    outcomes: list[ops.Settlement] = []
    ran: list[str] = []
    hits = 0
    while True:
        traps = [fault(link, runs("settle")), *ALSO[also](link)]
        claims = consumer.exchange(outcomes, 3).claimed.claims
        hits += sum(trap.hits for trap in traps)
        for trap in traps:
            trap.disarm()
        if not claims:
            break
        ran += ids_of(claims)
        outcomes = succeeded(claims)
    assert hits >= 5
    assert names == sorted(ran)
    assert 10 == number(kit, "HGET", kit.queue.stats, "succeeded")
    assert {"succeeded"} == {kit.state(name) for name in names}
    assert 0 == number(kit, "LLEN", kit.queue.ready)
    assert 1 == number(kit, *SESSIONS)


def test_a_session_in_doubt_is_closed_whichever_it_is_now(kit: Kit, link: FaultProxy) -> None:
    """A consumer that stops after its claim's reply and then its adoption's were lost: its jobs are ready again."""
    session = Consumer(kit, link, False).session
    kit.add("a", "b", "c")
    client = SyncClient(ServerConfig(link.url), retry=False)
    traps = [link.lose_reply(runs(name)) for name in ("settle", "adopt")]
    for _ in traps:
        with pytest.raises(ServerUnreachable) as lost:
            client.run(session.exchange([], 2, False))
        session.note(lost.value)
    assert [1, 1] == [trap.hits for trap in traps]
    client.run(session.close())
    client.close()
    assert (0, 3) == (number(kit, *SESSIONS), number(kit, "LLEN", kit.queue.ready))


@pytest.mark.parametrize("send", [send_sync, send_async])
def test_a_command_for_a_worker_is_told_until_the_worker_has_it(
    kit: Kit, link: FaultProxy, fault: Callable[[FaultProxy, Matches], Trap], send: Callable[..., Any]
) -> None:
    """Also when the reply that told it, or the word that it was taken, was lost."""

    def beat(taken: str = "") -> Op[str | None]:
        return ops.beat("hr", "w1", b"\x80", taken)

    kit.client.run(beat())
    assert kit.client.run(admin.send_command("hr", "w1", "quiet"))
    for taken, told in (("", "quiet"), ("quiet", None), ("", None)):
        trap = fault(link, runs("beat"))
        assert told == send(link.url, lambda taken=taken: beat(taken))
        assert trap.hits
