"""What an experiment consists of: sweep files, variants, arms, presets."""

from dataclasses import fields, replace

import pytest
import tomllib

from freezeout.errors import RunError
from freezeout.lab.experiments import (
    EXPERIMENTS,
    Cell,
    Grid,
    Variant,
    experiment_preset,
    variant_of,
)
from freezeout.lab.experiments.arms import equal_steps, make_arms, unfrozen
from freezeout.lab.training import Settings, slug
from freezeout.planning import Plan
from freezeout.schedule import RateSettings, Schedule, ScheduleSettings
from tests.strategies import made_costs


def grid(text):
    return Grid.from_dict(tomllib.loads(text), "sweep.toml")


# --- Variants ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        ("cubic:0.8", Variant()),
        ("linear:0.5:unscaled", Variant(spacing="linear", t0=0.5, scaled=False)),
        ("squared:.25", Variant(spacing="squared", t0=0.25)),
        ("cubic:0.8:max_freezes=3", Variant(max_freezes=3)),
        ("cubic:0.8:unscaled:max_freezes=12", Variant(scaled=False, max_freezes=12)),
    ],
)
def test_a_variant_is_read_and_named(text, variant):
    assert Variant.parse(text) == variant
    assert Variant.parse(variant.name) == variant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cubic",
        "cubic:",
        "cubic:1",
        "cubic:0",
        "cubic:1.5",
        "cubic:-0.5",
        "cubic:nan",
        "cube:0.8",
        "cubic:0.8:scale",
        "cubic:0.8:unscaled:x",
        "cubic:0.8:max_freezes=0",
        "cubic:0.8:max_freezes=3:unscaled",
        f"cubic:0.8:max_freezes={10**18}",
        pytest.param(f"cubic:0.8:max_freezes={'9' * 5000}", id="max_freezes=9...9"),
        "cubic:0.8x",
        "0.8:cubic",
    ],
)
def test_what_is_no_variant_is_refused_with_an_example(text):
    with pytest.raises(RunError, match=r"a variant must be SPACING:T0 .* Write for example cubic"):
        Variant.parse(text)


def test_the_variant_of_settings():
    assert variant_of(Settings(t0=1.0)) is None
    assert variant_of(Settings(t0=0.5, spacing="linear", scaled=False)) == Variant(
        t0=0.5, spacing="linear", scaled=False
    )
    own = variant_of(Settings(times=(0.5, 1.0), t0=1.0))
    assert own.times == (0.5, 1.0)
    assert own.apply(Settings()).times == (0.5, 1.0)


def test_a_variant_has_all_settings_that_say_when_layers_freeze():
    when = ScheduleSettings.__annotations__.keys() - RateSettings.__annotations__.keys()
    assert {spec.name for spec in fields(Variant)} == {*when, "scaled"}
    few = variant_of(Settings(max_freezes=2))
    assert few == Variant(max_freezes=2)
    assert few.apply(Settings()) == Settings(max_freezes=2)
    assert few.apply(Settings()).schedule.max_freezes == 2


# --- Arms --------------------------------------------------------------------------------------


def test_each_variant_has_its_equal_time_baseline_and_its_control():
    base = Settings(t0=0.3, epochs=7, seed=4)
    first, second = Variant(), Variant(spacing="linear", t0=0.5, scaled=False)
    arms = make_arms(base, [first, second], equal=[80, 90])
    assert [(a.name, a.kind, a.of) for a in arms] == [
        ("baseline", "baseline", None),
        ("cubic:0.8", "variant", None),
        ("cubic:0.8 equal time", "equal-time", "cubic:0.8"),
        ("cubic:0.8 rates only", "control", "cubic:0.8"),
        ("linear:0.5:unscaled", "variant", None),
        ("linear:0.5:unscaled equal time", "equal-time", "linear:0.5:unscaled"),
        ("linear:0.5:unscaled rates only", "control", "linear:0.5:unscaled"),
    ]
    by_name = {a.name: a.settings for a in arms}
    plain = replace(base, t0=1.0)
    assert by_name["baseline"] == plain
    assert by_name["cubic:0.8 equal time"] == replace(plain, steps=80)
    assert by_name["linear:0.5:unscaled equal time"] == replace(plain, steps=90)
    frozen = replace(base, t0=0.5, spacing="linear", scaled=False)
    assert by_name["linear:0.5:unscaled"] == frozen
    assert by_name["linear:0.5:unscaled rates only"] == replace(frozen, freeze=False)


def test_arms_that_are_not_wanted_are_left_out():
    arms = make_arms(Settings(), [Variant()], baseline=False, controls=False)
    assert [a.kind for a in arms] == ["variant"]


def test_a_variant_given_twice_is_refused():
    with pytest.raises(RunError, match=r"variant 'cubic:0.8' is given twice"):
        make_arms(Settings(), [Variant(), Variant()])


