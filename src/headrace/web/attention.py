"""What somebody should look at, found in what the pages show anyway."""

from __future__ import annotations

from headrace.web.data import Overview
from headrace.web.frame import shown_span

CLOCKS_MAY_DIFFER_S = 1.0
MEMORY_IS_SHORT_FROM = 0.9
Finding = tuple[str, dict[str, object]]
"""A sentence's key, and what is in it."""


def attention(overview: Overview) -> list[Finding]:
    """The server first, then queue by queue."""
    return [
        *_of_server(overview),
        *(finding for counts in overview.queues for finding in _of_queue(overview, counts.name)),
    ]


def _of_server(overview: Overview) -> list[Finding]:
    found: list[Finding] = []
    if overview.memory_share is not None and overview.memory_share >= MEMORY_IS_SHORT_FROM:
        found.append(("needs_memory", {"share": f"{overview.memory_share:.0%}"}))
    if abs(overview.clock_apart_s) > CLOCKS_MAY_DIFFER_S:
        found.append(("needs_clock", {"span": shown_span(abs(overview.clock_apart_s))}))
    return found


def _of_queue(overview: Overview, name: str) -> list[Finding]:
    counts = next(each for each in overview.queues if each.name == name)
    found: list[Finding] = []
    if counts.paused is not None:
        since_s = (counts.server_ms - (counts.paused_at_ms or counts.server_ms)) / 1000
        found.append(("needs_resume", {"queue": name, "reason": counts.paused, "span": shown_span(since_s)}))
    elif counts.queued and not overview.workers_of(name):
        found.append(("needs_worker", {"queue": name, "n": counts.queued}))
    if counts.overdue_sessions:
        found.append(("needs_sweep", {"queue": name, "n": counts.overdue_sessions}))
    if counts.suspects:
        found.append(("needs_look", {"queue": name, "n": counts.suspects}))
    return found
