"""The budget, and merging freezes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize

from freezeout import Schedule, freeze_times, plan
from freezeout.planning.allocate import budget_times, default_weights, pooled
from freezeout.schedule import merge_times
from tests import strategies
from tests.strategies import made_costs

# --- The budget --------------------------------------------------------------------------------


def lost_worth(times, weights):
    """The objective: the squared learning time lost, by what it is worth."""
    lost = 1.0 - np.array(times)[..., : len(weights)]
    return (weights * lost**2).sum(axis=-1)


def parts(costs):
    """Which fraction of a step each layer but the last saves."""
    return np.array([layer.saving for layer in costs.layers[:-1]]) / costs.step_seconds()


@given(
    strategies.costs(min_layers=3), st.floats(0.02, 0.95), st.floats(0.02, 0.5), st.integers(0, 99)
)
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


@given(strategies.costs(), st.floats(0.01, 0.9), st.integers(1, 3000))
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
