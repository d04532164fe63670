# ruff: noqa: E402 - `rq` is pointed at the layer before anything imports it
"""sentry-sdk's integration, in a worker: what it sends of a job that fails, and of a call that was traced. Prints it."""

from __future__ import annotations

import os
import sys
from typing import Any

from headrace.contrib.rq import install_as_rq

install_as_rq()

import redis
import rq
import sentry_sdk
import tour_jobs
from sentry_sdk.integrations.rq import RqIntegration
from sentry_sdk.transport import Transport


class Printed(Transport):
    """A transport that writes each event to the tour's log."""

    def capture_envelope(self, envelope: Any) -> None:
        log = os.open(os.environ["SENTRY_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for item in envelope.items:
            event = item.payload.json or {}
            kind = [value["type"] for value in event.get("exception", {}).get("values", [])]
            told = event.get("extra", {}).get("rq-job", {})
            trace = event.get("contexts", {}).get("trace", {}).get("trace_id")
            line = f"{item.type} {event.get('transaction')} {kind} {told.get('func')} {told.get('job_id')} {trace}\n"
            os.write(log, line.encode())
        os.close(log)


def main() -> None:
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0, integrations=[RqIntegration()], transport=Printed
    )
    connection = redis.from_url(os.environ["REDISTOGO_URL"])
    queue = rq.Queue("default", connection=connection)
    with sentry_sdk.start_transaction(name="a request") as request:
        queue.enqueue(tour_jobs.plain, 1, job_id="good")
        print("trace", request.trace_id)
    queue.enqueue(tour_jobs.divide, 1, 0, job_id="bad")
    queue.enqueue(tour_jobs.divide, 1, 0, job_id="tries-again", retry=rq.Retry(1))
    kind = {"Worker": rq.Worker, "SimpleWorker": rq.SimpleWorker}[sys.argv[1]]
    kind([queue], connection=connection).work(burst=True, logging_level="WARNING")
    sentry_sdk.flush()


if __name__ == "__main__":
    main()
