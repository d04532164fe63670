"""Cron expressions: what is refused, and the instants they name, the days included on which the clock is changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import UsageError
from headrace.core.cron import check_cron, check_zone, next_cron

ZONES = (
    "UTC", "Asia/Ho_Chi_Minh", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca",
    "America/Santiago", "Pacific/Apia", "Asia/Kathmandu", "America/St_Johns", "Africa/Cairo", "Antarctica/Troll",
)  # fmt: skip


def ticks(expr: str, zone: str, after: datetime) -> Iterator[datetime]:
    """The instants after a clock time in the zone, as its clock shows them, with the offset."""
    place = ZoneInfo(zone)
    at_s = int(after.replace(tzinfo=place).timestamp())
    while True:
        at_s = next_cron(check_cron(expr), place, at_s)
        yield datetime.fromtimestamp(at_s, place)


def shown(expr: str, zone: str, after: datetime, count: int) -> list[str]:
    return [f"{at:%m-%d %H:%M%z}" for at in islice(ticks(expr, zone, after), count)]


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("61 * * * *", "minute 61 not in 0-59"),
        ("* 24 * * *", "hour 24 not in 0-23"),
        ("0 0 0 * *", "day of month 0 not in 1-31"),
        ("0 0 * FOO *", "month FOO not in 1-12 or JAN-DEC"),
        ("0 0 * * 8", "day of week 8 not in 0-7 or SUN-SAT"),
        ("0 0 * * MON#6", "day of week MON#6: expected one day and #1-#5"),
        ("0 0 * * 1-3#2", "day of week 1-3#2: expected one day and #1-#5"),
        ("0 0 * * MONL", "day of week MONL: the last of a month is 0L-7L"),
        ("*/0 * * * *", "minute step 0 not in 1-59"),
        ("*/90 * * * *", "minute step 90 not in 1-59"),
        ("30-10 * * * *", "minute 30-10: a range goes from low to high"),
        ("5-* * * * *", r"minute \* not in 0-59"),
        ("1,,2 * * * *", "minute missing not in 0-59"),
        ("* * 31 2 *", "names no day of any year"),
        ("* * 31 4,6,9,11 *", "names no day of any year"),
        ("0 * * * * *", r"expected five fields \(minute hour day-of-month month day-of-week\), got 6"),
        ("", "expected five fields .*, got 0"),
        ("@reboot", "expected five fields"),
        ("@daily", r"write '0 0 \* \* \*'"),
    ],
)
def test_a_wrong_expression_is_named_by_field_and_value(expr: str, problem: str) -> None:
    """What is refused says which value of which field, and what it may be."""
    with pytest.raises(UsageError, match=problem):
        check_cron(expr)


def test_an_expression_that_is_no_text_is_refused() -> None:
    """A number of minutes is not cron; `every` is for that."""
    with pytest.raises(UsageError, match="expected five fields as text"):
        check_cron(5)


@pytest.mark.parametrize(
    "expr",
    ["*/5 * * * *", "0 9-17/2 * jan-mar mon,wed", "0 0 29 2 *", "0 0 L * *", "0 0 LW * *", "0 0 * * 5L", "0 0 * * 7"],
)
def test_what_cron_knows_is_taken(expr: str) -> None:
    """Ranges, steps, names, last days and rare days; written in one spelling."""
    assert check_cron(f" {expr}  ") == expr.upper()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Mars/Phobos", "unknown time zone 'Mars/Phobos'"),
        ("Europe/Berlim", "did you mean 'Europe/Berlin'"),
        ("../../etc/passwd", "unknown time zone"),
        ("", "unknown time zone"),
    ],
)
def test_an_unknown_time_zone_is_named(name: str, problem: str) -> None:
    """With the nearest one that is known."""
    with pytest.raises(UsageError, match=problem):
        check_zone(name)


@pytest.mark.parametrize(
    ("expr", "zone", "after", "expected"),
    [
        # 02:00 to 03:00 is left out: one tick, when the clock goes on.
        ("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 3), ["03-29 03:00+0200", "03-30 02:30+0200"]),
        ("0 2,3 * * *", "Europe/Berlin", datetime(2026, 3, 28, 3), ["03-29 03:00+0200", "03-30 02:00+0200"]),
        ("0,30 2 * * *", "America/New_York", datetime(2026, 3, 8, 0), ["03-08 03:00-0400", "03-09 02:00-0400"]),
        # 02:00 to 03:00 comes twice: the first time counts.
        ("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 3), ["10-25 02:30+0200", "10-26 02:30+0100"]),
        ("30 1 * * *", "America/New_York", datetime(2026, 10, 31, 3), ["11-01 01:30-0400", "11-02 01:30-0500"]),
        # The clock as it goes: none of what is left out, and both of what comes twice.
        ("30 * * * *", "Europe/Berlin", datetime(2026, 3, 29, 1), ["03-29 01:30+0100", "03-29 03:30+0200"]),
        ("*/30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 3), ["03-30 02:00+0200", "03-30 02:30+0200"]),
        ("30 * * * *", "Europe/Berlin", datetime(2026, 10, 25, 2), ["10-25 02:30+0200", "10-25 02:30+0100"]),
        # A shift of half an hour, forward and back.
        ("15 2 * * *", "Australia/Lord_Howe", datetime(2026, 10, 3, 3), ["10-04 02:30+1100", "10-05 02:15+1100"]),
        (
            "*/15 * * * *",
            "Australia/Lord_Howe",
            datetime(2026, 10, 4, 1, 30),
            ["10-04 01:45+1030", "10-04 02:30+1100", "10-04 02:45+1100", "10-04 03:00+1100"],
        ),
        ("45 1 * * *", "Australia/Lord_Howe", datetime(2026, 4, 4, 3), ["04-05 01:45+1100", "04-06 01:45+1030"]),
        (
            "45 * * * *",
            "Australia/Lord_Howe",
            datetime(2026, 4, 5, 1),
            ["04-05 01:45+1100", "04-05 01:45+1030", "04-05 02:45+1030"],
        ),
        # Ramadan: the clock goes back in February and forward in March.
        ("30 2 * * *", "Africa/Casablanca", datetime(2026, 2, 14, 3), ["02-15 02:30+0100", "02-16 02:30+0000"]),
        ("30 2 * * *", "Africa/Casablanca", datetime(2026, 3, 21, 3), ["03-22 03:00+0100", "03-23 02:30+0100"]),
        # Midnight is left out.
        ("30 0 * * *", "America/Santiago", datetime(2026, 9, 5, 3), ["09-06 01:00-0300", "09-07 00:30-0300"]),
        ("*/30 0 * * *", "America/Santiago", datetime(2026, 9, 5, 3), ["09-07 00:00-0300", "09-07 00:30-0300"]),
        # A day is left out; its tick comes with the next day.
        ("0 12 * * *", "Pacific/Apia", datetime(2011, 12, 28, 13), ["12-29 12:00-1000", "12-31 00:00+1400"]),
        ("0 0 * * *", "Pacific/Apia", datetime(2011, 12, 28, 13), ["12-29 00:00-1000", "12-31 00:00+1400"]),
        ("*/30 * * * *", "Pacific/Apia", datetime(2011, 12, 29, 23, 15), ["12-29 23:30-1000", "12-31 00:00+1400"]),
        # A quarter of an hour off the hour, all year.
        ("0 6 * * *", "Asia/Kathmandu", datetime(2026, 5, 1), ["05-01 06:00+0545", "05-02 06:00+0545"]),
        ("0 9 * * MON", "Asia/Ho_Chi_Minh", datetime(2026, 5, 1), ["05-04 09:00+0700", "05-11 09:00+0700"]),
    ],
)
def test_a_clock_that_is_changed_neither_loses_nor_doubles_a_named_time(
    expr: str, zone: str, after: datetime, expected: list[str]
) -> None:
    """The rules of Debian's cron, on the days on which the clock is changed."""
    assert shown(expr, zone, after, len(expected)) == expected


