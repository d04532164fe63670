"""`rq.worker`: RQ's workers as a way to write `headrace worker`."""

from headrace.contrib.rq.worker.base import BaseWorker, DequeueStrategy, WorkerStatus
from headrace.contrib.rq.worker.worker_classes import (
    HerokuWorker,
    RandomWorker,
    RoundRobinWorker,
    SimpleWorker,
    SpawnWorker,
    Worker,
)

__all__ = [
    "BaseWorker",
    "DequeueStrategy",
    "HerokuWorker",
    "RandomWorker",
    "RoundRobinWorker",
    "SimpleWorker",
    "SpawnWorker",
    "Worker",
    "WorkerStatus",
]
