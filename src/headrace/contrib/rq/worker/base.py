"""`rq.worker.base`: a worker before, while and after it works; and one of another process, as that shows itself.

1. `work()` makes this process a headrace supervisor, which forks the processes that run jobs: they have this Worker, too.
2. There, `run_attempt` gives each job to `execute_job`, and so to `main_work_horse`, `perform_job`, and what these call.
3. What a job came to is written by headrace, when `run_attempt` has returned or raised.

So each of these methods may be overridden. One that would never be called is refused where the worker is made: see `UNCALLED`.
(Larger than a class should be: these are the names that RQ's users know.)
"""

from __future__ import annotations

import functools
import logging
import os
import random
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from enum import Enum
from typing import Any, ClassVar, Self
from uuid import uuid4

import redis

from headrace.context import current_job
from headrace.contrib.rq import runner, suspension, worker_registration
from headrace.contrib.rq.connections import resolve_connection, url_of
from headrace.contrib.rq.defaults import (
    DEFAULT_JOB_MONITORING_INTERVAL,
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
    DEFAULT_MAINTENANCE_TASK_INTERVAL,
    DEFAULT_RESULT_TTL,
    DEFAULT_WORKER_TTL,
    RQ_KEY_PREFIX,
)
from headrace.contrib.rq.exceptions import DeserializationError, StopRequested, missing, not_offered
from headrace.contrib.rq.executions import Execution
from headrace.contrib.rq.job import Job, JobStatus, get_current_job
from headrace.contrib.rq.logutils import blue, green, setup_loghandlers
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.serializers import resolve_serializer
from headrace.contrib.rq.timeouts import (
    JobTimeoutException,
    TimerDeathPenalty,
    UnixSignalDeathPenalty,
    get_default_death_penalty_class,
)
from headrace.contrib.rq.utils import ensure_job_list, get_version, import_attribute, now, utcformat
from headrace.contrib.rq.version import VERSION
from headrace.engine.admin import Worker as Seen
from headrace.engine.keys import check_queue_name
from headrace.errors import JobCancelled
from headrace.events import Event
from headrace.worker import spawner, supervisor
from headrace.worker.config import WorkerConfig, new_worker_id

logger = logging.getLogger("rq.worker")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)  # as RQ does, whose users read these lines
_ENDED_WELL = (supervisor.OK, supervisor.INTERRUPTED, supervisor.TERMINATED)
_TOLD_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}

UNCALLED = {
    "dequeue_job_and_maintain_ttl": "jobs are claimed by headrace's consumers",
    "reorder_queues": "give work() a dequeue_strategy",
    "fork_work_horse": "headrace forks the processes of jobs",
    "monitor_work_horse": "a supervisor watches the processes of jobs",
    "wait_for_horse": "a supervisor watches the processes of jobs",
    "kill_horse": "send_kill_horse_command stops what runs",
    "maintain_heartbeats": "a supervisor renews the leases of what runs",
    "heartbeat": "a supervisor shows that its worker is there",
    "get_heartbeat_ttl": "a supervisor renews the leases of what runs",
    "run_maintenance_tasks": "every supervisor tends its queues once a second",
    "clean_registries": "every supervisor tends its queues once a second",
    "clean_group_registries": "every supervisor tends its queues once a second",
    "request_stop": "signals are the supervisor's: the running job may finish",
    "request_force_stop": "signals are the supervisor's: a second one hands the job back",
    "handle_warm_shutdown_request": "signals are the supervisor's",
    "subscribe": "commands reach a supervisor with its next beat",
    "unsubscribe": "commands reach a supervisor with its next beat",
    "handle_payload": "commands reach a supervisor with its next beat",
    "request_stop_execution": "send_stop_execution_command stops what runs",
    "request_stop_sigrtmin": "signals are the supervisor's: a stopped job is handed back",
    "request_force_stop_sigrtmin": "signals are the supervisor's: a stopped job is handed back",
    "set_shutdown_requested_date": "a supervisor shows when it was told to stop",
    "cleanup_execution": "a job's end is written in one step",
    "increment_failed_job_count": "a supervisor counts what its processes run",
    "increment_successful_job_count": "a supervisor counts what its processes run",
    "increment_total_working_time": "a supervisor counts what its processes run",
    "stop_scheduler": "scheduled jobs need no process of their own",
    "setup_work_horse_signals": "signals are the supervisor's",
}
"""Methods of RQ's that nothing here calls, and why."""


