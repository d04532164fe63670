"""What became of the jobs of a queue, minute by minute: workers add to it, and anyone reads it at a cost that does not depend on how many jobs there were.

Kept: minutes for a day, hours for 30 days, days for a year; each is a map of tasks to sums (`core.tally`), at most 100 tasks.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

import msgspec

from headrace.core.tally import Sums, add
from headrace.engine.admin import server_time_ms
from headrace.engine.call import Arg, Call, Steps, command, script
from headrace.engine.keys import QueueKeys
from headrace.engine.ops import LAYOUT_ARG

QUEUE = ""
"""What stands for the queue itself among the tasks: how its totals grew."""
OTHERS = "*"
MOST_ROWS_A_CALL = 200


class Unit(enum.Enum):
    """The widths of buckets: (key, ms, how many are kept)."""

    MINUTE = ("minutes", 60_000, 1_440)
    HOUR = ("hours", 3_600_000, 720)
    DAY = ("days", 86_400_000, 366)

    @property
    def key(self) -> str:
        return self.value[0]

    @property
    def ms(self) -> int:
        return self.value[1]

    @property
    def kept(self) -> int:
        return self.value[2]


class Added(msgspec.Struct, frozen=True):
    """What a worker counted of one task within one minute, which ended that many minutes ago."""

    ago_min: int
    task: str
    sums: Sums


class Bucket(msgspec.Struct, frozen=True):
    """One span of time. `tasks`: sums by task; "" is the queue (enqueued, succeeded, failed, retried, …), "*" the tasks past the hundredth."""

    at_ms: int
    tasks: dict[str, Sums]

    @property
    def queue(self) -> Sums:
        return self.tasks.get(QUEUE, {})

    @property
    def all_tasks(self) -> Sums:
        """The sums of all tasks together."""
        found: Sums = {}
        for task, sums in self.tasks.items():
            if task != QUEUE:
                add(found, sums)
        return found


class History(msgspec.Struct, frozen=True):
    """Buckets without a gap, oldest first; the last one is still being filled."""

    queue: str
    unit: str
    width_ms: int
    server_ms: int
    buckets: list[Bucket]


_decode = msgspec.msgpack.Decoder(dict[str, dict[str, int]]).decode
_encode = msgspec.msgpack.Encoder().encode


def _read(data: bytes | None) -> dict[str, Sums]:
    # An empty table of Lua comes back as an empty array.
    return _decode(data) if data and data != b"\x90" else {}


def tally(queue: QueueKeys, added: Iterable[Added] = ()) -> Call[int]:
    """Add what was counted, and what the queue's totals have grown by; how many buckets were written.

    Not to be sent again after a lost reply: it would count twice.
    """
    found = script("tally")
    args: list[Arg] = [LAYOUT_ARG]
    for one in added:
        args += (one.ago_min, one.task, _encode(one.sums))
    return Call(found, queue.block(found.keys), args, int)


def read_history(queue: QueueKeys, unit: Unit, count: int) -> Steps[History]:
    """The last `count` buckets, with that which is being filled."""
    key: bytes = getattr(queue, unit.key)
    server_ms: int = yield server_time_ms(key)
    last = server_ms // unit.ms
    numbers = range(last - min(count, unit.kept) + 1, last + 1)
    cells: list[bytes | None] = yield command("HMGET", key, *numbers, key=key, decode=list)
    buckets = [Bucket(number * unit.ms, _read(cell)) for number, cell in zip(numbers, cells, strict=True)]
    return History(queue.name, unit.key, unit.ms, server_ms, buckets)


def read_totals(queue: QueueKeys) -> Call[dict[str, Sums]]:
    """The sums of each task since the queue began: they only grow."""

    def decode(reply: Any) -> dict[str, Sums]:
        return _read(reply)

    return command("HGET", queue.days, "all", key=queue.days, decode=decode)
