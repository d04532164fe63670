"""Counts and times of jobs as sums that can be added up: what workers count, and what is read back. No I/O.

A sum is a map of names to numbers: `succeeded`, `failed`, `retried`, `cancelled`, `run_us` and `wait_us` (all of their
times together), and the histograms: `r37` counts runs, `w37` waits, whose time falls in the 37th step. A step is a
quarter of a power of two of microseconds, so a quantile is at most an eighth off.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TypeAlias

import msgspec

Sums: TypeAlias = "dict[str, int]"
OUTCOMES = ("succeeded", "failed", "retried", "cancelled")


def first_us(step: int) -> int:
    """The least time of a step."""
    if step < 4:
        return step
    return (4 + step % 4) << (step // 4 - 1)


STEPS_US = [first_us(step) for step in range(200)]
"""The least time of each step: `bisect_right(STEPS_US, time_us) - 1` is a time's step, without a call of ours."""


def step_of(time_us: int) -> int:
    """The step of the histograms in which a time falls."""
    return bisect_right(STEPS_US, time_us) - 1


def add(into: MutableMapping[str, int], sums: Mapping[str, int]) -> None:
    for name, count in sums.items():
        into[name] = into.get(name, 0) + count


class Times(msgspec.Struct, frozen=True):
    """How long something took, many times: (least time of a step in µs, first of the next, how often), in order."""

    total_us: int
    steps: Sequence[tuple[int, int, int]]

    @property
    def count(self) -> int:
        return sum(count for _, _, count in self.steps)

    def quantile_s(self, share: float) -> float | None:
        """The time that this share of all was not over, in seconds; None: there was none."""
        wanted = share * self.count
        for first, after, count in self.steps:
            if wanted <= count:
                return (first + (after - first) * max(wanted, 0.0) / count) / 1e6
            wanted -= count
        return self.steps[-1][1] / 1e6 if self.steps else None


def times_in(sums: Mapping[str, int], kind: str) -> Times:
    """The histogram `run` or `wait` of a sum."""
    found = sorted((int(name[1:]), count) for name, count in sums.items() if name[0] == kind[0] and name[1:].isdigit())
    steps = [(first_us(step), first_us(step + 1), count) for step, count in found]
    return Times(sums.get(f"{kind}_us", 0), steps)
