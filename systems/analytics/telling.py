"""Who asked for a report is told when it is ready, by the system `notification`, where that runs beside this one."""

from __future__ import annotations

import os

from headrace import Job
from systems.notification.kinds import USER_CHARS_MAX
from systems.notification.tasks import take

VARIABLE = "ANALYTICS_TELLS"


def can_tell() -> bool:
    """Set by who starts both systems. Alone, a notice would wait for a worker that never comes."""
    return os.environ.get(VARIABLE) == "notification"


def check_user(user: str) -> str:
    """Raises ValueError when nobody can be called so; "" is nobody."""
    if not user.isprintable() or len(user) > USER_CHARS_MAX:
        raise ValueError(f"tell: expected at most {USER_CHARS_MAX} printable characters")
    return user


async def tell_when_ready(report: Job[object], user: str, name: str, url: str) -> None:
    """A notice that waits for the report's last job, whatever becomes of this process; none is sent of a report that fails."""
    await take.options(depends_on=report).aenqueue(user, "report_ready", {"report": name, "url": url})
