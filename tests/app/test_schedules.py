"""Schedules as an app declares them, and as users change them at run time."""

from __future__ import annotations

import asyncio
import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace import (
    ArgumentsMismatch,
    Headrace,
    PayloadNotSerializable,
    Schedule,
    ScheduleExists,
    ScheduleNotFound,
    UsageError,
)
from headrace.engine import schedules as engine
from headrace.schedules import Schedules


def report(days: int = 1) -> int:
    return days


def needs(path: str) -> None: ...


@pytest.fixture
def bare() -> Headrace:
    """An app that has no server."""
    return Headrace("redis://127.0.0.1:1/0")


def test_a_function_becomes_a_task_that_runs_by_the_clock(bare: Headrace) -> None:
    """One decorator; what @app.task takes goes with it. It can still be called and enqueued."""
    task = bare.cron("*/5 * * * *", tz="Asia/Ho_Chi_Minh", queue="low", retry=3, args=[7])(report)
    assert (5, "low", 3) == (task(5), task.queue, task.retry.retries if task.retry else 0)
    (declared,) = bare.declared_schedules()
    assert (task.name, "low") == (declared.name, declared.queue)
    assert ("*/5 * * * *", "Asia/Ho_Chi_Minh") == (declared.spec.cron, declared.spec.tz)
    assert "low" in bare.queues


def test_a_task_can_have_many_schedules(bare: Headrace) -> None:
    """Each with a name of its own; options are then for its jobs only."""
    task = bare.task(queue="high")(report)
    assert task is bare.every(30, name="often")(task)
    assert task is bare.every(timedelta(hours=1), name="rarely", queue="low", priority=5, kwargs={"days": 2})(task)
    assert [("often", "high", 30_000, 0), ("rarely", "low", 3_600_000, 5)] == [
        (each.name, each.queue, each.spec.every_ms, each.spec.priority) for each in bare.declared_schedules()
    ]
    assert "high" == task.queue


@pytest.mark.parametrize(
    ("declare", "problem"),
    [
        (lambda app: app.cron("61 * * * *"), "minute 61 not in 0-59"),
        (lambda app: app.cron("0 0 * * *", tz="Mars/Phobos"), "unknown time zone 'Mars/Phobos'"),
        (lambda app: app.every(0), "every: 0 s; at least 1 s"),
        (lambda app: app.every(5, overlp="skip"), "has no option 'overlp'"),
        (lambda app: app.every(5, overlap="no"), "overlap: expected one of"),
        (lambda app: app.every(5, args="abc"), "args is a list"),
        (lambda app: app.every(5, queue="a b"), "queue name 'a b' is not allowed"),
        (lambda app: app.every(5, name="a b")(report), "schedule name 'a b' is not allowed.*give it another"),
        (lambda app: app.every(5, name="x")(app.every(6, name="x")(report)), "two schedules have the name 'x'"),
    ],
)
def test_what_is_wrong_is_said_where_it_is_written(bare: Headrace, declare: Any, problem: str) -> None:
    """At import, not at the first tick."""
    with pytest.raises(UsageError, match=problem):
        declare(bare)


def test_arguments_must_fit(bare: Headrace) -> None:
    """A function that needs some is refused without them; what cannot be stored stops the worker's start."""
    with pytest.raises(ArgumentsMismatch, match=r"missing a required argument: 'path'; give args"):
        bare.every(5)(needs)
    bare.every(5, args=[object()])(report)
    with pytest.raises(PayloadNotSerializable):
        bare.declared_schedules()


def declare_all(app: Headrace) -> None:
    """What a worker does that starts with this app."""
    for declared in app.declared_schedules():
        assert "" == app.client.run(engine.declare(app.prefix, declared, is_start=True))


def test_declared_and_changed_are_kept_apart_and_shown(app: Headrace) -> None:
    """What code says, what someone made of it, who and when; a deploy leaves it, reset drops it."""
    app.cron("0 2 * * *", tz="Europe/Berlin", name="nightly")(report)
    declare_all(app)
    changed = app.schedules.change("nightly", cron="0 5 * * *", overlap="skip", by="ann")
    assert ("0 2 * * *", "allow") == (changed.declared["cron"], changed.declared["overlap"])
    assert {"cron": "0 5 * * *", "every": None, "overlap": "skip"} == changed.changed
    assert ("0 5 * * *", "Europe/Berlin", "skip") == tuple(changed.now[word] for word in ("cron", "tz", "overlap"))
    assert "ann" == changed.changed_by
    assert changed.changed_at is not None and changed.next_tick is not None
    assert "05:00" == f"{changed.next_tick:%H:%M}"
    declare_all(app)
    assert changed.now == app.schedules.get("nightly").now
    assert changed.declared == app.schedules.reset("nightly").now
    assert {} == app.schedules.get("nightly").changed


