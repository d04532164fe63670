"""headrace: background jobs on Valkey and Redis. As simple as RQ, as fast as the server allows, and no job is lost."""

from headrace.app import Headrace
from headrace.context import JobContext, current_job
from headrace.core.record import AttemptError, State
from headrace.core.retry import Retry
from headrace.errors import (
    AppNotFound,
    ArgumentsMismatch,
    HeadraceError,
    JobCancelled,
    JobError,
    JobExists,
    JobExpired,
    JobFailed,
    JobNotFound,
    JobTimeout,
    LayoutTooNew,
    PayloadNotSerializable,
    PayloadTooLarge,
    ResultNotKept,
    ResultTimeout,
    RetryIn,
    ServerBusy,
    ServerCorrupt,
    ServerDenied,
    ServerError,
    ServerFull,
    ServerUnreachable,
    ServerUnsupported,
    TaskNotRegistered,
    UsageError,
)
from headrace.events import Event, EventName
from headrace.job import Job, JobCall, Progress
from headrace.queue import Queue
from headrace.task import Task
from headrace.version import __version__

__all__ = [
    "AppNotFound",
    "ArgumentsMismatch",
    "AttemptError",
    "Event",
    "EventName",
    "Headrace",
    "HeadraceError",
    "Job",
    "JobCall",
    "JobCancelled",
    "JobContext",
    "JobError",
    "JobExists",
    "JobExpired",
    "JobFailed",
    "JobNotFound",
    "JobTimeout",
    "LayoutTooNew",
    "PayloadNotSerializable",
    "PayloadTooLarge",
    "Progress",
    "Queue",
    "ResultNotKept",
    "ResultTimeout",
    "Retry",
    "RetryIn",
    "ServerBusy",
    "ServerCorrupt",
    "ServerDenied",
    "ServerError",
    "ServerFull",
    "ServerUnreachable",
    "ServerUnsupported",
    "State",
    "Task",
    "TaskNotRegistered",
    "UsageError",
    "__version__",
    "current_job",
]
