"""The dashboard before a million jobs: how long each page takes, and what any number of viewers costs the server."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

import bare
import tasks
from headrace import Headrace
from headrace.server import free_port
from lab import HERE, QUEUE, URL, Server, pause, until

PAGES = (
    "/",
    "/?span=24h",
    "/queues",
    "/jobs?queue=bench&tab=queued",
    "/jobs?queue=bench&tab=ended",
    "/workers",
    "/schedules",
    "/flows",
    "/limits",
    "/audit",
    "/metrics",
)
ENDED = 10_000
POLL_S = 2.0
"""As the page itself asks."""


@contextmanager
def shown(server: Server) -> Iterator[httpx.Client]:
    """`headrace web` in its own process, and a client of it."""
    port = free_port()
    command = [sys.executable, "-m", "headrace", "web", "--quiet", "--port", str(port), "--url", server.url]
    process = subprocess.Popen(command, cwd=HERE)
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or is_listening(port), timeout_s=30)
        with httpx.Client(base_url=address, timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.wait(10)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def fill(server: Server, pending: int) -> None:
    """That many ready jobs, and some that have ended."""
    link = bare.connect(server.url)
    server.reset()
    with Headrace(server.url) as app:
        app.task(queue="bench", name="tasks.noop")(tasks.noop.fn).enqueue(URL)  # so the queue is known by name
    bare.enqueue(link, QUEUE, ENDED, 500, bare.record())
    bare.work(link, QUEUE, ENDED, 100, True)
    bare.enqueue(link, QUEUE, pending, 500, bare.record())


def times(client: httpx.Client, path: str, repeats: int = 11) -> float:
    """Median, ms; each read is made anew, since what is kept for a second would tell nothing."""
    found = []
    for _ in range(repeats):
        pause(1.05)
        began = time.perf_counter()
        answer = client.get(path)
        found.append((time.perf_counter() - began) * 1000)
        answer.raise_for_status()
    return statistics.median(found)


def commands_at_rest(server: Server, client: httpx.Client, viewers: int, seconds: float) -> float:
    """Commands a second that the dashboard sends while so many viewers look at the overview and the queues."""
    ends = time.monotonic() + seconds
    failed: list[BaseException] = []

    def look(n: int) -> None:
        try:
            with httpx.Client(base_url=client.base_url, timeout=30) as own:
                while time.monotonic() < ends:
                    own.get("/" if n % 2 else "/queues").raise_for_status()
                    pause(POLL_S)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=look, args=(n,)) for n in range(viewers)]
    with server.redis.monitor() as monitor:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.redis.ping()
        sent = Counter[str]()
        while (seen := monitor.next_command())["command"] != "PING":
            sent[seen["command"].split()[0]] += seen["client_type"] != "lua"
    if failed:
        raise failed[0]
    return sum(sent.values()) / seconds
