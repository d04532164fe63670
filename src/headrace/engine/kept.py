"""What is kept beside a job's record, as Calls: the items it yields, the lines it says, who reads them along, and notes of it.

Items and lines are Redis streams, so that readers block in the server until there is more, and see each entry once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

from headrace.core.record import Stored
from headrace.engine.call import Arg, Call, command, script
from headrace.engine.keys import QueueKeys
from headrace.engine.ops import LAYOUT_ARG
from headrace.errors import ResultTimeout, ServerBusy, ServerUnreachable

LINES_MAX, LINE_BYTES_MAX, RUNS_MAX = 200, 64 << 10, 10
"""Of each of the last 10 runs of a job, the last 200 lines, 64 KB at most."""
ENTRIES_A_READ = 256
WAIT_S = 5.0
"""One blocking read lasts this long at most; then the job is looked at again: a server that lost its newest data has
forgotten who reads along."""


class WritingRun(NamedTuple):
    """One run of a job. `sessions`: the one that holds it, and the name that one takes next, as it may have just now."""

    job_id: str
    fence: int
    sessions: tuple[str, str]


class Entry(NamedTuple):
    """`number` and `part` are the halves of its id; `fields`: {b"e": state byte} tells of an end."""

    number: int
    part: int
    fields: dict[bytes, bytes]

    @property
    def id(self) -> str:
        return f"{self.number}-{self.part}"


class Ask(NamedTuple):
    """A call to be sent; `block_s`: it blocks, for that long at most."""

    call: Call[Any]
    block_s: float = 0.0


Reading = Generator["Ask | list[Entry]", Any, "bytes | None"]
"""What to send, and what has come, until the job has ended: its ended record; None: it succeeded, and no record is kept."""


def add_items(queue: QueueKeys, run: WritingRun, first: int, items: Sequence[bytes], most: int) -> Call[bool]:
    """Keep what a job has yielded, from item `first` on, those that are kept already passed over; of all of them the last `most`.

    Returns (when sent):
        False: the run was taken over; nothing was written.
    """
    found = script("stream")
    args: list[Arg] = [LAYOUT_ARG, run.job_id, *run.sessions, run.fence, most, first, *items]
    return Call(found, queue.block(found.keys), args, bool)


def add_lines(queue: QueueKeys, run: WritingRun, attempt: int, lines: Sequence[tuple[int, bytes]]) -> Call[bool]:
    """Keep what a run has said, each line with its Unix ms; False (when sent): it was taken over, and nothing was written."""
    found = script("lines")
    args: list[Arg] = [LAYOUT_ARG, run.job_id, *run.sessions, run.fence, attempt, LINES_MAX, LINE_BYTES_MAX, RUNS_MAX]
    return Call(found, queue.block(found.keys), [*args, *(word for line in lines for word in line)], bool)


def all_lines(queue: QueueKeys, job_id: str) -> Call[list[Entry]]:
    """Every line that is kept of a job."""
    key = queue.lines(job_id)
    return command("XRANGE", key, "-", "+", key=key, decode=_entries)


def read_along(queue: QueueKeys, job_id: str, key: bytes, after: str, timeout_s: float | None) -> Reading:
    """Read one of a job's streams (`key`) to the job's end.

    Raises:
        JobNotFound: it is not there, or no longer.
        ResultTimeout: nothing came for `timeout_s`.
    """
    token = "s" if key == queue.stream(job_id) else "l"
    found = script("follow")
    came_s = time.monotonic()
    while True:
        ended: bytes | None = yield Ask(
            Call(found, queue.block(found.keys), [LAYOUT_ARG, job_id, token], lambda reply: reply)
        )
        is_told = False
        while not is_told:
            left_s = WAIT_S if timeout_s is None else min(WAIT_S, came_s + timeout_s - time.monotonic())
            block_s = 0.0 if ended is not None else max(left_s, 0.001)
            try:
                entries: list[Entry] = yield Ask(_read(key, after, block_s), block_s)
            except (ServerUnreachable, ServerBusy):
                break
            for entry in entries:
                if entry.fields.get(b"e") == bytes([Stored.SUCCEEDED]) and ended is None:
                    is_told = True
                after = entry.id
            told = [entry for entry in entries if b"e" not in entry.fields]
            if told:
                came_s = time.monotonic()
                yield told
            if not entries:
                if ended is not None:
                    return ended
                if timeout_s is not None and time.monotonic() >= came_s + timeout_s:
                    raise ResultTimeout(f"job {job_id}: nothing came in {timeout_s:g} s; it goes on")
                break
            if len(told) < len(entries):
                break
        if is_told:
            gone: bytes | None = yield Ask(
                command("HGET", queue.jobs, job_id, key=queue.jobs, decode=lambda reply: reply)
            )
            if gone is None:
                return None


def _read(key: bytes, after: str, block_s: float) -> Call[list[Entry]]:
    blocking: tuple[Arg, ...] = ("BLOCK", max(1, int(block_s * 1000))) if block_s else ()
    return command("XREAD", "COUNT", ENTRIES_A_READ, *blocking, "STREAMS", key, after, key=key, decode=_read_entries)


def _read_entries(reply: list[Any] | None) -> list[Entry]:
    return _entries(reply[0][1]) if reply else []


def _entries(reply: list[Any]) -> list[Entry]:
    found = []
    for name, fields in reply:
        number, _, part = name.decode().partition("-")
        found.append(Entry(int(number), int(part), dict(zip(fields[::2], fields[1::2], strict=True))))
    return found


def note(queue: QueueKeys, job_id: str, values: Mapping[str, bytes]) -> Call[bool]:
    """Keep what somebody says of a job beside it, whatever it does; b"" takes a note away. False: there is no such job."""
    found = script("note")
    words: list[Arg] = []
    for name, value in values.items():
        words += (name, value)
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, job_id, *words], bool)


def notes(queue: QueueKeys, job_id: str) -> Call[dict[str, bytes]]:
    """What `note` keeps of a job."""
    key = queue.notes(job_id)
    return command("HGETALL", key, key=key, decode=_pairs)


def _pairs(reply: Any) -> dict[str, bytes]:
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): value for name, value in pairs}
