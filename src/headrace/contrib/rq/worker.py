"""`rq.worker`: RQ's Worker as a way to write `headrace worker`; the process that calls `work()` becomes its supervisor."""

from __future__ import annotations

import enum
import logging
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterable
from typing import Any, ClassVar

from headrace.contrib.rq import runner
from headrace.contrib.rq.connections import app_of, connection_to, resolve_connection, url_of
from headrace.contrib.rq.exceptions import not_offered
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.serializers import path_of, resolve_serializer
from headrace.engine import admin
from headrace.engine.keys import check_queue_name, queue_keys
from headrace.worker import supervisor
from headrace.worker.config import WorkerConfig

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
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

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
        """Run jobs until stopped, or with `burst` until none is left; True if these queues had jobs end meanwhile.

        Scheduled jobs are always run. Signals are those of `headrace worker`.

        Raises:
            SystemExit: it cannot start; it has said why.
        """
        if max_jobs is not None or max_idle_time is not None:
            not_offered("work(max_jobs=, max_idle_time=)", "use burst=True, or `headrace worker --max-jobs`")
        names = [check_queue_name(name) for name in self.queue_names()]
        is_strict = DequeueStrategy(dequeue_strategy) is DequeueStrategy.DEFAULT
        self._lend_environment()
        config = WorkerConfig(
            app_path="headrace.contrib.rq.runner:app",
            worker_id=re.sub(r"[^A-Za-z0-9_-]+", "-", self.name)[:80],
            pool=self.pool,
            children=1,
            queues=names,
            weights=None if is_strict else dict.fromkeys(names, 1),
            url=url_of(self.connection),
            burst=burst,
            log_level=_log_level(logging_level),
        )
        before = self._ended()
        code = supervisor.run(config)
        if code not in _STOPPED:
            raise SystemExit(code)
        return self._ended() > before

    def _ended(self) -> int:
        app = app_of(self.connection)
        every = [app.client.run(admin.count_jobs(queue_keys(queue.name, app.prefix))).totals for queue in self.queues]
        return sum(totals.get(word, 0) for totals in every for word in ("succeeded", "failed"))

    def _lend_environment(self) -> None:
        """Let the worker's processes import what this one can, and read what these queues write."""
        paths = [path or os.getcwd() for path in sys.path]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        os.environ[runner.SERIALIZER_VARIABLE] = path_of(self.serializer)


class SimpleWorker(Worker):
    """As Worker, but all jobs run in one process: faster, and less apart from each other."""

    pool: ClassVar[str] = "prefork"


def worker_connection() -> Any:
    """A connection to the server of the worker that this code runs in."""
    return connection_to(runner.app.server_config.url)


def _log_level(level: str | int | None) -> str:
    if level is None:
        return "info"
    name = logging.getLevelName(level) if isinstance(level, int) else level.upper()
    if name not in _TOLD_LEVELS:
        raise ValueError(f"logging_level: unknown level {level!r}")
    return _TOLD_LEVELS[name]
