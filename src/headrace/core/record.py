"""A job as it is stored: one msgpack array whose first four elements the scripts can read by position.

Bytes 1 to 3 are the array's header, the layout version and the state; then `expires_at_ms` (1 or 9 bytes) and
`priority` (1 or 2 bytes). The last element, `reason`, is nil while a job lives, so that a script can end a job by
putting its words there. One that lives with a reason was stopped by force over its timeout: who claims it next settles
that attempt by the task's policy, which only workers know. `engine/lua/include/record.lua` is the other half of this contract.
"""

from __future__ import annotations

import enum
import itertools
import os
import secrets
import time
from typing import Any

import msgspec

LAYOUT = 1
PRIORITY_MIN, PRIORITY_MAX = -100, 100
ERRORS_KEPT = 20


class State(enum.StrEnum):
    """Where a job stands, as users see it."""

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_ended(self) -> bool:
        return self in ENDED


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})


class Stored(enum.IntEnum):
    """The state byte of a record. A live job is LIVE wherever it is; its place in Redis tells the rest."""

    LIVE = 3
    SUCCEEDED = 6
    FAILED = 7
    CANCELLED = 8
    EXPIRED = 9


ENDED_STATES = {
    Stored.SUCCEEDED: State.SUCCEEDED,
    Stored.FAILED: State.FAILED,
    Stored.CANCELLED: State.CANCELLED,
    Stored.EXPIRED: State.EXPIRED,
}


class AttemptError(msgspec.Struct, frozen=True, array_like=True):
    """What one attempt ended with, and the id of the worker that ran it: plain data, safe to read anywhere."""

    attempt: int
    type: str
    message: str
    traceback: str = ""
    at_ms: int = 0
    worker: str = ""


class RetrySpec(msgspec.Struct, frozen=True, array_like=True):
    """A retry policy as data: what travels with a job. `headrace.Retry` is what users write."""

    retries: int
    delays_ms: list[int] = []
    factor: float = 2.0
    max_delay_ms: int = 0
    jitter: float = 0.0
    on: list[str] = []
    give_up_on: list[str] = []
    at_front: bool = False


class JobOptions(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the enqueueing call set, where it differs from the task's own declaration.

    `timeout_ms` and `result_ttl_ms`: None = as the task declares; 0 timeout = no limit; 0 ttl = keep nothing. `failure_ttl_ms`: how long it is kept if it
    fails; None = 30 days. `deadline_ms`: the Unix instant at which it is stopped, and all that it enqueues; 0: none. `starts_at_ms`: it was asked not to
    run before; 0: at once. `inputs`: how many results of other jobs it waits for. `headers`: what travels with it for others than headrace, such as a
    trace. `ties`: what the scripts need while it lives (`core.ties`), kept here for when it is put back. `fields`: what its task says that jobs are
    searched for by, argument's path -> value as text.
    """

    timeout_ms: int | None = msgspec.field(default=None, name="t")
    retry: RetrySpec | None = msgspec.field(default=None, name="r")
    result_ttl_ms: int | None = msgspec.field(default=None, name="k")
    failure_ttl_ms: int | None = msgspec.field(default=None, name="l")
    description: str | None = msgspec.field(default=None, name="d")
    tags: list[str] = msgspec.field(default_factory=list, name="g")
    ties: bytes | None = msgspec.field(default=None, name="x")
    deadline_ms: int = msgspec.field(default=0, name="e")
    inputs: int = msgspec.field(default=0, name="i")
    headers: dict[str, str] = msgspec.field(default_factory=dict, name="h")
    starts_at_ms: int = msgspec.field(default=0, name="s")
    fields: dict[str, str] = msgspec.field(default_factory=dict, name="f")


class Record(msgspec.Struct, array_like=True, gc=False):
    """One job. Instants are Unix milliseconds; `payload` is msgpack, `result` msgpack in a byte string (None: none)."""

    layout: int
    state: int
    expires_at_ms: int
    priority: int
    task: str
    payload: msgspec.Raw
    created_at_ms: int
    options: JobOptions | None = None
    attempt: int = 0
    errors: list[AttemptError] | None = None
    started_at_ms: int = 0
    ended_at_ms: int = 0
    result: bytes | None = None
    note: str | None = None
    reason: str | None = None


class Head(msgspec.Struct, array_like=True, gc=False):
    """The first fields of a record, for who wants no more."""

    layout: int
    state: int
    expires_at_ms: int
    priority: int
    task: str


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)
encode = _encoder.encode
decode_head = msgspec.msgpack.Decoder(Head).decode
decode_record = _decoder.decode
"""`decode`, as the decoder's own method: for loops where a call counts."""


def decode(data: bytes) -> Record:
    """Read a record.

    Raises:
        msgspec.DecodeError, msgspec.ValidationError: these bytes are no record of this layout.
    """
    return _decoder.decode(data)


_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_arrivals = itertools.count(secrets.randbits(54))


def _restart_arrivals() -> None:
    """A forked child counts from elsewhere, or it would repeat its parent's ids."""
    global _arrivals
    _arrivals = itertools.count(secrets.randbits(54))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_arrivals)


def new_job_id() -> str:
    """A new id: 20 characters, 9 of Unix milliseconds and 11 (55 bits) that count from a random start.

    Ids sort by time, also those that one process makes within a millisecond.
    """
    number = (time.time_ns() // 1_000_000 << 55) | (next(_arrivals) & 0x7FFFFFFFFFFFFF)
    pairs = _PAIRS
    return (
        pairs[number >> 90] + pairs[number >> 80 & 1023] + pairs[number >> 70 & 1023] + pairs[number >> 60 & 1023]
        + pairs[number >> 50 & 1023] + pairs[number >> 40 & 1023] + pairs[number >> 30 & 1023]
        + pairs[number >> 20 & 1023] + pairs[number >> 10 & 1023] + pairs[number & 1023]
    )  # fmt: skip


def waits_since_ms(record: Record) -> int:
    """Since when a job that is next in line could have run: its creation, the instant that was asked for, or the end of its last run."""
    starts_at_ms = record.options.starts_at_ms if record.options is not None else 0
    return max(record.created_at_ms, starts_at_ms, record.errors[-1].at_ms if record.errors else 0)


def attempt_errors(record: Record) -> list[AttemptError]:
    return record.errors or []


def plain(value: Any) -> Any:
    """A msgspec value as builtins, for JSON."""
    return msgspec.to_builtins(value)
