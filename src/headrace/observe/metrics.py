"""All queues, workers and schedules as Prometheus text. Names and units are part of the interface: docs/howto/observe.md lists them.

Read in one place, the dashboard or `headrace metrics`, and not by each worker: they would all say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.core.record import State, waits_since_ms
from headrace.core.tally import OUTCOMES, Sums, add, times_in
from headrace.engine import admin, schedules, stats
from headrace.engine.admin import QueueCounts, Worker
from headrace.engine.call import Steps
from headrace.engine.keys import queue_keys
from headrace.engine.schedules import Found
from headrace.observe import exposition
from headrace.observe.exposition import family, histogram, line
from headrace.version import __version__

BOUNDS_S = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
STATES = ("queued", "running", "later", "waiting", "failed", "ended")
WORKER_STATES = ("running", "quiet", "stopping")
_OUTCOMES = {"succeeded": "success", "failed": "dead", "retried": "error", "cancelled": "cancelled"}
_ENDS = {"succeeded": "succeeded", "failed": "dead", "cancelled": "cancelled", "expired": "expired"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is at about one instant. `oldest_s`: by queue, how long the next job in line has waited. `totals`: by queue and task."""

    queues: Sequence[QueueCounts]
    workers: Sequence[Worker]
    oldest_s: Mapping[str, float]
    totals: Mapping[str, Mapping[str, Sums]]
    schedules: Sequence[Found]
    server_errors: int = 0


def read_snapshot(prefix: str) -> Steps[Snapshot]:
    """Three calls a queue, and a few more; what it costs does not depend on how many jobs there are."""
    names: list[str] = yield admin.queue_names(prefix)
    queues: list[QueueCounts] = []
    oldest_s: dict[str, float] = {}
    totals: dict[str, dict[str, Sums]] = {}
    for name in names:
        keys = queue_keys(name, prefix)
        counts = yield from admin.count_jobs(keys)
        queues.append(counts)
        totals[name] = yield stats.read_totals(keys)
        if counts.queued:
            oldest_s[name] = yield from read_oldest_s(prefix, counts)
    workers: list[Worker] = yield from admin.list_workers(prefix)
    return Snapshot(queues, workers, oldest_s, totals, (yield from schedules.list_schedules(prefix)))


def read_oldest_s(prefix: str, counts: QueueCounts) -> Steps[float]:
    """How long the next job in line has waited."""
    page = yield from admin.list_jobs(queue_keys(counts.name, prefix), (State.QUEUED,), limit=1)
    return max(0.0, (counts.server_ms - waits_since_ms(page.rows[0].record)) / 1000) if page.rows else 0.0


def render(seen: Snapshot) -> str:
    """As text."""
    return exposition.text(
        [*_of_queues(seen), *_of_tasks(seen), *_of_workers(seen), *_of_schedules(seen), *_of_us(seen)]
    )


def _of_queues(seen: Snapshot) -> list[list[str]]:
    served = {q.name: sum(q.name in worker.info.get("queues", ()) for worker in seen.workers) for q in seen.queues}
    return [
        family("headrace_jobs_enqueued_total", "counter", "Jobs that came to a queue.", (
            line("headrace_jobs_enqueued_total", {"queue": q.name}, q.totals.get("enqueued", 0)) for q in seen.queues
        )),
        family("headrace_jobs_finished_total", "counter", "Jobs that ended.", (
            line("headrace_jobs_finished_total", {"queue": q.name, "state": told}, q.totals.get(name, 0))
            for q in seen.queues
            for name, told in _ENDS.items()
        )),
        family("headrace_attempts_lost_total", "counter", "Runs that ended with their process.", (
            line("headrace_attempts_lost_total", {"queue": q.name}, q.totals.get("crashed", 0)) for q in seen.queues
        )),
        family("headrace_queue_jobs", "gauge", "Jobs that stand in a queue.", (
            line("headrace_queue_jobs", {"queue": q.name, "state": state}, count)
            for q in seen.queues
            for state, count in jobs_by_state(q).items()
        )),
        family("headrace_queue_latency_seconds", "gauge", "How long the next job in line has waited.", (
            line("headrace_queue_latency_seconds", {"queue": q.name}, seen.oldest_s.get(q.name, 0.0))
            for q in seen.queues
        )),
        family("headrace_queue_paused", "gauge", "1 where a queue is paused.", (
            line("headrace_queue_paused", {"queue": q.name}, int(q.paused is not None)) for q in seen.queues
        )),
        family("headrace_queue_workers", "gauge", "Workers that serve a queue.", (
            line("headrace_queue_workers", {"queue": q.name}, served[q.name]) for q in seen.queues
        )),
    ]  # fmt: skip


