"""The ASGI app: which address shows what. What stands around every answer is in `frame`, the pages about jobs are in `jobs`,
and what programs read is in `programs`.

1. Pages are whole and work without script; `live.js` asks for the same page again with its ETag, and changes what differs.
2. Writes are forms; each is checked, done, noted in the audit log, and answered with where to look.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from headrace.app import Headrace
from headrace.core.record import State
from headrace.core.tally import times_in
from headrace.engine import admin
from headrace.engine.admin import LimitState, QueueCounts
from headrace.errors import JobNotFound, UsageError
from headrace.web.access import Decide, Right
from headrace.web.attention import attention
from headrace.web.bulk import BulkPages
from headrace.web.chart import ages, bars, spark, waits
from headrace.web.clone import ClonePages
from headrace.web.data import SPANS, Chart, Overview, Source
from headrace.web.flows import FlowPages
from headrace.web.frame import Frame
from headrace.web.jobs import JobPages
from headrace.web.limits import LimitPages, all_limits
from headrace.web.programs import Programs
from headrace.web.redact import DEFAULT as REDACTED
from headrace.web.redact import Redact
from headrace.web.schedules import SchedulePages
from headrace.web.words import Words


class Site:
    """The pages about queues and workers."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self.source = frame.source

    def routes(self) -> list[Route]:
        page, act = self._frame.page, self._frame.act
        return [
            page("/", self._overview),
            page("/queues", self._queues),
            page("/workers", self._workers),
            page("/audit", self._audit),
            act("/queues/{queue}/pause", Right.PAUSE_QUEUES, self._pause),
            act("/queues/{queue}/resume", Right.PAUSE_QUEUES, self._resume),
            act("/queues/{queue}/purge", Right.PURGE_QUEUES, self._purge),
            act("/workers/{worker}/{command}", Right.STOP_WORKERS, self._command),
            Route("/static/{version}/{name}", self._frame.static),
        ]

    # Pages

    async def _overview(self, request: Request) -> Response:
        if job_id := request.query_params.get("id", "").strip():
            queue = await self.source.find(job_id)
            if queue is None:
                raise JobNotFound(f"no job {job_id} in any queue: it never was, was deleted, or is no longer kept")
            return RedirectResponse(f"{request.scope.get('root_path', '')}/jobs/{queue}/{quote(job_id, safe='')}", 303)
        asked = request.query_params.get("span", "1h")
        span = asked if asked in SPANS else "1h"
        chart, overview = await self.source.chart(span), await self.source.overview()
        words: Words = request.state.words
        return await self._frame.render(
            request, "overview", overview=overview, chart=chart, spans=SPANS, attention=attention(overview),
            jobs_chart=_jobs_chart(chart, words), waits_chart=_waits_chart(chart, overview),
        )  # fmt: skip

    async def _queues(self, request: Request) -> Response:
        overview = await self.source.overview()
        charts = {counts.name: await self.source.chart("1h", counts.name) for counts in overview.queues}
        lines = {
            name: spark([point.queue.get("succeeded", 0) for point in chart.points]) for name, chart in charts.items()
        }
        limits: dict[str, list[LimitState]] = {}
        for state in await self.source.shared(("limits",), all_limits(self.source.prefix)):
            limits.setdefault(state.queue, []).append(state)
        return await self._frame.render(
            request, "queues", overview=overview, charts=charts, lines=lines, limits=limits, drain_s=drain_s
        )

    async def _workers(self, request: Request) -> Response:
        workers = (await self.source.overview()).workers
        tasks = await self.source.tasks_of([job for worker in workers for job in worker.info.get("jobs", ())])
        return await self._frame.render(request, "workers", workers=workers, tasks=tasks)

    async def _audit(self, request: Request) -> Response:
        kept = await self.source.shared(("audit",), admin.list_actions(self.source.prefix))
        notes = [json.loads(note) for note in kept]
        return await self._frame.render(request, "audit", notes=notes)

    # Writes

    async def _pause(self, request: Request, form: Mapping[str, str]) -> Response:
        name = await self._frame.known_queue(request)
        user = request.state.access.user
        reason = f"{form.get('reason', '').strip()[:200] or 'paused on the dashboard'} ({user})"
        is_new = await self.source.run(admin.pause(self.source.queue(name), reason))
        return await self._frame.done(request, "pause", name, int(is_new), "/queues")

    async def _resume(self, request: Request, _: Mapping[str, str]) -> Response:
        name = await self._frame.known_queue(request)
        was_paused = await self.source.run(admin.resume(self.source.queue(name)))
        return await self._frame.done(request, "resume", name, int(was_paused), "/queues")

    async def _purge(self, request: Request, form: Mapping[str, str]) -> Response:
        name = await self._frame.known_queue(request)
        if form.get("name", "").strip() != name:
            words: Words = request.state.words
            return await self._frame.render(
                request, "error", 400, title="refused", message=words("wrong_name", queue=name)
            )
        deleted = await self.source.run(admin.purge(self.source.queue(name), State.QUEUED))
        return await self._frame.done(request, "purge", name, deleted, "/queues")

    async def _command(self, request: Request, _: Mapping[str, str]) -> Response:
        worker, name = request.path_params["worker"], request.path_params["command"]
        if name not in ("quiet", "resume", "stop"):
            raise UsageError(f"no command {name!r}")
        known = {found.id for found in await self.source.run(admin.list_workers(self.source.prefix))}
        is_told = worker in known and await self.source.run(admin.send_command(self.source.prefix, worker, name))
        return await self._frame.done(request, f"worker_{name}", worker, int(is_told), "/workers")


