"""Tell systemd what becomes of the service, as sd_notify(3) says: datagrams to the socket that it names. Nothing where it names none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping

from headrace.worker.crew import Crew
from headrace.worker.vitals import Vitals

LOOK_EVERY_S = 0.1
STATUS_EVERY_S = 2.0


class Systemd:
    """The worker's word to systemd: ready, how it is, alive, reloading, stopping. A duty: `WATCHDOG=1` comes from the loop that supervises.

    Args:
        environment: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are taken out of it: they are not for the processes below.
    """

    def __init__(
        self, crew: Crew, vitals: Vitals, state: Callable[[], str], environment: MutableMapping[str, str]
    ) -> None:
        self._crew = crew
        self._vitals = vitals
        self._state = state
        self._address = environment.pop("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        is_ours = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_s = int(watchdog_us) / 2e6 if watchdog_us.isdecimal() and is_ours else 0.0
        self._next_alive_s = 0.0
        self._is_ready = False
        self._status = ""

    async def run_once(self) -> float:
        if not self._address:
            return 3600.0
        if not self._is_ready:
            self._is_ready = not self._vitals.obstacles() and self._tell("READY=1")
        self._tell_status()
        now = time.monotonic()
        if self._watchdog_s and now >= self._next_alive_s and not self._vitals.ills() and self._tell("WATCHDOG=1"):
            self._next_alive_s = now + self._watchdog_s
        if not self._is_ready:
            return LOOK_EVERY_S
        return min(STATUS_EVERY_S, max(LOOK_EVERY_S, self._next_alive_s - now)) if self._watchdog_s else STATUS_EVERY_S

    def _tell_status(self) -> None:
        crew = self._crew
        running = sum(len(crew.running(child)) for child in crew.living())
        places = crew.config.children * crew.config.slots
        told = [f"{running} running, {places} place{'' if places == 1 else 's'}", *self._vitals.obstacles()]
        status = "; ".join(told)
        if status != self._status and self._tell(f"STATUS={status}"):
            self._status = status

    def tell_reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def tell_reloaded(self) -> None:
        self._tell("READY=1")

    def tell_stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, *lines: str) -> bool:
        """False: it was not taken; a worker does not stand still for that."""
        if not self._address:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            try:
                out.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return False
        return True
