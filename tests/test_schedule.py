"""Freeze times and rates: the paper's formulas written out again, properties, messages."""

import dataclasses
import functools
import itertools
import json
import math
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import strategies as own
from freezeout import Schedule
from freezeout.schedule import (
    annealing,
    freeze_step,
    freeze_times,
    initial_scales,
    rate_factors,
    warmup_factor,
)

POWER = {"linear": 1, "squared": 2, "cubic": 3}


def paper_times(layers: int, t0: float, spacing: str) -> np.ndarray:
    """Section 2 in float64: evenly spaced from t0 to 1, then to a power."""
    return np.linspace(t0, 1.0, layers, dtype=np.float64) ** POWER[spacing]


def paper_rate(t: float, t_i: float, scaled: bool) -> float:
    """Equation 1, with its missing factor one half, relative to the base rate."""
    if t >= t_i:
        return 0.0
    start = np.float64(1.0) / t_i if scaled else np.float64(1.0)
    return float(0.5 * start * (1.0 + np.cos(np.pi * t / t_i)))


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


def test_linear_curve_and_own_curve_are_evaluated_at_t_over_ti():
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


@given(own.num_layers, own.t0s, own.spacings)
def test_freeze_times_are_ordered_positive_and_end_at_one(layers, t0, spacing):
    times = freeze_times(layers, t0, spacing=spacing)
    assert len(times) == layers
    assert list(times) == sorted(times)
    assert times[0] > 0
    assert times[-1] == 1.0
    assert all(math.isfinite(scale) for scale in initial_scales(times))


@given(own.num_layers, own.usual_t0s, own.usual_t0s, own.spacings)
def test_a_larger_t0_freezes_no_layer_earlier(layers, a, b, spacing):
    early = freeze_times(layers, min(a, b), spacing=spacing)
    late = freeze_times(layers, max(a, b), spacing=spacing)
    assert all(e <= x * (1 + 1e-15) for e, x in zip(early, late, strict=True))


@given(st.data(), st.integers(1, 8), own.total_steps)
def test_rates_fall_to_zero_exactly_at_the_freeze_step(data, layers, total):
    schedule = data.draw(own.schedules(layers))
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


@given(st.data(), st.integers(1, 8), own.total_steps)
def test_the_frozen_set_is_a_prefix_that_only_grows(data, layers, total):
    schedule = data.draw(own.schedules(layers))
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


@given(own.usual_t0s, own.total_steps, st.integers(1, 20), own.spacings)
def test_freeze_step_is_the_first_step_at_or_after_the_freeze_time(t0, total, layers, spacing):
    for time in freeze_times(layers, t0, spacing=spacing):
        step = freeze_step(time, total)
        n = total if step is None else step
        assert n / total >= time * (1 - 1e-11)
        assert n == 1 or (n - 1) / total < time


@given(st.integers(2, 6), st.floats(0.2, 1.0), own.spacings, st.sampled_from(["cosine", "linear"]))
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


# --- Warm-up, cap, explicit times, anneal=None -------------------------------------------------


@given(st.integers(1, 50), st.integers(0, 60))
def test_warmup_is_linear_in_absolute_steps_and_multiplies_the_curve(warmup, n):
    assert warmup_factor(n, warmup) == pytest.approx(min(1.0, (n + 1) / warmup), rel=1e-15)
    plain, warmed = Schedule(), Schedule(warmup_steps=warmup)
    for total in (200, 400):  # its length does not depend on that of training
        expected = [f * min(1.0, (n + 1) / warmup) for f in plain.factors(n, total, 3)]
        assert warmed.factors(n, total, 3) == pytest.approx(expected, rel=1e-14)


def test_no_warmup_is_the_factor_one():
    assert [warmup_factor(n, 0) for n in range(3)] == [1.0] * 3
    assert warmup_factor(0, 1) == 1.0


def test_warmup_may_last_until_the_first_freeze_and_no_longer():
    assert Schedule(warmup_steps=512).freeze_steps(2, 1000) == (512, None)
    with pytest.raises(ValueError, match="must not exceed 512") as caught:
        Schedule(warmup_steps=513).freeze_steps(2, 1000)
    assert str(caught.value) == (
        "warmup_steps must not exceed 512, the step at which the first layer freezes, got 513. "
        "Warm up for less, raise t0, or train for longer."
    )


