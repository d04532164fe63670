"""How far jobs are is passed on: of many words the latest, and always the last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_kit import Kit
from scenario_lab import until

from headrace import Progress, UsageError, track
from headrace.context import JobContext, enter_job, leave_job
from headrace.engine.call import Call
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.worker.outlets import Home, Latest, Sender


@pytest.fixture
def kit(url: str) -> Iterator[Kit]:
    client = SyncClient(ServerConfig(url))
    yield Kit(client)
    client.close()


def running(kit: Kit, sender: Sender, count: int) -> list[Latest]:
    """An outlet for each of so many jobs, which a session holds."""
    session = kit.open("s")
    names = kit.add(*(f"job{number}" for number in range(count)))
    while len(kit.claim(session, 100)):
        continue
    return [Latest(sender, lambda: Home(kit.queue, (session, "")), name) for name in names]


def stored(kit: Kit, name: str) -> bytes | None:
    found = kit.look(name)
    return None if found is None else found.progress


def test_of_many_few_are_sent_and_the_last_always_is(kit: Kit) -> None:
    """However quickly they come."""
    sender = Sender(kit.client.config)
    [latest] = running(kit, sender, 1)
    puts = 10_000
    sent = 0
    call = latest.next_call

    def counted() -> Call[bool] | None:
        nonlocal sent
        found = call()
        sent += found is not None
        return found

    latest.next_call = counted  # type: ignore[method-assign]
    for number in range(puts):
        latest.put(b"%d" % number)
    latest.put(b"last")
    until(lambda: stored(kit, "job0") == b"last")
    assert 1 <= sent < 100
    sender.close()


def test_each_of_many_jobs_has_its_own(kit: Kit) -> None:
    """None takes another's turn."""
    sender = Sender(kit.client.config)
    for number, latest in enumerate(running(kit, sender, 300)):
        latest.put(b"%d" % number)
    until(lambda: all(stored(kit, f"job{number}") == b"%d" % number for number in range(300)))
    sender.close()


class Heard:
    def __init__(self) -> None:
        self.all: list[Progress] = []

    def progress(self, job: JobContext, data: bytes) -> None:
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
