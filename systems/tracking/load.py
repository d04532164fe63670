"""The load test: `python -m systems.tracking.load`. Row by row and through the queue, in turns, in one run.

First at full speed; then at a fixed rate, while the database is away for a while. It starts servers of its own, on this
machine: the load, the web server, the worker and both servers share its cores. Exit code 1: a view was lost or doubled.
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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg

from headrace import Headrace
from headrace.engine.admin import count_jobs
from headrace.engine.keys import queue_keys
from headrace.server import EmbeddedServer
from systems.common.catalogue import SYSTEMS
from systems.common.database import upgrade
from systems.common.load import Answer, Load, keep_figure, quantile_ms
from systems.common.postgres import EmbeddedPostgres
from systems.common.programs import until, web_server, worker
from systems.tracking.models import SCHEMA
from systems.tracking.tasks import QUEUE

CONNECTIONS = 64
PAGES = 50
DRAINS_WITHIN_S = 900.0
THIS = next(system for system in SYSTEMS if system.name == "tracking")


@dataclass(frozen=True, slots=True)
class Arrived:
    """What became of accepted views."""

    accepted: int
    lost: int
    doubled: int
    took_s: float

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled)


class Field:
    """The two web servers, and the servers behind them."""

    def __init__(self, urls: dict[str, str], postgres: EmbeddedPostgres, app: Headrace) -> None:
        self.urls = urls
        self.postgres = postgres
        self.app = app

    def rows(self, statement: LiteralString) -> list[tuple[str, ...]]:
        with psycopg.connect(self.postgres.url, options=f"-csearch_path={SCHEMA}") as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def empty(self) -> None:
        self.rows("TRUNCATE page_view, page_minute, headrace_effect")

    def waiting(self) -> int:
        return self.app.client.run(count_jobs(queue_keys(QUEUE))).live

    def judge(self, answers: Sequence[Answer]) -> Arrived:
        """Wait until nothing waits, and hold what is stored against what was accepted."""
        began_s = time.perf_counter()
        until(lambda: not self.waiting(), DRAINS_WITHIN_S, f"an empty queue: {self.waiting()} views wait")
        took_s = time.perf_counter() - began_s
        accepted = {json.loads(answer.body)["id"] for answer in answers if answer.status == 202}
        stored = Counter(row[0] for row in self.rows("SELECT id FROM page_view"))
        doubled = sum(count > 1 for count in stored.values())
        return Arrived(len(accepted), len(accepted - set(stored)), doubled, took_s)

    def transactions(self) -> int:
        return int(self.rows("SELECT count(DISTINCT xmin::text) FROM page_view")[0][0])


@contextmanager
def field() -> Iterator[Field]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-load-")))
        postgres = stack.enter_context(EmbeddedPostgres())
        queue = stack.enter_context(EmbeddedServer(data_dir=folder / "valkey"))
        told = {"DATABASE_URL": postgres.url, "HEADRACE_URL": queue.url}
        os.environ.update(told)
        upgrade(SCHEMA, THIS.migrations)
        stack.enter_context(worker(THIS.tasks, *THIS.worker, log=folder / "worker.log", environment=told))
        urls = {}
        for name, module in {"row by row": "baseline", "by the queue": "web"}.items():
            server = web_server(f"systems.tracking.{module}:web", log=folder / f"{module}.log", environment=told)
            urls[name] = stack.enter_context(server)[1]
        yield Field(urls, postgres, stack.enter_context(Headrace(queue.url)))


def body(number: int) -> bytes:
    page = f"/page/{number * 7919 % PAGES}"
    return json.dumps({"page": page, "visitor": f"v{number}", "referrer": "https://example.org/a"}).encode()


def full_speed(found: Field, seconds: float, rounds: int) -> bool:
    """Each way in turn, as fast as 64 connections can ask. True: all arrived."""
    print(f"\nAt full speed, {CONNECTIONS} connections, {seconds:g} s each")
    print(
        f"{'':14}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'refused':>9}{'views/commit':>14}{'drained in s':>14}{'lost':>6}{'doubled':>9}"
    )
    is_good = True
    for name, url in [item for _ in range(rounds) for item in found.urls.items()]:
        found.empty()
        asyncio.run(Load(url, "/t", body, connections=CONNECTIONS, rate=None).run(0.5))  # connections and code are warm
        found.judge([])
        found.empty()
        load = Load(url, "/t", body, connections=CONNECTIONS, rate=None)
        answers = asyncio.run(load.run(seconds))
        arrived = found.judge(answers)
        refused = sum(answer.status != 202 for answer in answers)
        by_commit = arrived.accepted / max(1, found.transactions())
        keep_figure(
            "tracking", f"at full speed, {name}", f"{arrived.accepted / seconds:,.0f} views/s, {by_commit:.0f} a commit"
        )
        print(
            f"{name:14}{arrived.accepted / seconds:11,.0f}{quantile_ms(answers, 0.5):9.1f}{quantile_ms(answers, 0.99):9.1f}"
            f"{refused:9}{by_commit:14.1f}{arrived.took_s:14.1f}{arrived.lost:6}{arrived.doubled:9}",
            flush=True,
        )
        is_good = is_good and arrived.is_good
    return is_good


def outage(found: Field, name: str, *, rate: float, steady_s: float, away_s: float) -> bool:
    """One way at a fixed rate; the database crashes and stays away. True: each accepted view is stored once."""
    found.empty()
    load = Load(found.urls[name], "/t", body, connections=CONNECTIONS * 4, rate=rate)
    sender = threading.Thread(target=lambda: asyncio.run(load.run(2 * steady_s + away_s)))
    began_s = time.perf_counter()
    sender.start()
    _wait_until(began_s + steady_s)
    found.postgres.crash()
    gone_s = time.perf_counter() - began_s
    _wait_until(began_s + steady_s + away_s)
    waiting = found.waiting()
    found.postgres.start()
    back_s = time.perf_counter() - began_s
    sender.join()
    arrived = found.judge(load.answers)
    phases: dict[str, Callable[[float], bool]] = {
        "before": lambda due_s: due_s < gone_s,
        "away": lambda due_s: gone_s <= due_s < back_s,
        "after": lambda due_s: due_s >= back_s,
    }
    for phase, is_in in phases.items():
        answers = [answer for answer in load.answers if is_in(answer.due_s)]
        taken = sum(answer.status == 202 for answer in answers)
        times = "".join(f"{quantile_ms(answers, part):9.1f}" for part in (0.5, 0.99))
        print(f"{name:14}{phase:>8}{len(answers):9,}{taken:10,}{len(answers) - taken:9,}{times}")
    is_away = phases["away"]
    refused = sum(answer.status != 202 for answer in load.answers if is_away(answer.due_s))
    said = f"{refused:,} of {sum(is_away(answer.due_s) for answer in load.answers):,} refused"
    keep_figure(
        "tracking",
        f"the database away for {away_s:g} s, {name}",
        f"{said}; {arrived.lost} lost, {arrived.doubled} doubled",
    )
    print(
        f"{'':14}{arrived.accepted:,} accepted: {arrived.lost} lost, {arrived.doubled} doubled; {waiting:,} waited when the "
        f"database came back, none {arrived.took_s:.1f} s after the last request",
        flush=True,
    )
    return arrived.is_good


def _wait_until(instant_s: float) -> None:
    time.sleep(max(0.0, instant_s - time.perf_counter()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m systems.tracking.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="at full speed")
    parser.add_argument("--away", type=float, default=30, help="seconds without the database")
    parser.add_argument("--rate", type=float, default=100, help="requests a second meanwhile")
    options = parser.parse_args()
    load = ", ".join(f"{figure:.1f}" for figure in os.getloadavg())
    print(f"{os.cpu_count()} cores, load before the start {load}; Python {platform.python_version()}")
    with field() as found:
        is_good = full_speed(found, options.seconds, options.rounds)
        print(f"\nAt {options.rate:g} requests/s; the database crashes, and is away for {options.away:g} s")
        print(f"{'':14}{'':>8}{'asked':>9}{'accepted':>10}{'refused':>9}{'p50 ms':>9}{'p99 ms':>9}")
        for name in found.urls:
            is_good = outage(found, name, rate=options.rate, steady_s=options.seconds, away_s=options.away) and is_good
    print("\nEvery accepted view was stored once." if is_good else "\nVIEWS WERE LOST OR DOUBLED")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
