"""`rq.worker.worker_classes`: how the kinds of workers differ."""

from __future__ import annotations

from typing import Any, ClassVar

from headrace.contrib.rq.exceptions import missing
from headrace.contrib.rq.worker.base import BaseWorker, DequeueStrategy


class Worker(BaseWorker):
    """Each job in a process of its own, forked from one that has what this program has imported."""

    pool: ClassVar[str] = "fork"


class SimpleWorker(BaseWorker):
    """All jobs in one process, a fork of this one: faster, and less apart from each other."""

    pool: ClassVar[str] = "prefork"


SpawnWorker: Any = missing("SpawnWorker", "Worker runs each job in a process of its own")


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
