"""What an attempt's end does to its job."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import Retry
from headrace.core.names import type_names
from headrace.core.outcome import (
    ERROR_BYTES_MAX,
    KEEP_CANCELLED_MS,
    KEEP_FAILED_MS,
    BadPayload,
    Cancelled,
    End,
    Raised,
    Released,
    Succeeded,
    TimedOut,
    UnknownTask,
    decide,
    describe_exception,
)
from headrace.core.record import ERRORS_KEPT, AttemptError, JobOptions, Record, RetrySpec, Stored, decode, encode

PAYLOAD = msgspec.Raw(msgspec.msgpack.encode(([1],)))
NOW_MS = 1_700_000_000_000


def record(attempt: int = 0) -> Record:
    return Record(1, Stored.LIVE, 0, 0, "app.task", PAYLOAD, NOW_MS - 1_000, attempt=attempt)


def raised(exc: Exception, retry_in_ms: int | None = None) -> Raised:
    return Raised(type_names(type(exc)), describe_exception(exc, 1, NOW_MS), retry_in_ms)


def decided(end: End, retry: RetrySpec | None = None, ttl: int = 60_000, attempt: int = 0):  # type: ignore[no-untyped-def]
    return decide(record(attempt), end, retry=retry, result_ttl_ms=ttl, now_ms=NOW_MS, random=lambda: 0.0)


def test_a_success_keeps_its_result_for_its_time() -> None:
    """Succeeded, attempt charged, result in the record."""
    found = decided(Succeeded(b"\x05"))
    assert (found.kind, found.keep_ms, found.record.state) == ("s", 60_000, Stored.SUCCEEDED)
    assert (found.record.attempt, found.record.result, found.record.ended_at_ms) == (1, b"\x05", NOW_MS)


def test_a_result_that_cannot_be_kept_is_still_a_success() -> None:
    """Its note says why."""
    found = decided(Succeeded(None, "too large"))
    assert (found.kind, found.record.note, found.record.result) == ("s", "too large", None)


def test_no_ttl_drops_the_job() -> None:
    """The record is made all the same, for who waits."""
    found = decided(Succeeded(b"\x05"), ttl=0)
    assert (found.kind, found.record.result) == ("d", b"\x05")


def test_an_error_without_a_policy_fails_the_job() -> None:
    """Failed, kept for 30 days, reason in one line."""
    found = decided(raised(ValueError("no\nway")))
    assert (found.kind, found.keep_ms, found.record.reason) == ("f", KEEP_FAILED_MS, "ValueError: no")
    assert found.record.errors is not None and found.record.errors[0].message == "no\nway"


def test_an_error_is_retried_while_the_policy_allows() -> None:
    """Two retries are three attempts."""
    policy = Retry(2, delay=5, jitter=0).spec
    kinds = [decided(raised(ValueError()), policy, attempt=n) for n in range(3)]
    assert [found.kind for found in kinds] == ["r", "r", "f"]
    assert [found.delay_ms for found in kinds] == [5_000, 10_000, 0]
    assert [found.record.attempt for found in kinds] == [1, 2, 3]


def test_the_last_errors_are_kept() -> None:
    """A job that is tried a thousand times does not grow."""
    policy = Retry(1_000, delay=0).spec
    told = [AttemptError(n, "ValueError", str(n)) for n in range(1, ERRORS_KEPT + 6)]
    found = record()
    for error in told:
        end = Raised(["ValueError", "Exception"], error)
        found = decide(found, end, retry=policy, result_ttl_ms=0, now_ms=NOW_MS, random=lambda: 0.0).record
    assert found.errors == told[-ERRORS_KEPT:]


def test_a_type_the_policy_leaves_out_fails_at_once() -> None:
    """`on=` names what is worth another run."""
    assert decided(raised(ValueError()), Retry(5, on=OSError).spec).kind == "f"
    assert decided(raised(ConnectionError()), Retry(5, on=OSError).spec).kind == "r"


def test_a_timeout_is_an_error_like_others() -> None:
    """It is retried by the policy, and can be named in it."""
    error = AttemptError(1, "headrace.errors.JobTimeout", "too long")
    assert decided(TimedOut(error)).kind == "f"
    assert decided(TimedOut(error), Retry(1).spec).kind == "r"
    assert decided(TimedOut(error), Retry(1, give_up_on=TimeoutError).spec).kind == "r"


def test_retry_in_is_granted_without_a_policy_and_counted_with_one() -> None:
    """The job asks for it; only a policy's count can refuse."""
    asked = raised(ValueError(), retry_in_ms=30_000)
    assert (decided(asked, attempt=99).kind, decided(asked).delay_ms) == ("r", 30_000)
    assert decided(asked, Retry(1, on=OSError).spec).kind == "r"
    assert decided(asked, Retry(1).spec, attempt=1).kind == "f"


