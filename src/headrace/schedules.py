"""Schedules as users hold them: `app.schedules`, which finds and changes them at run time, and one `Schedule` as it stands.

What code declares (`@app.cron`, `@app.every`) is told to the server by workers; nothing here declares.
"""

from __future__ import annotations

import builtins
import getpass
import os
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, Unpack

from headrace.core import schedule as core
from headrace.core.cron import load_zone
from headrace.core.record import State, decode
from headrace.core.schedule import ChangeOptions, ScheduleOptions, Spec
from headrace.engine import schedules
from headrace.engine.call import Steps
from headrace.engine.keys import check_queue_name, queue_keys
from headrace.engine.schedules import Found
from headrace.errors import UsageError
from headrace.job import Job, JobCall, Runner

T = TypeVar("T")


class Schedule:
    """One schedule, as it was when it was looked at.

    Attributes:
        name, queue: where it is.
        state: "active"; "paused"; "ended" (no tick is to come); "undeclared" (no running code declares it any more).
        declared: what code declares, or `add` was given, in the words in which it is written.
        changed: what of that was changed at run time; `changed_by`, `changed_at`.
        is_declared: code declares it; False: it was added at run time.
    """

    __slots__ = ("_found",)

    def __init__(self, found: Found) -> None:
        self._found = found

    def __repr__(self) -> str:
        when = self.now["cron"] or f"every {self.now['every']:g} s"
        return f"<Schedule {self.name} {when} on {self.queue} {self.state}>"

    @property
    def name(self) -> str:
        return self._found.name

    @property
    def queue(self) -> str:
        return self._found.queue.name

    @property
    def state(self) -> str:
        return self._found.state

    @property
    def is_declared(self) -> bool:
        return self._found.entry.is_declared

    @property
    def declared(self) -> dict[str, Any]:
        return core.shown(self._found.entry.spec)

    @property
    def changed(self) -> dict[str, Any]:
        change = self._found.entry.change
        return {} if change is None else core.shown(change.spec, change.names)

    @property
    def changed_by(self) -> str | None:
        change = self._found.entry.change
        return None if change is None else change.by

    @property
    def changed_at(self) -> datetime | None:
        change = self._found.entry.change
        return None if change is None else self._instant(change.at_ms)

    @property
    def now(self) -> dict[str, Any]:
        """What holds: as declared, but for what was changed."""
        return core.shown(self._found.entry.now)

    @property
    def pause_reason(self) -> str | None:
        pause = self._found.entry.pause
        return None if pause is None else pause.reason

    @property
    def next_tick(self) -> datetime | None:
        """The next tick, in the schedule's zone; None unless it is active."""
        ticks = self.next_ticks(1)
        return ticks[0] if ticks else None

    def next_ticks(self, count: int) -> list[datetime]:
        """Up to `count` ticks to come (the first may be due by now); none unless it is active."""
        found = self._found
        if found.state != "active" or count < 1:
            return []
        ticks = [
            found.entry.next_ms,
            *core.next_ticks(found.entry.now, max(found.entry.next_ms, found.server_ms), count - 1),
        ]
        return [at for tick in ticks if (at := self._instant(tick)) is not None]

    @property
    def last_tick(self) -> datetime | None:
        """The last tick for which jobs were made."""
        return self._instant(self._found.entry.last_ms)

    @property
    def last_job_id(self) -> str | None:
        return self._found.entry.last_id or None

    @property
    def is_waiting(self) -> bool:
        """A tick has come, and waits for the last job's end."""
        return self._found.entry.waiting_ms > 0

    @property
    def fired(self) -> int:
        """How many jobs it has made."""
        return self._found.entry.fired

    @property
    def skipped(self) -> int:
        """How many ticks made no job since the last one's had not ended."""
        return self._found.entry.skipped

    def _instant(self, at_ms: int) -> datetime | None:
        spec = self._found.entry.now
        return datetime.fromtimestamp(at_ms / 1000, load_zone(spec.tz) if spec.cron else UTC) if at_ms else None


