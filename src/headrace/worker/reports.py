"""What running jobs say: progress and log lines, sent to the server as they come."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from headrace.engine import ops
from headrace.engine.call import Call
from headrace.engine.clients import SyncClient
from headrace.engine.keys import QueueKeys
from headrace.errors import HeadraceError
from headrace.job import progress_bytes

logger = logging.getLogger("headrace.worker")
PROGRESS_EVERY_S = 0.05


class Reports:
    """A `Reporter` over a client; a server that is away costs the job's words, not the job.

    Args:
        find: job id -> (its queue, whether it was asked to stop); None: it does not run here.
        send: how to make a call: at once, or by a thread of its own where the caller must not wait.
    """

    def __init__(
        self,
        client: SyncClient,
        find: Callable[[str], tuple[QueueKeys, bool] | None],
        send: Callable[[Callable[[], None]], object] = lambda work: work(),
    ) -> None:
        self._client = client
        self._find = find
        self._send = send
        self._last: tuple[str, float] = ("", 0.0)

    def progress(self, job_id: str, fraction: float, text: str | None) -> None:
        """At most 20 a second of one job are sent; the last one, 1.0, always."""
        now = time.monotonic()
        if self._last[0] == job_id and now - self._last[1] < PROGRESS_EVERY_S and fraction < 1:
            return
        self._last = (job_id, now)
        found = self._find(job_id)
        if found is not None:
            self._run(ops.set_progress(found[0], job_id, progress_bytes(fraction, text, int(time.time() * 1000))))

    def log(self, job_id: str, line: str) -> None:
        found = self._find(job_id)
        if found is not None:
            self._run(ops.append_log(found[0], job_id, line.encode("utf8", "replace")))

    def hold(self, job_id: str, limit: str, hold_ms: int) -> None:
        found = self._find(job_id)
        if found is not None:
            self._run(ops.hold_limit(found[0], limit, hold_ms))

    def refund(self, job_id: str, limit: str, refund_ms: float) -> None:
        found = self._find(job_id)
        if found is not None:
            self._run(ops.refund_limit(found[0], limit, refund_ms))

    def is_cancelled(self, job_id: str) -> bool:
        found = self._find(job_id)
        return found is not None and found[1]

    def _run(self, call: Call[Any]) -> None:
        def work() -> None:
            try:
                self._client.run(call)
            except HeadraceError as error:
                logger.warning("what a job said was not kept: %s", error)

        self._send(work)
