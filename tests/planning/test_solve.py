"""The schedule for a wanted saving: curves turned round, wishes, settings, every message."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeout import Plan, Schedule, freeze_times, plan
from tests import strategies
from tests.planning.made import CURVES, FOUR, GRAIN, SPACINGS, TEN, gentler
from tests.strategies import made_costs

# --- Turned round ------------------------------------------------------------------------------


@given(
    strategies.costs(),
    st.sampled_from(CURVES),
    st.integers(1, 20_000),
    st.floats(0.0, 0.9, exclude_min=True),
)
def test_the_gentlest_curve_that_saves_as_much(costs, spacing, steps, wanted):
    made = plan(costs, steps, saving=wanted, spacing=spacing)
    assert made.total_steps == steps
    assert made.spacing == spacing
    most = Plan(costs, Schedule(t0=0.1, spacing=spacing), steps)
    assert made.reached == (most.saving >= wanted)
    if made.reached:
        assert made.note == ""
        assert made.saving >= wanted
        assert gentler(made).saving < wanted
    else:
        assert made.saving == pytest.approx(most.saving, abs=1e-9)
        assert "cannot be reached" in made.note


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [12, 1000, 10**6])
def test_seconds_are_a_saving(spacing, steps):
    baseline = 6.0 * steps
    by_saving = plan(FOUR, steps, saving=0.25, spacing=spacing)
    by_seconds = plan(FOUR, steps, seconds=0.75 * baseline, spacing=spacing)
    assert by_seconds == by_saving
    assert by_seconds.seconds <= 0.75 * baseline
    assert by_seconds.reached
    if spacing != "budget":
        assert gentler(by_seconds).seconds > 0.75 * baseline


@pytest.mark.parametrize("spacing", SPACINGS)
def test_asking_for_what_a_plan_saves_saves_that_again(spacing):
    made = plan(FOUR, 1000, saving=0.2, spacing=spacing)
    assert plan(FOUR, 1000, saving=made.saving, spacing=spacing).saving == made.saving


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 12, 10**6])
@pytest.mark.parametrize("wanted", [0.05, 0.2, 0.4, 0.6])
def test_short_and_long_runs(spacing, steps, wanted):
    made = plan(FOUR, steps, saving=wanted, spacing=spacing)
    assert made.reached == (made.saving >= wanted)
    assert (made.freezes == 0) == (steps == 1)
    # Freezing all but the last saves 3.5 of 6 s from then on: all but 1 of 2, or of 12 steps.
    assert made.saving <= 3.5 / 6 * (1 - 1 / min(steps, 12)) or steps > 12
    assert made.reached or wanted > 0.3 or steps < 12
    if steps == 10**6 and made.reached:
        assert made.saving == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_two_layers(spacing):
    """Of 2 s a step, freezing the first saves 1 s: a fifth where it freezes at 60 %."""
    made = plan(made_costs((1.0,), frozen=(0.5,), last=0.25, overhead=0.25), 10_000,
                saving=0.2, spacing=spacing)  # fmt: skip
    assert made.freeze_times[0] == pytest.approx(0.6, abs=3 * GRAIN)
    assert made.saving == pytest.approx(0.2, abs=3 * GRAIN)
    assert made.freezes == 1


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("wish", [{"saving": 0.0}, {"seconds": 6000.0}, {"seconds": 1e9}])
def test_nothing_freezes_where_nothing_must(spacing, wish):
    made = plan(FOUR, 1000, spacing=spacing, **wish)
    assert made.freeze_times == (1.0,) * 4
    assert made.saving == 0.0
    assert made.reached
    assert made.note == "nothing needs to freeze: the run takes 1h 40m without"


# --- Wishes that cannot be met -----------------------------------------------------------------


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_wish_too_large_gives_the_nearest(spacing):
    made = plan(FOUR, 1000, saving=0.9, spacing=spacing, least_t0=0.25)
    assert not made.reached
    assert made.freeze_times[0] == pytest.approx(freeze_times(4, 0.25, spacing=spacing)[0]
                                                 if spacing != "budget" else 0.25)  # fmt: skip
    for t0 in np.linspace(0.25, 1.0, 50) if spacing != "budget" else ():
        assert plan(FOUR, 1000, t0=t0, spacing=spacing).saving <= made.saving
    if spacing == "budget":
        assert made.freeze_times == (0.25, 0.25, 0.25, 1.0)


def test_notes_say_the_wish_and_the_limit():
    def note(**settings):
        return plan(FOUR, 1000, **settings).note

    limit = "the limit is 53.3 %, 46m 40s in all, and this plan is at it"
    assert note(saving=0.9) == (
        f"a saving of 90.0 % cannot be reached with cubic freeze times from t0 = 0.1 on: {limit}"
    )
    assert note(seconds=90.0) == (
        f"1m 30s cannot be reached with cubic freeze times from t0 = 0.1 on: {limit}"
    )
    assert note(saving=0.9, spacing="budget", least_t0=0.5) == (
        "a saving of 90.0 % cannot be reached with budget freeze times from 0.5 on: the limit is "
        "29.2 %, 1h 11m in all, and this plan is at it"
    )
    assert "from t0 = 0.9655 on" in note(saving=0.9, warmup_steps=900)
    assert note(saving=0.3) == ""
    assert "cannot be reached" in str(plan(FOUR, 1000, saving=0.9))
    hours = plan(FOUR, 100_000, seconds=7200.0).note
    assert hours.startswith("2h 00m cannot be reached")


@pytest.mark.parametrize("spacing", SPACINGS)
def test_where_nothing_is_saved_nothing_freezes(spacing):
    """Freezing brings nothing there, so the nearest plan is the gentlest."""
    made = plan(made_costs((0.0, 0.0, 0.0)), 100, saving=0.1, spacing=spacing)
    assert not made.reached
    assert made.freezes == 0
    assert made.saving == 0.0
    assert made.note.endswith("the limit is 0.0 %, 3m 08s in all, and this plan is at it")
    for savings in [(-0.01, -0.02, -0.01), (1e-17, 0.0, 5e-17)]:
        costs = made_costs(savings, frozen=(0.0, 0.0, 0.0))
        noise = plan(costs, 100, saving=0.1, spacing=spacing)
        assert (noise.freezes, noise.saving, noise.reached) == (0, 0.0, False)


@pytest.mark.parametrize("spacing", CURVES)
def test_where_noise_makes_a_layer_cost_something_the_best_is_in_between(spacing):
    """Freezing the second layer seems to cost more time than the first one saves."""
    costs = made_costs((0.5, -0.6))
    made = plan(costs, 10_000, saving=0.5, spacing=spacing)
    savings = {t0: plan(costs, 10_000, t0=t0, spacing=spacing).saving for t0 in _grid()}
    assert not made.reached
    assert made.saving == pytest.approx(max(savings.values()), abs=1e-4)
    assert made.saving > 0.0
    wanted = 0.5 * made.saving
    modest = plan(costs, 10_000, saving=wanted, spacing=spacing)
    assert modest.reached
    assert modest.saving >= wanted > gentler(modest).saving


def _grid():
    return [k / 100 for k in range(10, 101)]


@given(
    strategies.costs(noisy=True),
    st.sampled_from(SPACINGS),
    st.floats(0.0, 0.9),
    st.integers(1, 5000),
)
def test_with_noise_no_plan_is_worse_than_training_without(costs, spacing, wanted, steps):
    made = plan(costs, steps, saving=wanted, spacing=spacing)
    assert made.saving >= 0.0
    assert made.reached == (made.saving >= wanted)
    if spacing != "budget" and not made.reached:
        for t0 in _grid()[::9]:
            assert plan(costs, steps, t0=t0, spacing=spacing).saving <= made.saving + 1e-9


# --- Settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", SPACINGS)
def test_settings_of_the_schedule_are_passed_on(spacing):
    made = plan(FOUR, 1000, saving=0.2, spacing=spacing, scaled=False, anneal="linear",
                warmup_steps=7, scale_cap=3.0)  # fmt: skip
    assert (made.schedule.scaled, made.schedule.anneal) == (False, "linear")
    assert (made.schedule.warmup_steps, made.schedule.scale_cap) == (7, 3.0)
    plain = plan(FOUR, 1000, saving=0.2, spacing=spacing)
    assert plain.freeze_times == made.freeze_times
    assert plain.schedule.scaled
    merged = plan(FOUR, 1000, saving=0.2, spacing=spacing, anneal=None, max_freezes=1)
    assert merged.schedule.anneal is None


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("warmup", [1, 100, 333, 512, 900, 999, 1000])
def test_the_first_layer_freezes_after_the_warmup(spacing, warmup):
    made = plan(FOUR, 1000, saving=0.9, spacing=spacing, warmup_steps=warmup)
    first = made.freeze_steps[0]
    if first is None:
        assert warmup >= 999  # t0 has no more digits to be less than 1
    else:
        least = {"linear": 0.1, "squared": 0.01, "cubic": 0.001, "budget": 0.1}[spacing]
        assert warmup <= first <= max(warmup + 1, 1000 * least)


def test_a_given_t0_may_use_all_of_its_time_to_warm_up():
    made = plan(FOUR, 1000, t0=0.95, warmup_steps=857)  # more than the default schedule allows
    assert made.freeze_steps[0] == 858
    with pytest.raises(ValueError, match="warmup_steps must not exceed 858"):
        plan(FOUR, 1000, t0=0.95, warmup_steps=859)


@pytest.mark.parametrize("spacing", CURVES)
def test_a_given_t0_is_predicted(spacing):
    made = plan(FOUR, 1000, t0=0.0123, spacing=spacing, scaled=False)
    assert made == Plan(FOUR, Schedule(t0=0.0123, spacing=spacing, scaled=False), 1000)


@pytest.mark.parametrize("least", [1e-300, 1e-17, 1e-5])
def test_a_budget_from_next_to_nothing_on(least):
    made = plan(FOUR, 100, saving=0.99, spacing="budget", least_t0=least)
    assert made.freeze_times == (least, least, least, 1.0)
    assert made.freeze_steps == (1, 1, 1, None)


# --- At most so many freezes -------------------------------------------------------------------


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("most", [1, 2, 3, 8])
@pytest.mark.parametrize("wanted", [0.05, 0.15, 0.25])
def test_fewer_freezes_save_the_same(spacing, most, wanted):
    free = plan(TEN, 20_000, saving=wanted, spacing=spacing)
    made = plan(TEN, 20_000, saving=wanted, spacing=spacing, max_freezes=most)
    assert free.freezes == 9 if spacing != "budget" else free.freezes > 3
    assert 1 <= made.freezes <= most
    assert made.reached
    assert made.saving >= wanted
    assert made.saving == pytest.approx(free.saving, abs=2e-4)
    assert made.spacing == spacing


@pytest.mark.parametrize("most", [1, 2, 3])
def test_t0_with_fewer_freezes(most):
    free = plan(TEN, 10_000, t0=0.5)
    made = plan(TEN, 10_000, t0=0.5, max_freezes=most)
    assert made.freezes == most
    assert made.saving == pytest.approx(free.saving, abs=1e-4)
    assert free.freeze_times[0] <= made.freeze_times[0] <= made.freeze_times[-2]


def test_enough_freezes_change_nothing():
    assert plan(TEN, 10_000, t0=0.5, max_freezes=9) == plan(TEN, 10_000, t0=0.5)
    # Of a short run, several layers freeze at the same step anyway.
    short = plan(TEN, 4, t0=0.5)
    assert short.freezes == 3
    assert plan(TEN, 4, t0=0.5, max_freezes=3) == short


@given(
    strategies.costs(min_layers=3, noisy=True),
    st.sampled_from(SPACINGS),
    st.floats(0.0, 0.5),
    st.integers(1, 4),
    st.integers(1, 3000),
)
def test_max_freezes_holds_for_any_costs(costs, spacing, wanted, most, steps):
    made = plan(costs, steps, saving=wanted, spacing=spacing, max_freezes=most)
    assert made.freezes <= most
    assert made.reached == (made.saving >= wanted)


def test_explicit_times_are_planned_as_they_are_or_merged():
    times = (0.1, 0.2, 0.6, 1.0)
    made = plan(FOUR, 100, times=times, scaled=False)
    assert made == Plan(FOUR, Schedule(times=times, scaled=False), 100)
    merged = plan(FOUR, 100, times=times, max_freezes=2)
    assert merged.freezes == 2
    assert merged.saving == pytest.approx(made.saving, abs=0.01)


# --- Every message -----------------------------------------------------------------------------

ONE = "t0 and times ask for their saving, the others for a schedule that saves as much."
WEIGHTS = "They say what a layer's learning time is worth."


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, TypeError, f"give one of saving, seconds, t0 and times, got none. {ONE}"),
        (
            {"saving": 0.2, "t0": 0.8},
            TypeError,
            f"give one of saving, seconds, t0 and times, got saving and t0. {ONE}",
        ),
        (
            {"saving": 0.2, "seconds": 5, "t0": 0.8},
            TypeError,
            f"give one of saving, seconds, t0 and times, got saving and seconds and t0. {ONE}",
        ),
        (
            {"saving": 0.2, "spacing": "quartic"},
            ValueError,
            "spacing must be one of linear, squared, cubic, budget, got 'quartic'. It says how "
            "freeze times grow from the first layer to the last.",
        ),
        (
            {"t0": 0.5, "spacing": "budget"},
            TypeError,
            "spacing='budget' takes no t0: its freeze times follow from the saving. Give saving "
            "or seconds.",
        ),
        (
            {"times": (0.5, 1, 1, 1), "spacing": "budget"},
            TypeError,
            "spacing='budget' takes no times: its freeze times follow from the saving. Give saving "
            "or seconds.",
        ),
        (
            {"saving": 0.2, "times": (0.5, 1, 1, 1)},
            TypeError,
            f"give one of saving, seconds, t0 and times, got saving and times. {ONE}",
        ),
        (
            {"times": (0.5, 1)},
            ValueError,
            "times holds 2 freeze times, but the model was cut into 4 layers. Give one time per "
            "layer, or name the layers yourself.",
        ),
        (
            {"saving": 0.2, "weights": (1, 1, 1, 1)},
            TypeError,
            "weights are for spacing='budget', got them with spacing='cubic'. Leave them out, or "
            "ask for a budget.",
        ),
        *(
            (
                {"saving": value},
                ValueError,
                f"saving must lie in [0, 1), got {value}. Write 0.25 for 25 %.",
            )
            for value in (1.0, 25, -0.1, math.nan, math.inf)
        ),
        *(
            (
                {"seconds": value},
                ValueError,
                f"seconds must be above 0 and finite, got {value}. It is the wanted time of all "
                "training steps together, such as 3600.",
            )
            for value in (0, -1.0, math.nan, math.inf)
        ),
        *(
            (
                {"saving": 0.2, name: value},
                TypeError,
                f"{name} must be a number in {words}",
            )
            for name, value, words in (
                ("saving", "0.2", "[0, 1), got '0.2'. Write 0.25 for 25 %."),
                ("saving", True, "[0, 1), got True. Write 0.25 for 25 %."),
                ("least_t0", "0.1", "(0, 1], got '0.1'. The paper goes to 0.1."),
            )
        ),
        (
            {"seconds": [5]},
            TypeError,
            "seconds must be a number, got [5]. It is the wanted time of all training steps "
            "together, such as 3600.",
        ),
        (
            {"saving": 0.2, "max_freezes": 0},
            ValueError,
            "max_freezes must be at least 1, got 0. None sets no limit; t0=1 freezes nothing.",
        ),
        *(
            (
                {"saving": 0.2, "max_freezes": value},
                TypeError,
                f"max_freezes must be a whole number of at least 1, got {value!r}. None sets no "
                "limit; t0=1 freezes nothing.",
            )
            for value in (2.0, True, "2")
        ),
        *(
            (
                {"saving": 0.2, "least_t0": value},
                ValueError,
                f"least_t0 must lie in (0, 1], got {value}. The paper goes to 0.1.",
            )
            for value in (0, 1.5, -0.1, math.nan)
        ),
        *(
            (
                {"saving": 0.2, "spacing": "budget", "weights": value},
                ValueError,
                "weights must be one number above 0 for each of the 4 layers, got "
                f"{list(value)}. {WEIGHTS}",
            )
            for value in ((1, 1), (1, 1, 0, 1), (1, 1, math.inf, 1), (1, math.nan, 1, 1))
        ),
        # What a schedule checks comes through.
        (
            {"t0": 1.5},
            ValueError,
            "t0 must lie in (0, 1], got 1.5. It is the fraction of training after which the first "
            "layer may freeze.",
        ),
        (
            {"saving": 0.2, "warmup_steps": 101},
            ValueError,
            "warmup_steps must not exceed 100, the step at which the first layer freezes, got 101. "
            "Warm up for less, raise t0, or train for longer.",
        ),
        (
            {"saving": 0.2, "scale_cap": 0.5},
            ValueError,
            "scale_cap must be at least 1, got 0.5. It limits the factor 1/t_i that scaling puts "
            "on a base rate; None sets no limit.",
        ),
    ],
)
def test_messages(settings, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$") as caught:
        plan(FOUR, 100, **settings)
    assert type(caught.value) is error


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("steps", "error"), [(0, ValueError), (10.0, TypeError), ("9", TypeError)])
def test_steps_are_checked(spacing, steps, error):
    with pytest.raises(error, match=r"total_steps must be .*at least 1, got"):
        plan(FOUR, steps, saving=0.2, spacing=spacing)


def test_costs_are_checked():
    with pytest.raises(TypeError) as caught:
        plan([1.0, 2.0], 100, saving=0.2)
    assert str(caught.value) == (
        "costs must be freezeout.Costs, got [1.0, 2.0]. Measure them first."
    )


@pytest.mark.parametrize("unit", [1e308, 1e-308, 5.0])
def test_only_the_proportion_of_weights_counts(unit):
    costs = made_costs((2.0, 1.0))
    one = plan(costs, 1000, saving=0.1, spacing="budget", weights=(0.5, 1.0, 1.0))
    scaled = tuple(unit * w for w in (0.5, 1.0, 1.0))
    assert plan(costs, 1000, saving=0.1, spacing="budget", weights=scaled) == one


@pytest.mark.parametrize("weights", [5, "abc", {"a": 1}, ("1", "2", "3"), (True, 1, 1)])
def test_weights_that_are_no_numbers(weights):
    with pytest.raises(TypeError, match="weights must be"):
        plan(made_costs((2.0, 1.0)), 1000, saving=0.1, spacing="budget", weights=weights)


def test_a_merged_curve_says_so():
    made = plan(made_costs((2.0, 1.5, 1.0, 0.5)), 1000, t0=0.5, max_freezes=2)
    assert str(made).startswith("cubic, merged to 2 freezes, scaled, 1,000 steps\n")
