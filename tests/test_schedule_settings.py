"""The settings of a schedule: written down once, and taken by all alike."""

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from torch import nn
from typing_extensions import Unpack

from freezeout import FreezeOut, Schedule, plan
from freezeout.lab.training import setting_fields
from freezeout.reference import RateOnly
from freezeout.schedule import RateSettings, ScheduleSettings, make_schedule
from tests.planning.made import FOUR

NAMES = {f.name for f in fields(Schedule)}
TAKERS = ["FreezeOut", "RateOnly", "lightning", "transformers"]


def taker(name):
    if name in ("lightning", "transformers"):
        return pytest.importorskip(f"freezeout.integrations.{name}").FreezeOutCallback
    return {"FreezeOut": FreezeOut, "RateOnly": RateOnly}[name]


def make(name, **settings):
    """A taker made with these settings, for a network of three layers."""
    if name in ("lightning", "transformers"):
        return taker(name)(**settings)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
    return taker(name)(torch.optim.SGD(net.parameters(), lr=0.1), net, 100, **settings)


def test_they_are_those_of_the_schedule_with_the_same_types():
    assert get_type_hints(ScheduleSettings) == get_type_hints(Schedule)
    assert get_type_hints(ScheduleSettings).keys() == NAMES
    assert not ScheduleSettings.__required_keys__
    assert get_type_hints(RateSettings).keys() == {"scaled", "anneal", "warmup_steps", "scale_cap"}


@pytest.mark.parametrize("name", TAKERS)
def test_every_taker_takes_all_of_them(name):
    assert get_type_hints(taker(name).__init__)["settings"] == Unpack[ScheduleSettings]
    given = {
        "scaled": False,
        "anneal": "linear",
        "warmup_steps": 3,
        "scale_cap": 2.0,
        "times": (0.2, 0.3, 1.0),
        "max_freezes": 1,
    }
    assert make(name, **given).schedule == Schedule(**given)
    assert make(name, t0=0.5, spacing="linear").schedule == Schedule(t0=0.5, spacing="linear")
    assert make(name, schedule=Schedule(t0=0.5)).schedule == Schedule(t0=0.5)


def test_plan_and_the_command_line_take_all_of_them():
    assert get_type_hints(plan)["rates"] == Unpack[RateSettings]
    named = inspect.signature(plan).parameters.keys()
    assert named | get_type_hints(RateSettings).keys() > NAMES
    of_lab = {f.name: f.default for f in setting_fields()}
    assert {name: of_lab[name] for name in NAMES} == {f.name: f.default for f in fields(Schedule)}


@pytest.mark.parametrize("name", TAKERS)
def test_a_misspelt_setting_names_the_nearest_one(name):
    kind = taker(name).__name__
    with pytest.raises(TypeError) as caught:
        make(name, spaceing="linear")
    assert str(caught.value) == f"{kind} takes no argument 'spaceing'. Did you mean 'spacing'?"
    with pytest.raises(TypeError, match=r"no argument 'layer'\. Did you mean 'layers'\?$"):
        make(name, layer=["0", "2"])
    with pytest.raises(TypeError, match=r"no argument 'zzz'\. Settings are t0, spacing, scaled"):
        make(name, zzz=1)


def test_a_misspelt_setting_of_a_plan_names_the_nearest_one():
    with pytest.raises(
        TypeError, match=r"^plan takes no argument 'savings'\. Did you mean 'saving'"
    ):
        plan(FOUR, 100, savings=0.2, t0=0.5)


@pytest.mark.parametrize("name", TAKERS)
def test_a_schedule_takes_no_settings_beside_it_not_even_defaults(name):
    with pytest.raises(TypeError, match="already holds all settings, got t0, scaled beside it"):
        make(name, schedule=Schedule(), t0=0.8, scaled=True)
    with pytest.raises(TypeError, match=r"schedule must be a freezeout\.Schedule, got 'cubic'"):
        make(name, schedule="cubic")


def test_settings_that_are_left_out_come_from_a_default():
    default = Schedule(t0=0.5, spacing="linear")
    assert make_schedule(None, {}, plan, default=default) == default
    assert make_schedule(None, {"t0": 0.8}, plan, default=default) == Schedule(spacing="linear")
    assert make_schedule(None, {}, plan) == Schedule()


@pytest.mark.slow
def test_the_type_checker_rejects_a_misspelt_setting(tmp_path):
    file = tmp_path / "misspelt.py"
    file.write_text(
        "import freezeout\n"
        "from freezeout import Costs, FreezeOut, plan\n"
        "from freezeout.reference import RateOnly\n"
        "from torch import nn\n"
        "from torch.optim import Optimizer\n"
        "def f(o: Optimizer, m: nn.Module, c: Costs) -> None:\n"
        "    FreezeOut(o, m, 9, t0=0.5, spacing='linear', times=None)\n"
        "    plan(c, 9, t0=0.5, scale_cap=2)\n"
        "    FreezeOut(o, m, 9, spaceing='linear')\n"
        "    FreezeOut(o, m, 9, spacing='quartic')\n"
        "    RateOnly(o, m, 9, warmup_step=3)\n"
        "    plan(c, 9, t0=0.5, scale_caps=2)\n"
        "    freezeout.reference.RateOnly(o, m, 9, warmup_step=3)\n"
        "    freezeout.lab.evidence.compare([], margins=1)\n"
    )
    root = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(file)],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=280,
    )
    lines = [line for line in ran.stdout.splitlines() if "misspelt.py" in line]
    errors = [int(line.split(":")[1]) for line in lines if " error: " in line]
    assert errors == [9, 10, 11, 12, 13, 14]
