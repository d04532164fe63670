"""What a worker tells of itself to probes and scrapers, from what its duties know: nobody is asked, and no code of users runs.

`/livez`: a restart would mend what is wrong. That the loop turns is told by the answer itself; a server that is away
is not mended by a restart, so it is no reason. `/readyz`: the server answers, and jobs are taken. `/metrics`: this worker alone;
what is known of all queues together comes from one place, `headrace web` or `headrace metrics`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from headrace.observe import exposition
from headrace.observe.exposition import family, histogram, line, simple
from headrace.observe.listener import Answer, Listener
from headrace.version import __version__
from headrace.worker.crew import Child, Crew
from headrace.worker.processes import memory_bytes
from headrace.worker.roster import Roster
from headrace.worker.schedules import LATE_BOUNDS_S, Schedules

STUCK_AFTER_S = 60.0
EMPTY_FOR_S = 30.0
OUTCOMES = {"succeeded": "success", "failed": "dead", "retried": "error", "cancelled": "cancelled"}


class Vitals:
    """Answers for one worker. `state`: running, quiet or stopping."""

    def __init__(self, crew: Crew, roster: Roster, schedules: Schedules, state: Callable[[], str]) -> None:
        self._crew = crew
        self._roster = roster
        self._schedules = schedules
        self._state = state
        self._started_at_s = time.time()
        self._listener = Listener({"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics})
        self.has_begun = False
        """The app is imported and the server found: children are started from now on."""

    async def open(self, host: str, port: int) -> str:
        """Answer from now on, and return the address; raises UsageError."""
        return await self._listener.open(host, port)

    async def aclose(self) -> None:
        await self._listener.aclose()

    def _livez(self) -> Answer:
        return _told(self.ills())

    def _readyz(self) -> Answer:
        return _told(self.obstacles())

    def _metrics(self) -> Answer:
        return Answer(200, self.metrics(), exposition.CONTENT_TYPE)

    def ills(self) -> list[str]:
        """What a restart would mend; [] when all is well."""
        if not self.has_begun or self._roster.is_stopping:
            return []
        now = time.monotonic()
        stuck_s = now - self._roster.turned_s
        if stuck_s > STUCK_AFTER_S:
            return [f"nobody has looked after the children for {stuck_s:.0f} s"]
        empty = [
            child
            for child in self._crew.children
            if not child.pid and not child.is_done and now - child.empty_since_s > EMPTY_FOR_S
        ]
        return [
            f"child {child.number} has not been running for {now - child.empty_since_s:.0f} s" for child in empty[:10]
        ]

    def obstacles(self) -> list[str]:
        """Why no jobs are taken; [] when they are."""
        if not self.has_begun:
            return ["starting"]
        state = self._state()
        told = [] if state == "running" else [state]
        if self._crew.health.is_away:
            told.append("the server does not answer")
        if not any(self._is_ready(child) for child in self._crew.living()):
            told.append("no child is ready")
        return told

    def _is_ready(self, child: Child) -> bool:
        """It has started, and a consumer of it has its session."""
        return bool(self._crew.row(child).ready) and any(slot.epoch for _, slot in self._crew.session_slots(child))

    def metrics(self) -> str:
        """As Prometheus' text."""
        crew, counts = self._crew, self._crew.counts()
        living = crew.living()
        ready = sum(self._is_ready(child) for child in living)
        memory = {"supervisor": memory_bytes(os.getpid()), "children": sum(memory_bytes(c.pid) for c in living)}
        config, is_ready = crew.config, not self.obstacles()
        info = {"worker": config.worker_id, "pool": config.pool, "version": __version__}
        errors = crew.health.errors + counts["server_errors"]
        return exposition.text([
            family("headrace_worker_info", "gauge", "Which worker answers.", [line("headrace_worker_info", info, 1)]),
            simple("headrace_worker_start_timestamp_seconds", "gauge", "When it started.", self._started_at_s),
            simple("headrace_worker_ready", "gauge", "1 while it takes jobs.", int(is_ready)),
            family("headrace_worker_children", "gauge", "Its processes that run jobs.", (
                line("headrace_worker_children", {"state": state}, count)
                for state, count in (
                    ("ready", ready), ("starting", len(living) - ready), ("missing", len(crew.children) - len(living)),
                )
            )),
            family("headrace_worker_child_deaths_total", "counter", "Processes that ended, by how.", (
                line("headrace_worker_child_deaths_total", {"how": how}, crew.deaths[how])
                for how in ("crashed", "killed", "recycled", "stopped")
            )),
            simple("headrace_worker_places", "gauge", "How many jobs it can run at once.", config.children * config.slots),
            simple(
                "headrace_worker_running_jobs", "gauge", "Jobs that run in it now.",
                sum(len(crew.running(child)) for child in living),
            ),
            family("headrace_worker_attempts_total", "counter", "Runs of jobs in it, counted within 10 s.", (
                line("headrace_worker_attempts_total", {"outcome": told}, counts[name]) for name, told in OUTCOMES.items()
            )),
            simple(
                "headrace_worker_run_seconds_total", "counter", "The time of these runs together.", counts["run_us"] / 1e6
            ),
            family("headrace_worker_memory_bytes", "gauge", "Resident memory; what processes share is counted in each.", (
                line("headrace_worker_memory_bytes", {"process": who}, size) for who, size in memory.items()
            )),
            simple("headrace_server_errors_total", "counter", "How often the server did not do what was asked.", errors),
            family("headrace_schedule_lateness_seconds", "histogram", "From a tick to the job that it made.", (
                row
                for name, late in sorted(self._schedules.lateness.items())
                for row in histogram(
                    "headrace_schedule_lateness_seconds", {"schedule": name},
                    [(bound, late.at_most(bound)) for bound in LATE_BOUNDS_S], late.total_s, late.count,
                )
            )),
        ])  # fmt: skip


def _told(reasons: list[str]) -> Answer:
    return Answer(503, "".join(f"{reason}\n" for reason in reasons)) if reasons else Answer(200, "ok\n")