def test_a_schedule_lives_at_run_time(app: Headrace, run_one: Any) -> None:
    """Added, shown, paused, resumed, skipped, changed, run now, removed."""
    task = app.task(report)
    made = app.schedules.add("hourly", task.call(3), every=3600, jitter=2, end=datetime(2190, 1, 1, tzinfo=UTC))
    assert ("active", False, 3600.0, 2.0) == (made.state, made.is_declared, made.now["every"], made.now["jitter"])
    first, second, third = made.next_ticks(3)
    assert (timedelta(hours=1), timedelta(hours=1)) == (second - first, third - second)
    with pytest.raises(ScheduleExists):
        app.schedules.add("hourly", task.call(), every=5)
    assert ("paused", "why", None, []) == (
        (paused := app.schedules.pause("hourly", "why")).state, paused.pause_reason, paused.next_tick, paused.next_ticks(2),
    )  # fmt: skip
    assert first == app.schedules.resume("hourly").next_tick
    assert third == app.schedules.skip("hourly", 2).next_tick
    job = app.schedules.run_now("hourly")
    run_one()
    assert (3, job.id) == (job.result(timeout=10), app.schedules.get("hourly").last_job_id)
    app.schedules.change("hourly", task.call(4))
    job = app.schedules.run_now("hourly")
    run_one()
    assert (4, 2) == (job.result(timeout=10), app.schedules.get("hourly").fired)
    assert ["hourly"] == [each.name for each in app.schedules.list()]
    app.schedules.remove("hourly")
    assert [] == app.schedules.list("default")
    with pytest.raises(ScheduleNotFound):
        app.schedules.pause("hourly")


def test_a_call_that_chooses_its_own_time_or_id_is_refused(app: Headrace) -> None:
    """The tick decides both."""
    task = app.task(report)
    for options, problem in (
        ({"delay": 5}, "delay: not for a schedule"),
        ({"at": datetime(2100, 1, 1, tzinfo=UTC) - timedelta(days=25_000)}, "at: not for a schedule"),
        ({"job_id": "x"}, "job_id: not for a schedule"),
        ({"expires": datetime(2100, 1, 1, tzinfo=UTC)}, "expires: not for a schedule; give seconds"),
    ):
        with pytest.raises(UsageError, match=problem):
            app.schedules.add("s", task.options(**options).call(), every=60)  # type: ignore[arg-type]
    first = task.enqueue()
    with pytest.raises(UsageError, match="depends_on: not for a schedule"):
        app.schedules.add("s", task.options(depends_on=first).call(), every=60)
    for wrong in (task, task.call() >> task.call()):
        with pytest.raises(UsageError, match=r"expected a call made by task.call"):
            app.schedules.add("s", wrong, every=60)  # type: ignore[arg-type]
    app.schedules.add("s", task.call(), every=60)
    with pytest.raises(UsageError, match="enqueues to 'default', the call to 'low'"):
        app.schedules.change("s", task.options(queue="low").call())
    with pytest.raises(UsageError, match="nothing to change"):
        app.schedules.change("s")
    with pytest.raises(UsageError, match="skip: expected 1 to 1000 ticks, got 0"):
        app.schedules.skip("s", 0)


def test_every_method_has_its_async_twin() -> None:
    """With the same arguments."""
    names = [name for name in vars(Schedules) if not name.startswith("_")]
    plain = [name for name in names if f"a{name}" in names]
    assert len(names) == 2 * len(plain) == 20
    for name in plain:
        one, other = (inspect.signature(getattr(Schedules, each)) for each in (name, f"a{name}"))
        assert (one.parameters, one.return_annotation) == (other.parameters, other.return_annotation)


def test_the_async_twins_do_the_same(app: Headrace) -> None:
    """Through the async client."""

    async def main() -> tuple[list[Schedule], str, int]:
        task = app.task(report)
        await app.schedules.aadd("s", task.call(), every=60)
        await app.schedules.apause("s", "why")
        await app.schedules.aresume("s")
        await app.schedules.askip("s")
        await app.schedules.achange("s", every=90)
        rows = await app.schedules.alist()
        await app.schedules.areset("s")
        job = await app.schedules.arun_now("s")
        fired = (await app.schedules.aget("s")).fired
        await app.schedules.aremove("s")
        state = str((await app.ajob(job.id)).state)
        await app.aclose()
        return rows, state, fired

    rows, state, fired = asyncio.run(main())
    assert ([90.0], "queued", 1) == ([row.now["every"] for row in rows], state, fired)
