# ruff: noqa: E402 - `rq` is pointed at the layer before anything imports it
"""rq-exporter's metrics, as Prometheus reads them. Prints those of a queue and of a worker that runs."""

from __future__ import annotations

import os

from headrace.contrib.rq import install_as_rq

install_as_rq()

import redis
import rq
import tour_jobs
from prometheus_client import CollectorRegistry, generate_latest
from rq_exporter.collector import RQCollector


def main() -> None:
    connection = redis.from_url(os.environ["REDISTOGO_URL"])
    queue = rq.Queue("default", connection=connection)
    queue.enqueue(tour_jobs.divide, 1, 0)
    rq.SimpleWorker([queue], connection=connection).work(burst=True, logging_level="WARNING")
    queue.enqueue(tour_jobs.scrape, job_id="scraping")
    rq.Queue("low", connection=connection).enqueue(tour_jobs.plain, 2)
    rq.SimpleWorker([queue], connection=connection, name="scraped").work(burst=True, logging_level="WARNING")
    print(rq.job.Job.fetch("scraping", connection).return_value())


def scraped() -> str:
    registry = CollectorRegistry()
    registry.register(RQCollector(redis.from_url(os.environ["REDISTOGO_URL"])))
    lines = generate_latest(registry).decode().splitlines()
    return "\n".join(line for line in lines if line.startswith(("rq_jobs{", "rq_workers{")))


if __name__ == "__main__":
    main()
