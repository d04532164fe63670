"""A child of a worker inside the test's own process: the real parts, driven by the test instead of a supervisor."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from headrace import Headrace
from headrace.engine import ops
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.worker import aio
from headrace.worker.board import Board, SlotRow
from headrace.worker.child import Child
from headrace.worker.config import WorkerConfig
from headrace.worker.consumer import Consumer
from headrace.worker.settle import Session


class Hand:
    """One child and what it is made of. Ends by itself when the queues are empty (`burst`), or by `child.stop()`."""

    def __init__(self, app: Headrace, config: WorkerConfig) -> None:
        self.app = app
        self.board = Board.create(1, config.slots)
        self.child = Child(app, config, self.board, 0, 1)
        self.consumers: list[Consumer] = []
        make = self.child._consumers

        def noted() -> tuple[list[Consumer], list[Session], Callable[[], None]]:
            made = make()
            self.consumers = made[0]
            return made

        self.child._consumers = noted  # type: ignore[method-assign]

    @property
    def slot(self) -> SlotRow:
        return self.board.slot(0, 0)

    @property
    def consumer(self) -> Consumer:
        return self.consumers[0]

    def work(self) -> None:
        """To the end; in the thread that calls."""
        if self.child.config.pool == "asyncio":
            aio.work(self.child)
        else:
            self.child._work()

    def close(self) -> None:
        self.child.client.close()
        if self.child._runner is not None:
            self.child._runner.close()
        os.close(self.board.fd)


@contextmanager
def hand(app: Headrace, *, queues: list[str] | None = None, burst: bool = True, **config: Any) -> Iterator[Hand]:
    """A child that is ready to work on these queues."""
    made = Hand(app, WorkerConfig(app_path="", worker_id="w", queues=queues or ["default"], burst=burst, **config))
    try:
        yield made
    finally:
        made.close()


class Other:
    """Another worker's consumer, which the test drives by hand."""

    def __init__(self, app: Headrace, name: str = "other", *queues: str) -> None:
        self._app = app
        self.name = name
        self.queues: list[QueueKeys] = [queue_keys(queue) for queue in queues or ("default",)]
        app.client.run(ops.open_session(self.queues, name, 60_000, split=False))

    def claim(self, want: int = 1, *, take_suspects: bool = True) -> list[str]:
        found = ops.claim(self.queues, self.name, want, take_suspects=take_suspects, split=False)
        self.claims = self._app.client.run(found).claims
        return [claim.id for claim in self.claims]

    def drop(self) -> None:
        """Settle what was claimed last, as done."""
        done = [
            ops.Settlement(one.queue, one.id, ops.Kind.DROPPED, b"\xc4\x01\xc0", is_suspect=one.is_suspect)
            for one in self.claims
        ]
        self._app.client.run(ops.settle(self.queues, self.name, done, split=False))

    def die(self, *blamed: str) -> None:
        """Its process is dead; the blamed ran in it."""
        self._app.client.run(
            ops.release(self.queues, self.name, blamed=blamed, alone=True, reason="killed", split=False)
        )


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread
