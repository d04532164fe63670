"""What wakes an idle worker: a blocking command parked on the markers of its queues, for a thread and for an event loop."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Sequence
from typing import Any

from headrace.engine.call import Call
from headrace.engine.connect import ServerConfig, SlotMap, parse_target, translate
from headrace.engine.links import SENT_ERRORS, AsyncLink, Link, pack
from headrace.errors import HeadraceError

__all__ = ["AsyncDoorbell", "Doorbell"]

PARKED_S = 86_400.0


def _wake_calls(keys: Sequence[bytes], is_cluster: bool) -> list[Call[bool]]:
    groups = [[key] for key in keys] if is_cluster else [list(keys)]
    return [Call(None, group, ["BZPOPMIN", *group, 0], bool) for group in groups]


class Doorbell:
    """One BZPOPMIN parked on the markers of some queues, on connections of its own (one a queue on Cluster).

    The ring carries no job: who hears it claims. A ring may be lost; who waits must look by itself now and then.
    """

    def __init__(self, config: ServerConfig, wake_keys: Sequence[bytes]) -> None:
        self._config = config
        target = parse_target(config)
        self._calls = _wake_calls(wake_keys, target.mode == "cluster")
        self._slots = SlotMap()
        self._target = target
        self._parked: list[Any | None] = [None] * len(self._calls)
        self._idle: list[Any | None] = [None] * len(self._calls)
        self._links = [Link(target, self._slots) for _ in self._calls]

    def arm(self) -> None:
        """Park a BZPOPMIN wherever none is parked.

        Raises:
            ServerUnreachable, ServerBusy, …
        """
        for n, call in enumerate(self._calls):
            if self._parked[n] is None:
                try:
                    connection = self._links[n].connection(call.keys[0])
                    connection.send_packed_command([pack(call)])
                except (*SENT_ERRORS, HeadraceError) as error:
                    self.disarm()
                    raise translate(error, self._config.url) from error
                self._parked[n] = connection

    def fds(self) -> list[int]:
        """File descriptors that become readable when it rings."""
        return [connection._sock.fileno() for connection in self._parked if connection is not None]

    def rang(self) -> bool:
        """Read what has come, without waiting; True when it rang.

        Raises:
            ServerUnreachable, ServerBusy: the connection ended, or was unblocked by a failover; it is closed.
        """
        heard = False
        for n, connection in enumerate(self._parked):
            if connection is None or not select.select([connection._sock], [], [], 0)[0]:
                continue
            self._parked[n] = None
            try:
                connection.read_response()
                heard = True
            except SENT_ERRORS as error:
                self.disarm()
                raise translate(error, self._config.url) from error
        return heard

    def disarm(self) -> None:
        """Close the connections: nothing is parked any more."""
        self._parked = [None] * len(self._calls)
        for link in self._links:
            link.close()
        self._slots.forget()

    close = disarm


class AsyncDoorbell:
    """The asyncio twin of `Doorbell`: the parked commands outlive a wait that timed out."""

    def __init__(self, config: ServerConfig, wake_keys: Sequence[bytes]) -> None:
        self._config = config
        target = parse_target(config)
        self._calls = _wake_calls(wake_keys, target.mode == "cluster")
        self._links = [AsyncLink(target, SlotMap(), reply_timeout_s=PARKED_S) for _ in self._calls]
        self._parked: dict[int, asyncio.Task[bool]] = {}

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a ring, at most `timeout_s`; True when it rang.

        Raises:
            ServerUnreachable, ServerBusy: a connection ended; the next wait connects again.
        """
        for n, call in enumerate(self._calls):
            if n not in self._parked:
                self._parked[n] = asyncio.create_task(self._links[n].send(call))
        done, _ = await asyncio.wait(self._parked.values(), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for n in [n for n, task in self._parked.items() if task in done]:
            error = self._parked.pop(n).exception()
            if error is not None:
                raise translate(error, self._config.url) from error
        return bool(done)

    async def aclose(self) -> None:
        parked, self._parked = list(self._parked.values()), {}
        for task in parked:
            task.cancel()
        await asyncio.gather(*parked, return_exceptions=True)
        for link in self._links:
            await link.close()
