"""One log line a job, at level INFO, and of what failed the traceback at DEBUG; above them a line costs nothing."""

from __future__ import annotations

import json
import logging
import sys
import time

from headrace.core.outcome import cut_middle
from headrace.core.record import AttemptError
from headrace.engine.ops import Kind

TRACEBACK_BYTES_MAX = 4_000

logger = logging.getLogger("headrace.job")
_VERBS = {
    Kind.SUCCEEDED: "succeeded", Kind.DROPPED: "succeeded", Kind.FAILED: "failed", Kind.RETRY: "tried",
    Kind.CANCELLED: "cancelled", Kind.PARK: "parked", Kind.RELEASE: "given back",
}  # fmt: skip


class JobLog:
    """Writes what became of each job. `is_on`: whether successes are told at all."""

    def __init__(self) -> None:
        self.is_on = logger.isEnabledFor(logging.INFO)

    def job_ended(
        self, task: str, job_id: str, kind: Kind, duration_ms: float, error: AttemptError | None, delay_ms: int
    ) -> None:
        """The message of an error may hold what the job was given: it is told with the traceback only."""
        level = logging.WARNING if kind in (Kind.FAILED, Kind.RETRY) else logging.INFO
        if not logger.isEnabledFor(level):
            return
        extra = f": {error.type}" if error else ""
        later = f", again in {delay_ms / 1000:g} s" if kind == Kind.RETRY else ""
        logger.log(
            level,
            "%s %s %s in %s%s%s",
            printable(task),
            job_id,
            _VERBS[kind],
            shown_ms(duration_ms),
            printable(extra),
            later,
        )
        if error and error.traceback and logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s", _indented(cut_middle(error.traceback, TRACEBACK_BYTES_MAX)))


def _indented(text: str) -> str:
    """So that no line of it looks like one of ours."""
    return "\n".join(f"    {printable(line)}" for line in text.splitlines()).lstrip()


def shown_ms(duration_ms: float) -> str:
    if duration_ms < 1_000:
        return f"{duration_ms:.3g} ms"
    return f"{duration_ms / 1_000:.3g} s"


def printable(text: str) -> str:
    """Control characters escaped: a job's words cannot forge a line or steer a terminal."""
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    )


class _Lines(logging.StreamHandler):  # type: ignore[type-arg]
    """A handler whose trouble (a full disk, a closed pipe) is nobody's: logging must not stop a job."""

    def handleError(self, record: logging.LogRecord) -> None:
        return


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)), "level": record.levelname.lower(),
            "logger": record.name, "event": record.getMessage(), "pid": record.process,
        }  # fmt: skip
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def set_up_logging(level: str, style: str) -> None:
    """Log headrace's own lines to stderr, unless the app has configured the `headrace` logger itself."""
    root = logging.getLogger("headrace")
    root.setLevel(level.upper())
    if root.handlers:
        return
    handler = _Lines(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    root.addHandler(handler)
    root.propagate = False
