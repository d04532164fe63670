"""A run of a generator task: what it yields goes out as it comes, and is with the server before the run counts as ended."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, closing
from typing import Any

from headrace.context import Reporter
from headrace.core.record import Record
from headrace.engine.ops import Claim
from headrace.errors import UsageError
from headrace.task import Task
from headrace.worker.outlets import Items
from headrace.worker.runs import Run


class StreamRun(Run):
    """A Run whose `fn` drains the task's generator. What a sync generator returns is the job's result."""

    __slots__ = ("_items",)

    def __init__(
        self,
        claim: Claim,
        record: Record,
        task: Task[..., Any],
        args: list[Any],
        kwargs: dict[str, Any],
        reporter: Reporter,
        items: Items,
    ) -> None:
        super().__init__(claim, record, task, args, kwargs, reporter)
        self._items = items
        self.fn = self._adrain if self.is_async else self._drain

    def resume_at(self, item: int) -> None:
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise UsageError(f"resume_at: expected the number of an item, 0 or more, got {item!r:.40}")
        if self._items.next_index:
            raise UsageError("resume_at: say it once, before the first item is yielded")
        self._items.resume_at(item)

    def save(self, state: Any) -> bool:
        """What was yielded before is stored before: a checkpoint never runs ahead of its items."""
        if not self.is_async:
            self._items.flush().result()
        return super().save(state)

    async def asave(self, state: Any) -> bool:
        await asyncio.wrap_future(self._items.flush())
        return await super().asave(state)

    def _drain(self, *args: Any, **kwargs: Any) -> Any:
        items = self._items
        try:
            with closing(self.task_value.fn(*args, **kwargs)) as found:
                while True:
                    try:
                        value = next(found)
                    except StopIteration as stop:
                        return stop.value
                    room = items.put(value)
                    if room is not None:
                        room.result()
        finally:
            items.flush().result()

    async def _adrain(self, *args: Any, **kwargs: Any) -> None:
        items = self._items
        try:
            async with aclosing(self.task_value.fn(*args, **kwargs)) as found:
                async for value in found:
                    room = items.put(value)
                    if room is not None:
                        await asyncio.wrap_future(room)
        finally:
            await asyncio.wrap_future(items.flush())
