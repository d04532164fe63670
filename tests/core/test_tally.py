"""Sums of counts and times."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.tally import add, first_us, step_of, times_in


@given(st.integers(0, 10**15))
def test_a_time_falls_into_the_step_that_holds_it(time_us):
    """And a step is a quarter of it wide at most, so nothing is told much too long or too short."""
    step = step_of(time_us)
    assert first_us(step) <= time_us < first_us(step + 1)
    assert first_us(step + 1) - first_us(step) <= max(1, time_us / 4 + 1)


@given(st.lists(st.integers(1, 10**12), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_near_the_true_one(times_us, share):
    """It lies in the step of the time that this share is not over."""
    sums = {"run_us": sum(times_us)}
    for time_us in times_us:
        add(sums, {f"r{step_of(time_us)}": 1})
    found = times_in(sums, "run")
    assert found.count == len(times_us)
    assert found.total_us == sum(times_us)
    ordered = sorted(times_us)
    true_us = ordered[max(0, -(-round(share * len(ordered) * 1e6) // 10**6) - 1)]
    told = found.quantile_s(share)
    assert told is not None
    assert first_us(step_of(true_us)) / 1e6 * 0.75 <= told <= first_us(step_of(true_us) + 1) / 1e6 * 1.34


def test_no_times_have_no_quantile():
    """None, and not zero: nothing was measured."""
    assert times_in({"run_us": 0, "succeeded": 3}, "run").quantile_s(0.5) is None
