"""When a failed job is run again: the policy users write, and the delay it comes to.

The delay before retry `n` (1 is the first) is

    base  = delays[n - 1] while the list has it, then the last one x factor ** (n - len(delays))
    delay = min(base, max_delay) x (1 - jitter x random)          0 <= random < 1

With `jitter=1` that is "full jitter" (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015):
jobs that failed together come back spread over the whole interval. `jitter=0` gives exact delays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from headrace.core.names import type_name
from headrace.core.record import RetrySpec
from headrace.errors import UsageError

RETRIES_MAX = 1_000
DELAY_MAX_MS = 10 * 366 * 86_400_000
NO_RETRY = RetrySpec(0)


class Retry:
    """How often and how far apart a failed job is run again.

    `Retry(5)` waits up to 1, 2, 4, 8 and 16 s (a random part of it, so that jobs do not come back all at once).
    `Retry(5, delay=30, factor=1)` waits 30 s each time. `Retry([1, 5, 30])` waits just that.

    Args:
        retries: how many times after the first run (0 to 1,000), or the delays themselves.
        delay: before the first retry; seconds or a timedelta.
        factor: by which each delay is longer than the one before; 1 keeps it.
        max_delay: no delay is longer.
        jitter: the part of each delay that is left to chance, 0 to 1. 1 when delays grow, 0 when they do not.
        on: retry these exception types only (and what derives from them).
        give_up_on: never retry these; stronger than `on`.
        at_front: a job that is run again goes before those that have no priority: its own is 1 then. (Not where groups take turns.)
    """

    __slots__ = ("spec",)

    spec: RetrySpec

    def __init__(
        self,
        retries: int | Sequence[float | timedelta] = 3,
        *,
        delay: float | timedelta = 1.0,
        factor: float | None = None,
        max_delay: float | timedelta = 3600.0,
        jitter: float | None = None,
        on: type[BaseException] | Iterable[type[BaseException]] = (),
        give_up_on: type[BaseException] | Iterable[type[BaseException]] = (),
        at_front: bool = False,
    ) -> None:
        if isinstance(retries, Sequence) and not isinstance(retries, (str, bytes)):
            delays = [duration_ms("retry", item) for item in retries]
            count, growth = len(delays), 1.0 if factor is None else factor
        else:
            delays, count = [duration_ms("delay", delay)], _count(retries)
            growth = 2.0 if factor is None else factor
        growth = _number("factor", growth, 1.0, 100.0)
        spread = (1.0 if growth > 1 else 0.0) if jitter is None else _number("jitter", jitter, 0.0, 1.0)
        self.spec = RetrySpec(
            retries=count,
            delays_ms=delays,
            factor=growth,
            max_delay_ms=max(duration_ms("max_delay", max_delay), max(delays, default=0) if growth == 1 else 0),
            jitter=spread,
            on=_type_names("on", on),
            give_up_on=_type_names("give_up_on", give_up_on),
            at_front=bool(at_front),
        )

    def __repr__(self) -> str:
        return f"Retry({self.spec.retries}, delays_ms={self.spec.delays_ms}, factor={self.spec.factor:g})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Retry) and other.spec == self.spec

    def __hash__(self) -> int:
        return hash(repr(self))


def delay_ms(spec: RetrySpec, attempt: int, random: Callable[[], float]) -> int:
    """Milliseconds to wait after `attempt` (1 is the first run) has failed; the formula is in this file's docstring."""
    if not spec.delays_ms:
        return 0
    beyond = attempt - len(spec.delays_ms)
    if beyond <= 0:
        base = float(spec.delays_ms[max(attempt, 1) - 1])
    else:
        # A float power overflows near 1e308; the longest delay is far below.
        exponent = min(beyond * math.log2(max(spec.factor, 1.0)), 64.0)
        base = spec.delays_ms[-1] * 2.0**exponent
    base = min(base, float(spec.max_delay_ms or DELAY_MAX_MS))
    return round(base * (1.0 - spec.jitter * random()))


def is_retryable(spec: RetrySpec, type_names: Sequence[str]) -> bool:
    """Whether the policy covers an exception, told by the names of its type and of that type's bases."""
    if any(name in spec.give_up_on for name in type_names):
        return False
    return not spec.on or any(name in spec.on for name in type_names)


def retry_spec(value: object) -> RetrySpec:
    """What a user gave as `retry`: a count or a Retry."""
    if isinstance(value, Retry):
        return value.spec
    if isinstance(value, int) and not isinstance(value, bool):
        return Retry(value).spec if value else NO_RETRY
    raise UsageError(f"retry: expected a number of retries or a Retry, got {_kind(value)}")


def duration_ms(name: str, value: object) -> int:
    """A duration a user gave, seconds or a timedelta, as milliseconds: 0 to 10 years."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value
    else:
        raise UsageError(f"{name}: expected seconds or a timedelta, got {_kind(value)}")
    if not 0 <= seconds <= DELAY_MAX_MS / 1000:  # NaN is not, either
        raise UsageError(f"{name}: {seconds:g} s is outside 0 to 10 years")
    return round(seconds * 1000)


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type_name(type(value))}"


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"retries: expected a whole number or a list of delays, got {_kind(value)}")
    if not 0 <= value <= RETRIES_MAX:
        raise UsageError(f"retries: {value} is outside 0 to {RETRIES_MAX}")
    return value


def _number(name: str, value: object, low: float, high: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UsageError(f"{name}: expected a number, got {_kind(value)}")
    if not low <= value <= high:
        raise UsageError(f"{name}: {value:g} is outside {low:g} to {high:g}")
    return float(value)


def _type_names(name: str, types: object) -> list[str]:
    given: list[object] = (
        [types] if isinstance(types, type) else list(types) if isinstance(types, Iterable) else [types]
    )
    for item in given:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise UsageError(f"{name}: expected exception types, got {item!r:.80}")
    return [type_name(item) for item in given if isinstance(item, type)]
