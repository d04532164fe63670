"""The load test: `python -m systems.notification.load`. 10,000 notices to a provider that allows 50 a second; then one that is down for a minute.

The worker is killed on the way, and urgent notices come in between. The provider's ledger is held against what was asked for. It
starts servers of its own, on this machine: all share its cores. Exit code 1: a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import select
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from headrace.server import EmbeddedServer
from systems.common.catalogue import SYSTEMS
from systems.common.database import upgrade
from systems.common.load import Answer, Load, keep_figure, quantile_ms
from systems.common.postgres import NOT_SAFE, EmbeddedPostgres
from systems.common.programs import Program, until, web_server, worker
from systems.notification.models import SCHEMA
from systems.notification.outside import outside
from systems.notification.unsubscribing import PUBLIC_URL, SECRET

ALLOWED = 50
EACH = 5
URGENT_EVERY_S = 5.0
CONNECTIONS = 16
WAITS_AT_MOST_S = 3600.0
THIS = next(system for system in SYSTEMS if system.name == "notification")


class Field:
    """The web server, the world outside, and what the database has of it."""

    def __init__(self, url: str, told: dict[str, str], folder: Path, world: httpx.Client) -> None:
        self.url = url
        self.world = world
        self._told, self._folder = told, folder

    @contextmanager
    def worker(self) -> Iterator[Program]:
        log = self._folder / f"worker-{time.monotonic_ns()}.log"
        with worker(THIS.tasks, *THIS.worker, log=log, environment=self._told) as program:
            yield program

    def begin(self, users: int, **behaviour: object) -> None:
        """So many users with nothing but a telephone; an empty book and ledger."""
        with psycopg.connect(self._told["DATABASE_URL"], options=f"-csearch_path={SCHEMA}") as connection:
            connection.execute("TRUNCATE notice, delivery, step, person, unsubscribed")
            connection.execute(
                "INSERT INTO person SELECT 'user' || n, 'User ' || n, 'en', NULL, '+' || n, NULL, 'UTC', NULL, NULL"
                " FROM generate_series(0, %s - 1) n",
                (users,),
            )
        self.world.put("behaviour/sms", json=behaviour).raise_for_status()
        self.world.delete("ledger/sms").raise_for_status()

    def behave(self, **behaviour: object) -> None:
        self.world.put("behaviour/sms", json=behaviour).raise_for_status()

    def ledger(self, *, full: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = self.world.get("ledger/sms", params={"full": full}).raise_for_status().json()
        return found

    def arrived(self) -> int:
        return int(self.ledger()["arrived"])

    def steps(self) -> dict[str, int]:
        with psycopg.connect(self._told["DATABASE_URL"], options=f"-csearch_path={SCHEMA}") as connection:
            return dict(connection.execute("SELECT what, count(*) FROM step GROUP BY what").fetchall())

    def statuses(self) -> dict[str, int]:
        with psycopg.connect(self._told["DATABASE_URL"], options=f"-csearch_path={SCHEMA}") as connection:
            return dict(connection.execute("SELECT status, count(*) FROM delivery GROUP BY status").fetchall())


class Urgent:
    """A code every few seconds while the others wait; by its number, when it was asked for."""

    def __init__(self, url: str) -> None:
        self.asked_at_s: list[float] = []
        self._url = url
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Urgent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._is_stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as http:
            while not self._is_stopped.wait(URGENT_EVERY_S):
                number = len(self.asked_at_s)
                self.asked_at_s.append(time.monotonic())
                asked = {"user": f"user{number}", "kind": "login_code", "values": {"code": f"{number:06}"}}
                http.post("notices", json=asked).raise_for_status()


def ask(field: Field, notices: int, rate: float, carrier: str) -> list[Answer]:
    """Post them at that rate, those of a user one after the other in time. Another `carrier` makes other notices of them."""

    def body(number: int) -> bytes:
        # A number's user: each has one notice in every round, so that their order can be told.
        turn, user = divmod(number, notices // EACH)
        values = {"order": f"{turn}-{number:06}", "carrier": carrier}
        return json.dumps({"user": f"user{user}", "kind": "order_shipped", "values": values}).encode()

    load = Load(
        field.url, "/notices", body, connections=CONNECTIONS, rate=rate, headers={"Content-Type": "application/json"}
    )
    return asyncio.run(load.run(notices / rate))


def paced(field: Field, notices: int, rate: float) -> bool:
    """All of them to a provider that allows 50 a second, is slow, and fails at times; the worker is killed at half. True: as promised."""
    users = notices // EACH
    field.begin(users, rate=ALLOWED, fails=0.01, slow_s=0.05, is_down=False)
    began_s = time.perf_counter()
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.extend(ask(field, notices, rate, "GHN")))
    asking.start()
    with Urgent(field.url) as urgent:
        with field.worker() as program:
            until(lambda: field.arrived() >= notices // 2, WAITS_AT_MOST_S, "half of them")
            program.kill()
        with field.worker():
            asking.join()
            until(lambda: field.arrived() >= notices, WAITS_AT_MOST_S, "the last one")
            urgent.stop()
            until(lambda: field.statuses().get("sent", 0) == notices + len(urgent.asked_at_s), WAITS_AT_MOST_S, "all")
    took_s = time.perf_counter() - began_s
    ledger, steps = field.ledger(full=True), field.steps()
    texts = [each["text"] for each in ledger["all"]]
    calm = [text.split()[1] for text in texts if text.startswith("Order")]
    codes = {int(each["text"].split()[0]): each["at_s"] for each in ledger["all"] if "code" in each["text"]}
    waited_s = sorted(codes[number] - at_s for number, at_s in enumerate(urgent.asked_at_s) if number in codes)
    lost = notices + len(urgent.asked_at_s) - len(set(texts))
    twice = len(texts) - len(set(texts))
    by_user: dict[int, list[str]] = {}
    for order in calm:
        by_user.setdefault(int(order.partition("-")[2]) % users, []).append(order)
    misplaced = sum(orders != sorted(orders) for orders in by_user.values())
    refused = sum(answer.status != 202 for answer in answers)
    most = ledger["busiest_second"]
    print(
        f"\n{notices:,} notices asked for at {rate:g}/s, {len(waited_s)} urgent ones in between; the worker killed at half"
    )
    print(
        f"taken     {refused} refused; p50 {quantile_ms(answers, 0.5):.1f} ms, p99 {quantile_ms(answers, 0.99):.1f} ms"
    )
    print(
        f"sent      {len(texts):,} in {took_s:.0f} s: {len(texts) / took_s:.1f}/s; {most} requests in the busiest second, of {ALLOWED} allowed"
    )
    print(f"ledger    {lost} lost, {twice} twice, {misplaced} users out of order")
    print(
        f"          {ledger['answers'].get('repeated', 0)} asked again with the same key, {steps.get('failed', 0)} failed and retried, {steps.get('busy', 0)} told to wait"
    )
    print(
        f"urgent    {waited_s[len(waited_s) // 2]:.2f} s in the middle, {waited_s[-1]:.2f} s at most, from the request to the provider",
        flush=True,
    )
    keep_figure(
        "notification",
        f"{notices:,} notices to a provider that allows {ALLOWED}/s",
        f"{len(texts) / took_s:.1f}/s, {most} in the busiest second",
    )
    keep_figure(
        "notification", "… a worker killed on the way", f"{lost} lost, {twice} twice, {misplaced} users out of order"
    )
    keep_figure(
        "notification",
        "… an urgent one in between, p50 and most",
        f"{waited_s[len(waited_s) // 2]:.2f} s, {waited_s[-1]:.2f} s",
    )
    return not (lost or twice or misplaced or refused) and most <= ALLOWED


def away(field: Field, notices: int, rate: float, away_s: float) -> bool:
    """The provider is down for so long. True: all arrive afterwards, once each, and few requests were made meanwhile."""
    field.begin(notices // EACH, rate=ALLOWED, fails=0.0, slow_s=0.05, is_down=False)
    with field.worker():
        ask(field, notices, rate, "Viettel")
        until(lambda: field.arrived() >= notices // 10, WAITS_AT_MOST_S, "the first of them")
        field.behave(is_down=True)
        before = field.ledger()
        select.select([], [], [], away_s)
        during = field.ledger()
        field.behave(is_down=False)
        began_s = time.perf_counter()
        until(lambda: field.arrived() >= notices, WAITS_AT_MOST_S, "the last one")
        took_s = time.perf_counter() - began_s
        until(lambda: field.statuses().get("sent", 0) == notices, WAITS_AT_MOST_S, "all")
    ledger = field.ledger(full=True)
    texts = [each["text"] for each in ledger["all"]]
    lost, twice = notices - len(set(texts)), len(texts) - len(set(texts))
    tries = during["asked"] - before["asked"]
    print(
        f"\nDown for {away_s:g} s with {notices - during['arrived']:,} of {notices:,} to go: {tries} requests meanwhile; all arrived {took_s:.0f} s after it was back: {lost} lost, {twice} twice",
        flush=True,
    )
    keep_figure(
        "notification",
        f"the provider down for {away_s:g} s, {notices - during['arrived']:,} waiting",
        f"all {took_s:.0f} s after it was back: {lost} lost, {twice} twice",
    )
    return not (lost or twice)


@contextmanager
def field() -> Iterator[Field]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-load-")))
        postgres = stack.enter_context(EmbeddedPostgres(NOT_SAFE))
        queue = stack.enter_context(EmbeddedServer(data_dir=folder / "valkey"))
        told = {"DATABASE_URL": postgres.url, "HEADRACE_URL": queue.url}
        told |= {SECRET: "the secret of the load", PUBLIC_URL: "http://127.0.0.1/notification"}
        told |= stack.enter_context(outside(folder))
        os.environ.update(told)
        upgrade(SCHEMA, THIS.migrations)
        server = web_server("systems.notification.web:web", log=folder / "web.log", environment=told)
        _, url = stack.enter_context(server)
        world = stack.enter_context(httpx.Client(base_url=told["NOTIFICATION_SERVICES"], timeout=60))
        yield Field(url, told, folder, world)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m systems.notification.load", description=__doc__)
    parser.add_argument("--notices", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=100, help="at which they are asked for")
    parser.add_argument("--away", type=float, default=60, help="seconds for which the provider is down")
    parser.add_argument("--waiting", type=int, default=1_000, help="notices when it goes down")
    options = parser.parse_args()
    load = ", ".join(f"{figure:.1f}" for figure in os.getloadavg())
    print(f"{os.cpu_count()} cores, load before the start {load}; Python {platform.python_version()}", flush=True)
    with field() as found:
        is_good = paced(found, options.notices - options.notices % EACH, options.rate)
        is_good = away(found, options.waiting - options.waiting % EACH, options.rate, options.away) and is_good
    print("\nEvery promise was kept." if is_good else "\nA PROMISE WAS BROKEN")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
