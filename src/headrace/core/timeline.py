"""What has happened to a job, as far as its record tells: steps with their instants. No I/O."""

from __future__ import annotations

from typing import NamedTuple

from headrace.core.record import Record, State


class Step(NamedTuple):
    """One thing that happened, or (`due`) is to happen. `text`: an error, a reason; "" for none."""

    what: str
    at_ms: int
    text: str = ""


def timeline(record: Record, state: State, due_ms: int | None) -> list[Step]:
    """From its creation to now, in order. The start that is known is that of its last run."""
    found = [Step("created", record.created_at_ms)]
    for error in record.errors or ():
        if error.at_ms:
            found.append(Step(f"attempt {error.attempt} failed", error.at_ms, f"{error.type}: {error.message}".strip()))
    if record.started_at_ms:
        number = record.attempt + 1 if state is State.RUNNING else max(record.attempt, 1)
        found.append(Step(f"attempt {number} started", record.started_at_ms))
    if record.ended_at_ms:
        found.append(Step(state.value, record.ended_at_ms, record.reason or record.note or ""))
    elif due_ms:
        found.append(Step("due", due_ms))
    return sorted(found, key=lambda step: step.at_ms)
