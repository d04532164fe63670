"""Limits and bounds as they stand, and their change at run time: `app.limits`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal, Protocol

from headrace.core.retry import duration_ms
from headrace.core.ties import Limit, check_name, rule
from headrace.engine import admin, ops
from headrace.engine.call import Call
from headrace.engine.clients import AsyncClient, SyncClient
from headrace.engine.keys import QueueKeys, check_queue_name, queue_keys
from headrace.errors import UsageError


class App(Protocol):
    """What limits need of the app."""

    @property
    def prefix(self) -> str: ...

    @property
    def client(self) -> SyncClient: ...

    @property
    def aclient(self) -> AsyncClient: ...

    @property
    def default_queue(self) -> str: ...

    def declared_limits(self) -> Mapping[str, set[str]]: ...


class Limits:
    """Change limits while workers run, and see how they stand. A limit counts within one queue.

    Where `queue` is not said, it is the one whose tasks declare the limit. `name`: of one limit ("stripe:42"), or as declared
    ("stripe:{account}"), which then holds for all of them that have nothing of their own.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def set(
        self,
        name: str,
        *,
        rate: str | None = None,
        concurrency: int | None = None,
        burst: int = 1,
        queue: str | None = None,
    ) -> None:
        """Have this hold, whatever jobs say, until `reset`; raises UsageError for what cannot be."""
        self._app.client.run(self._set(name, rate, concurrency, burst, queue))

    async def aset(
        self,
        name: str,
        *,
        rate: str | None = None,
        concurrency: int | None = None,
        burst: int = 1,
        queue: str | None = None,
    ) -> None:
        """As `set`."""
        await self._app.aclient.run(self._set(name, rate, concurrency, burst, queue))

    def reset(self, name: str, *, queue: str | None = None) -> None:
        """Let jobs say again what holds."""
        self._app.client.run(ops.set_limit(self._keys(name, queue), name, None))

    async def areset(self, name: str, *, queue: str | None = None) -> None:
        """As `reset`."""
        await self._app.aclient.run(ops.set_limit(self._keys(name, queue), name, None))

    def hold(self, name: str, seconds: float | timedelta, *, queue: str | None = None) -> None:
        """Let nothing through for so long."""
        self._app.client.run(ops.hold_limit(self._keys(name, queue), name, duration_ms("hold", seconds)))

    async def ahold(self, name: str, seconds: float | timedelta, *, queue: str | None = None) -> None:
        """As `hold`."""
        await self._app.aclient.run(ops.hold_limit(self._keys(name, queue), name, duration_ms("hold", seconds)))

    def get(self, name: str, *, queue: str | None = None) -> admin.LimitState:
        """How one limit stands: by its own name, not as declared."""
        return self._app.client.run(admin.look_at_limits(self._keys(name, queue), (name,)))[0]

    def states(self, queue: str) -> list[admin.LimitState]:
        """Those of a queue that hold jobs back now, or were changed."""
        return self._app.client.run(admin.list_limits(queue_keys(check_queue_name(queue), self._app.prefix)))

    async def astates(self, queue: str) -> list[admin.LimitState]:
        """As `states`."""
        return await self._app.aclient.run(admin.list_limits(queue_keys(check_queue_name(queue), self._app.prefix)))

    async def aget(self, name: str, *, queue: str | None = None) -> admin.LimitState:
        """As `get`."""
        return (await self._app.aclient.run(admin.look_at_limits(self._keys(name, queue), (name,))))[0]

    def bound_queue(
        self,
        queue: str,
        *,
        max_running: int | None = None,
        max_length: int | None = None,
        overflow: Literal["refuse", "drop_oldest"] = "refuse",
        ageing: float | timedelta | None = None,
    ) -> None:
        """How many jobs of a queue may run at once, and how many may be in it; None: any number. What is not said is taken away.

        A full queue refuses new jobs (QueueFull), or ends those that have waited longest as cancelled. `ageing`: a job rises by one
        priority for each so many seconds that it waits; None: however long it waits, one with a higher priority goes first.
        """
        keys = queue_keys(check_queue_name(queue), self._app.prefix)
        self._app.client.run(bound(keys, max_running, max_length, overflow, ageing))

    async def abound_queue(
        self,
        queue: str,
        *,
        max_running: int | None = None,
        max_length: int | None = None,
        overflow: Literal["refuse", "drop_oldest"] = "refuse",
        ageing: float | timedelta | None = None,
    ) -> None:
        """As `bound_queue`."""
        keys = queue_keys(check_queue_name(queue), self._app.prefix)
        await self._app.aclient.run(bound(keys, max_running, max_length, overflow, ageing))

    def _set(self, name: str, rate: str | None, concurrency: int | None, burst: int, queue: str | None) -> Call[None]:
        Limit(name, rate=rate, concurrency=concurrency, burst=burst)
        return ops.set_limit(self._keys(name, queue), name, rule(rate, concurrency, burst))

    def _keys(self, name: str, queue: str | None) -> QueueKeys:
        check_name("limit", name)
        if queue is not None:
            return queue_keys(check_queue_name(queue), self._app.prefix)
        found = self._app.declared_limits().get(name, set())
        if len(found) > 1:
            raise UsageError(
                f"limit {name!r} is declared on the queues {', '.join(sorted(found))}: say which, with queue="
            )
        return queue_keys(found.pop() if found else self._app.default_queue, self._app.prefix)


def bound(
    queue: QueueKeys,
    max_running: int | None,
    max_length: int | None,
    overflow: str,
    ageing: float | timedelta | None = None,
) -> Call[None]:
    """The call that bounds a queue.

    Raises:
        UsageError: a bound below 1, an `overflow` that is none, an `ageing` below a millisecond, or one where the oldest are dropped.
    """
    for name, value in (("max_running", max_running), ("max_length", max_length)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UsageError(f"{name}: expected a whole number, 1 or more, or None, got {value!r:.40}")
    if overflow not in ("refuse", "drop_oldest"):
        raise UsageError(f"overflow: expected 'refuse' or 'drop_oldest', got {overflow!r:.40}")
    step_ms = None if ageing is None else duration_ms("ageing", ageing)
    if step_ms == 0:
        raise UsageError(f"ageing: expected a millisecond or more, or None, got {ageing!r:.40}")
    if step_ms and max_length and overflow == "drop_oldest":
        raise UsageError("ageing: a queue that ages has no oldest job to drop; use overflow='refuse', or no ageing")
    bounds = {"max_running": max_running, "max_length": max_length, "overflow": overflow if max_length else None}
    return ops.bound_queue(queue, {**bounds, "ageing": step_ms})
