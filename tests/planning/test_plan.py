"""What a schedule saves: its numbers written out again, its interval, the run of equal time."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

from freezeout import CostError, FreezeOut, Plan, Schedule, plan, predicted_saving, split_layers
from freezeout.costs import order_statistic
from tests import strategies
from tests.planning.plans import LINEAR, THREE, any_plan, plans
from tests.strategies import made_costs

# --- Every number written out again ------------------------------------------------------------


def test_a_small_plan_by_hand():
    made = Plan(THREE, LINEAR, 8)
    assert made.freeze_times == (0.5, 0.75, 1.0)
    assert made.freeze_steps == (4, 6, None)
    assert made.steps_at_depth == (4, 2, 2)
    assert made.freezes == 2
    assert made.baseline_seconds == 8 * 4.25
    assert made.seconds == 4 * 4.25 + 2 * 2.25 + 2 * 1.25
    assert made.saving == 1 - (4 * 4.25 + 2 * 2.25 + 2 * 1.25) / (8 * 4.25)
    # Forward: 100, 200, 300 always; backward: 150, 300, 450 until frozen.
    assert made.flops_saving == 1 - (4 * 1500 + 2 * 1350 + 2 * 1050) / (8 * 1500)
    # Held: 2000, 1000, 0. State: 80, 160, 240. Gradients: half of it.
    assert made.activation_saving == 1 - (4 * 3000 + 2 * 1000) / (8 * 3000)
    assert made.state_saving == 1 - (4 * 480 + 2 * 400 + 2 * 240) / (8 * 480)
    assert made.gradient_saving == made.state_saving
    assert [made.depth_at(n) for n in range(9)] == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert [made.step_seconds(n) for n in (3, 4, 6)] == [4.25, 2.25, 1.25]
    assert (made.spacing, made.note, made.reached) == ("linear", "", True)


@given(any_plan)
def test_numbers_follow_from_the_freeze_steps(made):
    """In float64, layer by layer: each saves its part from its freeze step on."""
    layers, steps = made.costs.layers, made.total_steps
    left = np.array([0.0 if n is None else steps - n for n in made.freeze_steps]) / steps
    seconds = np.array([layer.forward + layer.backward + layer.optimizer for layer in layers])
    gone = seconds - [layer.frozen_forward for layer in layers]
    step = made.costs.overhead + seconds.sum()
    assert made.saving == pytest.approx(left @ gone / step, abs=1e-12)
    assert made.seconds == pytest.approx(steps * (step - left @ gone), rel=1e-12)
    assert made.baseline_seconds == pytest.approx(steps * step, rel=1e-12)
    for value, field in (
        (made.activation_saving, "saved_bytes"),
        (made.state_saving, "state_bytes"),
        (made.gradient_saving, "gradient_bytes"),
    ):
        held = np.array([getattr(layer, field) for layer in layers], dtype=np.float64)
        assert value == pytest.approx(left @ held / held.sum(), abs=1e-12)
    back = np.array([layer.backward_flops for layer in layers], dtype=np.float64)
    flops = back.sum() + sum(layer.forward_flops for layer in layers)
    assert made.flops_saving == pytest.approx(left @ back / flops, abs=1e-12)


@given(st.integers(2, 8).flatmap(plans).filter(lambda made: made.total_steps <= 300))
def test_it_is_what_counting_step_by_step_gives(made):
    one_by_one = [made.step_seconds(n) for n in range(made.total_steps)]
    assert made.seconds == pytest.approx(math.fsum(one_by_one), rel=1e-12)
    depths = [made.depth_at(n) for n in range(made.total_steps)]
    assert made.steps_at_depth == tuple(depths.count(d) for d in range(len(made.costs)))


@given(any_plan)
def test_steps_add_up_and_predicted_saving_of_them_is_the_same(made):
    assert sum(made.steps_at_depth) == made.total_steps
    assert min(made.steps_at_depth) >= 0
    assert predicted_saving(made.costs, dict(enumerate(made.steps_at_depth))) == made.saving


@given(strategies.costs(noisy=True), strategies.spacings, strategies.total_steps)
def test_nothing_is_saved_where_nothing_freezes(costs, spacing, steps):
    made = Plan(costs, Schedule(t0=1.0, spacing=spacing), steps)
    assert made.saving == 0.0
    assert made.seconds == made.baseline_seconds
    assert made.flops_saving == made.activation_saving == made.state_saving == 0.0
    assert made.freezes == 0


@given(
    strategies.costs(),
    strategies.spacings,
    strategies.total_steps,
    strategies.usual_t0s,
    strategies.usual_t0s,
)
def test_saving_falls_as_t0_rises(costs, spacing, steps, a, b):
    early = Plan(costs, Schedule(t0=min(a, b), spacing=spacing), steps)
    late = Plan(costs, Schedule(t0=max(a, b), spacing=spacing), steps)
    assert early.saving >= late.saving - 1e-12 >= -2e-12


def test_saving_really_falls():
    values = [Plan(THREE, Schedule(t0=t0), 1000).saving for t0 in (0.1, 0.3, 0.5, 0.8, 0.95, 1.0)]
    assert all(a > b for a, b in itertools.pairwise(values))


def test_predicted_saving_of_any_stretch():
    assert predicted_saving(THREE, {}) == 0.0
    assert predicted_saving(THREE, {0: 7}) == 0.0
    assert predicted_saving(THREE, {2: 7}) == 1 - 1.25 / 4.25
    assert predicted_saving(THREE, {2: 1, 0: 1}) == pytest.approx((1 - 1.25 / 4.25) / 2, rel=1e-15)
    with pytest.raises(ValueError, match="depth must lie in 0 to 2, got 3"):
        predicted_saving(THREE, {3: 1})


def test_more_in_every_step_saves_a_smaller_part():
    made = Plan(THREE, LINEAR, 8)
    loading = Plan(THREE.with_overhead(4.25), LINEAR, 8)
    assert loading.saving == pytest.approx(made.saving / 2, rel=1e-15)
    assert loading.interval == pytest.approx((made.saving / 2,) * 2, rel=1e-14)
    assert loading.baseline_seconds - loading.seconds == pytest.approx(
        made.baseline_seconds - made.seconds, rel=1e-15
    )
    assert loading.freeze_steps == made.freeze_steps


def test_layers_without_state_save_none():
    layers = tuple(
        dataclasses.replace(layer, state_bytes=0, gradient_bytes=0) for layer in THREE.layers
    )
    made = Plan(dataclasses.replace(THREE, layers=layers), LINEAR, 8)
    assert made.state_saving == made.gradient_saving == 0.0
    assert made.saving > 0


# --- The same schedule as FreezeOut ------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 12, 101])
@pytest.mark.parametrize("settings", [{"t0": 0.3}, {"saving": 0.3, "spacing": "budget"}])
def test_freeze_out_follows_the_plan(settings, steps):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    names = split_layers(model).names
    made = plan(made_costs((1.0, 0.5, 2.0, 0.1), names=names), steps, **settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, made.total_steps, schedule=made.schedule)
    made.check(scheduler.layers)
    assert scheduler.freeze_steps == made.freeze_steps
    assert scheduler.freeze_times == made.freeze_times
    for n in range(steps + 1):
        assert scheduler.depth_at(n) == made.depth_at(n)
    for n in range(1, steps + 1):
        scheduler.step(n)
        assert scheduler.frozen == made.depth_at(n)
    assert (made.freezes > 0) == (steps > 1)


def test_a_plan_for_other_layers_is_refused():
    made = Plan(made_costs((1.0, 1.0), names=["0", "1", "2"]), LINEAR, 8)
    three = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    made.check(split_layers(three))
    with pytest.raises(CostError) as caught:
        made.check(split_layers(three[:2]))
    assert str(caught.value) == (
        "the plan was made for 3 layers, but the model has 2, and layer 2 is '2' in the plan and "
        "None in the model. Make a plan for this model."
    )
    other = Plan(made_costs((1.0, 1.0), names=["0", "stem", "2"]), LINEAR, 8)
    with pytest.raises(CostError, match="layer 1 is 'stem' in the plan and '1' in the model"):
        other.check(split_layers(three))


def test_a_plan_checks_its_parts():
    with pytest.raises(ValueError, match="total_steps must be at least 1, got 0"):
        Plan(THREE, LINEAR, 0)
    with pytest.raises(ValueError, match=r"times holds 2 freeze times, but .* 3 layers"):
        Plan(THREE, Schedule(times=(0.5, 1.0)), 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Plan(THREE, LINEAR, 8).total_steps = 9  # type: ignore[misc]
    assert Plan(THREE, LINEAR, 8) == Plan(THREE, LINEAR, 8) != Plan(THREE, LINEAR, 9)
    assert Plan(THREE, Schedule(times=(0.5, 0.6, 1.0)), 8).spacing == "own"


# --- The interval ------------------------------------------------------------------------------


def hand_made_savings(made):
    """Of every round alone, where every depth was measured."""
    counts = np.array(made.steps_at_depth) / made.total_steps
    return np.sort([1 - counts @ np.array(row) / row[0] for row in made.costs.rounds])


@pytest.mark.parametrize(("rounds", "outside"), [(6, 0), (8, 0), (9, 1), (12, 2), (20, 5)])
def test_interval_is_a_pair_of_order_statistics(rounds, outside):
    """Outside 9 of 20 there lie 2 * (1 + 20 + ... + 15504) / 2**20 = 4.1 %; 10 would be 11.5 %."""
    noise = np.random.default_rng(rounds).normal(0.0, 0.1, rounds)
    noise -= np.median(noise)
    made = Plan(made_costs((2.0, 1.0), noise=noise), LINEAR, 8)
    values = hand_made_savings(made)
    assert made.interval == pytest.approx((values[outside], values[-1 - outside]), rel=1e-12)


@pytest.mark.parametrize("rounds", [*range(1, 41), 999, 1500])
def test_order_statistics_are_the_innermost_that_cover_the_median(rounds):
    k = order_statistic(rounds)
    if rounds < 6:
        assert k is None
        return
    assert 1 - 2 * binom.cdf(k, rounds, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(k + 1, rounds, 0.5) < 0.95


@pytest.mark.parametrize("rounds", [6, 12, 20])
def test_interval_covers_the_true_median_in_a_simulation(rounds):
    """Skewed noise; the point estimate is off, so that it does not cover the truth by itself."""
    rng = np.random.default_rng(3)
    runs, truth = 1500, Plan(THREE, LINEAR, 8).saving
    counts = np.array(Plan(THREE, LINEAR, 8).steps_at_depth) / 8
    steps = np.array([THREE.step_seconds(d) for d in range(3)])
    covered = narrow = 0
    for noise in np.exp(rng.uniform(-0.3, 0.3, (runs, rounds))) - 1.0:
        rows = steps - noise[:, None] * (steps[0] - steps)
        centre = np.median(1 - rows @ counts / rows[:, 0])
        estimate = made_costs(
            (2.0 * centre / truth, 1.0 * centre / truth), frozen=(0.5, 0.25), overhead=0.25
        )
        measured = dataclasses.replace(estimate, rounds=tuple(map(tuple, rows)))
        low, high = Plan(measured, LINEAR, 8).interval
        covered += low <= truth <= high
        narrow += high - low < 0.5 * truth
    assert covered / runs >= 0.95 - 3 * (0.95 * 0.05 / runs) ** 0.5
    assert narrow / runs > 0.2  # it is not everything


@given(any_plan)
def test_interval_encloses_the_point_estimate(made):
    if len(made.costs.rounds) < 6:
        assert made.interval is None
    else:
        low, high = made.interval
        assert low <= made.saving <= high


def test_interval_of_rounds_that_all_lie_on_one_side():
    low, high = Plan(made_costs((2.0, 1.0), noise=(0.1,) * 6), LINEAR, 8).interval
    point = Plan(made_costs((2.0, 1.0)), LINEAR, 8).saving
    assert low == point
    assert high == pytest.approx(1.1 * point, rel=1e-12)


@given(strategies.schedules(3), strategies.total_steps)
def test_rounds_without_noise_leave_no_width(schedule, steps):
    low, high = Plan(made_costs((2.0, 1.0), noise=(0.0,) * 9), schedule, steps).interval
    assert high - low < 1e-12
    made = Plan(THREE, LINEAR, 8)
    assert made.interval == (made.saving, made.saving)


def test_interval_where_not_every_depth_was_measured():
    """What lies between follows the layers: 2 of the 3 seconds that both save belong to one."""
    costs = dataclasses.replace(THREE, depths=(0, 2), rounds=((4.0, 1.0), *((5.0, 2.0),) * 5))
    low, high = Plan(costs, LINEAR, 8).interval
    assert low == pytest.approx(1 - (4 * 5.0 + 2 * 3.0 + 2 * 2.0) / (8 * 5.0), rel=1e-12)
    assert high == pytest.approx(1 - (4 * 4.0 + 2 * 2.0 + 2 * 1.0) / (8 * 4.0), rel=1e-12)


# --- As many steps as fit ----------------------------------------------------------------------


@given(any_plan)
def test_lengthened_is_the_longest_run_that_fits_the_time(made):
    """The paper's constant-time experiment."""
    longer = made.lengthened()
    assert longer.schedule == made.schedule
    assert longer.total_steps >= made.total_steps
    limit = made.baseline_seconds * (1 + 1e-12)
    assert longer.seconds <= limit
    more = dataclasses.replace(made, total_steps=longer.total_steps + 1)
    assert more.seconds > limit


