# ruff: noqa: E402 - `rq` is pointed at the layer before anything imports it
"""rq-dashboard's pages and data, and what its buttons do. Prints what it saw."""

from __future__ import annotations

import os

from headrace.contrib.rq import install_as_rq

install_as_rq()

import redis
import rq
import rq_dashboard
import tour_jobs
from flask import Flask


def main() -> None:
    url = os.environ["REDISTOGO_URL"]
    connection = redis.from_url(url)
    queue = rq.Queue("default", connection=connection)
    good, bad = queue.enqueue(tour_jobs.plain, 1), queue.enqueue(tour_jobs.divide, 1, 0)
    worker = rq.SimpleWorker([queue], connection=connection, name="of-the-tour")
    worker.work(burst=True, logging_level="WARNING")
    waiting = rq.Queue("low", connection=connection).enqueue(tour_jobs.plain, 2)

    app = Flask(__name__)
    app.config.from_object(rq_dashboard.default_settings)
    app.config["RQ_DASHBOARD_REDIS_URL"] = url
    rq_dashboard.web.setup_rq_connection(app)
    app.register_blueprint(rq_dashboard.blueprint, url_prefix="/rq")
    client = app.test_client()
    ids = {good.id: "GOOD", bad.id: "BAD", waiting.id: "WAITING"}
    pages = ["/rq/", "/rq/0/view/workers", "/rq/0/view/jobs", f"/rq/0/view/job/{bad.id}"]
    pages += ["/rq/0/view/jobs/default/failed/8/asc/1"]
    for page in pages:
        print("page", _named(page, ids), client.get(page).status_code)
    queues = client.get("/rq/0/data/queues.json").get_json()["queues"]
    print("queues", sorted((row["name"], row["count"], row["failed_job_registry_count"]) for row in queues))
    found = client.get("/rq/0/data/jobs/default/failed/8/asc/1.json").get_json()
    print("failed", [ids[job["id"]] for job in found["jobs"]])
    print("job", _told(client.get(f"/rq/0/data/job/{bad.id}.json").get_json()))
    print("workers", client.get("/rq/0/data/workers.json").get_json())
    print("requeue", client.post(f"/rq/job/{bad.id}/requeue").get_json(), bad.get_status().value)
    print(
        "delete", client.post(f"/rq/job/{waiting.id}/delete").get_json(), rq.Queue("low", connection=connection).count
    )
    print("empty", client.post("/rq/queue/default/queued/empty").get_json(), queue.count)
    print("compact", client.post("/rq/queue/default/compact").get_json())


def _named(page: str, ids: dict[str, str]) -> str:
    for job_id, name in ids.items():
        page = page.replace(job_id, name)
    return page


def _told(job: dict[str, object]) -> tuple[object, ...]:
    return job["status"], "ZeroDivisionError" in str(job["exc_info"]), job["origin"], job["description"]


if __name__ == "__main__":
    main()