@given(st.integers(1, 10), own.usual_t0s, st.floats(1.0, 20.0))
def test_cap_limits_the_scaled_start_and_nothing_else(layers, t0, cap):
    free, capped = Schedule(t0=t0), Schedule(t0=t0, scale_cap=cap)
    expected = [min(scale, cap) for scale in free.scales(layers)]
    assert list(capped.scales(layers)) == expected
    assert capped.freeze_steps(layers, 500) == free.freeze_steps(layers, 500)
    assert Schedule(t0=t0, scaled=False, scale_cap=cap).scales(layers) == (1.0,) * layers


@given(own.explicit_times())
def test_explicit_times_are_taken_as_they_are_but_the_last_is_one(times):
    schedule = Schedule(times=times)
    assert schedule.freeze_times(len(times)) == (*times[:-1], 1.0)
    assert schedule.freeze_steps(len(times), 100)[-1] is None


def test_explicit_times_win_over_t0_and_spacing():
    assert Schedule(t0=0.1, spacing="linear", times=(0.3, 0.3, 0.9)).freeze_times(3) == (
        0.3,
        0.3,
        1.0,
    )


def test_explicit_times_for_another_number_of_layers():
    with pytest.raises(ValueError, match="times holds 2") as caught:
        Schedule(times=(0.5, 1.0)).freeze_times(3)
    assert str(caught.value) == (
        "times holds 2 freeze times, but the model was cut into 3 layers. "
        "Give one time per layer, or name the layers yourself."
    )


@pytest.mark.parametrize("scaled", [True, False])
def test_without_annealing_only_freezing_is_left(scaled):
    schedule = Schedule(t0=0.5, spacing="linear", anneal=None, scaled=scaled)
    assert schedule.freeze_steps(3, 100) == (50, 75, None)
    assert schedule.scales(3) == (1.0, 1.0, 1.0)
    assert schedule.factors(0, 100, 3) == (1.0, 1.0, 1.0)
    assert schedule.factors(49, 100, 3) == (1.0, 1.0, 1.0)
    assert schedule.factors(50, 100, 3) == (0.0, 1.0, 1.0)
    assert schedule.factors(99, 100, 3) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("extra", [{"warmup_steps": 3}, {"scale_cap": 2.0}])
def test_without_annealing_settings_of_rates_are_refused(extra):
    with pytest.raises(ValueError, match="anneal=None") as caught:
        Schedule(anneal=None, **extra)
    assert str(caught.value) == (
        "warmup_steps and scale_cap set rates, but anneal=None leaves all rates to another "
        "scheduler. Drop them, or choose an annealing curve."
    )


# --- The settings object -----------------------------------------------------------------------


def test_schedule_is_frozen_equal_by_value_and_hashable():
    one, same, other = Schedule(t0=0.5), Schedule(t0=0.5), Schedule(t0=0.6)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.t0 = 0.7  # type: ignore[misc]
    assert dataclasses.replace(one, t0=0.6) == other
    assert pickle.loads(pickle.dumps(one)) == one


def test_schedule_prints_as_the_call_that_makes_it():
    schedule = Schedule(t0=0.5, spacing="linear", warmup_steps=3, times=[0.25, 1.0])
    assert repr(schedule) == (
        "Schedule(t0=0.5, spacing='linear', scaled=True, anneal='cosine', warmup_steps=3, "
        "scale_cap=None, times=(0.25, 1.0), max_freezes=None)"
    )
    assert eval(repr(schedule)) == schedule


def test_replacing_a_setting_checks_it_again():
    with pytest.raises(ValueError, match="t0 must lie"):
        dataclasses.replace(Schedule(), t0=2.0)


def test_times_given_as_a_list_cannot_be_changed_afterwards():
    given_times = [0.5, 1.0]
    schedule = Schedule(times=given_times)
    given_times[0] = 0.9
    assert schedule.times == (0.5, 1.0)


