"""`rq.queue`: enqueueing as RQ does it; each call becomes an ordinary headrace job of the layer's one task.

(Larger than a class should be: these are the names that RQ's users know.)
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from headrace.contrib.rq.callbacks import Callback
from headrace.contrib.rq.connections import app_of, forget_app, resolve_connection
from headrace.contrib.rq.defaults import DEFAULT_FAILURE_TTL, RQ_KEY_PREFIX
from headrace.contrib.rq.exceptions import (
    DuplicateJobError,
    InvalidJobDependency,
    InvalidJobOperation,
    NoSuchJobError,
    missing,
    not_offered,
)
from headrace.contrib.rq.inline import run_here
from headrace.contrib.rq.job import Job, JobStatus, Retry
from headrace.contrib.rq.rate_limit import RateLimit, limit_of
from headrace.contrib.rq.repeat import Repeat
from headrace.contrib.rq.serializers import Serializer, pack, resolve_serializer
from headrace.contrib.rq.terms import FOREVER_S, TASK
from headrace.contrib.rq.timeouts import BaseDeathPenalty, UnixSignalDeathPenalty
from headrace.contrib.rq.utils import backend_class, compact, get_version, parse_timeout
from headrace.contrib.rq.webhook import Webhook
from headrace.core.record import State
from headrace.core.retry import Retry as Policy
from headrace.engine import admin, ops
from headrace.engine.keys import QueueKeys, check_queue_name, queue_keys
from headrace.errors import DependencyError, JobExists, JobNotFound
from headrace.job import JobCall

if TYPE_CHECKING:
    from headrace.contrib.rq.registry import (
        BaseRegistry,
        CanceledJobRegistry,
        DeferredJobRegistry,
        FailedJobRegistry,
        FinishedJobRegistry,
        ReadyJobRegistry,
        ScheduledJobRegistry,
        StartedJobRegistry,
    )

logger = logging.getLogger("headrace.contrib.rq")

DESCRIPTION_CHARS_MAX = 1000

Func = Callable[..., Any] | str
AnyCallback = Callback | Callable[..., Any] | str


class EnqueueData(NamedTuple):
    """One call for `enqueue_many`: what `Queue.prepare_data` gives."""

    func: Func
    args: tuple[Any, ...] | list[Any] | None
    kwargs: dict[str, Any] | None
    timeout: int | str | None
    result_ttl: int | str | None
    ttl: int | str | None
    failure_ttl: int | str | None
    description: str | None
    depends_on: Any
    job_id: str | None
    at_front: bool
    meta: dict[str, Any] | None
    retry: Retry | None
    on_success: AnyCallback | None
    on_failure: AnyCallback | None
    on_stopped: AnyCallback | None
    repeat: Repeat | None
    webhooks: Sequence[Webhook] | None


class EnqueueArgs(NamedTuple):
    """What `Queue.parse_args` reads out of a call of `enqueue`."""

    func: Func
    timeout: int | str | None
    description: str | None
    result_ttl: int | str | None
    ttl: int | str | None
    failure_ttl: int | str | None
    depends_on: Any
    job_id: str | None
    at_front: bool
    meta: dict[str, Any] | None
    retry: Retry | None
    repeat: Repeat | None
    on_success: AnyCallback | None
    on_failure: AnyCallback | None
    on_stopped: AnyCallback | None
    rate_limit: RateLimit | None
    pipeline: Any
    unique: bool
    args: tuple[Any, ...] | list[Any] | None
    kwargs: dict[str, Any] | None
    webhooks: Sequence[Webhook] | None


@functools.total_ordering
class Queue:
    """A queue by its name. Equal, ordered and hashed by that; its length is the number of jobs that wait to run."""

    job_class: type[Job] = Job
    death_penalty_class: type[BaseDeathPenalty] = UnixSignalDeathPenalty
    DEFAULT_TIMEOUT: ClassVar[int] = 180
    redis_queue_namespace_prefix: str = f"{RQ_KEY_PREFIX}:queue:"
    redis_queues_keys: str = f"{RQ_KEY_PREFIX}:queues"

    def __init__(
        self,
        name: str = "default",
        connection: Any = None,
        default_timeout: int | str | None = None,
        is_async: bool = True,
        job_class: str | type[Job] | None = None,
        serializer: Any = None,
        death_penalty_class: type[BaseDeathPenalty] | None = UnixSignalDeathPenalty,
        **kwargs: Any,
    ) -> None:
        if "async" in kwargs:
            is_async = kwargs["async"]
            warnings.warn("Queue(async=) is deprecated, use is_async=", DeprecationWarning, stacklevel=2)
        self.connection = resolve_connection(connection)
        self.name = check_queue_name(name)
        self.job_class = backend_class(self, "job_class", job_class)
        self.death_penalty_class = death_penalty_class or type(self).death_penalty_class
        self.serializer: Serializer = resolve_serializer(serializer)
        self._is_async = is_async
        self._default_timeout = parse_timeout(default_timeout) or self.DEFAULT_TIMEOUT

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

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

    @classmethod
    def all(
        cls,
        connection: Any = None,
        job_class: type[Job] | None = None,
        serializer: Any = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> list[Queue]:
        """Every queue that a job or a worker has named."""
        connection = resolve_connection(connection)
        app = app_of(connection)
        names = app.client.run(admin.queue_names(app.prefix))
        return [cls(name, connection, None, True, job_class, serializer, death_penalty_class) for name in names]

    @classmethod
    def from_queue_key(
        cls,
        queue_key: str,
        connection: Any = None,
        job_class: type[Job] | None = None,
        serializer: Any = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> Queue:
        """The queue of that `key`; raises ValueError for what is none."""
        name = queue_key.removeprefix(cls.redis_queue_namespace_prefix)
        if name == queue_key:
            raise ValueError(f"Not a valid RQ queue key: {queue_key}")
        return cls(name, connection, None, True, job_class, serializer, death_penalty_class)

    @property
    def key(self) -> str:
        """What RQ calls it on the server. No key has that name here."""
        return f"{self.redis_queue_namespace_prefix}{self.name}"

    @property
    def is_async(self) -> bool:
        return self._is_async

    def get_redis_server_version(self) -> tuple[int, int, int]:
        return get_version(self.connection)

    scheduler_pid = None
    """Every worker enqueues what is due: there is no scheduler."""

    # Enqueue

    @classmethod
    def parse_args(cls, f: Func, *args: Any, **kwargs: Any) -> EnqueueArgs:
        """A call of `enqueue`: RQ's own words are taken out of the keyword arguments; `args=` and `kwargs=` give both in full.

        Raises:
            ValueError: a function of `__main__`, which workers would not find.
        """
        if not isinstance(f, str) and getattr(f, "__module__", None) == "__main__":
            raise ValueError("Functions from the __main__ module cannot be processed by workers")
        own = {name: kwargs.pop(name, None) for name in _OWN_WORDS}
        own |= {name: bool(own[name]) for name in ("at_front", "unique")}
        given: dict[str, Any] = {"args": args, "kwargs": kwargs}
        if "args" in kwargs or "kwargs" in kwargs:
            if args:
                raise TypeError("Extra positional arguments cannot be used when using explicit args and kwargs")
            given = {"args": kwargs.pop("args", None), "kwargs": kwargs.pop("kwargs", None)}
        return EnqueueArgs(func=f, timeout=own.pop("job_timeout"), **own, **given)

    def enqueue(self, f: Func, *args: Any, **kwargs: Any) -> Job:
        """Store a call, to be run by a worker. Its words are those of `parse_args`."""
        return self.enqueue_call(**self.parse_args(f, *args, **kwargs)._asdict())

    def enqueue_at(self, datetime: datetime, f: Func, *args: Any, **kwargs: Any) -> Job:
        """Store a call to run at an instant; one without a time zone is local time."""
        said = self.parse_args(f, *args, **kwargs)._asdict()
        pipeline, unique, at_front = said.pop("pipeline"), said.pop("unique"), said.pop("at_front")
        _see_unique(unique, said["job_id"])
        job = self.create_job(status=JobStatus.SCHEDULED, **said)
        job.enqueue_at_front = at_front or job.enqueue_at_front
        return self.schedule_job(job, datetime, pipeline, unique)

    def enqueue_in(self, time_delta: timedelta, func: Func, *args: Any, **kwargs: Any) -> Job:
        """Store a call to run that much later."""
        return self.enqueue_at(datetime.now().astimezone() + time_delta, func, *args, **kwargs)

    def enqueue_call(
        self,
        func: Func,
        args: tuple[Any, ...] | list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        timeout: int | str | None = None,
        result_ttl: int | str | None = None,
        ttl: int | str | None = None,
        failure_ttl: int | str | None = None,
        description: str | None = None,
        depends_on: Any = None,
        job_id: str | None = None,
        at_front: bool = False,
        meta: dict[str, Any] | None = None,
        retry: Retry | None = None,
        repeat: Repeat | None = None,
        on_success: AnyCallback | None = None,
        on_failure: AnyCallback | None = None,
        on_stopped: AnyCallback | None = None,
        rate_limit: RateLimit | None = None,
        pipeline: Any = None,
        unique: bool = False,
        webhooks: Sequence[Webhook] | None = None,
    ) -> Job:
        """Store a call, its arguments and RQ's words apart."""
        _see_unique(unique, job_id)
        job = self.create_job(
            func, args, kwargs, timeout, result_ttl, ttl, failure_ttl, description, depends_on, job_id, meta,
            retry=retry, repeat=repeat, on_success=on_success, on_failure=on_failure, on_stopped=on_stopped,
            webhooks=webhooks, rate_limit=rate_limit,
        )  # fmt: skip
        return self.enqueue_job(job, pipeline=pipeline, at_front=at_front, unique=unique)

    def create_job(
        self,
        func: Func,
        args: tuple[Any, ...] | list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        timeout: int | str | None = None,
        result_ttl: int | str | None = None,
        ttl: int | str | None = None,
        failure_ttl: int | str | None = None,
        description: str | None = None,
        depends_on: Any = None,
        job_id: str | None = None,
        meta: dict[str, Any] | None = None,
        status: JobStatus = JobStatus.QUEUED,
        retry: Retry | None = None,
        repeat: Repeat | None = None,
        *,
        on_success: AnyCallback | None = None,
        on_failure: AnyCallback | None = None,
        on_stopped: AnyCallback | None = None,
        webhooks: Sequence[Webhook] | None = None,
        group_id: str | None = None,
        rate_limit: RateLimit | None = None,
    ) -> Job:
        """A job that `enqueue_job` can store. Nothing is sent.

        Raises:
            ValueError, TypeError, TimeoutFormatError: naming what is wrong.
        """
        limit_s = parse_timeout(timeout)
        if limit_s == 0:
            raise ValueError("0 timeout is not allowed. Use -1 for infinite timeout")
        ttl = parse_timeout(ttl)
        if ttl is not None and ttl <= 0:
            raise ValueError("Job ttl must be greater than 0")
        job = self.job_class.create(
            func, args, kwargs, self.connection, parse_timeout(result_ttl), ttl, status, description, depends_on,
            self._default_timeout if limit_s is None else limit_s, retry, job_id, self.name, meta,
            parse_timeout(failure_ttl), self.serializer, group_id,
            on_success=on_success, on_failure=on_failure, on_stopped=on_stopped, webhooks=webhooks,
        )  # fmt: skip
        if repeat is not None:
            if not isinstance(repeat, Repeat):
                raise TypeError(f"repeat: expected a Repeat, got {repeat!r:.60}")
            job.repeats_left, job.repeat_intervals = repeat.times, list(repeat.intervals)
        if rate_limit is not None:
            if not isinstance(rate_limit, RateLimit):
                raise TypeError(f"rate_limit: expected a RateLimit, got {rate_limit!r:.60}")
            job.rate_limit_key, job.rate_limit_concurrency = rate_limit.key, rate_limit.concurrency
        return job

    @staticmethod
    def prepare_data(
        func: Func,
        args: tuple[Any, ...] | list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        timeout: int | str | None = None,
        result_ttl: int | str | None = None,
        ttl: int | str | None = None,
        failure_ttl: int | str | None = None,
        description: str | None = None,
        depends_on: Any = None,
        job_id: str | None = None,
        at_front: bool = False,
        meta: dict[str, Any] | None = None,
        retry: Retry | None = None,
        on_success: AnyCallback | None = None,
        on_failure: AnyCallback | None = None,
        on_stopped: AnyCallback | None = None,
        repeat: Repeat | None = None,
        webhooks: Sequence[Webhook] | None = None,
    ) -> EnqueueData:
        """A call for `enqueue_many`."""
        return EnqueueData(
            func, args, kwargs, timeout, result_ttl, ttl, failure_ttl, description, depends_on, job_id, at_front, meta,
            retry, on_success, on_failure, on_stopped, repeat, webhooks,
        )  # fmt: skip

    def enqueue_many(
        self, job_datas: Iterable[EnqueueData], pipeline: Any = None, group_id: str | None = None
    ) -> list[Job]:
        """Store many calls: one round trip a thousand, those that wait for other jobs apart, behind the rest.

        Raises:
            ValueError: two of them have one job_id; nothing is stored.
        """
        _see_no_pipeline(pipeline)
        created: list[tuple[Job, bool]] = []
        seen: set[str] = set()
        for data in job_datas:
            said = data._asdict()
            at_front = said.pop("at_front")
            if data.job_id is not None and data.job_id in seen:
                raise ValueError(f"Job ID {data.job_id!r} appears more than once in enqueue_many()")
            seen.add(data.job_id or "")
            created.append((self.create_job(group_id=group_id, **said), at_front))
        if not self._is_async:
            return [self.enqueue_job(job, at_front=front) for job, front in created]
        plain = [(job, front) for job, front in created if not job._dependency_ids]
        calls = [self.call_of(job, at_front) for job, at_front in plain]
        try:
            handles = app_of(self.connection).enqueue_many(calls)
        except JobExists as error:
            raise DuplicateJobError(str(error)) from error
        for (job, _), handle in zip(plain, handles, strict=True):
            job.stored(handle)
        after = [self.enqueue_job(job, at_front=front) for job, front in created if job._dependency_ids]
        return [job for job, _ in plain] + after

    def enqueue_job(self, job: Job, pipeline: Any = None, at_front: bool = False, unique: bool = False) -> Job:
        """Store a job that `create_job` or `Job.create` has made; one that has ended is run again, one that is scheduled or only saved now.

        Raises:
            ValueError: words that do not go together.
            InvalidJobOperation: it has not ended.
        """
        _see_unique(unique, job._id)
        if unique and job._dependency_ids:
            raise ValueError("unique=True is not supported with job dependencies")
        if unique and job.has_rate_limit:
            raise ValueError("unique=True is not supported with rate-limited jobs")
        if job.has_rate_limit and pipeline is not None:
            raise ValueError("rate-limited jobs cannot be enqueued with a pipeline")
        _see_no_pipeline(pipeline)
        if not job.is_draft:
            return self._run_kept(job) if job.is_kept else self._again(job)
        if not self._is_async:
            if job.has_rate_limit:
                raise ValueError("rate_limit is not supported on synchronous queues (is_async=False)")
            if job.dependencies_are_met():
                return run_here(self, job, is_unique=unique)
        return self._store(self.call_of(job, at_front, unique=unique), job)

    def schedule_job(self, job: Job, datetime: datetime, pipeline: Any = None, unique: bool = False) -> Job:
        """Store a job to run at an instant; one without a time zone is local time."""
        _see_unique(unique, job._id)
        _see_no_pipeline(pipeline)
        if not job.is_draft:
            raise InvalidJobOperation(f"job {job.id} is stored already")
        return self._store(self.call_of(job, False, at=datetime.astimezone(), unique=unique), job)

    def _again(self, job: Job) -> Job:
        job.refresh()
        app = app_of(self.connection)
        if job.origin == self.name and job.get_status(refresh=False) is JobStatus.SCHEDULED:
            app.client.run(ops.run_now(self._keys, job.id))
            job.refresh()
            return job
        if job.origin != self.name or not job.handle.state.is_ended:
            raise InvalidJobOperation(
                f"job {job.id} is stored already: it is {job.get_status(refresh=False).value} in queue {job.origin!r}"
            )
        job.handle.retry()
        job.refresh()
        return job

    def keep(self, job: Job) -> Job:
        """Store a draft that nobody runs before `enqueue_job`: it is scheduled for a day that does not come (not in RQ)."""
        return self._store(self.call_of(job, False, at=datetime.now(UTC) + timedelta(seconds=FOREVER_S)), job)

    def _run_kept(self, job: Job) -> Job:
        """Run a job that was saved, once more if it has ended, with the meta that it has now. One that waits or runs does that already."""
        job.save_meta()
        app = app_of(self.connection)
        state = app.client.run(ops.run_now(queue_keys(job.origin, app.prefix), job.id))
        if state == "ended":
            job.handle.retry()
        elif state != "queued":
            logger.warning(
                "job %s was to be enqueued again, and is %s still: it is not", job.id, job.get_status().value
            )
        job.refresh()
        return job

    def call_of(self, job: Job, at_front: bool, *, at: datetime | None = None, unique: bool = False) -> JobCall[Any]:
        """A draft as a call of headrace's (not in RQ)."""
        job.timeout = self._default_timeout if job.timeout is None else job.timeout
        terms = job.terms()
        data = pack(self.serializer, tuple(job.call))
        meta = pack(self.serializer, job.meta) if job.meta else b""
        options = self.options_of(job)
        if job._dependency_ids:
            options["depends_on"] = self._parents(job)
            options["or_failed"] = bool(job.allow_dependency_failures)
        is_later = at is not None or bool(job._dependency_ids)
        if at is not None:
            options["at"] = at
        if at_front or job.enqueue_at_front:
            # Of jobs that start later, those with a priority go before all that have none.
            options |= {"priority": 1} if is_later else {"at_front": True}
        app = app_of(self.connection)
        target = app.queue(self.name).options(**options)
        if job._id is not None and not unique:
            self.forget_ended(job._id)
        return target.call(TASK, data, job.call.name, meta, terms.packed())

    def _store(self, call: JobCall[Any], job: Job) -> Job:
        try:
            handle = app_of(self.connection).send(call)
        except JobExists as error:
            raise DuplicateJobError(f"job {job.id} is there already") from error
        except DependencyError as error:
            raise InvalidJobDependency(str(error)) from error
        job.stored(handle)
        return job

    def options_of(self, job: Job) -> dict[str, Any]:
        """What a draft says as options of headrace's, but for the jobs it waits for (not in RQ)."""
        limit_s = job.timeout or self._default_timeout
        keep_failed_s = DEFAULT_FAILURE_TTL if job.failure_ttl is None else job.failure_ttl
        found: dict[str, Any] = {
            "timeout": None if limit_s < 0 else limit_s,
            "failure_ttl": FOREVER_S if keep_failed_s < 0 else keep_failed_s,
        }
        if job.result_ttl is not None:  # else the worker's default counts
            found["result_ttl"] = FOREVER_S if job.result_ttl < 0 else job.result_ttl
        if job.ttl is not None:
            found["expires"] = job.ttl
        if job._id is not None:
            found["job_id"] = job._id
        if job.description:
            found["description"] = str(job.description)[:DESCRIPTION_CHARS_MAX]
        if job.retries_left and not job.repeats_left:
            waits = [Retry.get_interval(n, job.retry_intervals) for n in range(job.retries_left)]
            found["retry"] = Policy(waits, at_front=job.enqueue_at_front_on_retry)
        if job.rate_limit_key and job.rate_limit_concurrency:
            found["limits"] = limit_of(job.rate_limit_key, job.rate_limit_concurrency)
        return found

    def _parents(self, job: Job) -> list[Any]:
        try:
            return [
                one.handle if isinstance(one, Job) else Job.fetch(one, self.connection).handle
                for one in job._dependencies
            ]
        except NoSuchJobError as error:
            raise InvalidJobDependency(str(error)) from error

    def forget_ended(self, job_id: str) -> None:
        """An id may be used again once its job has ended, as in RQ (not in RQ)."""
        try:
            old = app_of(self.connection).job(job_id, self.name)
        except JobNotFound:
            return
        if old.state.is_ended:
            old.delete()

    def run_sync(self, job: Job) -> Job:
        """Run a draft here and now, and store what became of it: what a queue with `is_async=False` does with each."""
        return run_here(self, job)

    run_job = run_sync

    # Look

    @property
    def _keys(self) -> QueueKeys:
        return queue_keys(self.name, app_of(self.connection).prefix)

    def counts(self) -> admin.QueueCounts:
        """How many of its jobs stand where (not in RQ)."""
        return app_of(self.connection).client.run(admin.count_jobs(self._keys))

    @property
    def count(self) -> int:
        """How many jobs wait to run."""
        return self.counts().queued

    def is_empty(self) -> bool:
        return self.count == 0

    def get_job_ids(self, offset: int = 0, length: int = -1) -> list[str]:
        """The ids of the jobs that wait to run, next first; `length` -1: all."""
        ids = [row.id for row in self.rows_in(frozenset({State.QUEUED}))]
        return ids[offset:] if length < 0 else ids[offset : offset + length]

    def rows_in(self, states: frozenset[State], place: str = "") -> list[admin.Row]:
        """Its jobs in these states, of one place only if that is named (not in RQ)."""
        found: list[admin.Row] = []
        cursor, client = f"{place}:0" if place else "", app_of(self.connection).client
        while True:
            page = client.run(admin.list_jobs(self._keys, states, cursor=cursor, limit=1000))
            found += page.rows
            cursor = page.cursor
            if not cursor:
                return found

    def get_jobs(self, offset: int = 0, length: int = -1) -> list[Job]:
        return compact(self.fetch_job(job_id) for job_id in self.get_job_ids(offset, length))

    @property
    def job_ids(self) -> list[str]:
        return self.get_job_ids()

    @property
    def jobs(self) -> list[Job]:
        return self.get_jobs()

    def fetch_job(self, job_id: str) -> Job | None:
        """The job of that id, if it is of this queue."""
        job = self.job_class(None, self.connection, self.serializer)
        job._id = job_id
        try:
            job._look(self.name)
        except NoSuchJobError:
            return None
        return job

    def get_job_position(self, job_or_id: Job | str) -> int | None:
        """0 for the job that is next; None when it does not wait."""
        wanted = job_or_id.id if isinstance(job_or_id, Job) else job_or_id
        ids = self.get_job_ids()
        return ids.index(wanted) if wanted in ids else None

    # Change

    def remove(self, job_or_id: Job | str, pipeline: Any = None) -> int:
        """A job that waits here does not run: it is cancelled. Returns 1, or 0 when it does not wait here."""
        _see_no_pipeline(pipeline)
        job = self.fetch_job(job_or_id.id if isinstance(job_or_id, Job) else job_or_id)
        if job is None or job.get_status(refresh=False) is not JobStatus.QUEUED:
            return 0
        return int(job.handle.cancel())

    def empty(self) -> int:
        """Delete the jobs that wait to run; returns how many."""
        return app_of(self.connection).client.run(admin.purge(self._keys, State.QUEUED))

    def delete(self, delete_jobs: bool = True) -> None:
        """Take it off the list of queues, with the jobs that wait to run; others, and a worker on it, keep it there."""
        if delete_jobs:
            self.empty()
        counts = self.counts()
        if counts.live == 0 and counts.sessions == 0:
            app = app_of(self.connection)
            app.client.run(admin.forget_queue_name(app.prefix, self.name))
            forget_app(self.connection)  # so that the next job puts it on the list again

    def compact(self) -> None:
        """Nothing: there are no dead entries here."""

    # Registries

    def _registry(self, name: str) -> Any:
        from headrace.contrib.rq import registry

        kind: type[BaseRegistry] = getattr(registry, name)
        return kind(queue=self, job_class=self.job_class, serializer=self.serializer)

    @property
    def failed_job_registry(self) -> FailedJobRegistry:
        return self._registry("FailedJobRegistry")  # type: ignore[no-any-return]

    @property
    def started_job_registry(self) -> StartedJobRegistry:
        return self._registry("StartedJobRegistry")  # type: ignore[no-any-return]

    @property
    def finished_job_registry(self) -> FinishedJobRegistry:
        return self._registry("FinishedJobRegistry")  # type: ignore[no-any-return]

    @property
    def deferred_job_registry(self) -> DeferredJobRegistry:
        return self._registry("DeferredJobRegistry")  # type: ignore[no-any-return]

    @property
    def ready_job_registry(self) -> ReadyJobRegistry:
        return self._registry("ReadyJobRegistry")  # type: ignore[no-any-return]

    @property
    def scheduled_job_registry(self) -> ScheduledJobRegistry:
        return self._registry("ScheduledJobRegistry")  # type: ignore[no-any-return]

    @property
    def canceled_job_registry(self) -> CanceledJobRegistry:
        return self._registry("CanceledJobRegistry")  # type: ignore[no-any-return]

    # What is the engine's own

    push_job_id = missing("Queue.push_job_id", "enqueue_job stores a job, and puts it in its place")
    pop_job_id = missing("Queue.pop_job_id", "a worker claims jobs, so that none is lost")
    lpop = missing("Queue.lpop", "a worker claims jobs, so that none is lost")
    lmove = missing("Queue.lmove", "a worker claims jobs, so that none is lost")
    dequeue_any = missing("Queue.dequeue_any", "a worker claims jobs, so that none is lost")
    setup_dependencies = missing("Queue.setup_dependencies", "enqueue_job does that")
    enqueue_dependents = missing("Queue.enqueue_dependents", "a job's end starts those that wait for it, in one step")
    move_dependents_to_ready = missing("Queue.move_dependents_to_ready", "a job's end starts those that wait for it")
    enqueue_ready_jobs_by_queue = missing("Queue.enqueue_ready_jobs_by_queue", "there are no jobs between two places")
    acquire_maintenance_lock = missing("Queue.acquire_maintenance_lock", "every worker tends its queues, none alone")
    release_maintenance_lock = missing("Queue.release_maintenance_lock", "every worker tends its queues, none alone")
    intermediate_queue = property(
        missing("Queue.intermediate_queue", "what a worker has claimed is in started_job_registry")
    )
    intermediate_queue_key = property(
        missing("Queue.intermediate_queue_key", "what a worker has claimed is in started_job_registry")
    )


_OWN_WORDS = (
    "job_timeout", "description", "result_ttl", "ttl", "failure_ttl", "depends_on", "job_id", "at_front", "meta", "retry",
    "repeat", "on_success", "on_failure", "on_stopped", "rate_limit", "webhooks", "pipeline", "unique",
)  # fmt: skip


def _see_unique(unique: bool, job_id: str | None) -> None:
    if unique and not job_id:
        raise ValueError("unique=True requires an explicit job_id")


def _see_no_pipeline(pipeline: Any) -> None:
    if pipeline is not None:
        not_offered(
            "pipeline=", "a job is stored at once, by headrace's own connection; enqueue_many takes many in one call"
        )
