"""What running jobs say: progress, log lines, checkpoints, sent to the server as they come."""

from __future__ import annotations

import logging
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
from headrace.worker.outlets import Home, Items, Latest, Lines, Sender
from headrace.worker.runs import Run

logger = logging.getLogger("headrace.worker")


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

    def progress(self, job: JobContext, data: bytes) -> None:
        """At most 5 a second of one job are sent; the last one always is."""
        assert isinstance(job, Run)
        if job.latest is None:
            job.latest = Latest(self._sender, self._home_of(job.id), job.id)
        job.latest.put(data)

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

    def _run(self, call: Call[Any]) -> Future[Any]:
        def work() -> Any:
            try:
                return self._client.run(call)
            except HeadraceError as error:
                logger.warning("what a job said was not kept: %s", error)
                return None

        return self._send(work)


def _at_once(work: Callable[[], Any]) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(work())
    return done
