"""The pages about schedules: what is declared and what was changed, when they tick, what came of it; and what is done to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.core import schedule as core
from headrace.core.record import State, decode
from headrace.engine import admin, ops, schedules
from headrace.engine.call import Steps
from headrace.engine.keys import QueueKeys, check_queue_name
from headrace.engine.schedules import Found
from headrace.schedules import Schedule
from headrace.web.access import Right
from headrace.web.cron_words import in_words
from headrace.web.frame import Frame, Say, shown_span

NEXT = 5
LAST = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One job of a schedule. `state`: None when the job is no longer kept. `took_s`: from start to end."""

    job_id: str
    tick: datetime
    state: State | None
    took_s: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """A schedule with its last runs, the newest first."""

    schedule: Schedule
    runs: list[Run]


def when(spec: Mapping[str, Any], say: Say) -> str:
    """The times of a schedule in words, with the zone that its clock means."""
    if spec["cron"]:
        return f"{in_words(spec['cron'], say)} · {spec['tz']}"
    return say("every", span=shown_span(spec["every"]))


def code_of(spec: Mapping[str, Any]) -> str:
    """As the times are written in code."""
    return spec["cron"] or f"every={spec['every']:g}"


def look_with_runs(prefix: str, name: str, queue: str) -> Steps[Told]:
    """A schedule, and what became of its last ticks; raises ScheduleNotFound."""
    row = yield from schedules.find(prefix, name, queue)
    return Told(Schedule(row), (yield from _last_runs(row)))


def _last_runs(row: Found) -> Steps[list[Run]]:
    entry = row.entry
    ids: dict[str, int] = {}
    if entry.last_ms:
        first_ms = core.next_tick(entry.now, min(entry.made_at_ms, entry.last_ms - 1)) or entry.last_ms
        for tick in core.last_ticks(entry.now, min(first_ms, entry.last_ms), entry.last_ms, LAST):
            ids[core.tick_id(row.name, tick)] = tick
    if entry.last_id.startswith("run:"):  # one that somebody had it make, beside the ticks
        ids[entry.last_id] = 0
    if not ids:
        return []
    records: list[bytes | None] = yield admin.read_records(row.queue, list(ids))
    runs = []
    for (job_id, tick_ms), data in zip(ids.items(), records, strict=True):
        runs.append((yield from _run(row.queue, job_id, tick_ms, data)))
    return sorted(runs, key=lambda run: run.tick, reverse=True)[:LAST]


def _run(queue: QueueKeys, job_id: str, tick_ms: int, data: bytes | None) -> Steps[Run]:
    look: ops.Look | None = None if data is None else (yield from ops.look(queue, job_id))
    if look is None:
        return Run(job_id, datetime.fromtimestamp(tick_ms / 1000, UTC), None, None)
    record = decode(look.record)
    at = datetime.fromtimestamp((tick_ms or record.created_at_ms) / 1000, UTC)
    took_ms = record.ended_at_ms - record.started_at_ms if record.ended_at_ms and record.started_at_ms else None
    return Run(job_id, at, look.state, None if took_ms is None else took_ms / 1000)


class SchedulePages:
    """The list of schedules, and one schedule."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._source = frame.source

    def routes(self) -> list[Route]:
        page, act = self._frame.page, self._frame.act
        one = "/schedules/{queue}/{name}"
        return [
            page("/schedules", self._list),
            page(one, self._one),
            act(one + "/run", Right.RUN_SCHEDULES, self._run_now),
            act(one + "/pause", Right.EDIT_SCHEDULES, self._pause),
            act(one + "/resume", Right.EDIT_SCHEDULES, self._resume),
            act(one + "/skip", Right.EDIT_SCHEDULES, self._skip),
            act(one + "/reset", Right.EDIT_SCHEDULES, self._reset),
        ]

    async def _list(self, request: Request) -> Response:
        rows: list[Found] = await self._source.shared(("schedules",), schedules.list_schedules(self._source.prefix))
        return await self._frame.render(
            request, "schedules", schedules=[Schedule(row) for row in rows], when=when, code_of=code_of
        )

    async def _one(self, request: Request) -> Response:
        queue, name = self._named(request)
        steps = look_with_runs(self._source.prefix, name, queue)
        told: Told = await self._source.shared(("schedule", queue, name), steps)
        found = told.schedule
        zone = found.now["tz"] or "UTC"
        ticks = [(at, at.astimezone(UTC)) for at in found.next_ticks(NEXT)]
        return await self._frame.render(
            request, "schedule", schedule=found, runs=told.runs, ticks=ticks, zone=zone, when=when, code_of=code_of,
            rows=declared_rows(found),
        )  # fmt: skip

    def _named(self, request: Request) -> tuple[str, str]:
        return check_queue_name(request.path_params["queue"]), core.check_schedule_name(request.path_params["name"])

    async def _act(
        self, request: Request, did: str, act: Callable[[Found], Steps[Found]], *, change: str = ""
    ) -> Response:
        """Do something to a schedule; it counts as one when that changed anything."""
        queue, name = self._named(request)
        before: Found = await self._source.run(schedules.find(self._source.prefix, name, queue))
        after: Found = await self._source.run(act(before))
        count = int(after.entry.written != before.entry.written)
        return await self._frame.done(
            request, did, f"{queue}/{name}{change}", count, f"/schedules/{quote(queue, safe='')}/{name}"
        )

    async def _run_now(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, name = self._named(request)
        row: Found = await self._source.run(schedules.find(self._source.prefix, name, queue))
        job_id, _record = await self._source.run(schedules.run_now(row))
        to = f"/jobs/{quote(queue, safe='')}/{quote(job_id, safe='')}"
        return await self._frame.done(request, "schedule_run", f"{queue}/{name}", 1, to)

    async def _pause(self, request: Request, form: Mapping[str, str]) -> Response:
        reason = f"{form.get('reason', '').strip()[:200] or 'paused on the dashboard'} ({request.state.access.user})"
        return await self._act(request, "schedule_pause", lambda row: schedules.pause(row, reason))

    async def _resume(self, request: Request, _: Mapping[str, str]) -> Response:
        return await self._act(request, "schedule_resume", schedules.resume)

    async def _skip(self, request: Request, _: Mapping[str, str]) -> Response:
        return await self._act(request, "schedule_skip", lambda row: schedules.skip(row, 1))

    async def _reset(self, request: Request, _: Mapping[str, str]) -> Response:
        return await self._act(request, "schedule_reset", schedules.reset)


def declared_rows(found: Schedule) -> list[tuple[str, str, str | None]]:
    """(option, as declared, as changed at run time or None), for a table."""
    declared, changed = found.declared, found.changed
    return [
        (name, _shown(value), _shown(changed[name]) if name in changed else None)
        for name, value in [*declared.items(), *((n, None) for n in changed if n not in declared)]
        if value is not None or changed.get(name) is not None
    ]


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
