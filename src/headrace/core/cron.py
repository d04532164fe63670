"""Cron expressions: what is wrong with one, and the instants it names in a time zone. No clock is read here.

The walk over the calendar is cronsim's, on clock times without a zone; what a clock that is set forward or back makes of
them is decided here, by the rules of Debian's cron (https://manpages.debian.org/stable/cron/cron.8.en.html, "notes"):

- An expression that names its hours and minutes (neither field begins with `*`) means clock times. One that the clock
  leaves out comes at the first instant after the gap; one that the clock shows twice comes the first time only; two that
  come to the same instant are one tick.
- Any other (`*/5 * * * *`, `30 * * * *`, `*/5 2 * * *`) means the clock as it goes: what it leaves out is no tick, and what
  it shows twice is two.
"""

from __future__ import annotations

import difflib
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from headrace.errors import UsageError

DAY_S = 86_400
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DIGITS_OF_DAYS = ("0", "1", "2", "3", "4", "5", "6", "7")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip


# -- what users write


def check_cron(text: object) -> str:
    """An expression of five fields, in one spelling: `*/5 * * * *`.

    Beyond ranges, lists and steps: names (`JAN`, `MON`), `L` and `LW` for the last day and weekday of a month, `5L` for
    its last Friday, `MON#2` for its second Monday. Days of month and of week are both asked for when one of them begins
    with `*`, else either is enough.

    Raises:
        UsageError: naming the field and the value; or it names no instant in 50 years.
    """
    if not isinstance(text, str):
        raise UsageError(f"cron: expected five fields as text, got {text!r:.40}")
    words = text.upper().split()
    if len(words) == 1 and words[0].startswith("@"):
        same = _MACROS.get(text.strip().lower())
        raise UsageError(f"cron {text!r:.40}: " + (f"write {same!r}" if same else "expected five fields"))
    if len(words) != len(_FIELDS):
        names = " ".join(name.replace(" ", "-") for name, *_ in _FIELDS)
        raise UsageError(f"cron {text!r:.80}: expected five fields ({names}), got {len(words)}")
    for word, (name, low, high, named) in zip(words, _FIELDS, strict=True):
        problem = _problem(word, name, low, high, named)
        if problem:
            raise UsageError(f"cron {text!r:.80}: {problem}")
    found = " ".join(words)
    if not _may_fire(found):
        raise UsageError(f"cron {text!r:.80}: names no day of any year")
    return found


def _problem(word: str, name: str, low: int, high: int, named: dict[str, int]) -> str:
    """What is wrong with a field; "" for nothing."""
    for term in word.split(","):
        main, slash, step = term.partition("/")
        if slash and not (_is_number(step) and 1 <= int(step) <= high):
            return f"{name} step {step or 'missing'} not in 1-{high}"
        if main == "*" or (name == "day of month" and main in ("L", "LW")):
            continue
        if name == "day of week" and main.endswith("L"):
            if main[:-1] not in _DIGITS_OF_DAYS:
                return f"{name} {main}: the last of a month is 0L-7L"
            continue
        if name == "day of week" and "#" in main:
            main, _, nth = main.partition("#")
            if nth not in ("1", "2", "3", "4", "5") or "-" in main:
                return f"{name} {term}: expected one day and #1-#5"
        ends = main.split("-")
        values = [named.get(end, int(end) if _is_number(end) else -1) for end in ends]
        for end, value in zip(ends, values, strict=True):
            if not low <= value <= high:
                names = f" or {next(iter(named))}-{list(named)[-1]}" if named else ""
                return f"{name} {end or 'missing'} not in {low}-{high}{names}"
        if len(ends) > 2 or values != sorted(values):
            return f"{name} {main}: a range goes from low to high"
    return ""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _may_fire(expr: str) -> bool:
    try:
        return next(CronSim(expr, datetime(2000, 1, 1)), None) is not None
    except CronSimError:
        return False


def check_zone(name: object) -> str:
    """The name of a time zone that this machine knows.

    Raises:
        UsageError: it knows none of that name; with the nearest one, or what to install.
    """
    if not isinstance(name, str):
        raise UsageError(f"tz: expected a name such as 'Asia/Ho_Chi_Minh', got {name!r:.60}")
    try:
        load_zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else "" if known else "; this system has none: install tzdata"
        raise UsageError(f"unknown time zone {name!r:.60}{hint}") from None
    return name


@lru_cache(maxsize=256)
def load_zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


# -- instants


def next_cron(expr: str, zone: ZoneInfo, after_s: int) -> int:
    """The first instant after `after_s` that a checked expression names; Unix seconds."""
    minute, hour = expr.split()[:2]
    if minute.startswith("*") or hour.startswith("*"):
        return _next_as_it_goes(expr, zone, after_s)
    return _next_clock_time(expr, zone, after_s)


def _next_clock_time(expr: str, zone: ZoneInfo, after_s: int) -> int:
    # The instants of clock times never go back, so the first later one is what is looked for.
    for wall in CronSim(expr, _wall(after_s + _offset_s(after_s, zone))):
        at_s = _first_instant(wall, zone)
        if at_s > after_s:
            return at_s
    raise _never(expr)


def _next_as_it_goes(expr: str, zone: ZoneInfo, after_s: int) -> int:
    # From one change of the clock to the next: between them its times and the instants go side by side.
    start_s = after_s + 1
    while True:
        offset_s = _offset_s(start_s, zone)
        wall = next(CronSim(expr, _wall(start_s + offset_s - 1)), None)
        if wall is None:
            raise _never(expr)
        at_s = _seconds(wall) - offset_s
        changes_s = _first_change(start_s, at_s, zone)
        if changes_s is None:
            return at_s
        start_s = changes_s


def _never(expr: str) -> UsageError:
    return UsageError(f"cron {expr!r}: names no instant in the next 50 years")


def _first_instant(wall: datetime, zone: ZoneInfo) -> int:
    """When the clock shows this time first; or when it goes on, if it leaves this time out."""
    # PEP 495: in a gap, fold=0 counts with the offset before it, which gives an instant after it; fold=1 the reverse.
    at_s = int(wall.replace(tzinfo=zone).timestamp())
    if at_s + _offset_s(at_s, zone) == _seconds(wall):
        return at_s
    before_s = int(wall.replace(tzinfo=zone, fold=1).timestamp())
    change_s = _first_change(before_s, at_s, zone)
    return at_s if change_s is None else change_s


def _first_change(after_s: int, until_s: int, zone: ZoneInfo) -> int | None:
    """The first instant in (after, until] from which the clock runs with another offset; looked for day by day."""
    offset_s = _offset_s(after_s, zone)
    low_s = after_s
    while low_s < until_s:
        high_s = min(low_s + DAY_S, until_s)
        if _offset_s(high_s, zone) != offset_s:
            while high_s - low_s > 1:
                middle_s = (low_s + high_s) // 2
                if _offset_s(middle_s, zone) == offset_s:
                    low_s = middle_s
                else:
                    high_s = middle_s
            return high_s
        low_s = high_s
    return None


def _offset_s(at_s: int, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(at_s, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _wall(seconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)


def _seconds(wall: datetime) -> int:
    return round((wall - _EPOCH).total_seconds())


_EPOCH = datetime(1970, 1, 1)
