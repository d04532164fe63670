"""`/api/v1` answers what its OpenAPI document says, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from visitors import visiting

from headrace import Headrace
from headrace.engine import admin, ops, stats
from headrace.engine.keys import queue_keys
from headrace.engine.stats import Added
from headrace.web import Access, Right, api

FILE = Path(__file__).parents[2] / "docs/openapi.json"
QUIET = {"succeeded": 90, "r80": 90, "run_us": 180_000_000}
"""90 runs of 2 s."""


@pytest.fixture
def app(url: str):
    with Headrace(url) as found:
        yield found


def see(answer: Any, path: str) -> Any:
    """Hold an answer to what the document says of that path and status; its body."""
    document = json.loads(api.document())
    said = document["paths"][path]["get"]["responses"][str(answer.status_code)]["content"]["application/json"]
    body = answer.json()
    jsonschema.validate(body, {**said["schema"], "components": document["components"]}, jsonschema.Draft202012Validator)
    return body


def beat(app: Headrace, **info: Any) -> None:
    told = {"host": "h", "pid": 1, "pool": "prefork", "queues": ["mail"], "children": 2, "slots": 1, **info}
    app.client.run(ops.beat(app.prefix, "w1", msgspec.msgpack.encode(told), ""))


def test_each_path_answers_as_the_document_says(app: Headrace) -> None:
    """With queues, workers and jobs, and what is wrong: an unknown queue, job, tab, target."""
    job = app.queue("mail").enqueue("mail.send", 1, when={"a": [1, 2.5, None]})
    app.queue("mail").enqueue("mail.send", b"\xff")
    app.client.run(admin.pause(queue_keys("mail"), "holiday"))
    beat(app, running=1, jobs=[f"mail/{job.id}"], started_at_ms=5, state="quiet")
    with visiting(app) as client:
        paths = set(client.get("/api/v1/openapi.json").json()["paths"])
        seen = {
            "/api/v1/queues": see(client.get("/api/v1/queues"), "/api/v1/queues"),
            "/api/v1/workers": see(client.get("/api/v1/workers"), "/api/v1/workers"),
            "/api/v1/jobs": see(client.get("/api/v1/jobs?queue=mail&tab=queued"), "/api/v1/jobs"),
            "/api/v1/jobs/{queue}/{job_id}": see(
                client.get(f"/api/v1/jobs/mail/{job.id}"), "/api/v1/jobs/{queue}/{job_id}"
            ),
            "/api/v1/scale/{queue}": see(client.get("/api/v1/scale/mail"), "/api/v1/scale/{queue}"),
        }
        assert paths == set(seen)
        assert ["holiday"] == [queue["paused"] for queue in seen["/api/v1/queues"]]
        assert seen["/api/v1/jobs/{queue}/{job_id}"]["call"] == {"args": [1], "kwargs": {"when": {"a": [1, 2.5, None]}}}
        for path, asked in (
            ("/api/v1/jobs", "/api/v1/jobs?queue=none"),
            ("/api/v1/jobs", "/api/v1/jobs?tab=none"),
            ("/api/v1/jobs/{queue}/{job_id}", "/api/v1/jobs/mail/none"),
            ("/api/v1/scale/{queue}", "/api/v1/scale/none"),
            ("/api/v1/scale/{queue}", "/api/v1/scale/mail?target_s=-1"),
        ):
            answer = client.get(asked, headers={"accept": "*/*"})
            assert 404 == answer.status_code
            assert see(answer, path)["error"]


def test_arguments_are_left_out_for_who_may_not_see_them(app: Headrace) -> None:
    """Not shown as null: the keys are not there, as the document says they may not be."""
    job = app.queue("mail").enqueue("mail.send", 1)
    with visiting(app, Access("bob", frozenset({Right.READ}))) as client:
        found = see(client.get(f"/api/v1/jobs/mail/{job.id}"), "/api/v1/jobs/{queue}/{job_id}")
    assert not {"call", "result"} & set(found)
    with visiting(app, Access("eve", frozenset({Right.RETRY_JOBS}))) as client:
        assert 403 == client.get("/api/v1/queues").status_code
        assert see(client.get("/api/v1/queues"), "/api/v1/queues")["error"]


def test_a_server_that_is_away_is_told_as_json() -> None:
    """A program that asks gets no page."""
    with Headrace("redis://127.0.0.1:1/0") as app, visiting(app) as client:
        assert 503 == client.get("/api/v1/queues").status_code
        assert see(client.get("/api/v1/queues"), "/api/v1/queues")["error"]


def test_a_queue_wants_as_many_workers_as_its_jobs_need(app: Headrace) -> None:
    """60 jobs of 2 s within 10 s, by workers of two places each, are 6 workers; none where there is nothing to do, or it is paused."""
    queue = queue_keys("mail")
    app.client.run(ops.announce_queues(app.prefix, ["mail"]))
    app.client.run(stats.tally(queue, [Added(0, "mail.send", QUIET)]))
    beat(app)
    with visiting(app) as client:

        def wanted(**asked: Any) -> int:
            client.source.forget()
            answer = client.get("/api/v1/scale/mail", params=asked)
            return int(see(answer, "/api/v1/scale/{queue}")["wanted_workers"])

        assert 0 == wanted()
        for number in range(60):
            app.queue("mail").enqueue("mail.send", number)
        assert [6, 1, 60] == [wanted(), wanted(target_s=1000), wanted(target_s=1)]
        app.client.run(admin.pause(queue, "holiday"))


def test_the_document_in_the_documentation_is_the_one_that_is_served() -> None:
    """Write it anew with: python -c "from headrace.web import api; open('docs/openapi.json', 'wb').write(api.document())" """
    assert FILE.read_bytes() == api.document()


def test_the_document_names_a_schema_for_all_that_it_refers_to() -> None:
    """It is OpenAPI 3.1, each operation has a name of its own, and each reference leads somewhere."""
    document = json.loads(api.document())
    assert document["openapi"].startswith("3.1.")
    names = [path["get"]["operationId"] for path in document["paths"].values()]
    assert len(set(names)) == len(names)
    references = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', api.document().decode()))
    assert references == set(document["components"]["schemas"])
