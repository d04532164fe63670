"""Tend queues: promote due jobs, fire due schedules, take over dead workers' jobs, trim what is kept. Every supervisor does; none leads."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.engine import flows, ops
from headrace.engine.keys import QueueKeys
from headrace.errors import ServerError
from headrace.worker.crew import Crew
from headrace.worker.schedules import Schedules

TEND_EVERY_S = 1.0
CLOCKS_AGREE_MS = 1_000.0
"""And at most a quarter of the lease: what is left of a lease that was renewed in time must outlast two such steps."""
MOST_A_CALL = 256
SOON_S = 0.01


class SweepGuard:
    """Says when it is safe to take over sessions whose lease seems to have ended.

    Only after the server was reachable, and its clock and this machine's agreed, for one full lease: after a pause, a
    failover or a jump of the server's clock, living workers must first have had the time to renew.
    """

    def __init__(self, lease_ms: int, now: Callable[[], float] = time.monotonic) -> None:
        self._lease_ms = lease_ms
        self._agree_ms = min(CLOCKS_AGREE_MS, lease_ms / 4)
        self._now = now
        self._since: float | None = None
        self._last: tuple[float, float] = (0.0, 0.0)

    def saw(self, server_ms: int) -> None:
        """The server answered, with this clock."""
        now_ms = self._now() * 1000
        last_ms, last_server_ms = self._last
        is_steady = abs((server_ms - last_server_ms) - (now_ms - last_ms)) <= self._agree_ms
        if self._since is None or not is_steady or now_ms - last_ms > self._lease_ms / 2:
            self._since = now_ms
        self._last = (now_ms, float(server_ms))

    def lost(self) -> None:
        """The server did not answer."""
        self._since = None

    @property
    def may_sweep(self) -> bool:
        now_ms = self._now() * 1000
        is_fresh = now_ms - self._last[0] <= self._lease_ms / 2
        return self._since is not None and is_fresh and now_ms - self._since >= self._lease_ms

    def sweep_until_ms(self) -> int:
        """The server's time until which a sweep that is sent now is right; 0: none is.

        The server judges: between the last look and the sweep its clock may jump, or the call lie in its socket while it
        stands still, with everyone's renewals behind it.
        """
        if not self.may_sweep:
            return 0
        last_ms, last_server_ms = self._last
        return int(last_server_ms + self._now() * 1000 - last_ms + self._agree_ms)


class Tender:
    """Tends each queue of the worker once a second, or four times a lease, and at each tick of a schedule, with a guard for each (on Cluster each may have its own clock)."""

    def __init__(self, crew: Crew, schedules: Schedules) -> None:
        self._crew = crew
        self._schedules = schedules
        self._guards: dict[str, SweepGuard] = {}

    async def run_once(self) -> float:
        pause_s = min(TEND_EVERY_S, self._crew.config.lease_ms / 4_000)
        for queue in self._crew.queues:
            pause_s = min(pause_s, await self._tend(queue))
        return pause_s

    async def _tend(self, queue: QueueKeys) -> float:
        """Returns the seconds until there is more to do, if it is soon."""
        guard = self._guards.setdefault(queue.name, SweepGuard(self._crew.config.lease_ms))
        try:
            until_ms = guard.sweep_until_ms()
            done = await self._crew.run(ops.tend(queue, sweep=until_ms > 0, until_ms=until_ms))
        except ServerError:
            guard.lost()
            return TEND_EVERY_S
        guard.saw(done.server_ms)
        if done.swept_sessions:
            count = len(done.swept_jobs)
            lost = len(done.swept_sessions)
            self._crew.say(f"queue {queue.name}: took over {count} job(s) of {lost} lost consumer(s)")
        for job_id in done.failed:
            self._crew.say(f"job {job_id} failed: its worker was lost three times")
        if done.has_letters or done.is_half_done:
            try:
                await self._crew.run(flows.sweep(queue, done.server_ms))
            except ServerError:
                return SOON_S
        if done.promoted >= MOST_A_CALL:
            return SOON_S
        return await self._fire(queue, done.server_ms, done.next_tick_ms)

    async def _fire(self, queue: QueueKeys, server_ms: int, tick_ms: int | None) -> float:
        if tick_ms is None:
            return TEND_EVERY_S
        if tick_ms > server_ms:
            return (tick_ms - server_ms) / 1000
        try:
            # What waits for a job's end is due all the time: only what was made is a reason to look again at once.
            return SOON_S if await self._schedules.fire(queue) else TEND_EVERY_S
        except ServerError as error:
            self._crew.health.note(error)
            return TEND_EVERY_S
