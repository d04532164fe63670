"""What may hang on a job is checked where it is written, and made into what the scripts read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from headrace import Group, Headrace, Limit, Unique, UsageError
from headrace.core.ties import Ties, read_rate


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("100/min", (100, 60_000)), ("5/s", (5, 1_000)), ("10/30s", (10, 30_000)), ("0.5/h", (0.5, 3_600_000)),
        ("1 / 2 days", (1, 172_800_000)), ("3/minutes", (3, 60_000)), ("7/250ms", (7, 250)),
    ],
)  # fmt: skip
def test_rates_as_people_write_them(text: str, found: tuple[float, int]) -> None:
    assert read_rate(text) == found


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Limit("a"), "give rate, concurrency, or both"),
        (lambda: Limit("a", concurrency=0), "concurrency: expected a whole number, 1"),
        (lambda: Limit("a", rate="0/s"), "rate: expected a text like '100/min'"),
        (lambda: Limit("a", rate="often"), "got 'often'"),
        (lambda: Limit("a", rate="5/fortnight"), "rate: expected"),
        (lambda: Limit("a", rate="5/s", burst=0), "burst: expected"),
        (lambda: Limit("a", rate="5/s", cost=3), "over the burst of 1; set burst=3"),
        (lambda: Limit("a", rate="5/s", cost=0), "cost: expected a number above 0"),
        (lambda: Limit("a", concurrency=1, until="end"), "until: expected 'attempt' or 'finish'"),  # type: ignore[arg-type]
        (lambda: Limit("a", rate="5/s", until="finish"), "until='finish' keeps a slot, so give concurrency"),
        (lambda: Limit("", rate="5/s"), "1 to 200 printable characters"),
        (lambda: Group("x" * 10_240), "1 to 200 printable characters"),
        (lambda: Group("a", weight=0), "weight: expected a number from 0.01"),
        (lambda: Unique(by=5), "unique: expected True, an argument's name"),  # type: ignore[arg-type]
        (lambda: Unique("a", until="later"), "until: expected 'start', 'finish' or seconds"),
        (lambda: Unique("a", until=0), "after 0 s nothing would be unique"),
        (lambda: Unique("a", on_conflict="ignore"), "on_conflict: expected one of"),  # type: ignore[arg-type]
        (lambda: Unique("a", until="finish", on_conflict="replace"), "goes with until='start'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_write(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        make()


def test_an_argument_that_is_not_there_is_named() -> None:
    """When the call is made, before anything is sent."""
    app = Headrace("redis://localhost:1/0")
    task = app.task(name="pay", limits=Limit("stripe:{acount}", rate="1/s"))(pay)
    with pytest.raises(UsageError, match="there is no argument 'acount'; there are: account"):
        task.call(1)
    with pytest.raises(UsageError, match="no argument 'other'"):
        task.options(limits=None, unique="other").call(1)


def pay(account: int) -> None: ...


def other() -> None: ...


def test_a_limit_with_two_sets_of_numbers_is_refused() -> None:
    """On one queue; elsewhere it is another limit."""
    app = Headrace("redis://localhost:1/0")
    app.task(name="one", limits=Limit("api", rate="1/s"))(pay)
    with pytest.raises(UsageError, match="has other numbers in two than in one"):
        app.task(name="two", limits=Limit("api", rate="2/s"))(other)
    app.task(name="two", queue="other", limits=Limit("api", rate="2/s"))(other)


def test_a_group_has_no_priority() -> None:
    app = Headrace("redis://localhost:1/0")
    with pytest.raises(UsageError, match="group and priority: give one of them"):
        app.task(name="x", group="a", priority=3)(other)


def test_keys_are_the_same_for_the_same_arguments() -> None:
    """By name, whatever way they were given; and not for others."""
    by_all, by_one = Unique(), Unique("user")
    assert by_all.key("t", {"user": 1, "day": "a"}) == by_all.key("t", {"day": "a", "user": 1})
    assert by_all.key("t", {"user": 1, "day": "a"}) != by_all.key("t", {"user": 1, "day": "b"})
    assert by_one.key("t", {"user": 1, "day": "a"}) == by_one.key("t", {"user": 1, "day": "b"})
    assert by_one.key("t", {"user": 1}) != by_one.key("other", {"user": 1})
    shared = Unique("report:{user}")
    assert shared.key("t", {"user": 1}) == shared.key("other", {"user": 1}) == "report:1"


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    packed = {Ties(group=Group("{name}")).of("t", {"name": "x" * 300 + str(n)}) for n in range(2)}
    assert len(packed) == 2
    assert all(len(msgspec.msgpack.decode(ties)["g"]) <= 200 for ties in packed)
