"""`rq.job`: a job as RQ's users see it: made here, then over the handle of an ordinary headrace job; and its policies.

A Job is first a draft, whose fields say how it is to be run. `Queue.enqueue*` stores it, and from then on it shows the
stored job: what is said of that does not change any more, but its `meta`.
(Larger than a class should be: these are the names that RQ's users know.)
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import uuid4

from headrace import context
from headrace.contrib.rq.callbacks import Callback, callback_of
from headrace.contrib.rq.connections import app_of, resolve_connection
from headrace.contrib.rq.defaults import CALLBACK_TIMEOUT, RQ_KEY_PREFIX
from headrace.contrib.rq.exceptions import InvalidJobOperation, NoSuchJobError, missing, not_offered
from headrace.contrib.rq.retry import Retry
from headrace.contrib.rq.serializers import pack, resolve_serializer, unpack
from headrace.contrib.rq.statuses import JobStatus, status_of
from headrace.contrib.rq.terms import (
    TASK,
    Terms,
    read_terms,
    what_is_left,
)
from headrace.contrib.rq.utils import (
    ensure_job_list,
    get_call_string,
    import_attribute,
    now,
    parse_timeout,
    resolve_function_reference,
    utcformat,
)
from headrace.contrib.rq.webhook import Webhook
from headrace.core.record import State
from headrace.engine import admin, flows
from headrace.engine.keys import queue_keys
from headrace.errors import JobError, JobNotFound, ResultTimeout, UsageError
from headrace.job import Job as Handle
from headrace.worker.config import worker_name_of

if TYPE_CHECKING:
    from headrace.contrib.rq.executions import Execution, ExecutionRegistry
    from headrace.contrib.rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
    from headrace.contrib.rq.results import Result

__all__ = [
    "Callback",
    "Dependency",
    "Job",
    "JobStatus",
    "Retry",
    "cancel_job",
    "get_current_job",
    "parse_job_id",
    "requeue_job",
    "validate_job_id",
]

JOB_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]+")
CALL_CHARS_MAX = 75
META_NOTE, RESULTS_NOTE = "rq.meta", "rq.results"
RESULTS_KEPT = 9


class Dependency:
    """Jobs, or their ids, to wait for; with `allow_failure` also when they fail, not when they are cancelled.

    Raises:
        ValueError: none, or something else.
    """

    def __init__(self, jobs: Any, allow_failure: bool = False, enqueue_at_front: bool = False) -> None:
        several = ensure_job_list(jobs)
        if not several:
            raise ValueError("jobs: cannot be empty.")
        if not all(isinstance(job, (Job, str)) for job in several):
            raise ValueError("jobs: must contain objects of type Job and/or strings representing Job ids")
        self.dependencies: list[Job | str] = several
        self.allow_failure = allow_failure
        self.enqueue_at_front = enqueue_at_front


class Call(NamedTuple):
    """What is called. `hooks`: on_success, on_failure, on_stopped: (path, seconds) each; webhooks: a list of dicts."""

    name: str
    instance: Any
    args: Sequence[Any]
    kwargs: dict[str, Any]
    hooks: dict[str, Any]


class Job:
    """One job. Equal, and hashed, by id. It comes from `Queue.enqueue*`, `Queue.create_job`, `Job.create` or `Job.fetch`."""

    redis_job_namespace_prefix = f"{RQ_KEY_PREFIX}:job:"

    def __init__(self, id: str | None = None, connection: Any = None, serializer: Any = None) -> None:
        self.connection = resolve_connection(connection)
        self.serializer = resolve_serializer(serializer)
        self._id = validate_job_id(id) if id else None
        self._handle: Handle[Any] | None = None
        self._call: Call | None = None
        self._meta: dict[str, Any] | None = None
        self._status = JobStatus.CREATED
        self._dependencies: list[Job | str] = []
        self._dependency_ids: list[str] = []
        self.origin = ""
        self.description: str | None = None
        self.created_at: datetime = now()
        self.enqueued_at: datetime | None = None
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.last_heartbeat: datetime | None = None
        self.worker_name: str | None = None
        self.timeout: int | None = None
        self.ttl: int | None = None
        self.result_ttl: int | None = None
        self.failure_ttl: int | None = None
        self._retry_max: int | None = None
        self.retries_left: int | None = None
        self.number_of_retries: int | None = None
        self.retry_intervals: list[Any] | None = None
        self.enqueue_at_front_on_retry = False
        self.repeats_left: int | None = None
        self.repeat_intervals: list[Any] | None = None
        self.allow_dependency_failures: bool | None = None
        self.enqueue_at_front: bool | None = None
        self.group_id: str | None = None
        self.is_kept = False
        self.rate_limit_key: str | None = None
        self.rate_limit_concurrency: int | None = None

    @classmethod
    def create(
        cls,
        func: Callable[..., Any] | str,
        args: list[Any] | tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        connection: Any = None,
        result_ttl: int | None = None,
        ttl: int | None = None,
        status: JobStatus | None = None,
        description: str | None = None,
        depends_on: Any = None,
        timeout: int | None = None,
        retry: Retry | None = None,
        id: str | None = None,
        origin: str = "",
        meta: dict[str, Any] | None = None,
        failure_ttl: int | None = None,
        serializer: Any = None,
        group_id: str | None = None,
        *,
        on_success: Callback | Callable[..., Any] | str | None = None,
        on_failure: Callback | Callable[..., Any] | str | None = None,
        on_stopped: Callback | Callable[..., Any] | str | None = None,
        webhooks: Sequence[Webhook] | None = None,
    ) -> Self:
        """A job that `Queue.enqueue_job` can store.

        Raises:
            TypeError, ValueError, TimeoutFormatError: naming what is wrong.
        """
        if args is not None and not isinstance(args, (list, tuple)):
            raise TypeError(f"args: expected a list or a tuple, got {args!r:.60}")
        if kwargs is not None and not isinstance(kwargs, dict):
            raise TypeError(f"kwargs: expected a dict, got {kwargs!r:.60}")
        if meta is not None and not isinstance(meta, dict):
            raise TypeError(f"meta: expected a dict, got {meta!r:.60}")
        job = cls(connection=connection, serializer=serializer)
        job._id = None if id is None else validate_job_id(id)
        instance, name = resolve_function_reference(func)
        called = {"on_success": on_success, "on_failure": on_failure, "on_stopped": on_stopped}
        callbacks = {word: callback_of(given) for word, given in called.items()}
        hooks: dict[str, Any] = {word: [one.name, one.timeout] for word, one in callbacks.items() if one is not None}
        job._call = Call(name, instance, tuple(args or ()), dict(kwargs or {}), hooks)
        if webhooks:
            job.webhooks = list(webhooks)
        job.origin = origin
        job.description = description or job.get_call_string()
        job.timeout, job.ttl = parse_timeout(timeout), parse_timeout(ttl)
        job.result_ttl, job.failure_ttl = parse_timeout(result_ttl), parse_timeout(failure_ttl)
        job.meta = dict(meta or {})
        job.group_id = group_id
        if retry is not None:
            job._set_retry(retry)
        if depends_on is not None:
            job.process_dependencies(depends_on)
        job._status = status or JobStatus.CREATED
        return job

    def _set_retry(self, retry: Any) -> None:
        if isinstance(retry, int) and not isinstance(retry, bool):
            retry = Retry(retry)
        if not isinstance(retry, Retry):
            raise TypeError(f"retry: expected a Retry, got {retry!r:.60}")
        self.retries_left, self.retry_intervals = retry.max, list(retry.intervals)
        self.enqueue_at_front_on_retry = retry.enqueue_at_front

    def process_dependencies(self, depends_on: Any) -> None:
        for item in ensure_job_list(depends_on):
            if isinstance(item, Dependency):
                self.enqueue_at_front = self.enqueue_at_front or item.enqueue_at_front
                self.allow_dependency_failures = self.allow_dependency_failures or item.allow_failure
                self._dependencies += item.dependencies
            elif isinstance(item, (Job, str)):
                self._dependencies.append(item)
            else:
                raise ValueError(f"depends_on: expected jobs, or their ids, got {item!r:.60}")
        self._dependency_ids = [item if isinstance(item, str) else item.id for item in self._dependencies]

    @classmethod
    def of(cls, handle: Handle[Any], connection: Any, serializer: Any) -> Self:
        """The job behind a handle (not in RQ)."""
        job = cls(handle.id, connection, serializer)
        job._see(handle)
        return job

    @classmethod
    def fetch(cls, id: str, connection: Any = None, serializer: Any = None) -> Self:
        """The job of that id; raises NoSuchJobError."""
        job = cls(None, connection, serializer)
        job._id = parse_job_id(id)
        job.refresh()
        return job

    @classmethod
    def fetch_many(cls, job_ids: Iterable[str], connection: Any, serializer: Any = None) -> list[Self | None]:
        """The jobs of those ids, None for one that is not there."""
        found: list[Self | None] = []
        for job_id in job_ids:
            try:
                found.append(cls.fetch(job_id, connection, serializer))
            except NoSuchJobError:
                found.append(None)
        return found

    @classmethod
    def exists(cls, job_id: str, connection: Any = None) -> bool:
        return cls.fetch_many([job_id], resolve_connection(connection)) != [None]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._id!r}, enqueued_at={self.enqueued_at!r})"

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.description}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"headrace.contrib.rq has no Job.{name}")

    # What it is

    @property
    def id(self) -> str:
        if self._id is None:
            self._id = str(uuid4())
        return self._id

    @id.setter
    def id(self, value: str) -> None:
        self._see_draft("id")
        self._id = validate_job_id(value)

    @property
    def handle(self) -> Handle[Any]:
        """The headrace job: what RQ does not offer is there (not in RQ)."""
        if self._handle is None:
            self.refresh()
        assert self._handle is not None
        return self._handle

    @property
    def is_draft(self) -> bool:
        """Whether it has not been stored, nor fetched (not in RQ)."""
        return self._handle is None

    def _see_draft(self, name: str) -> None:
        if self._handle is not None:
            not_offered(f"change of Job.{name}", "of a job that is stored only the meta can be changed")

    @property
    def call(self) -> Call:
        """What is called, unpickled (not in RQ)."""
        if self._call is None:
            handle = self.handle
            if handle.task == TASK:
                name, instance, args, kwargs, hooks = unpack(self.serializer, handle.args[0])
                self._call = Call(name, instance, tuple(args), dict(kwargs), hooks)
            else:
                self._call = Call(handle.task, None, tuple(handle.args), handle.kwargs, {})
        return self._call

    def _put(self, **changes: Any) -> None:
        for name in changes:
            self._see_draft(name)
        self._call = (self._call or Call("", None, (), {}, {}))._replace(**changes)

    @property
    def func_name(self) -> str:
        """The dotted path of its function; of a method, its name."""
        if self._call is None and self.handle.task == TASK:
            return str(self.handle.args[1])
        return self.call.name

    @func_name.setter
    def func_name(self, value: str) -> None:
        self._put(name=value)

    @property
    def func(self) -> Any:
        call = self.call
        return import_attribute(call.name) if call.instance is None else getattr(call.instance, call.name)

    @property
    def instance(self) -> Any:
        return self.call.instance

    @instance.setter
    def instance(self, value: Any) -> None:
        self._put(instance=value)

    @property
    def args(self) -> Sequence[Any]:
        return self.call.args

    @args.setter
    def args(self, value: Sequence[Any]) -> None:
        self._put(args=tuple(value))

    @property
    def kwargs(self) -> dict[str, Any]:
        return self.call.kwargs

    @kwargs.setter
    def kwargs(self, value: dict[str, Any]) -> None:
        self._put(kwargs=dict(value))

    @property
    def data(self) -> bytes:
        """The function's name, instance, args and kwargs, serialized."""
        return self.serializer.dumps(self.call[:4])

    @data.setter
    def data(self, value: bytes) -> None:
        self._see_draft("data")
        name, instance, args, kwargs = self.serializer.loads(value)
        self._put(name=name, instance=instance, args=tuple(args), kwargs=dict(kwargs))

    def get_call_string(self) -> str | None:
        """The call as people read it."""
        return get_call_string(self.func_name, self.args, self.kwargs, CALL_CHARS_MAX)

    @property
    def key(self) -> str:
        """What RQ calls it on the server. No key has that name here."""
        return self.key_for(self.id)

    @classmethod
    def key_for(cls, job_id: str) -> str:
        return f"{cls.redis_job_namespace_prefix}{job_id}"

    @classmethod
    def dependents_key_for(cls, job_id: str) -> str:
        return f"{cls.key_for(job_id)}:dependents"

    @property
    def dependents_key(self) -> str:
        return self.dependents_key_for(self.id)

    @property
    def dependencies_key(self) -> str:
        return f"{self.key}:dependencies"

    # Callbacks and webhooks

    def hook(self, word: str) -> tuple[Any, int]:
        """The function and the seconds of "on_success", "on_failure" or "on_stopped" (not in RQ)."""
        found = self.call.hooks.get(word)
        if found is None:
            return None, CALLBACK_TIMEOUT
        path, seconds = (found, CALLBACK_TIMEOUT) if isinstance(found, str) else found
        return import_attribute(path), seconds

    success_callback = property(lambda self: self.hook("on_success")[0])
    failure_callback = property(lambda self: self.hook("on_failure")[0])
    stopped_callback = property(lambda self: self.hook("on_stopped")[0])
    success_callback_timeout = property(lambda self: self.hook("on_success")[1])
    failure_callback_timeout = property(lambda self: self.hook("on_failure")[1])
    stopped_callback_timeout = property(lambda self: self.hook("on_stopped")[1])

    @property
    def webhooks(self) -> list[Webhook]:
        return [Webhook.from_dict(data) for data in self.call.hooks.get("webhooks", ())]

    @webhooks.setter
    def webhooks(self, value: Sequence[Webhook]) -> None:
        if isinstance(value, Webhook) or not all(isinstance(one, Webhook) for one in value):
            raise TypeError("webhooks must be a sequence of Webhook instances")
        self._put(hooks={**self.call.hooks, "webhooks": [one.to_dict() for one in value]})

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Send those that are for this end. What goes wrong is logged."""
        for webhook in self.webhooks:
            if webhook.job_status == status:
                webhook.send(self, exc_string=exc_string)

    # Meta

    @property
    def meta(self) -> dict[str, Any]:
        """What users keep with the job: change it, then `save_meta()`."""
        if self._meta is None:
            self._meta = self._read_meta()
        return self._meta

    @meta.setter
    def meta(self, value: dict[str, Any]) -> None:
        self._meta = value

    def _read_meta(self) -> dict[str, Any]:
        if self._handle is None:
            return {}
        data = self._handle.notes().get(META_NOTE)
        if data is None and self._handle.task == TASK:
            data = self._handle.args[2]
        return dict(unpack(self.serializer, data)) if data else {}

    def get_meta(self, refresh: bool = True) -> dict[str, Any]:
        """As `meta`; as it is stored now, but for `refresh=False`."""
        if refresh and self._handle is not None:
            self._meta = self._read_meta()
        return self.meta

    def save_meta(self) -> None:
        """Store the meta, whatever state the job is in; raises NoSuchJobError when it is not there any more."""
        meta = self.meta
        if self._handle is None and _performing.get() is self:
            return  # it runs where it is enqueued, and is stored at its end
        try:
            self.handle.note(META_NOTE, pack(self.serializer, meta))
        except JobNotFound as error:
            raise NoSuchJobError(f"No such job: {self.id}") from error

    def save(self, pipeline: Any = None, include_meta: bool = True, include_result: bool = True) -> None:
        """Store what can be changed of a stored job: its meta. A draft is stored for `Queue.enqueue_job`: nobody runs it before."""
        if pipeline is not None:
            not_offered("Job.save() with a pipeline", "a job is stored in one call")
        if self._handle is None:
            if not self.origin:
                not_offered("Job.save() of a draft without origin", "name its queue, or let Queue.enqueue_job store it")
            self.is_kept = True
            self._queue().keep(self)
        elif include_meta:
            self.save_meta()

    # As it is stored

    def refresh(self) -> None:
        """Look at the job again; raises NoSuchJobError."""
        self._look(self._handle.queue if self._handle is not None else None)

    def _look(self, queue: str | None) -> None:
        try:
            handle = app_of(self.connection).job(self.id, queue)
        except (JobNotFound, UsageError) as error:
            raise NoSuchJobError(f"No such job: {self.id}") from error
        if handle.state is State.EXPIRED:
            raise NoSuchJobError(f"No such job: {self.id} had not started by its ttl")
        self._see(handle)

    def stored(self, handle: Handle[Any]) -> None:
        """It has been stored as this (not in RQ)."""
        self._handle, self._id, self.origin = handle, handle.id, handle.queue
        self.created_at = handle.created_at
        self._status = status_of(handle)
        self.enqueued_at = handle.created_at if self._status is JobStatus.QUEUED else None

    def _see(self, handle: Handle[Any]) -> None:
        self.stored(handle)
        is_ours = handle.task == TASK
        self._call = self._meta = None
        self.started_at, self.ended_at = handle.started_at, handle.ended_at
        self.worker_name = worker_name_of(handle.session) if handle.session else None
        if self._status not in (JobStatus.SCHEDULED, JobStatus.DEFERRED):
            self.enqueued_at = handle.created_at
        self._read(read_terms(handle.args[3]) if is_ours and len(handle.args) > 3 else Terms())
        self.description = handle.description

    def _read(self, terms: Terms) -> None:
        runs = self.handle.attempt - (self._status in (JobStatus.STARTED, JobStatus.FINISHED))
        left = what_is_left(terms, runs, self.handle.errors)
        self.timeout, self.ttl = terms.timeout, terms.ttl
        self.result_ttl, self.failure_ttl = terms.result_ttl, terms.failure_ttl
        self._retry_max, self.retries_left = terms.retry_max, left.retries
        self.retry_intervals, self.enqueue_at_front_on_retry = terms.retry_intervals, terms.retry_at_front
        self.number_of_retries = left.returned or None
        self.repeats_left = left.repeats
        self.repeat_intervals = terms.repeat_intervals
        self._dependency_ids, self._dependencies = list(terms.depends_on), list(terms.depends_on)
        self.allow_dependency_failures, self.enqueue_at_front = terms.allow_failures, terms.at_front
        self.group_id, self.is_kept = terms.group, terms.is_kept
        self.rate_limit_key, self.rate_limit_concurrency = terms.limit, terms.limit_concurrency

    def terms(self) -> Terms:
        """How a draft is to be run and kept (not in RQ)."""
        return Terms(
            timeout=self.timeout, result_ttl=self.result_ttl, ttl=self.ttl, failure_ttl=self.failure_ttl,
            retry_max=self.retries_left, retry_intervals=self.retry_intervals, retry_at_front=self.enqueue_at_front_on_retry,
            repeat_times=self.repeats_left, repeat_intervals=self.repeat_intervals,
            depends_on=self._dependency_ids, allow_failures=self.allow_dependency_failures,
            at_front=self.enqueue_at_front, group=self.group_id,
            limit=self.rate_limit_key, limit_concurrency=self.rate_limit_concurrency,
            is_kept=self.is_kept,
        )  # fmt: skip

    def get_status(self, refresh: bool = True) -> JobStatus:
        """Where it stands; raises InvalidJobOperation when it is not there any more."""
        if refresh:
            try:
                self.refresh()
            except NoSuchJobError as error:
                raise InvalidJobOperation(f"Failed to retrieve status for job: {self.id}") from error
        return self._status

    def set_status(self, status: JobStatus, pipeline: Any = None) -> None:
        """Of a draft; a stored job has the status that it has."""
        self._see_draft("status")
        self._status = status

    is_finished = property(lambda self: self.get_status() is JobStatus.FINISHED)
    is_queued = property(lambda self: self.get_status() is JobStatus.QUEUED)
    is_failed = property(lambda self: self.get_status() is JobStatus.FAILED)
    is_started = property(lambda self: self.get_status() is JobStatus.STARTED)
    is_deferred = property(lambda self: self.get_status() is JobStatus.DEFERRED)
    is_canceled = property(lambda self: self.get_status() is JobStatus.CANCELED)
    is_scheduled = property(lambda self: self.get_status() is JobStatus.SCHEDULED)
    is_stopped = property(lambda self: self.get_status() is JobStatus.STOPPED)
    is_ready_to_enqueue = property(lambda self: self.get_status() is JobStatus.READY_TO_ENQUEUE)

    def get_position(self) -> int | None:
        """0 when it is the next of its queue; None when it does not wait there."""
        return self._queue().get_job_position(self) if self.origin else None

    def get_ttl(self, default_ttl: int | None = None) -> int | None:
        return default_ttl if self.ttl is None else self.ttl

    def get_result_ttl(self, default_ttl: int) -> int:
        return default_ttl if self.result_ttl is None else self.result_ttl

    @property
    def should_retry(self) -> bool:
        return bool(self.retries_left)

    def get_retry_interval(self) -> float:
        """The seconds to wait before its next retry."""
        done = (self._retry_max or 0) - (self.retries_left or 0) if self._retry_max else 0
        return Retry.get_interval(done, self.retry_intervals)

    def should_enqueue_at_front(self) -> bool:
        return bool(self.enqueue_at_front or (self.enqueue_at_front_on_retry and self.ended_at is not None))

    @property
    def has_rate_limit(self) -> bool:
        return bool(self.rate_limit_key and self.rate_limit_concurrency)

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """What is known of it, under RQ's names; what is not known is left out."""
        instants = {name: getattr(self, name) for name in ("created_at", "enqueued_at", "started_at", "ended_at")}
        found: dict[str, Any] = {name: utcformat(at) for name, at in instants.items() if at is not None}
        names = (
            "origin", "description", "timeout", "ttl", "result_ttl", "failure_ttl", "worker_name", "group_id",
            "retries_left", "number_of_retries", "retry_intervals", "repeats_left", "repeat_intervals",
            "rate_limit_key", "rate_limit_concurrency", "allow_dependency_failures", "enqueue_at_front",
        )  # fmt: skip
        found |= {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        found |= {"data": self.data, "status": self._status, "dependency_ids": list(self._dependency_ids)}
        if include_meta and self.meta:
            found["meta"] = self.serializer.dumps(self.meta)
        if include_result and self._handle is not None and (value := self.return_value()) is not None:
            found["result"] = self.serializer.dumps(value)
        return found

    # Its results

    def results(self) -> list[Result]:
        """What its runs came to, the last first."""
        from headrace.contrib.rq.results import Result

        return Result.all(self, self.serializer)

    def keep_result(self, data: bytes) -> None:
        """It has given this, and runs again: what it gave before is kept beside it (not in RQ)."""
        kept = [*self.handle.notes().get(RESULTS_NOTE, []), [int(now().timestamp() * 1000), data]]
        self.handle.note(RESULTS_NOTE, kept[-RESULTS_KEPT:])

    def kept_results(self) -> list[tuple[datetime, Any]]:
        """When it gave what, before it ran again (not in RQ)."""
        kept = self.handle.notes().get(RESULTS_NOTE, []) if self.repeats_left is not None else []
        return [(datetime.fromtimestamp(at_ms / 1000, UTC), unpack(self.serializer, data)) for at_ms, data in kept]

    def latest_result(self, timeout: int = 0) -> Result | None:
        """The last of them; with a timeout, it waits for the first one so many seconds."""
        from headrace.contrib.rq.results import Result

        return Result.fetch_latest(self, self.serializer, timeout)

    def return_value(self, refresh: bool = False) -> Any:
        """What it returned; None while it has not finished, or when that is no longer kept. It does not wait."""
        if refresh or not self.handle.state.is_ended:
            try:
                self.refresh()
            except NoSuchJobError:
                return None
        return self._value()

    def _value(self) -> Any:
        if self.handle.state is not State.SUCCEEDED:
            return None
        value = self.handle.result(0)
        return unpack(self.serializer, value) if self.handle.task == TASK else value

    @property
    def result(self) -> Any:
        """As `return_value()`: RQ 1's name for it."""
        return self.return_value()

    @property
    def exc_info(self) -> str | None:
        """The last error's traceback: RQ 1's name for `latest_result().exc_string`."""
        return self._exc_info

    @property
    def _exc_info(self) -> str | None:
        try:
            self.refresh()
        except NoSuchJobError:
            return None
        errors = self.handle.errors
        if errors:
            return errors[-1].traceback or f"{errors[-1].type}: {errors[-1].message}"
        return self.handle.reason if self.handle.state is State.FAILED else None

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended within so many seconds (not in RQ)."""
        try:
            self.handle.wait(timeout)
        except ResultTimeout:
            return False
        return True

    @property
    def execution_registry(self) -> ExecutionRegistry:
        from headrace.contrib.rq.executions import ExecutionRegistry

        return ExecutionRegistry(self.id, self.connection)

    def get_executions(self) -> list[Execution]:
        """The run that goes on, if there is one."""
        return self.execution_registry.get_executions()

    # Other jobs

    @property
    def dependency_ids(self) -> list[str]:
        """The ids of the jobs it waits for, or waited for."""
        return list(self._dependency_ids)

    @property
    def dependency(self) -> Job | None:
        """The first of them."""
        if not self._dependencies:
            return None
        first = self._dependencies[0]
        return first if isinstance(first, Job) else self.fetch(first, self.connection, self.serializer)

    _dependency_id = property(lambda self: self._dependency_ids[0] if self._dependency_ids else None)

    def fetch_dependencies(self, watch: bool = False, pipeline: Any = None) -> list[Self]:
        """Those of them that are still there."""
        found = self.fetch_many(self._dependency_ids, self.connection, self.serializer)
        return [job for job in found if job is not None]

    def dependencies_are_met(
        self,
        parent_job: Job | None = None,
        pipeline: Any = None,
        exclude_job_id: str | None = None,
        refresh_job_status: bool = True,
    ) -> bool:
        """Whether all of them have finished."""
        met = {JobStatus.FINISHED, JobStatus.FAILED} if self.allow_dependency_failures else {JobStatus.FINISHED}
        return all(
            job.get_status(refresh=False) in met for job in self.fetch_dependencies() if job.id != exclude_job_id
        )

    @property
    def dependent_ids(self) -> list[str]:
        """The ids of the jobs that wait for it."""
        return [job_id for _, job_id in self._dependents()]

    def _dependents(self) -> list[tuple[str, str]]:
        """(queue, id) each."""
        app = app_of(self.connection)
        return app.client.run(admin.dependents(queue_keys(self.handle.queue, app.prefix), self.id))

    # Acting on it

    def cancel(
        self, pipeline: Any = None, enqueue_dependents: bool = False, remove_from_dependencies: bool = False
    ) -> dict[str, list[str]]:
        """It does not run any more; one that runs is stopped. Jobs that wait for it are cancelled, too, or with
        `enqueue_dependents` start as if it had finished: their ids are given, by queue.

        Raises:
            InvalidJobOperation: it is cancelled already.
        """
        if pipeline is not None:
            not_offered("Job.cancel(pipeline=)", "it is one call already")
        if self.get_status() is JobStatus.CANCELED:
            raise InvalidJobOperation(f"Cannot cancel already canceled job: {self.id}")
        freed: dict[str, list[str]] = {}
        if enqueue_dependents:
            app = app_of(self.connection)
            found = app.client.run(flows.free_dependents(queue_keys(self.origin, app.prefix), self.id))
            for queue, job_id in found:
                freed.setdefault(queue, []).append(job_id)
        self.handle.cancel()
        return freed

    def requeue(self, at_front: bool = False) -> Job:
        """Run a job that has failed, or was stopped, again; raises InvalidJobOperation when it has not."""
        if self.get_status() not in (JobStatus.FAILED, JobStatus.STOPPED):
            raise InvalidJobOperation(f"Cannot requeue job {self.id}, which has not failed: it is {self._status.value}")
        self.handle.retry(at_front=at_front)
        self.refresh()
        return self

    def delete(self, pipeline: Any = None, remove_from_queue: bool = True, delete_dependents: bool = False) -> None:
        """Forget the job, and with `delete_dependents` those that wait for it.

        Raises:
            InvalidJobOperation: it runs.
        """
        if pipeline is not None:
            not_offered("Job.delete(pipeline=)", "it is one call already")
        if delete_dependents:
            self.delete_dependents()
        try:
            self.handle.delete()
        except JobNotFound:
            return  # since it was looked at
        except JobError as error:
            raise InvalidJobOperation(str(error)) from error
        if self.group_id:
            from headrace.contrib.rq.group import Group

            Group(self.connection, self.group_id).delete_job(self.id)

    def delete_dependents(self, pipeline: Any = None) -> None:
        """Forget the jobs that wait for it."""
        for job in self.fetch_many(self.dependent_ids, self.connection, self.serializer):
            if job is not None:
                job.delete()

    def cleanup(self, ttl: int | None = None, pipeline: Any = None, remove_from_queue: bool = True) -> None:
        """With 0, forget the job. How long one is kept is said where it is enqueued."""
        if ttl == 0:
            self.delete(pipeline)
        elif ttl is not None and ttl > 0:
            not_offered("Job.cleanup() with a ttl", "give result_ttl and failure_ttl where the job is enqueued")

    def perform(self) -> Any:
        """Call its function here, and return what that does. Nothing is stored."""
        token = _performing.set(self)
        try:
            result = self.func(*self.args, **self.kwargs)
            return asyncio.run(result) if asyncio.iscoroutine(result) else result
        finally:
            _performing.reset(token)

    def _queue(self) -> Any:
        from headrace.contrib.rq.queue import Queue

        return Queue(self.origin, self.connection, job_class=type(self), serializer=self.serializer)

    @property
    def started_job_registry(self) -> StartedJobRegistry:
        return self._queue().started_job_registry  # type: ignore[no-any-return]

    @property
    def failed_job_registry(self) -> FailedJobRegistry:
        return self._queue().failed_job_registry  # type: ignore[no-any-return]

    @property
    def finished_job_registry(self) -> FinishedJobRegistry:
        return self._queue().finished_job_registry  # type: ignore[no-any-return]

    restore = missing("Job.restore", "Job.fetch and refresh() read a job")
    heartbeat = missing("Job.heartbeat", "a supervisor renews the leases of what its workers run")
    register_dependency = missing("Job.register_dependency", "Queue.enqueue_job does that")
    prepare_for_execution = missing("Job.prepare_for_execution", "workers do that")
    retry = missing("Job.retry", "a job that fails is retried as its Retry says; requeue() runs a failed one again")


def validate_job_id(job_id: object) -> str:
    """An id that RQ takes.

    Raises:
        TypeError, ValueError
    """
    if not isinstance(job_id, str):
        raise TypeError(f"Job ID must be a string, not {type(job_id).__name__}")
    if not JOB_ID_PATTERN.fullmatch(job_id):
        raise ValueError(f"Job ID must only contain letters, numbers, underscores and dashes; {job_id!r:.60} does not")
    return job_id


def parse_job_id(job_or_execution_id: str) -> str:
    """The job's part of an id, or of an execution's key."""
    return job_or_execution_id.partition(":")[0]


_performing: ContextVar[Job | None] = ContextVar("headrace_rq_performing", default=None)
_running: ContextVar[tuple[int, Job] | None] = ContextVar("headrace_rq_running", default=None)


def get_current_job(connection: Any = None, job_class: Any = None) -> Job | None:
    """The job that runs this code, the same object each time; None outside one."""
    running = context.get_current()
    if running is None or _performing.get() is not None:
        return _performing.get()
    known = _running.get()
    if known is None or known[0] != running.fence or known[1].id != running.id:
        known = running.fence, _fetch_running(running, connection, job_class)
        _running.set(known)
    return known[1]


def _fetch_running(running: context.JobContext, connection: Any, job_class: Any) -> Job:
    from headrace.contrib.rq import runner

    kind: type[Job] = job_class or runner.job_class()
    job = kind(None, connection or runner.worker_connection(), runner.serializer())
    job._id = running.id
    job._look(running.queue)
    return job


def cancel_job(job_id: str, connection: Any = None, serializer: Any = None, enqueue_dependents: bool = False) -> None:
    """As `Job.fetch(job_id).cancel()`."""
    Job.fetch(job_id, connection, serializer).cancel(enqueue_dependents=enqueue_dependents)


def requeue_job(job_id: str, connection: Any = None, serializer: Any = None) -> Job:
    """As `Job.fetch(job_id).requeue()`."""
    return Job.fetch(job_id, connection, serializer).requeue()
