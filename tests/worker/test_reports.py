"""What jobs say is passed on: the first at once, of many the latest, and always the last."""

from __future__ import annotations

import threading

import pytest

from headrace import Progress, UsageError, track
from headrace.context import JobContext, enter_job, leave_job
from headrace.worker.reports import MOST_REMEMBERED, LatestOnly


def test_of_many_the_first_and_the_last_are_sent() -> None:
    """And few between them."""
    sent: list[bytes] = []
    is_last = threading.Event()

    def send(_: str, data: bytes) -> None:
        sent.append(data)
        if data == b"last":
            is_last.set()

    latest = LatestOnly(send)
    latest.put("job", b"first")
    assert [b"first"] == sent
    for number in range(10_000):
        latest.put("job", b"%d" % number)
    latest.put("job", b"last")
    assert is_last.wait(10)
    assert len(sent) < 100


def test_jobs_do_not_wait_for_each_other() -> None:
    """However many there are, none takes another's turn, and none is remembered for long."""
    sent: list[str] = []
    latest = LatestOnly(lambda name, _: sent.append(name))
    names = [f"job{number}" for number in range(3 * MOST_REMEMBERED)]
    for name in names:
        latest.put(name, b"")
    assert names == sent


class Heard:
    def __init__(self) -> None:
        self.all: list[Progress] = []

    def progress(self, job_id: str, data: bytes) -> None:
        found = Progress.decode(data)
        assert found is not None
        self.all.append(found)


def test_track_counts_an_item_when_the_next_is_asked_for() -> None:
    """With the items as they are; its last word says all."""
    heard = Heard()
    token = enter_job(JobContext("j1", "default", "t", reporter=heard))  # type: ignore[arg-type]
    try:
        assert ["a", "b", "c"] == list(track(["a", "b", "c"], text="letters"))
        assert [] == list(track([]))
        assert 5 == sum(1 for _ in track(iter(range(5))))
    finally:
        leave_job(token)
    assert (0, 3) == (heard.all[0].done, heard.all[0].total)
    third = next(said for said in heard.all if said.done == 3)
    assert (1.0, "letters", 3) == (third.fraction, third.text, third.total)
    assert heard.all[-1].total is None and heard.all[-1].fraction == 0.0


def test_track_tells_nobody_outside_of_a_job() -> None:
    """A task can be called plainly."""
    assert [1, 2] == list(track([1, 2]))


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "many"])
def test_a_total_that_is_no_count_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError, match="total must be how many"):
        track([1], total=wrong)  # type: ignore[call-overload]
