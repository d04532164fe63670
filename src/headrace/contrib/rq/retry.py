"""When a failed job is run again, in RQ's words: `rq.Retry`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.contrib.rq.repeat import intervals_of


class Retry:
    """Run a failed job again, at most `max` times, `interval` seconds later: a number, or one for each time.

    Raises:
        ValueError: max is less than 1, or an interval is negative.
        TypeError: an interval is neither a number nor a list of numbers.
    """

    def __init__(self, max: int, interval: int | Iterable[int] = 0, enqueue_at_front: bool = False) -> None:
        if max < 1:
            raise ValueError("max: please enter a value greater than 0")
        self.max = max
        self.intervals = intervals_of(interval)
        self.enqueue_at_front = enqueue_at_front

    def __repr__(self) -> str:
        interval = self.intervals[0] if len(self.intervals) == 1 else self.intervals
        return f"Retry(max={self.max}, interval={interval!r}, enqueue_at_front={self.enqueue_at_front!r})"

    @classmethod
    def get_interval(cls, count: int, intervals: float | Sequence[float] | None) -> float:
        """The seconds to wait after `count` retries; the last one again when there are no more."""
        if isinstance(intervals, (int, float)):
            return intervals
        return intervals[min(count, len(intervals) - 1)] if intervals else 0

    @property
    def delays(self) -> list[float]:
        """The wait before each retry."""
        return [self.get_interval(count, self.intervals) for count in range(self.max)]