def test_numpy_numbers_become_plain_ones():
    schedule = Schedule(
        t0=np.float64(0.5), scale_cap=np.float64(3), times=np.linspace(0.5, 1, 3), anneal=np.cos
    )
    for value in (schedule.t0, schedule.scale_cap, *schedule.times):
        assert type(value) is float
    assert {type(factor) for factor in schedule.factors(3, 10, 3)} == {float}


def test_to_dict_is_plain_and_differences_name_what_changed():
    schedule = Schedule(t0=0.5, times=(0.5, 1.0))
    state = json.loads(json.dumps(schedule.to_dict()))
    assert state == {
        "t0": 0.5,
        "spacing": "cubic",
        "scaled": True,
        "anneal": "cosine",
        "warmup_steps": 0,
        "scale_cap": None,
        "times": [0.5, 1.0],
        "max_freezes": None,
    }
    assert schedule.differences(state) == []
    del state["max_freezes"]  # a checkpoint from before it existed
    assert schedule.differences(state) == []
    assert Schedule(t0=0.6, times=(0.5, 1.0), scaled=False).differences(state) == [
        "t0=0.5 there but t0=0.6 here",
        "scaled=True there but scaled=False here",
    ]
    assert Schedule(t0=0.5).differences(state) == ["times=[0.5, 1.0] there but times=None here"]


def test_a_callable_curve_is_stored_by_name():
    state = Schedule(anneal=own.half_circle).to_dict()
    assert state["anneal"] == "strategies.half_circle"
    json.dumps(state)
    assert Schedule(anneal=own.half_circle).differences(state) == []
    assert Schedule().differences(state) == [
        "anneal='strategies.half_circle' there but anneal='cosine' here"
    ]
    partial = functools.partial(lambda k, u: (1 - u) ** k, 2)
    assert Schedule(anneal=partial).to_dict()["anneal"] == "functools.partial"