def test_a_leap_day_and_a_fifth_monday_on_it_are_found() -> None:
    """29 February that is the fifth Monday of its month: once in 28 years."""
    assert next(ticks("0 0 * 2 MON#5", "UTC", datetime(2026, 1, 1))).date().isoformat() == "2044-02-29"


@st.composite
def expressions(draw: st.DrawFn) -> str:
    def field(low: int, high: int, all_odds: int) -> str:
        number = st.integers(low, high)
        kind = draw(st.integers(0, 3 + all_odds))
        if kind == 0:
            return str(draw(number))
        if kind == 1:
            return f"{draw(number)},{draw(number)}"
        if kind == 2:
            first, last = sorted((draw(number), draw(number)))
            return f"{first}-{last}"
        return f"*/{draw(st.integers(1, high))}" if kind == 3 else "*"

    return " ".join((field(0, 59, 1), field(0, 23, 1), field(1, 31, 6), field(1, 12, 8), field(0, 6, 6)))


def matches(wall: datetime, expr: str) -> bool:
    """Whether a clock time is one of the expression's: field by field, as the manual of cron says it."""

    def allowed(word: str, low: int, high: int) -> set[int]:
        found: set[int] = set()
        for term in word.split(","):
            if term.startswith("*"):
                found |= set(range(low, high + 1, int(term.partition("/")[2] or 1)))
            else:
                first, _, last = term.partition("-")
                found |= set(range(int(first), int(last or first) + 1))
        return found

    minute, hour, day, month, weekday = expr.split()
    on_day = wall.day in allowed(day, 1, 31)
    on_weekday = wall.isoweekday() % 7 in allowed(weekday, 0, 6)
    is_both = day.startswith("*") or weekday.startswith("*")
    return (
        wall.minute in allowed(minute, 0, 59)
        and wall.hour in allowed(hour, 0, 23)
        and wall.month in allowed(month, 1, 12)
        and ((on_day and on_weekday) if is_both else (on_day or on_weekday))
    )


