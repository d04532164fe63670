"""Keep the sessions of living children alive, tell running jobs that they are cancelled, kill who lost its lease."""

from __future__ import annotations

import time

from headrace.engine import ops
from headrace.engine.clients import backoff_s
from headrace.errors import ServerError
from headrace.worker.board import Interrupt
from headrace.worker.crew import Child, Crew

HEAR_CANCELS_EVERY_S = 0.5
"""While a job runs: its user waits, and what it does may cost something. An idle worker asks nobody."""
LOOK_AGAIN_S = 0.5
"""A child that is just adopting its own jobs under a new session shows the old one for a moment."""


class Leases:
    """Renews every `renew_ms`, in the supervisor: a job that holds the GIL, or the event loop, cannot stop it."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._missing: dict[str, float] = {}
        self._failures = 0
        self._renew_at_s = 0.0

    async def run_once(self) -> float:
        """Renew each open session when that is due, else only hear who is cancelled; return how many seconds to wait."""
        left_s = self._renew_at_s - time.monotonic()
        if left_s > 0:
            await self._hear_cancels()
        else:
            left_s = await self._renew()
            self._renew_at_s = time.monotonic() + left_s
        return min(HEAR_CANCELS_EVERY_S, left_s)

    async def _hear_cancels(self) -> None:
        """One short call, while any job runs. When the server does not answer, the next renewal will hear."""
        crew = self._crew
        if not any(crew.running(child) for child in crew.living()):
            return
        try:
            renewed = await crew.run(ops.renew(crew.queues, [], crew.config.lease_ms, split=crew.split))
        except ServerError:
            return
        self._cancel(set(renewed.cancels))

    async def _renew(self) -> float:
        """Renew each open session; return how many seconds to wait for the next time.

        Also under the name that an adoption would give it: its reply may have been lost, and then the child does not know
        yet which of the two it is. In each queue it is one of them.
        """
        crew = self._crew
        sessions = {
            crew.session(child, number, epoch): (child, number, epoch)
            for child in crew.living()
            for number, slot in crew.session_slots(child)
            if (epoch := slot.epoch)
        }
        next_of = {name: crew.session(child, slot, epoch + 1) for name, (child, slot, epoch) in sessions.items()}
        lease_s = crew.config.lease_ms / 1000
        try:
            names = [*sessions, *next_of.values()]
            renewed = await crew.run(ops.renew(crew.queues, names, crew.config.lease_ms, split=crew.split))
        except ServerError:
            self._failures += 1
            return backoff_s(self._failures, min(1.0, lease_s / 2))
        self._failures = 0
        self._cancel(set(renewed.cancels))
        gone, count = renewed.gone, len(crew.queues)
        self._judge({name: sessions[name] for name in sessions if gone[name] + gone[next_of[name]] > count})
        return min(LOOK_AGAIN_S, lease_s / 4) if self._missing else crew.config.renew_ms / 1000

    def _judge(self, gone: dict[str, tuple[Child, int, int]]) -> None:
        """Kill a busy child whose session was missing twice, and that has not opened another since."""
        now = time.monotonic()
        self._missing = {name: self._missing.get(name, now) for name in gone}
        for name, (child, number, epoch) in gone.items():
            slot = self._crew.board.slot(child.number, number)
            if not child.pid or child.killed_why or slot.epoch != epoch:
                continue
            if now - self._missing[name] >= LOOK_AGAIN_S / 2 and self._crew.running(child):
                self._crew.say(f"child {child.number} (pid {child.pid}) lost its lease: killed, its jobs run elsewhere")
                self._crew.kill(child, "its lease was lost")

    def _cancel(self, asked: set[tuple[str, str]]) -> None:
        if not asked:
            return
        for child in self._crew.living():
            for slot in self._crew.slots(child):
                serial = slot.serial
                if slot.running() in asked and slot.serial == serial:
                    self._crew.interrupt(child, slot, serial, Interrupt.CANCEL)
