"""`rq.repeat`: a job that runs again after it has succeeded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.contrib.rq.exceptions import not_offered


@dataclass
class Repeat:
    """Run a job again as often as this after it has succeeded, `interval` seconds later: a number, or one for each time.

    Raises:
        ValueError: times is less than 1, or an interval is negative.
        TypeError: an interval is neither a number nor several.
    """

    times: int
    intervals: list[float]

    def __init__(self, times: int, interval: int | Iterable[int] | None = 0) -> None:
        if times < 1:
            raise ValueError("times: please enter a value greater than 0")
        self.times = times
        self.intervals = intervals_of(interval)

    @classmethod
    def get_interval(cls, count: int, intervals: Sequence[float]) -> float:
        """The seconds to wait after `count` repeats; the last one again when there are no more."""
        return intervals[min(count, len(intervals) - 1)]

    @classmethod
    def schedule(cls, job: Any, queue: Any, pipeline: Any = None) -> Any:
        not_offered("Repeat.schedule", "the worker runs the job again by itself")


def intervals_of(interval: Any) -> list[float]:
    """`interval=` of Retry and Repeat as a list of seconds; raises ValueError or TypeError."""
    if isinstance(interval, (str, bytes)) or not isinstance(interval, (int, float, Iterable)):
        raise TypeError(f"interval: expected seconds, or a list of them, got {interval!r:.40}")
    intervals: list[float] = [interval] if isinstance(interval, (int, float)) else list(interval)
    if any(not isinstance(seconds, (int, float)) for seconds in intervals):
        raise TypeError(f"interval: expected seconds, or a list of them, got {interval!r:.40}")
    if any(seconds < 0 for seconds in intervals):
        raise ValueError("interval: negative numbers are not allowed")
    return intervals