def test_equal_time_is_the_length_of_the_run_less_what_is_predicted_to_be_saved():
    costs = made_costs((2.0, 1.0), frozen=(0.5, 0.25), last=0.25, overhead=0.25)
    plan = Plan(costs, Schedule(t0=1.0), 1000)
    settings = Settings(t0=1.0)
    variant = Variant(spacing="linear", t0=0.5)
    saving = Plan(costs, variant.apply(settings).schedule, 1000).saving
    assert 0.05 < saving < 0.6
    assert equal_steps(settings, variant, plan) == round(1000 * (1 - saving))
    assert equal_steps(settings, variant, replace(plan, total_steps=1)) == 1


def test_unfrozen_is_one_rate_for_all_layers():
    plain = Settings(t0=1.0, spacing="linear", lr=0.3)
    settings = replace(plain, times=(0.5, 1.0), scaled=False, freeze=False, t0=0.4, max_freezes=1)
    assert unfrozen(settings) == plain
    factors = unfrozen(settings).schedule.factors(30, 100, 2)
    assert factors[0] == factors[1]


# --- Grids -------------------------------------------------------------------------------------

FULL = """
preset = "paper"
epochs = 3
[grid]
model = ["resnet-8-8", "wrn-10-1"]
data = ["digits"]
t0 = [0.8, 0.5, 1.0]
spacing = ["cubic", "linear"]
scaled = [true, false]
seed = [0, 1, 2]
[arms]
equal_time = true
"""


def test_a_sweep_file_is_every_combination():
    found = grid(FULL)
    assert [cell.name for cell in found.cells] == ["resnet-8-8 on digits", "wrn-10-1 on digits"]
    assert [v.name for v in found.variants] == [
        *("cubic:0.8", "cubic:0.5", "cubic:0.8:unscaled", "cubic:0.5:unscaled"),
        *("linear:0.8", "linear:0.5", "linear:0.8:unscaled", "linear:0.5:unscaled"),
    ]  # t0 = 1 freezes nothing: that is the baseline, once
    assert found.baseline
    assert found.size == 2 * 3 * (1 + 2 * 8)
    for cell in found.cells:
        assert (cell.settings.epochs, cell.settings.batch_size) == (3, 50)
        assert variant_of(cell.settings) is not None or cell.settings.t0 == 1.0


def test_what_varies_otherwise_is_in_the_name_of_a_cell():
    found = grid('[grid]\nmodel = ["resnet-8"]\nepochs = [2, 4]\n')
    assert [c.name for c in found.cells] == [
        "resnet-8 on digits, epochs=2",
        "resnet-8 on digits, epochs=4",
    ]
    assert [c.settings.epochs for c in found.cells] == [2, 4]
    assert found.seeds == (0,)


def test_cells_vary_together():
    found = grid(
        '[[cells]]\nmodel = "resnet-8"\nepochs = 2\n[[cells]]\nmodel = "vgg11-8"\nepochs = 5\n'
        '[grid]\ndata = ["digits", "fashion-mnist"]\n'
    )
    assert [(c.name, c.settings.epochs) for c in found.cells] == [
        ("resnet-8 on digits", 2),
        ("resnet-8 on fashion-mnist", 2),
        ("vgg11-8 on digits", 5),
        ("vgg11-8 on fashion-mnist", 5),
    ]
    same = grid("[[cells]]\nlr = 0.1\n[[cells]]\nlr = 0.2\n")
    assert [c.name for c in same.cells] == [
        "resnet-20 on digits, lr=0.1",
        "resnet-20 on digits, lr=0.2",
    ]


def test_settings_given_beside_a_file_win():
    values = tomllib.loads("epochs = 5\nt0 = 0.6\n[grid]\nseed = [1]\n")
    found = Grid.from_dict(values, "x", {"epochs": 2, "t0": 0.4})
    assert found.cells[0].settings.epochs == 2
    assert [v.t0 for v in found.variants] == [0.4]
    with pytest.raises(RunError, match=r"seed varies in .grid. of x, and was given beside it"):
        Grid.from_dict(values, "x", {"seed": 2})


def test_settings_given_beside_a_file_win_over_cells_too():
    found = Grid.from_dict(experiment_preset("paper-small"), "x", {"epochs": 2, "lr": 0.3})
    assert {(c.settings.epochs, c.settings.lr) for c in found.cells} == {(2, 0.3)}


def test_explicit_freeze_times_are_a_variant():
    found = grid("times = [0.3, 0.6, 1.0]\n[grid]\nscaled = [true, false]\n")
    assert [v.name for v in found.variants] == ["own times", "own times:unscaled"]
    assert found.variants[0].times == (0.3, 0.6, 1.0)
    assert found.cells[0].settings.times is None


