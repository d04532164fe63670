"""A wait that SIGINT and SIGTERM end: for schedulers and pools, which have nothing else to interrupt (not in RQ)."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType


class Stop:
    """`is_requested` once it was asked for, by a signal or a call."""

    def __init__(self) -> None:
        self.is_requested = False
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)

    def request(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        self.is_requested = True
        self.wake()

    def wake(self) -> None:
        """End a wait; safe in a signal handler."""
        try:
            os.write(self._writing, b"!")
        except BlockingIOError:
            return  # a wake is under way

    def wait(self, seconds: float) -> None:
        """At most so long."""
        if select.select([self._reading], [], [], max(0.0, seconds))[0]:
            os.read(self._reading, 64)

    def listen(self) -> None:
        """From now on, SIGINT and SIGTERM ask for it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.request)

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)
