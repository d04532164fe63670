"""`rq.queue`: enqueueing as RQ does it; each call becomes an ordinary headrace job of the layer's one task."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from headrace.contrib.rq.connections import app_of, resolve_connection
from headrace.contrib.rq.exceptions import (
    DuplicateJobError,
    InvalidJobDependency,
    NoSuchJobError,
    TimeoutFormatError,
    not_offered,
)
from headrace.contrib.rq.job import Callback, Job, Retry
from headrace.contrib.rq.runner import TASK
from headrace.contrib.rq.serializers import Serializer, pack, resolve_serializer
from headrace.core.record import State
from headrace.core.retry import Retry as Policy
from headrace.engine import admin
from headrace.engine.keys import QueueKeys, check_queue_name, queue_keys
from headrace.errors import DependencyError, JobExists, JobNotFound

RESULT_TTL_S = 500
FOREVER_S = 10 * 365 * 86_400
_JOB_ID = re.compile(r"[A-Za-z0-9_-]+")
_DURATION = re.compile(r"(\d+)([hms d]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_RESERVED = (
    "description", "result_ttl", "ttl", "failure_ttl", "depends_on", "job_id", "at_front", "meta", "retry", "repeat",
    "on_success", "on_failure", "on_stopped", "rate_limit", "webhooks", "pipeline", "unique",
)  # fmt: skip
_NOT_OFFERED = ("repeat", "on_stopped", "rate_limit", "webhooks", "pipeline", "group_id")


@functools.total_ordering
class Queue:
    """A queue by its name. Equal, ordered and hashed by that; its length is the number of jobs that wait to run."""

    DEFAULT_TIMEOUT: ClassVar[int] = 180

    def __init__(
        self,
        name: str = "default",
        connection: Any = None,
        default_timeout: int | str | None = None,
        is_async: bool = True,
        job_class: Any = None,
        serializer: Any = None,
        death_penalty_class: Any = None,
        **kwargs: Any,
    ) -> None:
        if not is_async or not kwargs.get("async", True):
            not_offered("Queue(is_async=False)", "call the function itself, or run a worker with burst=True")
        if job_class is not None or death_penalty_class is not None:
            not_offered("Queue(job_class=, death_penalty_class=)")
        self.connection = resolve_connection(connection)
        self.name = check_queue_name(name)
        self.serializer: Serializer = resolve_serializer(serializer)
        self.is_async = True
        self._default_timeout = seconds(default_timeout) or self.DEFAULT_TIMEOUT

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Queue) and other.name == self.name

    def __lt__(self, other: object) -> bool:
        return self.name < other.name if isinstance(other, Queue) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Queue]:
        yield self

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"headrace.contrib.rq has no Queue.{name}")

    # Enqueue

    def enqueue(self, f: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Job:
        """Store a call. RQ's own words are taken out of the keyword arguments; `args=` and `kwargs=` give both in full."""
        return self._enqueue(f, args, kwargs, {})

    def enqueue_at(self, datetime: datetime, f: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Job:
        """Store a call to run at an instant; one without a time zone is local time."""
        return self._enqueue(f, args, kwargs, {"at": datetime.astimezone()})

    def enqueue_in(self, time_delta: timedelta, func: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Job:
        """Store a call to run that much later."""
        return self._enqueue(func, args, kwargs, {"delay": time_delta})

    def enqueue_call(
        self,
        func: Callable[..., Any] | str,
        args: Any = None,
        kwargs: Mapping[str, Any] | None = None,
        timeout: int | str | None = None,
        **options: Any,
    ) -> Job:
        """Store a call, its arguments and RQ's options apart."""
        unknown = [name for name in options if name not in _RESERVED]
        if unknown:
            raise TypeError(f"enqueue_call() got an unexpected keyword argument {unknown[0]!r}")
        return self._store(func, tuple(args or ()), dict(kwargs or {}), timeout, options, {})

    def _enqueue(
        self, f: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any], when: dict[str, Any]
    ) -> Job:
        if not isinstance(f, str) and getattr(f, "__module__", None) == "__main__":
            raise ValueError("Functions from the __main__ module cannot be processed by workers")
        timeout = kwargs.pop("job_timeout", None)
        options = {name: kwargs.pop(name) for name in _RESERVED if name in kwargs}
        if "args" in kwargs or "kwargs" in kwargs:
            if args:
                raise TypeError("Extra positional arguments cannot be used when using explicit args and kwargs")
            args, kwargs = tuple(kwargs.pop("args", None) or ()), dict(kwargs.pop("kwargs", None) or {})
        return self._store(f, args, kwargs, timeout, options, when)

    def _store(
        self,
        f: Callable[..., Any] | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: int | str | None,
        options: dict[str, Any],
        when: dict[str, Any],
    ) -> Job:
        name, instance = target_of(f)
        callbacks = {word: _callback(options[word]) for word in ("on_success", "on_failure") if options.get(word)}
        call = pack(self.serializer, (name, instance, args, kwargs, callbacks))
        meta = pack(self.serializer, options["meta"]) if options.get("meta") else b""
        checked = {**when, **self.options_of(timeout, options)}
        is_front_later = "at_front" in checked and (when or "depends_on" in checked)
        if is_front_later:
            not_offered("at_front for a job that does not start at once")
        app = app_of(self.connection)
        target = app.queue(self.name).options(**checked)
        if "job_id" in checked and not options.get("unique"):
            self._forget_ended(checked["job_id"])
        try:
            handle = target.enqueue(TASK, call, name, meta)
        except JobExists as error:
            raise DuplicateJobError(f"job {checked.get('job_id')} is there already") from error
        except DependencyError as error:
            raise InvalidJobDependency(str(error)) from error
        return Job.of(handle, self.connection, self.serializer)

    def options_of(self, timeout: int | str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """RQ's options as headrace's; raises what RQ does for wrong ones."""
        for name in _NOT_OFFERED:
            if given.get(name):
                not_offered(f"enqueue({name}=)", "see docs/howto/from-rq.md for what headrace has instead")
        if given.get("failure_ttl") is not None:
            warnings.warn("failure_ttl is not used: failed jobs are kept for 30 days", RuntimeWarning, stacklevel=5)
        if seconds(timeout) == 0:
            raise ValueError("0 timeout is not allowed. Use -1 for infinite timeout")
        limit = seconds(timeout) or self._default_timeout
        keep = seconds(given.get("result_ttl"))
        keep = RESULT_TTL_S if keep is None else keep
        found: dict[str, Any] = {
            "timeout": None if limit < 0 else limit,
            "result_ttl": FOREVER_S if keep < 0 else keep,
        }
        if (ttl := seconds(given.get("ttl"))) is not None:
            if ttl <= 0:
                raise ValueError("Job ttl must be greater than 0")
            found["expires"] = ttl
        if (job_id := given.get("job_id")) is not None:
            found["job_id"] = checked_job_id(job_id)
        if given.get("at_front"):
            found["at_front"] = True
        if given.get("description"):
            found["description"] = str(given["description"])[:1000]
        if given.get("retry") is not None:
            found["retry"] = Policy(_retry(given["retry"]).delays)
        if given.get("depends_on"):
            found["depends_on"] = self._parents(given["depends_on"])
        return found

    def _parents(self, depends_on: Any) -> list[Any]:
        several = depends_on if isinstance(depends_on, (list, tuple)) else [depends_on]
        if any(not isinstance(one, (str, Job)) for one in several):
            not_offered("depends_on of that kind", "pass jobs, or their ids")
        try:
            return [one.handle if isinstance(one, Job) else Job.fetch(one, self.connection).handle for one in several]
        except NoSuchJobError as error:
            raise InvalidJobDependency(str(error)) from error

    def _forget_ended(self, job_id: str) -> None:
        """An id may be used again once its job has ended, as in RQ."""
        try:
            old = app_of(self.connection).job(job_id, self.name)
        except JobNotFound:
            return
        if old.state.is_ended:
            old.delete()

    # Look

    @property
    def _keys(self) -> QueueKeys:
        return queue_keys(self.name, app_of(self.connection).prefix)

    @property
    def count(self) -> int:
        """How many jobs wait to run."""
        return app_of(self.connection).client.run(admin.count_jobs(self._keys)).queued

    def is_empty(self) -> bool:
        return self.count == 0

    def get_job_ids(self, offset: int = 0, length: int = -1) -> list[str]:
        """The ids of the jobs that wait to run, next first; `length` -1: all."""
        ids = self.ids_in(frozenset({State.QUEUED}))
        return ids[offset:] if length < 0 else ids[offset : offset + length]

    def ids_in(self, states: frozenset[State]) -> list[str]:
        """The ids of its jobs in these states (not in RQ)."""
        found: list[str] = []
        cursor, client = "", app_of(self.connection).client
        while True:
            page = client.run(admin.list_jobs(self._keys, states, cursor=cursor, limit=1000))
            found += [row.id for row in page.rows]
            cursor = page.cursor
            if not cursor:
                return found

    def get_jobs(self, offset: int = 0, length: int = -1) -> list[Job]:
        ids = self.get_job_ids(offset, length)
        return [job for job in Job.fetch_many(ids, self.connection, self.serializer) if job is not None]

    @property
    def job_ids(self) -> list[str]:
        return self.get_job_ids()

    @property
    def jobs(self) -> list[Job]:
        return self.get_jobs()

    def fetch_job(self, job_id: str) -> Job | None:
        """The job of that id, if it is of this queue."""
        try:
            job = Job.fetch(job_id, self.connection, self.serializer)
        except NoSuchJobError:
            return None
        return job if job.origin == self.name else None

    def get_job_position(self, job_or_id: Job | str) -> int | None:
        """0 for the job that is next; None when it does not wait."""
        wanted = job_or_id.id if isinstance(job_or_id, Job) else job_or_id
        ids = self.get_job_ids()
        return ids.index(wanted) if wanted in ids else None

    def empty(self) -> int:
        """Delete the jobs that wait to run; returns how many."""
        return app_of(self.connection).client.run(admin.purge(self._keys, State.QUEUED))

    @classmethod
    def all(cls, connection: Any = None, job_class: Any = None, serializer: Any = None) -> list[Queue]:
        """Every queue that a job or a worker has named."""
        connection = resolve_connection(connection)
        app = app_of(connection)
        names = app.client.run(admin.queue_names(app.prefix))
        return [cls(name, connection, serializer=serializer) for name in names]


def target_of(f: Any) -> tuple[str, Any]:
    """What a worker finds the function by: a dotted path, or a method's name and the object it belongs to.

    Raises:
        TypeError: it cannot be called.
    """
    if isinstance(f, str):
        return f, None
    if inspect.ismethod(f):
        return f.__name__, f.__self__
    if inspect.isfunction(f) or inspect.isbuiltin(f):
        return f"{f.__module__}.{f.__qualname__}", None
    if not inspect.isclass(f) and callable(f):
        return "__call__", f
    raise TypeError(f"Expected a callable or a string, but got: {f!r:.80}")


def seconds(given: int | float | str | None) -> int | None:
    """A duration as RQ takes it: seconds, or '1h', '23m', '10s', '2d'.

    Raises:
        TimeoutFormatError
    """
    if given is None or isinstance(given, (int, float)):
        return None if given is None else int(given)
    text = str(given).strip().lower()
    match = _DURATION.fullmatch(text)
    if match is None:
        try:
            return int(text)
        except ValueError:
            raise TimeoutFormatError(
                f"{given!r} is no duration: use seconds, or a text as '1h', '23m', '10s', '2d'"
            ) from None
    return int(match[1]) * _UNITS[match[2].strip()]


def checked_job_id(job_id: object) -> str:
    """An id that RQ takes.

    Raises:
        TypeError, ValueError
    """
    if not isinstance(job_id, str):
        raise TypeError(f"id must be a string, not {type(job_id).__name__}")
    if not _JOB_ID.fullmatch(job_id):
        raise ValueError("id must only contain letters, numbers, underscores and dashes")
    return job_id


def _callback(given: Any) -> str:
    """The dotted path of a callback: workers find it by that."""
    func = given.func if isinstance(given, Callback) else given
    path, instance = target_of(func)
    if instance is not None:
        raise ValueError(f"a callback is a function of a module, or its dotted path, not {func!r:.60}")
    return path


def _retry(given: Any) -> Retry:
    if isinstance(given, int) and not isinstance(given, bool):
        return Retry(given)
    if not isinstance(given, Retry):
        raise TypeError(f"retry: expected a Retry, got {given!r:.60}")
    return given
