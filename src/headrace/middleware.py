"""What runs around every job: context managers, outermost first.

A middleware is a generator function that takes the JobContext and yields once. What stands before the yield runs before
the job, what stands after it runs when the job has ended; an exception of the job is raised at the yield. It works the
same around `def` and `async def` tasks, and context variables that it sets are seen by the job.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeAlias, TypeVar, cast

from headrace.context import JobContext
from headrace.errors import UsageError

T = TypeVar("T")
Middleware: TypeAlias = Callable[[JobContext], AbstractContextManager[Any]]
MiddlewareFunction: TypeAlias = "Callable[[JobContext], Iterator[Any]] | Middleware"


def as_middleware(fn: Any) -> Middleware:
    """Take a generator function, or anything that gives a context manager for a JobContext."""
    if inspect.isasyncgenfunction(fn) or inspect.iscoroutinefunction(fn):
        raise UsageError(f"middleware {fn!r:.80}: write it as a plain generator; it goes around async tasks as well")
    if inspect.isgeneratorfunction(fn):
        return contextmanager(fn)
    if not callable(fn):
        raise UsageError(f"middleware: expected a generator function, got {fn!r:.80}")
    return cast(Middleware, fn)


def run_inside(layers: Sequence[Middleware], job: JobContext, call: Callable[[], T]) -> T:
    """Call `call` inside all layers."""
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer(job))
        return call()
    raise UsageError("a middleware swallowed the job's exception")


async def arun_inside(layers: Sequence[Middleware], job: JobContext, call: Callable[[], Awaitable[T]]) -> T:
    """Await `call()` inside all layers."""
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer(job))
        return await call()
    raise UsageError("a middleware swallowed the job's exception")
