"""Any history of calls, stale ones and repeated ones among them, leaves on the server just what the model says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from queue_machine import QueueMachine

import faketime
from faketime import ServerClock
from headrace.testing.clock import faketime_library

MANY = [60, pytest.param(1_500, marks=[pytest.mark.long, pytest.mark.timeout(1_200)])]


@pytest.fixture(scope="module")
def server_with_clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ServerClock]]:
    """A Valkey whose clock can be moved."""
    library = faketime_library()
    if library is None:
        pytest.skip("no libfaketime: apt-get install libfaketime")
    with faketime.server_with_clock(tmp_path_factory.mktemp("clock"), library) as found:
        yield found


def prove(url: str, clock: ServerClock | None, examples: int) -> None:
    class OnThisServer(QueueMachine):
        pass

    OnThisServer.url, OnThisServer.clock = url, clock
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OnThisServer,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=examples < 1_000,  # the short run is the same each time; the long one looks further
        ),
    )


@pytest.mark.parametrize("examples", MANY)
def test_no_history_loses_or_doubles_a_job(url: str, examples: int) -> None:
    """Each live job stands in exactly one place, whatever was called, by whom, and how late."""
    prove(url, None, examples)


@pytest.mark.parametrize("examples", MANY)
def test_no_history_loses_or_doubles_a_job_while_the_clock_runs(
    server_with_clock: tuple[str, ServerClock], examples: int
) -> None:
    """Leases end, delays pass, jobs expire and are forgotten by the server's own clock."""
    prove(*server_with_clock, examples)
