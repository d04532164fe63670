"""How many jobs to claim at once: as many as take about 5 ms, so that nothing waits long behind another."""

from __future__ import annotations

MOST = 256


class BatchSize:
    """Starts at 1 and at most doubles; a moving average of the time a job takes says where to stop.

    `want` is the number to claim next: 1 to `most`.
    """

    __slots__ = ("_average_ns", "_most", "_target_ns", "want")

    def __init__(self, target_ms: float = 5.0, most: int = MOST) -> None:
        self._target_ns = target_ms * 1e6
        self._most = most
        self._average_ns = 0.0
        self.want = 1

    def learn(self, jobs: int, took_ns: int) -> None:
        """Take in a batch of `jobs` that took `took_ns` in all."""
        each = took_ns / jobs
        # A slow job counts at once, tiny ones only little by little.
        self._average_ns = each if each > self._average_ns else 0.7 * self._average_ns + 0.3 * each
        fits = int(self._target_ns / self._average_ns) if self._average_ns > 0 else self._most
        self.want = max(1, min(fits, 2 * max(jobs, self.want // 2), self._most))