def _jobs_chart(chart: Chart, words: Words) -> Markup:
    pairs = [(point.queue.get("succeeded", 0), point.queue.get("failed", 0)) for point in chart.points]
    titles = [
        f"{datetime.fromtimestamp(point.at_ms / 1000, UTC):%Y-%m-%d %H:%M UTC} · {words('bar_told', good=good, bad=bad)}"
        for point, (good, bad) in zip(chart.points, pairs, strict=True)
    ]
    return bars(pairs, titles)


def _waits_chart(chart: Chart, overview: Overview) -> Markup:
    times = [times_in(point.tasks, "wait") for point in chart.points]
    now_ms = max((counts.server_ms for counts in overview.queues), default=0)
    starts = [point.at_ms for point in chart.points]
    age_s = max(overview.oldest_s.values(), default=None)
    return waits(
        [each.quantile_s(0.5) for each in times], [each.quantile_s(0.95) for each in times],
        ages(starts, chart.width_ms, now_ms, age_s),
    )  # fmt: skip


def drain_s(counts: QueueCounts, chart: Chart) -> float | None:
    """When what is queued now will have run, at the pace of the last minutes; None: never, at that pace."""
    ended = chart.a_minute("succeeded") + chart.a_minute("failed")
    faster = ended - chart.a_minute("enqueued")
    return counts.queued / faster * 60 if faster > 0 else None


def dashboard(
    app: Headrace,
    *,
    access: Decide,
    environment: str = "",
    hosts: Sequence[str] | None = None,
    redact: Iterable[str] = REDACTED,
) -> ASGIApp:
    """The dashboard of an app's server, as an ASGI app: `main.mount("/jobs", dashboard(app, access=...))`.

    Args:
        access: who may do what: gets the Starlette `Request`, gives an `Access` (or an awaitable of one). `Access.none()`
            is refused; `Access.read(user)` sees all; `Access.all(user)` may do all.
        environment: a badge on each page; "production" is shown in red.
        hosts: the only host names that it answers to; None: any.
        redact: names of arguments, and of fields in them and in results, whose values are never shown; `*` stands for any letters.
    """
    frame = Frame(Source(app), access, environment, hosts, Redact(redact))
    pages = (JobPages, BulkPages, ClonePages, SchedulePages, FlowPages, LimitPages, Site, Programs)
    found = Starlette(routes=[route for part in pages for route in part(frame).routes()])
    found.state.source = frame.source
    return found
