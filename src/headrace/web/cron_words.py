"""A cron expression as a sentence, in each of the pages' languages: `at 08:30, on Monday to Friday`. Words only, no clock.

Whatever has no short form is told field by field. The expression is one that `core.cron.check_cron` let through.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.web.frame import Say

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MOST_TIMES = 6


def in_words(expression: str, say: Say) -> str:
    """When an expression's ticks come."""
    minute, hour, day, month, weekday = expression.upper().split()
    parts = [_time(minute, hour, say), *_days(day, weekday, say)]
    if month != "*":
        parts.append(_field(month, _month(say), "cron_in_month", "cron_each_month", say))
    return ", ".join(parts)


def _time(minute: str, hour: str, say: Say) -> str:
    minutes, hours = _numbers(minute), _numbers(hour)
    if minutes and hours and len(minutes) * len(hours) <= MOST_TIMES:
        return say("cron_at", what=", ".join(f"{h:02}:{m:02}" for h in hours for m in minutes))
    if minute == "0" and (hour == "*" or _step(hour)):
        return say("cron_every_hour") if hour == "*" else say("cron_each_hour", n=_step(hour))
    found = say("cron_every_minute")
    if minute != "*":
        found = _field(minute, _plain, "cron_at_minute", "cron_each_minute", say)
    if minute == "0":
        found = say("cron_every_hour")
    within = "" if hour == "*" else _field(hour, _plain, "cron_of_hours", "cron_each_hour", say)
    return f"{found}, {within}" if within else found


def _days(day: str, weekday: str, say: Say) -> list[str]:
    by_date, by_name = [], []
    if day in ("L", "LW"):
        by_date = [say("cron_on_last_day" if day == "L" else "cron_on_last_workday")]
    elif day != "*":
        by_date = [_field(day, _date(say), "cron_on_date", "cron_each_day", say)]
    if weekday != "*":
        by_name = [_field(weekday, _weekday(say), "cron_on_day", "cron_each_weekday", say)]
    if by_date and by_name and not day.startswith("*") and not weekday.startswith("*"):
        return [say("cron_or", one=by_date[0], other=by_name[0])]
    return by_date + by_name


def _field(field: str, name: Callable[[str], str], key: str, each_key: str, say: Say) -> str:
    """A field in a sentence of its own: every n of it, or the terms that it names."""
    if _step(field):
        return say(each_key, n=_step(field))
    return say(key, what=", ".join(_term(term, name, say) for term in field.split(",")))


def _term(term: str, name: Callable[[str], str], say: Say) -> str:
    main, _, step = term.partition("/")
    first, dash, last = main.partition("-")
    found = say("cron_range", first=name(first), last=name(last)) if dash else name(main)
    return say("cron_each_of", what=found, n=step) if step else found


def _numbers(field: str) -> list[int]:
    """The numbers of a field that is nothing but numbers; none for any other."""
    terms = field.split(",")
    return sorted(map(int, terms)) if all(term.isdigit() for term in terms) else []


def _step(field: str) -> str:
    """The n of `*/n`."""
    return field[2:] if field.startswith("*/") and field[2:].isdigit() else ""


def _plain(word: str) -> str:
    return word


def _date(say: Say) -> Callable[[str], str]:
    return lambda word: say("cron_last") if word.startswith("L") else word


def _month(say: Say) -> Callable[[str], str]:
    return lambda word: say(f"month_{_MONTHS.index(word) + 1 if word in _MONTHS else int(word)}")


def _weekday(say: Say) -> Callable[[str], str]:
    def name(word: str) -> str:
        day, _, nth = word.partition("#")
        if day.endswith("L") and day[:-1].isdigit():
            return say("cron_last_of_month", day=name(day[:-1]))
        number = _DAYS.index(day) if day in _DAYS else int(day) % 7
        found = say(f"weekday_{number}")
        return say("cron_nth", n=say(f"nth_{nth}"), day=found) if nth else found

    return name