# --- Every message -----------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
T0 = "It is the fraction of training after which the first layer may freeze."
CAP = "It limits the factor 1/t_i that scaling puts on a base rate; None sets no limit."
TIMES = "Give one fraction of training per layer, from the input to the output."
CURVE = "It is the curve along which rates fall; None leaves them to another scheduler."
ALLOWED = "anneal must be 'cosine', 'linear', a callable of t/t_i, or None"
SPACING = "It says how freeze times grow from the first layer to the last."
FACTOR = "It is called with the fraction t/t_i of a layer's learning time."


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"t0": 1.5}, ValueError, f"t0 must lie in (0, 1], got 1.5. {T0}"),
        ({"t0": 0}, ValueError, f"t0 must lie in (0, 1], got 0. {T0}"),
        ({"t0": -0.1}, ValueError, f"t0 must lie in (0, 1], got -0.1. {T0}"),
        ({"t0": NAN}, ValueError, f"t0 must lie in (0, 1], got nan. {T0}"),
        ({"t0": INF}, ValueError, f"t0 must lie in (0, 1], got inf. {T0}"),
        ({"t0": True}, TypeError, f"t0 must be a number in (0, 1], got True. {T0}"),
        ({"t0": "0.8"}, TypeError, f"t0 must be a number in (0, 1], got '0.8'. {T0}"),
        ({"t0": None}, TypeError, f"t0 must be a number in (0, 1], got None. {T0}"),
        (
            {"spacing": "quartic"},
            ValueError,
            f"spacing must be one of linear, squared, cubic, got 'quartic'. {SPACING}",
        ),
        (
            {"spacing": 3},
            ValueError,
            f"spacing must be one of linear, squared, cubic, got 3. {SPACING}",
        ),
        (
            {"spacing": ["cubic"]},
            ValueError,
            f"spacing must be one of linear, squared, cubic, got ['cubic']. {SPACING}",
        ),
        (
            {"scaled": 1},
            TypeError,
            "scaled must be True or False, got 1. "
            "It says whether initial rates are divided by freeze times.",
        ),
        ({"anneal": "cos"}, ValueError, f"{ALLOWED}, got 'cos'. {CURVE}"),
        ({"anneal": 1.0}, TypeError, f"{ALLOWED}, got 1.0. {CURVE}"),
        ({"anneal": True}, TypeError, f"{ALLOWED}, got True. {CURVE}"),
        (
            {"anneal": lambda u: -1.0},
            ValueError,
            "anneal must return a finite factor of at least 0, but anneal(0.0) is -1.0. " + FACTOR,
        ),
        (
            {"anneal": lambda u: NAN if u > 0.4 else 1.0},
            ValueError,
            "anneal must return a finite factor of at least 0, but anneal(0.5) is nan. " + FACTOR,
        ),
        (
            {"anneal": lambda u: 0.9 - u},
            ValueError,
            "anneal must return a finite factor of at least 0, but anneal(0.999) is "
            f"{0.9 - 0.999!r}. " + FACTOR,
        ),
        (
            {"anneal": lambda u: "0.5"},
            ValueError,
            "anneal must return a finite factor of at least 0, but anneal(0.0) is '0.5'. " + FACTOR,
        ),
        (
            {"warmup_steps": -1},
            ValueError,
            "warmup_steps must be at least 0, got -1. Give 0 for no warm-up.",
        ),
        (
            {"warmup_steps": 2.5},
            TypeError,
            "warmup_steps must be a whole number of at least 0, got 2.5. Give 0 for no warm-up.",
        ),
        (
            {"warmup_steps": True},
            TypeError,
            "warmup_steps must be a whole number of at least 0, got True. Give 0 for no warm-up.",
        ),
        ({"scale_cap": 0.5}, ValueError, f"scale_cap must be at least 1, got 0.5. {CAP}"),
        ({"scale_cap": NAN}, ValueError, f"scale_cap must be at least 1, got nan. {CAP}"),
        (
            {"scale_cap": "2"},
            TypeError,
            f"scale_cap must be a number of at least 1 or None, got '2'. {CAP}",
        ),
        (
            {"scale_cap": True},
            TypeError,
            f"scale_cap must be a number of at least 1 or None, got True. {CAP}",
        ),
        ({"times": ()}, ValueError, f"times must hold at least one freeze time, got none. {TIMES}"),
        (
            {"times": 0.5},
            TypeError,
            f"times must be a sequence of numbers in (0, 1], got 0.5. {TIMES}",
        ),
        (
            {"times": "ab"},
            TypeError,
            f"times must be numbers in (0, 1], got times[0] = 'a'. {TIMES}",
        ),
        (
            {"times": (0.5, True)},
            TypeError,
            f"times must be numbers in (0, 1], got times[1] = True. {TIMES}",
        ),
        ({"times": (0, 1)}, ValueError, f"times must lie in (0, 1], got times[0] = 0. {TIMES}"),
        (
            {"times": (0.5, 1.5)},
            ValueError,
            f"times must lie in (0, 1], got times[1] = 1.5. {TIMES}",
        ),
        ({"times": (NAN,)}, ValueError, f"times must lie in (0, 1], got times[0] = nan. {TIMES}"),
        (
            {"times": (0.5, 0.4, 1)},
            ValueError,
            "times must never decrease, because only a prefix can freeze, got times[1] = 0.4 "
            f"after 0.5. {TIMES}",
        ),
    ],
)
def test_settings_out_of_range_say_what_was_given_what_is_allowed_and_what_to_do(
    settings, error, message
):
    with pytest.raises(error) as caught:
        Schedule(**settings)
    assert str(caught.value) == message
    assert type(caught.value) is error


