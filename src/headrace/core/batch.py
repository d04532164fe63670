"""What a batch task declares: how many calls go to its function at once, and how long it waits for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from headrace.core.retry import duration_ms
from headrace.errors import UsageError

CALLS_MAX = 1_000
WAIT_MAX_S = 10.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Run the calls of a task together: `@app.task(batch=Batch(max=1000, wait=0.2))`.

    Args:
        max: calls given to the function at once; 1 to 1,000.
        wait: seconds (or a timedelta) that the first call waits for others; 0 to 10. 0: what is there already is taken.
    """

    max: int = 100
    wait: float | timedelta = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.max, int) or isinstance(self.max, bool) or not 1 <= self.max <= CALLS_MAX:
            raise UsageError(f"Batch: max: expected a whole number from 1 to {CALLS_MAX}, got {self.max!r:.40}")
        if not 0 <= self.wait_s <= WAIT_MAX_S:
            raise UsageError(f"Batch: wait: expected 0 to {WAIT_MAX_S:g} s, got {self.wait!r:.40}")

    @property
    def wait_s(self) -> float:
        return duration_ms("Batch: wait", self.wait) / 1000
