"""What becomes of a job when an attempt ends: one pure decision, and how an exception is told.

An attempt is charged (`Record.attempt` grows) when the job's own code ran to an end: it returned, raised, or was
stopped for its timeout. A release, a cancel, an unknown task or a RetryIn that does not count charges nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os.path
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, TypeAlias

import msgspec

from headrace.core.names import type_name, type_names
from headrace.core.record import ERRORS_KEPT, AttemptError, Record, RetrySpec, Stored
from headrace.core.retry import delay_ms, is_retryable
from headrace.core.ties import group_in
from headrace.errors import JobTimeout

KEEP_FAILED_MS = 30 * 86_400_000
KEEP_CANCELLED_MS = 86_400_000
PARK_MIN_MS, PARK_MAX_MS = 5_000, 60_000
ERROR_BYTES_MAX = 64 * 1024
_MESSAGE_BYTES_MAX = 16 * 1024
_TYPE_BYTES_MAX = 512
_REASON_BYTES_MAX = 300
_FRAMES_MAX = 100
_NOT_THE_USERS = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    os.path.dirname(asyncio.__file__) + os.sep,
    os.path.dirname(concurrent.futures.__file__) + os.sep,  # the pool asyncio runs a `def` task in a thread
)


@dataclass(frozen=True, slots=True)
class Succeeded:
    """It returned. `result` is msgpack; None with `why_not_kept` when it could not be stored."""

    result: bytes | None
    why_not_kept: str | None = None


@dataclass(frozen=True, slots=True)
class Raised:
    """It raised. `types` are the names of the exception's type and its bases; `retry_in_ms` is what RetryIn asked.

    `counts` False: that RetryIn only puts the job off. `at_front`: RetryIn asks for that.
    """

    types: Sequence[str]
    error: AttemptError
    retry_in_ms: int | None = None
    counts: bool = True
    at_front: bool = False


@dataclass(frozen=True, slots=True)
class TimedOut:
    """It ran longer than its timeout and was stopped."""

    error: AttemptError


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It was cancelled before or while it ran."""


@dataclass(frozen=True, slots=True)
class UnknownTask:
    """This worker has no task of that name."""

    name: str


@dataclass(frozen=True, slots=True)
class Released:
    """The worker stops and gives the job back."""


@dataclass(frozen=True, slots=True)
class BadPayload:
    """The arguments cannot be read, or do not fit the task: no retry can help."""

    text: str


End: TypeAlias = Succeeded | Raised | TimedOut | Cancelled | UnknownTask | Released | BadPayload
Kind: TypeAlias = Literal["s", "f", "r", "l", "p", "c", "d"]

