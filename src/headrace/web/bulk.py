"""Actions on many jobs: on those that were ticked, or on all that match a filter. The count is shown first.

All that match are noted and acted on in steps that take a second or two each. With script a page takes one after the other;
without, somebody presses the button. A step that was cut off is taken again: where it stood is kept on the server.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from headrace.core.filters import Filter, parse_filter
from headrace.core.record import new_job_id
from headrace.engine import admin, bulk
from headrace.engine.bulk import ACTS, Action, Bulk
from headrace.engine.keys import check_job_id, check_queue_name
from headrace.errors import DuplicateJob, JobNotFound, UsageError
from headrace.web.access import Access
from headrace.web.frame import Frame, Refused
from headrace.web.jobs import RIGHTS, see_if_allowed

MOST_TICKED = 300
FORM_BYTES_MAX = 65_536


class BulkPages:
    """For each action the same pages, guarded by its own right."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._source = frame.source

    def routes(self) -> list[Route]:
        return [route for action in Action for route in self._routes_of(action)]

    def _routes_of(self, action: Action) -> list[Route]:
        frame, right, at = self._frame, RIGHTS[action], f"/bulk/{action}"

        async def ask(request: Request) -> Response:
            return await self._ask(request, action)

        async def do(request: Request, _: Mapping[str, str]) -> Response:
            return await self._do(request, action)

        async def start(request: Request, form: Mapping[str, str]) -> Response:
            return await self._start(request, action, form.get("filter", ""))

        async def show(request: Request) -> Response:
            return await self._show(request, action)

        async def step(request: Request, form: Mapping[str, str]) -> Response:
            return await self._step(request, action, form)

        return [
            frame.act(at + "/ask", right, lambda request, _: ask(request), FORM_BYTES_MAX),
            frame.act(at + "/ticked", right, do, FORM_BYTES_MAX),
            frame.act(at, right, start),
            frame.page(at + "/{bulk_id}", show),
            frame.act(at + "/{bulk_id}", right, step),
        ]

    # Those that were ticked

    async def _ask(self, request: Request, action: Action) -> Response:
        jobs = _ticked(request)
        return await self._frame.render(request, "ticked", action=action, jobs=jobs)

    async def _do(self, request: Request, action: Action) -> Response:
        act, answers, _ = ACTS[action]
        jobs = _ticked(request)
        count = 0
        for queue, job_id in jobs:
            try:
                count += (await self._source.run(act(self._source.queue(queue), job_id))) in answers
            except (JobNotFound, DuplicateJob):
                continue  # counted as not done, which the page tells
        named = ", ".join(f"{queue}/{job_id}" for queue, job_id in jobs[:5]) + (", …" if len(jobs) > 5 else "")
        return await self._frame.done(request, action.value, f"{len(jobs)}: {named}", count, "/jobs")

    # All that match

    async def _start(self, request: Request, action: Action, text: str) -> Response:
        access: Access = request.state.access
        now_ms = time.time_ns() // 1_000_000
        new = Bulk(id=new_job_id(), action=action, filter=text[:1000], user=access.user, created_at_ms=now_ms)
        self._wanted(new, access)
        await self._source.run(bulk.start(self._source.prefix, new))
        new = await self._source.run(bulk.read(self._source.prefix, new.id))
        await self._note_more(new, access)
        return self._to(request, new)

    async def _show(self, request: Request, action: Action) -> Response:
        """Only to who may go on with it: its filter may hold what others may not see."""
        if not request.state.access.may(RIGHTS[action]):
            raise Refused(request.state.words("no_right"))
        return await self._frame.render(request, "bulk", bulk=await self._read(request, action), most=bulk.MOST_JOBS)

    async def _step(self, request: Request, action: Action, form: Mapping[str, str]) -> Response:
        found = await self._read(request, action)
        if not found.is_counted:
            await self._note_more(found, request.state.access)
        elif form.get("count") != str(found.count):
            raise UsageError("the number of jobs that was confirmed is not the number that was found: nothing was done")
        elif not found.is_over:
            _, done = await self._source.run(bulk.act(self._source.prefix, found))
            await self._frame.note(request, f"bulk_{action}", f"{found.filter} ({found.count} found)", done)
        return self._to(request, found)

    async def _read(self, request: Request, action: Action) -> Bulk:
        found = await self._source.run(bulk.read(self._source.prefix, check_job_id(request.path_params["bulk_id"])))
        if found.action is not action:
            raise JobNotFound(f"no such action to {action} jobs")
        return found

    async def _note_more(self, found: Bulk, access: Access) -> None:
        source = self._source
        wanted = self._wanted(found, access)
        names = await source.run(admin.queue_names(source.prefix))
        queues = [source.queue(name) for name in names]
        await source.run(bulk.note_more(source.prefix, found, queues, wanted, source.names))

    def _wanted(self, found: Bulk, access: Access) -> Filter:
        states = ACTS[found.action][2]
        wanted = parse_filter(found.filter, now_ms=found.created_at_ms, default_states=states)
        see_if_allowed(wanted, access, self._frame)
        if not wanted.states <= states:
            raise UsageError(f"{found.action} is for jobs that are {', '.join(sorted(states))}")
        return wanted

    def _to(self, request: Request, found: Bulk) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/bulk/{found.action}/{quote(found.id)}", 303)


def _ticked(request: Request) -> list[tuple[str, str]]:
    """Queue and id of each.

    Raises:
        UsageError: none, or too many.
    """
    fields: dict[str, list[str]] = request.state.fields
    pairs = [tuple(job.split("/", 1)) for job in dict.fromkeys(fields.get("job", []))]
    if not pairs:
        raise UsageError("no job was ticked: tick some in the list, then press the button again")
    if len(pairs) > MOST_TICKED:
        raise UsageError(
            f"{len(pairs)} jobs were ticked, at most {MOST_TICKED} can be: use a filter, and all that match"
        )
    return [(check_queue_name(pair[0]), check_job_id(pair[-1])) for pair in pairs]
