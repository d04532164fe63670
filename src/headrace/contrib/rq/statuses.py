"""Where a job stands, in RQ's words."""

from __future__ import annotations

from enum import Enum
from typing import Any

from headrace.core.record import State
from headrace.job import Job as Handle


class JobStatus(str, Enum):  # noqa: UP042, RUF100 - as in RQ, where it prints differently from a StrEnum
    """Where a job stands."""

    CREATED = "created"
    QUEUED = "queued"
    FINISHED = "finished"
    FAILED = "failed"
    STARTED = "started"
    DEFERRED = "deferred"
    SCHEDULED = "scheduled"
    STOPPED = "stopped"
    CANCELED = "canceled"
    RATE_LIMITED = "rate_limited"
    READY_TO_ENQUEUE = "ready_to_enqueue"


_STATUSES = {
    State.SCHEDULED: JobStatus.SCHEDULED,
    State.QUEUED: JobStatus.QUEUED,
    State.RUNNING: JobStatus.STARTED,
    State.RETRYING: JobStatus.SCHEDULED,
    State.SUCCEEDED: JobStatus.FINISHED,
    State.FAILED: JobStatus.FAILED,
}


def status_of(handle: Handle[Any]) -> JobStatus:
    """RQ's word for where a headrace job stands. (One that has expired is gone, in RQ.)"""
    if handle.state is State.WAITING:
        return JobStatus.DEFERRED if handle.awaited else JobStatus.RATE_LIMITED
    if handle.state is State.CANCELLED:
        # Only a job that ran is told so by its worker.
        return JobStatus.STOPPED if handle.reason == "cancelled" else JobStatus.CANCELED
    return _STATUSES[handle.state]
