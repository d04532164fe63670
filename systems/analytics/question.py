"""What a user asks: which days, which pages. Equal questions are one report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

import msgspec

DAYS_MAX = 366
PAGES_CHARS_MAX = 200


class Question(msgspec.Struct, frozen=True):
    """Both days count. `pages`: what the path of a page begins with."""

    first: date
    last: date
    pages: str

    def days(self) -> list[date]:
        return [self.first + timedelta(number) for number in range((self.last - self.first).days + 1)]


def read_question(form: Mapping[str, str], today: date) -> Question:
    """The fields of a form as a question; raises ValueError, which says what is wrong.

    `first` and `last` are ISO days; without them: the week that ended yesterday.
    """
    yesterday = today - timedelta(1)
    last = date.fromisoformat(form.get("last") or yesterday.isoformat())
    first = date.fromisoformat(form.get("first") or (last - timedelta(6)).isoformat())
    pages = form.get("pages") or "/"
    if first > last:
        raise ValueError(f"{first} is after {last}")
    if last > today:
        raise ValueError(f"{last} has not come yet")
    if (last - first).days >= DAYS_MAX:
        raise ValueError(f"more than {DAYS_MAX} days")
    if not pages.startswith("/") or len(pages) > PAGES_CHARS_MAX or not pages.isprintable():
        raise ValueError(f"pages: expected / and at most {PAGES_CHARS_MAX - 1} printable characters")
    return Question(first, last, pages)
