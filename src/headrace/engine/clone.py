"""A job like another one: the same task and options, its own or other arguments, none of its past."""

from __future__ import annotations

import msgspec

from headrace.core.record import JobOptions, Record, encode, new_job_id
from headrace.core.ties import group_in, reads_inputs, ties_of_clone
from headrace.engine import ops
from headrace.errors import UsageError


def clone(
    record: Record, *, now_ms: int, payload: bytes | None = None, priority: int | None = None, delay_ms: int = 0
) -> ops.NewJob:
    """What is stored.

    Limits and a group hold for it too. A unique key, what it waited for and who waited for it stay with the other one: it is wanted twice.

    Args:
        payload: its arguments; None: as they were.

    Raises:
        UsageError: it took arguments from other jobs, which gives no call of its own.
    """
    options = record.options
    old = options.ties if options else None
    if payload is None and reads_inputs(old):
        raise UsageError("this job took arguments from the results of others: give the clone arguments of its own")
    if priority and group_in(old):
        raise UsageError("this job has a group, which takes turns whatever its priority: leave the priority at 0")
    ties = ties_of_clone(old)
    level = record.priority if priority is None else priority
    starts_at_ms = now_ms + delay_ms if delay_ms else 0
    if options is not None or starts_at_ms:
        options = msgspec.structs.replace(
            options or JobOptions(), ties=ties or None, inputs=0, deadline_ms=0, headers={}, starts_at_ms=starts_at_ms
        )
    new = msgspec.structs.replace(
        ops.revived(record), priority=level, payload=record.payload if payload is None else msgspec.Raw(payload),
        created_at_ms=now_ms, options=options, errors=None,
    )  # fmt: skip
    return ops.NewJob(new_job_id(), encode(new), level, delay_ms=delay_ms, ties=ties)
