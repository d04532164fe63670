"""Quiet hours: by the clock of the user's own time zone, over midnight too."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


def quiet_until(now: datetime, zone: str, begins: time | None, ends: time | None) -> datetime | None:
    """When the quiet hours end in which `now` is; None when it is in none. Both times equal: there are none."""
    if begins is None or ends is None or begins == ends:
        return None
    local = now.astimezone(ZoneInfo(zone))
    clock = local.time().replace(tzinfo=None)
    is_quiet = begins <= clock < ends if begins < ends else clock >= begins or clock < ends
    if not is_quiet:
        return None
    day = local.date() + timedelta(days=1 if clock >= ends else 0)
    end = datetime.combine(day, ends, ZoneInfo(zone)).astimezone(UTC)
    # A clock that is put back at night has some times twice: the end is never behind us.
    return max(end, now.astimezone(UTC) + timedelta(seconds=1))
