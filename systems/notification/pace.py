"""The last moment before a request: at most so many in any second of this process.

A limit of the queue spaces the *starts* of jobs, for all workers together. From there to the request a job looks into the database, and on a
busy machine that takes now 5 ms, now 500: requests bunch. A provider counts requests, so they are counted here once more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque


class Window:
    """At most `most` turns in any second."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._at_s: deque[float] = deque(maxlen=most)

    async def turn(self) -> None:
        """Returns when there is one. Who waits longest need not be first."""
        while len(self._at_s) == self._most and (wait_s := self._at_s[0] + 1 - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        self._at_s.append(time.monotonic())