def jobs_by_state(counts: QueueCounts) -> dict[str, int]:
    """Of one queue, each job once."""
    numbers = (
        counts.queued, counts.running, counts.delayed, counts.parked + counts.waiting, counts.dead, counts.done,
    )  # fmt: skip
    return dict(zip(STATES, numbers, strict=True))


def _of_tasks(seen: Snapshot) -> list[list[str]]:
    tasks = [(queue, task, sums) for queue, rows in seen.totals.items() for task, sums in rows.items() if task]
    waits: dict[str, Sums] = {}
    for queue, _, sums in tasks:
        add(waits.setdefault(queue, {}), sums)
    return [
        family("headrace_attempts_total", "counter", "Runs of jobs, as workers count them.", (
            line("headrace_attempts_total", {"queue": queue, "task": task, "outcome": _OUTCOMES[name]}, sums.get(name, 0))
            for queue, task, sums in tasks
            for name in OUTCOMES
        )),
        family("headrace_job_run_seconds", "histogram", "How long runs took.", (
            row
            for queue, task, sums in tasks
            for row in _times("headrace_job_run_seconds", {"queue": queue, "task": task}, sums, "run")
        )),
        family("headrace_job_wait_seconds", "histogram", "From enqueue to the first run, an asked delay included.", (
            row
            for queue, sums in waits.items()
            for row in _times("headrace_job_wait_seconds", {"queue": queue}, sums, "wait")
        )),
    ]  # fmt: skip


def _times(name: str, labels: dict[str, str], sums: Sums, kind: str) -> list[str]:
    """Our steps are told by the first bound that is above the whole of them."""
    times = times_in(sums, kind)
    buckets = [(bound, sum(n for _, after, n in times.steps if after <= bound * 1e6)) for bound in BOUNDS_S]
    return histogram(name, labels, buckets, times.total_us / 1e6, times.count)


def _of_workers(seen: Snapshot) -> list[list[str]]:
    states: dict[str, int] = {state: 0 for state in WORKER_STATES}
    busy = slots = 0
    for worker in seen.workers:
        info = worker.info
        state = str(info.get("state", "running"))
        states[state] = states.get(state, 0) + 1
        busy += int(info.get("running", 0))
        slots += int(info.get("slots", 1)) * int(info.get("children", 1))
    return [
        family("headrace_workers", "gauge", "Workers that beat.", (
            line("headrace_workers", {"state": state}, count) for state, count in states.items()
        )),
        family("headrace_worker_slots", "gauge", "Places where jobs run.", (
            line("headrace_worker_slots", {"state": "busy"}, busy),
            line("headrace_worker_slots", {"state": "idle"}, max(0, slots - busy)),
        )),
    ]  # fmt: skip


def _of_schedules(seen: Snapshot) -> list[list[str]]:
    def rows(name: str, values: Mapping[tuple[str, str], float]) -> list[str]:
        return [line(name, {"queue": queue, "schedule": each}, value) for (queue, each), value in values.items()]

    last_s: dict[tuple[str, str], float] = {}
    late_s: dict[tuple[str, str], float] = {}
    for row in seen.schedules:
        entry, place = row.entry, (row.queue.name, row.name)
        if entry.last_ms:
            last_s[place] = entry.last_ms / 1000
        # One that waits for its last job's end is not late: that is as it was asked to be.
        is_due = row.state == "active" and not entry.waiting_ms and entry.next_ms > 0
        late_s[place] = max(0.0, (row.server_ms - entry.next_ms) / 1000) if is_due else 0.0
    return [
        family(
            "headrace_schedule_last_run_timestamp_seconds", "gauge", "The last tick of a schedule that made a job.",
            rows("headrace_schedule_last_run_timestamp_seconds", last_s),
        ),
        family(
            "headrace_schedule_overdue_seconds", "gauge", "How long a tick that is due has made no job.",
            rows("headrace_schedule_overdue_seconds", late_s),
        ),
    ]  # fmt: skip


def _of_us(seen: Snapshot) -> list[list[str]]:
    return [
        exposition.simple(
            "headrace_server_errors_total", "counter", "How often the server did not do what was asked.", seen.server_errors
        ),
        family(
            "headrace_build_info", "gauge", "The version that answers.", [line("headrace_build_info", {"version": __version__}, 1)]
        ),
    ]  # fmt: skip
