"""Intervals and numbers of seeds: hand-computed cases, properties, and coverage by simulation."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeout.lab.evidence import (
    Estimate,
    difference_found,
    mean_interval,
    paired_difference,
    ratio_interval,
    saving_interval,
    seeds_needed,
    seeds_to_narrow,
)
from freezeout.lab.evidence.statistics import spread_of

# Quantiles of Student's t from printed tables: {degrees of freedom: 97.5 %}.
T_975 = {1: 12.7062, 2: 4.30265, 4: 2.77645, 9: 2.26216}
T_995 = {4: 4.60409}

numbers = st.floats(-1e6, 1e6)
some_numbers = st.lists(numbers, min_size=2, max_size=12)
positive_pairs = st.lists(
    st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)), min_size=2, max_size=12
)


# --- Hand-computed ------------------------------------------------------------------------------


def test_mean_of_five_errors_by_hand():
    # Deviations -0.2, -0.1, 0, 0.1, 0.2: squares sum to 0.1, s^2 = 0.025, s/sqrt(5) = 0.0707107.
    estimate = mean_interval([5.0, 5.1, 5.2, 5.3, 5.4])
    assert estimate.mean == pytest.approx(5.2)
    assert estimate.count == 5
    assert estimate.high - estimate.mean == pytest.approx(T_975[4] * 0.0707107, rel=1e-5)
    assert estimate.mean - estimate.low == pytest.approx(T_975[4] * 0.0707107, rel=1e-5)


def test_the_level_widens_the_interval_by_the_quantiles():
    values = [5.0, 5.1, 5.2, 5.3, 5.4]
    wide, usual = mean_interval(values, 0.99), mean_interval(values)
    assert (wide.high - wide.mean) / (usual.high - usual.mean) == pytest.approx(
        T_995[4] / T_975[4], rel=1e-5
    )


def test_two_values_have_the_interval_of_one_degree_of_freedom():
    # s = |a - b| / sqrt(2), so s / sqrt(2) = |a - b| / 2.
    estimate = mean_interval([1.0, 3.0])
    assert estimate.interval == pytest.approx((2 - T_975[1], 2 + T_975[1]), rel=1e-5)


def test_students_own_example_of_paired_differences():
    # Student 1908, section IX: hours of sleep gained by two drugs on the same ten patients;
    # mean of the differences 1.58, their s = 1.2300 (with n - 1), s/sqrt(10) = 0.38896.
    one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    other = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    estimate = paired_difference(other, one)
    assert estimate.mean == pytest.approx(1.58)
    assert estimate.interval == pytest.approx(
        (1.58 - T_975[9] * 0.38896, 1.58 + T_975[9] * 0.38896), rel=1e-4
    )
    assert difference_found(estimate) == "higher"
    assert difference_found(paired_difference(one, other)) == "lower"


def test_pairing_takes_out_what_pairs_share():
    shared = [1.0, 50.0, 99.0]
    a = [value + extra for value, extra in zip(shared, (0.1, 0.2, 0.3), strict=True)]
    # Differences 0.1, 0.2, 0.3: mean 0.2, s/sqrt(3) = 0.0577350.
    estimate = paired_difference(a, shared)
    assert estimate.interval == pytest.approx(
        (0.2 - T_975[2] * 0.0577350, 0.2 + T_975[2] * 0.0577350), rel=1e-5
    )


def test_a_ratio_is_the_geometric_mean_with_the_interval_of_its_logs():
    # Ratios 1/2 and 2: logs -log 2 and log 2, mean 0, s/sqrt(2) = log 2.
    estimate = ratio_interval([1.0, 4.0], [2.0, 2.0])
    half = T_975[1] * math.log(2)
    assert estimate.mean == pytest.approx(1.0)
    assert estimate.interval == pytest.approx((math.exp(-half), math.exp(half)), rel=1e-4)


def test_a_saving_is_what_the_ratio_leaves_with_its_ends_in_order():
    seconds, full = [80.0, 82.0, 78.0], [100.0, 100.0, 100.0]
    ratio, saving = ratio_interval(seconds, full), saving_interval(seconds, full)
    assert saving.mean == 1 - ratio.mean
    assert saving.interval == (1 - ratio.high, 1 - ratio.low)
    assert 0 < saving.low < saving.mean < saving.high < 1


# --- Few values, equal values -------------------------------------------------------------------


def test_one_value_has_no_interval():
    assert mean_interval([5.0]) == Estimate(5.0, None, None, 1)
    assert paired_difference([5.0], [4.0]) == Estimate(1.0, None, None, 1)
    assert ratio_interval([1.0], [2.0]) == Estimate(math.exp(math.log(0.5)), None, None, 1)
    assert saving_interval([1.0], [2.0]).interval is None
    assert difference_found(mean_interval([5.0])) == "unknown"


def test_a_ratio_that_two_pairs_leave_open_has_finite_ends():
    seconds, full = [1e-9, 1e12], [1e12, 1e-9]
    for estimate in (
        ratio_interval(seconds, full, level=0.9999),
        saving_interval(seconds, full, level=0.9999),
    ):
        assert all(math.isfinite(end) for end in estimate.interval)
        assert max(map(abs, estimate.interval)) > 1e300


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e300])
def test_equal_values_have_an_interval_without_width_and_no_warning(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = mean_interval([value] * 3)
    assert estimate.interval == (estimate.mean, estimate.mean)
    assert estimate.mean == pytest.approx(value)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (-0.2, -0.1, "lower"),
        (0.1, 0.2, "higher"),
        (-0.1, 0.1, "none"),
        (0.0, 0.1, "none"),
        (-0.1, 0.0, "none"),
    ],
)
def test_a_difference_is_found_only_if_the_whole_interval_leaves_out_zero(low, high, found):
    assert difference_found(Estimate((low + high) / 2, low, high, 3)) == found


# --- Properties ---------------------------------------------------------------------------------


@given(some_numbers, st.floats(0.5, 0.999))
def test_an_interval_is_symmetric_around_the_mean_and_grows_with_the_level(values, level):
    estimate, wider = mean_interval(values, level), mean_interval(values, (1 + level) / 2)
    assert min(values) - 1e-6 <= estimate.mean <= max(values) + 1e-6
    assert estimate.high - estimate.mean == pytest.approx(estimate.mean - estimate.low, abs=1e-6)
    assert wider.low <= estimate.low <= estimate.high <= wider.high


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=12))
def test_a_difference_turns_with_its_arms(pairs):
    a, b = zip(*pairs, strict=True)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.mean, there.low, there.high) == (-back.mean, -back.high, -back.low)


@given(positive_pairs, st.floats(1e-3, 1e3))
def test_a_ratio_does_not_depend_on_the_unit(pairs, unit):
    a, b = zip(*pairs, strict=True)
    one = ratio_interval(a, b)
    other = ratio_interval([unit * x for x in a], [unit * y for y in b])
    assert other.mean == pytest.approx(one.mean)
    assert 0 <= one.low <= one.mean <= one.high


@given(some_numbers, st.floats(0.5, 0.999))
def test_the_spread_is_read_back_from_the_interval(values, level):
    spread = spread_of(mean_interval(values, level), level)
    assert spread == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-6)


@given(st.floats(0.01, 10.0), st.floats(0.01, 10.0))
def test_fewer_seeds_find_a_larger_difference_and_more_are_needed_for_more_noise(sd, delta):
    most = 10_001
    needed = seeds_needed(sd, delta) or most
    assert (seeds_needed(sd, 2 * delta) or most) <= needed <= (seeds_needed(2 * sd, delta) or most)
    assert (seeds_needed(sd, delta, 0.99) or most) >= needed
    assert (seeds_needed(sd, delta, power=0.9) or most) >= needed
    assert seeds_needed(sd, -delta) == seeds_needed(sd, delta)


# --- Numbers of seeds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effect", "power", "needed"),
    # Cohen 1988 and the tables of common power programs: paired, two-sided, 5 %.
    [(0.2, 0.8, 199), (0.5, 0.8, 34), (0.8, 0.8, 15), (1.0, 0.8, 10), (0.5, 0.9, 44)],
)
def test_seeds_needed_are_those_of_printed_tables(effect, power, needed):
    assert seeds_needed(1.0, effect, power=power) == needed


def test_seeds_needed_at_the_ends_of_the_range():
    assert seeds_needed(0.0, 0.1) == 2
    assert seeds_needed(1e-9, 1.0) == 2
    assert seeds_needed(1.0, 1e-6) is None
    assert seeds_needed(1.0, 1.0, most=9) is None
    assert seeds_needed(1.0, 1.0, most=10) == 10


def test_seeds_to_narrow_are_the_first_that_make_the_interval_so_narrow():
    # By hand with s = 1: t(9) / sqrt(10) = 0.71536, and t(4) / sqrt(5) = 1.24167.
    assert seeds_to_narrow(1.0, 0.7154) == 10
    assert seeds_to_narrow(1.0, 0.7153) == 11
    assert seeds_to_narrow(1.0, 1.2417) == 5
    assert seeds_to_narrow(0.0, 0.1) == 2
    assert seeds_to_narrow(1.0, 1e-6) is None


# --- By simulation ------------------------------------------------------------------------------

REPEATS = 3000


def chance_error(chance: float, repeats: int = REPEATS) -> float:
    """Four standard deviations of a share among so many repeats."""
    return 4 * math.sqrt(chance * (1 - chance) / repeats)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_an_interval_of_five_values_holds_the_mean_as_often_as_it_says(level):
    values = np.random.default_rng(1).normal(5.0, 0.3, (REPEATS, 5))
    found = [mean_interval(row, level) for row in values.tolist()]
    held = np.mean([e.low <= 5.0 <= e.high for e in found])
    assert held == pytest.approx(level, abs=chance_error(level))


def test_a_paired_interval_holds_the_difference_as_often_as_it_says():
    rng = np.random.default_rng(2)
    shared = rng.normal(0.0, 2.0, (REPEATS, 5))
    a = 5.0 + shared + rng.normal(0.0, 0.2, shared.shape)
    b = 4.7 + shared + rng.normal(0.0, 0.1, shared.shape)
    found = [paired_difference(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    held = np.mean([e.low <= 0.3 <= e.high for e in found])
    assert held == pytest.approx(0.95, abs=chance_error(0.95))
    # Pairing is what makes it narrow: the shared spread would be ten times as large.
    assert np.mean([e.high - e.low for e in found]) < 1.0


def test_the_interval_of_a_saving_holds_it_as_often_as_it_says():
    rng = np.random.default_rng(3)
    full = 100.0 * np.exp(rng.normal(0.0, 0.3, (REPEATS, 5)))
    seconds = 0.8 * full * np.exp(rng.normal(0.0, 0.05, full.shape))
    found = [saving_interval(x, y) for x, y in zip(seconds.tolist(), full.tolist(), strict=True)]
    held = np.mean([e.low <= 0.2 <= e.high for e in found])
    assert held == pytest.approx(0.95, abs=chance_error(0.95))


@pytest.mark.parametrize(("sd", "delta", "level"), [(0.3, 0.25, 0.95), (0.2, -0.25, 0.99)])
def test_so_many_seeds_find_the_difference_with_the_power_asked_for(sd, delta, level):
    needed = seeds_needed(sd, delta, level)

    def share_found(count: int, seed: int) -> float:
        values = np.random.default_rng(seed).normal(delta, sd, (REPEATS, count)).tolist()
        found = [difference_found(mean_interval(row, level)) for row in values]
        return np.mean([word in ("lower", "higher") for word in found])

    assert share_found(needed, 4) >= 0.8 - chance_error(0.8)
    assert share_found(needed - 1, 5) <= 0.8 + chance_error(0.8)


# --- Bad arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_interval([]), "values must be one or more finite numbers"),
        (lambda: mean_interval([1.0, math.nan]), "finite"),
        (lambda: mean_interval([1.0], level=1.0), r"level must lie in \(0, 1\), got 1.0"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "equally long, got 1 and 2"),
        (lambda: ratio_interval([0.0], [1.0]), "above 0"),
        (lambda: saving_interval([1.0], [-1.0]), "above 0"),
        (lambda: seeds_needed(-1.0, 1.0), "differences_sd must be at least 0 and finite"),
        (lambda: seeds_needed(1.0, 0.0), "delta must be finite and not 0"),
        (lambda: seeds_needed(1.0, 1.0, power=1.0), r"power must lie in \(0, 1\)"),
        (lambda: seeds_needed(1.0, 1.0, most=1), "most must be at least 2"),
        (lambda: seeds_to_narrow(1.0, 0.0), "half_width must be above 0"),
        (lambda: spread_of(mean_interval([1.0]), 0.95), "must have an interval"),
        (lambda: Estimate(0.0, -1.0, None, 2), "both be numbers or both None"),
        (lambda: Estimate(2.0, -1.0, 1.0, 2), "in this order"),
        (lambda: Estimate(0.0, None, None, 0), "count must be at least 1"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
