"""One consumer's batches: what becomes of each job when the session ends, a reply is lost, or the batch is broken up."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from scenario_lab import until
from worker_kit import Hand, Other, hand

from groups import remember_slot
from headrace import Headrace, State
from headrace.engine import ops
from headrace.engine.call import command
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.keys import queue_keys
from headrace.testing import FaultProxy, runs

REST = [f"rest{n}" for n in range(6)]
LONG_AGO_NS = 1_000_000_000


@pytest.fixture(params=["prefork", "threads"])
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Batch:
    """A batch of eight: "before", "acts", which does what the test wants, and the six of REST; and what ran here."""

    def __init__(self, app: Headrace, act: Callable[[Hand], None]) -> None:
        self.app = app
        self.ran: list[str] = []
        self.one: Hand
        self.act = act
        self.problem: Exception | None = None
        self.on_rest: Callable[[], None] = lambda: None

        @app.task(name="job")
        def job(name: str) -> None:
            self.ran.append(name)
            if name == "acts":
                try:
                    assert ["before", "acts", *REST] == self.one.slot.batch_ids()
                    self.act(self.one)
                except Exception as error:
                    self.problem = error
            elif name in REST:
                self.on_rest()

        # One, two and four jobs first: a consumer doubles its batches.
        for name in [*(f"first{n}" for n in range(7)), "before", "acts", *REST]:
            app.options(job_id=name).enqueue(job, name)

    def run(self, pool: str, **config: str) -> None:
        with hand(self.app, pool=pool, batch_ms=60_000, **config) as self.one:
            self.one.work()
        if self.problem is not None:
            raise self.problem

    def runs_of(self, *names: str) -> list[int]:
        counted = Counter(self.ran)
        return [counted[name] for name in names]

    def states(self, *names: str) -> set[State]:
        return {self.app.job(name).state for name in names}


@pytest.mark.long
def test_what_runs_on_when_the_session_has_ended_is_dropped(
    app: Headrace, pool: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another worker has the jobs by then, and what it makes of them counts; the consumer goes on as a new session."""
    other = Other(app)

    def act(one: Hand) -> None:
        app.client.run(ops.close_session(other.queues, one.consumer.session.name, split=False))
        assert {"before", "acts", *REST} == set(other.claim(8))
        app.options(job_id="later").enqueue("job", "later")

    batch = Batch(app, act)
    with caplog.at_level(logging.INFO):
        batch.run(pool)
    assert "lease had ended" in caplog.text
    assert batch.one.consumer.session.name == "w.0.0.1.2"
    assert {State.RUNNING} == batch.states("before", "acts", *REST)
    assert {State.SUCCEEDED} == batch.states("later")
    assert [1] == batch.runs_of("later")
    other.drop()


def test_a_stop_in_the_middle_of_a_batch_gives_the_rest_back(app: Headrace, pool: str) -> None:
    """In its order, at the head of the queue, uncharged; what ran is settled."""
    batch = Batch(app, lambda one: one.child.stop())
    app.options(job_id="last").enqueue("job", "last")
    batch.run(pool)
    assert {State.SUCCEEDED} == batch.states("before", "acts")
    assert [0] * 6 == batch.runs_of(*REST)
    assert {0} == {app.job(name).attempt for name in REST}
    other = Other(app)
    assert [*REST, "last"] == other.claim(10)
    other.drop()


def test_an_old_batch_is_relieved_of_what_is_done_and_what_has_not_begun(app: Headrace, pool: str) -> None:
    """Behind one long job: the first are settled, the others run elsewhere, each once."""
    other = Other(app)

    def act(one: Hand) -> None:
        relieve(one, app.client)
        assert {State.SUCCEEDED} == batch.states("before")
        assert REST == other.claim(10)
        relieve(one, app.client)  # there is nothing more to do

    batch = Batch(app, act)
    batch.run(pool)
    assert {State.SUCCEEDED} == batch.states("before", "acts")
    assert [0] * 6 == batch.runs_of(*REST)
    other.drop()


def relieve(one: Hand, client: SyncClient) -> bool:
    return one.consumer.relieve(client, time.monotonic_ns() + LONG_AGO_NS)


@pytest.fixture
def link(url: str) -> Iterator[FaultProxy]:
    with FaultProxy(url) as found:
        yield found


@pytest.mark.parametrize("is_done", [True, False], ids=["reply lost", "request lost"])
def test_a_relief_whose_reply_was_lost_is_known_again(
    app: Headrace, pool: str, link: FaultProxy, is_done: bool
) -> None:
    """The consumer adopts its session: what was done is settled once, what was given back runs once."""
    with ExitStack() as stack:
        far = SyncClient(ServerConfig(link.url), retry=False)
        stack.callback(far.close)

        def act(one: Hand) -> None:
            trap = link.lose_reply(runs("settle")) if is_done else link.lose_request(runs("settle"))
            relieve(one, far)
            trap.wait()
            assert one.consumer.session.must_adopt

        batch = Batch(app, act)
        batch.run(pool)
    assert batch.one.consumer.session.name == "w.0.0.1.2"
    assert {State.SUCCEEDED} == batch.states("before", "acts", *REST)
    assert [1] * 8 == batch.runs_of("before", "acts", *REST)
    assert 15 == int(app.client.run(command("HGET", STATS, "succeeded", key=STATS, decode=int)))


