"""What a job of this layer carries beside its call, as plain data that any headrace can read: the fourth argument of its task."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from headrace.core.record import AttemptError
from headrace.errors import RetryIn

TASK = "headrace.rq"
SERIALIZER_VARIABLE = "HEADRACE_RQ_SERIALIZER"
JOB_CLASS_VARIABLE = "HEADRACE_RQ_JOB_CLASS"
SPAWNED_VARIABLE = "HEADRACE_RQ_SPAWNED"
RETURNED = "the job returned a Retry"
REPEATS = "the job has succeeded, and repeats"
RETRY_IN = f"{RetryIn.__module__}.{RetryIn.__qualname__}"
FOREVER_S = 10 * 365 * 86_400
"""What -1 means where RQ keeps something for good."""
_LEFT = re.compile(r"\(left: retries (\d+), repeats (\d+)\)$")


class MaxRetriesExceeded(Exception):  # noqa: N818, RUF100
    """The job returned a Retry more often than that allows."""


MAX_RETRIES_EXCEEDED = f"{MaxRetriesExceeded.__module__}.{MaxRetriesExceeded.__qualname__}"


class Terms(msgspec.Struct, omit_defaults=True, kw_only=True):
    """RQ's words for how a job is to be run and kept. Durations are whole seconds; None: not said."""

    timeout: int | None = None
    result_ttl: int | None = None
    ttl: int | None = None
    failure_ttl: int | None = None
    retry_max: int | None = None
    retry_intervals: list[float] | None = None
    retry_at_front: bool = False
    repeat_times: int | None = None
    repeat_intervals: list[float] | None = None
    depends_on: list[str] = []
    allow_failures: bool | None = None
    at_front: bool | None = None
    group: str | None = None
    limit: str | None = None
    limit_concurrency: int | None = None
    is_kept: bool = False
    """It was saved, and waits for somebody to enqueue it, and to do so again."""

    def packed(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def read_terms(packed: Any) -> Terms:
    """The terms of a job's arguments; those that say nothing where there are none."""
    return msgspec.convert(packed, Terms) if packed else Terms()


class Left(NamedTuple):
    """What a job may still do. `returned`: how often it has returned a Retry."""

    retries: int | None
    repeats: int | None
    returned: int


def what_is_left(terms: Terms, runs: int, errors: list[AttemptError]) -> Left:
    """Of a job after `runs` runs that were followed by others, or by its failure; `errors` has their last ones."""
    recent = errors[-runs:] if runs else []
    returned = sum(error.type == RETRY_IN and error.message.startswith(RETURNED) for error in recent)
    if terms.repeat_times is None:
        failed = max(0, runs - returned)
        return Left(None if terms.retry_max is None else max(0, terms.retry_max - failed), None, returned)
    # Of a job that repeats, each message but that of its failure tells: only the last errors are kept.
    told = [error.message for error in recent[-2:] if error.type == RETRY_IN]
    match = _LEFT.search(told[-1]) if told else None
    retries, repeats = (int(match[1]), int(match[2])) if match else (terms.retry_max or 0, terms.repeat_times)
    return Left(retries, repeats, returned)


def tell_left(text: str, retries: int, repeats: int) -> str:
    """A message that `what_is_left` reads."""
    return f"{text[:1000]} (left: retries {retries}, repeats {repeats})"
