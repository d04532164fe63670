"""One queue as a place to enqueue to: whose options go on top of what each task declares."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from headrace.core.batch import Batch
from headrace.core.options import EnqueueOptions, check_enqueue_options
from headrace.engine.keys import check_job_id, check_queue_name
from headrace.job import Job, JobCall

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class TakesItems(Protocol[T_contra, R_co]):
    """A batch task, for type checkers: its function takes a list, a call of it one item."""

    @property
    def batch(self) -> Batch: ...

    def call(self, item: T_contra, /) -> JobCall[R_co]: ...


class Sender(Protocol):
    """What a queue needs of its app, or of an outbox: to find the task a target stands for, and to send the job."""

    def prepare(self, target: object, checked: Mapping[str, Any], args: Any, kwargs: Any) -> JobCall[Any]: ...

    def send(self, call: JobCall[Any]) -> Job[Any]: ...

    async def asend(self, call: JobCall[Any]) -> Job[Any]: ...


class Queue:
    """Enqueues functions, tasks or names with its options; `name` None: on each task's own queue."""

    __slots__ = ("_checked", "_sender", "name")

    def __init__(self, sender: Sender, name: str | None, checked: Mapping[str, Any]) -> None:
        self._sender = sender
        self.name = name
        self._checked = checked

    def __repr__(self) -> str:
        return f"<Queue {self.name or '(of the task)'}>"

    def options(self, **options: Unpack[EnqueueOptions]) -> Queue:
        """The same with more options; raises UsageError for a wrong one."""
        checked = {**self._checked, **checked_options(options)}
        return Queue(self._sender, checked.get("queue"), checked)

    @overload
    def enqueue(self, target: TakesItems[T, R], item: T, /) -> Job[R]: ...
    @overload
    def enqueue(self, target: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue(self, target: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue(self, target: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...
    def enqueue(self, target: object, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Enqueue a call of a task, a function, or a task's name."""
        return self._sender.send(self._sender.prepare(target, self._checked, args, kwargs))

    @overload
    async def aenqueue(self, target: TakesItems[T, R], item: T, /) -> Job[R]: ...
    @overload
    async def aenqueue(
        self, target: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    @overload
    async def aenqueue(self, target: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    async def aenqueue(self, target: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...
    async def aenqueue(self, target: object, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As `enqueue`."""
        return await self._sender.asend(self._sender.prepare(target, self._checked, args, kwargs))

    @overload
    def call(self, target: TakesItems[T, R], item: T, /) -> JobCall[R]: ...
    @overload
    def call(self, target: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> JobCall[R]: ...
    @overload
    def call(self, target: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobCall[R]: ...
    @overload
    def call(self, target: str, /, *args: Any, **kwargs: Any) -> JobCall[Any]: ...
    def call(self, target: object, /, *args: Any, **kwargs: Any) -> JobCall[Any]:
        """A call for `enqueue_many`."""
        return self._sender.prepare(target, self._checked, args, kwargs)


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `.options(...)`, checked, as fields of a Plan; raises UsageError naming the wrong one."""
    checked = check_enqueue_options(options, time.time_ns() // 1_000_000)
    if "queue" in checked:
        check_queue_name(checked["queue"])
    if "job_id" in checked:
        check_job_id(checked["job_id"])
    return checked
