"""What the packages' jobs are: functions that import `rq`, as a user's would."""

from __future__ import annotations

import rq
from django_rq import job


@job("default")
def add(one: int, other: int) -> int:
    current = rq.get_current_job()
    assert current is not None
    return one + other


def divide(one: int, other: int) -> float:
    return one / other


def plain(value: int) -> int:
    return value
