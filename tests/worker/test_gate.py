"""A suspect is run alone in its process: the others wait for it, and only while it is really there."""

from __future__ import annotations

import threading

import pytest
from worker_kit import Other, hand

from headrace import Headrace
from headrace.engine import admin
from headrace.worker.gate import ALONE, Gate


def test_a_consumer_without_neighbours_takes_suspects_at_once():
    """There is nobody to wait for."""
    gate = Gate(1)
    gate.ask_for_solo()
    assert gate.enter(0) is ALONE
    gate.leave(0)
    assert gate.enter(0) is ALONE


def test_all_claim_side_by_side_until_a_suspect_waits():
    """None of them may take a suspect."""
    gate = Gate(3)
    permits = [gate.enter(number) for number in range(3)]
    assert [(False, False)] * 3 == [(p.may_take_suspects, p.is_solo) for p in permits if p is not None]


def test_who_is_the_last_to_hold_a_job_runs_the_suspect_alone():
    """Nobody claims before that, nor while it runs; then all do."""
    gate = Gate(3)
    for number in range(3):
        gate.enter(number)
    gate.ask_for_solo()
    gate.leave(0)
    assert [None, None] == [gate.enter(0), gate.enter(1)]  # 2 still runs its job
    gate.leave(2)
    solo = gate.enter(1)
    assert solo is not None and solo.is_solo and solo.may_take_suspects
    assert [None, None] == [gate.enter(0), gate.enter(2)]
    gate.ask_for_solo()  # of a claim that was under way: the solo run has begun already
    gate.leave(1)
    again = gate.enter(0)
    assert again is not None and not again.is_solo


def test_the_solo_run_may_take_several_turns():
    """Its consumer enters again with what it owes; the others go on waiting."""
    gate = Gate(2)
    gate.ask_for_solo()
    first = gate.enter(1)
    assert first is not None and first.is_solo
    assert gate.enter(1) is first
    assert gate.enter(0) is None


def test_who_found_no_suspect_is_not_alone_any_more():
    """Another process may have been faster; the job that came instead is a job like any other."""
    gate = Gate(2)
    gate.ask_for_solo()
    gate.enter(0)
    gate.reopen(0)
    usual = gate.enter(1)
    assert usual is not None and not usual.is_solo
    gate.ask_for_solo()
    gate.leave(1)
    assert gate.enter(1) is None  # 0 holds a job
    gate.leave(0)
    solo = gate.enter(1)
    assert solo is not None and solo.is_solo


def make_suspect(app: Headrace, *ids: str) -> None:
    """These jobs, the next in the queue, have taken a worker with them."""
    for job_id in ids:
        other = Other(app, f"dead-{job_id}")
        assert [job_id] == other.claim(take_suspects=False)
        other.die(job_id)


class Company:
    """Notes who runs beside whom."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._here: set[str] = set()
        self.beside: dict[str, set[str]] = {}

    def enter(self, name: str) -> None:
        with self._lock:
            for other in self._here:
                self.beside[other].add(name)
            self.beside[name] = set(self._here)
            self._here.add(name)

    def leave(self, name: str) -> None:
        with self._lock:
            self._here.discard(name)


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_suspects_run_alone_among_many(app: Headrace, pool: str) -> None:
    """Whatever else waits or runs in the process; and each job runs once."""
    company = Company()

    @app.task(name="stay")
    def stay(name: str) -> None:
        company.enter(name)
        threading.Event().wait(0.005)
        company.leave(name)

    suspects, others = [f"s{n}" for n in range(3)], [f"j{n}" for n in range(60)]
    for name in suspects + others:
        app.options(job_id=name).enqueue(stay, name)
    make_suspect(app, *suspects)
    with hand(app, pool=pool, slots=4) as one:
        one.work()
    assert sorted(suspects + others) == sorted(company.beside)
    assert {} == {name: company.beside[name] for name in suspects if company.beside[name]}
    assert any(company.beside[name] for name in others)


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_a_process_that_drained_for_a_suspect_in_vain_goes_on_with_all_its_consumers(app: Headrace, pool: str) -> None:
    """Another process took the suspect: what is claimed instead has company."""
    is_drained_for = threading.Event()
    doomed, thief = Other(app, "doomed"), Other(app, "thief")
    app.options(job_id="suspect").enqueue("nothing")
    assert ["suspect"] == doomed.claim()
    seen: list[bool] = []

    @app.task(name="first")
    def first() -> None:
        app.client.run(admin.pause(thief.queues[0], "both at once"))
        doomed.die("suspect")
        app.enqueue("second")
        app.client.run(admin.resume(thief.queues[0]))
        if not is_drained_for.wait(20) or thief.claim() != ["suspect"]:
            one.child.stop()
        thief.drop()
        for _ in range(2):
            app.enqueue("meets")

    @app.task(name="second")
    def second() -> None:
        is_drained_for.set()  # it was claimed, by an answer that told of the suspect

    barrier = threading.Barrier(2)

    @app.task(name="meets")
    def meets() -> None:
        try:
            barrier.wait(3)
            seen.append(True)
        except threading.BrokenBarrierError:
            seen.append(False)
        if len(seen) == 2:
            one.child.stop()

    app.enqueue("first")
    with hand(app, pool=pool, slots=2, burst=False) as one:
        one.work()
    assert [True, True] == seen