class DequeueStrategy(str, Enum):  # noqa: UP042, RUF100 - as in RQ
    """In what order queues are served. The last two give each queue the same share."""

    DEFAULT = "default"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"


class WorkerStatus(str, Enum):  # noqa: UP042, RUF100 - as in RQ
    """What a worker does."""

    STARTED = "started"
    SUSPENDED = "suspended"
    BUSY = "busy"
    IDLE = "idle"


class BaseWorker:
    """Serves queues, in strict order unless told otherwise, until it is told to stop.

    Where it works its process is a headrace supervisor: it collects every child process, so it should have no others.

    Attributes:
        successful_job_count, failed_job_count, total_working_time: of a worker that `find_by_key`, `all` or `refresh` looked up; runs
            that failed count also when they are tried again.
    """

    redis_worker_namespace_prefix = f"{RQ_KEY_PREFIX}:worker:"
    redis_workers_keys = worker_registration.REDIS_WORKER_KEYS
    death_penalty_class: ClassVar[Any] = get_default_death_penalty_class()
    queue_class: Any = Queue
    job_class: Any = Job
    log_result_lifespan = True
    log_job_description = True
    exponential_backoff_factor = 2.0
    max_connection_wait_time = 60.0
    should_run_maintenance_tasks = False
    """Of the supervisor's duties: nobody else has to."""

    pool: ClassVar[str] = "fork"
    grace_s: ClassVar[float] = 25.0
    """How long a job may go on when the worker is told to stop; then it is handed back (not in RQ)."""
    strategy: ClassVar[DequeueStrategy | None] = None
    """Instead of what `work()` is given (not in RQ)."""

    def __init__(
        self,
        queues: Queue | str | Iterable[Queue | str],
        name: str | None = None,
        default_result_ttl: int = DEFAULT_RESULT_TTL,
        connection: Any = None,
        exception_handlers: Any = None,
        maintenance_interval: int = DEFAULT_MAINTENANCE_TASK_INTERVAL,
        default_worker_ttl: int | None = None,
        worker_ttl: int | None = None,
        job_class: Any = None,
        queue_class: Any = None,
        log_job_description: bool = True,
        job_monitoring_interval: int = DEFAULT_JOB_MONITORING_INTERVAL,
        disable_default_exception_handler: bool = False,
        prepare_for_work: bool = True,
        serializer: Any = None,
        work_horse_killed_handler: Callable[..., Any] | None = None,
    ) -> None:
        _refuse_uncalled(type(self))
        if disable_default_exception_handler:
            not_offered(
                "Worker(disable_default_exception_handler=True)",
                "a job that has failed is kept; give it a short failure_ttl where it is enqueued",
            )
        if default_worker_ttl is not None and worker_ttl is None:
            warnings.warn("default_worker_ttl is deprecated, use worker_ttl", DeprecationWarning, stacklevel=2)
        self.default_result_ttl = default_result_ttl
        self.maintenance_interval = maintenance_interval
        self.worker_ttl = worker_ttl or default_worker_ttl or DEFAULT_WORKER_TTL
        self.job_monitoring_interval = job_monitoring_interval
        self.log_job_description = log_job_description
        self.disable_default_exception_handler = False
        for word, given in (("job_class", job_class), ("queue_class", queue_class)):
            if given is not None:
                setattr(self, word, import_attribute(given) if isinstance(given, str) else given)
        # All of them first: an iterator has each queue only once.
        several = ensure_job_list(queues)
        owned = [queue for queue in several if isinstance(queue, Queue)]
        self.connection = resolve_connection(connection or (owned[0].connection if owned else None))
        self.serializer = resolve_serializer(serializer or (owned[0].serializer if owned else None))
        self.queues: list[Any] = [self._queue(queue) if isinstance(queue, str) else queue for queue in several]
        self.validate_queues()
        self.name = name or uuid4().hex
        self.log = logger
        self.version: str = VERSION
        self.python_version: str = sys.version
        self.hostname: str | None = socket.gethostname() if prepare_for_work else None
        self.pid: int | None = os.getpid() if prepare_for_work else None
        self.ip_address: str | None = self._own_address() if prepare_for_work else "unknown"
        self.birth_date: datetime | None = None
        self.last_heartbeat: datetime | None = None
        self.death_date: datetime | None = None
        self.shutdown_requested_date: datetime | None = None
        self.successful_job_count = 0
        self.failed_job_count = 0
        self.total_working_time = 0.0
        self.last_cleaned_at: datetime | None = None
        self.scheduler: Any = None
        self.executions: dict[str, Execution] = {}
        self._seen_executions: list[Execution] = []
        self._state: str = "starting"
        self._is_horse = False
        self._work_horse_killed_handler = work_horse_killed_handler
        self._exc_handlers: list[Callable[..., Any]] = []
        self._attempt: runner.Attempt | None = None
        if exception_handlers is not None:
            is_several = isinstance(exception_handlers, (list, tuple))
            for handler in exception_handlers if is_several else [exception_handlers]:
                self.push_exc_handler(handler)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"headrace.contrib.rq has no {type(self).__name__}.{name}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseWorker):
            raise TypeError("Cannot compare workers to other types (of workers)")
        return self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def _queue(self, name: str) -> Any:
        return self.queue_class(name, connection=self.connection, job_class=self.job_class, serializer=self.serializer)

    def _own_address(self) -> str:
        try:
            return str(self.connection.client_info()["addr"])
        except (redis.RedisError, KeyError):
            return "unknown"  # the server is away, or does not allow that

    def validate_queues(self) -> None:
        """Raises TypeError for what is no queue."""
        for queue in self.queues:
            if not isinstance(queue, Queue):
                raise TypeError(f"{queue!r:.80} is no queue, nor the name of one")

    def queue_names(self) -> list[str]:
        return [queue.name for queue in self.queues]

    def queue_keys(self) -> list[str]:
        return [queue.key for queue in self.queues]

    @property
    def key(self) -> str:
        return f"{self.redis_worker_namespace_prefix}{self.name}"

    @property
    def executions_key(self) -> str:
        return f"{self.key}:executions"

    @property
    def pubsub_channel_name(self) -> str:
        return f"{RQ_KEY_PREFIX}:pubsub:{self.name}"

    @property
    def dequeue_timeout(self) -> int:
        return max(1, self.worker_ttl - 15)

    @property
    def connection_timeout(self) -> int:
        return self.dequeue_timeout + 10

    def serialize(self) -> dict[str, Any]:
        """What it says of itself before it works."""
        return {
            "birth": utcformat(self.birth_date) if self.birth_date else None,
            "last_heartbeat": utcformat(self.last_heartbeat) if self.last_heartbeat else None,
            "queues": ",".join(self.queue_names()), "pid": self.pid, "hostname": self.hostname,
            "ip_address": self.ip_address, "version": self.version, "python_version": self.python_version,
        }  # fmt: skip

    # Other workers, and this one as it shows itself

    @classmethod
    def find_by_key(
        cls, worker_key: str, connection: Any, job_class: Any = None, queue_class: Any = None, serializer: Any = None
    ) -> Self | None:
        """The worker with that key, `rq:worker:NAME`; None: none of that name is there.

        Raises:
            ValueError: it is no worker's key.
        """
        prefix = cls.redis_worker_namespace_prefix
        if not worker_key.startswith(prefix):
            raise ValueError(f"Not a valid RQ worker key: {worker_key}")
        seen = worker_registration.find(connection, worker_key.removeprefix(prefix))
        if seen is None:
            return None
        return cls._of(seen, suspension.is_suspended(connection), connection, job_class, queue_class, serializer)

    @classmethod
    def all(
        cls,
        connection: Any = None,
        job_class: Any = None,
        queue_class: Any = None,
        queue: Any = None,
        serializer: Any = None,
    ) -> list[Self]:
        """The workers that are there; of one queue, those that serve it."""
        connection = worker_registration.connection_of(queue, connection)
        every = worker_registration.seen(queue, connection)
        is_held = bool(every) and suspension.is_suspended(connection)
        return [cls._of(seen, is_held, connection, job_class, queue_class, serializer) for seen in every]

    @classmethod
    def all_keys(cls, connection: Any = None, queue: Any = None) -> list[str]:
        return sorted(worker_registration.get_keys(queue, connection))

    @classmethod
    def count(cls, connection: Any = None, queue: Any = None) -> int:
        return len(worker_registration.get_keys(queue, connection))

    @classmethod
    def _of(cls, seen: Seen, is_held: bool, connection: Any, job_class: Any, queue_class: Any, serializer: Any) -> Self:
        worker = cls(
            [], worker_registration.name_of(seen), connection=connection, job_class=job_class, queue_class=queue_class,
            prepare_for_work=False, serializer=serializer,
        )  # fmt: skip
        worker._see(seen, is_held)
        return worker

    def refresh(self) -> None:
        """Look at what the worker tells of itself; it does so every 5 s."""
        seen = worker_registration.find(self.connection, self.name)
        if seen is None:
            self.death_date = self.death_date or (now() if self.birth_date else None)
        else:
            self._see(seen, suspension.is_suspended(self.connection))

    def _see(self, seen: Seen, is_held: bool) -> None:
        """`is_held`: workers are suspended."""
        info = seen.info
        self.hostname, self.pid = info.get("host"), info.get("pid")
        self.python_version = info.get("python", self.python_version)
        self.birth_date = _instant(info.get("started_at_ms"))
        self.last_heartbeat = _instant(seen.beat_at_ms)
        self.shutdown_requested_date = _instant(info.get("told_to_stop_at_ms"))
        self.successful_job_count = int(info.get("succeeded", 0))
        self.failed_job_count = int(info.get("failed", 0))
        self.total_working_time = info.get("run_ms", 0) / 1000
        self.queues = [self._queue(name) for name in info.get("queues", ())]
        ids = [str(place).partition("/")[2] for place in info.get("jobs", ())]
        self._seen_executions = [Execution("", job_id, self.connection, self.name) for job_id in ids]
        is_held = is_held or info.get("state") == "quiet"
        self._state = (WorkerStatus.BUSY if ids else WorkerStatus.SUSPENDED if is_held else WorkerStatus.IDLE).value

    def get_state(self) -> str:
        """Starting, then the word of a WorkerStatus."""
        return self._state

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Of this object only: what others see is what the worker does."""
        self._state = state

    def _get_state(self) -> str:
        warnings.warn("worker.state is deprecated, use worker.get_state()", DeprecationWarning, stacklevel=2)
        return self.get_state()

    def _set_state(self, state: str) -> None:
        warnings.warn("worker.state is deprecated, use worker.set_state()", DeprecationWarning, stacklevel=2)
        self.set_state(state)

    state = property(_get_state, _set_state)

    def get_current_executions(self, refresh: bool = False) -> list[Execution]:
        """What the worker runs; in a job, that."""
        if refresh and not self.executions:
            self.refresh()
        return list(self.executions.values()) or self._seen_executions

    @property
    def current_execution_count(self) -> int:
        return len(self.get_current_executions(refresh=True))

    @property
    def execution(self) -> Execution | None:
        """One of what it runs."""
        return next(iter(self.get_current_executions()), None)

    def get_current_job_id(self) -> str | None:
        execution = self.execution
        return None if execution is None else execution.job_id

    def get_current_job(self) -> Any:
        """The job that it runs, or one of them; None: none."""
        job_id = self.get_current_job_id()
        return None if job_id is None else self.job_class.fetch(job_id, self.connection, self.serializer)

    def get_redis_server_version(self) -> tuple[int, int, int]:
        return get_version(self.connection)

    # Work

    def work(
        self,
        burst: bool = False,
        logging_level: str | int | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: DequeueStrategy | str = DequeueStrategy.DEFAULT,
    ) -> bool:
        """Run jobs until stopped, or with `burst` until none is left; True if it ran any.

        A stop lets the running job finish within `grace_s`; a second one hands it back. Scheduled jobs are always run.

        Args:
            max_jobs: end after so many. `max_idle_time`: end when there was none for so many seconds.

        Raises:
            ValueError: a worker of this name is there; an unknown strategy or level.
            SystemExit: it cannot start; it has said why.
        """
        strategy = self.strategy or _checked_strategy(dequeue_strategy)
        if not self.queues:
            raise ValueError("a worker needs one queue or more")
        config = self._config(burst, logging_level, max_jobs, max_idle_time, strategy)
        self.bootstrap(logging_level, date_format, log_format)
        try:
            self.check_for_suspension(burst)
            ended = self._supervise(config)
        except StopRequested:
            return False
        finally:
            self.teardown()
        if ended.code not in _ENDED_WELL:
            raise SystemExit(ended.code)
        return ended.jobs > 0

    def _config(
        self, burst: bool, level: str | int | None, jobs: int | None, idle_s: int | None, strategy: DequeueStrategy
    ) -> WorkerConfig:
        names = [check_queue_name(name) for name in self.queue_names()]
        return WorkerConfig(
            app_path="",
            worker_id=new_worker_id(self.name),
            name=self.name,
            pool=self.pool,
            queues=names,
            weights=None if strategy is DequeueStrategy.DEFAULT else dict.fromkeys(names, 1),
            url=url_of(self.connection),
            burst=burst,
            max_jobs=jobs or 0,
            jobs_in_all=jobs or 0,
            max_idle_ms=int((idle_s or 0) * 1000),
            grace_ms=int(self._grace_s() * 1000),
            log_level=_log_level(level),
        )

    def _grace_s(self) -> float:
        return self.grace_s

    def _supervise(self, config: WorkerConfig) -> supervisor.Ended:
        """Be the supervisor, whose children are forks of this process."""
        return supervisor.run_counting(config, functools.partial(spawner.serve, runner.serve(self)))

    def bootstrap(
        self,
        logging_level: str | int | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """Set up RQ's loggers, and register."""
        for name in ("rq.worker", "rq.job"):
            setup_loghandlers(logging_level, date_format, log_format, name)
        logging.getLogger("headrace.job").setLevel(logging.CRITICAL)  # RQ's own lines tell of each job
        self.register_birth()
        self.log.info("Worker %s: started with PID %d, version %s", self.name, os.getpid(), VERSION)
        self.set_state(WorkerStatus.STARTED)
        self.log.info("*** Listening on %s...", green(", ".join(self.queue_names())))

    def register_birth(self) -> None:
        """See that no other worker has this name; the supervisor shows the worker from then on.

        Raises:
            ValueError
        """
        other = worker_registration.find(self.connection, self.name)
        if other is not None and worker_registration.is_alive(other):
            raise ValueError(f"There exists an active worker named {self.name!r} already")
        self.birth_date = self.last_heartbeat = now()
        self.pid = os.getpid()

    def register_death(self) -> None:
        """The supervisor has left; note when."""
        self.death_date = now()

    def teardown(self) -> None:
        """After work."""
        self.register_death()

    def check_for_suspension(self, burst: bool) -> None:
        """Where workers are suspended, so are this one's queues: it runs none of their jobs before somebody resumes.

        Raises:
            StopRequested: with `burst`, since there is nothing to wait for.
        """
        if not suspension.join(self.connection, self.queue_names()):
            return
        if burst:
            self.log.info("Worker %s: suspended in burst mode, exiting; there may be jobs in the queue", self.name)
            raise StopRequested
        self.log.info("Worker %s: suspended, run `headrace rq resume` to resume", self.name)
        self.set_state(WorkerStatus.SUSPENDED)

    def procline(self, message: str) -> None:
        """RQ's name for this process in `ps`; headrace's processes keep theirs."""

    # In the process that runs a job

    @property
    def is_horse(self) -> bool:
        """Whether this is the process that runs a job."""
        return self._is_horse

    @property
    def horse_pid(self) -> int:
        """0: only the supervisor knows the processes of jobs."""
        return 0

    def run_attempt(self, attempt: runner.Attempt) -> bytes:
        """One run of one job, from `execute_job` down; what it gave, serialized (not in RQ).

        Raises:
            BaseException: what the job raised, or what has it run again.
        """
        job = get_current_job()
        assert job is not None, "only a job's run gets here"
        execution = self.prepare_execution(job)
        os.environ["RQ_WORKER_ID"], os.environ["RQ_JOB_ID"] = self.name, job.id
        os.environ["RQ_EXECUTION_ID"] = execution.id
        self._attempt = attempt
        try:
            self.execute_job(job, self._queue(job.origin))
        except Exception:
            if not attempt.has_ended:
                raise
            self.log.exception("Worker %s: job %s had ended when this was raised", self.name, job.id)
        finally:
            self.executions.clear()
            self._attempt = None
        return attempt.outcome()

    def prepare_execution(self, job: Any) -> Execution:
        """Note what runs here."""
        execution = Execution(current_job().session, job.id, self.connection, self.name)
        self.executions = {execution.id: execution}
        job.worker_name = self.name
        self.set_state(WorkerStatus.BUSY)
        return execution

    def execute_job(self, job: Any, queue: Any) -> None:
        """Run a job, in its own process already."""
        self.main_work_horse(job, queue)
        self.set_state(WorkerStatus.IDLE)

    def main_work_horse(self, job: Any, queue: Any) -> None:
        """The first thing in a job's process. It returns, since that process has to tell what the job gave."""
        random.seed()
        self._is_horse = True
        execution = self.execution
        assert execution is not None, "prepare_execution notes it"
        self.perform_job(job, queue, execution)

    def prepare_job_execution(self, job: Any, remove_from_intermediate_queue: bool = False) -> None:
        """Say what runs."""
        what = f"{job.description} ({job.id})" if self.log_job_description else job.id
        self.log.info("Worker %s: %s: %s", self.name, green(job.origin), blue(what))

    def perform_job(self, job: Any, queue: Any, execution: Execution) -> bool:
        """Call the job's function, then what is to be called at its end; False: it raised."""
        attempt = self._attempt
        assert attempt is not None, "perform_job() is called by execute_job(), in a job's process"
        try:
            self.prepare_job_execution(job)
            job.started_at = now()
            with self._time_limit(job):
                returned = attempt.perform(job)
            self.handle_execution_ended(job, queue, job.success_callback_timeout)
            attempt.give(returned)
        except BaseException as error:
            self._tell_failure(attempt, job, queue, execution, error)
            return False
        if attempt.retry is not None:
            self.handle_job_retry(job, queue, attempt.retry, queue.started_job_registry, execution)
            return True
        job._status = JobStatus.FINISHED
        self.handle_job_success(job, queue, queue.started_job_registry, execution)
        self._tell_success(job, returned)
        return True

    def _time_limit(self, job: Any) -> AbstractContextManager[Any]:
        """Headrace keeps a job's time; a class of the user's own is used beside it."""
        if self.death_penalty_class in (UnixSignalDeathPenalty, TimerDeathPenalty):
            return nullcontext()
        seconds = job.timeout or self.queue_class.DEFAULT_TIMEOUT
        found: AbstractContextManager[Any] = self.death_penalty_class(seconds, JobTimeoutException, job_id=job.id)
        return found

    def _tell_failure(
        self, attempt: runner.Attempt, job: Any, queue: Any, execution: Execution, error: BaseException
    ) -> None:
        self.handle_execution_ended(job, queue, job.failure_callback_timeout)
        attempt.raised(error)
        trace = "".join(traceback.format_exception(error))
        if isinstance(error, JobCancelled):
            job._status, trace = JobStatus.STOPPED, "Job stopped by user."
        else:
            job._status = JobStatus.FAILED
            self.handle_exception(job, type(error), error, error.__traceback__)
        self.handle_job_failure(job, queue, queue.started_job_registry, trace, execution)

    def _tell_success(self, job: Any, returned: Any) -> None:
        what = job.description if self.log_job_description else f"job {job.id}"
        taken = job.ended_at - job.started_at
        self.log.info("Successfully completed %s in %ss on worker %s", what, taken, self.name)
        self.log.info("Worker %s: %s: %s (%s)", self.name, green(job.origin), blue("Job OK"), job.id)
        if returned is not None:
            self.log.debug("Worker %s: result: %r", self.name, returned)
        if self.log_result_lifespan:
            ttl = job.get_result_ttl(self.default_result_ttl)
            kept = "discarded immediately" if ttl == 0 else "kept" if ttl < 0 else f"kept for {ttl} seconds"
            self.log.info("Worker %s: job %s result is %s", self.name, job.id, kept)

    def handle_execution_ended(self, job: Any, queue: Any, heartbeat_ttl: int) -> None:
        """Note when."""
        job.ended_at = now()

    def handle_job_success(self, job: Any, queue: Any, started_job_registry: Any, execution: Execution) -> None:
        """Called when a job has finished. Its result is written after that."""

    def handle_job_failure(
        self,
        job: Any,
        queue: Any,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Called when a run has failed, also when it is tried again. What becomes of the job is written after that."""

    def handle_job_retry(
        self, job: Any, queue: Any, retry: Any, started_job_registry: Any, execution: Execution
    ) -> None:
        """Called when a job is run again though it did not fail: it returned a Retry, or repeats."""

    def handle_exception(self, job: Any, *exc_info: Any) -> None:
        """Log what a job raised, and call the exception handlers in their order; one that returns False ends that."""
        try:
            extra = {"func": job.func_name, "arguments": job.args, "kwargs": job.kwargs}
            name = job.func_name
        except DeserializationError:
            extra, name = {}, "<DeserializationError>"
        extra.update(queue=job.origin, job_id=job.id)
        text = "".join(traceback.format_exception(*exc_info))
        self.log.error(
            "Worker %s: job %s: exception raised while executing (%s)\n%s", self.name, job.id, name, text, extra=extra
        )
        for handler in self._exc_handlers:
            answer = handler(job, *exc_info)
            if answer is not None and not answer:
                break

    def push_exc_handler(self, handler_func: Callable[..., Any]) -> None:
        """Call this `f(job, type, value, traceback)` for each job that raises, after those that are there."""
        if not callable(handler_func):
            raise TypeError(f"an exception handler is a function, not {handler_func!r:.60}")
        self._exc_handlers.append(handler_func)

    def pop_exc_handler(self) -> Callable[..., Any]:
        return self._exc_handlers.pop()

    def lost(self, event: Event) -> None:
        """A job's process has ended before the job (not in RQ)."""
        assert event.process is not None, "this event tells how"
        job = self.job_class.fetch(event.job_id, runner.worker_connection(), self.serializer)
        end = event.process
        self.handle_work_horse_killed(job, end.pid, end.status, end.usage)

    def handle_work_horse_killed(self, job: Any, retpid: int, ret_val: int, rusage: Any) -> None:
        """Called when a job's process has ended before the job: the job is run again, alone, and failed the third time."""
        self.log.warning("Work horse killed for job %s: retpid=%s, ret_val=%s", job.id, retpid, ret_val)
        if self._work_horse_killed_handler is not None:
            self._work_horse_killed_handler(job, retpid, ret_val, rusage)


for _name, _why in UNCALLED.items():
    setattr(BaseWorker, _name, missing(f"Worker.{_name}", _why))


def _refuse_uncalled(kind: type[BaseWorker]) -> None:
    """Raises NotImplementedError for a subclass that overrides what is never called: it would be ignored silently."""
    for base in kind.__mro__:
        if base.__module__.startswith("headrace.contrib.rq"):
            continue
        for name in UNCALLED:
            if name in vars(base):
                raise NotImplementedError(
                    f"{base.__name__}.{name} would never be called by headrace.contrib.rq: {UNCALLED[name]}"
                )


def _checked_strategy(given: DequeueStrategy | str) -> DequeueStrategy:
    try:
        return DequeueStrategy(given)
    except ValueError:
        raise ValueError(
            f"Dequeue strategy {given} is not allowed. Use `default`, `random` or `round_robin`."
        ) from None


def _log_level(level: str | int | None) -> str:
    if level is None:
        return "info"
    name = logging.getLevelName(level) if isinstance(level, int) else level.upper()
    if name not in _TOLD_LEVELS:
        raise ValueError(f"logging_level: unknown level {level!r}")
    return _TOLD_LEVELS[name]


def _instant(at_ms: int | None) -> datetime | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None


def signal_name(signum: int) -> str:
    """The name of a signal; SIG_UNKNOWN for none."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return "SIG_UNKNOWN"
