"""RQ's names over headrace: `from headrace.contrib.rq import Queue, Worker` in place of `from rq import …`.

A thin layer: every job is an ordinary headrace job. What it does not offer says so when it is called.
"""

from headrace.contrib.rq.connections import Connection, get_current_connection, pop_connection, push_connection
from headrace.contrib.rq.job import Retry, cancel_job, get_current_job, requeue_job
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.worker import SimpleWorker, Worker

__all__ = [
    "Connection",
    "Queue",
    "Retry",
    "SimpleWorker",
    "Worker",
    "cancel_job",
    "get_current_connection",
    "get_current_job",
    "pop_connection",
    "push_connection",
    "requeue_job",
]
