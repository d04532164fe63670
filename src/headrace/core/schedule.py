"""A schedule as it is stored, and what becomes of it: the next tick, which missed ones are caught up, what has changed.

Pure: whoever calls gives the server's time. `engine/schedules.py` reads and writes entries; it changes one only if nobody
else has since it was read, so that what is decided here holds.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict

import msgspec

from headrace.core.cron import check_cron, check_zone, load_zone, next_cron
from headrace.core.names import type_name
from headrace.core.options import TaskOptions
from headrace.core.record import JobOptions
from headrace.core.retry import duration_ms
from headrace.errors import UsageError

Overlap: TypeAlias = Literal["allow", "skip", "queue", "cancel"]
CatchUp: TypeAlias = Literal["skip", "one", "all"] | int

OVERLAPS: dict[str, Overlap] = {"allow": "allow", "skip": "skip", "queue": "queue", "cancel": "cancel"}
CATCH_UP_MAX = 100
LATE_MS = 60_000
"""With catch_up="skip", a tick that is later than this is dropped: a worker's restart is no outage."""
EVERY_MIN_MS = 1_000
JITTER_MAX_MS = 86_400_000
LIVE_KEPT = 100
RUNTIME = "-" * 16
"""The digest of a schedule that was added at run time: no code declares it."""
_YEAR_2200_MS = 7_258_118_400_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class ScheduleOptions(TypedDict, total=False):
    """When a schedule's jobs are made. Durations are seconds or a timedelta; instants are aware datetimes.

    `tz`: the zone of a cron expression. `start`: no tick before it; `every` counts from it (default: 1970, UTC). `end`: no
    tick at or after it. `jitter`: each job starts up to that much after its tick. `catch_up`: of the ticks that were
    missed while no worker ran, make "skip" none, "one" the last, "all" the last 100, or a number of them. `overlap`: when
    the last job has not ended at the next tick, "allow" another, "skip" the tick, "queue" one until it ends, or "cancel" it.
    """

    tz: str
    start: datetime | None
    end: datetime | None
    jitter: float | timedelta
    catch_up: CatchUp
    overlap: Overlap


class DeclareOptions(ScheduleOptions, TaskOptions, total=False):
    """What `@app.cron(...)` and `@app.every(...)` take.

    `name`: of the schedule (default: the task's). `args`, `kwargs`: of its jobs. What `@app.task(...)` takes is for the
    function that is decorated; on a task it is for the schedule's jobs only.
    """

    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class ChangeOptions(ScheduleOptions, total=False):
    """What `app.schedules.change(...)` takes."""

    cron: str
    every: float | timedelta


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When, and what: `cron` or `every_ms`, and the job that a tick makes. `catch_up`: how many of the missed ticks."""

    cron: str = ""
    every_ms: int = 0
    tz: str = "UTC"
    start_ms: int = 0
    end_ms: int = 0
    jitter_ms: int = 0
    catch_up: int = 1
    overlap: Overlap = "allow"
    task: str = ""
    payload: bytes = b""
    priority: int = 0
    at_front: bool = False
    expires_in_ms: int = 0
    deadline_in_ms: int = 0
    ties: bytes = b""
    options: JobOptions | None = None

    def timing(self) -> tuple[Any, ...]:
        """What its ticks depend on."""
        return self.cron, self.every_ms, self.tz if self.cron else "", self.start_ms, self.end_ms


WHAT = ("task", "payload", "priority", "at_front", "expires_in_ms", "deadline_in_ms", "ties", "options")
"""The fields of a Spec that say which job is made."""


class Change(msgspec.Struct, frozen=True):
    """What someone changed at run time: the fields in `names`, with their values in `spec`."""

    names: list[str]
    spec: Spec
    by: str
    at_ms: int


class Pause(msgspec.Struct, frozen=True):
    reason: str
    at_ms: int


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A schedule in Redis. Bytes 3 to 18 are the digest, which scripts read: so it is first, and 16 characters long.

    `next_ms` 0: there is no other tick. `waiting_ms`: the tick that waits for the last job's end. `live`: the ids of jobs
    that may not have ended. `is_orphan`: no running code declares it. `written`: another word each time, so that a write
    that is sent twice knows itself.
    """

    digest: str
    spec: Spec
    next_ms: int
    written: str
    made_at_ms: int
    change: Change | None = None
    pause: Pause | None = None
    last_ms: int = 0
    last_id: str = ""
    live: list[str] = []
    waiting_ms: int = 0
    fired: int = 0
    skipped: int = 0
    is_orphan: bool = False

    @property
    def now(self) -> Spec:
        """What holds: as declared, but for what was changed."""
        change = self.change
        if change is None:
            return self.spec
        return msgspec.structs.replace(self.spec, **{name: getattr(change.spec, name) for name in change.names})

    @property
    def is_declared(self) -> bool:
        return self.digest != RUNTIME

    @property
    def state(self) -> str:
        if self.is_orphan:
            return "undeclared"
        if self.pause is not None:
            return "paused"
        return "active" if self.next_ms else "ended"


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)
encode_entry = _encoder.encode


