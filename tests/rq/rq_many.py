"""Run with a real RQ on the path: so many jobs of each kind. `rq_many.py URL COUNT`."""

from __future__ import annotations

import sys
from datetime import timedelta

import redis
from rq import Queue

if __name__ == "__main__":
    connection, count = redis.from_url(sys.argv[1]), int(sys.argv[2])
    queues = [Queue(name, connection=connection) for name in ("high", "default", "low")]
    for number in range(count):
        queue = queues[number % 3]
        job = queue.enqueue("rq_jobs.note", number, 0.01)
        queue.enqueue("rq_jobs.note", count + number, depends_on=job)
        queue.enqueue_in(timedelta(seconds=number % 20), "rq_jobs.note", 2 * count + number)
