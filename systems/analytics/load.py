"""The load test: `python -m systems.analytics.load`. A long report, a worker killed at half of it, and a cancel.

It starts servers of its own, on this machine: all share its cores. Exit code 1: a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import platform
import select
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg

from headrace.server import EmbeddedServer
from systems.analytics.models import SCHEMA
from systems.analytics.seed import seed_views
from systems.common.catalogue import SYSTEMS
from systems.common.database import make_engine, upgrade
from systems.common.load import Answer, keep_figure, quantile_ms
from systems.common.postgres import EmbeddedPostgres
from systems.common.programs import Program, until, web_server, worker

READY_WITHIN_S = 1800.0
STOPS_WITHIN_S = 1.0
RATE = 20.0
THIS = next(system for system in SYSTEMS if system.name == "analytics")
TRACKING = next(system for system in SYSTEMS if system.name == "tracking")
RUNNING: LiteralString = """
SELECT count(*) FROM pg_stat_activity
WHERE state = 'active' AND query LIKE '%WITH seen%' AND pid <> pg_backend_pid()
"""


class Field:
    """The web server, what a user does there, and what the database has of it."""

    def __init__(self, http: httpx.Client, database: str, folder: Path, told: dict[str, str]) -> None:
        self.http = http
        self.last = datetime.now(UTC).date() - timedelta(1)
        self._database, self._folder, self._told = database, folder, told
        self._numbers = itertools.count(1)

    def rows(self, statement: LiteralString) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._database, options=f"-csearch_path={SCHEMA}") as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    @contextmanager
    def worker(self) -> Iterator[Program]:
        log = self._folder / f"worker-{next(self._numbers)}.log"
        with worker(THIS.tasks, *THIS.worker, log=log, environment=self._told) as program:
            yield program

    def ask(self, days: int) -> tuple[str, float]:
        """The report's id, and how long the answer took."""
        began_s = time.perf_counter()
        first = self.last - timedelta(days - 1)
        answer = self.http.post("reports", json={"first": first.isoformat(), "last": self.last.isoformat()})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"], time.perf_counter() - began_s

    def state(self, report: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"reports/{report}/state").raise_for_status().json()
        return found

    def wait_for(self, report: str, percent: float) -> dict[str, Any]:
        """Until it is so far, or has ended."""
        seen: list[dict[str, Any]] = []

        def is_there() -> bool:
            seen.append(self.state(report))
            return bool(seen[-1]["percent"] >= percent or seen[-1]["is_ended"])

        until(is_there, READY_WITHIN_S, f"{percent:g} % of a report")
        return seen[-1]

    def counted(self) -> Counter[date]:
        """How often each day was counted to its end."""
        return Counter(day for (day,) in self.rows("SELECT day FROM day_counted"))

    def empty(self) -> None:
        self.rows("TRUNCATE report, report_file, day_counted")


