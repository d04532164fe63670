"""Watch what the children run: interrupt what is over its timeout, kill what does not stop (also when it was cancelled), break
up old batches."""

from __future__ import annotations

import asyncio
import signal
import time

from headrace import crash
from headrace.worker.board import Interrupt, SlotRow
from headrace.worker.crew import Child, Crew
from headrace.worker.errands import Errands, GiveBack
from headrace.worker.processes import process_state, send_signal

LOOK_EVERY_S = 0.025
OLD_BATCH_NS = 1_000_000_000
UNKILLABLE_AFTER_S = 10.0


class Deadlines:
    """Reads the board every 25 ms."""

    def __init__(self, crew: Crew, errands: Errands) -> None:
        self._crew = crew
        self._errands = errands
        self._reported: set[int] = set()
        self._cancelled_ns: dict[tuple[int, int, int], int] = {}

    async def run_once(self) -> float:
        now_ns = time.monotonic_ns()
        before, self._cancelled_ns = self._cancelled_ns, {}
        for child in self._crew.living():
            if child.killed_s:
                self._report_unkillable(child)
                continue
            for number, slot in enumerate(self._crew.slots(child)):
                if slot.count and not slot.is_revoked and now_ns - slot.batch_started_ns > OLD_BATCH_NS:
                    self._break_up(child, number, slot)
                if not slot.is_running:
                    continue
                if slot.interrupt_reason == Interrupt.CANCEL and slot.interrupt == slot.serial:
                    key = (child.pid, number, slot.serial)
                    self._cancelled_ns[key] = before.get(key, now_ns)
                    is_stubborn = now_ns - self._cancelled_ns[key] >= self._crew.config.kill_after_ms * 1_000_000
                    if is_stubborn and await self._kill(
                        child, slot, key[2], "it was cancelled, and did not stop when asked"
                    ):
                        break
                elif await self._check_job(child, slot, now_ns):
                    break
        return LOOK_EVERY_S

    async def _check_job(self, child: Child, slot: SlotRow, now_ns: int) -> bool:
        """Act on a job that is over its timeout; True when its child was killed."""
        serial, over_ms = slot.serial, _overdue_ms(slot, now_ns)
        if over_ms is None or slot.serial != serial:
            return False
        if over_ms < self._crew.config.kill_after_ms:
            self._crew.interrupt(child, slot, serial, Interrupt.TIMEOUT)
            return False
        timeout_s = slot.timeout_ms / 1000
        return await self._kill(
            child, slot, serial, f"over its timeout of {timeout_s:g} s, and did not stop when asked"
        )

    async def _kill(self, child: Child, slot: SlotRow, serial: int, why: str) -> bool:
        """Stop the process, look again, and kill it only if that very job still runs."""
        pid = child.pid
        send_signal(pid, signal.SIGSTOP)
        for _ in range(200):
            if process_state(pid) in ("T", "t", "Z", ""):
                break
            await asyncio.sleep(0.001)
        jobs = slot.running_jobs()
        if child.pid != pid or slot.serial != serial or not jobs:
            send_signal(pid, signal.SIGCONT)
            return False
        child.overdue.update(job_id for _, job_id in jobs)
        who = f"child {child.number} (pid {pid})"
        if crash.IS_ON:
            crash.at("kill.before")
        others = f" and {len(jobs) - 1} others" if len(jobs) > 1 else ""
        self._crew.say(f"job {jobs[0][1]}{others}: {why}: killing {who}")
        self._crew.kill(child, f"{why}: its process was killed")
        if crash.IS_ON:
            crash.at("kill.after")
        return True

    def _break_up(self, child: Child, number: int, slot: SlotRow) -> None:
        """Give back what an old batch has not started: its child cannot, when a job holds the GIL."""
        batch_serial, epoch, jobs = slot.batch_serial, slot.epoch, slot.batch()
        if not jobs or not epoch or slot.index + 1 >= len(jobs):
            return
        slot.revoke(batch_serial)
        first = slot.index + 1  # read after the flag: see SlotRow
        if slot.batch_serial != batch_serial or first >= slot.count:
            return
        session = self._crew.session(child, self._crew.session_slot_of(number), epoch)
        self._errands.add(GiveBack(session, tuple(jobs[first : slot.count]), slot, batch_serial))

    def _report_unkillable(self, child: Child) -> None:
        if time.monotonic() - child.killed_s > UNKILLABLE_AFTER_S and child.pid not in self._reported:
            self._reported.add(child.pid)
            state = process_state(child.pid)
            who = f"child {child.number} (pid {child.pid})"
            self._crew.say(f"{who} cannot be killed (state {state}): its lease is kept")


def _overdue_ms(slot: SlotRow, now_ns: int) -> float | None:
    """How far the running job is over its timeout; None when it is not."""
    timeout_ms, started_ns = slot.timeout_ms, slot.started_ns
    if not timeout_ms or not started_ns:
        return None
    over_ms = (now_ns - started_ns) / 1e6 - timeout_ms
    return over_ms if over_ms >= 0 else None