def decode_entry(data: bytes) -> Entry:
    """Read an entry.

    Raises:
        msgspec.DecodeError, msgspec.ValidationError: these bytes are none.
    """
    return _decoder.decode(data)


def digest_of(spec: Spec) -> str:
    """16 hex digits that tell one declaration from another."""
    return hashlib.sha256(_encoder.encode(spec)).hexdigest()[:16]


# -- ticks


def next_tick(spec: Spec, after_ms: int) -> int:
    """The first tick after an instant; 0 when there is none."""
    after_ms = max(after_ms, spec.start_ms - 1)
    if spec.cron:
        tick_ms = 1000 * next_cron(spec.cron, load_zone(spec.tz), after_ms // 1000)
    else:
        tick_ms = spec.start_ms + ((after_ms - spec.start_ms) // spec.every_ms + 1) * spec.every_ms
    return 0 if spec.end_ms and tick_ms >= spec.end_ms else tick_ms


def next_ticks(spec: Spec, after_ms: int, count: int) -> list[int]:
    """Up to `count` ticks after an instant."""
    ticks: list[int] = []
    while len(ticks) < count and (after_ms := next_tick(spec, after_ms)):
        ticks.append(after_ms)
    return ticks


def last_ticks(spec: Spec, first_ms: int, now_ms: int, most: int) -> list[int]:
    """The last `most` ticks from `first_ms`, a tick, to now; at a cost that does not grow with how many there were."""
    window_ms = 60_000
    while True:
        after_ms = max(first_ms - 1, now_ms - window_ms)
        ticks: list[int] = []
        at_ms = after_ms
        while (at_ms := next_tick(spec, at_ms)) and at_ms <= now_ms:
            ticks.append(at_ms)
        if len(ticks) >= most or after_ms < first_ms:
            # Another version of the zones' rules may have named the first one: it counts all the same.
            return (ticks or [first_ms])[-most:]
        window_ms *= 4


class Turn(NamedTuple):
    """What is due: the ticks to make jobs for (maybe none), and the tick after them."""

    ticks: list[int]
    next_ms: int


def turn(entry: Entry, now_ms: int) -> Turn:
    """What becomes of a schedule whose next tick has come."""
    spec = entry.now
    most = 1 if spec.overlap != "allow" else max(spec.catch_up, 1)
    ticks = last_ticks(spec, entry.next_ms, now_ms, most)
    if spec.catch_up == 0 and not entry.waiting_ms and now_ms - ticks[-1] > LATE_MS:
        ticks = []
    return Turn(ticks, next_tick(spec, now_ms))


def start_of(name: str, spec: Spec, tick_ms: int) -> int:
    """When a tick's job starts: the same whoever asks."""
    return tick_ms + zlib.crc32(f"{name} {tick_ms}".encode()) % (spec.jitter_ms + 1)


def tick_id(name: str, tick_ms: int) -> str:
    """The id of a tick's job: `cron:nightly:20261123T020000Z`."""
    return f"cron:{name}:{instant_text(tick_ms)}"


def instant_text(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{at:%Y%m%dT%H%M%S}" + (f".{at_ms % 1000:03}Z" if at_ms % 1000 else "Z")


def shown(spec: Spec, names: Collection[str] | None = None) -> dict[str, Any]:
    """A spec (or those fields of it) in the words in which users write it; the arguments are not among them."""
    every = None if not spec.every_ms else spec.every_ms / 1000
    catch_up = {0: "skip", 1: "one", CATCH_UP_MAX: "all"}.get(spec.catch_up, spec.catch_up)
    words: list[tuple[str, str, Any]] = [
        ("cron", "cron", spec.cron or None), ("every_ms", "every", every), ("tz", "tz", spec.tz if spec.cron else None),
        ("start_ms", "start", _instant(spec.start_ms)), ("end_ms", "end", _instant(spec.end_ms)),
        ("jitter_ms", "jitter", spec.jitter_ms / 1000), ("catch_up", "catch_up", catch_up),
        ("overlap", "overlap", spec.overlap), ("task", "task", spec.task), ("payload", "args", "(changed)"),
        ("priority", "priority", spec.priority),
    ]  # fmt: skip
    if names is None:
        return {word: value for field, word, value in words if field != "payload"}
    return {word: value for field, word, value in words if field in names}


def _instant(at_ms: int) -> datetime | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None


# -- changes of an entry


def retimed(entry: Entry, new: Entry, now_ms: int) -> Entry:
    """`new` with the next tick that is right for it: another only if its times are others. They count from now."""
    if new.now.timing() == entry.now.timing():
        return new
    return msgspec.structs.replace(new, next_ms=next_tick(new.now, now_ms), waiting_ms=0)


def declared_again(entry: Entry, spec: Spec, now_ms: int) -> Entry:
    """An entry for which code declares this now. What was changed at run time stays changed."""
    new = msgspec.structs.replace(entry, digest=digest_of(spec), spec=spec, is_orphan=False)
    return retimed(entry, new, now_ms)


def changed(entry: Entry, fields: Mapping[str, Any], by: str, now_ms: int) -> Entry:
    """An entry with some fields of its spec overridden, on top of those that are."""
    before = entry.change
    names = list(dict.fromkeys([*(before.names if before else ()), *fields]))
    values = {**({name: getattr(before.spec, name) for name in before.names} if before else {}), **fields}
    new = msgspec.structs.replace(entry, change=Change(names, Spec(**values), by, now_ms))
    _check_times(new.now)
    return retimed(entry, new, now_ms)


def reset(entry: Entry, now_ms: int) -> Entry:
    """An entry as it was declared, or added."""
    return retimed(entry, msgspec.structs.replace(entry, change=None), now_ms)


# -- what users write


def check_schedule_name(name: object) -> str:
    """Raises UsageError for what cannot be part of a job's id."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"schedule name {name!r:.120} is not allowed: use 1 to 100 of A-Z a-z 0-9 . _ -")
    return name


def check_schedule(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`cron` or `every` and the ScheduleOptions, as fields of a Spec.

    Raises:
        UsageError: naming what is unknown, wrong, or contradicts itself.
    """
    if given.get("cron") is not None and given.get("every") is not None:
        raise UsageError("cron and every: give one of them")
    fields: dict[str, Any] = {}
    for name, value in given.items():
        check = _CHECKS.get(name)
        if check is None:
            near = difflib.get_close_matches(name, _CHECKS, n=1, cutoff=0.6)
            guess = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(_CHECKS))}"
            raise UsageError(f"{where} has no option {name!r}; {guess}")
        fields.update(check(value))
    return fields


def new_spec(fields: Mapping[str, Any]) -> Spec:
    """A whole Spec of checked fields; raises UsageError when it could never fire."""
    spec = Spec(**fields)
    if not spec.cron and not spec.every_ms:
        raise UsageError("a schedule needs cron or every")
    _check_times(spec)
    return spec


def _check_times(spec: Spec) -> None:
    if spec.end_ms and next_tick(spec, max(spec.start_ms - 1, 0)) == 0:
        raise UsageError("end: there is no tick before it")


def _cron(value: Any) -> dict[str, Any]:
    return {} if value is None else {"cron": check_cron(value), "every_ms": 0}


def _every(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    every_ms = duration_ms("every", value)
    if every_ms < EVERY_MIN_MS:
        raise UsageError(f"every: {every_ms / 1000:g} s; at least {EVERY_MIN_MS // 1000} s")
    return {"every_ms": every_ms, "cron": ""}


def _tz(value: Any) -> dict[str, Any]:
    return {"tz": check_zone(value)}


def _start(value: Any) -> dict[str, Any]:
    return {"start_ms": _instant_ms("start", value)}


def _end(value: Any) -> dict[str, Any]:
    return {"end_ms": _instant_ms("end", value)}


def _instant_ms(name: str, value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, datetime):
        raise UsageError(f"{name}: expected an aware datetime, got a {type_name(type(value))}")
    if value.utcoffset() is None:
        raise UsageError(f"{name}: a datetime without a time zone; write datetime.now(timezone.utc) or .astimezone()")
    at_ms = round(value.timestamp() * 1000)
    if not 0 < at_ms < _YEAR_2200_MS:
        raise UsageError(f"{name}: {value.isoformat()} is not between 1970 and 2200")
    return at_ms


def _jitter(value: Any) -> dict[str, Any]:
    jitter_ms = duration_ms("jitter", value)
    if jitter_ms > JITTER_MAX_MS:
        raise UsageError("jitter: more than a day")
    return {"jitter_ms": jitter_ms}


def _catch_up(value: Any) -> dict[str, Any]:
    words = {"skip": 0, "one": 1, "all": CATCH_UP_MAX}
    if isinstance(value, str) and value in words:
        return {"catch_up": words[value]}
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= CATCH_UP_MAX:
        raise UsageError(f"catch_up: expected 'skip', 'one', 'all' or 0 to {CATCH_UP_MAX}, got {value!r:.40}")
    return {"catch_up": value}


def _overlap(value: Any) -> dict[str, Any]:
    found = OVERLAPS.get(value) if isinstance(value, str) else None
    if found is None:
        raise UsageError(f"overlap: expected one of {', '.join(map(repr, OVERLAPS))}, got {value!r:.40}")
    return {"overlap": found}


OPTIONS = ("tz", "start", "end", "jitter", "catch_up", "overlap")
_CHECKS = {
    "cron": _cron, "every": _every, "tz": _tz, "start": _start, "end": _end, "jitter": _jitter, "catch_up": _catch_up,
    "overlap": _overlap,
}  # fmt: skip