def test_most_freezes_are_a_variant_and_not_a_cell():
    found = grid("[grid]\nmax_freezes = [1, 3]\nt0 = [0.8, 1.0]\n")
    assert [c.name for c in found.cells] == ["resnet-20 on digits"]
    assert [v.name for v in found.variants] == [
        "cubic:0.8:max_freezes=1",
        "cubic:0.8:max_freezes=3",
    ]
    assert found.size == 3
    assert found.cells[0].settings.max_freezes is None
    own = grid("times = [0.3, 0.6, 1.0]\nmax_freezes = 1\n")
    assert [v.name for v in own.variants] == ["own times:max_freezes=1"]
    arms = make_arms(found.cells[0].settings, found.variants)
    assert [a.settings.max_freezes for a in arms] == [None, 1, 1, 3, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\nmodle = ['x']", "'modle' in .grid. of sweep.toml is not a setting. Did you mean"),
        ("epoch = 3", "'epoch' in sweep.toml is not a setting. Did you mean 'epochs'"),
        (
            "[grid]\nseed = 3",
            "seed in .grid. of sweep.toml must be a list of at least one value, got 3",
        ),
        ("[grid]\nseed = []", "must be a list of at least one value"),
        ("[grid]\nseed = [1, 1]", "seed '1' is given twice"),
        ("[grid]\nt0 = [0.5, 0.5]", "variant 'cubic:0.5' is given twice"),
        ("[grid]\nt0 = [1.5]", "t0 must lie in"),
        ("[grid]\nspacing = ['cube']", "spacing must be one of"),
        ("[grid]\nmodel = ['resnet-8', 'resnet-8']", "cell 'resnet-8 on digits' is given twice"),
        ("[arms]\nequal = true", "takes baseline, equal_time, rates_only, turns"),
        ("[arms]\nbaseline = 1", "as true or false, got baseline = 1"),
        ("t0 = 1.0\n[arms]\nbaseline = false", "has nothing to run"),
        ("grid = 3", "must be a table"),
        ("cells = 3", "must be tables"),
        ("preset = 'papr'", "unknown preset"),
        ("const_time = true", "const_time cannot be set in an experiment"),
        ("freeze = false", "freeze cannot be set in an experiment"),
        ("[[cells]]\nt0 = 0.3", "t0 cannot stand in"),
        ("[[cells]]\nmax_freezes = 3", "max_freezes cannot stand in"),
        ("[grid]\nmax_freezes = [0]", "max_freezes must be at least 1"),
        ("[[cells]]\nseed = 3", "seed cannot stand in"),
        ("[[cells]]\nepochs = 3\n[grid]\nepochs = [2]", "epochs stands in"),
        ("[grid]\ntimes = [[0.5, 1.0]]", "explicit freeze times in sweep.toml cannot vary"),
        ("times = [0.5, 1.0]\n[grid]\nt0 = [0.5]", "nor stand beside t0"),
        ("[grid]\nseed = [-1]", "seed must be at least 0"),
        ("[grid]\nseed = ['a']", "seed must be a whole number"),
        ("[grid]\nseed = [0.5]", "seed must be a whole number"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_sentence(text, message):
    with pytest.raises(RunError, match=message):
        grid(text)


def test_a_grid_survives_json():
    found = replace(grid(FULL), rates_only=True, turns=True)
    again = Grid.from_plain(found.to_dict())
    assert again == found
    own = grid("times = [0.3, 1.0]")
    assert Grid.from_plain(own.to_dict()) == own
    few = grid("max_freezes = 2")
    assert Grid.from_plain(few.to_dict()) == few
    for one in found.to_dict()["variants"]:  # what was written before `max_freezes` existed
        assert one.keys() == {"spacing", "scaled", "t0", "times"}


def test_names_of_folders():
    assert slug("wrn-16-4 on cifar10, lr=0.1") == "wrn-16-4-on-cifar10-lr=0.1"
    assert slug("../..//x") == "x"
    assert slug("::") == "x"


# --- The named experiments ---------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_named_experiments_can_be_made(name):
    found = Grid.from_dict(experiment_preset(name), name)
    assert len(found.seeds) >= 5
    assert found.size >= 60


def test_the_papers_experiments_are_all_there():
    for name, model in (
        ("paper-densenet", "densenet-76-12"),
        ("paper-wrn", "wrn-40-4"),
        ("paper-vgg", "vgg16"),
    ):
        found = Grid.from_dict(experiment_preset(name), name)
        assert {(c.settings.model, c.settings.data) for c in found.cells} == {
            (model, "cifar10"),
            (model, "cifar100"),
        }
        assert {(v.spacing, v.scaled, v.t0) for v in found.variants} == {
            (spacing, scaled, n / 10)
            for spacing in ("linear", "cubic")
            for scaled in (True, False)
            for n in range(1, 10)
        }
        for cell in found.cells:
            s = cell.settings
            assert (s.epochs, s.batch_size, s.lr, s.weight_decay) == (100, 50, 0.1, 1e-4)


def test_the_small_set_has_three_families_on_two_data_sets():
    found = Grid.from_dict(experiment_preset("paper-small"), "x")
    assert {(c.settings.model.split("-")[0], c.settings.data) for c in found.cells} == {
        (model, data)
        for model in ("wrn", "densenet", "vgg11")
        for data in ("cifar10", "fashion-mnist")
    }
    assert found.equal_time
    assert found.turns
    assert len(found.seeds) == 5


def test_an_unknown_experiment_is_refused():
    with pytest.raises(RunError, match="unknown preset 'x': experiments are paper-densenet"):
        experiment_preset("x")


def test_an_experiment_needs_something_to_run():
    with pytest.raises(RunError, match="nothing to run"):
        Grid(cells=(Cell(name="x", settings=Settings()),), variants=(), seeds=())