def test_retry_in_that_does_not_count_is_always_granted_and_charges_nothing() -> None:
    """Put off for the hundredth time, past its last retry: it waits on, with the reason."""
    put_off = Raised(type_names(ValueError), describe_exception(ValueError("quiet hours"), 1, NOW_MS), 30_000, False)
    for policy in (None, Retry(1).spec):
        decision = decided(put_off, policy, attempt=99)
        assert (decision.kind, decision.delay_ms, decision.record.attempt) == ("r", 30_000, 99)
        assert decision.record.note == "quiet hours" and not decision.record.errors


def test_what_the_job_did_not_do_is_not_charged() -> None:
    """Release, cancel and an unknown task leave the attempts as they are."""
    released = decided(Released(), attempt=2)
    assert (released.kind, released.record) == ("l", record(2))
    cancelled = decided(Cancelled(), attempt=2)
    assert (cancelled.kind, cancelled.record.attempt, cancelled.keep_ms) == ("c", 2, KEEP_CANCELLED_MS)
    parked = decided(UnknownTask("app.gone"), attempt=2)
    assert (parked.kind, parked.record.attempt, parked.record.state) == ("p", 2, Stored.LIVE)
    assert parked.delay_ms >= 5_000 and "app.gone" in (parked.record.note or "")


def test_arguments_that_cannot_be_read_fail_without_retries() -> None:
    """No other run would read them better."""
    assert decided(BadPayload("not msgpack"), Retry(5).spec).kind == "f"


ENDS = st.one_of(
    st.just(Released()),
    st.just(Cancelled()),
    st.builds(UnknownTask, st.text()),
    st.builds(BadPayload, st.text(max_size=200)),
    st.builds(Succeeded, st.one_of(st.none(), st.just(b"\xc0")), st.none()),
    st.builds(
        lambda message, asked: Raised(["ValueError", "Exception"], AttemptError(1, "ValueError", message), asked),
        st.text(max_size=200).filter(lambda text: text.isprintable()),
        st.one_of(st.none(), st.integers(0, 10**6)),
    ),
)
POLICIES = st.one_of(st.none(), st.integers(0, 30).map(lambda count: Retry(count).spec))