class Reader:
    """Somebody who looks at the page `RATE` times a second, and how long each answer took from when it was due."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_stopped = threading.Event()
        self.answers: list[Answer] = []

    def run(self) -> None:
        asyncio.run(self._read())

    def stop(self) -> None:
        self._is_stopped.set()

    async def _read(self) -> None:
        began_s = time.perf_counter()
        async with (
            httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=20)) as http,
            asyncio.TaskGroup() as asking,
        ):
            for number in itertools.count():
                due_s = number / RATE
                await asyncio.sleep(max(0.0, due_s - (time.perf_counter() - began_s)))
                if self._is_stopped.is_set():
                    break
                asking.create_task(self._ask(http, began_s, due_s))

    async def _ask(self, http: httpx.AsyncClient, began_s: float, due_s: float) -> None:
        try:
            status = (await http.get(self._url)).status_code
        except httpx.HTTPError:
            status = 0
        self.answers.append(Answer(due_s, time.perf_counter() - began_s - due_s, status, b""))


@contextmanager
def read(url: str) -> Iterator[list[Answer]]:
    """The answers, whole when the block is left."""
    reader = Reader(url)
    thread = threading.Thread(target=reader.run)
    thread.start()
    try:
        yield reader.answers
    finally:
        reader.stop()
        thread.join()


@contextmanager
def field(views: int, days: int) -> Iterator[Field]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-load-")))
        postgres = stack.enter_context(EmbeddedPostgres({"fsync": "off", "max_wal_size": "4GB"}))
        queue = stack.enter_context(EmbeddedServer(data_dir=folder / "valkey"))
        told = {"DATABASE_URL": postgres.url, "HEADRACE_URL": queue.url}
        os.environ.update(told)
        upgrade("tracking", TRACKING.migrations)
        upgrade(SCHEMA, THIS.migrations)
        _, url = stack.enter_context(web_server("systems.analytics.web:web", log=folder / "web.log", environment=told))
        http = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        found = Field(http, postgres.url, folder, told)
        began_s = time.perf_counter()
        engine = make_engine("tracking")
        seed_views(engine, views=views, days=days, last=found.last, seed=11)
        engine.dispose()
        print(f"{views:,} views on {days} days, made in {time.perf_counter() - began_s:.0f} s", flush=True)
        yield found


def responsive(found: Field, days: int, before_s: float) -> bool:
    """The page's answers before a long report, and while it is built. True: all were answered, and the report is whole."""
    page = str(found.http.base_url)
    with found.worker():
        with read(page) as before:
            select.select([], [], [], before_s)
        with read(page) as during:
            began_s = time.perf_counter()
            report, answered_s = found.ask(days)
            again, _ = found.ask(days)
            state = found.wait_for(report, 100)
            took_s = time.perf_counter() - began_s
    print(f"\nA report of {days} days: asked for in {answered_s * 1000:.0f} ms, {state['state']} after {took_s:.0f} s")
    print(f"{'the page':14}{'requests':>9}{'refused':>9}{'p50 ms':>9}{'p99 ms':>9}")
    for name, answers in (("before", before), ("during", during)):
        refused = sum(answer.status != 200 for answer in answers)
        times = "".join(f"{quantile_ms(answers, part):9.1f}" for part in (0.5, 0.99))
        print(f"{name:14}{len(answers):9,}{refused:9,}{times}", flush=True)
    counted = found.counted()
    whole = [(sum(views for (views,) in found.rows("SELECT views FROM day_counted")),)] == found.rows(
        "SELECT views FROM report"
    )
    times = ", ".join(f"{quantile_ms(answers, 0.5):.0f}" for answers in (before, during))
    keep_figure(
        "analytics", f"a report of {days} days", f"asked for in {answered_s * 1000:.0f} ms, ready after {took_s:.0f} s"
    )
    keep_figure("analytics", "… the page before and during, p50", f"{times} ms")
    print(f"asked for twice: {'one run' if again == report else 'TWO RUNS'}, {counted.total()} days counted")
    return whole and again == report and counted.total() == days and {answer.status for answer in during} == {200}


def resumed(found: Field, days: int) -> bool:
    """A worker is killed with its processes at half of the report. True: another one counts only what was missing."""
    found.empty()
    with found.worker() as program:
        report, _ = found.ask(days)
        found.wait_for(report, 50)
        program.kill()
    before = found.counted().total()
    began_s = time.perf_counter()
    with found.worker():
        state = found.wait_for(report, 100)
    after = found.counted()
    again = after.total() - days
    keep_figure("analytics", f"a worker killed at {before} of {days} days", f"{again} days counted for a second time")
    print(
        f"\nA worker killed at {before} of {days} days; another: {state['state']} {time.perf_counter() - began_s:.0f} s later, "
        f"{after.total() - before} days counted after the kill, {after.total() - days} of them for a second time",
        flush=True,
    )
    return state["state"] == "ready" and len(after) == days and after.total() - days <= 2


def cancelled(found: Field, days: int, times: int) -> bool:
    """How long statements run on that belong to a cancelled report. True: not longer than a second."""
    took_s = []
    with found.worker():
        for _ in range(times):
            found.empty()
            report, _ = found.ask(days)
            until(lambda: found.rows(RUNNING)[0][0] > 0, READY_WITHIN_S, "a statement")
            began_s = time.perf_counter()
            found.http.post(f"reports/{report}/cancel")
            while found.rows(RUNNING)[0][0]:
                select.select([], [], [], 0.01)
            took_s.append(time.perf_counter() - began_s)
            found.wait_for(report, 100)
    keep_figure("analytics", "cancelled", f"no statement after {max(took_s):.2f} s")
    print(
        f"\nCancelled {times} times: no statement of the report after {', '.join(f'{s:.2f}' for s in took_s)} s",
        flush=True,
    )
    return max(took_s) <= STOPS_WITHIN_S


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m systems.analytics.load", description=__doc__)
    parser.add_argument("--views", type=int, default=6_000_000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--before", type=float, default=20, help="seconds of the page without a report")
    parser.add_argument("--cancels", type=int, default=5)
    options = parser.parse_args()
    load = ", ".join(f"{figure:.1f}" for figure in os.getloadavg())
    print(f"{os.cpu_count()} cores, load before the start {load}; Python {platform.python_version()}", flush=True)
    with field(options.views, options.days) as found:
        is_good = responsive(found, options.days, options.before)
        is_good = resumed(found, options.days) and is_good
        is_good = cancelled(found, options.days, options.cancels) and is_good
    print("\nEvery promise was kept." if is_good else "\nA PROMISE WAS BROKEN")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
