"""What happened, told to whoever asked: logs, metrics and traces hang on this, nothing else does."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from headrace.core.record import AttemptError
from headrace.errors import UsageError

logger = logging.getLogger("headrace")


class EventName(enum.StrEnum):
    """All events. Job events are told in the process that enqueues or runs the job."""

    JOB_ENQUEUED = "job.enqueued"
    JOB_STARTED = "job.started"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_RETRYING = "job.retrying"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_RELEASED = "job.released"
    JOB_PARKED = "job.parked"
    JOB_LOST = "job.lost"
    """Its process ended before it did: told by the consumer that forked it, so in the pool `fork` only."""
    CHILD_STARTED = "child.started"
    CHILD_STOPPED = "child.stopped"


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a job's process ended: `status` and `usage` (a `resource.struct_rusage`) as os.wait4 gives them."""

    pid: int
    status: int
    usage: Any


@dataclass(frozen=True, slots=True)
class Event:
    """One event. Fields that do not apply keep their default."""

    name: EventName
    at_ms: int
    job_id: str = ""
    queue: str = ""
    task: str = ""
    attempt: int = 0
    duration_ms: float = 0.0
    wait_ms: float = 0.0
    error: AttemptError | None = None
    process: ProcessEnd | None = None


Handler: TypeAlias = Callable[[Event], object]


class Events:
    """The handlers of one app. A handler that raises is logged and changes nothing."""

    __slots__ = ("_handlers", "hears_enqueued")

    def __init__(self) -> None:
        self._handlers: dict[EventName, list[Handler]] = {}
        self.hears_enqueued = False  # asked at each enqueue, so no call

    def add(self, name: str, handler: Handler) -> None:
        """Call `handler` on each event of that name ("*": on all of them)."""
        if not callable(handler):
            raise UsageError(f"event handler: expected a function, got {handler!r:.80}")
        names = list(EventName) if name == "*" else [_event_name(name)]
        for each in names:
            self._handlers.setdefault(each, []).append(handler)
        self.hears_enqueued = EventName.JOB_ENQUEUED in self._handlers

    def has(self, name: EventName) -> bool:
        return name in self._handlers

    def emit(self, event: Event) -> None:
        for handler in self._handlers.get(event.name, ()):
            try:
                handler(event)
            except Exception:
                logger.exception("the handler %r of the event %s raised", handler, event.name)


def _event_name(name: str) -> EventName:
    try:
        return EventName(name)
    except ValueError:
        raise UsageError(f"no event {name!r:.60}; there are: {', '.join(EventName)}") from None
