"""RQ's names over headrace: `from headrace.contrib.rq import Queue, Worker` in place of `from rq import …`.

A thin layer: every job is an ordinary headrace job. What it does not offer says so when it is called.
"""

from headrace.contrib.rq.alias import install_as_rq
from headrace.contrib.rq.callbacks import Callback
from headrace.contrib.rq.connections import Connection, get_current_connection, pop_connection, push_connection
from headrace.contrib.rq.job import Retry, cancel_job, get_current_job, requeue_job
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.rate_limit import RateLimit
from headrace.contrib.rq.repeat import Repeat
from headrace.contrib.rq.version import VERSION
from headrace.contrib.rq.webhook import Webhook
from headrace.contrib.rq.worker import SimpleWorker, SpawnWorker, Worker

__version__ = VERSION

__all__ = [
    "VERSION",
    "Callback",
    "Connection",
    "Queue",
    "RateLimit",
    "Repeat",
    "Retry",
    "SimpleWorker",
    "SpawnWorker",
    "Webhook",
    "Worker",
    "__version__",
    "cancel_job",
    "get_current_connection",
    "get_current_job",
    "install_as_rq",
    "pop_connection",
    "push_connection",
    "requeue_job",
]
