"""`rq.scheduler`: for programs that start a scheduler of their own. Workers do all of this by themselves."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Any, NoReturn
from uuid import uuid4

from headrace.contrib.rq.connections import app_of, resolve_connection
from headrace.contrib.rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT, RQ_KEY_PREFIX
from headrace.contrib.rq.exceptions import SchedulerNotFound
from headrace.contrib.rq.logutils import setup_loghandlers
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.serializers import resolve_serializer
from headrace.contrib.rq.stopping import Stop
from headrace.contrib.rq.utils import now, parse_names
from headrace.engine import ops
from headrace.engine.keys import check_queue_name, queue_keys
from headrace.errors import ServerError
from headrace.worker.tend import MOST_A_CALL

SCHEDULER_KEY_TEMPLATE = f"{RQ_KEY_PREFIX}:scheduler:%s"
SCHEDULER_LOCKING_KEY_TEMPLATE = f"{RQ_KEY_PREFIX}:scheduler-lock:%s"


class SchedulerStatus(str, Enum):  # noqa: UP042, RUF100 - as in RQ
    STARTED = "started"
    WORKING = "working"
    STOPPED = "stopped"


class RQScheduler:
    """Puts due jobs in line. Any number may do so at once, beside the workers, which do it, too: nobody needs a lock."""

    Status = SchedulerStatus

    def __init__(
        self,
        queues: Iterable[Queue | str],
        connection: Any = None,
        interval: float = 1,
        logging_level: str | int = logging.INFO,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        serializer: Any = None,
        name: str | None = None,
    ) -> None:
        if interval <= 0:
            raise ValueError(f"interval: expected seconds, got {interval!r}")
        self._queue_names = {check_queue_name(each) for each in parse_names(queues)}
        self._acquired_locks: set[str] = set()
        self.connection = resolve_connection(connection)
        self.interval = interval
        self.serializer = resolve_serializer(serializer)
        self.name = name or uuid4().hex
        self.hostname = socket.gethostname()
        self.pid = 0
        self.created_at: datetime = now()
        self.last_heartbeat: datetime | None = None
        self.lock_acquisition_time: datetime | None = None
        self.log = logging.getLogger("rq.scheduler")
        setup_loghandlers(logging_level, date_format, log_format, "rq.scheduler")
        self._status = SchedulerStatus.STOPPED
        self._process: ForkProcess | None = None
        self._stop = Stop()

    @property
    def status(self) -> SchedulerStatus:
        return self._status

    @property
    def key(self) -> str:
        return SCHEDULER_KEY_TEMPLATE % self.name

    @property
    def acquired_locks(self) -> set[str]:
        return self._acquired_locks

    @property
    def should_reacquire_locks(self) -> bool:
        return self._acquired_locks != self._queue_names

    @classmethod
    def get_locking_key(cls, name: str) -> str:
        return SCHEDULER_LOCKING_KEY_TEMPLATE % name

    def acquire_locks(self, auto_start: bool = False) -> set[str]:
        """The names of all its queues: there is no lock that another could hold."""
        self._acquired_locks, self.lock_acquisition_time = set(self._queue_names), now()
        if auto_start and (self._process is None or not self._process.is_alive()):
            self.start()
        return self._acquired_locks

    def release_locks(self) -> None:
        self._acquired_locks = set()

    @classmethod
    def fetch(cls, name: str, connection: Any) -> NoReturn:
        """Raises SchedulerNotFound: a scheduler stores nothing of itself."""
        raise SchedulerNotFound(f"Scheduler with name {name!r} not found: workers put due jobs in line by themselves")

    def enqueue_scheduled_jobs(self) -> None:
        """Put the jobs in line that are due."""
        self._status = SchedulerStatus.WORKING
        app = app_of(self.connection)
        for name in sorted(self._queue_names):
            while app.client.run(ops.tend(queue_keys(name, app.prefix), sweep=False)).promoted >= MOST_A_CALL:
                continue
        self._status = SchedulerStatus.STARTED

    def register_birth(self) -> None:
        """Note its process."""
        self.pid = os.getpid()
        self.heartbeat()

    def register_death(self) -> bool:
        """False: nothing was stored of it."""
        return False

    def heartbeat(self) -> None:
        """Note that it lives."""
        self.last_heartbeat = now()

    def start(self) -> ForkProcess:
        """Work in a process of its own."""
        self._status = SchedulerStatus.STARTED
        self._process = multiprocessing.get_context("fork").Process(target=self.work, name="Scheduler")
        self._process.start()
        return self._process

    def work(self) -> None:
        """Look every `interval` seconds, until SIGINT or SIGTERM. A server that is away is waited for."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.request_stop)
        self.register_birth()
        self.log.info("Scheduler for %s started with PID %s", ", ".join(sorted(self._queue_names)), self.pid)
        self.acquire_locks()
        while not self._stop.is_requested:
            self.heartbeat()
            try:
                self.enqueue_scheduled_jobs()
            except ServerError as error:
                self.log.warning("Scheduler: %s; trying again", error)
            self._stop.wait(self.interval)
        self.stop()

    def request_stop(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        self._stop.request()

    def stop(self) -> None:
        self.release_locks()
        self._status = SchedulerStatus.STOPPED
        self.log.info("Scheduler with PID %d has stopped", os.getpid())


def run(scheduler: RQScheduler) -> None:
    scheduler.work()
