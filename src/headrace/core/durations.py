"""Durations as people type them."""

from __future__ import annotations

import re

from headrace.errors import UsageError

_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}


def seconds_in(text: str) -> float:
    """Seconds from `10`, `1.5s`, `10m`, `2h`, `1d`, `1h30m`.

    Raises:
        UsageError
    """
    parts = _PART.findall(text)
    is_whole = "".join(number + unit for number, unit in parts) == text
    if not parts or not is_whole or (len(parts) > 1 and not all(unit for _, unit in parts)):
        raise UsageError(f"{text!r:.60} is no duration: write 10, 1.5s, 10m, 2h, 1d or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
