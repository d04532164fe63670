"""OpenTelemetry: spans and metrics of enqueues and runs, and the trace carried in the job. Needs the extra `otel`.

    from headrace.contrib.otel import HeadraceInstrumentor
    HeadraceInstrumentor().instrument()

`opentelemetry-instrument headrace worker …` does so by itself. Names are those of the semantic conventions of messaging 1.44.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from opentelemetry import context as contexts
from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode

from headrace import Headrace, JobContext, telemetry
from headrace.context import BatchContext
from headrace.errors import JobCancelled, RetryIn, UsageError
from headrace.job import Job, JobCall
from headrace.version import __version__

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
FLUSH_WITHIN_MS = 3_000
SpanName = Literal["queue", "task"]


class HeadraceInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments this process; `uninstrument()` ends it. Before a worker's first job: in the app's module, or in `@app.on_start`.

    Options of `instrument`:
        tracer_provider, meter_provider: instead of the global ones.
        parent: a run's span is a child of the span that enqueued it, instead of being linked to it. Runs of batch tasks are
            linked all the same, since they have many.
        create_spans: a span for each job of `enqueue_many`, beside the one of the call.
        span_name: "queue" (`process mail`) or "task" (`process mail.send`).
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("headrace >= 0.1",)

    def _instrument(self, **options: Any) -> None:
        span_name = options.get("span_name", "queue")
        if span_name not in ("queue", "task"):
            raise UsageError(f"span_name: expected 'queue' or 'task', got {span_name!r:.40}")
        telemetry.outlet = Tracing(
            trace.get_tracer(__name__, __version__, options.get("tracer_provider"), SCHEMA_URL),
            metrics.get_meter(__name__, __version__, options.get("meter_provider"), SCHEMA_URL),
            (options.get("tracer_provider"), options.get("meter_provider")),
            parent=bool(options.get("parent", False)),
            create_spans=bool(options.get("create_spans", True)),
            span_name=span_name,
        )

    def _uninstrument(self, **options: Any) -> None:
        telemetry.outlet = None


class Sending:
    """One enqueue that is under way."""

    __slots__ = ("_span", "call")

    def __init__(self, call: JobCall[Any], span: Span) -> None:
        self.call = call
        self._span = span

    def stored(self, job: Job[Any]) -> Job[Any]:
        self._span.set_attribute("messaging.message.id", job.id)
        return job


class Tracing:
    """The process's outlet: see `headrace.telemetry.Outlet`."""

    def __init__(
        self,
        tracer: trace.Tracer,
        meter: metrics.Meter,
        providers: tuple[Any, Any],
        *,
        parent: bool,
        create_spans: bool,
        span_name: SpanName,
    ) -> None:
        self._tracer = tracer
        self._providers = providers
        self._is_parent = parent
        self._creates = create_spans
        self._by_task = span_name == "task"
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}", "Jobs enqueued.")
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Jobs that began to run."
        )
        self._operations = meter.create_histogram(
            "messaging.client.operation.duration", "s", "How long an enqueue took.",
            explicit_bucket_boundaries_advisory=BUCKETS_S,
        )  # fmt: skip
        self._runs = meter.create_histogram(
            "messaging.process.duration", "s", "How long a run took.", explicit_bucket_boundaries_advisory=BUCKETS_S
        )

    # Enqueue

    @contextmanager
    def enqueue(self, app: Headrace, call: JobCall[Any]) -> Iterator[Sending]:
        attributes = {**_sending(app, call.plan.queue), "headrace.task": call.task}
        name = f"enqueue {call.task if self._by_task else call.plan.queue}"
        with self._operation(name, SpanKind.PRODUCER, attributes, 1) as span:
            yield Sending(_with_headers(call, self.headers()), span)

    @contextmanager
    def enqueue_many(self, app: Headrace, calls: Sequence[JobCall[Any]]) -> Iterator[Sequence[JobCall[Any]]]:
        good = [call for call in calls if isinstance(call, JobCall)]  # what is none is refused by who gets them
        queues = list(dict.fromkeys(call.plan.queue for call in good))
        links: list[Link] = []
        if self._creates:
            made = {id(call): self._create(app, call) for call in good}
            links = [Link(span) for span, _ in made.values()]
            calls = [_with_headers(call, made[id(call)][1]) if id(call) in made else call for call in calls]
        attributes = {
            **_sending(app, queues[0] if len(queues) == 1 else ""),
            "messaging.batch.message_count": len(good),
        }
        name = f"enqueue {queues[0]}" if len(queues) == 1 else "enqueue"
        with self._operation(name, SpanKind.CLIENT, attributes, len(good), links):
            if not self._creates:
                here = self.headers()
                calls = [_with_headers(call, here) if isinstance(call, JobCall) else call for call in calls]
            yield calls

    def _create(self, app: Headrace, call: JobCall[Any]) -> tuple[trace.SpanContext, dict[str, str]]:
        attributes = {**_sending(app, call.plan.queue), "headrace.task": call.task}
        attributes |= {"messaging.operation.name": "create", "messaging.operation.type": "create"}
        name = f"create {call.task if self._by_task else call.plan.queue}"
        with self._tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes) as span:
            return span.get_span_context(), self.headers()

    @contextmanager
    def enqueue_flow(self, app: Headrace, name: str) -> Iterator[None]:
        attributes = _sending(app, "") | ({"headrace.flow": name} if name else {})
        with self._operation(f"enqueue {name or 'flow'}", SpanKind.PRODUCER, attributes, 1):
            yield

    @contextmanager
    def _operation(
        self, name: str, kind: SpanKind, attributes: dict[str, Any], count: int, links: Sequence[Link] = ()
    ) -> Iterator[Span]:
        """A call to the server, with what is measured of it."""
        measured = _few(attributes)
        began = time.perf_counter()
        with self._tracer.start_as_current_span(name, kind=kind, attributes=attributes, links=links) as span:
            try:
                yield span
            except BaseException as error:
                measured["error.type"] = _note(span, error)
                raise
            finally:
                self._sent.add(count, measured)
                self._operations.record(time.perf_counter() - began, measured)

    def headers(self) -> dict[str, str]:
        """The current trace and baggage, as the propagators that are set write them: W3C's, unless told otherwise."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    # Run

    @contextmanager
    def around(self, job: JobContext) -> Iterator[None]:
        jobs = job.jobs if isinstance(job, BatchContext) else (job,)
        base, links = self._origin(jobs)
        attributes = _processing(job, jobs)
        measured = _few(attributes)
        name = f"process {job.task if self._by_task else job.queue}"
        token = contexts.attach(base)
        began = time.perf_counter()
        try:
            with self._tracer.start_as_current_span(
                name, kind=SpanKind.CONSUMER, attributes=attributes, links=links,
                record_exception=False, set_status_on_exception=False,
            ) as span:  # fmt: skip
                try:
                    yield
                except (RetryIn, JobCancelled) as asked:  # what was asked for is no error
                    span.set_attribute("headrace.outcome", "retry" if isinstance(asked, RetryIn) else "cancelled")
                    raise
                except BaseException as error:
                    measured["error.type"] = _note(span, error)
                    raise
        finally:
            self._consumed.add(len(jobs), measured)
            self._runs.record(time.perf_counter() - began, measured)
            contexts.detach(token)

    def _origin(self, jobs: Sequence[JobContext]) -> tuple[Context, list[Link]]:
        """The context that a run begins in, and the spans that its jobs come from. Baggage goes on in a run of one job."""
        found = [propagate.extract(each.headers) for each in jobs if each.headers]
        spans = [trace.get_current_span(context).get_span_context() for context in found]
        links = [Link(span) for span in {span.span_id: span for span in spans if span.is_valid}.values()]
        context = found[0] if len(jobs) == 1 and found else contexts.get_current()
        if self._is_parent and len(jobs) == 1 and links:
            return context, []
        return trace.set_span_in_context(INVALID_SPAN, context), links

    def flush(self) -> None:
        """Spans and metrics leave before the process does."""
        own_tracers, own_meters = self._providers
        for provider in (own_tracers or trace.get_tracer_provider(), own_meters or metrics.get_meter_provider()):
            flush = getattr(provider, "force_flush", None)
            if flush is not None:  # the API's own providers keep nothing
                flush(FLUSH_WITHIN_MS)


def _with_headers(call: JobCall[Any], headers: dict[str, str]) -> JobCall[Any]:
    return msgspec.structs.replace(call, headers=headers)


def _sending(app: Headrace, queue: str) -> dict[str, Any]:
    address, port = server_of(app.server_config.url)
    found: dict[str, Any] = {
        "messaging.system": "headrace",
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "server.address": address,
    }
    if queue:
        found["messaging.destination.name"] = queue
    return found | ({"server.port": port} if port else {})


def _processing(job: JobContext, jobs: Sequence[JobContext]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "messaging.system": "headrace",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": job.queue,
        "messaging.client.id": telemetry.worker_id,
        "headrace.task": job.task,
        "headrace.attempt": job.attempt,
    }
    if isinstance(job, BatchContext):
        return found | {"messaging.batch.message_count": len(jobs)}
    found["messaging.message.id"] = job.id
    flow, dot, _ = job.id.partition(".")
    if dot and not job.id.startswith("cron:"):
        found["messaging.message.conversation_id"] = flow
    if job.id.startswith(("cron:", "run:")):
        found["headrace.schedule"] = job.id.partition(":")[2].rpartition(":")[0]
    return found


def _few(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those that metrics have: few values, so that series stay few."""
    names = (
        "messaging.system",
        "messaging.operation.name",
        "messaging.destination.name",
        "server.address",
        "server.port",
    )
    return {name: attributes[name] for name in names if name in attributes}


def _note(span: Span, error: BaseException) -> str:
    """Tell of an error on the span; its type."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    span.set_attribute("error.type", kind)
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
    return kind


@lru_cache(maxsize=32)
def server_of(url: str) -> tuple[str, int]:
    """Host and port of a server's URL, the first of several; port 0: none is named, as of a socket's path."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2].split(",")[0]
    host, _, port = place.rpartition(":") if not place.endswith("]") and ":" in place else (place, "", "")
    return host.strip("[]") or parts.path or "localhost", int(port) if port.isdecimal() else 0
