"""The app: where tasks are registered, and through which everything is enqueued and found."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload

import msgspec

from headrace import telemetry, wire
from headrace.chain import Flow, previous
from headrace.context import get_current
from headrace.core.batch import Batch
from headrace.core.names import main_module_name
from headrace.core.options import (
    Durability,
    EnqueueOptions,
    Plan,
    TaskOptions,
    apply_options,
    check_durability,
    check_task_options,
)
from headrace.core.record import LAYOUT, JobOptions, Record, State, Stored, encode, new_job_id
from headrace.core.retry import duration_ms
from headrace.engine import ops
from headrace.engine.call import Steps, command
from headrace.engine.clients import AsyncClient, ServerConfig, SyncClient, masked_url
from headrace.engine.keys import check_job_id, check_queue_name, queue_keys, queues_key
from headrace.errors import (
    ArgumentsMismatch,
    JobNotFound,
    TaskNotRegistered,
    UsageError,
)
from headrace.events import Event, EventName, Events, Handler
from headrace.job import Job, JobCall, job_of, take_existing
from headrace.middleware import Middleware, MiddlewareFunction, as_middleware
from headrace.queue import Queue, TakesItems, checked_options
from headrace.sending import announce, store_many
from headrace.task import AsyncTask, BatchTask, Task, check_batch_function, check_function, task_name

if TYPE_CHECKING:  # what most programs do not use is imported when it is: see ADR 16
    from headrace.core.schedule import DeclareOptions
    from headrace.engine.schedules import Declared
    from headrace.flow import FlowRun, Flows
    from headrace.limits import Limits
    from headrace.schedules import Schedules

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
TaskT = TypeVar("TaskT", bound=Task[..., Any])
HookT = TypeVar("HookT", bound="Callable[[], Any]")
HandlerT = TypeVar("HandlerT", bound=Handler)
MiddlewareT = TypeVar("MiddlewareT", bound="MiddlewareFunction")

logger = logging.getLogger("headrace")

URL_DEFAULT = "redis://localhost:6379/0"
SIGNAL_TASK = "headrace.signal"


class TaskDecorator(Protocol):
    """What `@app.task(...)` with options gives."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...


class BatchDecorator(Protocol):
    """What `@app.task(batch=...)` gives. The function answers None, or for each item its result or an exception."""

    @overload
    def __call__(self, fn: Callable[[list[T]], Coroutine[Any, Any, None]], /) -> BatchTask[T, None]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], Coroutine[Any, Any, Sequence[R | Exception]]], /) -> BatchTask[T, R]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], None], /) -> BatchTask[T, None]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], Sequence[R | Exception]], /) -> BatchTask[T, R]: ...


class ScheduleDecorator(Protocol):
    """What `@app.cron(...)` and `@app.every(...)` give: for a function, or for a task that is one already."""

    @overload
    def __call__(self, target: TaskT, /) -> TaskT: ...
    @overload
    def __call__(self, target: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, target: Callable[P, R], /) -> Task[P, R]: ...


class _Declaration(NamedTuple):
    """A schedule that code declares; the arguments are packed when a worker starts."""

    task: Task[..., Any]
    plan: Plan
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    fields: dict[str, Any]


