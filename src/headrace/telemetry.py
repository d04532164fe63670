"""Where tracing hangs on: one outlet a process, None unless something instruments it, as `headrace.contrib.otel` does.

Who would tell it something looks at `telemetry.outlet` first: without one, an enqueue or a run costs that look, and no call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from headrace.context import JobContext


class Sending(Protocol):
    """An enqueue that is under way. `call`: what is to be enqueued, with the headers that its job carries."""

    @property
    def call(self) -> Any: ...

    def stored(self, job: Any) -> Any:
        """The server has it; gives the job back."""
        ...


class Outlet(Protocol):
    """What an instrumentation is told. Each context manager is left when that has ended, with its exception if it failed."""

    def enqueue(self, app: Any, call: Any) -> AbstractContextManager[Sending]: ...

    def enqueue_many(self, app: Any, calls: Sequence[Any]) -> AbstractContextManager[Sequence[Any]]:
        """Gives the calls with the headers that their jobs carry."""
        ...

    def enqueue_flow(self, app: Any, name: str) -> AbstractContextManager[Any]: ...

    def headers(self) -> Mapping[str, str]:
        """What a job carries that is made here and now, and of which nothing else was told."""
        ...

    def around(self, job: JobContext) -> AbstractContextManager[Any]:
        """A middleware, the outermost one."""
        ...

    def flush(self) -> None:
        """This process is about to end, without the exit handlers of Python."""
        ...


outlet: Outlet | None = None
worker_id: str = ""
"""Of the worker whose child this process is."""
