"""`rq.callbacks`: functions that a worker calls when a run of a job has ended."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from headrace.contrib.rq.defaults import CALLBACK_TIMEOUT
from headrace.contrib.rq.utils import parse_timeout, resolve_function_reference


class Callback:
    """A function, or its dotted path, and how long it may take: 60 s, or seconds, or '2m'.

    `on_success(job, connection, result)`, `on_failure(job, connection, type, value, traceback)`, `on_stopped(job, connection)`. What
    it raises is logged, and changes nothing.

    Raises:
        ValueError: no function, nor a path: a worker could not find it.
    """

    def __init__(self, func: str | Callable[..., Any], timeout: Any | None = None) -> None:
        if not isinstance(func, str) and not inspect.isfunction(func) and not inspect.isbuiltin(func):
            raise ValueError(f"Callback `func` must be a string or function, got {func!r:.60}")
        self.func = func
        self.timeout = parse_timeout(timeout) if timeout else CALLBACK_TIMEOUT

    @property
    def name(self) -> str:
        """Its dotted path."""
        return str(resolve_function_reference(self.func)[1])


def callback_of(given: Any) -> Callback | None:
    """What was given as `on_success=` and the like: a Callback, a function, or a path; None: nothing."""
    return given if given is None or isinstance(given, Callback) else Callback(given)
