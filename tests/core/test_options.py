"""Every option is checked where it is written, and its name is in the message."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace import Retry, UsageError
from headrace.core.options import Plan, apply_options, check_enqueue_options, check_task_options

NOW_MS = 1_800_000_000_000

WRONG: list[tuple[str, Any]] = [
    ("delay", -1),
    ("delay", math.nan),
    ("delay", math.inf),
    ("delay", "5"),
    ("delay", True),
    ("delay", None),
    ("delay", 11 * 366 * 86_400),
    ("delay", timedelta(seconds=-1)),
    ("at", datetime(2030, 1, 1)),
    ("at", "2030-01-01"),
    ("at", 1_900_000_000),
    ("at", datetime(9000, 1, 1, tzinfo=UTC)),
    ("priority", 101),
    ("priority", -101),
    ("priority", 1.0),
    ("priority", True),
    ("priority", "9"),
    ("at_front", 1),
    ("timeout", 0),
    ("timeout", -1),
    ("timeout", math.inf),
    ("timeout", True),
    ("retry", -1),
    ("retry", 10**9),
    ("retry", True),
    ("retry", "3"),
    ("expires", 0),
    ("expires", -5),
    ("expires", datetime(2030, 1, 1)),
    ("result_ttl", -1),
    ("result_ttl", None),
    ("queue", 5),
    ("job_id", b"x"),
    ("description", 5),
    ("description", "x" * 1_001),
    ("description", "\ud800"),
    ("tags", "one"),
    ("tags", [1]),
    ("tags", [""]),
    ("tags", ["x"] * 21),
    ("tags", ["\ud800"]),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda item: f"{item!r:.30}")
def test_a_wrong_value_names_its_option(name: str, value: object) -> None:
    """UsageError, at once, starting with the option's name (a count of retries may name itself)."""
    with pytest.raises(UsageError, match=rf"^{'retr' if name == 'retry' else name}"):
        check_enqueue_options({name: value}, NOW_MS)


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    """A slip of the finger is told as one."""
    with pytest.raises(UsageError, match=r"no option 'prioritty'; did you mean 'priority'"):
        check_enqueue_options({"prioritty": 1}, NOW_MS)
    with pytest.raises(UsageError, match=r"no option 'xyz'; there are: .*timeout"):
        check_task_options({"xyz": 1})
    with pytest.raises(UsageError, match="no option 'delay'"):
        check_task_options({"delay": 1})


def test_options_that_exclude_each_other_say_so() -> None:
    """delay and at; at_front and either."""
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    with pytest.raises(UsageError, match="delay and at"):
        check_enqueue_options({"delay": 1, "at": at}, NOW_MS)
    with pytest.raises(UsageError, match="at_front"):
        check_enqueue_options({"delay": 1, "at_front": True}, NOW_MS)


def test_durations_are_seconds_or_timedeltas() -> None:
    """All come out in milliseconds."""
    assert check_enqueue_options({"delay": 1.5}, NOW_MS)["delay_ms"] == 1_500
    assert check_enqueue_options({"timeout": timedelta(minutes=1)}, NOW_MS) == {"timeout_ms": 60_000}
    assert check_enqueue_options({"timeout": None}, NOW_MS) == {"timeout_ms": 0}


def test_a_later_option_replaces_an_earlier_one() -> None:
    """Also where one is said in two ways."""
    at = datetime.fromtimestamp(NOW_MS / 1000 + 60, UTC)
    plan = apply_options(Plan(queue="default"), check_enqueue_options({"delay": 5}, NOW_MS))
    plan = apply_options(plan, check_enqueue_options({"at": at, "queue": "low"}, NOW_MS))
    assert (plan.delay_ms, plan.at_ms, plan.queue) == (0, NOW_MS + 60_000, "low")


def test_only_what_was_said_travels_with_the_job() -> None:
    """A job without options of its own carries none."""
    plan = apply_options(Plan(queue="default"), check_enqueue_options({"priority": 5, "delay": 1}, NOW_MS))
    assert plan.job is None
    plan = apply_options(plan, check_enqueue_options({"retry": Retry(2), "tags": ["a"]}, NOW_MS))
    assert plan.job is not None
    assert (plan.job.retry, plan.job.tags, plan.job.timeout_ms) == (Retry(2).spec, ["a"], None)
