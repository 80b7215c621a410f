"""Settings of a run: ranges, presets, TOML, and what a message says."""

import datetime
import math
import random
from dataclasses import FrozenInstanceError, fields

import pytest

from freezeout.errors import RunError
from freezeout.lab.training import PRESETS, Settings, check_names, preset, read_toml, setting_fields
from freezeout.lab.training.toml import toml_bytes

BAD = [
    ({"t0": 0.0}, "t0 must lie in (0, 1], got 0.0. It is the fraction"),
    ({"t0": 1.5}, "t0 must lie in (0, 1], got 1.5. It is the fraction"),
    ({"t0": float("nan")}, "t0 must lie in (0, 1], got nan."),
    ({"t0": "half"}, "t0 must be a number in (0, 1], got 'half'."),
    ({"spacing": "quartic"}, "spacing must be one of linear, squared, cubic, got 'quartic'."),
    ({"anneal": "poly"}, "anneal must be one of cosine, linear, got 'poly'."),
    ({"epochs": 0}, "epochs must be at least 1, got 0. Passes over the training data"),
    ({"epochs": 1.5}, "epochs must be a whole number of at least 1, got 1.5."),
    ({"epochs": True}, "epochs must be a whole number of at least 1, got True."),
    ({"steps": 0}, "steps must be at least 1, got 0. Train for so many optimizer steps"),
    ({"steps": "x"}, "steps must be a whole number of at least 1, got 'x'. Train for so many"),
    ({"steps": 1.5}, "steps must be a whole number of at least 1, got 1.5."),
    ({"steps": True}, "steps must be a whole number of at least 1, got True."),
    ({"steps": 10**10}, "steps must be at most 1e+09, got 10000000000."),
    ({"batch_size": 0}, "batch_size must be at least 1, got 0."),
    ({"lr": 0.0}, "lr must be above 0 and finite, got 0.0."),
    ({"lr": float("inf")}, "lr must be above 0 and finite, got inf."),
    ({"momentum": 1.0}, "momentum must lie in [0, 1), got 1.0."),
    ({"momentum": 0.0}, "momentum must be above 0 with Nesterov momentum, got 0.0. Add --no-nes"),
    ({"weight_decay": -1e-4}, "weight_decay must be at least 0 and finite, got -0.0001."),
    ({"weight_decay": float("inf")}, "weight_decay must be at least 0 and finite, got inf."),
    ({"optimizer": "lion"}, "optimizer must be one of sgd, adamw, got 'lion'."),
    ({"precision": "fp16"}, "precision must be one of fp32, bf16, got 'fp16'."),
    ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N, got 'tpu'."),
    ({"device": "cuda:x"}, "device must be auto, cpu, cuda or cuda:N, got 'cuda:x'."),
    ({"seed": -1}, "seed must be at least 0, got -1."),
    ({"threads": 0}, "threads must be at least 1, got 0."),
    ({"deterministic": 1}, "deterministic must be True or False, got 1."),
    ({"train_size": 1}, "train_size must be at least 2, got 1."),
    ({"holdout": -1}, "holdout must be at least 0, got -1."),
    ({"shrink": 0}, "shrink must be at least 1, got 0. Average squares"),
    ({"shrink": 1.5}, "shrink must be a whole number of at least 1, got 1.5."),
    ({"freeze": 0}, "freeze must be True or False, got 0."),
    ({"freeze": False, "const_time": True}, "const_time needs freeze, got freeze=False: a run in"),
    ({"padding": -1}, "padding must be at least 0, got -1."),
    ({"flip": "yes"}, "flip must be True or False, got 'yes'."),
    ({"evaluate_every": 0}, "evaluate_every must be at least 1, got 0."),
    ({"checkpoint_minutes": 0.0}, "checkpoint_minutes must be above 0 and finite, got 0.0."),
    ({"scale_cap": 0.5}, "scale_cap must be at least 1, got 0.5."),
    ({"times": (0.5, 0.2)}, "times must never decrease"),
    ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1."),
    ({"max_freezes": 0}, "max_freezes must be at least 1, got 0."),
    ({"max_freezes": 2.0}, "max_freezes must be a whole number of at least 1, got 2.0."),
    ({"data": "imagenet"}, "imagenet"),
]


