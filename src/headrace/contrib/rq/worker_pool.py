"""`rq.worker_pool`: several workers, each a process of its own, started, watched and stopped by this one."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Iterable
from enum import Enum
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Any, NamedTuple
from uuid import uuid4

import redis

from headrace.contrib.rq.connections import resolve_connection
from headrace.contrib.rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from headrace.contrib.rq.job import Job
from headrace.contrib.rq.logutils import setup_loghandlers
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.serializers import DefaultSerializer
from headrace.contrib.rq.utils import parse_names
from headrace.contrib.rq.worker import Worker
from headrace.worker.processes import send_signal

LOOK_EVERY_S = 0.5
_fork = multiprocessing.get_context("fork")


class WorkerData(NamedTuple):
    """One worker of a pool."""

    name: str
    pid: int
    process: ForkProcess


class WorkerPool:
    """`num_workers` workers on the same queues. One that dies is replaced; SIGINT or SIGTERM stops them all.

    `headrace worker --processes N` does this with one supervisor for all of them.
    """

    class Status(Enum):
        IDLE = 1
        STARTED = 2
        STOPPED = 3

    def __init__(
        self,
        queues: Iterable[str | Queue],
        connection: Any = None,
        num_workers: int = 1,
        worker_class: Any = Worker,
        serializer: Any = DefaultSerializer,
        job_class: Any = Job,
        queue_class: Any = Queue,
        exception_handlers: Any = None,
    ) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers: expected 1 or more, got {num_workers}")
        self.num_workers = num_workers
        self.log = logging.getLogger("rq.worker_pool")
        self._queue_names = parse_names([queues] if isinstance(queues, (str, Queue)) else list(queues))
        self.connection = resolve_connection(connection)
        self.name = uuid4().hex
        self.status = self.Status.IDLE
        self.worker_class = worker_class
        self.serializer = serializer
        self.job_class = job_class
        self.queue_class = queue_class
        self.exception_handlers = exception_handlers
        self.worker_dict: dict[str, WorkerData] = {}
        self._burst = True
        self._level = "INFO"

    @property
    def queues(self) -> list[Any]:
        return [self.queue_class(name, connection=self.connection) for name in self._queue_names]

    @property
    def number_of_active_workers(self) -> int:
        return len(self.worker_dict)

    def start(self, burst: bool = False, logging_level: str = "INFO") -> None:
        """Start the workers, and stay until they have ended: as they are told to, or with `burst` as no job is left."""
        setup_loghandlers(logging_level, DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT, "rq.worker_pool")
        self.log.info("Starting worker pool %s with pid %d...", self.name, os.getpid())
        self.status = self.Status.STARTED
        before = {number: signal.signal(number, self.request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.start_workers(burst, logging_level=logging_level)
            while not self.all_workers_have_stopped() or (self.status is self.Status.STARTED and not burst):
                self.check_workers(respawn=not burst)
                time.sleep(LOOK_EVERY_S)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.log.info("All workers stopped, exiting...")

    def start_workers(self, burst: bool = True, _sleep: float = 0, logging_level: str = "INFO") -> None:
        for count in range(self.num_workers):
            self.start_worker(count + 1, burst, _sleep, logging_level)

    def start_worker(
        self, count: int | None = None, burst: bool = True, _sleep: float = 0, logging_level: str = "INFO"
    ) -> None:
        """Start one worker. `_sleep`: seconds that it waits before it works."""
        self._burst, self._level = burst, logging_level
        name = uuid4().hex
        process = self.get_worker_process(name, burst, _sleep, logging_level)
        process.start()
        self.worker_dict[name] = WorkerData(name, process.pid or 0, process)

    def get_worker_process(self, name: str, burst: bool, _sleep: float = 0, logging_level: str = "INFO") -> ForkProcess:
        """The process of a worker, not started."""
        return _fork.Process(target=self._work, args=(name, burst, _sleep, logging_level), name=f"Worker {name}")

    def _work(self, name: str, burst: bool, sleep_s: float, logging_level: str) -> None:
        os.setpgid(0, 0)  # a terminal's Ctrl-C is for the pool, which passes it on: a second one would end jobs at once
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        pool = self.connection.connection_pool
        connection = type(self.connection)(
            connection_pool=redis.ConnectionPool(pool.connection_class, **pool.connection_kwargs)
        )
        queues = [self.queue_class(queue, connection=connection) for queue in self._queue_names]
        worker = self.worker_class(
            queues, name=name, connection=connection, serializer=self.serializer, job_class=self.job_class,
            queue_class=self.queue_class, exception_handlers=self.exception_handlers,
        )  # fmt: skip
        time.sleep(sleep_s)
        worker.work(burst=burst, with_scheduler=True, logging_level=logging_level)

    def check_workers(self, respawn: bool = True) -> None:
        """Forget dead workers, and start others in their places."""
        self.reap_workers()
        if respawn and self.status is not self.Status.STOPPED:
            for _ in range(self.num_workers - len(self.worker_dict)):
                self.start_worker(burst=self._burst, logging_level=self._level)

    def all_workers_have_stopped(self) -> bool:
        self.reap_workers()
        return not self.worker_dict

    def reap_workers(self) -> None:
        for data in list(self.worker_dict.values()):
            if not data.process.is_alive():
                self.handle_dead_worker(data)

    def handle_dead_worker(self, worker_data: WorkerData) -> None:
        """Called for each worker that has ended."""
        self.log.info("Worker %s with pid %d is dead", worker_data.name, worker_data.pid)
        self.worker_dict.pop(worker_data.name, None)

    def request_stop(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        """Stop all workers: what they run may finish. Asked again, it is handed back at once."""
        self.log.info("Received SIGINT/SIGTERM, shutting down...")
        self.status = self.Status.STOPPED
        self.stop_workers()

    def stop_workers(self) -> None:
        for data in list(self.worker_dict.values()):
            self.stop_worker(data)

    def stop_worker(self, worker_data: WorkerData, sig: int = signal.SIGINT) -> None:
        send_signal(worker_data.pid, sig)
