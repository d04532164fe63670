"""A child of a worker inside the test's own process: the real parts, driven by the test; and its supervisor's watch."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from headrace import Headrace
from headrace.engine import ops
from headrace.engine.clients import AsyncClient, ServerConfig
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.worker.board import Board, SlotRow
from headrace.worker.child import Child
from headrace.worker.config import WorkerConfig
from headrace.worker.consumer import Consumer
from headrace.worker.crew import Crew
from headrace.worker.deadlines import Deadlines
from headrace.worker.errands import Errands
from headrace.worker.settle import Session

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class Hand:
    """One child and what it is made of. Ends by itself when the queues are empty (`burst`), or by `child.stop()`."""

    def __init__(self, app: Headrace, config: WorkerConfig) -> None:
        self.app = app
        self.board = Board.create(1, config.slots)
        self.child = Child(app, config, self.board, 0, 1)
        self.consumers: list[Consumer] = []
        self._make = self.child._consumers
        self.child._consumers = self._noted  # type: ignore[method-assign]

    def _noted(self) -> tuple[list[Consumer], list[Session], Callable[[], None]]:
        made = self._make()
        self.consumers = made[0]
        return made

    @property
    def slot(self) -> SlotRow:
        return self.board.slot(0, 0)

    @property
    def consumer(self) -> Consumer:
        """The first; not of the asyncio pool."""
        return self.consumers[0]

    def work(self) -> None:
        """Live as a child does, to the end; in the main thread. This process's signals are as before afterwards."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            assert self.child.live() == 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            faulthandler.unregister(signal.SIGUSR1)
            gc.unfreeze()

    def close(self) -> None:
        self.child.client.close()
        os.close(self.board.fd)


@contextmanager
def hand(app: Headrace, *, queues: list[str] | None = None, burst: bool = True, **config: Any) -> Iterator[Hand]:
    """A child that is ready to work on these queues."""
    made = Hand(app, WorkerConfig(app_path="", worker_id="w", queues=queues or ["default"], burst=burst, **config))
    try:
        yield made
    finally:
        made.close()


@contextmanager
def deadlines_watched(one: Hand) -> Iterator[None]:
    """The supervisor's duty of interrupting what is over its timeout, in a thread, a thousand times a second.

    It ends when the child's stop hooks run: a later signal would find no handler.
    """
    stop = threading.Event()

    async def watch() -> None:
        crew = Crew(one.child.config, one.board)
        crew.connect(AsyncClient(ServerConfig(one.app.server_config.url), retry=False), ["default"])
        crew.children[0].pid = os.getpid()
        errands = Errands(crew)
        deadlines = Deadlines(crew, errands)
        while not stop.is_set():
            await deadlines.run_once()
            await asyncio.sleep(0.001)
        await errands.finish(10)
        await crew.client.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(watch()))

    def end() -> None:
        stop.set()
        thread.join()

    one.app.on_start(thread.start)
    one.app.on_stop(end)
    try:
        yield
    finally:
        stop.set()


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