_TIMEOUT_TYPES = type_names(JobTimeout)
NOBODY_KNOWS = "no worker of this queue knows the task"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write: `kind` is one of `ops.Kind`, `record` the whole new record.

    `delay_ms` says when a retried or parked job is due, `keep_ms` how long an ended one is kept.
    """

    kind: Kind
    record: Record
    delay_ms: int = 0
    keep_ms: int = 0


def decide(
    record: Record,
    end: End,
    *,
    retry: RetrySpec | None,
    result_ttl_ms: int,
    now_ms: int,
    random: Callable[[], float],
) -> Decision:
    """Say what an attempt's end does to its job; `record` itself is not changed.

    A policy of `n` retries allows `n + 1` attempts. RetryIn is a retry that the job asks for: it counts against the
    policy where there is one, passes over `on` and `give_up_on`, and is always granted where there is none. One that does
    not count is always granted, and charges nothing.
    """
    if type(end) is Succeeded:
        new = _ended(
            record, Stored.SUCCEEDED, now_ms, reason=None, charged=True, result=end.result, note=end.why_not_kept
        )
        return Decision("s" if result_ttl_ms > 0 else "d", new, keep_ms=result_ttl_ms)
    if isinstance(end, Raised):
        if end.retry_in_ms is not None and not end.counts:
            new = _copy(record, note=cut(end.error.message, _REASON_BYTES_MAX))
            return Decision("r", new, delay_ms=max(0, end.retry_in_ms))
        decision = _failed_attempt(record, end.error, end.types, end.retry_in_ms, retry, now_ms, random)
        return _to_front(decision) if end.at_front else decision
    if isinstance(end, TimedOut):
        return _failed_attempt(record, end.error, _TIMEOUT_TYPES, None, retry, now_ms, random)
    if isinstance(end, BadPayload):
        error = AttemptError(record.attempt + 1, "BadPayload", cut(end.text, _MESSAGE_BYTES_MAX), "", now_ms)
        return _dead(record, error, now_ms)
    if isinstance(end, Cancelled):
        new = _ended(record, Stored.CANCELLED, now_ms, reason="cancelled", charged=False)
        return Decision("c", new, keep_ms=KEEP_CANCELLED_MS)
    if isinstance(end, UnknownTask):
        # The longer it has waited, the less it helps to look often.
        wait_ms = min(max((now_ms - record.created_at_ms) // 10, PARK_MIN_MS), PARK_MAX_MS)
        new = _copy(record, note=f"{NOBODY_KNOWS} {cut(end.name, 200)}")
        return Decision("p", new, delay_ms=wait_ms)
    return Decision("l", record)


def _failed_attempt(
    record: Record,
    error: AttemptError,
    types: Sequence[str],
    retry_in_ms: int | None,
    retry: RetrySpec | None,
    now_ms: int,
    random: Callable[[], float],
) -> Decision:
    attempt = record.attempt + 1
    is_asked = retry_in_ms is not None
    is_left = is_asked if retry is None else attempt <= retry.retries
    if not is_left or not (is_asked or (retry is not None and is_retryable(retry, types))):
        return _dead(record, error, now_ms)
    wait_ms = retry_in_ms if retry_in_ms is not None else delay_ms(retry, attempt, random) if retry else 0
    new = _copy(record, attempt=attempt, errors=_with_error(record, error), note=None)
    decision = Decision("r", new, delay_ms=max(0, wait_ms))
    return _to_front(decision) if retry is not None and retry.at_front else decision


def _to_front(decision: Decision) -> Decision:
    """A job that runs again goes before those without a priority."""
    record = decision.record
    if decision.kind != "r" or (record.options is not None and group_in(record.options.ties) is not None):
        return decision
    return replace(decision, record=_copy(record, priority=max(record.priority, 1)))


def _dead(record: Record, error: AttemptError, now_ms: int) -> Decision:
    first_line = error.message.partition("\n")[0]
    reason = cut(f"{error.type}: {first_line}" if first_line else error.type, _REASON_BYTES_MAX)
    new = _ended(record, Stored.FAILED, now_ms, reason=reason, charged=True, errors=_with_error(record, error))
    ttl_ms = record.options.failure_ttl_ms if record.options is not None else None
    return Decision("f", new, keep_ms=KEEP_FAILED_MS if ttl_ms is None else ttl_ms)


def _ended(
    record: Record,
    state: Stored,
    now_ms: int,
    *,
    reason: str | None,
    charged: bool,
    note: str | None = None,
    **new: Any,
) -> Record:
    attempt = record.attempt + 1 if charged else record.attempt
    return _copy(record, state=int(state), attempt=attempt, ended_at_ms=now_ms, reason=reason, note=note, **new)


def _copy(record: Record, **changes: Any) -> Record:
    return msgspec.structs.replace(record, **changes)


def _with_error(record: Record, error: AttemptError) -> list[AttemptError]:
    return [*(record.errors or []), error][-ERRORS_KEPT:]


def describe_exception(exc: BaseException, attempt: int, now_ms: int, worker: str = "") -> AttemptError:
    """An exception as data: at most 64 KiB, no local variables, no frames above the user's code. Never raises."""
    kind = cut(type_name(type(exc)), _TYPE_BYTES_MAX)
    try:
        message = cut(str(exc), _MESSAGE_BYTES_MAX)
    except Exception as broken:
        message = f"(its text cannot be shown: __str__ raised {type_name(type(broken))})"
    room = ERROR_BYTES_MAX - len(kind) - len(message.encode()) - 64
    try:
        frames = _user_frames(exc.__traceback__)
        told = traceback.TracebackException(type(exc), exc, frames, limit=-_FRAMES_MAX, compact=True)
        text = cut_middle("".join(told.format()), room)
    except Exception as broken:
        text = f"(the traceback cannot be shown: {type_name(type(broken))})"
    return AttemptError(attempt, kind, message, text, now_ms, worker)


def _user_frames(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        trace = trace.tb_next
    return trace


def cut(text: str, max_bytes: int) -> str:
    """At most `max_bytes` of UTF-8, in valid Unicode, with a mark where it was cut."""
    if len(text) * 4 <= max_bytes:
        return text if text.isascii() else _valid(text)
    data = text[:max_bytes].encode("utf-8", "replace")
    if len(data) <= max_bytes and len(text) <= max_bytes:
        return data.decode()
    return data[: max_bytes - 3].decode("utf-8", "ignore") + "…"


def cut_middle(text: str, max_bytes: int) -> str:
    """As `cut`, keeping both ends: of a traceback they say most."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return data.decode()
    half = (max_bytes - 40) // 2
    head, tail = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
    return f"{head}\n… {len(data) - 2 * half} bytes cut …\n{tail}"


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


__all__ = [
    "BadPayload",
    "Cancelled",
    "Decision",
    "End",
    "Raised",
    "Released",
    "Succeeded",
    "TimedOut",
    "UnknownTask",
    "decide",
    "describe_exception",
]
