"""What running jobs yield and say, on its way to the server: one thread of a child sends it all, batch by batch.

A job puts things into an outlet and goes on. Items must arrive: the outlet keeps them until the server has them, and a
job that yields faster than that waits. Lines are best effort: a server that is away costs them.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from headrace.engine import kept, ops
from headrace.engine.call import Call
from headrace.engine.clients import ServerConfig, SyncClient, backoff_s
from headrace.engine.keys import QueueKeys
from headrace.errors import HeadraceError, ServerError, StaleRun
from headrace.wire import encode_part

logger = logging.getLogger("headrace.worker")
PACE_S = 0.005
LINES_EVERY_S = 0.2
PROGRESS_EVERY_S = 0.2
ITEMS_A_CALL, BYTES_A_CALL = 256, 1 << 20
MOST_BACKOFF_S = 1.0


class Home(NamedTuple):
    """Where a running job is: its queue, and the session that holds it, with the name it takes next."""

    queue: QueueKeys
    sessions: tuple[str, str]


class Outlet(Protocol):
    """Things of one run that wait to be sent. `not_before_s`: until then they need not be."""

    not_before_s: float

    def next_call(self) -> Call[bool] | None: ...

    def sent(self, is_ours: bool) -> None: ...

    def failed(self, error: HeadraceError) -> None: ...


class Sender:
    """The thread that sends. It begins with the first outlet, in the process that has it: a fork takes none along."""

    def __init__(self, server: ServerConfig) -> None:
        self._server = server
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: dict[Outlet, None] = {}
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    def put(self, outlet: Outlet) -> None:
        """It has something to send."""
        if self._pid != os.getpid():
            self._begin()
        with self._changed:
            self._waiting[outlet] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="headrace-outlets", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        if self._thread is not None and self._pid == os.getpid():
            with self._changed:
                self._is_stopped = True
                self._changed.notify()
            self._thread.join()

    def _run(self) -> None:
        client = SyncClient(self._server, retry=False)
        while True:
            with self._changed:
                while not self._waiting and not self._is_stopped:
                    self._changed.wait()
                if self._is_stopped:
                    break
                now_s = time.monotonic()
                due = [outlet for outlet in self._waiting if outlet.not_before_s <= now_s]
                for outlet in due:
                    del self._waiting[outlet]
            for outlet in due:
                if self._send(client, outlet):
                    with self._changed:
                        self._waiting[outlet] = None
            select.select([], [], [], PACE_S)  # meanwhile more comes, and goes out together
        client.close()

    def _send(self, client: SyncClient, outlet: Outlet) -> bool:
        """Whether it has more."""
        call = outlet.next_call()
        if call is None:
            return False
        try:
            outlet.sent(client.run(call))
        except HeadraceError as error:
            outlet.failed(error)
        return True


class Items:
    """What one run yields. `next_index`: the number of the next item.

    Args:
        find: where the job is now; None: it does not run here any more.
        most: how many items of the job are kept.
        max_bytes: how large each may be.
    """

    def __init__(
        self, sender: Sender, find: Callable[[], Home | None], job_id: str, fence: int, *, most: int, max_bytes: int
    ) -> None:
        self.next_index = 0
        self.not_before_s = 0.0
        self._sender = sender
        self._find = find
        self._job_id = job_id
        self._fence = fence
        self._most = most
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._first = 0
        self._in_call = 0
        self._failures = 0
        self._error: HeadraceError | None = None
        self._room: Future[None] | None = None
        self._end: Future[None] | None = None

    def resume_at(self, index: int) -> None:
        """Let the next item be this one; while nothing waits to be sent."""
        self.next_index = self._first = index

    def put(self, value: Any) -> Future[None] | None:
        """Take one; what is given, if anything, is to be waited for before the next.

        Raises:
            StaleRun: a newer run of the job has begun.
            PayloadNotSerializable, PayloadTooLarge
        """
        item = encode_part(f"item {self.next_index}", value, self._max_bytes)
        with self._lock:
            if self._error is not None:
                raise self._error
            self._waiting.append(item)
            self._bytes += len(item)
            self.next_index += 1
            room = None
            if len(self._waiting) >= 2 * ITEMS_A_CALL or self._bytes >= 2 * BYTES_A_CALL:
                room = self._room = self._room or _future()
        self._sender.put(self)
        return room

    def flush(self) -> Future[None]:
        """Done when the server has all that was put; fails with StaleRun."""
        with self._lock:
            end = self._end = self._end or _future()
            if self._error is not None or not self._waiting:
                self._tell()
                return end
        self._sender.put(self)
        return end

    def next_call(self) -> Call[bool] | None:
        with self._lock:
            if not self._waiting or self._error is not None:
                return None
            home = self._find()
            if home is None:
                self._fail(StaleRun(f"job {self._job_id} does not run here any more"))
                return None
            size = count = 0
            while count < min(len(self._waiting), ITEMS_A_CALL) and (not count or size < BYTES_A_CALL):
                size += len(self._waiting[count])
                count += 1
            self._in_call = count
            run = kept.WritingRun(self._job_id, self._fence, home.sessions)
            return kept.add_items(home.queue, run, self._first, self._waiting[:count], self._most)

    def sent(self, is_ours: bool) -> None:
        with self._lock:
            if not is_ours:
                self._fail(StaleRun(f"a newer run of job {self._job_id} has begun; this one was taken for dead"))
                return
            self._failures, self.not_before_s = 0, 0.0
            self._bytes -= sum(map(len, self._waiting[: self._in_call]))
            del self._waiting[: self._in_call]
            self._first += self._in_call
            self._tell()

    def failed(self, error: HeadraceError) -> None:
        with self._lock:
            if not isinstance(error, ServerError):
                self._fail(error)
                return
            if not self._failures:
                logger.warning("%s; what job %s yields waits", error, self._job_id)
            self._failures += 1
            self.not_before_s = time.monotonic() + backoff_s(self._failures, MOST_BACKOFF_S)

    def _fail(self, error: HeadraceError) -> None:
        self._error = error
        self._waiting.clear()
        self._tell()

    def _tell(self) -> None:
        """Let go who waits; with the lock held."""
        if self._room is not None and len(self._waiting) < ITEMS_A_CALL and self._bytes < BYTES_A_CALL:
            room, self._room = self._room, None
            _resolve(room, self._error)
        if self._end is not None and not self._waiting:
            end, self._end = self._end, None
            _resolve(end, self._error)


class Lines:
    """What one run says: at most 5 writes a second, and no more than would be kept waits."""

    def __init__(self, sender: Sender, find: Callable[[], Home | None], job_id: str, fence: int, attempt: int) -> None:
        self.not_before_s = 0.0
        self._sender = sender
        self._find = find
        self._job_id = job_id
        self._fence = fence
        self._attempt = attempt
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, bytes]] = []
        self._end: Future[None] | None = None
        self._is_sending = False

    def put(self, line: bytes) -> None:
        with self._lock:
            self._waiting.append((time.time_ns() // 1_000_000, line))
            if len(self._waiting) > 2 * kept.LINES_MAX:
                del self._waiting[: kept.LINES_MAX]
        self._sender.put(self)

    def flush(self) -> Future[None]:
        """Done when what was put is kept, or lost."""
        with self._lock:
            end = self._end = self._end or _future()
            if not self._waiting and not self._is_sending:
                self._tell()
                return end
            self.not_before_s = 0.0
        self._sender.put(self)
        return end

    def next_call(self) -> Call[bool] | None:
        with self._lock:
            home = self._find() if self._waiting else None
            if home is None:
                self._waiting.clear()
                self._tell()
                return None
            lines, self._waiting = self._waiting[-kept.LINES_MAX :], []
            self.not_before_s = 0.0 if self._end is not None else time.monotonic() + LINES_EVERY_S
            self._is_sending = True
        run = kept.WritingRun(self._job_id, self._fence, home.sessions)
        return kept.add_lines(home.queue, run, self._attempt, lines)

    def sent(self, is_ours: bool) -> None:
        with self._lock:
            self._is_sending = False
            if not is_ours:
                logger.warning("job %s was taken over meanwhile: what this run of it said is dropped", self._job_id)
            if not self._waiting:
                self._tell()

    def failed(self, error: HeadraceError) -> None:
        logger.warning("what job %s said was not kept: %s", self._job_id, error)
        self.sent(True)

    def _tell(self) -> None:
        if self._end is not None:
            end, self._end = self._end, None
            self.not_before_s = 0.0
            _resolve(end, None)


class Latest:
    """How far one run is: of what comes quickly only the latest, at most 5 times a second, and the last in any case."""

    def __init__(self, sender: Sender, find: Callable[[], Home | None], job_id: str) -> None:
        self.not_before_s = 0.0
        self._sender = sender
        self._find = find
        self._job_id = job_id
        self._lock = threading.Lock()
        self._waiting: bytes | None = None

    def put(self, data: bytes) -> None:
        with self._lock:
            self._waiting = data
        self._sender.put(self)

    def next_call(self) -> Call[bool] | None:
        with self._lock:
            data, self._waiting = self._waiting, None
        home = None if data is None else self._find()
        if data is None or home is None:
            return None
        self.not_before_s = time.monotonic() + PROGRESS_EVERY_S
        return ops.set_progress(home.queue, home.sessions, self._job_id, data)

    def sent(self, is_ours: bool) -> None:
        """Whoever asked for the job to stop is heard otherwise."""

    def failed(self, error: HeadraceError) -> None:
        logger.warning("the progress of job %s was not kept: %s", self._job_id, error)


def _future() -> Future[None]:
    """One that cannot be cancelled: who waits for it may go, and it is resolved all the same."""
    found: Future[None] = Future()
    found.set_running_or_notify_cancel()
    return found


def _resolve(future: Future[None], error: BaseException | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
