"""Who is alive: start children, collect their deaths, decide who is blamed, and start them again."""

from __future__ import annotations

import asyncio
import time

from headrace import crash
from headrace.worker.board import Exit
from headrace.worker.crew import Child, Crew
from headrace.worker.errands import Errands, Release
from headrace.worker.launcher import Launcher, SpawnFailed
from headrace.worker.processes import Death, bytes_text, kill_group, memory_bytes, reap

LOOK_EVERY_S = 0.02
EARLY_DEATHS_ARE_ENOUGH = 5
QUICK_DEATH_S = 1.0
MEMORY_EVERY_S = 1.0
STRANGERS_KEPT = 1_000


class Roster:
    """Keeps every place of the crew filled until the worker stops, a burst is over, or its children have run all they should.

    `failed`: children cannot start (five in a row died before they were ready). `changed` is set at each death.
    """

    def __init__(self, crew: Crew, launcher: Launcher, errands: Errands) -> None:
        self._crew = crew
        self._launcher = launcher
        self._errands = errands
        self._early_deaths = 0
        self._spawn_id = 0
        self._strangers: dict[int, Death] = {}
        self.is_stopping = False
        self.needs_spawner = False
        self.failed = ""
        self.turned_s = time.monotonic()
        """When it last looked after the children."""
        self.changed = asyncio.Event()

    @property
    def is_finished(self) -> bool:
        """No child has more to do."""
        return all(child.is_done for child in self._crew.children) and not self._crew.living()

    async def run_once(self) -> float:
        """Note who has become ready, and start who is due."""
        now = self.turned_s = time.monotonic()
        for child in self._crew.children:
            if child.pid:
                if not child.was_ready and self._crew.row(child).ready:
                    child.was_ready, self._early_deaths = True, 0
            elif self._is_due(child, now):
                await self._start(child)
        return LOOK_EVERY_S

    def _is_due(self, child: Child, now: float) -> bool:
        if child.is_done or self.is_stopping or self.failed or self.needs_spawner or now < child.next_start_s:
            return False
        # A burst's child must find the jobs of the one before it.
        return not (self._crew.config.burst and self._errands.is_releasing(child.number))

    async def _start(self, child: Child) -> None:
        crew = self._crew
        self._spawn_id += 1
        crew.clear_place(child, self._spawn_id)
        row = crew.row(child)
        fresh = Child(child.number, quick_deaths=child.quick_deaths)
        if crash.IS_ON:
            crash.at("spawn.before")
        try:
            pid = await self._launcher.spawn(child.number, self._spawn_id)
        except SpawnFailed as error:
            self._count_early_death(child, f"child {child.number} could not be started: {error}")
            return
        if crash.IS_ON:
            crash.at("spawn.after")
        fresh.pid, fresh.spawn_id, fresh.started_s = pid, self._spawn_id, time.monotonic()
        row.pid = pid
        crew.children[child.number] = fresh
        if child.spawn_id:
            crew.say(f"child {child.number} started again (pid {pid})")
        early = self._strangers.pop(pid, None)
        if early is not None:
            self.bury(early)
        elif self.is_stopping:
            crew.ask_to_stop(fresh)

    def collect(self) -> None:
        """Take the deaths that wait for this process (SIGCHLD)."""
        for death in reap():
            self.bury(death)

    def bury(self, death: Death) -> None:
        """Settle what a dead child leaves: its group, its jobs, its place."""
        if self._launcher.has_died(death.pid):
            self.needs_spawner = not self.is_stopping
            if self.needs_spawner:
                self._crew.say(f"the spawner ended ({death}); starting another")
            return
        child = next((c for c in self._crew.children if c.pid == death.pid), None)
        if child is None:  # an orphan of a job; or a child whose pid the spawner has yet to tell
            self._strangers[death.pid] = death
            while len(self._strangers) > STRANGERS_KEPT:
                self._strangers.pop(next(iter(self._strangers)))
            return
        kill_group(death.pid)
        is_clean = death.signal == 0 and self._crew.row(child).exit_reason != Exit.NONE
        self._release_jobs(child, death, is_clean)
        how = "killed" if child.killed_why else "crashed" if not is_clean else "stopped"
        if is_clean and self._crew.row(child).exit_reason == Exit.RECYCLE:
            how = "recycled"
        self._crew.deaths[how] += 1
        child.pid, child.empty_since_s = 0, time.monotonic()
        self._plan_next(child, death, is_clean)
        self.changed.set()

    def _release_jobs(self, child: Child, death: Death, is_clean: bool) -> None:
        crew = self._crew
        running = [job_id for _, job_id in crew.running(child)]
        alone = len(running) == 1
        reason = f"worker lost: its process ended ({death})"
        blamed, is_stopped = tuple(running), False
        if child.killed_why:
            blamed, is_stopped, reason = tuple(child.overdue), True, child.killed_why
        elif is_clean:
            blamed = ()
        else:
            what = f"; it ran {', '.join(running[:5])}" if running else ""
            crew.say(f"child {child.number} (pid {death.pid}) {_verb(death)}{death}{what}")
        for number, slot in crew.session_slots(child):
            # A death in the middle of open or adopt leaves the session before, or the one after, in doubt.
            for epoch in {max(1, slot.epoch - 1), max(1, slot.epoch), slot.epoch + 1}:
                session = crew.session(child, number, epoch)
                self._errands.add(Release(session, blamed, alone, reason, is_stopped, child.number))

    def _plan_next(self, child: Child, death: Death, is_clean: bool) -> None:
        """Whether, and when, the place is filled again."""
        now = time.monotonic()
        reason = self._crew.row(child).exit_reason
        config = self._crew.config
        is_all = bool(config.jobs_in_all) and self._crew.counts()["jobs_done"] >= config.jobs_in_all
        if is_clean and ((config.burst and reason == Exit.DRAINED) or (is_all and reason == Exit.RECYCLE)):
            child.is_done = True
        elif self.is_stopping:
            return
        elif not self._crew.row(child).ready and not (is_clean and reason in (Exit.STOPPED, Exit.RECYCLE)):
            who = f"child {child.number} (pid {death.pid})"
            self._count_early_death(child, f"{who} ended before it was ready ({death})")
        elif is_clean or now - child.started_s > QUICK_DEATH_S:
            child.quick_deaths = 0
        else:
            child.quick_deaths += 1
            child.next_start_s = now + min(0.05 * child.quick_deaths, 0.5)

    def _count_early_death(self, child: Child, text: str) -> None:
        if not self._crew.health.is_away:
            self._early_deaths += 1
        delay_s = min(5.0, 0.1 * 2.0**self._early_deaths)
        child.next_start_s = time.monotonic() + delay_s
        self._crew.say(text)
        if self._early_deaths >= EARLY_DEATHS_ARE_ENOUGH:
            self.failed = f"{EARLY_DEATHS_ARE_ENOUGH} children in a row ended before they were ready: giving up"


def _verb(death: Death) -> str:
    return "was " if death.signal else "ended with "


class MemoryLimit:
    """Asks a child that has grown over `max_memory_bytes` to end between two jobs; another takes its place."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    async def run_once(self) -> float:
        most = self._crew.config.max_memory_bytes
        for child in self._crew.living() if most else ():
            size = memory_bytes(child.pid)
            if size > most and child.was_ready and not child.is_stopping:
                who = f"child {child.number} (pid {child.pid})"
                self._crew.say(f"{who} holds {bytes_text(size)}: replaced after its job")
                self._crew.ask_to_stop(child)
        return MEMORY_EVERY_S
