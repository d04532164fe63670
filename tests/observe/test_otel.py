"""Spans and metrics of enqueues and runs, and the trace that goes with a job; producers here, workers as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import otel_jobs
import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from scenario_lab import Lab, until

from headrace import Headrace, Job, JobContext, ServerUnreachable, UsageError, telemetry
from headrace.contrib.otel import HeadraceInstrumentor, server_of
from headrace.core.record import decode
from headrace.engine import ops
from headrace.engine.keys import queue_keys
from headrace.middleware import run_inside

HERE = Path(__file__).parent
POOLS = {
    "prefork": ("--processes", "1"),
    "fork": ("--pool", "fork", "--processes", "1"),
    "threads": ("--pool", "threads", "--slots", "2"),
    "asyncio": ("--pool", "asyncio", "--slots", "2"),
}


class Traced:
    """This process, instrumented: its spans and its metrics."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        meters = MeterProvider([self._reader])
        self.tracer = self.provider.get_tracer("test")
        HeadraceInstrumentor().instrument(tracer_provider=self.provider, meter_provider=meters, **options)

    def spans(self) -> list[ReadableSpan]:
        """Those that have ended since the last look."""
        found = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return found

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        assert {scope.schema_url for scope in scopes} <= {"https://opentelemetry.io/schemas/1.44.0"}
        return [
            point for scope in scopes for one in scope.metrics if one.name == name for point in one.data.data_points
        ]


@pytest.fixture
def traced() -> Iterator[Traced]:
    yield Traced()
    HeadraceInstrumentor().uninstrument()


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found


@pytest.fixture
def lab(url: str, tmp_path: Path) -> Iterator[Lab]:
    found = Lab(url, tmp_path)
    found.app.tasks.update(otel_jobs.app.tasks)
    yield found
    found.close()


def headers_of(job: Job[Any]) -> dict[str, str]:
    return dict(job.refresh().headers)


def parent_in(headers: dict[str, str]) -> str:
    """The id of the span that a traceparent names."""
    return headers["traceparent"].split("-")[2]


def id_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


# Enqueues


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_enqueue_is_a_span_that_its_job_carries(app: Headrace, traced: Traced, is_async: bool) -> None:
    """A child of the caller's span, with the names of the conventions; the job's traceparent names it."""
    with traced.tracer.start_as_current_span("request") as request:
        if is_async:

            async def send() -> Job[Any]:
                job = await app.queue("mail").aenqueue("mail.send", 1)
                await app.aclose()
                return job

            job = asyncio.run(send())
        else:
            job = app.queue("mail").enqueue("mail.send", 1)
    span = traced.spans()[0]
    host, port = app.server_config.url.removeprefix("redis://").removesuffix("/0").split(":")
    assert ("enqueue mail", SpanKind.PRODUCER, request.get_span_context()) == (span.name, span.kind, span.parent)
    assert {
        "messaging.system": "headrace", "messaging.operation.name": "enqueue", "messaging.operation.type": "send",
        "messaging.destination.name": "mail", "messaging.message.id": job.id, "headrace.task": "mail.send",
        "server.address": host, "server.port": int(port),
    } == dict(span.attributes or {})  # fmt: skip
    with Headrace(app.server_config.url) as other:
        assert id_of(span) == parent_in(headers_of(other.job(job.id)))


def test_many_are_a_span_each_and_one_for_the_call(app: Headrace, traced: Traced) -> None:
    """Each job carries its own; the call's span links to them."""
    app.tasks.update(otel_jobs.app.tasks)
    jobs = app.enqueue_many(otel_jobs.works.call(number) for number in range(3))
    *creates, call = traced.spans()
    assert ["create default"] * 3 == [span.name for span in creates]
    assert [id_of(span) for span in creates] == [parent_in(headers_of(job)) for job in jobs]
    assert ("enqueue default", SpanKind.CLIENT) == (call.name, call.kind)
    assert [span.context for span in creates] == [link.context for link in call.links]
    assert 3 == (call.attributes or {})["messaging.batch.message_count"]
    assert 3 == sum(point.value for point in traced.points("messaging.client.sent.messages"))


def test_creates_can_be_left_out_and_spans_be_named_after_tasks(app: Headrace) -> None:
    """Then all jobs of a call carry the call's span."""
    traced = Traced(create_spans=False, span_name="task")
    try:
        jobs = app.enqueue_many(otel_jobs.works.call(number) for number in range(3))
        one = app.enqueue(otel_jobs.works, 1)
        call, single = traced.spans()
        assert {id_of(call)} == {parent_in(headers_of(job)) for job in jobs}
        assert ("enqueue default", "enqueue otel_jobs.works") == (call.name, single.name)
        assert id_of(single) == parent_in(headers_of(one))
    finally:
        HeadraceInstrumentor().uninstrument()


