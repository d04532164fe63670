"""Tend queues: promote due jobs, take over dead workers' jobs, trim what is kept. Every supervisor does; none leads."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.engine import flows, ops
from headrace.engine.keys import QueueKeys
from headrace.errors import ServerError
from headrace.worker.crew import Crew

TEND_EVERY_S = 1.0
CLOCKS_AGREE_MS = 1_000.0
MOST_A_CALL = 256


class SweepGuard:
    """Says when it is safe to take over sessions whose lease seems to have ended.

    Only after the server was reachable, and its clock and this machine's agreed, for one full lease: after a pause, a
    failover or a jump of the server's clock, living workers must first have had the time to renew.
    """

    def __init__(self, lease_ms: int, now: Callable[[], float] = time.monotonic) -> None:
        self._lease_ms = lease_ms
        self._now = now
        self._since: float | None = None
        self._last: tuple[float, float] = (0.0, 0.0)

    def saw(self, server_ms: int) -> None:
        """The server answered, with this clock."""
        now_ms = self._now() * 1000
        last_ms, last_server_ms = self._last
        is_steady = abs((server_ms - last_server_ms) - (now_ms - last_ms)) <= CLOCKS_AGREE_MS
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


class Tender:
    """Tends each queue of the worker once a second, or four times a lease, with a guard for each (on Cluster each may have its own clock)."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._guards: dict[str, SweepGuard] = {}

    async def run_once(self) -> float:
        is_more = False
        for queue in self._crew.queues:
            is_more = await self._tend(queue) or is_more
        return 0.01 if is_more else min(TEND_EVERY_S, self._crew.config.lease_ms / 4_000)

    async def _tend(self, queue: QueueKeys) -> bool:
        guard = self._guards.setdefault(queue.name, SweepGuard(self._crew.config.lease_ms))
        try:
            done = await self._crew.run(ops.tend(queue, sweep=guard.may_sweep))
        except ServerError:
            guard.lost()
            return False
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
                return False
        return done.promoted >= MOST_A_CALL
