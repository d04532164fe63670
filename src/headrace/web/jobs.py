"""The pages about jobs: their lists, one job with all that is known of it, and what is done to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.core.failures import error_of
from headrace.engine import ops
from headrace.errors import UsageError
from headrace.progress import Progress
from headrace.web import api
from headrace.web.access import Right
from headrace.web.data import TABS, Details, Overview, tab_counts
from headrace.web.frame import Frame


class JobPages:
    """The lists of jobs, and one job."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._source = frame.source

    def routes(self) -> list[Route]:
        page, act = self._frame.page, self._frame.act
        job = "/jobs/{queue}/{job_id}"
        return [
            page("/jobs", self._jobs),
            page(job, self._job),
            act(job + "/retry", Right.RETRY_JOBS, self._retry),
            act(job + "/cancel", Right.CANCEL_JOBS, self._cancel),
            act(job + "/delete", Right.DELETE_JOBS, self._delete),
            page("/api/v1/jobs", self._api_jobs),
            page("/api/v1/jobs/{queue}/{job_id}", self._api_job),
        ]

    # Pages

    async def _jobs(self, request: Request) -> Response:
        overview, queue, tab, cursor = await self._place(request)
        page = await self._source.jobs(queue, tab, cursor) if queue else None
        following = urlencode({"queue": queue, "tab": tab, "cursor": page.cursor}) if page and page.cursor else ""
        counts = next((tab_counts(each) for each in overview.queues if each.name == queue), dict.fromkeys(TABS, 0))
        return await self._frame.render(
            request, "jobs", overview=overview, queue=queue, tab=tab, counts=counts, cursor=cursor,
            rows=[(row, error_of(row.record)) for row in page.rows] if page else [], following=following,
        )  # fmt: skip

    async def _place(self, request: Request) -> tuple[Overview, str, str, str]:
        """Which list is meant: by default the first queue that has any job there."""
        overview = await self._source.overview()
        asked = request.query_params
        tab = asked.get("tab", "running")
        if tab not in TABS:
            raise UsageError(f"no tab {tab!r}; tabs: {', '.join(TABS)}")
        names = [counts.name for counts in overview.queues]
        full = [counts.name for counts in overview.queues if tab_counts(counts)[tab]]
        queue = asked.get("queue") or next(iter(full or names), "")
        if asked.get("queue") and queue not in names:
            raise UsageError(f"no queue {queue!r}")
        cursor = asked.get("cursor", "")
        place, _, offset = cursor.partition(":")
        if cursor and not (place.isalpha() and offset.isdecimal() and len(offset) < 16):
            raise UsageError("this address is not one of ours: its cursor cannot be read")
        return overview, queue, tab, cursor

    async def _job(self, request: Request) -> Response:
        details = await self._source.job(request.path_params["queue"], request.path_params["job_id"])
        sees = request.state.access.may(Right.SEE_ARGS)
        return await self._frame.render(
            request, "job", job=details, record=details.record, state=details.look.state, sees=sees,
            steps=steps(details), progress=Progress.decode(details.look.progress), is_ended=details.look.state.is_ended,
        )  # fmt: skip

    # Writes

    async def _on_job(self, request: Request, did: str, answer: str, done: Sequence[str], to: str = "") -> Response:
        queue, job_id = request.path_params["queue"], request.path_params["job_id"]
        to = to or f"/jobs/{queue}/{quote(job_id, safe='')}"
        return await self._frame.done(request, did, f"{queue}/{job_id}", int(answer in done), to)

    async def _retry(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, job_id = self._named(request)
        return await self._on_job(request, "retry", await self._source.run(ops.retry(queue, job_id)), ["queued"])

    async def _cancel(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, job_id = self._named(request)
        answer = await self._source.run(ops.cancel(queue, job_id))
        return await self._on_job(request, "cancel", answer, ["cancelled", "asked"])

    async def _delete(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, job_id = self._named(request)
        answer = await self._source.run(ops.delete(queue, job_id))
        return await self._on_job(request, "delete", answer, ["deleted"], "/jobs" if answer == "deleted" else "")

    def _named(self, request: Request) -> tuple[Any, str]:
        return self._source.queue(request.path_params["queue"]), request.path_params["job_id"]

    # For programs

    async def _api_jobs(self, request: Request) -> Response:
        _, queue, tab, cursor = await self._place(request)
        if not queue:
            return api.answer(api.JobsPage([], ""))
        page = await self._source.jobs(queue, tab, cursor)
        return api.answer(api.JobsPage([api.row_of(row) for row in page.rows], page.cursor))

    async def _api_job(self, request: Request) -> Response:
        found = await self._source.job(request.path_params["queue"], request.path_params["job_id"])
        return api.answer(api.job_of(found, sees_args=request.state.access.may(Right.SEE_ARGS)))


def steps(job: Details) -> list[tuple[str, int, float | None]]:
    """What has happened to a job: (word, instant, seconds since what was before)."""
    record = job.record
    found: list[tuple[str, int]] = [("created", record.created_at_ms)]
    if record.started_at_ms:
        found.append(("started", record.started_at_ms))
    found += [("attempt_failed", error.at_ms) for error in record.errors or [] if error.at_ms]
    if record.ended_at_ms:
        found.append((str(job.look.state), record.ended_at_ms))
    elif job.look.due_ms:
        found.append(("due", job.look.due_ms))
    found.sort(key=lambda step: step[1])
    before = [None, *(at_ms for _, at_ms in found)]
    return [
        (word, at_ms, None if last is None else (at_ms - last) / 1000)
        for (word, at_ms), last in zip(found, before, strict=False)
    ]
