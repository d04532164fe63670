"""Run with a real RQ on the path: fills its keys with jobs of every kind. `rq_fill.py URL`; prints the version.

RQ's own API and worker do it all; only a worker's death is made by hand.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import timedelta
from typing import Any

import redis
import rq
import rq_jobs
from rq import Queue, Retry, SimpleWorker
from rq.job import Callback, Dependency, Job
from rq.serializers import JSONSerializer


def fill(connection: Any, major: int) -> None:
    q, low = Queue("default", connection=connection), Queue("low", connection=connection)
    fail(low)
    q.enqueue("rq_jobs.note", 1, job_id="plain", description="the first", job_timeout=77, result_ttl=900)
    q.enqueue(rq_jobs.Counter(40).plus, 2, job_id="method")
    q.enqueue("rq_jobs.about_me", job_id="with-meta", meta={"who": "me"})
    q.enqueue("rq_jobs.divide", 1, 0, job_id="with-retries", retry=Retry(5, [10, 30, 60]))
    q.enqueue("rq_jobs.note", 5, job_id="with-callback", on_success=Callback("rq_jobs.tell_success", timeout=33))
    q.enqueue("rq_jobs.note", 6, job_id="with-ttl", ttl=5000)
    q.enqueue("rq_jobs.note", 7, job_id="never-times-out", job_timeout=-1, result_ttl=-1)
    q.enqueue("rq_jobs.same", kwargs={"timeout": 1}, job_id="with-keywords")
    low.enqueue_in(timedelta(hours=5), "rq_jobs.note", 20, job_id="in-five-hours")
    q.enqueue("rq_jobs.note", 30, job_id="child", depends_on="plain")
    q.enqueue("rq_jobs.note", 31, job_id="grandchild", depends_on=["child", "with-meta"])
    q.enqueue("rq_jobs.note", 32, job_id="child-of-failed", depends_on="failed")
    q.enqueue("rq_jobs.note", 33, job_id="child-of-any", depends_on=Dependency("in-five-hours", allow_failure=True))
    q.enqueue("rq_jobs.note", 34, job_id="stoppable", on_stopped=Callback("rq_jobs.tell_stopped"))
    Queue("json", connection=connection, serializer=JSONSerializer).enqueue("rq_jobs.same", [1, "a"], job_id="in-json")
    held = Queue("held", connection=connection)
    for number, job_id in enumerate(("in-between", "lost")):
        held.enqueue("rq_jobs.note", 40 + number, job_id=job_id)
    Queue.dequeue_any([held], None, connection=connection)
    connection.lpop(held.key)
    die_at_work(connection)
    if major >= 2:
        from rq import Repeat
        from rq.group import Group

        q.enqueue("rq_jobs.note", 50, job_id="repeats", repeat=Repeat(3, [5, 10, 15]))
        Group.create(connection=connection, name="a-group").enqueue_many(
            q, [Queue.prepare_data("rq_jobs.note", (51,), job_id="in-a-group")]
        )
    if major >= 3:
        from rq import RateLimit, Webhook

        q.enqueue("rq_jobs.note", 60, job_id="calls-back", webhooks=[Webhook("http://127.0.0.1:1/", "finished")])
        for number in range(2):
            q.enqueue("rq_jobs.note", 61 + number, job_id=f"limited-{number}", rate_limit=RateLimit("a-limit", 1))


def fail(queue: Queue) -> None:
    """One that has failed, one that waits to be retried, one that has finished, one whose arguments nobody can read."""
    queue.enqueue("rq_jobs.divide", 1, 0, job_id="failed", meta={"n": 1}, failure_ttl=10_000)
    queue.enqueue("rq_jobs.divide", 2, 0, job_id="retried", retry=Retry(3, [3600, 7200, 9000]))
    queue.enqueue("rq_jobs.same", 1, job_id="finished")
    SimpleWorker([queue], connection=queue.connection).work(burst=True)
    job = queue.enqueue("rq_jobs.note", 9, job_id="unreadable")
    queue.connection.hset(job.key, "data", b"no pickle at all")
    queue.connection.rpush(queue.key, "a-ghost")


def die_at_work(connection: Any) -> None:
    """A worker that is killed while it runs a job, as when its machine dies."""
    queue = Queue("dying", connection=connection)
    queue.enqueue("rq_jobs.note", 42, 60.0, job_id="started")
    pid = os.fork()
    if pid == 0:
        SimpleWorker([queue], name="dead", connection=redis.from_url(sys.argv[1])).work(burst=True)
        os._exit(0)
    ends = time.monotonic() + 30
    while Job.fetch("started", connection=connection).get_status() != "started" and time.monotonic() < ends:
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    connection.delete("rq:worker:dead")  # as it does by itself some minutes later


if __name__ == "__main__":
    fill(redis.from_url(sys.argv[1]), int(rq.__version__.split(".")[0]))
    print(json.dumps({"version": rq.__version__}))
