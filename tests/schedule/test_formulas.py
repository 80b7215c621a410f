"""The paper's formulas and their properties; no torch."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeout import Schedule
from freezeout.schedule import annealing, freeze_step, freeze_times, initial_scales, rate_factors
from tests import strategies
from tests.schedule.paper import POWER, paper_rate, paper_times

# --- The paper's formulas ----------------------------------------------------------------------


@pytest.mark.parametrize("spacing", POWER)
@pytest.mark.parametrize("t0", [1e-3, 0.1, 0.5, 0.8, 0.999, 1.0])
@pytest.mark.parametrize("layers", [2, 3, 40])
def test_freeze_times_are_those_of_the_paper(layers, t0, spacing):
    expected = paper_times(layers, t0, spacing)
    np.testing.assert_allclose(freeze_times(layers, t0, spacing=spacing), expected, rtol=1e-13)
    assert Schedule(t0=t0, spacing=spacing).freeze_times(layers) == freeze_times(
        layers, t0, spacing=spacing
    )


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("spacing", POWER)
@pytest.mark.parametrize("t0", [0.1, 0.5, 0.8, 1.0])
def test_rates_are_those_of_the_paper(t0, spacing, scaled):
    schedule = Schedule(t0=t0, spacing=spacing, scaled=scaled)
    times = paper_times(5, t0, spacing)
    for n in (0, 1, 7, 99, 100, 511, 512, 513, 799, 999, 1000):
        if any(abs(n / 1000 - t) < 1e-9 and n / 1000 < t for t in times):
            continue  # on a freeze time up to rounding, which test_exact_hits covers
        expected = [paper_rate(n / 1000, t, scaled) for t in times]
        np.testing.assert_allclose(
            schedule.factors(n, 1000, 5), expected, rtol=1e-11, atol=1e-15, err_msg=str(n)
        )


def test_golden_values_of_the_recommended_default():
    default = Schedule()
    assert (default.t0, default.spacing, default.scaled) == (0.8, "cubic", True)
    times = default.freeze_times(3)
    assert times == pytest.approx((0.512, 0.729, 1.0), rel=1e-15)
    assert times[-1] == 1.0
    assert default.scales(3) == pytest.approx((1 / 0.512, 1 / 0.729, 1.0), rel=1e-15)
    assert default.freeze_steps(3, 1000) == (512, 729, None)
    assert default.factors(256, 1000, 3)[0] == pytest.approx(0.5 / 0.512, rel=1e-14)


def test_cubic_half_freezes_the_first_layer_at_an_eighth():
    assert Schedule(t0=0.5).freeze_times(2) == (0.125, 1.0)
    assert Schedule(t0=0.5).scales(2) == (8.0, 1.0)
    assert Schedule(t0=0.5, scaled=False).scales(2) == (1.0, 1.0)


@pytest.mark.parametrize("spacing", POWER)
@pytest.mark.parametrize("scaled", [True, False])
def test_t0_of_one_is_plain_cosine_annealing(spacing, scaled):
    schedule = Schedule(t0=1, spacing=spacing, scaled=scaled)
    assert schedule.freeze_steps(4, 50) == (None,) * 4
    for n in range(50):
        cosine = (1 + math.cos(math.pi * n / 50)) / 2
        assert schedule.factors(n, 50, 4) == pytest.approx([cosine] * 4, rel=1e-14)
        assert min(schedule.factors(n, 50, 4)) > 0
    assert schedule.factors(50, 50, 4) == (0.0,) * 4


def test_single_layer_learns_to_the_end():
    assert freeze_times(1, 0.3) == (1.0,)
    assert Schedule(t0=0.3).freeze_steps(1, 10) == (None,)


def test_linear_curve_and_custom_curve_are_evaluated_at_t_over_ti():
    linear = Schedule(times=(0.5, 1.0), scaled=False, anneal="linear")
    assert linear.factors(25, 100, 2) == (0.5, 0.75)
    square = Schedule(times=(0.5, 1.0), anneal=lambda u: (1 - u) ** 2)
    assert square.factors(25, 100, 2) == (2 * 0.25, 0.75**2)


def test_named_curves():
    grid = np.linspace(0.0, 1.0, 101)[:-1]
    np.testing.assert_allclose(
        [annealing("cosine")(u) for u in grid], 0.5 * (1 + np.cos(np.pi * grid)), rtol=1e-14
    )
    np.testing.assert_allclose([annealing("linear")(u) for u in grid], 1 - grid, rtol=1e-14)
    assert {annealing(None)(u) for u in grid} == {1.0}
    assert annealing(math.exp)(0.5) == math.exp(0.5)
    spiky = annealing(lambda u: -1.0 if u == 0.3 else 1.0 - u)
    with pytest.raises(ValueError, match=r"anneal\(0\.3\) is -1\.0"):
        spiky(0.3)


def test_exact_hits_freeze_on_time_in_spite_of_rounding():
    assert 0.8**3 > 0.512  # why there is a tolerance at all
    assert freeze_step(0.8**3, 1000) == 512
    assert Schedule().factors(512, 1000, 2)[0] == 0.0
    assert Schedule().factors(511, 1000, 2)[0] > 0.0


@pytest.mark.parametrize(
    ("time", "steps", "expected"),
    [(1.0, 1, None), (0.5, 1, None), (0.5, 2, 1), (0.5, 3, 2), (1e-9, 10, 1), (0.999, 10, None)],
)
def test_freeze_step_at_the_edges(time, steps, expected):
    assert freeze_step(time, steps) == expected


# --- Properties --------------------------------------------------------------------------------


@given(strategies.num_layers, strategies.t0s, strategies.spacings)
def test_freeze_times_are_ordered_positive_and_end_at_one(layers, t0, spacing):
    times = freeze_times(layers, t0, spacing=spacing)
    assert len(times) == layers
    assert list(times) == sorted(times)
    assert times[0] > 0
    assert times[-1] == 1.0
    assert all(math.isfinite(scale) for scale in initial_scales(times))


@given(strategies.num_layers, strategies.usual_t0s, strategies.usual_t0s, strategies.spacings)
def test_a_larger_t0_freezes_no_layer_earlier(layers, a, b, spacing):
    early = freeze_times(layers, min(a, b), spacing=spacing)
    late = freeze_times(layers, max(a, b), spacing=spacing)
    assert all(e <= x * (1 + 1e-15) for e, x in zip(early, late, strict=True))


@given(st.data(), st.integers(1, 8), strategies.total_steps)
def test_rates_fall_to_zero_exactly_at_the_freeze_step(data, layers, total):
    schedule = data.draw(strategies.schedules(layers))
    freeze = schedule.freeze_steps(layers, total)
    ends = [total if step is None else step for step in freeze]
    steps = {0, total - 1, total, total + 5}
    steps |= {n for end in ends for n in (end - 1, end, end + 1)}
    steps |= set(data.draw(st.lists(st.integers(0, total), max_size=5)))
    rows = [schedule.factors(n, total, layers) for n in sorted(steps)]
    for n, row in zip(sorted(steps), rows, strict=True):
        assert [factor == 0.0 for factor in row] == [n >= end for end in ends]
        assert all(factor >= 0.0 for factor in row)
    for column in zip(*rows, strict=True):
        assert all(a >= b for a, b in itertools.pairwise(column))


@given(st.data(), st.integers(1, 8), strategies.total_steps)
def test_the_frozen_set_is_a_prefix_that_only_grows(data, layers, total):
    schedule = data.draw(strategies.schedules(layers))
    freeze = schedule.freeze_steps(layers, total)
    assert freeze[-1] is None
    ends = [total if step is None else step for step in freeze]
    assert ends == sorted(ends)
    assert all(1 <= end <= total for end in ends)
    depth = 0
    for n in sorted({0, *ends, *(end - 1 for end in ends)}):
        zeros = [factor == 0.0 for factor in schedule.factors(n, total, layers)]
        assert zeros == sorted(zeros, reverse=True)
        assert sum(zeros) >= depth
        depth = sum(zeros)


@given(strategies.usual_t0s, strategies.total_steps, st.integers(1, 20), strategies.spacings)
def test_freeze_step_is_the_first_step_at_or_after_the_freeze_time(t0, total, layers, spacing):
    for time in freeze_times(layers, t0, spacing=spacing):
        step = freeze_step(time, total)
        n = total if step is None else step
        assert n / total >= time * (1 - 1e-11)
        assert n == 1 or (n - 1) / total < time


@given(
    st.integers(2, 6),
    st.floats(0.2, 1.0),
    strategies.spacings,
    st.sampled_from(["cosine", "linear"]),
)
def test_scaled_schedules_all_have_the_same_area(layers, t0, spacing, anneal):
    schedule = Schedule(t0=t0, spacing=spacing, anneal=anneal)
    times, scales, curve = schedule.freeze_times(layers), schedule.scales(layers), annealing(anneal)
    grid = (np.arange(4000) + 0.5) / 4000  # midpoint rule
    rates = np.array([rate_factors(float(t), times, scales, curve) for t in grid])
    np.testing.assert_allclose(rates.mean(axis=0), 0.5, rtol=2e-3)


@given(st.integers(2, 6), st.floats(0.2, 0.9))
def test_unscaled_areas_are_proportional_to_freeze_times(layers, t0):
    schedule = Schedule(t0=t0, scaled=False)
    times = schedule.freeze_times(layers)
    grid = (np.arange(4000) + 0.5) / 4000
    curve = annealing("cosine")
    rates = np.array([rate_factors(float(t), times, (1.0,) * layers, curve) for t in grid])
    np.testing.assert_allclose(rates.mean(axis=0), np.array(times) / 2, rtol=1e-2, atol=1e-3)


# --- No torch ----------------------------------------------------------------------------------


def test_the_maths_imports_no_torch():
    """Without the package's own imports, in a fresh interpreter."""
    import freezeout

    program = (
        "import sys, types\n"
        "package = types.ModuleType('freezeout')\n"
        f"package.__path__ = {list(freezeout.__path__)!r}\n"
        "sys.modules['freezeout'] = package\n"
        "from freezeout.schedule import freeze_times\n"
        "print(freeze_times(3, 0.5, spacing='linear'))\n"
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600
    )
    assert ran.stdout == "(0.5, 0.75, 1.0)\n[]\n"
