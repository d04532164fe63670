"""The demo's two local web servers: the site whose pages are counted, and the web app that enqueues the counting."""

from __future__ import annotations

import hmac
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from headrace import Headrace
from headrace.demo.pages import Page
from headrace.demo.tasks import QUEUES, count_words_at_url


@dataclass(slots=True)
class Kill:
    """The process that was killed, what it ran, and when that job came again. Times: `time.monotonic()`."""

    pid: int
    job_id: str
    path: str
    at: float
    again_at: float = 0.0


class _Server(ThreadingHTTPServer):
    """A web server on a free port of this machine, in a thread of its own."""

    request_queue_size = 256
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def __enter__(self) -> Self:
        return self

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has gone (it was killed, or the demo ends): nobody is left to tell."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One write an answer, sent at once: else Nagle's algorithm and delayed ACKs add 40 ms to each request.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """The demo's own progress is shown instead."""

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Site(_Server):
    """Serves the pages, as slowly as a distant server would, and notes which job asks.

    The visit number `kill_at` gets no answer: the process that asks is killed with SIGKILL, in the middle of its job.
    Only who knows `token` is noted or killed.
    """

    def __init__(self, pages: Sequence[Page], *, latency_s: float, token: str, kill_at: int) -> None:
        self.pages = {page.path: page.html.encode() for page in pages}
        self.latency_s = latency_s
        self.token = token
        self.visits: Counter[str] = Counter()
        self.kill: Kill | None = None
        self._kill_at = kill_at
        self._lock = threading.Lock()
        super().__init__(_PageHandler)

    def note_visit(self, job_id: str, pid: int, path: str) -> bool:
        """Whether this visit is the one that gets no answer."""
        with self._lock:
            self.visits[job_id] += 1
            if self.kill is None and self.visits.total() == self._kill_at:
                self.kill = Kill(pid, job_id, path, time.monotonic())
                os.kill(pid, signal.SIGKILL)
                return True
            if self.kill is not None and self.kill.job_id == job_id and not self.kill.again_at:
                self.kill.again_at = time.monotonic()
        return False


class _PageHandler(_Handler):
    server: Site  # pyright: ignore[reportIncompatibleVariableOverride] - the stubs' way to say which server

    def do_GET(self) -> None:
        body = self.server.pages.get(self.path)
        if body is None:
            self.answer(404, "text/plain; charset=utf-8", b"no such page\n")
            return
        job_id, pid = (
            self.headers.get("X-Demo-Job"),
            self.headers.get("X-Demo-Process", ""),
        )
        is_ours = hmac.compare_digest(self.headers.get("X-Demo-Token", "").encode(), self.server.token.encode())
        if job_id and is_ours and self.server.note_visit(job_id, int(pid), self.path):
            self.close_connection = True
            return
        time.sleep(self.server.latency_s)
        with suppress(ConnectionError):
            self.answer(200, "text/html; charset=utf-8", body)


class WebApp(_Server):
    """`POST /count?jobs=N`: enqueue the counting of N pages over three queues, and answer at once with the ids."""

    def __init__(self, app: Headrace, pages: Sequence[Page], site_url: str) -> None:
        self.app = app
        self.urls = [site_url + page.path for page in pages]
        self.tasks = [count_words_at_url.options(queue=queue) for queue in QUEUES]
        super().__init__(_AppHandler)


class _AppHandler(_Handler):
    server: WebApp  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        path, _, wanted = self.path.partition("?jobs=")
        if path != "/count" or not wanted.isdigit():
            self.answer(404, "text/plain; charset=utf-8", b"POST /count?jobs=N\n")
            return
        urls = self.server.urls[: int(wanted)]
        tasks = self.server.tasks
        calls = [tasks[number % len(tasks)].call(url) for number, url in enumerate(urls)]
        jobs = self.server.app.enqueue_many(calls)
        told = [{"job": job.id, "queue": job.queue, "url": url} for job, url in zip(jobs, urls, strict=True)]
        self.answer(202, "application/json", json.dumps(told).encode())