def test_all_jobs_of_a_flow_carry_the_span_of_its_enqueue(app: Headrace, traced: Traced) -> None:
    """Also those that wait for others."""
    flow = app.flow("report")
    first = flow.add(otel_jobs.works.call(1))
    flow.add(otel_jobs.works.call(2), after=first)
    run = flow.enqueue()
    (span,) = traced.spans()
    assert ("enqueue report", SpanKind.PRODUCER) == (span.name, span.kind)
    jobs = [app.job(f"{run.id}.{number}") for number in range(2)]
    assert [id_of(span)] * 2 == [parent_in(headers_of(job)) for job in jobs]


def test_an_enqueue_that_fails_says_with_what(traced: Traced) -> None:
    """On the span and in the metrics; what is raised is raised."""
    with Headrace("redis://127.0.0.1:1/0", retry_for=0) as app, pytest.raises(ServerUnreachable):
        app.queue("mail").enqueue("mail.send", 1)
    (span,) = traced.spans()
    assert StatusCode.ERROR is span.status.status_code
    assert "headrace.errors.ServerUnreachable" == (span.attributes or {})["error.type"]
    (point,) = traced.points("messaging.client.operation.duration")
    assert ("headrace.errors.ServerUnreachable", 1) == (point.attributes["error.type"], point.count)


def test_without_an_instrumentation_a_job_carries_nothing(app: Headrace) -> None:
    """Not a byte: also in a program in which a trace is under way."""
    assert telemetry.outlet is None
    with TracerProvider().get_tracer("test").start_as_current_span("request"):
        job = app.queue("mail").enqueue("mail.send", 1)
    assert {} == headers_of(job)
    assert b"traceparent" not in app.client.run(ops.look(queue_keys("mail"), job.id)).record


def test_records_of_today_are_read_forever() -> None:
    """As bytes, with headers and without: these files never change."""
    with_headers = decode((HERE / "record_with_headers.msgpack").read_bytes())
    assert with_headers.options is not None
    assert {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} == with_headers.options.headers
    assert ["a"] == with_headers.options.tags
    plain = decode((HERE / "record_plain.msgpack").read_bytes())
    assert (plain.task, plain.options) == ("mail.send", None)


def test_a_wrong_option_is_refused(app: Headrace) -> None:
    """At once, and nothing is instrumented."""
    with pytest.raises(UsageError, match="span_name: expected 'queue' or 'task', got 'job'"):
        HeadraceInstrumentor().instrument(span_name="job")
    HeadraceInstrumentor().uninstrument()
    assert telemetry.outlet is None


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://:secret@db.example:6380/0", ("db.example", 6380)),
        ("rediss://db", ("db", 0)),
        ("redis://[::1]:6379/0", ("::1", 6379)),
        ("redis+sentinel://:a@one:26379,two:26379/mymaster/0", ("one", 26379)),
        ("unix:///run/redis.sock", ("/run/redis.sock", 0)),
    ],
)
def test_the_servers_place_is_told_without_its_password(url: str, place: tuple[str, int]) -> None:
    """Whatever the form of its address."""
    assert place == server_of(url)


# Runs


def run_in_worker(lab: Lab, pool: str, jobs: list[Job[Any]]) -> list[dict[str, Any]]:
    """Let a worker run these, and end it; the spans it wrote."""
    worker = lab.start(*POOLS[pool], app="otel_jobs:app")
    until(lambda: all(job.refresh().state.is_ended for job in jobs), what="all jobs ended")
    assert 0 == worker.terminate()
    return [json.loads(line) for line in (lab.folder / "spans").read_text().splitlines()]


