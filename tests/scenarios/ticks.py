"""The ticks of `clockwork`'s schedule that have run, and that each made one job."""

from __future__ import annotations

from datetime import UTC, datetime

from scenario_lab import Lab, until

PULSE = "cron:pulse:"


def ticks_run(lab: Lab) -> list[int]:
    """The ticks whose jobs ran, as Unix seconds, each once, in order."""
    words = {row[0] for row in lab.lines("tick") if row[0].startswith(PULSE)}
    times = (datetime.strptime(word[len(PULSE) :], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) for word in words)
    return sorted(int(at.timestamp()) for at in times)


def wait_for_ticks(lab: Lab, more: int) -> None:
    before = len(ticks_run(lab))
    until(lambda: len(ticks_run(lab)) >= before + more, timeout_s=60, what=f"{more} more ticks")


def assert_each_tick_made_one_job(lab: Lab) -> None:
    """No second is left out, none was made twice; all that was made has run."""
    lab.app.schedules.pause("pulse")
    until(lambda: not lab.live_jobs(), timeout_s=60, what="all jobs ended")
    ran = ticks_run(lab)
    assert list(range(ran[0], ran[-1] + 1)) == ran
    assert len(ran) == int(lab.redis.hget("hr:{default}:stats", "enqueued")) == lab.app.schedules.get("pulse").fired