STATS = queue_keys("default").stats


def test_what_the_supervisor_has_given_back_is_not_begun(app: Headrace, pool: str) -> None:
    """It does so where a job holds the GIL, and the helper cannot."""
    other = Other(app)

    def act(one: Hand) -> None:
        break_up(one, app)
        assert REST == other.claim(10)

    batch = Batch(app, act)
    batch.run(pool)
    assert [0] * 6 == batch.runs_of(*REST)
    assert {State.SUCCEEDED} == batch.states("before", "acts")
    other.drop()


def test_a_job_that_was_about_to_begin_when_the_supervisor_gave_the_rest_back_is_not_stuck(
    app: Headrace, pool: str
) -> None:
    """The supervisor took it for begun, the child saw that the batch was taken from it: neither gave it back."""

    def act(one: Hand) -> None:
        one.slot.revoke(one.slot.batch_serial)
        rest = one.slot.batch()[one.slot.index + 2 :]
        app.client.run(ops.give_back([queue_keys("default")], one.consumer.session.name, rest, split=False))

    batch = Batch(app, act)
    batch.run(pool)
    assert {State.SUCCEEDED} == batch.states("before", "acts", *REST)
    assert [1] * 8 == batch.runs_of("before", "acts", *REST)


def break_up(one: Hand, app: Headrace) -> None:
    """As `Deadlines` does with a batch of one second."""
    slot = one.slot
    slot.revoke(slot.batch_serial)
    rest = slot.batch()[slot.index + 1 :]
    app.client.run(ops.give_back([queue_keys("default")], one.consumer.session.name, rest, split=False))


def test_a_relief_that_arrives_late_takes_no_job_away_that_was_claimed_since(
    app: Headrace, pool: str, link: FaultProxy
) -> None:
    """The supervisor was faster, and the same consumer has its jobs again: they run once."""
    far = SyncClient(ServerConfig(link.url, command_timeout_s=1.0), retry=False)
    helpers: list[threading.Thread] = []

    def act(one: Hand) -> None:
        helpers.append(threading.Thread(target=relieve_late))
        helpers[0].start()
        until(lambda: len(one.consumer._batch) == 2, what="the relief to begin")
        break_up(one, app)

    def relieve_late() -> None:
        far.run(command("PING", decode=bool))  # so that it is connected
        link.cut("up")
        relieve(batch.one, far)
        far.close()

    batch = Batch(app, act)
    batch.on_rest = link.heal
    batch.run(pool)
    helpers[0].join()
    assert [1] * 8 == batch.runs_of("before", "acts", *REST)
    assert {State.SUCCEEDED} == batch.states("before", "acts", *REST)


@pytest.mark.parametrize("slots", [1, 3])
def test_a_consumer_loses_and_doubles_nothing_on_a_bad_link(app: Headrace, link: FaultProxy, slots: int) -> None:
    """Replies and requests of every call are lost now and then; each job runs once."""
    ran: Counter[int] = Counter()

    @app.task(name="count")
    def count(number: int) -> None:
        ran[number] += 1

    jobs = [app.enqueue(count, number) for number in range(300)]
    for name in ("settle", "adopt", "give_back"):
        link.lose_reply(runs(name), times=None, chance=0.15)
        link.lose_request(runs(name), times=None, chance=0.1)
    with hand(app, pool="threads", slots=slots, url=link.url) as one:
        one.work()
    assert {1} == set(ran.values())
    assert 300 == len(ran)
    assert {State.SUCCEEDED} == {app.job(job.id).state for job in jobs}


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_a_job_whose_end_a_failover_took_back_runs_again(cluster_url: str, pool: str) -> None:
    """The primary had said that it was settled; the node that took over never heard of it, and the next call just goes there."""
    ran: list[str] = []
    fall_back: list[Callable[[], None]] = []
    with Headrace(cluster_url) as app:

        @app.task(name="job")
        def job(name: str) -> None:
            ran.append(name)
            if ran == ["first"]:
                fall_back.append(remember_slot(cluster_url, queue_keys("default").ready))
            elif ran == ["first", "second"]:
                fall_back[0]()

        for name in ("first", "second"):
            app.options(job_id=name).enqueue(job, name)
        with hand(app, pool=pool, url=cluster_url) as one:
            one.work()
        assert ["first", "second", "second", "first"] == ran
        assert {State.SUCCEEDED} == {app.job(name).state for name in ("first", "second")}
