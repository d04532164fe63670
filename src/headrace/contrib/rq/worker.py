"""`rq.worker`: RQ's Worker as a way to write `headrace worker`; the process that calls `work()` becomes its supervisor."""

from __future__ import annotations

import enum
import functools
import logging
import os
from collections.abc import Iterable
from typing import Any, ClassVar
from uuid import uuid4

from headrace.contrib.rq import runner
from headrace.contrib.rq.connections import resolve_connection, url_of
from headrace.contrib.rq.exceptions import not_offered
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.serializers import path_of, resolve_serializer
from headrace.contrib.rq.terms import SERIALIZER_VARIABLE
from headrace.engine.keys import check_queue_name
from headrace.worker import spawner, supervisor
from headrace.worker.config import WorkerConfig, new_worker_id

_STOPPED = (0, supervisor.INTERRUPTED, supervisor.TERMINATED)
_TOLD_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}


class DequeueStrategy(str, enum.Enum):  # noqa: UP042, RUF100 - as in RQ
    """In what order queues are served."""

    DEFAULT = "default"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"


class Worker:
    """Serves queues in strict order, each job in a process of its own, until it is told to stop.

    While it works its process is a headrace supervisor: it collects every child process, so it should have no others.
    """

    pool: ClassVar[str] = "fork"

    def __init__(
        self,
        queues: Queue | str | Iterable[Queue | str],
        name: str | None = None,
        default_result_ttl: int = 500,
        connection: Any = None,
        exception_handlers: Any = None,
        maintenance_interval: int = 600,
        default_worker_ttl: int | None = None,
        worker_ttl: int | None = None,
        job_class: Any = None,
        queue_class: Any = None,
        log_job_description: bool = True,
        job_monitoring_interval: int = 30,
        disable_default_exception_handler: bool = False,
        prepare_for_work: bool = True,
        serializer: Any = None,
        work_horse_killed_handler: Any = None,
    ) -> None:
        for word, given in (
            ("exception_handlers", exception_handlers),
            ("job_class", job_class),
            ("queue_class", queue_class),
            ("work_horse_killed_handler", work_horse_killed_handler),
        ):
            if given:
                not_offered(f"Worker({word}=)", "see docs/howto/from-rq.md for what headrace has instead")
        if default_result_ttl != 500:
            not_offered("Worker(default_result_ttl=)", "give result_ttl where the job is enqueued")
        # All of them first: an iterator has each queue only once.
        several = [queues] if isinstance(queues, (Queue, str)) else list(queues)
        owned = [queue for queue in several if isinstance(queue, Queue)]
        if connection is None and owned:
            connection = owned[0].connection
        self.connection = resolve_connection(connection)
        if serializer is None and owned:
            serializer = owned[0].serializer
        self.serializer = resolve_serializer(serializer)
        self.queues = [queue if isinstance(queue, Queue) else Queue(queue, self.connection) for queue in several]
        if not self.queues:
            raise ValueError("a worker needs one queue or more")
        self.name = name or uuid4().hex

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"headrace.contrib.rq has no {type(self).__name__}.{name}")

    def queue_names(self) -> list[str]:
        return [queue.name for queue in self.queues]

    def work(
        self,
        burst: bool = False,
        logging_level: str | int | None = None,
        date_format: str | None = None,
        log_format: str | None = None,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: DequeueStrategy | str = DequeueStrategy.DEFAULT,
    ) -> bool:
        """Run jobs until stopped, or with `burst` until none is left; True if it ran any.

        Scheduled jobs are always run. Signals are those of `headrace worker`.

        Args:
            max_jobs: end after so many. `max_idle_time`: end when there was none for so many seconds.

        Raises:
            SystemExit: it cannot start; it has said why.
        """
        names = [check_queue_name(name) for name in self.queue_names()]
        is_strict = DequeueStrategy(dequeue_strategy) is DequeueStrategy.DEFAULT
        os.environ[SERIALIZER_VARIABLE] = path_of(self.serializer)
        config = WorkerConfig(
            app_path="",
            worker_id=new_worker_id(self.name),
            name=self.name,
            pool=self.pool,
            children=1,
            queues=names,
            weights=None if is_strict else dict.fromkeys(names, 1),
            url=url_of(self.connection),
            burst=burst,
            max_jobs=max_jobs or 0,
            ends_after_jobs=bool(max_jobs),
            max_idle_ms=int((max_idle_time or 0) * 1000),
            log_level=_log_level(logging_level),
        )
        ended = supervisor.run_counting(config, functools.partial(spawner.serve, runner.app))
        if ended.code not in _STOPPED:
            raise SystemExit(ended.code)
        return ended.jobs > 0


class SimpleWorker(Worker):
    """As Worker, but all jobs run in one process: faster, and less apart from each other."""

    pool: ClassVar[str] = "prefork"


def _log_level(level: str | int | None) -> str:
    if level is None:
        return "info"
    name = logging.getLevelName(level) if isinstance(level, int) else level.upper()
    if name not in _TOLD_LEVELS:
        raise ValueError(f"logging_level: unknown level {level!r}")
    return _TOLD_LEVELS[name]
