"""What a schedule saves: its numbers written out again, its interval, saving it, its text."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

import strategies as own
from freezeout import CostError, FreezeOut, Plan, Schedule, plan, predicted_saving, split_layers
from freezeout.saving import _order_statistic
from strategies import made_costs

THREE = made_costs((2.0, 1.0), frozen=(0.5, 0.25), last=0.25, overhead=0.25)
"""A step takes 4.25 s; 2.25 s with one layer frozen, 1.25 s with two."""

LINEAR = Schedule(t0=0.5, spacing="linear")
"""Of 8 steps, the first of three layers freezes at 4, the second at 6."""


def plans(layers: int):
    return st.builds(
        Plan,
        own.costs(min_layers=layers, max_layers=layers),
        own.schedules(layers),
        own.total_steps,
    )


any_plan = st.integers(2, 8).flatmap(plans)


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


@given(own.costs(noisy=True), own.spacings, own.total_steps)
def test_nothing_is_saved_where_nothing_freezes(costs, spacing, steps):
    made = Plan(costs, Schedule(t0=1.0, spacing=spacing), steps)
    assert made.saving == 0.0
    assert made.seconds == made.baseline_seconds
    assert made.flops_saving == made.activation_saving == made.state_saving == 0.0
    assert made.freezes == 0


@given(own.costs(), own.spacings, own.total_steps, own.usual_t0s, own.usual_t0s)
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
    k = _order_statistic(rounds)
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


@given(own.schedules(3), own.total_steps)
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


@given(own.costs(noisy=True), own.spacings, own.total_steps)
def test_where_nothing_is_saved_the_length_stays(costs, spacing, steps):
    made = Plan(costs, Schedule(t0=1.0, spacing=spacing), steps)
    assert made.lengthened() == made
    worse = Plan(made_costs((-0.01, -0.02)), LINEAR, steps)
    assert worse.lengthened() == worse


# --- Saving and loading ------------------------------------------------------------------------

HUGE = pytest.param(10**400, id="huge")
"""A whole number in JSON that no float can hold."""


@given(any_plan.filter(lambda made: not callable(made.schedule.anneal)))
def test_dict_and_back(made):
    again = Plan.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert again.saving == made.saving


def test_save_and_load(tmp_path):
    made = plan(THREE, np.int64(8), saving=0.9, scale_cap=3.0)
    assert not made.reached
    made.save(tmp_path / "plan.json")
    again = Plan.load(tmp_path / "plan.json")
    assert again == made
    assert again.table() == made.table()
    stored = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert stored["predicted"] == {
        "saving": made.saving,
        "interval": list(made.interval),
        "seconds": made.seconds,
        "baseline_seconds": made.baseline_seconds,
        "freeze_steps": list(made.freeze_steps),
    }


def test_a_curve_of_ones_own_cannot_be_saved(tmp_path):
    made = Plan(THREE, Schedule(anneal=own.half_circle), 8)
    with pytest.raises(ValueError, match="curve") as caught:
        made.save(tmp_path / "plan.json")
    assert str(caught.value) == (
        "a plan with a curve of your own cannot be saved, got anneal=strategies.half_circle. "
        "Save plan.costs and plan.freeze_times."
    )
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("text", ["", "{", '{"schedule": ', "not JSON", "\x00"])
def test_damaged_files(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CostError, match=r"plan\.json is no JSON file of a plan: .*\. Plan anew\."):
        Plan.load(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CostError, match=r"plan\.json is no JSON file of a plan"):
        Plan.load(path)


@pytest.mark.parametrize("values", [None, 3, "plan", [], [1], {}, {"costs": {}}])
def test_other_json_is_no_plan(tmp_path, values):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CostError, match=r"plan\.json: .*(no plan|no costs): .* anew\.$"):
        Plan.load(path)


def test_a_file_of_costs_is_no_plan(tmp_path):
    THREE.save(tmp_path / "costs.json")
    with pytest.raises(CostError) as caught:
        Plan.load(tmp_path / "costs.json")
    assert str(caught.value) == (
        f"{tmp_path / 'costs.json'}: this is no plan: no entry: 'costs'. Plan anew."
    )
    with pytest.raises(FileNotFoundError):
        Plan.load(tmp_path / "none.json")


@pytest.mark.parametrize("key", ["costs", "schedule", "total_steps", "spacing", "note", "reached"])
@pytest.mark.parametrize("value", ["missing", None, 1.5, [], {}, HUGE, math.nan])
def test_damaged_entries(key, value):
    values = json.loads(json.dumps(Plan(THREE, LINEAR, 8).to_dict()))
    values[key] = value
    if value == "missing":
        del values[key]
    with pytest.raises(CostError, match=r"^(this is no plan|these are no costs): .* anew\.$"):
        Plan.from_dict(values)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Schedule)])
def test_damaged_schedules(key):
    values = json.loads(json.dumps(Plan(THREE, LINEAR, 8).to_dict()))
    del values["schedule"][key]
    if key == "max_freezes":  # it came later: plans made before know nothing of it
        assert Plan.from_dict(values).schedule == LINEAR
        return
    with pytest.raises(CostError, match=f"no entry: '{key}'"):
        Plan.from_dict(values)


@pytest.mark.parametrize("value", ["1", None, [], math.nan, math.inf, -math.inf, HUGE])
@pytest.mark.parametrize("field", ["backward", "saved_bytes", "forward_flops"])
def test_costs_that_are_no_numbers(field, value):
    values = json.loads(json.dumps(Plan(THREE, LINEAR, 8).to_dict()))
    values["costs"]["layers"][0][field] = value
    with pytest.raises(CostError, match=r"^(this is no plan|these are no costs): .* anew\.$"):
        Plan.from_dict(values)


def test_names_that_are_no_text():
    values = json.loads(json.dumps(Plan(THREE, LINEAR, 8).to_dict()))
    values["costs"]["layers"][0]["name"] = 3
    with pytest.raises(CostError, match=r"^(this is no plan|these are no costs): .* anew\.$"):
        Plan.from_dict(values)


# --- The text ----------------------------------------------------------------------------------


def test_text_of_a_plan():
    noise = (-0.2, -0.1, 0.0, 0.1, 0.2, 0.0)
    names = ["a stem with a very long name of its own", "body", "head"]
    costs = made_costs((0.02, 0.01), frozen=(0.005, 0.0025), last=0.0025, overhead=0.0025,
                       noise=noise, names=names)  # fmt: skip
    made = Plan(costs, LINEAR, 80_000, note="as you like it")
    assert str(made) == made.table()
    assert str(made).splitlines() == [
        "linear, t0 = 0.5, scaled, 80,000 steps",
        "  time              29.4 % saved (23.5 to 35.3): 40m 00s in place of 56m 40s",
        "  FLOPs             10.0 % saved",
        "  held for backward 41.7 % saved on average: 2.9 KiB at first, 0 B at the end",
        "  optimizer state   16.7 % saved on average: 480 B at first, 240 B at the end",
        "  gradient traffic  16.7 % saved, where processes exchange gradients",
        "  note: as you like it",
        "layer  name                                     freezes at    step  first rate  "
        "step then takes",
        "    0  a stem with a very long name of its own      0.5000  40,000      x 2.00  "
        "       22.50 ms",
        "    1  body                                         0.7500  60,000      x 1.33  "
        "       12.50 ms",
        "    2  head                                          never              x 1.00",
    ]


def test_text_of_layers_that_freeze_together_has_the_step_after_all_of_them():
    made = Plan(THREE, Schedule(times=(0.5, 0.5, 1.0), anneal=None), 8)
    lines = str(made).splitlines()
    assert lines[0] == "own freeze times, 8 steps"
    assert [line.split()[-2:] for line in lines[-3:-1]] == [["1250.00", "ms"]] * 2


@pytest.mark.parametrize(
    ("schedule", "spacing", "first"),
    [
        (Schedule(t0=1.0), "", "cubic, nothing freezes, scaled, 8 steps"),
        (Schedule(scaled=False), "", "cubic, t0 = 0.8, unscaled, 8 steps"),
        (Schedule(t0=0.1234, anneal=None), "", "cubic, t0 = 0.1234, 8 steps"),
        (Schedule(times=(0.5, 0.6, 1)), "budget", "budget, scaled, 8 steps"),
    ],
)
def test_first_line(schedule, spacing, first):
    assert str(Plan(THREE, schedule, 8, spacing)).splitlines()[0] == first


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (1, "4.25 s in place of 4.25 s"),
        (8, "34 s in place of 34 s"),
        (100, "7m 05s in place of 7m 05s"),
        (10_000, "11h 48m in place of 11h 48m"),
    ],
)
def test_times_in_words(total, expected):
    assert f"0.0 % saved (0.0 to 0.0): {expected}" in str(Plan(THREE, Schedule(t0=1.0), total))


def test_text_without_an_interval_and_with_next_to_no_loss():
    costs = made_costs((-1e-5, 0.0), noise=(0.0,))
    assert Plan(costs, LINEAR, 8).saving < 0
    assert "  time              0.0 % saved: 11 s in place" in str(Plan(costs, LINEAR, 8))
    costs = made_costs((-1e-5, 0.0))
    assert "  time              0.0 % saved (0.0 to 0.0): " in str(Plan(costs, LINEAR, 8))


def test_text_of_bytes():
    layers = tuple(
        dataclasses.replace(layer, saved_bytes=size, state_bytes=0)
        for layer, size in zip(THREE.layers, (3 * 2**30, 0, 5 * 2**19), strict=True)
    )
    text = str(Plan(dataclasses.replace(THREE, layers=layers), LINEAR, 8))
    assert "50.0 % saved on average: 3.0 GiB at first, 2.5 MiB at the end" in text
    assert "optimizer state   0.0 % saved on average: 0 B at first, 0 B at the end" in text


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
