"""The judge of `make versus`: what it makes of the logs of a run."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

VERSUS = Path(__file__).parents[2] / "benchmarks" / "versus"


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(VERSUS))
    yield importlib.import_module("verdict")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(VERSUS))
    yield importlib.import_module("page")


def row(library: str, **figures: Any) -> dict[str, Any]:
    zeros = dict.fromkeys(("refused", "lost", "unrun", "failed", "doubled", "again", "unasked", "deaths"), 0)
    return {
        "library": library, "scenario": "sigkill", "acknowledged": 9, "done": 9, **zeros, "recovered_s": 0.0, "works": True, "alive": 1,
        "mains": 1, "restarts": 2, "notes": {}, **figures,
    }  # fmt: skip


def judged(verdict: Any, effects: str, answers: str, places: dict[str, str], *, ended_ns: int = 0) -> Any:
    return verdict.judge(verdict.read_effects(effects), verdict.read_answers(answers), places, ended_ns)


def test_a_job_is_lost_only_if_it_never_ended_and_is_nowhere(verdict: Any) -> None:
    """One that is waiting or held may still run; one that failed is told of; one that only began has had no effect."""
    answers = "".join(f"ok job-00000{n} 1 2\n" for n in range(6))
    effects = "start job-000000 7 10\nend job-000000 7 11\nstart job-000001 7 12\n"
    places = {"job-000002": "waiting", "job-000003": "held", "job-000004": "failed"}
    found = judged(verdict, effects, answers, places)
    assert (6, 1, 2, 2, 1) == (found.acknowledged, found.done, found.lost, found.unrun, found.failed)
    assert found.recovered_s is None


def test_a_job_is_doubled_if_it_ended_twice_and_not_if_it_only_began_twice(verdict: Any) -> None:
    """A start that its process did not survive is counted apart."""
    answers = "ok job-000000 1 2\nok job-000001 1 2\n"
    effects = (
        "start job-000000 7 10\nend job-000000 7 11\nstart job-000000 8 12\nend job-000000 8 13\n"
        "start job-000001 7 14\nstart job-000001 8 15\nend job-000001 8 16\n"
    )
    found = judged(verdict, effects, answers, {})
    assert (2, 0, 1, 2) == (found.done, found.lost, found.doubled, found.again)


def test_it_has_recovered_when_the_last_job_first_ended(verdict: Any) -> None:
    """Counted from the end of the chaos; a second run of a job that had ended before takes nothing longer."""
    answers = "ok job-000000 1 2\nok job-000001 1 2\n"
    effects = "end job-000000 7 1000000000\nend job-000001 7 4500000000\nend job-000000 8 9000000000\n"
    assert judged(verdict, effects, answers, {}, ended_ns=2_000_000_000).recovered_s == 2.5
    assert judged(verdict, effects, answers, {}, ended_ns=5_000_000_000).recovered_s == 0


def test_jobs_that_came_after_the_chaos_make_no_recovery_longer(verdict: Any) -> None:
    answers = "ok job-000000 1 2\nok job-000001 8000000000 8000000001\n"
    effects = "end job-000000 7 3000000000\nend job-000001 7 9000000000\n"
    assert judged(verdict, effects, answers, {}, ended_ns=2_000_000_000).recovered_s == 1


def test_a_refused_job_is_owed_to_nobody(verdict: Any) -> None:
    """It is neither lost when it did not run, nor doubled when it did; and the error is kept with its words."""
    answers = "no job-000000 1 2 ServerFull: no room\nno job-000001 1 2 Timeout: \nok job-000002 1 2\n"
    effects = "start job-000001 7 10\nend job-000001 7 11\nstart job-000002 7 12\nend job-000002 7 13\n"
    found = judged(verdict, effects, answers, {})
    assert (1, 2, 1, 0, 1) == (found.acknowledged, found.refused, found.done, found.lost, found.unasked)
    assert verdict.read_answers(answers)[0].error == "ServerFull: no room"


def test_other_kinds_of_jobs_are_not_counted(verdict: Any) -> None:
    """The poison and the probes have figures of their own; a line that is not whole yet is left out."""
    answers = "ok job-000000 1 2\nok poison-000000 1 2\nok probe-000000 1 2\n"
    effects = "start poison-000000 7 9\nstart job-000000 7 10\nend job-000000 7 11\nend probe-000"
    found = judged(verdict, effects, answers, {})
    assert (1, 1, 0, 0) == (found.acknowledged, found.done, found.lost, found.unrun)


def test_the_page_tells_where_others_are_better(page: Any) -> None:
    """Each figure in which another library beats headrace is named; equals, and less than a second, are not."""
    rows = [
        row("headrace", doubled=2, recovered_s=9.0),
        row("rq", lost=3, recovered_s=None),
        row("arq", doubled=1, recovered_s=8.5),
    ]
    run = {
        "plan": {"seed": 1, "jobs": 9, "restarts": 2, "recovery_s": 5, "stop_s": 1}, "python": "3", "cores": 2, "lanes": 1, "server": "Valkey 9",
        "rows": [*rows, {"library": "saq", "scenario": "sigkill", "error": "Traceback"}],
        "libraries": {
            name: {"versions": [f"{name} 1.0"], "missing": "", "command": name, "more": 0, "settings": "", "own_recovery": ""}
            for name in ("headrace", "rq", "arq", "saq")
        },
    }  # fmt: skip
    run["libraries"]["taskiq"] = {**run["libraries"]["saq"], "versions": [], "missing": "not installed on Python 3"}
    made = page.page(run)
    behind = made.partition("## Where headrace is not best\n\n")[2].partition("\n\n")[0]
    assert "- restarts by SIGKILL, doubled: headrace 2; rq 0, arq 1." == behind
    assert "| **rq** 1.0 | **3 lost** |" in made
    assert "| **saq** 1.0 | the harness failed |" in made
    assert "| **taskiq**  | not installed on Python 3 |" in made
