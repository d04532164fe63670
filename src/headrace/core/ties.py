"""What may hang on a job: a unique key, limits, a group. What users write, and the map that the scripts read.

`engine/lua/include/ties.lua` is the other half of this contract.
"""

from __future__ import annotations

import hashlib
import math
import re
import string
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeAlias

import msgspec

from headrace.core.names import type_name
from headrace.core.retry import duration_ms
from headrace.errors import UsageError

Conflict: TypeAlias = Literal["existing", "raise", "replace", "debounce"]

NAME_CHARS_MAX = 200
_CONFLICTS = ("existing", "raise", "replace", "debounce")
_UNITS_MS = {"s": 1_000, "sec": 1_000, "second": 1_000, "m": 60_000, "min": 60_000, "minute": 60_000}
_UNITS_MS |= {"h": 3_600_000, "hour": 3_600_000, "d": 86_400_000, "day": 86_400_000, "ms": 1}
_RATE = re.compile(r"(\d+(?:\.\d+)?) */ *(\d+(?:\.\d+)?)? *([a-z]+)")
_formatter = string.Formatter()


class Unique(msgspec.Struct, frozen=True):
    """Which jobs count as the same, for how long, and what becomes of a second one. What `unique=` of a task is made into.

    Args:
        by: True: the same task with the same arguments; an argument's name, or several; or a key of your own, a template
            with `{argument}` in it (or a `:`), which other tasks of the queue may share.
        until: the key is free again at the job's "finish", whatever way it ends; at its first "start"; or after so many
            seconds (or a timedelta), whatever becomes of the job.
        on_conflict: "existing" gives the job that is there; "raise" raises DuplicateJob; "replace" gives the waiting job
            the new arguments; "debounce" does so and puts it off by the new call's delay. The last two are free again at the
            start: else what comes while the job runs would be lost.

    Raises:
        UsageError: a word that is none of these.
    """

    by: bool | str | Sequence[str] = True
    until: str | float | timedelta | None = None
    on_conflict: Conflict = "existing"

    def __post_init__(self) -> None:
        _check_by(self.by)
        if self.on_conflict not in _CONFLICTS:
            raise UsageError(f"on_conflict: expected one of {', '.join(_CONFLICTS)}, got {self.on_conflict!r:.40}")
        if isinstance(self.until, str) and self.until not in ("start", "finish"):
            raise UsageError(f"until: expected 'start', 'finish' or seconds, got {self.until!r:.40}")
        if self.on_conflict in ("replace", "debounce") and self.until not in (None, "start"):
            raise UsageError(
                f"on_conflict={self.on_conflict!r} goes with until='start': else what comes while the job runs is lost"
            )
        if self.kept_ms == 0:
            raise UsageError("until: after 0 s nothing would be unique")

    @property
    def kept_ms(self) -> int | None:
        """How long the key is kept, when that does not depend on the job."""
        return None if self.until is None or isinstance(self.until, str) else duration_ms("until", self.until)

    @property
    def is_freed_at_start(self) -> bool:
        return self.until == "start" or (self.until is None and self.on_conflict in ("replace", "debounce"))

    def key(self, task: str, arguments: Mapping[str, Any]) -> str:
        """The key for these arguments, by name.

        Raises:
            UsageError: an argument it names is not there.
        """
        if isinstance(self.by, str) and _is_template(self.by):
            return fill("unique", self.by, arguments)
        names = sorted(arguments) if self.by is True else [self.by] if isinstance(self.by, str) else list(self.by or ())
        parts = [(name, _argument("unique", name, arguments)) for name in names]
        digest = hashlib.blake2b(msgspec.msgpack.encode(parts, enc_hook=str, order="deterministic"), digest_size=16)
        return f"{task}({digest.hexdigest()})"


