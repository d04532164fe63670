"""A task: a function that can be enqueued, and what it declares for its jobs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, Unpack

import msgspec

from headrace import wire
from headrace.chain import previous
from headrace.core.batch import Batch
from headrace.core.filters import FIELD_CHARS_MAX, values_at
from headrace.core.names import main_module_name, type_name
from headrace.core.options import (
    STREAM_MAX_DEFAULT,
    TIMEOUT_DEFAULT_MS,
    Durability,
    EnqueueOptions,
    Plan,
    apply_options,
)
from headrace.core.record import JobOptions, RetrySpec
from headrace.errors import ArgumentsMismatch, UsageError
from headrace.job import Job, JobCall
from headrace.queue import Sender, checked_options

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


_MOVE_IT = "move it to the top level of a module, or give the task a name: @app.task(name=...)"


class Task(Generic[P, R]):
    """A registered function. Called, it is the function; `enqueue` runs it in a worker.

    Attributes:
        name: what the wire carries.
        plan: what its jobs are enqueued with, unless `options` says otherwise.
        is_generator, stream_max: what it yields goes to the job's stream, which keeps so many items.
        retry, timeout_ms, result_ttl_ms: what workers use where the job says nothing; 0 timeout: no limit.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        sender: Sender,
        *,
        queue: str,
        durability: Durability,
        result_ttl_ms: int,
        max_payload_bytes: int,
        checked: Mapping[str, Any],
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = name
        self.is_generator = inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)
        self.stream_max: int = checked.get("stream_max", STREAM_MAX_DEFAULT)
        self.retry: RetrySpec | None = checked.get("retry")
        self.timeout_ms: int = checked.get("timeout_ms", TIMEOUT_DEFAULT_MS)
        self.result_ttl_ms: int = checked.get("result_ttl_ms", result_ttl_ms)
        declared = {field: value for field, value in checked.items() if field not in _FOR_WORKERS}
        self.plan: Plan = apply_options(Plan(queue=queue, durability=durability), declared)
        self._signature: wire.Signature | None = None
        self._sender = sender
        self._max_payload_bytes = max_payload_bytes
        if self.plan.search:
            _see_arguments(self.name, fn, self.plan.search)

    def __repr__(self) -> str:
        return f"<Task {self.name} on {self.queue}>"

    @property
    def queue(self) -> str:
        return self.plan.queue

    @property
    def priority(self) -> int:
        return self.plan.priority

    @property
    def batch(self) -> Batch | None:
        """How its calls run together; None: each by itself."""
        return None

    @property
    def signature(self) -> wire.Signature:
        """Worked out at first use: annotations may name what the module defines further down."""
        if self._signature is None:
            self._signature = wire.Signature(self.fn)
        return self._signature

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        result: R = self.fn(*args, **kwargs)
        return result

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a job of this task; returns once the server has it.

        Raises:
            ArgumentsMismatch, PayloadNotSerializable, PayloadTooLarge: nothing was stored.
            ServerFull, ServerUnreachable, …
        """
        return self._sender.send(self.prepare(self.plan, args, kwargs))

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """As `enqueue`."""
        return await self._sender.asend(self.prepare(self.plan, args, kwargs))

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> JobCall[R]:
        """A checked call for `enqueue_many`, a chain or a flow.

        In a chain or a flow, results of other steps may stand among the arguments; a call that lacks just its first one takes
        there what the step before gives.
        """
        return self.prepare_call(self.plan, args, kwargs)

    def following(self) -> JobCall[R]:
        """The call that stands for this task on the right of `>>`: of the result before, if it takes an argument."""
        return self.prepare_call(self.plan, (previous,) if self.signature.max_args else (), {})

    def prepare_call(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobCall[R]:
        """As `prepare`, for a step of a flow."""
        if not any(isinstance(value, wire.Input) for value in (*args, *kwargs.values())):
            try:
                return self.prepare(plan, args, kwargs)
            except ArgumentsMismatch:
                if not self.signature.takes_one_more(args, kwargs):
                    raise
            args = (previous, *args)
        self.signature.check(args, kwargs)
        self.signature.check_types(args, kwargs)
        ties = plan.ties
        packed = b"" if ties is None else ties.of(self.name, self.signature.named(args, kwargs))
        return JobCall(self.name, b"", plan, self.signature.result_type, packed, self._sender, (args, kwargs))

    def options(self, **options: Unpack[EnqueueOptions]) -> BoundTask[P, R]:
        """This task with options for the jobs enqueued through what is returned; raises UsageError for a wrong one."""
        return BoundTask(self, apply_options(self.plan, checked_options(options)))

    def prepare(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobCall[R]:
        """Check the arguments and pack them."""
        signature = self._signature or self.signature
        if kwargs or not signature.min_args <= len(args) <= signature.max_args:
            signature.check(args, kwargs)
        try:
            payload = wire.pack((args, kwargs) if kwargs else (args,))
        except wire.PACK_ERRORS as error:
            raise wire.not_serializable(args, kwargs, signature.names, error) from None
        if len(payload) > self._max_payload_bytes:
            wire.check_size(payload, self._max_payload_bytes, args, kwargs, signature.names)
        if signature.converts:
            wire.decode_call(payload, self)  # what a worker could not read is refused here
        if plan.search:
            plan = with_fields(plan, payload, signature.names)
        ties = plan.ties
        if ties is None:
            return JobCall(self.name, payload, plan, signature.result_type, b"", self._sender)
        packed = ties.of(self.name, signature.named(args, kwargs))
        return JobCall(self.name, payload, plan, signature.result_type, packed, self._sender)

    @property
    def sender(self) -> Sender:
        return self._sender


_FOR_WORKERS = frozenset({"retry", "timeout_ms", "result_ttl_ms", "stream_max"})


class AsyncTask(Task[P, R]):
    """A task whose function is `async def`. A subclass for the type checker's sake: a plain call gives a coroutine."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        coroutine: Coroutine[Any, Any, R] = self.fn(*args, **kwargs)
        return coroutine


