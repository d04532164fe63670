"""Retry policies: what users write, and the delays they come to."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import Retry, UsageError
from headrace.core.retry import DELAY_MAX_MS, delay_ms, is_retryable, retry_spec


def delays(policy: Retry, chance: float = 0.0) -> list[int]:
    return [delay_ms(policy.spec, attempt, lambda: chance) for attempt in range(1, policy.spec.retries + 1)]


def test_a_plain_count_doubles_from_one_second() -> None:
    """Retry(5) waits up to 1, 2, 4, 8, 16 s."""
    assert delays(Retry(5)) == [1_000, 2_000, 4_000, 8_000, 16_000]


def test_full_jitter_spreads_over_the_whole_delay() -> None:
    """With jitter 1, chance decides between (almost) nothing and all of it."""
    assert delays(Retry(2, delay=10), 0.75) == [2_500, 5_000]


def test_a_list_is_kept_to_the_letter() -> None:
    """Retry([1, 5, 30]) is three retries at just these delays, whatever chance says."""
    policy = Retry([1, 5, timedelta(seconds=30)])
    assert policy.spec.retries == 3
    assert delays(policy, 0.9) == [1_000, 5_000, 30_000]


def test_factor_one_is_a_fixed_delay() -> None:
    """A fixed delay has no jitter, and is not cut by the default max_delay."""
    assert delays(Retry(3, delay=7_200, factor=1), 0.9) == [7_200_000] * 3


def test_no_delay_is_longer_than_max_delay() -> None:
    """Growth stops there."""
    assert delays(Retry(4, delay=10, factor=3, max_delay=60, jitter=0)) == [10_000, 30_000, 60_000, 60_000]


def test_types_are_told_by_name_and_giving_up_is_stronger() -> None:
    """`on` includes what derives from a type; `give_up_on` wins."""
    spec = Retry(1, on=OSError, give_up_on=[FileNotFoundError]).spec
    assert is_retryable(spec, ["ConnectionError", "OSError", "Exception"])
    assert not is_retryable(spec, ["FileNotFoundError", "OSError", "Exception"])
    assert not is_retryable(spec, ["ValueError", "Exception"])
    assert is_retryable(Retry(1).spec, ["ValueError", "Exception"]), "a policy that names none covers all"


@given(
    st.integers(0, 1_000),
    st.floats(0, 3e8),
    st.floats(1, 100),
    st.floats(0, 3e8),
    st.floats(0, 1),
    st.integers(1, 1_001),
    st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_never_absurd(
    retries: int, delay: float, factor: float, max_delay: float, jitter: float, attempt: int, chance: float
) -> None:
    """Whatever the policy, a delay is 0 to 10 years, and never beyond max_delay where delays grow."""
    policy = Retry(retries, delay=delay, factor=factor, max_delay=max_delay, jitter=jitter)
    found = delay_ms(policy.spec, attempt, lambda: chance)
    assert 0 <= found <= DELAY_MAX_MS
    if factor > 1 and round(max_delay * 1000):
        assert found <= round(max_delay * 1000)


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        ((-1,), {}, "retries"),
        ((10**9,), {}, "retries"),
        ((True,), {}, "retries"),
        ((1.5,), {}, "retries"),
        (("3",), {}, "retries"),
        (([1, -1],), {}, "retry"),
        (([1, "x"],), {}, "retry"),
        ((3,), {"delay": -1}, "delay"),
        ((3,), {"delay": math.nan}, "delay"),
        ((3,), {"delay": True}, "delay"),
        ((3,), {"factor": 0.5}, "factor"),
        ((3,), {"jitter": 2}, "jitter"),
        ((3,), {"max_delay": math.inf}, "max_delay"),
        ((3,), {"on": "ValueError"}, "on"),
        ((3,), {"give_up_on": [int]}, "give_up_on"),
    ],
)
def test_a_wrong_policy_names_its_word(arguments: tuple[Any, ...], options: dict[str, Any], named: str) -> None:
    """Each is refused where it is written."""
    with pytest.raises(UsageError, match=f"^{named}: "):
        Retry(*arguments, **options)


def test_an_option_takes_a_count_or_a_policy() -> None:
    """retry=3 is Retry(3), retry=0 is none at all; a bool or a text is neither."""
    assert retry_spec(3) == Retry(3).spec
    assert retry_spec(0).retries == 0
    for wrong in (True, "3", 1.5, None):
        with pytest.raises(UsageError, match=r"^retry: "):
            retry_spec(wrong)
