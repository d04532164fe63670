"""Show the worker in `headrace workers`, and take the commands that operators leave for it."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.engine import ops
from headrace.errors import ServerError
from headrace.version import __version__
from headrace.worker.crew import Crew
from headrace.worker.processes import memory_bytes

BEAT_EVERY_S = 5.0


class Presence:
    """Beats every 5 s; puts the queues on the list of all again when the server was away. `obey` gets what an operator asked for: stop, kill, quiet, resume or stacks."""

    def __init__(self, crew: Crew, obey: Callable[[str], None], state: Callable[[], str]) -> None:
        self._crew = crew
        self._obey = obey
        self._state = state
        self._started_at_ms = int(time.time() * 1000)
        self._told_to_stop_at_ms = 0
        self._returns_seen = 0
        self._taken = ""

    async def run_once(self) -> float:
        crew = self._crew
        info = msgspec.msgpack.encode(self._info())
        try:
            command = await crew.run(ops.beat(crew.client.prefix, crew.config.worker_id, info, self._taken))
            self._taken = ""
            returns = crew.health.returns
            if returns != self._returns_seen:
                await crew.run(ops.announce_queues(crew.client.prefix, [queue.name for queue in crew.queues]))
                self._returns_seen = returns
        except ServerError:
            return 1.0
        if command is not None:
            self._taken = command
            self._obey(command)
            return 0.0  # say so, before the operator leaves another
        return BEAT_EVERY_S

    async def leave(self) -> None:
        try:
            await self._crew.run(ops.leave(self._crew.client.prefix, self._crew.config.worker_id))
        except ServerError:
            return  # an entry that does not beat is dropped after 30 s

    def _info(self) -> dict[str, Any]:
        crew = self._crew
        running = [job for child in crew.living() for job in crew.running(child)]
        counts, state = crew.counts(), self._state()
        if state == "stopping" and not self._told_to_stop_at_ms:
            self._told_to_stop_at_ms = int(time.time() * 1000)
        return {
            "name": crew.config.name or crew.config.worker_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pool": crew.config.pool,
            "queues": [queue.name for queue in crew.queues],
            "state": state,
            "children": len(crew.living()),
            "slots": crew.config.slots,
            "running": len(running),
            "jobs": [f"{queue}/{job_id}" for queue, job_id in running[:100]],
            "succeeded": counts["succeeded"],
            "failed": counts["failed"] + counts["retried"],
            "run_ms": counts["run_us"] // 1000,
            "started_at_ms": self._started_at_ms,
            "memory_bytes": sum(memory_bytes(pid) for pid in (os.getpid(), *(child.pid for child in crew.living()))),
            "told_to_stop_at_ms": self._told_to_stop_at_ms,
            "version": __version__,
            "python": platform.python_version(),
        }