@pytest.mark.parametrize(("values", "message"), BAD, ids=lambda v: str(v)[:30])
def test_a_bad_value_is_refused_with_what_is_allowed(values, message):
    with pytest.raises(RunError) as caught:
        Settings.from_dict(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_are_frozen_and_equal_by_value():
    assert Settings(epochs=3) == Settings(epochs=3)
    assert Settings(epochs=3) != Settings(epochs=4)
    with pytest.raises(FrozenInstanceError):
        Settings().epochs = 3


def test_every_setting_has_a_help_text_and_a_kind():
    for spec in setting_fields():
        assert spec.metadata["help"], spec.name
        assert spec.metadata["kind"] in (str, int, float, bool, tuple), spec.name


def test_toml_round_trip_keeps_every_value(tmp_path):
    settings = Settings(times=(0.25, 0.5, 1.0), padding=2, flip=False, data_dir="some/folder")
    file = tmp_path / "settings.toml"
    file.write_bytes(toml_bytes(settings.to_dict()))
    assert Settings.from_dict(read_toml(file)) == settings
    # What is None is left out, for TOML has no such value.
    assert "scale_cap" not in read_toml(file)
    absent = {"steps", "train_size", "scale_cap", "max_freezes", "threads"}
    assert read_toml(file).keys() == {f.name for f in fields(Settings)} - absent
    file.write_bytes(toml_bytes(Settings(steps=130).to_dict()))
    assert Settings.from_dict(read_toml(file)).steps == 130


def test_broken_toml_names_file_and_line(tmp_path):
    file = tmp_path / "broken.toml"
    file.write_text("epochs = 3\nlr = = 2\n")
    with pytest.raises(RunError, match=r"broken\.toml is not valid TOML: .*line 2"):
        read_toml(file)
    with pytest.raises(RunError, match=r"there is no settings file .*absent\.toml\. Give a TOML"):
        read_toml(tmp_path / "absent.toml")


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(
        RunError, match=r"'epoch' in my\.toml is not a setting. Did you mean 'epochs'"
    ):
        check_names({"epoch": 3}, "my.toml")
    with pytest.raises(RunError, match="Settings are model, data"):
        check_names({"zzz": 3}, "my.toml")


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_makes_settings(name):
    assert Settings.from_dict(preset(name)).schedule.t0 in (0.5, 0.8, 1.0)


@pytest.mark.parametrize(
    ("name", "model", "data"),
    [
        ("paper-densenet", "densenet-76-12", "cifar10"),
        ("paper-wrn", "wrn-40-4", "cifar100"),
        ("paper-vgg", "vgg16", "cifar100"),
    ],
)
def test_paper_presets_are_the_published_protocol(name, model, data):
    s = Settings.from_dict(preset(name))
    assert (s.model, s.data) == (model, data)
    assert (s.epochs, s.batch_size, s.optimizer, s.lr) == (100, 50, "sgd", 0.1)
    assert (s.momentum, s.nesterov, s.weight_decay) == (0.9, True, 1e-4)
    assert (s.padding, s.flip) == (4, True)
    assert (s.t0, s.spacing, s.scaled, s.anneal) == (0.8, "cubic", True, "cosine")
    assert (s.warmup_steps, s.scale_cap) == (0, None)


def test_an_unknown_preset_lists_them():
    with pytest.raises(RunError, match="unknown preset 'papre': presets are demo, paper,"):
        preset("papre")


def test_schedule_comes_from_the_settings():
    schedule = Settings(t0=0.5, spacing="linear", scaled=False, warmup_steps=7).schedule
    assert (schedule.t0, schedule.spacing, schedule.scaled) == (0.5, "linear", False)
    assert schedule.warmup_steps == 7


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "resnet-20 on digits, cubic, t0 = 0.8"),
        ({"t0": 0.5, "spacing": "linear", "scaled": False}, ", linear, t0 = 0.5, unscaled"),
        ({"t0": 1.0}, "resnet-20 on digits, no freezing"),
        ({"times": (0.5, 1.0)}, "resnet-20 on digits, explicit freeze times"),
        ({"freeze": False, "scaled": False}, ", cubic, t0 = 0.8, unscaled, rates only"),
    ],
)
def test_a_title_says_what_runs(changes, title):
    assert Settings(**changes).title.endswith(title)


ODD = [
    *(True, False, 0, 1, -1, 10**400, -(10**400), 10**5000, 2**63, 2**70, 2**62),
    *(0.0, -0.0, 5e-324, 1e308, math.inf, math.nan, -1.5, "", "x", "a\nb", "a:b", "x" * 10_000),
    *(
        "\0",
        "\udcff",
        "\ud800",
        [],
        [1],
        [0.5, 1.0],
        [math.nan],
        ["a"],
        [[1]],
        [10**400],
        {},
        (),
    ),
    *({"a": 1}, (0.5, None), datetime.date(2020, 1, 1), b"x", object, 1j, None),
]


@pytest.mark.parametrize("name", [spec.name for spec in setting_fields()])
def test_whatever_a_setting_is_given_it_is_taken_or_refused_by_its_name(name):
    refused = 0
    for value in ODD:
        try:
            settings = Settings.from_dict({name: value})
        except RunError as error:
            refused += 1
            text = str(error)
            assert name in text
            assert "\n" not in text
        else:
            assert settings.title
    assert refused > len(ODD) // 3


def test_odd_values_together_are_refused_in_one_line():
    draw, names = random.Random(0), [spec.name for spec in setting_fields()]
    refused = taken = 0
    for _ in range(1000):
        values = {name: draw.choice(ODD) for name in draw.sample(names, draw.randint(2, 4))}
        try:
            settings = Settings.from_dict(values)
            settings.schedule.freeze_steps(len(settings.times or "12345"), 100)
        except (RunError, ValueError) as error:
            refused += "\n" not in str(error)
            continue
        taken += 1
    assert refused + taken == 1000
    assert refused > 500
