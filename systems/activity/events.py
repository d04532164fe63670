"""An event: one thing that happened in the application, as it is kept on disk, enqueued and stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

LOST = "lost"
"""The kind of the event that tells how many others there was no room for."""
REQUEST = "request"
KIND_CHARS_MAX = 40
USER_CHARS_MAX = 64
TEXT_CHARS_MAX = 2_000
DATA_ITEMS_MAX = 20

Value: TypeAlias = str | int | float | bool | None


class Event(msgspec.Struct, frozen=True, array_like=True):
    """`request`: the id of the request it happened in, which binds the events of one request together."""

    at: datetime
    kind: str
    level: str = "info"
    user: str = ""
    request: str = ""
    text: str = ""
    data: dict[str, Value] = {}


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """An event with its place: `seq` counts from 1 in each spool (`source`), without a gap."""

    source: str
    seq: int
    event: Event

    @property
    def id(self) -> str:
        """Its job's: whoever brings it again brings the same one."""
        return f"{self.source}.{self.seq}"


def make_event(
    kind: str, *, level: str = "info", user: str = "", request: str = "", text: str = "", data: Mapping[str, Any] = {}
) -> Event:
    """An event of now. Whatever it is made of, the database can store it: what is too long is cut, never refused."""
    kept = {_clean(str(key), KIND_CHARS_MAX): _value(value) for key, value in list(data.items())[:DATA_ITEMS_MAX]}
    return Event(
        datetime.now(UTC),
        _clean(kind, KIND_CHARS_MAX),
        _clean(level, KIND_CHARS_MAX),
        _clean(user, USER_CHARS_MAX),
        _clean(request, USER_CHARS_MAX),
        _clean(text, TEXT_CHARS_MAX),
        kept,
    )


def _clean(text: str, most: int) -> str:
    """PostgreSQL stores no NUL, and UTF-8 has no half of a surrogate pair."""
    return text[:most].replace("\0", "").encode("utf8", "replace").decode()


def _value(value: object) -> Value:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _clean(str(value), TEXT_CHARS_MAX)