class Limit(msgspec.Struct, frozen=True):
    """How many jobs may run at once, or may start in a time. Several tasks of a queue share a limit by its name.

    A job over a limit waits parked, in order: it takes no slot of a worker, and burns no attempt. A limit counts within one
    queue.

    Args:
        name: of the limit: a template may name arguments, and each value then has a limit of its own: "stripe:{account}".
        rate: "100/min", "5/s", "10/30s": evenly spread; `burst` says how many may come at once. Never more than
            rate + burst - 1 start within the time that the rate names.
        concurrency: how many run at once. The slots of a worker that dies come back with its jobs.
        cost: of one job of this task, in units of the rate; at most the burst.
        until: a job has its slot until the "attempt" is over; or until its "finish", also between its runs while it is
            retried or put off: with concurrency=1, jobs are then done with strictly one after the other.

    Raises:
        UsageError: neither rate nor concurrency, or one that cannot be; a cost over the burst.
    """

    name: str
    rate: str | None = None
    concurrency: int | None = None
    burst: int = 1
    cost: float = 1
    until: Literal["attempt", "finish"] = "attempt"

    def __post_init__(self) -> None:
        check_name("Limit", self.name)
        if self.rate is None and self.concurrency is None:
            raise UsageError(f"Limit({self.name!r}): give rate, concurrency, or both")
        rule(self.rate, self.concurrency, self.burst)
        if isinstance(self.cost, bool) or not isinstance(self.cost, (int, float)) or not 0 < self.cost <= 1e9:
            raise UsageError(f"cost: expected a number above 0, got {self.cost!r:.40}")
        if self.rate is not None and self.cost > self.burst:
            raise UsageError(
                f"Limit({self.name!r}): a cost of {self.cost:g} is over the burst of {self.burst}; set burst={math.ceil(self.cost)} "
                "or more"
            )
        if self.until not in ("attempt", "finish"):
            raise UsageError(f"until: expected 'attempt' or 'finish', got {self.until!r:.40}")
        if self.until == "finish" and self.concurrency is None:
            raise UsageError(f"Limit({self.name!r}): until='finish' keeps a slot, so give concurrency")


class Group(msgspec.Struct, frozen=True):
    """Jobs that take turns with other groups of their queue. A group of weight 3 has three turns for another's one.

    Args:
        name: a template may name arguments: "tenant-{tenant}".
        weight: 0.01 to 100.
    """

    name: str
    weight: float = 1

    def __post_init__(self) -> None:
        check_name("Group", self.name)
        if isinstance(self.weight, bool) or not isinstance(self.weight, (int, float)) or not 0.01 <= self.weight <= 100:
            raise UsageError(f"weight: expected a number from 0.01 to 100, got {self.weight!r:.40}")


def rule(rate: str | None, concurrency: int | None, burst: int = 1) -> dict[str, Any]:
    """What the scripts need of a limit: r jobs per p ms, b burst, c at once.

    Raises:
        UsageError: naming what is wrong.
    """
    found: dict[str, Any] = {}
    if rate is not None:
        found["r"], found["p"] = read_rate(rate)
        found["b"] = _whole("burst", burst)
    if concurrency is not None:
        found["c"] = _whole("concurrency", concurrency)
    return found


def read_rate(text: str) -> tuple[float, int]:
    """A rate as (jobs, in so many ms): "100/min" is (100, 60_000)."""
    match = _RATE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    unit = _UNITS_MS.get(match[3]) or _UNITS_MS.get(match[3].removesuffix("s")) if match else None
    if match is None or unit is None or not float(match[1]) or (match[2] and not float(match[2])):
        raise UsageError(f"rate: expected a text like '100/min', '5/s' or '10/30s', got {text!r:.40}")
    return float(match[1]), math.ceil(float(match[2] or 1) * unit)


