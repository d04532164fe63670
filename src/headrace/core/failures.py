"""What a failed job died of, and which failures are alike."""

from __future__ import annotations

import hashlib
import re

from headrace.core.record import Record

_VARIES = re.compile(r"0x[0-9a-fA-F]+|\d+|'[^']*'|\"[^\"]*\"")


def error_of(record: Record) -> tuple[str, str]:
    """Type and message of what a failed job died of."""
    last = record.errors[-1] if record.errors else None
    # The reason repeats the last error, unless something else ended the job after it.
    if last is not None and (record.reason is None or record.reason.startswith(last.type)):
        return last.type, last.message
    if record.reason is not None:
        return "WorkerLost", record.reason
    return "", record.note or ""


def fingerprint(record: Record) -> str:
    """Eight hex digits that failures of one cause share: task, error type, message without numbers and quotes."""
    kind, message = error_of(record)
    text = f"{record.task}\0{kind}\0{_VARIES.sub('#', message)}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]
