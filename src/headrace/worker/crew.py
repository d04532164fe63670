"""What the supervisor's duties share: its children, the server, and how it speaks.

No duty calls another; they meet here. A `Child` is written by whoever acts on it, all on one event loop.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from headrace.engine.call import Op
from headrace.engine.clients import AsyncClient
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.engine.schedules import Declared
from headrace.errors import ServerDenied, ServerError
from headrace.worker.board import Board, ChildRow, SlotRow, session_id
from headrace.worker.config import WorkerConfig
from headrace.worker.processes import send_signal

T = TypeVar("T")

SIGNAL_EVERY_S = 0.5
DENIED_FOR_S = 300.0
"""How long a worker goes on that the server refuses: a password may be on its way."""


@dataclass(slots=True)
class Child:
    """One place for a child process. `pid` 0: none lives now."""

    number: int
    pid: int = 0
    spawn_id: int = 0
    started_s: float = 0.0
    was_ready: bool = False
    is_stopping: bool = False
    is_done: bool = False
    next_start_s: float = 0.0
    next_signal_s: float = 0.0
    quick_deaths: int = 0
    killed_why: str = ""
    """Set before the supervisor kills it. Then no running job is blamed, but those in `overdue`."""
    overdue: set[str] = field(default_factory=set)
    killed_s: float = 0.0
    empty_since_s: float = field(default_factory=time.monotonic)
    """When the last process of this place ended."""


class Health:
    """Knows whether the server answers; says why it does not, each reason once a minute, and when it does again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._away_since = 0.0
        self._denied_since = 0.0
        self._said_s: dict[str, float] = {}
        self.is_denied_for_good = False
        self.errors = 0
        """How often the server did not do what was asked of it."""
        self.returns = 0
        """How often the server came back: it may then be another, which lacks the newest data."""

    @property
    def is_away(self) -> bool:
        return self._away_since > 0.0

    def note(self, error: ServerError | None) -> None:
        now = time.monotonic()
        if error is None:
            if self._away_since:
                self._say(f"the server is back after {now - self._away_since:.1f} s")
                self.returns += 1
            self._away_since = self._denied_since = 0.0
            self._said_s = {}
            return
        self.errors += 1
        self._away_since = self._away_since or now
        if isinstance(error, ServerDenied):
            self._denied_since = self._denied_since or now
            self.is_denied_for_good = now - self._denied_since > DENIED_FOR_S
        text = str(error)
        if text not in self._said_s or now - self._said_s[text] > 60:
            self._said_s[text] = now
            self._say(f"{text}; trying again")


class Crew:
    """The children of one worker, with the board they write on and the client that speaks for them."""

    def __init__(self, config: WorkerConfig, board: Board) -> None:
        self.config = config
        self.board = board
        self.children = [Child(number) for number in range(config.children)]
        self.health = Health(self.say)
        self.queues: list[QueueKeys] = []
        self.schedules: list[Declared] = []
        self.deaths: Counter[str] = Counter()
        """How the children ended that have: crashed, killed (by the supervisor), recycled or stopped."""
        self._past: Counter[str] = Counter()
        self._client: AsyncClient | None = None

    def connect(self, client: AsyncClient, queues: list[str]) -> None:
        self._client = client
        self.queues = [queue_keys(name, client.prefix) for name in queues]

    @property
    def is_connected(self) -> bool:
        return self._client is not None

    @property
    def client(self) -> AsyncClient:
        if self._client is None:
            raise RuntimeError("the crew has no client before connect()")
        return self._client

    @property
    def split(self) -> bool:
        return self.client.is_cluster

    async def run(self, op: Op[T]) -> T:
        """Send to the server, and keep `health`.

        Raises:
            ServerError
        """
        try:
            result = await self.client.run(op)
        except ServerError as error:
            self.health.note(error)
            raise
        self.health.note(None)
        return result

    def say(self, text: str) -> None:
        """One event, one line on stderr. A closed or full stderr stops no worker."""
        stamp = time.strftime("%H:%M:%S")
        if self.config.log_format == "json":
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = json.dumps({"time": stamp, "worker": self.config.worker_id, "event": text}, ensure_ascii=False)
        else:
            line = f"{stamp} {text}"
        try:
            os.write(sys.stderr.fileno(), f"{line}\n".encode())
        except (OSError, ValueError):
            return

    def row(self, child: Child) -> ChildRow:
        return self.board.child(child.number)

    def slots(self, child: Child) -> list[SlotRow]:
        return self.board.slots_of(child.number)

    def living(self) -> list[Child]:
        return [child for child in self.children if child.pid]

    def session(self, child: Child, slot: int, epoch: int) -> str:
        return session_id(self.config.worker_id, child.number, slot, child.spawn_id, epoch)

    def session_slots(self, child: Child) -> Iterator[tuple[int, SlotRow]]:
        """The slots that have sessions: each, but in the asyncio pool the first only."""
        slots = self.slots(child)
        yield from enumerate(slots[:1] if self.config.pool == "asyncio" else slots)

    def session_slot_of(self, slot: int) -> int:
        return 0 if self.config.pool == "asyncio" else slot

    def counts(self) -> Counter[str]:
        """What all children have counted on the board, also those that have ended."""
        found = Counter(self._past)
        for child in self.children:
            found.update(self._counted(child))
        return found

    def clear_place(self, child: Child, spawn_id: int) -> None:
        """Make a child's rows ready for the next process; what the last one counted is kept. Quiet it stays."""
        self._past.update(self._counted(child))
        row = self.row(child)
        is_quiet = row.quiet
        row.reset(spawn_id)
        row.quiet = is_quiet
        for slot in self.slots(child):
            slot.reset()

    def _counted(self, child: Child) -> dict[str, int]:
        row = self.row(child)
        return {
            "succeeded": row.succeeded, "failed": row.failed, "retried": row.retried, "cancelled": row.cancelled,
            "run_us": row.run_us, "jobs_done": row.jobs_done, "server_errors": sum(slot.server_errors for slot in self.slots(child)),
        }  # fmt: skip

    def running(self, child: Child) -> list[tuple[str, str]]:
        """(queue, id) of each job that runs in a child, or ran when it died."""
        return [job for slot in self.slots(child) for job in slot.running_jobs()]

    def kill(self, child: Child, why: str) -> None:
        """SIGKILL, with nothing blamed on the jobs that run."""
        child.killed_why = child.killed_why or why
        child.killed_s = child.killed_s or time.monotonic()
        send_signal(child.pid, signal.SIGKILL)

    def ask_to_stop(self, child: Child) -> None:
        """Let a child finish its running jobs, give back the rest and exit."""
        child.is_stopping = True
        self.row(child).stopping = 1
        send_signal(child.pid, signal.SIGTERM)

    def set_quiet(self, is_quiet: bool) -> None:
        for child in self.children:
            self.row(child).quiet = int(is_quiet)
            if child.pid:
                send_signal(child.pid, signal.SIGUSR2)

    def interrupt(self, child: Child, slot: SlotRow, serial: int, reason: int) -> None:
        """Raise an exception in a running job, once. Asked again, signal again: the first may have found nothing to
        stop, as when its middleware took the time."""
        now = time.monotonic()
        if slot.interrupt == serial and now < child.next_signal_s:
            return
        slot.interrupt_reason = reason
        slot.interrupt = serial
        child.next_signal_s = now + SIGNAL_EVERY_S
        send_signal(child.pid, signal.SIGUSR2)
