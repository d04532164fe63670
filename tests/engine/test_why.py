"""Why a job is not running: each reason is told, the nearest first, and what keeps the whole queue back after it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from engine_kit import Kit

from headrace import Headrace, JobNotFound, Limit
from headrace.core import outcome
from headrace.core.record import decode, encode
from headrace.engine import admin, ops
from headrace.engine.why import why


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found


@pytest.fixture
def kit(app: Headrace) -> Kit:
    """The default queue, to which a worker listens."""
    found = Kit(app.client)
    found.open("worker-1.0.0.1.1")
    return found


def told(kit: Kit, job_id: str) -> list[str]:
    return list(map(str, kit.client.run(why(kit.queue, job_id))))


def test_a_job_stands_behind_others(app: Headrace, kit: Kit) -> None:
    """So many of them, by arrival and priority; in a group, of its group."""
    app.enqueue_many(app.queue("default").call("a.b", n) for n in range(1_200))
    last = app.enqueue("a.b")
    first = app.options(priority=5).enqueue("a.b")
    assert told(kit, last.id) == ["it stands behind 1,201 jobs"]
    assert told(kit, first.id) == ["it is next in line", "its priority is 5"]
    grouped = [app.options(group="tenant").enqueue("a.b") for _ in range(2)]
    assert told(kit, grouped[1].id) == ["it stands behind 1 job of its group tenant, which takes turns with the others"]


def test_a_job_waits_for_its_time(app: Headrace, kit: Kit) -> None:
    """Scheduled, or to be run again, with what went wrong; and when it is given up."""
    job = app.options(delay=600, expires=900).enqueue("a.b")
    when, expires = told(kit, job.id)
    assert when.startswith("it is scheduled for ")
    assert "(in " in when
    assert expires.startswith("it expires at ")
    again = app.enqueue("a.c")
    kit.settle("worker-1.0.0.1.1", kit.claim("worker-1.0.0.1.1", 1), ops.Kind.RETRY, ms=60_000)
    assert told(kit, again.id)[0].startswith("it ")


def test_no_worker_knows_the_task(app: Headrace, kit: Kit) -> None:
    """Those that met it said so, and put it off."""
    job = app.enqueue("app.unknown")
    (claim,) = kit.claim("worker-1.0.0.1.1", 1)
    end = outcome.decide(
        decode(claim.record), outcome.UnknownTask("app.unknown"), retry=None, result_ttl_ms=0,
        now_ms=int(time.time() * 1000), random=lambda: 0.5,
    )  # fmt: skip
    parked = ops.Settlement("default", job.id, ops.Kind.PARK, encode(end.record), delay_ms=end.delay_ms)
    kit.client.run(ops.settle(kit.queues, "worker-1.0.0.1.1", [parked], split=False))
    (reason,) = told(kit, job.id)
    assert reason.startswith("no worker of this queue knows the task app.unknown: one looks again at ")


def test_a_limit_is_full_or_shut(app: Headrace, kit: Kit) -> None:
    """By its name, who is in it, and until when."""
    jobs = [app.options(limits=Limit("stripe", concurrency=1)).enqueue("a.b") for _ in range(3)]
    kit.claim("worker-1.0.0.1.1", 3)
    (reason,) = told(kit, jobs[1].id)
    assert reason.startswith("the limit stripe is full: 1 running, 2 wait for it")
    kit.client.run(ops.hold_limit(kit.queue, "stripe", 60_000))
    (reason,) = told(kit, jobs[1].id)
    assert reason.startswith("the limit stripe lets nothing through until ")


def test_a_job_waits_for_another(app: Headrace, kit: Kit) -> None:
    """By its id."""
    first = app.enqueue("a.b")
    then = app.options(depends_on=first).enqueue("a.c")
    assert told(kit, then.id) == [f"it waits for 1 of these jobs to succeed: {first.id}"]


def test_the_queue_is_held_back(app: Headrace) -> None:
    """Paused, as full as it may be, or nobody listens."""
    alone = Kit(app.client, "alone")
    job = app.queue("alone").enqueue("a.b")
    assert told(alone, job.id) == ["it is next in line", "no worker listens to the queue alone"]
    alone.open("s")
    alone.client.run(admin.pause(alone.queue, "provider is down"))
    assert told(alone, job.id) == ["it is next in line", "the queue is paused: provider is down"]
    alone.client.run(admin.resume(alone.queue))
    alone.client.run(ops.bound_queue(alone.queue, {"max_running": 1}))
    alone.claim("s", 1)
    other = app.queue("alone").enqueue("a.b")
    assert told(alone, other.id) == ["it is next in line", "the queue runs as many jobs as it may: 1 of 1"]
    assert told(alone, job.id) == ["it runs, in the session s"]


def test_an_ended_job_says_how(app: Headrace, kit: Kit) -> None:
    """Expired: by when it should have started; cancelled; and what never was."""
    kit.add("late", expires_at_ms=1_700_000_000_000)
    assert kit.claim("worker-1.0.0.1.1", 1) == []
    (reason,) = told(kit, "late")
    assert reason.startswith("it has ended: expired, since it had not started by ")
    cancelled = app.enqueue("a.b")
    cancelled.cancel()
    assert told(kit, cancelled.id)[0].startswith("it has ended: cancelled")
    with pytest.raises(JobNotFound):
        told(kit, "nothing")
