"""What becomes of a schedule at an instant: its ticks, what is caught up, and what a change makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import UsageError
from headrace.core.schedule import (
    RUNTIME,
    Entry,
    Spec,
    changed,
    check_schedule,
    check_schedule_name,
    declared_again,
    decode_entry,
    digest_of,
    encode_entry,
    last_ticks,
    new_spec,
    next_tick,
    next_ticks,
    reset,
    start_of,
    tick_id,
    turn,
)

MINUTE = 60_000


def entry(spec: Spec, next_ms: int, **fields: Any) -> Entry:
    return Entry(digest_of(spec), spec, next_ms, "w", 0, **fields)


def spec(**given: Any) -> Spec:
    return new_spec(check_schedule(given, "here"))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "needs cron or every"),
        ({"cron": "* * * * *", "every": 5}, "give one of them"),
        ({"every": 0.5}, "every: 0.5 s; at least 1 s"),
        ({"every": "5"}, "every: expected seconds or a timedelta"),
        ({"cron": "61 * * * *"}, "minute 61 not in 0-59"),
        ({"every": 5, "tz": "Mars/Phobos"}, "unknown time zone"),
        ({"every": 5, "start": datetime(2026, 1, 1)}, "start: a datetime without a time zone"),
        ({"every": 5, "end": "tomorrow"}, "end: expected an aware datetime, got a str"),
        ({"every": 5, "end": datetime(2900, 1, 1, tzinfo=UTC)}, "not between 1970 and 2200"),
        ({"every": 5, "jitter": 100_000}, "jitter: more than a day"),
        ({"every": 5, "catch_up": "some"}, "catch_up: expected 'skip', 'one', 'all' or 0 to 100, got 'some'"),
        ({"every": 5, "catch_up": 101}, "catch_up: expected"),
        ({"every": 5, "overlap": "no"}, "overlap: expected one of 'allow', 'skip', 'queue', 'cancel'"),
        ({"evry": 5}, "here has no option 'evry'; did you mean 'every'"),
        (
            {"every": 60, "start": datetime(2026, 1, 2, tzinfo=UTC), "end": datetime(2026, 1, 1, tzinfo=UTC)},
            "end: there is no tick before it",
        ),
    ],
)
def test_a_wrong_option_is_named(given: dict[str, Any], problem: str) -> None:
    """At once, where it is written."""
    with pytest.raises(UsageError, match=problem):
        spec(**given)


def test_a_name_is_what_a_job_id_can_hold() -> None:
    """The longest name makes an id of at most 128 characters."""
    assert len(tick_id(check_schedule_name("n" * 100), 1_500)) <= 128
    for wrong in ("", "n" * 101, "a b", "ü", "a:b", 5):
        with pytest.raises(UsageError, match="schedule name"):
            check_schedule_name(wrong)


def test_a_ticks_job_has_the_ticks_id() -> None:
    """In UTC, to the second, and to the millisecond where the tick is."""
    assert "cron:nightly:20261123T020000Z" == tick_id("nightly", 1_795_399_200_000)
    assert "cron:nightly:19700101T000001.500Z" == tick_id("nightly", 1_500)


def test_every_counts_from_1970_or_from_its_start() -> None:
    """So a restart, and a deploy, move nothing; the start is a tick."""
    assert [30_000, 60_000] == next_ticks(spec(every=30), 1, 2)
    start = datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)
    first_ms = int(start.timestamp() * 1000)
    assert [first_ms, first_ms + 30_000] == next_ticks(spec(every=timedelta(seconds=30), start=start), 0, 2)
    assert first_ms + 30_000 == next_tick(spec(every=30, start=start), first_ms)


def test_no_tick_is_before_the_start_or_at_the_end() -> None:
    """The start is in, the end is out."""
    bounds = {"start": datetime(2026, 1, 1, tzinfo=UTC), "end": datetime(2026, 1, 1, 0, 3, tzinfo=UTC)}
    first_ms = int(bounds["start"].timestamp() * 1000)
    for times in ({"every": 60}, {"cron": "* * * * *"}):
        assert [first_ms, first_ms + MINUTE, first_ms + 2 * MINUTE] == next_ticks(spec(**times, **bounds), 0, 10)


def test_an_end_without_a_start_is_no_contradiction() -> None:
    """The first tick is then some time after 1970."""
    assert 30_000 == next_tick(spec(every=30, end=datetime(2190, 1, 1, tzinfo=UTC)), 0)


@given(
    every_s=st.integers(1, 5_000),
    first=st.integers(1, 1_000),
    missed=st.integers(0, 400),
    extra_ms=st.integers(0, 999),
    most=st.integers(1, 100),
)
def test_the_last_ticks_are_those_of_a_look_at_each(
    every_s: int, first: int, missed: int, extra_ms: int, most: int
) -> None:
    """Whatever the interval, and however many were missed."""
    found = spec(every=every_s)
    first_ms = first * every_s * 1000
    now_ms = first_ms + missed * every_s * 1000 + extra_ms
    ticks = list(range(first_ms, now_ms + 1, every_s * 1000))
    assert ticks[-most:] == last_ticks(found, first_ms, now_ms, most)


def test_a_year_of_missed_minutes_costs_no_more_than_an_hour() -> None:
    """Only the last ones are worked out."""
    now_ms = 365 * 1440 * MINUTE
    assert [now_ms - MINUTE, now_ms] == last_ticks(spec(cron="* * * * *"), MINUTE, now_ms, 2)


@pytest.mark.parametrize(("catch_up", "made"), [("skip", 0), ("one", 1), ("all", 11), (3, 3), (0, 0)])
def test_what_was_missed_is_caught_up_as_asked(catch_up: Any, made: int) -> None:
    """Twenty minutes late: eleven ticks have come. The newest are made, and it goes on with the next one after now."""
    found = turn(entry(spec(every=120, catch_up=catch_up), 2 * MINUTE), 22 * MINUTE + 61_000)
    assert [2 * MINUTE * number for number in range(1, 12)][11 - made :] == found.ticks
    assert 24 * MINUTE == found.next_ms


def test_all_is_at_most_a_hundred() -> None:
    """A day of minutes."""
    found = turn(entry(spec(every=60, catch_up="all"), MINUTE), 1440 * MINUTE)
    assert (100, 1440 * MINUTE) == (len(found.ticks), found.ticks[-1])


def test_a_tick_that_is_a_little_late_is_no_missed_one() -> None:
    """With catch_up="skip" too: a worker that starts again takes some seconds."""
    assert [MINUTE] == turn(
        entry(spec(every=3600, start=datetime.fromtimestamp(60, UTC), catch_up="skip"), MINUTE), MINUTE + 59_000
    ).ticks


def test_a_tick_that_waited_for_a_job_is_made_however_late() -> None:
    """It was not missed."""
    found = entry(spec(every=60, catch_up="skip", overlap="queue"), MINUTE, waiting_ms=MINUTE)
    assert [5 * MINUTE] == turn(found, 5 * MINUTE + 59_000).ticks
    assert [5 * MINUTE] == turn(found, 5 * MINUTE).ticks


def test_without_overlap_there_is_one_job_to_catch_up() -> None:
    """Others would only overlap with it."""
    assert [9 * MINUTE] == turn(entry(spec(every=60, catch_up="all", overlap="skip"), MINUTE), 9 * MINUTE).ticks


def test_jitter_spreads_jobs_and_is_the_same_for_whoever_asks() -> None:
    """Between the tick and the tick plus jitter."""
    found = spec(every=60, jitter=30)
    starts = [start_of("a", found, tick * MINUTE) - tick * MINUTE for tick in range(1, 200)]
    assert starts == [start_of("a", found, tick * MINUTE) - tick * MINUTE for tick in range(1, 200)]
    assert 0 <= min(starts) < 3_000 and 27_000 < max(starts) <= 30_000
    assert MINUTE == start_of("a", spec(every=60), MINUTE)


def test_an_entry_is_read_as_it_was_written() -> None:
    """Its bytes 3 to 18 are the digest, which scripts read."""
    found = changed(entry(spec(every=60), MINUTE), {"jitter_ms": 5}, "me", 7)
    data = encode_entry(found)
    assert (found, found.digest.encode()) == (decode_entry(data), data[2:18])
    assert RUNTIME.encode() == encode_entry(msgspec.structs.replace(found, digest=RUNTIME))[2:18]


def test_a_new_declaration_keeps_the_next_tick_unless_its_times_are_others() -> None:
    """A deploy that changes only what is run loses no tick; another time counts from now."""
    old = entry(spec(every=60), 2 * MINUTE)
    new = declared_again(old, msgspec.structs.replace(old.spec, priority=5), 10 * MINUTE)
    assert (2 * MINUTE, 5) == (new.next_ms, new.now.priority)
    assert 12 * MINUTE == declared_again(old, spec(every=120), 10 * MINUTE + 1).next_ms


def test_what_was_changed_at_run_time_stays_changed_until_it_is_reset() -> None:
    """Over a deploy, too; both are kept."""
    found = changed(entry(spec(every=60), MINUTE), {"every_ms": 5 * MINUTE}, "me", 1)
    assert (5 * MINUTE, 5 * MINUTE, MINUTE) == (found.next_ms, found.now.every_ms, found.spec.every_ms)
    found = changed(found, {"overlap": "skip"}, "you", 2)
    found = declared_again(found, spec(every=120, jitter=3), 3)
    assert (5 * MINUTE, "skip", 3_000) == (found.now.every_ms, found.now.overlap, found.now.jitter_ms)
    assert found.change is not None and (["every_ms", "overlap"], "you") == (found.change.names, found.change.by)
    assert (120_000, "allow", None) == (
        reset(found, 4).now.every_ms,
        reset(found, 4).now.overlap,
        reset(found, 4).change,
    )
