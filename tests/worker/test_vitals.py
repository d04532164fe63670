"""What a worker says of itself: to a probe for its life, and as metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from headrace.worker.board import Board
from headrace.worker.config import WorkerConfig
from headrace.worker.crew import Crew
from headrace.worker.errands import Errands
from headrace.worker.launcher import Launcher
from headrace.worker.roster import Roster
from headrace.worker.schedules import Lateness, Schedules
from headrace.worker.vitals import EMPTY_FOR_S, STUCK_AFTER_S, Vitals


@pytest.fixture
def crew() -> Crew:
    return Crew(WorkerConfig(app_path="a", worker_id="w", children=2), Board.create(2, 1))


@pytest.fixture
def roster(crew: Crew) -> Iterator[Roster]:
    launcher = Launcher(crew.board, is_adopting=True, tell_death=lambda _: None)
    yield Roster(crew, launcher, Errands(crew))
    launcher.close()


@pytest.fixture
def vitals(crew: Crew, roster: Roster) -> Vitals:
    found = Vitals(crew, roster, Schedules(crew), lambda: "running")
    found.has_begun = True
    return found


def test_a_place_that_stays_empty_is_an_illness(crew: Crew, roster: Roster, vitals: Vitals) -> None:
    """Not the moment in which a child is started again, nor a burst's end, nor a stop."""
    assert [] == vitals.ills()
    crew.children[1].empty_since_s = time.monotonic() - EMPTY_FOR_S - 1
    assert ["child 1 has not been running for 31 s"] == vitals.ills()
    crew.children[1].is_done = True
    assert [] == vitals.ills()
    crew.children[1].is_done, roster.is_stopping = False, True
    assert [] == vitals.ills()


def test_children_whom_nobody_looks_after_are_an_illness(roster: Roster, vitals: Vitals) -> None:
    """The loop answers, and yet the duty that starts them hangs."""
    roster.turned_s = time.monotonic() - STUCK_AFTER_S - 1
    assert ["nobody has looked after the children for 61 s"] == vitals.ills()


def test_counts_outlive_the_process_that_made_them(crew: Crew, vitals: Vitals) -> None:
    """A place whose next process begins from zero goes on in the sums; a counter never falls."""
    row = crew.row(crew.children[0])
    row.succeeded, row.run_us = 3, 1_500_000
    crew.slots(crew.children[0])[0].server_errors = 2
    crew.clear_place(crew.children[0], spawn_id=2)
    row.succeeded = 1
    text = vitals.metrics()
    assert 'headrace_worker_attempts_total{outcome="success"} 4\n' in text
    assert "headrace_worker_run_seconds_total 1.5\n" in text
    assert "headrace_server_errors_total 2\n" in text


def test_lateness_is_told_by_bounds() -> None:
    """What is on a bound is not above it."""
    late = Lateness()
    for late_s in (0.0, 0.05, 7.5, 10_000.0):
        late.add(late_s)
    assert [2, 2, 3, 3] == [late.at_most(bound) for bound in (0.05, 5.0, 10.0, 3600.0)]
    assert (4, 10_007.55) == (late.count, late.total_s)