@given(st.lists(ENDS, max_size=60), POLICIES, st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_job_never_breaks_its_bounds(ends: list[End], retry: RetrySpec | None, ttl: int, chance: float) -> None:
    """Over any history: attempts within the policy, errors bounded, a reason only at an end, all storable."""
    now = record()
    for end in ends:
        before = encode(now)
        found = decide(now, end, retry=retry, result_ttl_ms=ttl, now_ms=NOW_MS, random=lambda: chance)
        assert encode(now) == before
        new = decode(encode(found.record))
        assert len(new.errors or []) <= ERRORS_KEPT
        assert retry is None or new.attempt <= retry.retries + 1
        assert (new.state == Stored.LIVE) == (found.kind in "rpl")
        assert new.state != Stored.LIVE or (new.reason is None and new.ended_at_ms == 0)
        assert found.delay_ms >= 0 and (found.keep_ms > 0) == (found.kind in "sfc")
        if new.state != Stored.LIVE:
            break
        now = new


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def deep(depth: int) -> None:
    if depth:
        deep(depth - 1)
    raise ValueError("at the bottom")


def cyclic() -> Exception:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def nested_group() -> Exception:
    group: Exception = ValueError("core")
    for _ in range(2_000):
        group = ExceptionGroup("layer", [group])
    return group


@pytest.mark.parametrize(
    "exc",
    [
        Silent(),
        cyclic(),
        nested_group(),
        ExceptionGroup("many", [ValueError(str(n)) for n in range(5_000)]),
        ValueError("x" * 10_000_000),
        ValueError("\ud800 lone"),
        ValueError("é" * 100_000),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        type("Long" * 10_000, (Exception,), {})("named at length"),
    ],
    ids=lambda exc: type(exc).__name__[:20],
)
def test_any_exception_can_be_told_within_64_kib(exc: BaseException) -> None:
    """However broken, deep or large it is, what is told of it is bounded and can be stored."""
    try:
        raise exc
    except BaseException as caught:
        error = describe_exception(caught, 1, NOW_MS)
    assert len(msgspec.msgpack.encode(error)) <= ERROR_BYTES_MAX
    assert error.type and error.at_ms == NOW_MS


def test_a_traceback_begins_with_the_users_code_also_in_a_thread_of_a_pool() -> None:
    """As a `def` task runs in the pool asyncio: who reads the error sees no frame of what ran it."""
    with ThreadPoolExecutor(1) as threads:
        error = threads.submit(deep, 1).exception()
    assert error is not None
    files = re.findall(r'File "(.*?)"', describe_exception(error, 1, NOW_MS).traceback)
    assert {__file__} == set(files)


def test_a_deep_traceback_keeps_its_bottom() -> None:
    """Where it was raised is what matters."""
    try:
        deep(900)
    except ValueError as caught:
        error = describe_exception(caught, 2, NOW_MS)
    assert "at the bottom" in error.traceback and "deep(depth - 1)" in error.traceback
    assert len(error.traceback) < ERROR_BYTES_MAX


def test_a_traceback_shows_no_local_variables() -> None:
    """They may hold secrets."""
    password = "".join(["hun", "ter2"])
    try:
        raise ValueError(len(password))
    except ValueError as caught:
        error = describe_exception(caught, 1, NOW_MS)
    assert "hunter2" not in error.traceback


def test_a_retry_comes_to_the_front_where_that_is_asked() -> None:
    """By the policy, or by RetryIn; then its priority is 1, or what it was. Not where groups take turns, nor when it fails for good."""
    policy = Retry([1], at_front=True).spec
    assert decided(raised(ValueError()), policy).record.priority == 1
    assert decided(raised(ValueError()), policy, attempt=1).record.priority == 0
    asked = raised(ValueError(), 5)
    assert decided(asked).record.priority == 0
    assert decided(Raised(asked.types, asked.error, 5, at_front=True)).record.priority == 1
    urgent, grouped = record(), record()
    urgent.priority = 7
    grouped.options = JobOptions(ties=msgspec.msgpack.encode({"g": "tenant"}))
    for job, priority in ((urgent, 7), (grouped, 0)):
        found = decide(job, raised(ValueError()), retry=policy, result_ttl_ms=0, now_ms=NOW_MS, random=lambda: 0.0)
        assert (found.kind, found.record.priority) == ("r", priority)


def test_a_failed_job_is_kept_as_long_as_it_says() -> None:
    """failure_ttl, 0 included; else 30 days."""
    for ttl_ms, keep_ms in ((None, KEEP_FAILED_MS), (5_000, 5_000), (0, 0)):
        job = record()
        job.options = JobOptions(failure_ttl_ms=ttl_ms, description="d")
        found = decide(job, raised(ValueError()), retry=None, result_ttl_ms=0, now_ms=NOW_MS, random=lambda: 0.0)
        assert (found.kind, found.keep_ms) == ("f", keep_ms)
