"""`rq.worker.worker_classes`: how the kinds of workers differ."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import sys
from typing import ClassVar

import msgspec

from headrace.contrib.rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from headrace.contrib.rq.exceptions import not_offered
from headrace.contrib.rq.serializers import path_of
from headrace.contrib.rq.terms import SPAWNED_VARIABLE
from headrace.contrib.rq.worker.base import BaseWorker, DequeueStrategy
from headrace.worker import supervisor
from headrace.worker.config import WorkerConfig


class Worker(BaseWorker):
    """Each job in a process of its own, forked from one that has what this program has imported."""

    pool: ClassVar[str] = "fork"


class SimpleWorker(BaseWorker):
    """All jobs in one process, a fork of this one: faster, and less apart from each other."""

    pool: ClassVar[str] = "prefork"


class SpawnWorker(Worker):
    """Each job in a fresh interpreter, which imports what it needs: where a fork is unsafe.

    Its classes and handlers must be importable, as those of `__main__` are not.
    """

    pool: ClassVar[str] = "prefork"

    def bootstrap(
        self,
        logging_level: str | int | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """As of any worker.

        Raises:
            ValueError: something of `__main__` is used.
            NotImplementedError: a work_horse_killed_handler: the process that would call it is the one that is killed.
        """
        if self._work_horse_killed_handler is not None:
            not_offered("SpawnWorker(work_horse_killed_handler=)", "Worker tells who has killed a job's process")
        for one in (type(self), self.job_class, self.queue_class, *self._exc_handlers):
            if getattr(one, "__module__", None) == "__main__":
                raise ValueError(f"SpawnWorker cannot use {one!r}: another process cannot import what is in __main__")
        super().bootstrap(logging_level, date_format, log_format)

    def _supervise(self, config: WorkerConfig) -> supervisor.Ended:
        told = {
            "name": self.name, "default_result_ttl": self.default_result_ttl, "job_class": self.job_class,
            "queue_class": self.queue_class, "exception_handlers": self._exc_handlers,
            "log_job_description": self.log_job_description, "serializer": path_of(self.serializer),
        }  # fmt: skip
        log = [(name, logging.getLogger(name).level) for name in ("rq.worker", "rq.job")]
        described = type(self), config.url, self.queue_names(), told, log
        lent = {
            SPAWNED_VARIABLE: base64.b64encode(pickle.dumps(described)).decode(),
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(path or os.getcwd() for path in sys.path)),
        }
        before = {name: os.environ.get(name) for name in lent}
        os.environ.update(lent)
        try:
            return supervisor.run_counting(
                msgspec.structs.replace(config, app_path="headrace.contrib.rq.spawned:app", start="spawn", max_jobs=1)
            )
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


class HerokuWorker(Worker):
    """A stop gives the running job `imminent_shutdown_delay` seconds; then it is handed back, and run elsewhere."""

    imminent_shutdown_delay: ClassVar[float] = 6
    frame_properties: ClassVar[list[str]] = ["f_code", "f_lasti", "f_lineno", "f_locals", "f_trace"]

    def _grace_s(self) -> float:
        return self.imminent_shutdown_delay


class RoundRobinWorker(Worker):
    """Each queue gets the same share."""

    strategy = DequeueStrategy.ROUND_ROBIN


class RandomWorker(Worker):
    """As RoundRobinWorker: queues are taken in a random order."""

    strategy = DequeueStrategy.RANDOM
