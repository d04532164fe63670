"""What running jobs say: progress, log lines, checkpoints, sent to the server as they come."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from headrace.context import JobContext
from headrace.engine import ops
from headrace.engine.call import Call
from headrace.engine.clients import SyncClient
from headrace.engine.keys import QueueKeys
from headrace.errors import HeadraceError
from headrace.wire import encode_part
from headrace.worker.outlets import Home, Items, Lines, Sender
from headrace.worker.runs import Run

logger = logging.getLogger("headrace.worker")
PROGRESS_EVERY_S = 0.2
MOST_REMEMBERED = 256


class Place(NamedTuple):
    """Where a running job is: its queue, the session that holds it, whether it was asked to stop; and the session that may
    have adopted it a moment ago."""

    queue: QueueKeys
    session: str
    is_asked: bool
    next_session: str = ""


class Reports:
    """A `Reporter` over a client; a server that is away costs the job's words, not the job.

    Args:
        sender: for what goes out in batches.
        find: job id -> where it runs; None: it does not run here.
        send: how to make a call: at once (None), or by a thread of its own where the caller must not wait.
    """

    def __init__(
        self,
        client: SyncClient,
        sender: Sender,
        find: Callable[[str], Place | None],
        send: Callable[[Callable[[], Any]], Future[Any]] | None = None,
    ) -> None:
        self._client = client
        self._sender = sender
        self._find = find
        self._send = send or _at_once
        self._progress = LatestOnly(self._send_progress)

    def progress(self, job_id: str, data: bytes) -> None:
        """At most 5 a second of one job are sent; the last one always is."""
        self._progress.put(job_id, data)

    def log(self, job: JobContext, line: str) -> None:
        """Sent a few times a second, and with the end of the run."""
        assert isinstance(job, Run)
        if job.lines is None:
            job.lines = Lines(self._sender, self._home_of(job.id), job.id, job.fence, job.attempt)
        job.lines.put(line.encode("utf8", "replace"))

    def items(self, job_id: str, fence: int, most: int) -> Items:
        """For what a generator yields."""
        max_bytes = self._client.config.max_payload_bytes
        return Items(self._sender, self._home_of(job_id), job_id, fence, most=most, max_bytes=max_bytes)

    def _home_of(self, job_id: str) -> Callable[[], Home | None]:
        def find() -> Home | None:
            found = self._find(job_id)
            return None if found is None else Home(found.queue, (found.session, found.next_session))

        return find

    def save(self, job_id: str, fence: int, state: Any) -> Future[bool | None]:
        """True: it is stored; False: the run was taken over meanwhile; None: the server did not take it.

        Raises:
            PayloadNotSerializable, PayloadTooLarge
        """
        data = encode_part("the state", state, self._client.config.max_payload_bytes)
        found = self._find(job_id)
        if found is None:
            gone: Future[bool | None] = Future()
            gone.set_result(False)
            return gone
        return self._run(ops.save_state(found.queue, (found.session, found.next_session), job_id, fence, data))

    def hold(self, job_id: str, limit: str, hold_ms: int) -> None:
        found = self._find(job_id)
        if found is not None:
            self._run(ops.hold_limit(found.queue, limit, hold_ms))

    def refund(self, job_id: str, limit: str, refund_ms: float) -> None:
        found = self._find(job_id)
        if found is not None:
            self._run(ops.refund_limit(found.queue, limit, refund_ms))

    def is_cancelled(self, job_id: str) -> bool:
        found = self._find(job_id)
        return found is not None and found.is_asked

    def session(self, job_id: str) -> str:
        found = self._find(job_id)
        return "" if found is None else found.session

    def _send_progress(self, job_id: str, data: bytes) -> None:
        found = self._find(job_id)
        if found is not None:
            self._run(ops.set_progress(found.queue, (found.session, found.next_session), job_id, data))

    def _run(self, call: Call[Any]) -> Future[Any]:
        def work() -> Any:
            try:
                return self._client.run(call)
            except HeadraceError as error:
                logger.warning("what a job said was not kept: %s", error)
                return None

        return self._send(work)


class LatestOnly:
    """Passes on what is put in for a name: the first at once, then the latest, each `PROGRESS_EVERY_S` at most.

    What comes in between is sent by a thread of its own, which begins with the first such, in the process that has it.
    """

    def __init__(self, send: Callable[[str, bytes], None]) -> None:
        self._send = send
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._sent_at_s: dict[str, float] = {}
        self._waiting: dict[str, bytes] = {}
        self._thread: threading.Thread | None = None

    def put(self, name: str, data: bytes) -> None:
        if self._pid != os.getpid():
            self._begin()  # a fork has not taken the thread along
        now_s = time.monotonic()
        with self._changed:
            if now_s - self._sent_at_s.get(name, -PROGRESS_EVERY_S) < PROGRESS_EVERY_S:
                self._waiting[name] = data
                if self._thread is None:
                    self._thread = threading.Thread(target=self._pass_on, name="headrace-progress", daemon=True)
                    self._thread.start()
                self._changed.notify()
                return
            self._waiting.pop(name, None)
            self._note(name, now_s)
        self._send(name, data)

    def _note(self, name: str, now_s: float) -> None:
        if len(self._sent_at_s) >= MOST_REMEMBERED:
            self._sent_at_s = {n: at_s for n, at_s in self._sent_at_s.items() if now_s - at_s < PROGRESS_EVERY_S}
        self._sent_at_s[name] = now_s

    def _pass_on(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
            time.sleep(PROGRESS_EVERY_S / 4)
            now_s = time.monotonic()
            with self._changed:
                due = [n for n in self._waiting if now_s - self._sent_at_s.get(n, 0.0) >= PROGRESS_EVERY_S]
                ready = [(name, self._waiting.pop(name)) for name in due]
                for name in due:
                    self._note(name, now_s)
            for name, data in ready:
                self._send(name, data)


def _at_once(work: Callable[[], Any]) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(work())
    return done
