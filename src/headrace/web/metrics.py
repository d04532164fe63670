"""The queues as Prometheus text. Names and units are part of the interface: docs/howto/dashboard.md lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.core.tally import OUTCOMES, Sums, times_in
from headrace.version import __version__
from headrace.web.data import Overview, tab_counts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
_NAMES = {"succeeded": "success", "failed": "dead", "retried": "error", "cancelled": "cancelled"}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {value:g}" if isinstance(value, float) else f"{name}{{{inner}}} {value}"


def _family(name: str, kind: str, told: str, lines: Iterable[str]) -> list[str]:
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}", *lines]


def _histogram(name: str, labels: dict[str, str], sums: Sums, kind: str) -> list[str]:
    """Our steps are told by the first bound that is above the whole of them."""
    times = times_in(sums, kind)
    lines = []
    for bound_s in BOUNDS_S:
        below = sum(count for _, after, count in times.steps if after <= bound_s * 1e6)
        lines.append(_line(f"{name}_bucket", {**labels, "le": f"{bound_s:g}"}, below))
    lines.append(_line(f"{name}_bucket", {**labels, "le": "+Inf"}, times.count))
    lines.append(_line(f"{name}_sum", labels, times.total_us / 1e6))
    lines.append(_line(f"{name}_count", labels, times.count))
    return lines


def render(overview: Overview, totals: Mapping[str, Mapping[str, Sums]]) -> str:
    tasks = [(queue, task, sums) for queue, rows in totals.items() for task, sums in rows.items() if task]
    waits: dict[str, Sums] = {}
    for queue, _, sums in tasks:
        into = waits.setdefault(queue, {})
        for name, count in sums.items():
            into[name] = into.get(name, 0) + count
    states: dict[str, int] = {}
    for worker in overview.workers:
        state = str(worker.info.get("state", "running"))
        states[state] = states.get(state, 0) + 1
    families = [
        _family(
            "headrace_jobs_enqueued_total", "counter", "Jobs that came to a queue.",
            (_line("headrace_jobs_enqueued_total", {"queue": q.name}, q.totals.get("enqueued", 0)) for q in overview.queues),
        ),
        _family(
            "headrace_jobs_finished_total", "counter", "Jobs that ended.",
            (
                _line("headrace_jobs_finished_total", {"queue": q.name, "state": told}, q.totals.get(name, 0))
                for q in overview.queues
                for name, told in (("succeeded", "succeeded"), ("failed", "dead"), ("cancelled", "cancelled"), ("expired", "expired"))
            ),
        ),
        _family(
            "headrace_attempts_total", "counter", "Runs of jobs, as workers count them.",
            (
                _line("headrace_attempts_total", {"queue": queue, "task": task, "outcome": _NAMES[name]}, sums.get(name, 0))
                for queue, task, sums in tasks
                for name in OUTCOMES
            ),
        ),
        _family(
            "headrace_job_run_seconds", "histogram", "How long runs took.",
            (
                line
                for queue, task, sums in tasks
                for line in _histogram("headrace_job_run_seconds", {"queue": queue, "task": task}, sums, "run")
            ),
        ),
        _family(
            "headrace_job_wait_seconds", "histogram", "From enqueue to the first run, an asked delay included.",
            (
                line
                for queue, sums in waits.items()
                for line in _histogram("headrace_job_wait_seconds", {"queue": queue}, sums, "wait")
            ),
        ),
        _family(
            "headrace_queue_jobs", "gauge", "Jobs that stand in a queue.",
            (
                _line("headrace_queue_jobs", {"queue": q.name, "state": state}, count)
                for q in overview.queues
                for state, count in tab_counts(q).items()
            ),
        ),
        _family(
            "headrace_queue_latency_seconds", "gauge", "How long the next job in line has waited.",
            (
                _line("headrace_queue_latency_seconds", {"queue": q.name}, overview.oldest_s.get(q.name, 0.0))
                for q in overview.queues
            ),
        ),
        _family(
            "headrace_queue_paused", "gauge", "1 where a queue is paused.",
            (_line("headrace_queue_paused", {"queue": q.name}, int(q.paused is not None)) for q in overview.queues),
        ),
        _family(
            "headrace_workers", "gauge", "Workers that beat.",
            (_line("headrace_workers", {"state": state}, count) for state, count in sorted(states.items())),
        ),
        _family(
            "headrace_worker_slots", "gauge", "Places where jobs run.",
            (
                _line("headrace_worker_slots", {"state": "busy"}, overview.busy),
                _line("headrace_worker_slots", {"state": "idle"}, max(0, overview.slots - overview.busy)),
            ),
        ),
        _family(
            "headrace_build_info", "gauge", "The version that answers.",
            (_line("headrace_build_info", {"version": __version__}, 1),),
        ),
    ]  # fmt: skip
    return "\n".join(line for family in families for line in family) + "\n"
