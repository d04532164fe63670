"""`rq.timeouts`: what a job sees when its time is up, and RQ's classes that limit the time of a `with` block.

A job's own timeout is the worker's to keep; these classes are for callbacks, and for programs that use them.
"""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Literal

from headrace.errors import JobTimeout
from headrace.worker.interrupts import raise_in_thread

BaseTimeoutException = JobTimeout
JobTimeoutException = JobTimeout


class HorseMonitorTimeoutException(BaseTimeoutException):  # noqa: N818, RUF100 - RQ's name
    """Nothing here raises it: a supervisor waits for its children without a limit."""


class BaseDeathPenalty:
    """`with DeathPenalty(seconds, exception):` raises the exception inside when the time is up."""

    def __init__(self, timeout: float, exception: type[BaseException] = BaseTimeoutException, **kwargs: Any) -> None:
        self._timeout = timeout
        self._exception = exception

    @property
    def text(self) -> str:
        return f"Task exceeded maximum timeout value ({self._timeout} seconds)"

    def __enter__(self) -> None:
        self.setup_death_penalty()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        with suppress(BaseTimeoutException):  # the block had ended as the alarm went off
            self.cancel_death_penalty()
        return False

    def setup_death_penalty(self) -> None:
        raise NotImplementedError

    def cancel_death_penalty(self) -> None:
        raise NotImplementedError


class UnixSignalDeathPenalty(BaseDeathPenalty):
    """By SIGALRM: in the main thread only."""

    def handle_death_penalty(self, signum: int, frame: FrameType | None) -> None:
        raise self._exception(self.text)

    def setup_death_penalty(self) -> None:
        if self._timeout > 0:
            signal.signal(signal.SIGALRM, self.handle_death_penalty)
            signal.setitimer(signal.ITIMER_REAL, self._timeout)

    def cancel_death_penalty(self) -> None:
        if self._timeout > 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


class TimerDeathPenalty(BaseDeathPenalty):
    """By a timer: in any thread, at its next line of Python."""

    def __init__(self, timeout: float, exception: type[BaseException] = JobTimeoutException, **kwargs: Any) -> None:
        super().__init__(timeout, exception, **kwargs)
        self._thread = threading.get_ident()
        self._timer: threading.Timer | None = None

    def new_timer(self) -> threading.Timer:
        return threading.Timer(self._timeout, self.handle_death_penalty)

    def handle_death_penalty(self) -> None:
        text = self.text

        class Told(self._exception):  # type: ignore[misc,name-defined]  # only a class can be raised in a thread
            def __init__(self) -> None:
                super().__init__(text)

        Told.__name__, Told.__qualname__ = self._exception.__name__, self._exception.__qualname__
        raise_in_thread(self._thread, Told)

    def setup_death_penalty(self) -> None:
        if self._timeout > 0:
            self._timer = self.new_timer()
            self._timer.daemon = True
            self._timer.start()

    def cancel_death_penalty(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def get_default_death_penalty_class() -> type[BaseDeathPenalty]:
    """By signal where there are any."""
    return UnixSignalDeathPenalty if hasattr(signal, "SIGALRM") else TimerDeathPenalty


__all__ = [
    "BaseDeathPenalty",
    "BaseTimeoutException",
    "HorseMonitorTimeoutException",
    "JobTimeoutException",
    "TimerDeathPenalty",
    "UnixSignalDeathPenalty",
    "get_default_death_penalty_class",
]
