"""What `/api/v1` answers, as values, and the OpenAPI document that is made of them: so neither can say what the other does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from starlette.responses import Response

from headrace.core.tally import Sums, add
from headrace.engine.admin import QueueCounts, Row, Worker
from headrace.observe.metrics import jobs_by_state
from headrace.version import __version__
from headrace.web.data import TABS, Overview
from headrace.web.details import Details
from headrace.web.redact import Redact

TARGET_S = 10.0
PREFIX = "/api/v1"


class Queue(msgspec.Struct, frozen=True):
    """A queue. `jobs`: how many stand where; `paused`: the reason, null when it is not; `totals`: since the queue began;
    `latency_s`: how long the next job in line has waited; `workers`: how many serve it."""

    name: str
    jobs: dict[str, int]
    paused: str | None
    totals: dict[str, int]
    latency_s: float
    workers: int


class WorkerNow(msgspec.Struct, frozen=True):
    """A running worker, as it says of itself every 5 s. `jobs`: `queue/id` of up to 100 that run in it."""

    id: str
    host: str
    pid: int
    pool: str
    state: str
    queues: list[str]
    children: int
    slots: int
    running: int
    jobs: list[str]
    started_at_ms: int
    beat_at_ms: int


class JobRow(msgspec.Struct, frozen=True):
    """A job of a list. `attempt`: how many runs have begun and ended; `due_at_ms`: of a job that starts later."""

    id: str
    queue: str
    state: str
    task: str
    attempt: int
    created_at_ms: int
    due_at_ms: int | None


class JobsPage(msgspec.Struct, frozen=True):
    """A part of a list of jobs. `cursor`: asks for what follows; "" at the end. `looked_at`: how many jobs were read for it."""

    jobs: list[JobRow]
    cursor: str
    looked_at: int


class Job(msgspec.Struct, frozen=True):
    """A job. Instants are Unix ms, 0: not yet. `why`: why it is not running, in sentences; `call` and `result` are there only for who may see
    arguments."""

    id: str
    queue: str
    state: str
    task: str
    attempt: int
    created_at_ms: int
    started_at_ms: int
    ended_at_ms: int
    due_at_ms: int | None
    why: list[str]
    call: Any = msgspec.UNSET
    result: Any = msgspec.UNSET


class Scale(msgspec.Struct, frozen=True):
    """What an autoscaler looks at. `wanted_workers`: with so many, what is there would be done within `target_s`, as long as jobs take what
    they took in the last hour; 0 when there is nothing to do. Scale on it, or on `latency_s`, and not on depth."""

    queue: str
    latency_s: float
    queued: int
    running: int
    workers: int
    wanted_workers: int


class Wrong(msgspec.Struct, frozen=True):
    """Why there is no answer."""

    error: str


def answer(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value, enc_hook=repr), status, media_type="application/json")


def queue_of(counts: QueueCounts, overview: Overview) -> Queue:
    latency_s = overview.oldest_s.get(counts.name, 0.0)
    workers = len(overview.workers_of(counts.name))
    return Queue(counts.name, jobs_by_state(counts), counts.paused, counts.totals, latency_s, workers)


def worker_of(worker: Worker) -> WorkerNow:
    """A worker of an older version may not tell all."""
    told: Mapping[str, Any] = worker.info
    return WorkerNow(
        worker.id, str(told.get("host", "")), int(told.get("pid", 0)), str(told.get("pool", "")),
        str(told.get("state", "running")), list(told.get("queues", ())), int(told.get("children", 1)),
        int(told.get("slots", 1)), int(told.get("running", 0)), list(told.get("jobs", ())),
        int(told.get("started_at_ms", 0)), worker.beat_at_ms,
    )  # fmt: skip


def row_of(row: Row) -> JobRow:
    record = row.record
    return JobRow(row.id, row.queue, str(row.state), record.task, record.attempt, record.created_at_ms, row.due_at_ms)


def job_of(found: Details, redact: Redact, *, sees_args: bool) -> Job:
    record = found.record
    told = Job(
        found.id, found.queue, str(found.look.state), record.task, record.attempt, record.created_at_ms,
        record.started_at_ms, record.ended_at_ms, found.look.due_ms, list(map(str, found.why)),
    )  # fmt: skip
    if not sees_args:
        return told
    return msgspec.structs.replace(told, call=found.shown_call(redact), result=found.shown_result(redact))


def scale_of(counts: QueueCounts, overview: Overview, lately: Sums, target_s: float) -> Scale:
    """`lately`: what jobs of this queue took in the last hour."""
    serving = overview.workers_of(counts.name)
    slots = [int(w.info.get("slots", 1)) * int(w.info.get("children", 1)) for w in serving] or [1]
    left = counts.queued + counts.running
    ran = sum(lately.get(name, 0) for name in ("succeeded", "failed", "retried", "cancelled"))
    run_s = lately.get("run_us", 0) / 1e6 / ran if ran else 0.0
    wanted = math.ceil(left * run_s / target_s / (sum(slots) / len(slots))) if counts.paused is None else 0
    if counts.paused is None and left:
        wanted = max(1, wanted if ran else len(serving))
    latency_s = overview.oldest_s.get(counts.name, 0.0)
    return Scale(counts.name, latency_s, counts.queued, counts.running, len(serving), wanted)


def sums_of_queue(points: list[Sums]) -> Sums:
    together: Sums = {}
    for point in points:
        add(together, point)
    return together


# The document


def _in_path(name: str, told: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": told, "schema": {"type": "string"}}


def _in_query(name: str, told: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": told, "schema": schema}


_QUEUE = _in_path("queue", "The queue's name.")
_PATHS: dict[str, tuple[str, str, Any, list[dict[str, Any]]]] = {
    "/queues": ("listQueues", "All queues.", list[Queue], []),
    "/workers": ("listWorkers", "The workers that have shown themselves in the last 30 s.", list[WorkerNow], []),
    "/jobs": (
        "listJobs",
        "Jobs that match, a part of them.",
        JobsPage,
        [
            _in_query("queue", "The queue's name; all queues without it.", {"type": "string"}),
            _in_query(
                "filter", "Which jobs, as on the page: task:mail.send args.user.id:42 since:2h", {"type": "string"}
            ),
            _in_query("tab", "Where the jobs stand.", {"type": "string", "enum": [*TABS, "all"]}),
            _in_query("cursor", "As the part before gave it.", {"type": "string"}),
        ],
    ),
    "/jobs/{queue}/{job_id}": ("getJob", "One job.", Job, [_QUEUE, _in_path("job_id", "The job's id.")]),
    "/scale/{queue}": (
        "getScale",
        "How many workers a queue wants.",
        Scale,
        [
            _QUEUE,
            _in_query(
                "target_s",
                "Within how many seconds what is there should be done.",
                {"type": "number", "exclusiveMinimum": 0, "default": TARGET_S},
            ),
        ],
    ),
}
_ERRORS = {
    "401": "Nobody that is known.",
    "403": "No right to look.",
    "404": "There is no such thing, or a parameter is wrong.",
    "503": "The server of the queues does not answer.",
}


@cache
def document() -> bytes:
    """OpenAPI 3.1, as JSON."""
    types = [*(kind for _, _, kind, _ in _PATHS.values()), Wrong]
    schemas, parts = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for (path, (name, told, _, parameters)), schema in zip(_PATHS.items(), schemas, strict=False):
        responses: dict[str, Any] = {"200": _response(told, schema)}
        for status, why in _ERRORS.items():
            responses[status] = {"description": why} if status == "401" else _response(why, schemas[-1])
        operation = {"operationId": name, "summary": told, "parameters": parameters, "responses": responses}
        paths[PREFIX + path] = {"get": operation}
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "headrace",
            "version": __version__,
            "description": "Queues, workers and jobs, to be looked at.",
        },
        "paths": paths,
        "components": {"schemas": {name: _closed(part) for name, part in sorted(parts.items())}},
    }
    return msgspec.json.format(msgspec.json.encode(whole, order="deterministic"), indent=2) + b"\n"


def _response(told: str, schema: Any) -> dict[str, Any]:
    return {"description": told, "content": {"application/json": {"schema": schema}}}


def _closed(part: dict[str, Any]) -> dict[str, Any]:
    """With words on one line; a key that it does not name is none of ours."""
    words = " ".join(str(part.get("description", "")).split())
    return {**part, "description": words, "additionalProperties": False}
