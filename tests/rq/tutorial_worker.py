"""The tutorial's worker, as its readers have it, but for the import."""

import os

import redis

from headrace.contrib.rq import Connection, Queue, Worker

listen = ["high", "default", "low"]
redis_url = os.getenv("REDISTOGO_URL", "redis://localhost:6379")
conn = redis.from_url(redis_url)

if __name__ == "__main__":
    with Connection(conn):
        worker = Worker(map(Queue, listen))
        worker.work()
