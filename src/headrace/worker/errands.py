"""What must reach the server though it may be away now: releases of dead children's jobs, and jobs given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from headrace.engine import ops
from headrace.engine.clients import backoff_s
from headrace.errors import ServerError, SessionGone
from headrace.worker.board import SlotRow
from headrace.worker.crew import Crew

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Release:
    """A session whose process is dead. `blamed`, `alone`, `reason`, `is_stopped`: as `ops.release` takes them."""

    session: str
    blamed: tuple[str, ...]
    alone: bool
    reason: str
    is_stopped: bool
    child: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Unstarted jobs of a revoked batch."""

    session: str
    jobs: tuple[tuple[str, str], ...]
    slot: SlotRow
    batch_serial: int


class Errands:
    """Runs each errand until it has worked. All of them may be sent twice."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._tasks: set[asyncio.Task[None]] = set()
        self._releasing: dict[int, int] = {}

    def add(self, errand: Release | GiveBack) -> None:
        work = self._release(errand) if isinstance(errand, Release) else self._give_back(errand)
        if isinstance(errand, Release):
            self._releasing[errand.child] = self._releasing.get(errand.child, 0) + 1
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def is_releasing(self, child: int) -> bool:
        return self._releasing.get(child, 0) > 0

    async def finish(self, timeout_s: float) -> int:
        """Wait for what is under way; how many errands were left undone."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        return len(left)

    async def _release(self, errand: Release) -> None:
        crew = self._crew

        async def send() -> ops.Released:
            return await crew.run(
                ops.release(
                    crew.queues,
                    errand.session,
                    blamed=errand.blamed,
                    alone=errand.alone,
                    reason=errand.reason,
                    split=crew.split,
                    stopped=errand.is_stopped,
                )
            )

        released = await _until_it_works(send)
        self._releasing[errand.child] -= 1
        for job_id in released.failed:
            crew.say(f"job {job_id} failed: {errand.reason}")
        for job_id in released.suspects:
            crew.say(f"job {job_id} will run again, alone")

    async def _give_back(self, errand: GiveBack) -> None:
        crew, slot = self._crew, errand.slot

        async def send() -> Sequence[str]:
            jobs = errand.jobs
            if slot.batch_serial != errand.batch_serial:
                # A try whose reply was lost may have worked, and the child may have claimed them again.
                again = set(slot.batch())
                jobs = tuple(job for job in jobs if job not in again)
            try:
                return await crew.run(ops.give_back(crew.queues, errand.session, jobs, split=crew.split))
            except SessionGone:
                return ()

        await _until_it_works(send)


async def _until_it_works(send: Callable[[], Awaitable[ResultT]]) -> ResultT:
    attempt = 0
    while True:
        try:
            return await send()
        except ServerError:
            attempt += 1
        await asyncio.sleep(backoff_s(attempt, 1.0))
