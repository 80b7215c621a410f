"""Saving a plan and loading it, and its text."""

import copy
import dataclasses
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given

from freezeout import CostError, Costs, Plan, Schedule, plan
from tests import strategies
from tests.planning.plans import LINEAR, THREE, any_plan
from tests.strategies import made_costs

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


def test_a_custom_curve_cannot_be_saved(tmp_path):
    made = Plan(THREE, Schedule(anneal=strategies.half_circle), 8)
    with pytest.raises(ValueError, match="curve") as caught:
        made.save(tmp_path / "plan.json")
    assert str(caught.value) == (
        "a plan with a custom curve cannot be saved, got anneal=tests.strategies.half_circle. "
        "Save plan.costs and plan.freeze_times."
    )
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("text", ["", "{", '{"schedule": ', "not JSON", "\x00"])
def test_damaged_files(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(
        CostError, match=r"^the plan .*plan\.json is damaged: line 1: .*\. Plan again\.$"
    ):
        Plan.load(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CostError, match=r"line 1 is not UTF-8"):
        Plan.load(path)


@pytest.mark.parametrize("values", [None, 3, "plan", [], [1], {}, {"costs": {}}])
def test_other_json_is_no_plan(tmp_path, values):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CostError, match=r"plan\.json(:| is damaged:) .* again\.$"):
        Plan.load(path)


def test_a_file_of_costs_is_no_plan(tmp_path):
    THREE.save(tmp_path / "costs.json")
    with pytest.raises(CostError) as caught:
        Plan.load(tmp_path / "costs.json")
    assert str(caught.value) == (
        f"{tmp_path / 'costs.json'}: this is not a plan: no entry: 'costs'. Plan again."
    )
    with pytest.raises(CostError, match="there is no plan"):
        Plan.load(tmp_path / "none.json")


@pytest.mark.parametrize("key", ["costs", "schedule", "total_steps", "spacing", "note", "reached"])
@pytest.mark.parametrize("value", ["missing", None, 1.5, [], {}, HUGE, math.nan])
def test_damaged_entries(key, value):
    values = json.loads(json.dumps(Plan(THREE, LINEAR, 8).to_dict()))
    values[key] = value
    if value == "missing":
        del values[key]
    with pytest.raises(CostError, match=r"^(this is not a plan|these are not costs): .* again\.$"):
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
    with pytest.raises(CostError, match=r"^(this is not a plan|these are not costs): .* again\.$"):
        Plan.from_dict(values)


def test_names_that_are_no_text():
    values = json.loads(json.dumps(Plan(THREE, LINEAR, 8).to_dict()))
    values["costs"]["layers"][0]["name"] = 3
    with pytest.raises(CostError, match=r"^(this is not a plan|these are not costs): .* again\.$"):
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
    assert lines[0] == "explicit freeze times, 8 steps"
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


ODD = [
    *(
        None,
        True,
        -1,
        0,
        1,
        2.5,
        2**62,
        10**400,
        1e308,
        5e-324,
        math.nan,
        math.inf,
        "",
        "x",
        "a\nb",
    ),
    *([], [1], [[]], {}, {"a": 1}, (), "\udcff", -(2**63)),
]


def places(value, path=()):
    """Where something is, in all of a file."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from places(item, (*path, key))


@pytest.mark.parametrize("kind", [Plan, Costs])
def test_whatever_is_changed_it_is_taken_or_refused_in_one_line(kind):
    whole = json.loads(json.dumps((Plan(THREE, LINEAR, 8) if kind is Plan else THREE).to_dict()))
    every, draw, said = list(places(whole)), random.Random(0), []
    for _ in range(1500):
        values = copy.deepcopy(whole)
        *way, last = draw.choice(every)
        holder = values
        for key in way:
            holder = holder[key]
        if draw.random() < 0.2:
            del holder[last]
        else:
            holder[last] = draw.choice(ODD)
        try:
            assert kind.from_dict(values).table()
        except CostError as error:
            said.append(str(error))
    assert len(said) > 800
    assert not [text for text in said if "\n" in text or not text.endswith("again.")]


@pytest.mark.parametrize(("made", "kind"), [(Plan(THREE, LINEAR, 8), Plan), (THREE, Costs)])
def test_four_sentences_for_four_things(tmp_path, made, kind):
    file = tmp_path / "kept.json"

    def said():
        with pytest.raises(CostError) as caught:
            kind.load(file)
        return str(caught.value)

    assert said().startswith("there is no ")
    file.mkdir()
    assert said().startswith("cannot read the ")
    file.rmdir()
    made.save(file)
    assert kind.load(file) == made
    file.write_text(file.read_text().replace("first", "other", 1).replace("0.5", "0.7", 1))
    assert " is damaged: its digest is another. If you have changed it" in said()
    made.save(file)
    values = {**json.loads(file.read_text()), "more": 1}
    values.pop("digest")
    file.write_text(json.dumps(values))
    assert " is of another version of freezeout: it has 'more' too. Use the version" in said()
    values.pop("more")  # as it was before there were digests
    file.write_text(json.dumps(values))
    assert kind.load(file) == made