def test_lengthened_by_hand():
    made = Plan(made_costs((2.0, 1.0), frozen=(0.0, 0.0), last=0.5, overhead=0.5), LINEAR, 8000)
    assert made.saving == (2 / 2 + 1 / 4) / 4
    assert made.lengthened().total_steps == 11636  # 8000 / 0.6875 = 11636.4
    assert Plan(made.costs, LINEAR, 8).lengthened().total_steps == 11


@given(strategies.costs(noisy=True), strategies.spacings, strategies.total_steps)
def test_where_nothing_is_saved_the_length_stays(costs, spacing, steps):
    made = Plan(costs, Schedule(t0=1.0, spacing=spacing), steps)
    assert made.lengthened() == made
    worse = Plan(made_costs((-0.01, -0.02)), LINEAR, steps)
    assert worse.lengthened() == worse


def test_a_plan_makes_its_scheduler_and_checks_the_layers():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    made = Plan(made_costs((2.0, 1.0), names=["0", "1", "2"]), LINEAR, 8)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scheduler = made.scheduler(optimizer, net)
    assert isinstance(scheduler, FreezeOut)
    assert scheduler.freeze_steps == made.freeze_steps
    assert scheduler.total_steps == 8
    other = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(CostError, match="Make a plan for this model"):
        made.scheduler(other, net, layers=[["0", "1"], "2"])
    assert len(other.param_groups) == 1  # untouched
    cut = split_layers(net)
    twin = torch.optim.SGD(net.parameters(), lr=0.1)
    assert made.scheduler(twin, net, layers=cut, strict=True).layers is cut


def test_bytes_held_fall_from_freeze_to_freeze():
    made = Plan(THREE, LINEAR, 8)
    assert [made.saved_bytes(n) for n in range(8)] == [3000] * 4 + [1000] * 2 + [0] * 2
    for what in (made.depth_at, made.step_seconds, made.saved_bytes):
        with pytest.raises(ValueError, match="step must be at least 0, got -1"):
            what(-1)
