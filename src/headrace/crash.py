"""Die at a chosen point, to show that nothing is lost there: HEADRACE_CRASH=POINT or POINT:N, at its N-th hit in a process.

Nothing happens where the variable is not set: `IS_ON` is then False, and each point costs a look at it at most. With
HEADRACE_ENV=production it is ignored, which is said. HEADRACE_CRASH_ONCE names a file: who dies writes it first
("POINT PID"), and while it is there nobody else dies, so that what was started again goes on.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

SCRIPTS = (
    "adopt", "announce", "arrive", "beat", "cancel", "claim", "delete", "enqueue", "expect", "fire", "flow_put", "follow", "give_back",
    "grow", "grow_clear", "limit_hold", "lines", "link", "note", "open", "progress", "release", "renew", "requeue", "run_now", "save",
    "schedule_look", "schedule_put", "schedule_renew", "settle", "stream", "tally", "tend", "unwatch", "watch",
)  # fmt: skip
"""What is sent to the server; a claim without outcomes is `claim`, one with outcomes is `settle`."""
PHASES = ("before_send", "after_send", "after_reply")
STEPS = ("run.before", "run.mid", "run.after", "spawn.before", "spawn.after", "kill.before", "kill.after")
POINTS = (*(f"{name}.{phase}" for name in SCRIPTS for phase in PHASES), *STEPS)


def _read(wanted: str) -> tuple[str, int]:
    """The point, and which of its hits; ("", 0) where there is none."""
    if not wanted:
        return "", 0
    if os.environ.get("HEADRACE_ENV") == "production":
        print("headrace: HEADRACE_CRASH is ignored, since HEADRACE_ENV=production", file=sys.stderr)
        return "", 0
    point, _, number = wanted.partition(":")
    if point not in POINTS or not (number or "1").isdecimal() or int(number or 1) < 1:
        raise SystemExit(f"HEADRACE_CRASH={wanted}: expected POINT or POINT:N with one of {', '.join(POINTS)}")
    return point, int(number or 1)


_point, _left = _read(os.environ.get("HEADRACE_CRASH", ""))
_once = os.environ.get("HEADRACE_CRASH_ONCE", "")
IS_ON: Final = bool(_point)


def at(point: str) -> None:
    """This process is at that point: die if it is the one. Call it only where `IS_ON`."""
    global _left
    if point != _point:
        return
    _left -= 1
    if _left == 0 and _is_first():
        os.write(2, f"headrace: process {os.getpid()} dies at {point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def _is_first() -> bool:
    if not _once:
        return True
    try:
        file = os.open(_once, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    os.write(file, f"{_point} {os.getpid()}\n".encode())
    os.close(file)
    return True