class Schedules:
    """All schedules of an app's server: `app.schedules`. Each method has its async twin, with an `a` in front.

    They raise ScheduleNotFound where there is none of that name; UsageError names a wrong option. `queue` says where to
    look, which is needed only if two queues have one of the same name.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def list(self, queue: str | None = None) -> builtins.list[Schedule]:
        """All schedules, or those of one queue, by name."""
        return self._runner.client.run(self._list(queue))

    async def alist(self, queue: str | None = None) -> builtins.list[Schedule]:
        """As `list`."""
        return await self._runner.aclient.run(self._list(queue))

    def get(self, name: str, *, queue: str | None = None) -> Schedule:
        """The schedule of that name."""
        return self._runner.client.run(self._on(name, queue, _as_it_is))

    async def aget(self, name: str, *, queue: str | None = None) -> Schedule:
        """As `get`."""
        return await self._runner.aclient.run(self._on(name, queue, _as_it_is))

    def add(
        self,
        name: str,
        call: JobCall[Any],
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Make a schedule now: `app.schedules.add("nightly", report.call(7), cron="0 2 * * *", tz="Europe/Berlin")`.

        Raises:
            ScheduleExists: a queue has one of that name.
        """
        return self._runner.client.run(self._add(name, call, {"cron": cron, "every": every, **options}))

    async def aadd(
        self,
        name: str,
        call: JobCall[Any],
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """As `add`."""
        return await self._runner.aclient.run(self._add(name, call, {"cron": cron, "every": every, **options}))

    def pause(self, name: str, reason: str = "", *, queue: str | None = None) -> Schedule:
        """Make no jobs until `resume`."""
        return self._runner.client.run(self._on(name, queue, lambda row: schedules.pause(row, reason)))

    async def apause(self, name: str, reason: str = "", *, queue: str | None = None) -> Schedule:
        """As `pause`."""
        return await self._runner.aclient.run(self._on(name, queue, lambda row: schedules.pause(row, reason)))

    def resume(self, name: str, *, queue: str | None = None) -> Schedule:
        """Go on with the next tick after now; what came while it was paused is not caught up."""
        return self._runner.client.run(self._on(name, queue, schedules.resume))

    async def aresume(self, name: str, *, queue: str | None = None) -> Schedule:
        """As `resume`."""
        return await self._runner.aclient.run(self._on(name, queue, schedules.resume))

    def skip(self, name: str, count: int = 1, *, queue: str | None = None) -> Schedule:
        """Leave out the next `count` ticks."""
        return self._runner.client.run(self._on(name, queue, _skipping(count)))

    async def askip(self, name: str, count: int = 1, *, queue: str | None = None) -> Schedule:
        """As `skip`."""
        return await self._runner.aclient.run(self._on(name, queue, _skipping(count)))

    def run_now(self, name: str, *, queue: str | None = None) -> Job[Any]:
        """Make a job now, beside the ticks: also of a paused schedule, and whatever its overlap says."""
        return self._runner.client.run(self._run_now(name, queue))

    async def arun_now(self, name: str, *, queue: str | None = None) -> Job[Any]:
        """As `run_now`."""
        return await self._runner.aclient.run(self._run_now(name, queue))

    def change(
        self,
        name: str,
        call: JobCall[Any] | None = None,
        *,
        by: str | None = None,
        queue: str | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Schedule:
        """Override what code declares, or `add` was given, until `reset`; a deploy does not undo it.

        Args:
            call: what its jobs call from now on.
            by: who does; default: the user and host of this process.
        """
        return self._runner.client.run(self._change(name, call, by, queue, options))

    async def achange(
        self,
        name: str,
        call: JobCall[Any] | None = None,
        *,
        by: str | None = None,
        queue: str | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Schedule:
        """As `change`."""
        return await self._runner.aclient.run(self._change(name, call, by, queue, options))

    def reset(self, name: str, *, queue: str | None = None) -> Schedule:
        """Drop what was changed: what code declares, or `add` was given, holds again."""
        return self._runner.client.run(self._on(name, queue, schedules.reset))

    async def areset(self, name: str, *, queue: str | None = None) -> Schedule:
        """As `reset`."""
        return await self._runner.aclient.run(self._on(name, queue, schedules.reset))

    def remove(self, name: str, *, queue: str | None = None) -> None:
        """Delete a schedule; jobs it has made stay. Raises UsageError while running code declares it."""
        return self._runner.client.run(self._remove(name, queue))

    async def aremove(self, name: str, *, queue: str | None = None) -> None:
        """As `remove`."""
        return await self._runner.aclient.run(self._remove(name, queue))

    # What both kinds send

    def _find(self, name: str, queue: str | None) -> Steps[Found]:
        return schedules.find(self._runner.prefix, name, None if queue is None else check_queue_name(queue))

    def _list(self, queue: str | None) -> Steps[builtins.list[Schedule]]:
        name = None if queue is None else check_queue_name(queue)
        rows = yield from schedules.list_schedules(self._runner.prefix, name)
        return [Schedule(row) for row in rows]

    def _on(self, name: str, queue: str | None, act: Callable[[Found], Steps[Found]]) -> Steps[Schedule]:
        row = yield from self._find(name, queue)
        return Schedule((yield from act(row)))

    def _add(self, name: str, call: JobCall[Any], given: Mapping[str, Any]) -> Steps[Schedule]:
        spec = spec_of(call, core.check_schedule(given, "schedules.add()"))
        row = yield from schedules.add(queue_keys(call.plan.queue, self._runner.prefix), name, spec)
        return Schedule(row)

    def _change(
        self, name: str, call: JobCall[Any] | None, by: str | None, queue: str | None, given: Mapping[str, Any]
    ) -> Steps[Schedule]:
        fields = core.check_schedule(given, "schedules.change()")
        if call is not None:
            fields.update(what_of(call))
        if not fields:
            raise UsageError("schedules.change(): nothing to change")
        row = yield from self._find(name, queue)
        if call is not None and call.plan.queue != row.queue.name:
            raise UsageError(
                f"schedule {name!r} enqueues to {row.queue.name!r}, the call to {call.plan.queue!r}: remove it and add another"
            )
        return Schedule((yield from schedules.change(row, fields, by or who_is_here())))

    def _run_now(self, name: str, queue: str | None) -> Steps[Job[Any]]:
        row = yield from self._find(name, queue)
        job_id, data = yield from schedules.run_now(row)
        record = decode(data)
        return Job(job_id, row.queue.name, self._runner, record, State.QUEUED, self._runner.result_type(record.task))

    def _remove(self, name: str, queue: str | None) -> Steps[None]:
        yield from schedules.remove((yield from self._find(name, queue)))


def spec_of(call: JobCall[Any], fields: Mapping[str, Any]) -> Spec:
    """A call and checked times as what is stored.

    Raises:
        UsageError: the call has an option that a tick decides.
    """
    return core.new_spec({**fields, **what_of(call)})


def what_of(call: JobCall[Any]) -> dict[str, Any]:
    """The fields of a Spec that say which job is made; raises UsageError."""
    if not isinstance(call, JobCall):
        raise UsageError(f"a schedule: expected a call made by task.call(...), got {call!r:.80}")
    plan = call.plan
    if plan.depends_on or call.template is not None:
        raise UsageError(
            "depends_on: not for a schedule, nor are arguments that are other jobs; its job can enqueue a flow"
        )
    for name, is_given in (
        ("delay", plan.delay_ms), ("at", plan.at_ms), ("job_id", plan.job_id), ("expires", plan.expires_at_ms),
        ("deadline", plan.deadline_at_ms),
    ):  # fmt: skip
        if is_given:
            hint = (
                "give seconds, which count from the tick"
                if name in ("expires", "deadline")
                else "its ticks decide that"
            )
            raise UsageError(f"{name}: not for a schedule; {hint}")
    return {
        "task": call.task, "payload": call.payload, "priority": plan.priority, "at_front": plan.at_front,
        "expires_in_ms": plan.expires_in_ms, "deadline_in_ms": plan.deadline_in_ms, "ties": call.ties, "options": plan.job,
    }  # fmt: skip


def _as_it_is(row: Found) -> Steps[Found]:
    yield from ()
    return row


def _skipping(count: int) -> Callable[[Found], Steps[Found]]:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 1_000:
        raise UsageError(f"skip: expected 1 to 1000 ticks, got {count!r:.40}")
    return lambda row: schedules.skip(row, count)


def who_is_here() -> str:
    """The user and host of this process: who is noted for a change."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):
        name = f"uid {os.getuid()}"  # in a container, there may be no name for it
    return f"{name}@{socket.gethostname()}"
