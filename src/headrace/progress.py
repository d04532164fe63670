"""How far a running job is: what it says, and `track`, which says it for a loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar, overload

import msgspec

from headrace.errors import UsageError

T = TypeVar("T")
TEXT_CHARS_MAX = 500
SAY_EVERY_S = 0.1


class _Stored(msgspec.Struct, array_like=True, frozen=True):
    fraction: float
    text: str | None
    at_ms: int
    done: int | None = None
    total: int | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running job said last.

    Attributes:
        fraction: 0 to 1; 0 where `track` does not know how many there are.
        at: when it said so.
        done: how many items `track` is through; None when the job said it by itself.
        total: of how many; None when that is not known.
    """

    fraction: float
    text: str | None
    at: datetime
    done: int | None = None
    total: int | None = None

    @classmethod
    def now(cls, fraction: float, text: str | None, done: int | None = None, total: int | None = None) -> Progress:
        text = None if text is None else str(text)[:TEXT_CHARS_MAX]
        return cls(fraction, text, datetime.fromtimestamp(int(time.time() * 1000) / 1000, UTC), done, total)

    def encode(self) -> bytes:
        """As it is stored."""
        return _encode(_Stored(self.fraction, self.text, round(self.at.timestamp() * 1000), self.done, self.total))

    @classmethod
    def decode(cls, data: bytes | None) -> Progress | None:
        if not data:
            return None
        found = _decode(data)
        at = datetime.fromtimestamp(found.at_ms / 1000, UTC)
        return cls(found.fraction, found.text, at, found.done, found.total)


@overload
def track(items: Iterable[T], total: int | None = None, text: str | None = None) -> Iterator[T]: ...


@overload
def track(items: AsyncIterable[T], total: int | None = None, text: str | None = None) -> AsyncIterator[T]: ...


def track(
    items: Iterable[T] | AsyncIterable[T], total: int | None = None, text: str | None = None
) -> Iterator[T] | AsyncIterator[T]:
    """The items, one after another, and the job's progress with them: `for row in track(rows):`, or `async for`.

    An item counts when the next one is asked for: its work is done then. Outside of a job nothing is told.

    Args:
        total: how many there are; by default `len(items)`, where there is such a thing.
        text: a few words beside the numbers.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if total is not None and (isinstance(total, bool) or not isinstance(total, int) or total < 0):
        raise UsageError(f"track: total must be how many items there are, got {total!r:.40}")
    count = _Count(total, text)
    if isinstance(items, AsyncIterable):
        return _atrack(items, count)
    return _track(items, count)


class _Count:
    """How many are done; tells the current job, not more often than it is worth."""

    def __init__(self, total: int | None, text: str | None) -> None:
        from headrace.context import current_job

        self._job = current_job()
        self._done, self._total, self._text = 0, total, text
        self._told_at_s = 0.0

    def next(self) -> None:
        self._done += 1
        now_s = time.monotonic()
        if now_s - self._told_at_s >= SAY_EVERY_S or self._done == self._total:
            self._told_at_s = now_s
            self.tell()

    def tell(self) -> None:
        fraction = min(1.0, self._done / self._total) if self._total else 0.0
        self._job.report(Progress.now(fraction, self._text, self._done, self._total))


def _track(items: Iterable[T], count: _Count) -> Iterator[T]:
    count.tell()
    for item in items:
        yield item
        count.next()


async def _atrack(items: AsyncIterable[T], count: _Count) -> AsyncIterator[T]:
    count.tell()
    async for item in items:
        yield item
        count.next()