LAYERS = "A model has one or more layers."
DONE = "It is the number of optimizer updates done."
UPDATES = "It is the number of optimizer updates."


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: freeze_times(0, 0.5),
            ValueError,
            f"num_layers must be at least 1, got 0. {LAYERS}",
        ),
        (
            lambda: freeze_times(2.0, 0.5),
            TypeError,
            f"num_layers must be a whole number of at least 1, got 2.0. {LAYERS}",
        ),
        (
            lambda: freeze_times(True, 0.5),
            TypeError,
            f"num_layers must be a whole number of at least 1, got True. {LAYERS}",
        ),
        (lambda: freeze_times(2, NAN), ValueError, f"t0 must lie in (0, 1], got nan. {T0}"),
        (
            lambda: freeze_times(2, 0.5, spacing="Cubic"),
            ValueError,
            f"spacing must be one of linear, squared, cubic, got 'Cubic'. {SPACING}",
        ),
        (
            lambda: initial_scales((0.5, 0.0)),
            ValueError,
            f"times must lie in (0, 1], got times[1] = 0.0. {TIMES}",
        ),
        (
            lambda: initial_scales((0.5, 1.0), cap=0),
            ValueError,
            f"scale_cap must be at least 1, got 0. {CAP}",
        ),
        (lambda: annealing("sine"), ValueError, f"{ALLOWED}, got 'sine'. {CURVE}"),
        (
            lambda: Schedule().freeze_steps(2, 0),
            ValueError,
            f"total_steps must be at least 1, got 0. {UPDATES}",
        ),
        (
            lambda: Schedule().freeze_steps(2, 10.0),
            TypeError,
            f"total_steps must be a whole number of at least 1, got 10.0. {UPDATES}",
        ),
        (
            lambda: Schedule().factors(0, 0, 2),
            ValueError,
            f"total_steps must be at least 1, got 0. {UPDATES}",
        ),
        (
            lambda: Schedule().factors(-1, 10, 2),
            ValueError,
            f"step must be at least 0, got -1. {DONE}",
        ),
        (
            lambda: Schedule().factors(0.5, 10, 2),
            TypeError,
            f"step must be a whole number of at least 0, got 0.5. {DONE}",
        ),
    ],
)
def test_functions_refuse_arguments_out_of_range(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_rates_need_one_scale_per_time():
    with pytest.raises(ValueError, match="zip"):
        rate_factors(0.1, (0.5, 1.0), (1.0,), annealing("cosine"))


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_t0_is_taken_exactly_where_it_lies_in_range(t0):
    assume(not 0.0 < t0 <= 1.0)
    with pytest.raises(ValueError, match=r"t0 must lie in \(0, 1\]"):
        Schedule(t0=t0)


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
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == "(0.5, 0.75, 1.0)\n[]\n"


# Freezing together


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.4, 0.5, 0.9, 1.0]), max_size=7),
    st.integers(1, 5),
)
def test_merging_keeps_what_is_saved(times, most):
    times = [*sorted(times), 1.0]
    merged = Schedule(times=times, max_freezes=most).freeze_times(len(times))
    assert list(merged) == sorted(merged)
    assert len({t for t in merged if t < 1.0}) <= most
    early = sum(t < 1.0 for t in times)
    assert merged[early:] == tuple(times[early:])
    assert sum(merged) == pytest.approx(sum(times))  # as much saved, if all layers cost the same


def test_merged_layers_learn_until_they_freeze():
    alone = Schedule(t0=0.5, spacing="linear")
    merged = Schedule(t0=0.5, spacing="linear", max_freezes=2)
    assert alone.freeze_times(5) == (0.5, 0.625, 0.75, 0.875, 1.0)
    assert merged.freeze_times(5) == (0.5625, 0.5625, 0.8125, 0.8125, 1.0)
    assert merged.freeze_steps(5, 80) == (45, 45, 65, 65, None)
    assert merged.factors(42, 80, 5)[0] > 0.0 == alone.factors(42, 80, 5)[0]
    assert merged.scales(5)[0] == 1 / 0.5625
    assert Schedule(t0=0.5, max_freezes=100).freeze_times(5) == Schedule(t0=0.5).freeze_times(5)
    assert merged.differences(alone.to_dict()) == ["max_freezes=None there but max_freezes=2 here"]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "max_freezes must be at least 1, got 0"),
        (2.0, TypeError, "max_freezes must be a whole number of at least 1, got 2.0"),
        (True, TypeError, "max_freezes must be a whole number"),
    ],
)
def test_bad_max_freezes(value, error, message):
    with pytest.raises(error, match=message):
        Schedule(max_freezes=value)