@pytest.mark.parametrize("pool", POOLS)
def test_a_run_is_a_span_that_is_linked_to_the_enqueue(
    lab: Lab, traced: Traced, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each pool, sync and async: the job's code sees the span as current and the baggage that came along, and what it
    enqueues is part of that trace. All spans have left the process when it has ended."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *sys.path]))
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    plain, anew = (lab.app.enqueue(task, 1) for task in (otel_jobs.works, otel_jobs.aworks))
    context.detach(token)
    outer, bad, again = (
        lab.app.enqueue(task, 1) for task in (otel_jobs.passes_on, otel_jobs.fails, otel_jobs.asks_again)
    )
    many = lab.app.enqueue_many(otel_jobs.together.call(number) for number in range(3))
    sent = {(span.attributes or {}).get("messaging.message.id"): id_of(span) for span in traced.spans()}
    spans = run_in_worker(lab, pool, [plain, anew, outer, bad, again, *many])
    runs = {
        span["attributes"].get("messaging.message.id"): span for span in spans if span["kind"] == "SpanKind.CONSUMER"
    }
    for job in (plain, anew):
        run = runs[job.id]
        assert "process default" == run["name"]
        assert None is run["parent_id"]
        assert [f"0x{sent[job.id]}"] == [link["context"]["span_id"] for link in run["links"]]
        seen = run["context"]["trace_id"].removeprefix("0x"), run["context"]["span_id"].removeprefix("0x"), "acme"
        assert " ".join(seen) == job.result(timeout=10)
        assert run["attributes"]["headrace.attempt"] == 1
        assert run["attributes"]["messaging.client.id"]
    inner = runs[outer.result(timeout=10)]
    (enqueue,) = [span for span in spans if span["name"] == "enqueue default"]
    assert enqueue["parent_id"] == runs[outer.id]["context"]["span_id"]
    assert [enqueue["context"]["span_id"]] == [link["context"]["span_id"] for link in inner["links"]]
    assert "ValueError: never" == runs[bad.id]["status"]["description"]
    assert "builtins.ValueError" == runs[bad.id]["attributes"]["error.type"]
    tries = [span for span in spans if span["attributes"].get("messaging.message.id") == again.id]
    assert [("retry", 1), (None, 2)] == [
        (span["attributes"].get("headrace.outcome"), span["attributes"]["headrace.attempt"]) for span in tries
    ]
    assert ["UNSET", "UNSET"] == [span["status"]["status_code"] for span in tries]
    batches = [span for span in spans if "messaging.batch.message_count" in span["attributes"]]
    assert 3 == sum(span["attributes"]["messaging.batch.message_count"] for span in batches)
    assert 3 == sum(len(span["links"]) for span in batches)


def test_a_run_can_be_a_child_of_the_enqueue(lab: Lab, traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trace from request to job, for who asks for it; a schedule's job has none to be in, and tells whose it is."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *sys.path]))
    monkeypatch.setenv("OTEL_JOBS_PARENT", "1")
    job = lab.app.enqueue(otel_jobs.works, 1)
    with traced.tracer.start_as_current_span("setting up"):
        lab.app.schedules.add("nightly.1", otel_jobs.works.call(2), cron="0 2 * * *")
        timed = lab.app.schedules.run_now("nightly.1")
    (enqueue,) = [span for span in traced.spans() if span.name == "enqueue default"]
    spans = {span["attributes"]["messaging.message.id"]: span for span in run_in_worker(lab, "prefork", [job, timed])}
    assert f"0x{id_of(enqueue)}" == spans[job.id]["parent_id"]
    assert (None, []) == (spans[timed.id]["parent_id"], spans[timed.id]["links"])
    assert "nightly.1" == spans[timed.id]["attributes"]["headrace.schedule"]


def test_runs_are_measured(traced: Traced) -> None:
    """How many began and how long they took, by queue, with the bounds of the conventions; errors apart."""
    assert telemetry.outlet is not None
    around = telemetry.outlet.around
    run_inside([around], JobContext("1", "mail", "mail.send"), lambda: None)
    with pytest.raises(ZeroDivisionError):
        run_inside([around], JobContext("2", "mail", "mail.send"), lambda: 1 / 0)
    points = {point.attributes.get("error.type"): point for point in traced.points("messaging.process.duration")}
    assert {None, "builtins.ZeroDivisionError"} == set(points)
    assert (0.005, 10.0) == (points[None].explicit_bounds[0], points[None].explicit_bounds[-1])
    assert 2 == sum(point.value for point in traced.points("messaging.client.consumed.messages"))


def test_the_agent_finds_the_instrumentation() -> None:
    """`opentelemetry-instrument` loads what stands in this group of entry points."""
    code = (
        "from importlib.metadata import entry_points\n"
        "(found,) = entry_points(group='opentelemetry_instrumentor', name='headrace')\n"
        "found.load()().instrument()\n"
        "from headrace import telemetry; print(type(telemetry.outlet).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Tracing\n" == done.stdout, done.stderr
