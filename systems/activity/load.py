"""The load test: `python -m systems.activity.load`. What the log costs a request, and what becomes of events without a queue.

First the application with its log and without it, in turns, at the same steady rate; then with its log while Valkey is away
(killed, and started again on its data). It starts servers of its own, on this machine: the load, the application, the worker
and both servers share its cores. Exit code 1: a request was not answered, an event lost, doubled or out of order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlencode

import psycopg

from headrace import Headrace
from headrace.engine.admin import count_jobs
from headrace.engine.keys import queue_keys
from headrace.server import EmbeddedServer
from systems.activity.events import make_event
from systems.activity.log import EventLog
from systems.activity.models import SCHEMA
from systems.activity.tasks import QUEUE
from systems.common.catalogue import SYSTEMS
from systems.common.database import upgrade
from systems.common.load import Answer, Load, keep_figure, quantile_ms
from systems.common.postgres import EmbeddedPostgres
from systems.common.programs import until, web_server, worker

CONNECTIONS = 32
ANSWERED = 303
POSTS = 500
DRAINS_WITHIN_S = 300.0
WITH, WITHOUT = "with the log", "without"
THIS = next(system for system in SYSTEMS if system.name == "activity")


@dataclass(frozen=True, slots=True)
class Arrived:
    """What became of the events of answered requests."""

    lost: int
    doubled: int
    misplaced: int
    told_lost: int
    took_s: float

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.misplaced or self.told_lost)


class Field:
    """The application in both ways, and the servers behind it."""

    def __init__(self, urls: dict[str, str], postgres: EmbeddedPostgres, queue: EmbeddedServer) -> None:
        self.urls = urls
        self.postgres = postgres
        self.queue = queue

    def rows(self, statement: LiteralString) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.url, options=f"-csearch_path={SCHEMA}") as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def figures(self) -> dict[str, Any]:
        """Of the application's log."""
        with urllib.request.urlopen(f"{self.urls[WITH]}/log/figures", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def is_settled(self) -> bool:
        """Nothing waits in memory, in the spool, or in the queue."""
        figures = self.figures()
        if not figures["is_sending"] or figures["spooled"] + figures["in_memory"]:
            return False
        with Headrace(self.queue.url) as app:
            return not app.client.run(count_jobs(queue_keys(QUEUE))).live

    def judge(self, answers: Sequence[Answer], prefix: str) -> Arrived:
        """Wait until all is stored, and hold the events against the answers. Order: in each spool, as they arrived."""
        began_s = time.perf_counter()
        until(self.is_settled, DRAINS_WITHIN_S, "an empty spool and queue")
        took_s = time.perf_counter() - began_s
        stored = Counter(
            title for (title,) in self.rows("SELECT data->>'title' FROM event WHERE kind = 'post.updated'")
        )
        asked = {f"{prefix}{n}" for n in range(len(answers))}
        mine = {title: count for title, count in stored.items() if title.startswith(prefix)}
        misplaced = self.rows(
            "SELECT count(*) FROM (SELECT seq - lag(seq) OVER (PARTITION BY source ORDER BY arrived) AS step FROM event) s"
            " WHERE step <> 1"
        )
        told = self.rows("SELECT count(*) FROM event WHERE kind = 'lost'")
        doubled = sum(count > 1 for count in mine.values())
        return Arrived(len(asked - set(mine)), doubled, misplaced[0][0], told[0][0], took_s)


@contextmanager
def field() -> Iterator[Field]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-load-")))
        postgres = stack.enter_context(EmbeddedPostgres())
        queue = stack.enter_context(EmbeddedServer(data_dir=folder / "valkey"))
        told = {"DATABASE_URL": postgres.url, "HEADRACE_URL": queue.url, "ACTIVITY_SPOOL": str(folder / "spool")}
        os.environ.update(told)
        upgrade(SCHEMA, THIS.migrations)
        stack.enter_context(worker(THIS.tasks, *THIS.worker, log=folder / "worker.log", environment=told))
        urls = {}
        for name, module in {WITHOUT: "bare", WITH: "web"}.items():
            server = web_server(f"systems.activity.{module}:web", log=folder / f"{module}.log", environment=told)
            urls[name] = stack.enter_context(server)[1]
        found = Field(urls, postgres, queue)
        with psycopg.connect(postgres.url, options=f"-csearch_path={SCHEMA}") as connection:
            post = "INSERT INTO post (id, title, text, author) SELECT n, '', '', 'load' FROM generate_series(4, %s) n"
            connection.execute(post, [POSTS])
        yield found


def bodies(prefix: str) -> Callable[[int], bytes]:
    """Each an update of a post, whose title says which request it was."""
    return lambda number: urlencode({"title": f"{prefix}{number}", "text": "from the load"}).encode()


def make_load(found: Field, name: str, prefix: str, rate: float) -> Load:
    def path(number: int) -> str:
        return f"/posts/{number % POSTS + 1}"

    return Load(found.urls[name], path, bodies(prefix), connections=CONNECTIONS, rate=rate)


def measure_emit() -> None:
    """What a request pays for each event, in this process: made, and taken by a log whose threads run meanwhile."""
    with tempfile.TemporaryDirectory(prefix="hr-emit-") as folder:
        log = EventLog(Path(folder), lambda _: ())
        log.start()
        took_us = []
        for _ in range(2_000):
            began_ns = time.perf_counter_ns()
            log.emit(
                make_event("post.updated", user="ann", request="0123456789abcdef", text="updated", data={"post": 1})
            )
            took_us.append((time.perf_counter_ns() - began_ns) / 1000)
            time.sleep(0.001)
        log.close()
    took_us.sort()
    print(
        f"\nAn event takes {took_us[1000]:.0f} µs of its request (p50; p99 {took_us[1980]:.0f} µs), measured alone",
        flush=True,
    )


def compare(found: Field, *, seconds: float, rounds: int, rate: float) -> bool:
    """With the log and without, in turns. True: every request was answered, every event stored."""
    print(f"\nUpdates of posts at {rate:g} requests/s, {seconds:g} s each")
    print(f"{'':14}{'answered':>9}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}{'lost':>6}{'doubled':>9}")
    is_good = True
    times: dict[str, list[Answer]] = {name: [] for name in found.urls}
    for name in found.urls:
        asyncio.run(make_load(found, name, "warm-", rate).run(1.0))
    for turn, name in [(turn, name) for turn in range(rounds) for name in found.urls]:
        prefix = f"{turn}-"
        answers = asyncio.run(make_load(found, name, prefix, rate).run(seconds))
        times[name] += answers
        failed = sum(answer.status != ANSWERED for answer in answers)
        line = f"{name:14}{len(answers) - failed:9,}{failed:8}{quantile_ms(answers, 0.5):9.2f}{quantile_ms(answers, 0.99):9.2f}"
        is_good = is_good and not failed
        if name == WITH:
            arrived = found.judge(answers, prefix)
            line += f"{arrived.lost:6}{arrived.doubled:9}"
            is_good = is_good and arrived.is_good
        print(line, flush=True)
    added = [quantile_ms(times[WITH], part) - quantile_ms(times[WITHOUT], part) for part in (0.5, 0.99)]
    keep_figure("activity", f"what the log adds to a request at {rate:g}/s, p50", f"{added[0]:.1f} ms")
    print(f"{'added':14}{'':17}{added[0]:9.2f}{added[1]:9.2f}", flush=True)
    return is_good


def outage(found: Field, *, steady_s: float, away_s: float, rate: float) -> bool:
    """The queue is killed under load, and stays away. True: no request noticed, and each event is stored once, in order."""
    print(f"\nAt {rate:g} requests/s; Valkey is killed, and is away for {away_s:g} s")
    print(f"{'':14}{'answered':>9}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}")
    load = make_load(found, WITH, "away-", rate)
    sender = threading.Thread(target=lambda: asyncio.run(load.run(2 * steady_s + away_s)))
    began_s = time.perf_counter()
    sender.start()
    _wait_until(began_s + steady_s)
    found.queue.kill()
    gone_s = time.perf_counter() - began_s
    _wait_until(began_s + steady_s + away_s)
    held = found.figures()
    found.queue.start()
    back_s = time.perf_counter() - began_s
    sender.join()
    phases: dict[str, Callable[[float], bool]] = {
        "before": lambda due_s: due_s < gone_s,
        "away": lambda due_s: gone_s <= due_s < back_s,
        "after": lambda due_s: due_s >= back_s,
    }
    failed = 0
    for phase, is_in in phases.items():
        answers = [answer for answer in load.answers if is_in(answer.due_s)]
        bad = sum(answer.status != ANSWERED for answer in answers)
        print(
            f"{phase:14}{len(answers) - bad:9,}{bad:8}{quantile_ms(answers, 0.5):9.2f}{quantile_ms(answers, 0.99):9.2f}"
        )
        failed += bad
    arrived = found.judge(load.answers, "away-")
    told = (
        f"{failed} requests failed; of {2 * len(load.answers):,} events {arrived.lost} lost, {arrived.doubled} doubled"
    )
    keep_figure("activity", f"Valkey away for {away_s:g} s", told)
    print(
        f"{held['spooled']:,} events ({held['spool_bytes'] / 1024:,.0f} kB) were in the spool when it came back; all were stored "
        f"{arrived.took_s:.1f} s after the last request: {arrived.lost} lost, {arrived.doubled} doubled, "
        f"{arrived.misplaced} out of order",
        flush=True,
    )
    return arrived.is_good and not failed


def _wait_until(instant_s: float) -> None:
    time.sleep(max(0.0, instant_s - time.perf_counter()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m systems.activity.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="with and without")
    parser.add_argument("--away", type=float, default=20, help="seconds without the queue")
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    options = parser.parse_args()
    load = ", ".join(f"{figure:.1f}" for figure in os.getloadavg())
    print(f"{os.cpu_count()} cores, load before the start {load}; Python {platform.python_version()}")
    measure_emit()
    with field() as found:
        is_good = compare(found, seconds=options.seconds, rounds=options.rounds, rate=options.rate)
        is_good = outage(found, steady_s=options.seconds, away_s=options.away, rate=options.rate) and is_good
    print(
        "\nEvery request was answered, every event was stored once, in order."
        if is_good
        else "\nREQUESTS FAILED, OR EVENTS WERE LOST, DOUBLED OR OUT OF ORDER"
    )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