class BatchTask(Task[[T], R], Generic[T, R]):
    """A task whose function takes a list of items, while each of its jobs is a call with one of them."""

    def __init__(self, *args: Any, batch: Batch, **options: Any) -> None:
        super().__init__(*args, **options)
        self._batch = batch

    @property
    def batch(self) -> Batch:
        return self._batch

    @property
    def signature(self) -> wire.Signature:
        """Of one call."""
        if self._signature is None:
            self._signature = wire.Signature(self.fn, is_batch=True)
        return self._signature

    def __call__(self, items: list[T], /) -> Any:  # type: ignore[override]
        """Run the function on these items, here and now."""
        return self.fn(items)

    def prepare(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobCall[R]:
        if plan.timeout_ms is not None:
            raise UsageError(f"timeout: {self.name} runs many calls at once, so only the task itself can have one")
        return super().prepare(plan, args, kwargs)


class BoundTask(Generic[P, R]):
    """A task with options for the jobs to come."""

    __slots__ = ("plan", "task")

    def __init__(self, task: Task[P, R], plan: Plan) -> None:
        self.task = task
        self.plan = plan

    def __repr__(self) -> str:
        return f"<BoundTask {self.task.name} on {self.plan.queue}>"

    def options(self, **options: Unpack[EnqueueOptions]) -> BoundTask[P, R]:
        """The same with more options; the later one counts."""
        return BoundTask(self.task, apply_options(self.plan, checked_options(options)))

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """As `Task.enqueue`; raises JobExists too, when a chosen `job_id` is taken."""
        return self.task.sender.send(self.task.prepare(self.plan, args, kwargs))

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """As `enqueue`."""
        return await self.task.sender.asend(self.task.prepare(self.plan, args, kwargs))

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> JobCall[R]:
        """As `Task.call`."""
        return self.task.prepare_call(self.plan, args, kwargs)

    def following(self) -> JobCall[R]:
        """As `Task.following`."""
        return self.task.prepare_call(self.plan, (previous,) if self.task.signature.max_args else (), {})


def with_fields(plan: Plan, payload: bytes, names: Sequence[str]) -> Plan:
    """The plan of one job, with what its task says that jobs are looked up by."""
    call = wire.decode_call(payload, None)
    found = {path: values_at(path, call, names)[:1] for path in plan.search}
    fields = {path: texts[0][:FIELD_CHARS_MAX] for path, texts in found.items() if texts}
    return msgspec.structs.replace(plan, job=msgspec.structs.replace(plan.job or JobOptions(), fields=fields))


def _see_arguments(name: str, fn: Callable[..., Any], paths: Sequence[str]) -> None:
    """Raises UsageError for a path that begins with no argument of the function."""
    parameters = inspect.signature(fn).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for path in paths:
        if path.partition(".")[0] not in parameters:
            raise UsageError(
                f"search: {name} has no argument {path.partition('.')[0]!r}; it has {', '.join(parameters)}"
            )


def task_name(fn: object) -> str:
    """`module.function`: the name under which a worker that imports the same module registers it.

    Raises:
        UsageError: it is no function of a module's top level; says what to do.
    """
    check_function(fn)
    module, qualname = str(getattr(fn, "__module__", None)), str(getattr(fn, "__qualname__", ""))
    if "<lambda>" in qualname:
        raise UsageError(f"a lambda in {module} cannot be a task: write it as a function with `def`; {_MOVE_IT}")
    if "<locals>" in qualname:
        raise UsageError(f"{module}.{qualname} is nested in a function, so no worker finds it: {_MOVE_IT}")
    if "." in qualname:
        raise UsageError(f"{module}.{qualname} belongs to a class: {_MOVE_IT}")
    if module == "__main__":
        real = main_module_name()
        if real is None:
            raise UsageError(
                f"{qualname} is defined in an interactive session, where no worker can import it: put it into a file, "
                "or give the task a name: @app.task(name=...)"
            )
        module = real
    return f"{module}.{qualname}"


def check_batch_function(fn: Callable[..., Any]) -> None:
    """See that it can be called with one list.

    Raises:
        UsageError
    """
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise UsageError(
            f"{fn.__qualname__} is a generator, and a batch task: it returns one answer for each item instead"
        )
    try:
        inspect.signature(fn).bind([])
    except TypeError as error:
        raise UsageError(f"{fn.__qualname__}, a batch task, is called with one list of items: {error}") from None


def check_function(fn: object) -> None:
    """See that it is a plain function, `def` or `async def`; it may be a generator.

    Raises:
        UsageError: naming what it is instead, and what to do.
    """
    if inspect.isfunction(fn):
        return
    if inspect.ismethod(fn):
        raise UsageError(
            f"{fn.__qualname__} is a method bound to an object, which cannot be stored: enqueue a function of a "
            "module's top level and pass it what it needs"
        )
    if isinstance(fn, functools.partial):
        raise UsageError("a functools.partial cannot be a task: enqueue the function itself with all its arguments")
    kind = "a built-in function" if inspect.isbuiltin(fn) else f"a {type_name(type(fn))}"
    raise UsageError(f"{kind} cannot be a task: wrap it in a function (`def`) at the top level of a module")
