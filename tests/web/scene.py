"""A shop's queues in the middle of a busy day: what the dashboard's pictures show. Real jobs, settled as workers settle them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from engine_kit import Kit

from headrace import Headrace, Limit, Task, group, previous
from headrace.core import schedule as core
from headrace.core.record import AttemptError, Stored, decode, encode
from headrace.engine import admin, ops, schedules, stats
from headrace.engine.clients import SyncClient
from headrace.engine.keys import queue_keys
from headrace.engine.schedules import Declared
from headrace.engine.stats import Added
from headrace.schedules import spec_of

Tasks = dict[str, Task[..., Any]]
QUEUES = ("mail", "payments", "reports")
DAY_MIN, HOUR_MS = 1_440, 3_600_000
TRACEBACK = """Traceback (most recent call last):
  File "/shop/mail.py", line 18, in send
    with smtplib.SMTP(HOST, timeout=10) as server:
  File "/usr/lib/python3.13/smtplib.py", line 255, in __init__
    (code, msg) = self.connect(host, port)
ConnectionRefusedError: [Errno 111] Connection refused
"""


@contextmanager
def shop(url: str) -> Iterator[Headrace]:
    """The app, when all is stored."""
    with Headrace(url) as app:
        tasks = _tasks(app)
        app.client.run(ops.announce_queues(app.prefix, QUEUES))
        _a_day_of_statistics(app.client)
        _schedules(app, tasks)
        _jobs(app, tasks)
        yield app


def _tasks(app: Headrace) -> Tasks:
    @app.task(queue="mail", name="mail.send")
    def send(to: str) -> None: ...

    @app.task(queue="reports", name="reports.fetch")
    def fetch(shop: int) -> int:
        return shop

    @app.task(queue="reports", name="reports.add_up")
    def add_up(counts: list[int]) -> int:
        return sum(counts)

    @app.task(queue="reports", name="reports.render")
    def render(total: int) -> str:
        return f"{total}"

    @app.task(
        queue="payments",
        name="payments.charge",
        limits=[Limit("bank", concurrency=2), Limit("stripe:{account}", rate="100/min", burst=5)],
    )
    def charge(account: int, cents: int) -> None: ...

    @app.task(queue="payments", name="payments.refund")
    def refund(account: int) -> None: ...

    return {each.name: each for each in (send, fetch, add_up, render, charge, refund)}


def _a_day_of_statistics(client: SyncClient) -> None:
    """An hour by the minute, the rest of the day by the half hour: busy at noon, some failures, waits that grow."""
    for queue, size in (("mail", 90), ("payments", 30), ("reports", 8)):
        rows: list[Added] = []
        for ago in [*range(60), *range(60, DAY_MIN, 30)]:
            wave = 1 + 0.5 * math.sin(ago / 9) + 0.25 * math.sin(ago / 3)
            done = max(1, int(size * wave))
            bad = {"failed": max(1, done // 25), "retried": max(1, done // 12)} if ago % 7 < 2 else {}
            slow = 48 + int(8 * wave)
            rows.append(Added(ago, "", {"enqueued": done + 3, "succeeded": done, **bad}))
            rows.append(
                Added(
                    ago,
                    TASKS[queue],
                    {
                        "succeeded": done,
                        f"r{70 + ago % 3}": done,
                        "run_us": done * 40_000,
                        f"w{slow}": done - done // 10,
                        f"w{slow + 14}": done // 10,
                        "wait_us": done * 90_000,
                        **bad,
                    },
                )
            )
        client.run(stats.tally(queue_keys(queue), rows))


TASKS = {"mail": "mail.send", "payments": "payments.charge", "reports": "reports.render"}


def _schedules(app: Headrace, tasks: Tasks) -> None:
    declared = (
        ("weekly-report", tasks["reports.fetch"].call(7), {"cron": "0 2 * * MON", "tz": "Asia/Ho_Chi_Minh"}),
        ("newsletter", tasks["mail.send"].call("all"), {"cron": "30 8,17 * * MON-FRI", "tz": "Europe/Berlin"}),
        ("late-refunds", tasks["payments.refund"].call(7), {"every": 900.0}),
    )
    for name, call, when in declared:
        spec = spec_of(call, core.check_schedule(when, "scene"))
        assert app.client.run(schedules.declare(app.prefix, Declared(name, call.plan.queue, spec), is_start=True)) == ""
    app.schedules.change("newsletter", cron="0 9 * * MON-FRI", by="lan@office")
    app.schedules.pause("late-refunds", "the bank is closed (lan)")
    app.schedules.run_now("weekly-report")


def _jobs(app: Headrace, tasks: Tasks) -> None:
    client = app.client
    mail, payments, reports = (Kit(client, name) for name in QUEUES)
    for kit in (mail, payments, reports):
        kit.open("worker-1", HOUR_MS)
    for number in range(14):
        tasks["mail.send"].enqueue(f"user{number}@example.com")
    mail.settle("worker-1", mail.claim("worker-1", 4), ms=HOUR_MS)
    for claim in mail.claim("worker-1", 2):
        _fail(mail, claim)
    mail.claim("worker-1", 3)
    for number in range(6):
        tasks["payments.charge"].enqueue(40 + number % 2, 990)
    for number in range(4):
        payments.open(f"slot-{number}", HOUR_MS)
        payments.claim(f"slot-{number}", 1)
    client.run(admin.pause(queue_keys("mail"), "the provider is down (lan)"))
    flow = app.flow("monthly report")
    added = flow.add(group(tasks["reports.fetch"].call(n) for n in range(12)) >> tasks["reports.add_up"].call(previous))
    checked = flow.signal("approve", after=added)
    rendered = flow.add(tasks["reports.render"].call(added.result), after=checked)
    flow.add(tasks["mail.send"].call("boss@example.com"), after=rendered)
    flow.add(tasks["payments.refund"].call(1), after=rendered, when="failed")
    flow.enqueue()
    reports.settle("worker-1", reports.claim("worker-1", 1), ms=HOUR_MS)
    reports.settle("worker-1", reports.claim("worker-1", 6), ms=HOUR_MS)
    reports.claim("worker-1", 2)
    (group(tasks["reports.fetch"].call(n) for n in range(3)) >> tasks["reports.add_up"].call(previous)).enqueue()
    _beat(app)


def _fail(kit: Kit, claim: ops.Claim) -> None:
    """End it as a worker does when its second attempt has raised."""
    live = decode(claim.record)
    errors = [
        AttemptError(
            attempt,
            "ConnectionRefusedError",
            "[Errno 111] Connection refused",
            TRACEBACK,
            live.created_at_ms + 2_000 * attempt,
        )
        for attempt in (1, 2)
    ]
    record = msgspec.structs.replace(
        live, state=int(Stored.FAILED), attempt=2, errors=errors, started_at_ms=live.created_at_ms + 40, ended_at_ms=live.created_at_ms + 4_100,
        reason="ConnectionRefusedError: [Errno 111] Connection refused",
    )  # fmt: skip
    outcome = ops.Settlement(claim.queue, claim.id, ops.Kind.FAILED, encode(record), keep_ms=HOUR_MS)
    kit.client.run(ops.settle(kit.queues, "worker-1", [outcome], want=0, split=kit.split))


def _beat(app: Headrace) -> None:
    """Two workers show themselves, as workers do every 5 s."""
    now_ms = app.client.run(admin.server_time_ms(queue_keys("mail").jobs))
    for number, (state, busy) in enumerate((("running", 3), ("quiet", 1)), 1):
        info = {
            "name": f"shop-{number}", "host": f"shop-{number}.example", "pid": 4000 + number, "pool": "prefork", "queues": list(QUEUES),
            "state": state, "children": 4, "slots": 1, "running": busy, "jobs": [], "succeeded": 12_408, "failed": 61, "run_ms": 500_000,
            "started_at_ms": now_ms - 9_000_000, "told_to_stop_at_ms": 0, "version": "0.1.0", "memory_bytes": 312_000_000, "python": "3.13.1",
        }  # fmt: skip
        app.client.run(ops.beat(app.prefix, f"shop-{number}", msgspec.msgpack.encode(info), ""))