class Headrace:
    """A job queue on one server: registers tasks, enqueues jobs, finds them again. Nothing is sent before it must be.

    Duties: 1. the registry of tasks, and which plain functions may be enqueued; 2. to turn a target and options into a
    stored job; 3. to own the two clients; 4. to hold what workers call: hooks, middleware, event handlers. (It has more
    methods than other classes here, since it is what users hold, and each way to enqueue has its async twin.)

    Args:
        url: of the server. Default: $HEADRACE_URL, else the running `headrace dev`, else redis://localhost:6379/0.
        prefix: of every key. Producers and workers must agree on it.
        default_queue: of tasks that name none.
        queues: what a worker serves that is told nothing else, in order; default: those that tasks name.
        allow: modules whose plain functions may be enqueued, with what is below them: ["myapp.jobs"].
        max_payload_bytes: the largest arguments of a job.
        result_ttl: how long results are kept where the task says nothing; seconds or a timedelta; 0: not at all.
        durability: where a job must be before `enqueue` returns, where the task says nothing: in the server's "memory",
            "replicated" to one replica, or on its disk ("fsync").
        durability_timeout: how long to wait for that before NotDurable is raised; seconds or a timedelta.
        retry_for: how long a call is repeated while the server is away or busy, before ServerUnreachable or ServerBusy is
            raised; seconds or a timedelta; 0: it is sent once. (A try may itself wait 5 s for its reply.)
        name: for people, in what workers print.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str = "hr",
        default_queue: str = "default",
        queues: Sequence[str] | None = None,
        allow: Sequence[str] = (),
        max_payload_bytes: int = 1 << 20,
        result_ttl: float | timedelta = 3600,
        durability: Durability = "memory",
        durability_timeout: float | timedelta = 2,
        retry_for: float | timedelta = 15,
        name: str = "",
    ) -> None:
        if isinstance(allow, str) or isinstance(queues, str):
            raise UsageError("allow and queues: expected a list of names, got one text")
        self._url = url
        self._prefix = check_queue_name(prefix)
        self._queues = None if queues is None else [check_queue_name(queue) for queue in queues]
        self.name = name
        self.allow = tuple(allow)
        self.default_queue = check_queue_name(default_queue)
        self.max_payload_bytes = _positive("max_payload_bytes", max_payload_bytes)
        self.result_ttl_ms = duration_ms("result_ttl", result_ttl)
        self.durability: Durability = check_durability(durability)
        self._durability_timeout_ms = duration_ms("durability_timeout", durability_timeout)
        if not 0 < self._durability_timeout_ms <= 60_000:
            raise UsageError("durability_timeout: expected more than 0 s, and at most 60 s")
        self._retry_for_s = duration_ms("retry_for", retry_for) / 1000
        self.tasks: dict[str, Task[..., Any]] = {}
        self.start_hooks: list[Callable[[], Any]] = []
        self.stop_hooks: list[Callable[[], Any]] = []
        self.middlewares: list[Middleware] = []
        self.events = Events()
        self._declared: dict[str, _Declaration] = {}
        self._plain: dict[Callable[..., Any], Task[..., Any]] = {}
        self._signal_task = self._make_task(_pass_on, SIGNAL_TASK, {})
        self.announced: set[str] = set()
        self._lock = threading.Lock()
        self._config: ServerConfig | None = None
        self._client: SyncClient | None = None
        self._aclient: AsyncClient | None = None
        self._is_closed = False
        if url is not None:
            self._client = SyncClient(self.server_config)  # a wrong URL fails here, not at the first job

    def __repr__(self) -> str:
        return f"<Headrace {self.name or self._prefix} {masked_url(self.server_config.url)} {len(self.tasks)} tasks>"

    # The server

    @property
    def prefix(self) -> str:
        return self._prefix

    @property
    def server_config(self) -> ServerConfig:
        """Where the server is; worked out at first use."""
        if self._config is None:
            self._config = ServerConfig(
                self._url or find_url(),
                prefix=self._prefix,
                max_payload_bytes=self.max_payload_bytes,
                durability_timeout_ms=self._durability_timeout_ms,
                retry_budget_s=self._retry_for_s,
            )
        return self._config

    @property
    def client(self) -> SyncClient:
        if self._client is None:
            self._see_open()
            with self._lock:
                self._client = self._client or SyncClient(self.server_config)
        return self._client

    @property
    def aclient(self) -> AsyncClient:
        if self._aclient is None:
            self._see_open()
            with self._lock:
                self._aclient = self._aclient or AsyncClient(self.server_config)
        return self._aclient

    def _see_open(self) -> None:
        if self._is_closed:
            raise UsageError("this Headrace is closed: make a new one")

    def close(self) -> None:
        """Close the connections of sync calls; the app can then no longer be used."""
        self._is_closed = True
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close all connections."""
        self.close()
        aclient, self._aclient = self._aclient, None
        if aclient is not None:
            await aclient.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # Tasks

    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, /, *, batch: Batch, **options: Unpack[TaskOptions]) -> BatchDecorator: ...
    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> TaskDecorator: ...
    def task(
        self, fn: Callable[..., Any] | None = None, /, *, batch: Batch | None = None, **options: Unpack[TaskOptions]
    ) -> Any:
        """Register a function: `@app.task`, or `@app.task(queue="high", retry=Retry(5), timeout=30)`.

        With `batch=Batch(...)` the function takes a list, and each job is a call with one item of such a list.

        Raises:
            UsageError: a wrong option; no plain function of a module's top level; another one has the name.
        """
        given: dict[str, Any] = dict(options)
        name = given.pop("name", None)
        if name is not None and (not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable()):
            raise UsageError(f"name: expected a text of 1 to 200 characters, got {name!r:.60}")
        checked = check_task_options(given)
        if "queue" in checked:
            check_queue_name(checked["queue"])

        if batch is not None and not isinstance(batch, Batch):
            raise UsageError(f"batch: expected a Batch, got {batch!r:.40}")

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            return self._register(function, name, checked, batch)

        return register if fn is None else register(fn)

    def _register(
        self, fn: Callable[..., Any], name: str | None, checked: Mapping[str, Any], batch: Batch | None
    ) -> Task[..., Any]:
        if isinstance(fn, Task):
            raise UsageError(f"{fn.name} is a task already")
        check_function(fn)
        task = self._make_task(fn, name or task_name(fn), checked, batch)
        other = self.tasks.get(task.name)
        if other is not None and not _is_same_definition(other.fn, fn):
            raise UsageError(
                f"two functions have the task name {task.name!r} ({_place(other.fn)} and {_place(fn)}): rename one, or "
                "give it a name: @app.task(name=...)"
            )
        self._see_limits(task)
        self.tasks[task.name] = self._plain[fn] = task
        return task

    def _see_limits(self, task: Task[..., Any]) -> None:
        """One limit of a queue is the same wherever it is declared; raises UsageError."""
        mine = {limit.name: (limit.rate, limit.concurrency, limit.burst) for limit in task.plan.limits}
        for other in self.tasks.values() if mine else ():
            for limit in other.plan.limits if other.queue == task.queue and other.name != task.name else ():
                numbers = (limit.rate, limit.concurrency, limit.burst)
                if mine.get(limit.name, numbers) != numbers:
                    raise UsageError(
                        f"the limit {limit.name!r} of queue {task.queue!r} has other numbers in {task.name} than in "
                        f"{other.name}: declare it once, and give both tasks the same Limit"
                    )

    def _make_task(
        self, fn: Callable[..., Any], name: str, checked: Mapping[str, Any], batch: Batch | None = None
    ) -> Task[..., Any]:
        kind: Callable[..., Task[..., Any]] = AsyncTask if inspect.iscoroutinefunction(fn) else Task
        if batch is not None:
            check_batch_function(fn)
            kind = partial(BatchTask, batch=batch)
        return kind(
            fn,
            name,
            self,
            queue=self.default_queue,
            durability=self.durability,
            result_ttl_ms=self.result_ttl_ms,
            max_payload_bytes=self.max_payload_bytes,
            checked=checked,
        )

    @cached_property
    def limits(self) -> Limits:
        """The limits of rate and concurrency, to be looked at and changed."""
        from headrace.limits import Limits

        return Limits(self)

    @cached_property
    def flows(self) -> Flows:
        """The flows that are kept."""
        from headrace.flow import Flows

        return Flows(self)

    # Schedules

    @cached_property
    def schedules(self) -> Schedules:
        """The schedules, to be looked at, added and changed."""
        from headrace.schedules import Schedules

        return Schedules(self)

    def cron(self, expr: str, /, **options: Unpack[DeclareOptions]) -> ScheduleDecorator:
        """Run a task by the clock: `@app.cron("*/5 * * * *", tz="Asia/Ho_Chi_Minh")`. `app.schedules` shows and changes it.

        Workers that start with this code tell the server; any worker of the queue makes the jobs.

        Raises:
            UsageError: the expression, the zone or an option is wrong; two schedules have one name.
        """
        return self._schedule({"cron": expr}, "@app.cron()", options)

    def every(self, interval: float | timedelta, /, **options: Unpack[DeclareOptions]) -> ScheduleDecorator:
        """Run a task every so many seconds, counted from `start` (default: 1970, UTC): `@app.every(30)`. As `cron`."""
        return self._schedule({"every": interval}, "@app.every()", options)

    def _schedule(self, when: Mapping[str, Any], where: str, options: Mapping[str, Any]) -> ScheduleDecorator:
        given = dict(options)
        name, args, kwargs = given.pop("name", None), given.pop("args", ()), given.pop("kwargs", {})
        if isinstance(args, str) or not isinstance(args, Sequence) or not isinstance(kwargs, Mapping):
            raise UsageError(f"{where}: args is a list of the arguments, kwargs a dict")
        from headrace.core.schedule import OPTIONS, check_schedule, new_spec

        times = {option: given.pop(option) for option in OPTIONS if option in given}
        fields = check_schedule({**when, **times}, where)
        new_spec(fields)
        checked = check_task_options(given)
        if "queue" in checked:
            check_queue_name(checked["queue"])

        def register(target: Callable[..., Any]) -> Task[..., Any]:
            task = target if isinstance(target, Task) else self._register(target, None, checked, None)
            plan = apply_options(task.plan, checked) if isinstance(target, Task) else task.plan
            self._declare(name, _Declaration(task, plan, tuple(args), dict(kwargs), fields))
            return task

        return cast("ScheduleDecorator", register)

    def _declare(self, given_name: str | None, declared: _Declaration) -> None:
        task = declared.task
        try:
            from headrace.core.schedule import check_schedule_name

            name = check_schedule_name(task.name if given_name is None else given_name)
        except UsageError as error:
            raise UsageError(f"{error}; give it another: name=...") from None
        try:
            inspect.signature(task.fn).bind(*declared.args, **declared.kwargs)
        except TypeError as error:
            raise ArgumentsMismatch(
                f"schedule {name}: {task.name}: {error}; give args=[...] or kwargs={{...}}"
            ) from None
        other = self._declared.get(name)
        if other is not None and (
            not _is_same_definition(other.task.fn, task.fn) or other._replace(task=task) != declared
        ):
            raise UsageError(f"two schedules have the name {name!r}: give one of them another, name=...")
        self._declared[name] = declared

    def declared_schedules(self) -> list[Declared]:
        """What `cron` and `every` have declared, for the worker that tells the server.

        Raises:
            PayloadNotSerializable, …: the arguments of one cannot be stored.
        """
        from headrace.engine.schedules import Declared
        from headrace.schedules import spec_of

        return [
            Declared(name, each.plan.queue, spec_of(each.task.prepare(each.plan, each.args, each.kwargs), each.fields))
            for name, each in self._declared.items()
        ]

    @property
    def queues(self) -> list[str]:
        """What a worker serves that is told nothing else: as declared, else the default queue and the tasks' own."""
        if self._queues is not None:
            return list(self._queues)
        return list(
            dict.fromkeys(
                [
                    self.default_queue,
                    *(task.queue for task in self.tasks.values()),
                    *(declared.plan.queue for declared in self._declared.values()),
                ]
            )
        )

    def declared_limits(self) -> dict[str, set[str]]:
        """The names of the limits that tasks declare, each with the queues of those tasks."""
        found: dict[str, set[str]] = {}
        for task in self.tasks.values():
            for limit in task.plan.limits:
                found.setdefault(limit.name, set()).add(task.queue)
        return found

    def find_task(self, name: str) -> Task[..., Any] | None:
        """The task of that name for a worker: a registered one, or a plain function of an allowed module.

        Only an allowed module is ever imported. None: this program does not know it.
        """
        return self.tasks.get(name) or (self._signal_task if name == SIGNAL_TASK else self._find_plain(name))

    def _find_plain(self, name: str) -> Task[..., Any] | None:
        module_name, _, function_name = name.rpartition(".")
        if not function_name.isidentifier() or not self._is_allowed(module_name):
            return None
        real = "__main__" if module_name == main_module_name() else module_name
        try:
            fn = getattr(importlib.import_module(real), function_name, None)
        except ImportError as error:
            logger.warning("the task %s is unknown: its module cannot be imported: %s", name, error)
            return None
        # What the module itself imported from elsewhere is not its own to give.
        if not inspect.isfunction(fn) or fn.__module__ != real:
            return fn if isinstance(fn, Task) and fn.name == name else None
        return self._plain.get(fn) or self._plain.setdefault(fn, self._make_task(fn, name, {}))

    def _is_allowed(self, module: str) -> bool:
        return any(module == allowed or module.startswith(allowed + ".") for allowed in self.allow)

    def result_type(self, task: str) -> Any:
        """The return annotation of a task this program knows, else Any."""
        known = self.tasks.get(task)
        return Any if known is None else known.signature.result_type

    # Enqueueing

    def options(self, **options: Unpack[EnqueueOptions]) -> Queue:
        """Options for what is enqueued through the result: `app.options(delay=60).enqueue(fn, 1)`."""
        checked = checked_options(options)
        return Queue(self, checked.get("queue"), checked)

    def queue(self, name: str) -> Queue:
        """A queue to enqueue to: `app.queue("low").enqueue(fn, 1)`."""
        return Queue(self, check_queue_name(name), {"queue": name})

    def outbox(self, connection: Any) -> Queue:
        """Enqueue in the transaction that is open on a connection: `app.outbox(connection).enqueue(task, 1)`.

        The job is a row of the table `headrace_outbox` until `headrace outbox relay` has brought it to the server. It
        exists if the transaction is committed, and else it never was. Until the relay has been there, its handle finds
        nothing (JobNotFound).

        Args:
            connection: of psycopg 3 or sqlite3, a Session or Connection of SQLAlchemy 2, or the alias of a Django
                database ("default"); with `aenqueue`, an async one of psycopg or SQLAlchemy.

        Raises (by what is called on it):
            UsageError: the connection commits each statement by itself, or is of no supported kind.
            JobExists: the chosen job_id waits in the outbox already.
        """
        from headrace.outbox import Outbox

        return Queue(Outbox(self, connection), None, {})

    @overload
    def enqueue(self, target: TakesItems[T, R], item: T, /) -> Job[R]: ...
    @overload
    def enqueue(self, target: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue(self, target: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue(self, target: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...
    def enqueue(self, target: object, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Enqueue a call of a task, of a function of an allowed module, or of the task that has this name elsewhere.

        Raises:
            TaskNotRegistered: the function is neither a task nor of an allowed module.
            ArgumentsMismatch, PayloadNotSerializable, PayloadTooLarge, ServerFull, ServerUnreachable, …
        """
        return self.send(self.prepare(target, {}, args, kwargs))

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
        return await self.asend(self.prepare(target, {}, args, kwargs))

    def enqueue_many(self, calls: Iterable[JobCall[R]]) -> list[Job[R]]:
        """Enqueue calls made by `task.call(...)`: one round trip a thousand jobs (or 4 MiB) of a queue.

        Each part is stored whole or not at all. When a later part fails, a note on the error tells how many jobs are
        stored; so it does when a part is NotDurable, and that part is among them.

        Returns:
            The jobs, in the order of the calls.
        """
        if telemetry.outlet is None:
            return self.client.run(store_many(self, calls))
        with telemetry.outlet.enqueue_many(self, list(calls)) as traced:
            return self.client.run(store_many(self, traced))

    async def aenqueue_many(self, calls: Iterable[JobCall[R]]) -> list[Job[R]]:
        """As `enqueue_many`."""
        if telemetry.outlet is None:
            return await self.aclient.run(store_many(self, calls))
        with telemetry.outlet.enqueue_many(self, list(calls)) as traced:
            return await self.aclient.run(store_many(self, traced))

    def prepare(
        self, target: object, checked: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> JobCall[Any]:
        """A target and checked options as a call; the step before `send`."""
        if isinstance(target, str):
            task = self.tasks.get(target)
            if task is None:
                return self._prepare_by_name(target, checked, args, kwargs)
        else:
            task = target if isinstance(target, Task) else self._task_of(target)
        return task.prepare(apply_options(task.plan, checked), args, kwargs)

    def _prepare_by_name(
        self, name: str, checked: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> JobCall[Any]:
        if not 0 < len(name) <= 200 or not name.isprintable():
            raise UsageError(f"{name!r:.80} is no task name: expected 1 to 200 printable characters")
        payload = wire.encode_call(args, kwargs)
        if len(payload) > self.max_payload_bytes:
            wire.check_size(payload, self.max_payload_bytes, args, kwargs)
        plan = apply_options(Plan(queue=self.default_queue, durability=self.durability), checked)
        ties = plan.ties
        named = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
        return JobCall(name, payload, plan, Any, b"" if ties is None else ties.of(name, named))

    def _task_of(self, target: object) -> Task[..., Any]:
        known = self._plain.get(target) if inspect.isfunction(target) else None
        if known is not None:
            return known
        try:
            name = task_name(target)
        except UsageError as error:
            raise TaskNotRegistered(str(error)) from None
        module = name.rpartition(".")[0]
        if not self._is_allowed(module) or not inspect.isfunction(target):
            raise TaskNotRegistered(
                f"{name} is not registered: decorate it with @app.task, or allow the plain functions of its module "
                f"with Headrace(allow=[{module!r}]) in this program and in the worker's"
            )
        return self._plain.setdefault(target, self._make_task(target, name, {}))

    def send(self, call: JobCall[R]) -> Job[R]:
        """Store one call; returns once the server has it, as durably as the call wants."""
        if telemetry.outlet is not None and call.headers is None:
            with telemetry.outlet.enqueue(self, call) as sending:
                traced: Job[R] = sending.stored(self.send(sending.call))
                return traced
        new, job = self.new_job(call)
        queue = call.plan.queue
        if queue not in self.announced:
            self.client.run(announce(self, queue))
        if call.plan.depends_on:
            from headrace.flow_jobs import store_dependent

            return self.client.run(store_dependent(self, new, job, call.plan))
        same = (self._client or self.client).enqueue(queue, (new,), call.plan.durability)
        if same:
            return take_existing(job, same)
        if self.events.hears_enqueued:
            self.tell_enqueued([job])
        return job

    async def asend(self, call: JobCall[R]) -> Job[R]:
        """As `send`."""
        if telemetry.outlet is not None and call.headers is None:
            with telemetry.outlet.enqueue(self, call) as sending:
                traced: Job[R] = sending.stored(await self.asend(sending.call))
                return traced
        new, job = self.new_job(call)
        queue = call.plan.queue
        if queue not in self.announced:
            await self.aclient.run(announce(self, queue))
        if call.plan.depends_on:
            from headrace.flow_jobs import store_dependent

            return await self.aclient.run(store_dependent(self, new, job, call.plan))
        same = await self.aclient.enqueue(queue, (new,), call.plan.durability)
        if same and job.id in same:
            return take_existing(job, same)
        if self.events.hears_enqueued:
            self.tell_enqueued([job])
        return job

    # Flows

    def flow(self, name: str = "") -> Flow:
        """A new, empty flow: a graph of jobs."""
        return Flow(self, name)

    def signal_call(self) -> JobCall[Any]:
        """The call that stands for a signal in a flow: it gives what it is given."""
        return self._signal_task.call(previous)

    def send_flow(self, flow: Flow) -> FlowRun[Any]:
        """Store all jobs of a flow; use `flow.enqueue()`."""
        from headrace.flow import store_flow

        if telemetry.outlet is None:
            return self.client.run(store_flow(self, flow))
        with telemetry.outlet.enqueue_flow(self, flow.name):
            return self.client.run(store_flow(self, flow))

    async def asend_flow(self, flow: Flow) -> FlowRun[Any]:
        """As `send_flow`."""
        from headrace.flow import store_flow

        if telemetry.outlet is None:
            return await self.aclient.run(store_flow(self, flow))
        with telemetry.outlet.enqueue_flow(self, flow.name):
            return await self.aclient.run(store_flow(self, flow))

    def new_job(self, call: JobCall[R]) -> tuple[ops.NewJob, Job[R]]:
        """A call as what is stored, and the handle of it; nothing is sent."""
        plan = call.plan
        if call.template is not None:
            raise ArgumentsMismatch(f"{call.task} waits for the result of another job: enqueue it in a chain or a flow")
        if plan.depends_on:
            from headrace.engine import flows

            call = msgspec.structs.replace(
                call,
                ties=flows.dependent_ties(call.ties, plan.depends_on, plan.delay_ms, flows.when_of(plan.or_failed)),
            )
        now_ms = time.time_ns() // 1_000_000
        expires_at_ms = now_ms + plan.expires_in_ms if plan.expires_in_ms else plan.expires_at_ms
        expires_in_ms = plan.expires_in_ms
        options = plan.job
        deadline_ms = now_ms + plan.deadline_in_ms if plan.deadline_in_ms else plan.deadline_at_ms
        running = get_current()
        inherited_ms = running.deadline_ms if running is not None else 0
        if inherited_ms and (not deadline_ms or inherited_ms < deadline_ms):
            deadline_ms = inherited_ms
        if deadline_ms and (not expires_at_ms or deadline_ms < expires_at_ms):
            expires_at_ms, expires_in_ms = deadline_ms, 0
        headers = call.headers
        if headers is None and telemetry.outlet is not None:
            headers = dict(telemetry.outlet.headers())
        starts_at_ms = now_ms + plan.delay_ms if plan.delay_ms else plan.at_ms
        if call.ties or deadline_ms or headers or starts_at_ms:
            options = msgspec.structs.replace(
                options or JobOptions(), ties=call.ties or None, deadline_ms=deadline_ms, headers=headers or {},
                starts_at_ms=starts_at_ms,
            )  # fmt: skip
        record = Record(
            LAYOUT, Stored.LIVE, expires_at_ms, plan.priority, call.task, msgspec.Raw(call.payload), now_ms, options
        )
        job_id = plan.job_id or new_job_id()
        new = ops.NewJob(
            job_id,
            encode(record),
            plan.priority,
            plan.at_front,
            plan.delay_ms,
            plan.at_ms,
            plan.job_id is not None,
            expires_in_ms,
            call.ties,
            plan.unique.on_conflict if plan.unique is not None else "",
        )
        state = State.SCHEDULED if plan.delay_ms or plan.at_ms > now_ms else State.QUEUED
        return new, Job(job_id, plan.queue, self, record, state, call.result_type)

    def tell_enqueued(self, jobs: Sequence[Job[Any]]) -> None:
        """Tell those who listen for `job.enqueued`."""
        if self.events.hears_enqueued:
            now_ms = time.time_ns() // 1_000_000
            for job in jobs:
                if job.is_new:
                    self.events.emit(Event(EventName.JOB_ENQUEUED, now_ms, job.id, job.queue, job.task))

    # Finding jobs

    def job(self, job_id: str, queue: str | None = None) -> Job[Any]:
        """The job of that id, looked for in all queues unless one is given; raises JobNotFound."""
        found, look = self.client.run(_find_job(self._prefix, check_job_id(job_id), queue))
        return job_of(job_id, found, self, look)

    async def ajob(self, job_id: str, queue: str | None = None) -> Job[Any]:
        """As `job`."""
        found, look = await self.aclient.run(_find_job(self._prefix, check_job_id(job_id), queue))
        return job_of(job_id, found, self, look)

    # What workers call

    def on_start(self, fn: HookT) -> HookT:
        """Run `fn` (sync or async) in each child of a worker before its first job."""
        self.start_hooks.append(fn)
        return fn

    def on_stop(self, fn: HookT) -> HookT:
        """Run `fn` (sync or async) in each child of a worker after its last job."""
        self.stop_hooks.append(fn)
        return fn

    def middleware(self, fn: MiddlewareT) -> MiddlewareT:
        """Run every job inside `fn`: a generator function that takes the JobContext and yields once."""
        self.middlewares.append(as_middleware(fn))
        return fn

    @overload
    def on(self, event: str) -> Callable[[HandlerT], HandlerT]: ...
    @overload
    def on(self, event: str, fn: HandlerT) -> HandlerT: ...
    def on(self, event: str, fn: Any = None) -> Any:
        """Call `fn` with each Event of that name: `@app.on("job.failed")`; "*" for all."""
        if fn is not None:
            self.events.add(event, fn)
            return fn

        def add(handler: Any) -> Any:
            self.events.add(event, handler)
            return handler

        return add


def _pass_on(value: Any) -> Any:
    """What a signal's step runs."""
    return value


def _find_job(prefix: str, job_id: str, queue: str | None) -> Steps[tuple[str, ops.Look]]:
    if queue is not None:
        names = [check_queue_name(queue)]
    else:
        key = queues_key(prefix)
        names = yield command("SMEMBERS", key, key=key, decode=_sorted_texts)
    for name in names:
        look: ops.Look | None = yield from ops.look(queue_keys(name, prefix), job_id)
        if look is not None:
            return name, look
    where = f"queue {queue!r}" if queue else f"any queue under the prefix {prefix!r}"
    raise JobNotFound(f"no job {job_id} in {where}: it never was, was deleted, or is no longer kept")


def _sorted_texts(reply: Iterable[bytes]) -> list[str]:
    return sorted(item.decode() for item in reply)


def find_url() -> str:
    """$HEADRACE_URL, else that of a running `headrace dev` of this folder or one above, else the default."""
    return os.environ.get("HEADRACE_URL") or _dev_url(Path.cwd()) or URL_DEFAULT


def _dev_url(folder: Path) -> str | None:
    for place in (folder, *folder.parents):
        try:
            told = json.loads((place / ".headrace" / "dev.json").read_bytes())
            url, pid = told["url"], told["pid"]
            os.kill(pid, 0)
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            continue  # none there, or its server has gone
        return str(url)
    return None


def _positive(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name}: expected a number of 1 or more, got {value!r:.40}")
    return value


def _is_same_definition(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether two functions come from the same lines: a module that was loaded again."""
    return _place(one) == _place(other)


def _place(fn: Callable[..., Any]) -> str:
    code = inspect.unwrap(fn).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
