"""An app whose worker processes write their spans, a line each, to the file `spans` beside the ledger."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from headrace import Batch, Headrace, RetryIn, current_job
from headrace.contrib.otel import HeadraceInstrumentor

app = Headrace()


def as_line(span: ReadableSpan) -> str:
    return span.to_json(indent=None) + "\n"


@app.on_start
def trace_runs() -> None:
    """Here, and not on import: its thread belongs to the process that runs jobs. It sends once a minute: what is seen was flushed."""
    out = (Path(os.environ["LEDGER"]).parent / "spans").open("a")
    provider = TracerProvider()
    provider.add_span_processor(
        BatchSpanProcessor(ConsoleSpanExporter(out=out, formatter=as_line), schedule_delay_millis=60_000)
    )
    trace.set_tracer_provider(provider)
    HeadraceInstrumentor().instrument(parent=os.environ.get("OTEL_JOBS_PARENT") == "1")


@app.task
def works(number: int) -> str:
    """What it sees: its trace, and the baggage that came with it."""
    here = trace.get_current_span().get_span_context()
    return f"{here.trace_id:032x} {here.span_id:016x} {baggage.get_baggage('tenant')}"


@app.task
async def aworks(number: int) -> str:
    await asyncio.sleep(0)
    return works(number)


@app.task
def passes_on(number: int) -> str:
    """A job that enqueues a job."""
    return works.enqueue(number).id


@app.task
def fails(number: int) -> None:
    raise ValueError("never")


@app.task
def asks_again(number: int) -> str:
    if current_job().attempt == 1:
        raise RetryIn(0.01)
    return "done"


@app.task(batch=Batch(max=10))
def together(items: list[int]) -> None:
    """One run for many."""
