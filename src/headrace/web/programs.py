"""What programs read: metrics, signs of life, and `/api/v1`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.engine import admin, schedules
from headrace.errors import HeadraceError, UsageError
from headrace.observe import exposition
from headrace.observe.metrics import Snapshot, render
from headrace.web import api
from headrace.web.frame import Frame


class Programs:
    """The addresses that are not for people; those about jobs are in `jobs`."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._source = frame.source

    def routes(self) -> list[Route]:
        page = self._frame.page
        return [
            page("/metrics", self._metrics),
            page(f"{api.PREFIX}/openapi.json", self._openapi),
            page(f"{api.PREFIX}/queues", self._queues),
            page(f"{api.PREFIX}/workers", self._workers),
            page(f"{api.PREFIX}/scale/{{queue}}", self._scale),
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
        ]

    async def _metrics(self, request: Request) -> Response:
        source = self._source
        overview = await source.overview()
        rows = await source.shared(("schedules",), schedules.list_schedules(source.prefix))
        seen = Snapshot(
            overview.queues, overview.workers, overview.oldest_s, await source.totals(), rows, source.errors
        )
        return Response(render(seen), headers={"Content-Type": exposition.CONTENT_TYPE})

    async def _openapi(self, request: Request) -> Response:
        return Response(api.document(), media_type="application/json")

    async def _queues(self, request: Request) -> Response:
        overview = await self._source.overview()
        return api.answer([api.queue_of(counts, overview) for counts in overview.queues])

    async def _workers(self, request: Request) -> Response:
        return api.answer([api.worker_of(worker) for worker in (await self._source.overview()).workers])

    async def _scale(self, request: Request) -> Response:
        overview = await self._source.overview()
        name: str = request.path_params["queue"]
        counts = next((found for found in overview.queues if found.name == name), None)
        if counts is None:
            raise UsageError(f"no queue {name!r}")
        chart = await self._source.chart("1h", name)
        lately = api.sums_of_queue([point.tasks for point in chart.points])
        return api.answer(api.scale_of(counts, overview, lately, _target_s(request)))

    async def _livez(self, request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def _readyz(self, request: Request) -> Response:
        try:
            await self._source.run(admin.queue_names(self._source.prefix))
        except HeadraceError:
            return Response("the server does not answer\n", 503, media_type="text/plain")
        return Response("ok\n", media_type="text/plain")


def _target_s(request: Request) -> float:
    text = request.query_params.get("target_s", str(api.TARGET_S))
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise UsageError(f"target_s: expected a number of seconds above 0, got {text!r:.40}")
    return found