def check_name(what: str, name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise UsageError(f"{what}: expected a name of 1 to {NAME_CHARS_MAX} printable characters, got {name!r:.60}")
    return name


def fill(what: str, template: str, arguments: Mapping[str, Any]) -> str:
    """A template with arguments put in.

    Raises:
        UsageError: it names an argument that is not there, or is no template.
    """
    if "{" not in template and "}" not in template:
        return template
    try:
        text = _formatter.vformat(template, (), _Arguments(what, arguments))
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise UsageError(f"{what}: {template!r} cannot be filled in: {error}") from None
    if len(text) > NAME_CHARS_MAX:
        return text[:100] + hashlib.blake2b(text.encode("utf8", "replace"), digest_size=16).hexdigest()
    return text


class _Arguments(dict[str, Any]):
    def __init__(self, what: str, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments)
        self._what = what

    def __missing__(self, name: str) -> Any:
        return _argument(self._what, name, self)


def _argument(what: str, name: str, arguments: Mapping[str, Any]) -> Any:
    if name not in arguments:
        there = ", ".join(arguments) or "none"
        raise UsageError(f"{what}: there is no argument {name!r}; there are: {there}")
    return arguments[name]


def names_in(template: str) -> list[str]:
    """The arguments that a template names."""
    try:
        fields = [field for _, field, _, _ in _formatter.parse(template) if field is not None]
    except ValueError as error:
        raise UsageError(f"{template!r} is no template: {error}") from None
    return [re.split(r"[.\[]", field, maxsplit=1)[0] for field in fields]


def _is_template(text: str) -> bool:
    return "{" in text or ":" in text


def _check_by(by: Any) -> None:
    if by is True:
        return
    if isinstance(by, str):
        check_name("unique", by)
        names_in(by)
        return
    if not isinstance(by, Sequence) or not by or not all(isinstance(name, str) for name in by):
        raise UsageError(f"unique: expected True, an argument's name, several, or a key, got {by!r:.60}")


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
        raise UsageError(f"{name}: expected a whole number, 1 to 1,000,000, got {value!r:.40}")
    return value


class Ties(msgspec.Struct, frozen=True):
    """What hangs on the jobs of a task, as declared."""

    unique: Unique | None = None
    limits: tuple[Limit, ...] = ()
    group: Group | None = None

    def of(self, task: str, arguments: Mapping[str, Any]) -> bytes:
        """What hangs on one job, for the scripts: a msgpack map."""
        found: dict[str, Any] = {}
        if self.group is not None:
            found["g"] = fill("group", self.group.name, arguments)
            if self.group.weight != 1:
                found["w"] = self.group.weight
        if self.unique is not None:
            found["u"] = self.unique.key(task, arguments)
            if self.unique.is_freed_at_start:
                found["s"] = True
            if self.unique.kept_ms is not None:
                found["m"] = self.unique.kept_ms
        if self.limits:
            found["l"] = [_limit_of(limit, arguments) for limit in self.limits]
        return msgspec.msgpack.encode(found)


def _limit_of(limit: Limit, arguments: Mapping[str, Any]) -> dict[str, Any]:
    name = fill("limits", limit.name, arguments)
    kept = {"f": True} if limit.until == "finish" else {}
    return {"n": name, "t": limit.name, "k": limit.cost, **kept, **rule(limit.rate, limit.concurrency, limit.burst)}


def limits_in(packed: bytes | None) -> list[dict[str, Any]]:
    """The limits of a job's ties, as they are stored."""
    return [] if packed is None else msgspec.msgpack.decode(packed).get("l", [])


def weighs(packed: bytes | None) -> bool:
    """Whether a claim must look at these ties, as they are stored: `weigh` of lua/include/ties.lua says it to the scripts."""
    return packed is not None and not {"l", "s", "i", "v"}.isdisjoint(msgspec.msgpack.decode(packed))


def group_in(packed: bytes | None) -> str | None:
    """The group of a job's ties, as they are stored."""
    return None if packed is None else msgspec.msgpack.decode(packed).get("g")


def unique_in(packed: bytes | None) -> str | None:
    """The unique key of a job's ties, as they are stored."""
    return None if packed is None else msgspec.msgpack.decode(packed).get("u")


def parents_in(packed: bytes | None) -> list[tuple[str, str]]:
    """Queue and id of the jobs that a job's ties, as they are stored, say it depends on; those of a flow's step are not there."""
    return [] if packed is None else [(parent[0], parent[1]) for parent in msgspec.msgpack.decode(packed).get("o", [])]


def reads_inputs(packed: bytes | None) -> bool:
    """Whether a job with these ties takes arguments from the results of others."""
    return packed is not None and bool(msgspec.msgpack.decode(packed).get("i"))


def ties_of_clone(packed: bytes | None) -> bytes:
    """Of a job's ties those that hold for one like it, too: its limits and its group."""
    if packed is None:
        return b""
    kept = {name: value for name, value in msgspec.msgpack.decode(packed).items() if name in ("g", "w", "l")}
    return msgspec.msgpack.encode(kept) if kept else b""


def edges_in(packed: bytes | None, most: int = 100) -> list[tuple[str, str]]:
    """Queue ("": the job's own) and id of the jobs that wait for this one, as its ties say; of many the first."""
    found: list[tuple[str, str]] = []
    for edge in [] if packed is None else msgspec.msgpack.decode(packed).get("e", []):
        many = [f"{edge['c']}{n}" for n in range(edge.get("k") or 0)]
        found += [(edge.get("q", ""), child) for child in many or [edge["c"]]]
    return found[:most]


def find_limit(limits: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """The one of this name or template; raises UsageError."""
    for limit in limits:
        if name in (limit["n"], limit["t"]):
            return limit
    there = ", ".join(limit["n"] for limit in limits) or "none"
    raise UsageError(f"this job has no limit {name!r:.80}; it has: {there}")


def read_unique(value: Any) -> Unique | None:
    """`unique=` as written: None or False for none."""
    if value is None or value is False:
        return None
    return value if isinstance(value, Unique) else Unique(value)


def read_limits(value: Any) -> tuple[Limit, ...]:
    """`limits=` as written: one, several, or None."""
    found = (value,) if isinstance(value, Limit) else tuple(value or ())
    for limit in found:
        if not isinstance(limit, Limit):
            raise UsageError(f"limits: expected Limit(...) or a list of them, got a {type_name(type(limit))}")
    if len({limit.name for limit in found}) < len(found) or len(found) > 8:
        raise UsageError("limits: at most 8, each of another name")
    return found


def read_group(value: Any) -> Group | None:
    """`group=` as written: a name, a Group, or None."""
    return value if value is None or isinstance(value, Group) else Group(value)
