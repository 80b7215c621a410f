"""The schedule for a wanted saving: curves turned round, the budget, merging, every message."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize

import strategies as own
from freezeout import Plan, Schedule, freeze_times, plan
from freezeout._allocate import budget_times, default_weights, pooled
from freezeout.merging import merge_times
from strategies import made_costs

CURVES = ["linear", "squared", "cubic"]
SPACINGS = [*CURVES, "budget"]
GRAIN = 1e-4

FOUR = made_costs((1.0, 2.0, 0.5), last=0.5, overhead=0.5)
"""A step takes 6 s, or 2.5 s with all but the last layer frozen."""

TEN = made_costs([0.3, 1.0, 0.2, 0.9, 0.1, 0.6, 0.6, 0.05, 0.4])


def gentler(made):
    """The plan with the next larger t0."""
    schedule = dataclasses.replace(made.schedule, t0=made.schedule.t0 + GRAIN)
    return dataclasses.replace(made, schedule=schedule)


# --- Turned round ------------------------------------------------------------------------------


@given(
    own.costs(),
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


@given(own.costs(noisy=True), st.sampled_from(SPACINGS), st.floats(0.0, 0.9), st.integers(1, 5000))
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
    own.costs(min_layers=3, noisy=True),
    st.sampled_from(SPACINGS),
    st.floats(0.0, 0.5),
    st.integers(1, 4),
    st.integers(1, 3000),
)
def test_max_freezes_holds_for_any_costs(costs, spacing, wanted, most, steps):
    made = plan(costs, steps, saving=wanted, spacing=spacing, max_freezes=most)
    assert made.freezes <= most
    assert made.reached == (made.saving >= wanted)


# --- The budget --------------------------------------------------------------------------------


def lost_worth(times, weights):
    """The objective: the squared learning time lost, by what it is worth."""
    lost = 1.0 - np.array(times)[..., : len(weights)]
    return (weights * lost**2).sum(axis=-1)


def parts(costs):
    """Which fraction of a step each layer but the last saves."""
    return np.array([layer.saving for layer in costs.layers[:-1]]) / costs.step_seconds()


@given(own.costs(min_layers=3), st.floats(0.02, 0.95), st.floats(0.02, 0.5), st.integers(0, 99))
def test_no_random_schedule_is_better_than_the_budget(costs, share, least, seed):
    c, n = parts(costs), len(costs) - 1
    limit = c.sum() * (1.0 - least)
    assume(limit > 1e-3)
    weights = np.array(default_weights(n + 1))
    made = plan(costs, 10**6, saving=share * limit, spacing="budget", least_t0=least)
    assert made.reached
    rng = np.random.default_rng(seed)
    lost = -np.sort(-(rng.random((4000, n)) ** rng.choice([0.2, 1.0, 4.0], (4000, 1))), axis=1)
    lost[rng.random(4000) < 0.3] *= np.arange(n) < rng.integers(1, n + 1)
    near = np.array(made.freeze_times[:-1])
    lost[:500] = np.minimum.accumulate(1 - near + rng.normal(0, 0.01, (500, n)), axis=1).clip(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        lost *= made.saving / (lost @ c)[:, None]  # each saves as much as the plan
    possible = lost[np.isfinite(lost).all(axis=1) & (lost[:, 0] <= 1.0 - least)]
    best = lost_worth(made.freeze_times, weights)
    assert (lost_worth(1.0 - possible, weights) >= best - 1e-4 * best - 1e-9).all()
    assert list(made.freeze_times) == sorted(made.freeze_times)


def by_slsqp(c, weights, saving, least):
    """The best of several starts of a general solver."""
    n = len(c)
    constraints = [{"type": "eq", "fun": lambda x: c @ x - saving, "jac": lambda x: c}]
    if n > 1:
        falling = np.eye(n)[:-1] - np.eye(n)[1:]
        constraints.append({"type": "ineq", "fun": lambda x: falling @ x, "jac": lambda x: falling})
    rng = np.random.default_rng(0)
    found = [
        minimize(lambda x: weights @ x**2, start, jac=lambda x: 2 * weights * x, method="SLSQP",
                 bounds=[(0.0, 1.0 - least)] * n, constraints=constraints,
                 options={"ftol": 1e-14, "maxiter": 500})
        for start in [np.full(n, saving / c.sum()), *-np.sort(-rng.random((3, n)), axis=1)]
    ]  # fmt: skip
    best = min((one for one in found if one.success), key=lambda one: one.fun)
    return 1.0 - best.x, best.fun


@pytest.mark.parametrize("seed", range(24))
def test_budget_agrees_with_a_general_solver(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    costs = made_costs(rng.uniform(0.05, 1.0, n).tolist())
    weights = rng.uniform(0.1, 3.0, n + 1)
    least = float(rng.uniform(0.1, 0.5))
    c = parts(costs)
    wanted = float((0.97 if seed % 2 else 0.4) * c.sum() * (1 - least))
    made = plan(costs, 10**6, saving=wanted, spacing="budget", weights=weights, least_t0=least)
    times, worth = by_slsqp(c, weights[:-1], wanted, least)
    assert lost_worth(made.freeze_times, weights[:-1]) == pytest.approx(worth, rel=1e-4)
    assert made.freeze_times[:-1] == pytest.approx(times, abs=2e-3)
    if times[0] < least + 1e-6:
        assert made.freeze_times[0] == least


def test_a_budget_with_its_bound_in_force_by_hand():
    """The first layer may lose no more than a half, so the others lose twice 0.2 of 0.1 each."""
    costs = made_costs((1.0, 0.1, 0.1))
    wanted = (1.0 * 0.5 + 0.2 * 0.2) / costs.step_seconds()
    made = plan(costs, 10**6, saving=wanted, spacing="budget", weights=(1, 1, 1, 1), least_t0=0.5)
    assert made.freeze_times == pytest.approx((0.5, 0.8, 0.8, 1.0), abs=5e-6)
    times, _ = by_slsqp(parts(costs), np.ones(3), wanted, 0.5)
    assert times == pytest.approx((0.5, 0.8, 0.8), abs=1e-4)


@pytest.mark.parametrize("layers", [2, 3, 10, 40])
@pytest.mark.parametrize("wanted", [0.05, 0.2])
def test_equal_costs_give_the_linear_times_of_the_paper(layers, wanted):
    costs = made_costs([1.0] * (layers - 1))
    made = plan(costs, 10_000, saving=wanted, spacing="budget")
    linear = freeze_times(layers, made.freeze_times[0], spacing="linear")
    assert made.freeze_times == pytest.approx(linear, abs=1e-14)
    assert made.freeze_steps == Schedule(times=linear).freeze_steps(layers, 10_000)


def test_costly_layers_freeze_earlier_but_input_first():
    even = plan(made_costs((1.0, 1.0, 1.0)), 10_000, saving=0.2, spacing="budget")
    first = plan(made_costs((2.0, 1.0, 1.0)), 10_000, saving=0.2, spacing="budget")
    late = plan(made_costs((1.0, 1.0, 9.0)), 10_000, saving=0.2, spacing="budget")
    lost = [1 - np.array(made.freeze_times) for made in (even, first)]
    assert lost[0][0] / lost[0][1] == pytest.approx(3 / 2)
    assert lost[1][0] / lost[1][1] == pytest.approx(2 * 3 / 2)
    assert late.freeze_times[0] == late.freeze_times[1] == late.freeze_times[2]


def test_layers_worth_more_learn_longer():
    """Two equal layers: with equal weights they lose the same; worth twice, half as much."""
    costs = made_costs((1.0, 1.0))
    same = plan(costs, 10**6, saving=0.1, spacing="budget", weights=(3, 3, 1))
    assert same.freeze_times[0] == same.freeze_times[1]
    twice = plan(costs, 10**6, saving=0.1, spacing="budget", weights=np.array([1.0, 2.0, 1.0]))
    assert 1 - twice.freeze_times[1] == pytest.approx((1 - twice.freeze_times[0]) / 2, rel=1e-12)
    other_last = plan(costs, 10**6, saving=0.1, spacing="budget", weights=(1.0, 2.0, 99.0))
    assert other_last == twice


@given(own.costs(), st.floats(0.01, 0.9), st.integers(1, 3000))
def test_budget_saves_what_is_wanted_and_less_than_a_step_more(costs, wanted, steps):
    made = plan(costs, steps, saving=wanted, spacing="budget")
    if made.reached:
        assert wanted <= made.saving <= wanted + 1.0 / steps + 1e-12
    else:
        assert made.saving < wanted


def test_a_budget_with_a_layer_that_saves_next_to_nothing():
    """A saving of mere rounding makes the search wide, but not coarse."""
    costs = made_costs((1.0, 0.5, 1e-17), frozen=(0.5, 0.5, 0.0))
    made = plan(costs, 10**6, saving=0.2, spacing="budget")
    assert made.reached
    assert made.saving == pytest.approx(0.2, abs=2e-6)


@given(st.data(), st.integers(1, 8))
def test_pooled_is_the_nearest_falling_sequence(data, n):
    """It falls, keeps the sum of every block, and no step towards another falling one is better."""
    numbers = st.floats(-1.0, 5.0).map(lambda x: round(x, 3))
    c = np.array(data.draw(st.lists(numbers, min_size=n, max_size=n)))
    w = np.array(data.draw(st.lists(st.floats(0.05, 5.0), min_size=n, max_size=n)))
    m = np.array(pooled(c.tolist(), w.tolist()))
    assert (np.diff(m) <= 0).all()
    left_over = np.cumsum(c - w * m)  # optimal: never above 0, and 0 at the end of each block
    assert (left_over <= 1e-9).all()
    ends = np.append(np.diff(m) < 0, True)
    assert left_over[ends] == pytest.approx(0.0, abs=1e-9)


@given(st.lists(st.floats(0.1, 9.0), min_size=2, max_size=8), st.floats(0.1, 1.0))
def test_budget_times_never_decrease_in_spite_of_rounding(weights, ratio):
    """Where every layer brings in as much as it is worth, all slopes are nearly the same."""
    slopes = pooled([ratio * weight for weight in weights], weights)
    assert all(a >= b for a, b in itertools.pairwise(slopes))
    Schedule(times=budget_times(slopes, 0.5, 0.1))  # takes no others


# --- Merging -----------------------------------------------------------------------------------


def brute_force(times, costs, most):
    """The least spread around the mean of each part, over all partitions into at most `most`."""
    n = len(times)
    best = math.inf
    for k in range(min(most, n)):
        for cuts in itertools.combinations(range(1, n), k):
            spread = 0.0
            for a, b in itertools.pairwise((0, *cuts, n)):
                t, c = np.array(times[a:b]), np.array(costs[a:b])
                spread += (c * (t - (c @ t) / c.sum()) ** 2).sum()
            best = min(best, spread)
    return best


@given(st.data(), st.integers(1, 8), st.integers(1, 9))
def test_merging_is_the_best_of_all_partitions(data, n, most):
    times = sorted(data.draw(st.lists(st.floats(0.01, 0.99), min_size=n, max_size=n)))
    costs = data.draw(st.lists(st.floats(0.01, 1.0), min_size=n, max_size=n))
    merged = merge_times((*times, 1.0), (*costs, 5.0), most)
    assert merged[-1] == 1.0
    assert len(set(merged[:-1])) <= most
    assert list(merged) == sorted(merged)
    kept = np.dot(costs, times)
    assert np.dot(costs, merged[:-1]) == pytest.approx(kept, rel=1e-12)
    spread = np.dot(costs, (np.array(merged[:-1]) - times) ** 2)
    assert spread == pytest.approx(brute_force(times, costs, most), rel=1e-6, abs=1e-12)
    if most >= len(set(times)):
        assert merged == (*times, 1.0)


def test_merging_by_hand():
    assert merge_times((0.2, 0.4, 0.9, 1.0), (1, 3, 1, 1), 2) == pytest.approx((0.35, 0.35, 0.9, 1))
    assert merge_times((0.2, 0.4, 0.9, 1.0), (1, 1, 2, 1), 1) == pytest.approx((0.6,) * 3 + (1.0,))


def test_layers_that_never_freeze_stay_out_of_it():
    assert merge_times((0.2, 0.4, 1.0, 1.0), (1, 1, 9, 1), 1) == pytest.approx((0.3, 0.3, 1.0, 1.0))
    assert merge_times((1.0, 1.0), (1, 1), 1) == (1.0, 1.0)


few_times = st.sampled_from([0.1, 0.3, 0.3 + 1e-16, 0.5, 0.7, 0.9, 1 - 1e-16])
rough_costs = st.sampled_from([0.0, -0.1, 1e-17, 1e-300, 1e-9, 0.1, 0.3, 1.0])


@given(st.lists(st.tuples(few_times, rough_costs), min_size=1, max_size=8), st.integers(1, 5))
def test_merged_times_never_decrease_in_spite_of_rounding_and_of_layers_that_save_nothing(
    pairs, most
):
    times = sorted(time for time, _ in pairs)
    costs = [cost for _, cost in pairs]
    merged = merge_times((*times, 1.0), (*costs, 1.0), most)
    Schedule(times=merged)  # takes no others
    assert len(set(merged) - {1.0}) <= most
    assert times[0] <= merged[0] <= merged[-2] <= times[-1]


# --- Every message -----------------------------------------------------------------------------

ONE = "t0 asks for its saving, the others for a schedule that saves as much."
WEIGHTS = "They say what a layer's learning time is worth."


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, TypeError, f"give one of saving, seconds and t0, got none. {ONE}"),
        (
            {"saving": 0.2, "t0": 0.8},
            TypeError,
            f"give one of saving, seconds and t0, got saving and t0. {ONE}",
        ),
        (
            {"saving": 0.2, "seconds": 5, "t0": 0.8},
            TypeError,
            f"give one of saving, seconds and t0, got saving and seconds and t0. {ONE}",
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
            {"saving": 0.2, "weights": (1, 1, 1, 1)},
            TypeError,
            "weights are for spacing='budget', got them with spacing='cubic'. Leave them out, or "
            "ask for a budget.",
        ),
        *(
            (
                {"saving": value},
                ValueError,
                f"saving must be a fraction in [0, 1), got {value}. Write 0.25 for 25 %.",
            )
            for value in (1.0, 25, -0.1, math.nan, math.inf)
        ),
        *(
            (
                {"seconds": value},
                ValueError,
                f"seconds must be above 0 and finite, got {value}. It is the wanted time of all "
                "training steps together.",
            )
            for value in (0, -1.0, math.nan, math.inf)
        ),
        *(
            (
                {"saving": 0.2, name: value},
                TypeError,
                f"{name} must be a number, got {value!r}. Write it as 0.2.",
            )
            for name, value in (("saving", "0.2"), ("saving", True), ("least_t0", "0.1"))
        ),
        (
            {"seconds": [5]},
            TypeError,
            "seconds must be a number, got [5]. Give a time such as 3600.",
        ),
        (
            {"saving": 0.2, "max_freezes": 0},
            ValueError,
            "max_freezes must be at least 1, got 0. t0=1 freezes nothing.",
        ),
        *(
            (
                {"saving": 0.2, "max_freezes": value},
                TypeError,
                f"max_freezes must be a whole number of at least 1, got {value!r}. None sets no "
                "limit.",
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