def expected_minutes(expr: str, zone: ZoneInfo, first: int, last: int) -> list[int]:
    """Each minute from first to last that is a tick by the stated rules, found by looking at every one."""
    is_clock_time = not any(field.startswith("*") for field in expr.split()[:2])
    found: list[int] = []
    clock = [datetime.fromtimestamp(60 * minute, zone) for minute in range(first - 1440 * 2, last + 1)]
    seen: set[datetime] = set()
    for before, now in pairwise(clock):
        wall = now.replace(tzinfo=None, fold=0)
        at = int(now.timestamp()) // 60
        is_tick = matches(wall, expr)
        if is_clock_time:
            is_tick = is_tick and wall not in seen
            gap = before.replace(tzinfo=None, fold=0) + timedelta(minutes=1)
            while gap < wall:  # what the clock left out comes now
                is_tick = is_tick or matches(gap, expr)
                gap += timedelta(minutes=1)
        seen.add(wall)
        if is_tick and at >= first:
            found.append(at)
    return found


def changes_of(zone: ZoneInfo, year: int) -> list[int]:
    """The days (as minutes since 1970) of a year around which the clock is changed, and one where it is not."""
    days = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(367)]
    found = [
        int(day.timestamp()) // 60
        for day, after in pairwise(days)
        if day.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset()
    ]
    return [*found, int(days[200].timestamp()) // 60]


@settings(max_examples=60, deadline=None)
@given(expr=expressions(), zone=st.sampled_from(ZONES), year=st.sampled_from((2011, 2025, 2026, 2027)), data=st.data())
def test_ticks_are_those_that_a_look_at_every_minute_finds(
    expr: str, zone: str, year: int, data: st.DataObject
) -> None:
    """Three days around a change of the clock, minute by minute, in twelve zones."""
    try:
        expr = check_cron(expr)
    except UsageError:
        return  # a day that no month has
    place = ZoneInfo(zone)
    middle = data.draw(st.sampled_from(changes_of(place, year)))
    first, last = middle - 1440, middle + 2880
    found: list[int] = []
    at_s = 60 * first - 1
    while (at_s := next_cron(expr, place, at_s)) <= 60 * last:
        found.append(at_s // 60)
        assert at_s % 60 == 0
        if len(found) > 600:
            last = found[-1]
            break
    assert found == expected_minutes(expr, place, first, last)


@pytest.mark.long
@pytest.mark.parametrize("zone", ZONES)
def test_three_years_of_every_zone_are_as_a_look_at_every_minute_finds(zone: str) -> None:
    """2025 to 2027, for an expression that names its time and one that goes with the clock."""
    place = ZoneInfo(zone)
    first = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp()) // 60
    last = int(datetime(2028, 1, 1, tzinfo=UTC).timestamp()) // 60
    for expr in ("15,45 0-3 * * *", "*/20 1-3 * * *"):
        found: list[int] = []
        at_s = 60 * first - 1
        while (at_s := next_cron(expr, place, at_s)) <= 60 * last:
            found.append(at_s // 60)
        assert found == expected_minutes(expr, place, first, last)
