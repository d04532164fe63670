"""headrace: background jobs on Valkey and Redis. As simple as RQ, as fast as the server allows, and no job is lost.

A public name is imported when it is first used, so that the command line starts before redis-py is loaded (ADR 16).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.version import __version__

if TYPE_CHECKING:
    from headrace.app import Headrace
    from headrace.chain import Chain, Flow, group, previous
    from headrace.context import BatchContext, JobContext, current_batch, current_job
    from headrace.core.batch import Batch
    from headrace.core.record import AttemptError, State
    from headrace.core.retry import Retry
    from headrace.core.ties import Group, Limit, Unique
    from headrace.errors import (
        AppNotFound,
        ArgumentsMismatch,
        DependencyError,
        DuplicateJob,
        HeadraceError,
        ItemsNotKept,
        JobCancelled,
        JobError,
        JobExists,
        JobExpired,
        JobFailed,
        JobNotFound,
        JobTimeout,
        LayoutTooNew,
        NotDurable,
        PayloadNotSerializable,
        PayloadTooLarge,
        QueueFull,
        ResultNotKept,
        ResultTimeout,
        RetryIn,
        ScheduleExists,
        ScheduleNotFound,
        ServerBusy,
        ServerCorrupt,
        ServerDenied,
        ServerError,
        ServerFull,
        ServerUnreachable,
        ServerUnsupported,
        ServerUntrusted,
        StaleRun,
        TaskNotRegistered,
        UsageError,
    )
    from headrace.events import Event, EventName
    from headrace.flow import FlowRun
    from headrace.growth import RunningFlow, current_flow
    from headrace.job import Job, JobCall
    from headrace.progress import Progress, track
    from headrace.queue import Queue
    from headrace.schedules import Schedule
    from headrace.stream import JobStream, LogLine
    from headrace.task import BatchTask, Task

__all__ = [
    "AppNotFound",
    "ArgumentsMismatch",
    "AttemptError",
    "Batch",
    "BatchContext",
    "BatchTask",
    "Chain",
    "DependencyError",
    "DuplicateJob",
    "Event",
    "EventName",
    "Flow",
    "FlowRun",
    "Group",
    "Headrace",
    "HeadraceError",
    "ItemsNotKept",
    "Job",
    "JobCall",
    "JobCancelled",
    "JobContext",
    "JobError",
    "JobExists",
    "JobExpired",
    "JobFailed",
    "JobNotFound",
    "JobStream",
    "JobTimeout",
    "LayoutTooNew",
    "Limit",
    "LogLine",
    "NotDurable",
    "PayloadNotSerializable",
    "PayloadTooLarge",
    "Progress",
    "Queue",
    "QueueFull",
    "ResultNotKept",
    "ResultTimeout",
    "Retry",
    "RetryIn",
    "RunningFlow",
    "Schedule",
    "ScheduleExists",
    "ScheduleNotFound",
    "ServerBusy",
    "ServerCorrupt",
    "ServerDenied",
    "ServerError",
    "ServerFull",
    "ServerUnreachable",
    "ServerUnsupported",
    "ServerUntrusted",
    "StaleRun",
    "State",
    "Task",
    "TaskNotRegistered",
    "Unique",
    "UsageError",
    "__version__",
    "current_batch",
    "current_flow",
    "current_job",
    "group",
    "previous",
    "track",
]

# Where the names live that are not errors; a test holds this against the imports above.
_HOMES = {
    "Headrace": "app",
    "BatchContext": "context",
    "JobContext": "context",
    "current_batch": "context",
    "current_job": "context",
    "track": "progress",
    "Batch": "core.batch",
    "AttemptError": "core.record",
    "State": "core.record",
    "Retry": "core.retry",
    "Group": "core.ties",
    "Chain": "chain",
    "Flow": "chain",
    "group": "chain",
    "previous": "chain",
    "FlowRun": "flow",
    "RunningFlow": "growth",
    "current_flow": "growth",
    "Limit": "core.ties",
    "Unique": "core.ties",
    "Event": "events",
    "EventName": "events",
    "Job": "job",
    "JobCall": "job",
    "JobStream": "stream",
    "LogLine": "stream",
    "Progress": "progress",
    "Queue": "queue",
    "BatchTask": "task",
    "Schedule": "schedules",
    "Task": "task",
}


def __getattr__(name: str) -> Any:
    """A public name at its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"headrace.{_HOMES.get(name, 'errors')}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
