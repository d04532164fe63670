"""The supervisor's part in schedules: say what the app's code declares, and fire what is due. It runs no user code."""

from __future__ import annotations

import time
from bisect import bisect_left

from headrace.engine import schedules
from headrace.engine.keys import QueueKeys
from headrace.engine.schedules import Declared, Fired
from headrace.errors import QueueFull, ServerError, ServerFull
from headrace.worker.crew import Crew

LOOK_EVERY_S = 0.5
RENEW_EVERY_S = schedules.DECLARED_FOR_MS / 4_000
LATE_MS = 5_000
SAY_EVERY_S = 60.0
LATE_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


class Lateness:
    """How late the ticks of one schedule were, of those that this worker fired."""

    def __init__(self) -> None:
        self._in_step = [0] * (len(LATE_BOUNDS_S) + 1)
        self.total_s = 0.0

    @property
    def count(self) -> int:
        return sum(self._in_step)

    def add(self, late_s: float) -> None:
        self._in_step[bisect_left(LATE_BOUNDS_S, late_s)] += 1
        self.total_s += late_s

    def at_most(self, bound_s: float) -> int:
        """How many were not later than one of the bounds."""
        return sum(self._in_step[: bisect_left(LATE_BOUNDS_S, bound_s) + 1])


class Schedules:
    """Duties: 1. declare what the app declares, at the start and after a reload, and say so again while it runs;
    2. make the jobs of due ticks when the `Tender` finds some (`fire`)."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._told: list[Declared] = []
        self._next_s = 0.0
        self._said_s: dict[str, float] = {}
        self.lateness: dict[str, Lateness] = {}

    async def run_once(self) -> float:
        wanted = self._crew.schedules
        if not wanted and not self._told:
            return LOOK_EVERY_S
        try:
            if wanted is not self._told:
                await self._declare(wanted, is_start=True)
                self._told = wanted
                self._next_s = time.monotonic() + RENEW_EVERY_S
            elif time.monotonic() >= self._next_s:
                astray = await self._crew.run(schedules.renew(self._crew.client.prefix, wanted))
                await self._declare(astray, is_start=False)
                self._next_s = time.monotonic() + RENEW_EVERY_S
        except ServerError:
            return 1.0
        return LOOK_EVERY_S

    async def _declare(self, wanted: list[Declared], *, is_start: bool) -> None:
        for declared in wanted:
            problem = await self._crew.run(schedules.declare(self._crew.client.prefix, declared, is_start=is_start))
            if problem:
                self._crew.say(f"schedule {declared.name} of the code is not used: {problem}")

    async def fire(self, queue: QueueKeys) -> bool:
        """Make the jobs of a queue's due ticks; True: look again at once, since some were made.

        Raises:
            ServerError
        """
        mine = {declared.name: declared for declared in self._crew.schedules if declared.queue == queue.name}
        try:
            fired, is_more = await self._crew.client.run(schedules.fire_due(queue, mine))
        except (ServerFull, QueueFull) as error:
            # The server is there, so its health is not in question; ticks wait until workers have made room.
            fired, is_more = [Fired(f"of queue {queue.name}", [], problem=f"no jobs are made: {error}")], False
        for one in fired:
            if one.ids:
                self.lateness.setdefault(one.name, Lateness()).add(one.late_ms / 1000)
            self._say(one)
        return is_more

    def _say(self, fired: Fired) -> None:
        if fired.problem:
            # A schedule of seconds would say each second that its job still runs.
            now = time.monotonic()
            if now - self._said_s.get(fired.name, -SAY_EVERY_S) >= SAY_EVERY_S:
                self._said_s[fired.name] = now
                self._crew.say(f"schedule {fired.name}: {fired.problem}")
        elif fired.late_ms > LATE_MS:
            count = f"{len(fired.ids)} job{'' if len(fired.ids) == 1 else 's'}"
            self._crew.say(f"schedule {fired.name}: {fired.late_ms / 1000:.0f} s late; {count} made")
