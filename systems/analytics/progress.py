"""How far a report is: asked of the queue in one look, and of the database for the number of rows."""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace import Job, State

_COUNTED = text("""
SELECT coalesce(sum(views), 0)::bigint, min(at - make_interval(secs => took_s))
FROM (SELECT DISTINCT ON (day) * FROM day_counted WHERE report = :report ORDER BY day, number) AS day
""")
_ENDED = {State.SUCCEEDED: "ready", State.CANCELLED: "cancelled", State.FAILED: "failed", State.EXPIRED: "failed"}


class Counted(msgspec.Struct, frozen=True):
    """`views` of the days that are done; the first of them was begun at `began_at`."""

    views: int
    began_at: datetime | None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: counting, writing, ready, cancelled or failed. `views` is None while the database does not say."""

    state: str
    days: int
    days_done: int
    views: int | None = None
    left_s: float | None = None
    why: str = ""

    @property
    def is_ended(self) -> bool:
        return self.state not in ("counting", "writing")

    @property
    def percent(self) -> float:
        """The report itself is the last piece of the work."""
        return 100 * (self.days_done + (self.state == "ready")) / (self.days + 1)


async def read_counted(connection: AsyncConnection, report: str) -> Counted:
    """A read of a few hundred rows at most."""
    return Counted(*(await connection.execute(_COUNTED, {"report": report})).one())


def progress_of(last: Job[object], counted: Counted | None) -> Progress:
    """What the report's last job tells, just looked at: it waits for the days that are not done.

    A day that failed has it cancelled, and its reason names that day's job.
    """
    first_day, last_day = (date.fromisoformat(str(value)) for value in last.args[-3:-1])
    days = (last_day - first_day).days + 1
    is_failed_day = last.state is State.CANCELLED and (last.reason or "").endswith("failed")
    state = "failed" if is_failed_day else _ENDED.get(last.state, "counting" if last.awaited else "writing")
    done = days - last.awaited if state in ("counting", "writing", "ready") else 0
    return Progress(
        state=state,
        days=days,
        days_done=done,
        views=None if counted is None else counted.views,
        left_s=_left_s(counted, done, days) if state == "counting" else None,
        why=last.reason or "" if state == "failed" else "",
    )


def _left_s(counted: Counted | None, done: int, days: int) -> float | None:
    """The days to come take as long as those before; None until there is one."""
    if counted is None or counted.began_at is None or not done:
        return None
    took_s = (datetime.now(UTC) - counted.began_at).total_seconds()
    return took_s / done * (days - done)
