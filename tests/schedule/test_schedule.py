"""Settings of a schedule: warm-up, cap, explicit times; as a value; freezing together."""

import dataclasses
import functools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeout import Schedule
from freezeout.schedule import warmup_factor
from tests import strategies

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


@given(st.integers(1, 10), strategies.usual_t0s, st.floats(1.0, 20.0))
def test_cap_limits_the_scaled_start_and_nothing_else(layers, t0, cap):
    free, capped = Schedule(t0=t0), Schedule(t0=t0, scale_cap=cap)
    expected = [min(scale, cap) for scale in free.scales(layers)]
    assert list(capped.scales(layers)) == expected
    assert capped.freeze_steps(layers, 500) == free.freeze_steps(layers, 500)
    assert Schedule(t0=t0, scaled=False, scale_cap=cap).scales(layers) == (1.0,) * layers


@given(strategies.explicit_times())
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
    state = Schedule(anneal=strategies.half_circle).to_dict()
    assert state["anneal"] == "tests.strategies.half_circle"
    json.dumps(state)
    assert Schedule(anneal=strategies.half_circle).differences(state) == []
    assert Schedule().differences(state) == [
        "anneal='tests.strategies.half_circle' there but anneal='cosine' here"
    ]
    partial = functools.partial(lambda k, u: (1 - u) ** k, 2)
    assert Schedule(anneal=partial).to_dict()["anneal"] == "functools.partial"


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
