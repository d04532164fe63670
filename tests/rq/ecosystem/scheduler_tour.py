# ruff: noqa: E402 - `rq` is pointed at the layer before anything imports it
"""rq-scheduler: jobs at an instant, again and again, by cron, and cancelled; its own process brings them. Prints how often each ran."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

from headrace.contrib.rq import install_as_rq

install_as_rq()

import redis
import rq
import tour_jobs
from rq_scheduler import Scheduler

RUN = "from headrace.contrib.rq import install_as_rq; install_as_rq(); from rq_scheduler.scripts.rqscheduler import main; main()"


def main() -> None:
    url = os.environ["REDISTOGO_URL"]
    connection = redis.from_url(url)
    scheduler = Scheduler(queue_name="default", connection=connection)
    now = datetime.now(UTC).replace(tzinfo=None)
    once = scheduler.enqueue_in(timedelta(seconds=1), tour_jobs.count, "once")
    every = scheduler.schedule(now, tour_jobs.count, ["every"], interval=1, repeat=3)
    daily = scheduler.cron("0 4 * * *", tour_jobs.count, ["daily"], id="daily")
    cancelled = scheduler.enqueue_in(timedelta(seconds=1), tour_jobs.count, "cancelled")
    assert scheduler.count() == 4 and once in scheduler and daily.get_status().value == "scheduled"
    scheduler.cancel(cancelled)
    assert {job.id for job in scheduler.get_jobs()} == {once.id, every.id, "daily"}

    program = subprocess.Popen([sys.executable, "-c", RUN, "--url", url, "--interval", "0.5"])
    queue = rq.Queue("default", connection=connection)
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        rq.SimpleWorker([queue], connection=connection).work(burst=True, logging_level="WARNING")
        if counted(connection, "every") >= 3 and counted(connection, "once"):
            break
    time.sleep(2)  # would there be one more?
    rq.SimpleWorker([queue], connection=connection).work(burst=True, logging_level="WARNING")
    program.terminate()
    program.wait(20)
    print(
        "once",
        counted(connection, "once"),
        "every",
        counted(connection, "every"),
        "of 3",
        "cancelled",
        counted(connection, "cancelled"),
    )
    assert [job.id for job in scheduler.get_jobs()] == ["daily"] and counted(connection, "daily") == 0


def counted(connection: redis.Redis, name: str) -> int:
    return int(connection.get(f"count:{name}") or 0)


if __name__ == "__main__":
    main()
