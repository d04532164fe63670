"""Every error headrace raises, and nothing else.

HeadraceError
├── UsageError              the caller's: wrong option, argument, name or URL (a ValueError too)
│   ├── ArgumentsMismatch   the arguments do not fit the task's signature (a TypeError too)
│   ├── PayloadNotSerializable   a value cannot be stored; names its path (a TypeError too)
│   ├── PayloadTooLarge     a job is larger than the limit
│   ├── TaskNotRegistered   no such task
│   ├── JobExists           the chosen job_id is taken
│   ├── ScheduleExists      the schedule's name is taken
│   ├── ScheduleNotFound    no schedule of that name
│   └── AppNotFound         no `Headrace` object where one was looked for
├── ServerError             Redis's or Valkey's
│   ├── ServerUnreachable   no reply in time (a ConnectionError too)
│   │   └── ServerUntrusted     no TLS with it: a certificate, or one side speaks no TLS
│   ├── ServerBusy          it answers, but cannot work now: loading, failover, read-only, disk trouble
│   ├── ServerFull          `maxmemory` is reached
│   ├── NotDurable          a job is accepted, but not confirmed as `durability` asks
│   ├── ServerDenied        wrong password, or a right is missing
│   ├── ServerUnsupported   too old, the wrong kind, or set up so that jobs would be lost
│   ├── ServerCorrupt       a key under our prefix is not ours
│   ├── LayoutTooNew        written by a newer headrace
│   └── SessionGone         the consumer's lease has ended (internal to workers)
└── JobError                the job's
    ├── JobNotFound         no such job, or it is no longer kept
    ├── JobFailed           it raised; `.error` tells what
    ├── JobCancelled
    ├── JobExpired
    ├── ResultNotKept       it succeeded; its result could not be, or was not, kept
    ├── ItemsNotKept        a job has yielded more than it keeps
    ├── ResultTimeout       it has not ended in the time given (a TimeoutError too)
    ├── StaleRun            raised inside a job: a newer run of it has begun
    └── JobTimeout          raised inside a job that is over its `timeout`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.core.record import AttemptError


class HeadraceError(Exception):
    """The root of every error headrace raises."""


class UsageError(HeadraceError, ValueError):
    """Something was asked for in a way that cannot work; nothing was sent or changed."""


class ArgumentsMismatch(UsageError, TypeError):
    """The arguments do not fit the task's signature."""


class PayloadNotSerializable(UsageError, TypeError):
    """A value cannot be stored. The message names the path to it: pass an id or plain data instead."""


class PayloadTooLarge(UsageError):
    """The job is larger than the limit: store the data elsewhere and pass a reference."""


class TaskNotRegistered(UsageError):
    """No such task: register the function with @app.task, or allow its module with Headrace(allow=[...])."""


class JobExists(UsageError):
    """The chosen job_id is taken. `job_id` tells which."""

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class DependencyError(UsageError):
    """A job that another one should wait for is not there. `job_id` tells which."""

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class DuplicateJob(JobExists):
    """A job with the same unique key has not ended. `job_id` tells which."""


class ScheduleExists(UsageError):
    """There is a schedule of that name: choose another, or change that one."""


class ScheduleNotFound(UsageError):
    """No schedule of that name."""


class AppNotFound(UsageError):
    """No Headrace object was found where one was looked for."""


class ServerError(HeadraceError):
    """The Redis or Valkey server, or the way to it, is at fault."""


class ServerUnreachable(ServerError, ConnectionError):
    """No reply in time. A call that writes may be sent again with the same id: it takes effect once."""


class ServerUntrusted(ServerUnreachable):
    """No TLS connection can be made: a certificate is not trusted or has expired, or one side speaks no TLS."""


class ServerBusy(ServerError):
    """The server answers, but cannot work now (loading, failover, read-only, disk). Try again."""


class ServerFull(ServerError):
    """The server has reached its `maxmemory`: nothing was enqueued. Let workers drain it, or raise maxmemory."""


class QueueFull(HeadraceError):
    """The queue has reached the length it may have: nothing was enqueued. Let workers drain it, or raise its max_length."""


class NotDurable(ServerError):
    """The jobs are accepted, but it is not confirmed in time that they are where `durability` wants them.

    They will run, unless the server is lost just now. It is safe to send them again with their ids
    (`.options(job_id=error.job_id)`): `JobExists` then means that a job is stored, and confirmed.

    Attributes:
        job_ids: the jobs in question; `job_id` is the first.
    """

    def __init__(self, message: str, job_ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.job_ids = tuple(job_ids)
        self.job_id = job_ids[0] if job_ids else ""


class ServerDenied(ServerError):
    """Wrong user or password, or a right is missing. The message names it."""


class ServerUnsupported(ServerError):
    """The server is too old, of the wrong kind, or set up so that jobs would be lost."""


class ServerCorrupt(ServerError):
    """A key under headrace's prefix does not hold what headrace wrote. Use another prefix, or remove the key."""


class LayoutTooNew(ServerError):
    """The data were written by a newer headrace: upgrade this program."""


class SessionGone(ServerError):
    """This consumer's session is no longer on the server: its lease ended, or it was adopted. Nothing was written."""


class JobError(HeadraceError):
    """The job's own end is what is told."""


class JobNotFound(JobError):
    """No such job: it never was, was deleted, or is no longer kept."""


class JobFailed(JobError):
    """The job failed for good. `error` is its last error, as data; no class of the job's is rebuilt."""

    def __init__(self, message: str, error: AttemptError | None = None) -> None:
        super().__init__(message)
        self.error = error


class JobCancelled(JobError):
    """The job was cancelled."""


class JobExpired(JobError):
    """The job had not started by its `expires`."""


class ResultNotKept(JobError):
    """The job succeeded, but its result is not stored; the message says why."""


class StaleRun(JobError):
    """A newer run of this job has begun: this one was taken for dead. Whatever it ends with is refused by the queue."""


class ItemsNotKept(JobError):
    """The job has yielded more items than it keeps. `first` is the number of the first that is there."""

    def __init__(self, message: str, first: int = 0) -> None:
        super().__init__(message)
        self.first = first


class ResultTimeout(JobError, TimeoutError):
    """The job has not ended in the time given. It goes on; ask again."""


class JobTimeout(JobError):
    """Raised inside a job that has run longer than its `timeout`."""


class RetryIn(HeadraceError):
    """Raised by a job to be run again in `delay_s` seconds: `raise RetryIn(30, "rate limited")`.

    `limit`: one of the job's limits that lets nothing through until then, for a service that answered 429 with Retry-After.
    `counts=False`: this run is no attempt: the job has only been put off, through no fault of its own. `at_front`: as that of Retry.
    """

    def __init__(
        self, delay_s: float, message: str = "", *, limit: str = "", counts: bool = True, at_front: bool = False
    ) -> None:
        super().__init__(message or f"run again in {delay_s:g} s")
        self.delay_s = delay_s
        self.limit = limit
        self.counts = counts
        self.at_front = at_front
