"""Costs that cannot be right say so, wherever they come from, and are measured again."""

import math
import random
from dataclasses import replace

import pytest

from freezeout import Costs, Plan, Schedule
from freezeout.costs import trouble_words
from tests.costs.costly import prices, true_seconds
from tests.costs.networks import measured
from tests.strategies import made_costs

RIGHT = made_costs((1.0, 2.0, 0.5), last=0.5, overhead=0.5)
"""A step takes 6 s, then 5 s, 3 s and 2.5 s."""


def with_rounds(*rounds, **changes):
    return replace(RIGHT, rounds=rounds, **changes)


def layer(index, **changes):
    layers = [replace(c, **changes) if i == index else c for i, c in enumerate(RIGHT.layers)]
    return replace(RIGHT, layers=tuple(layers))


# As a step comes out that gets slower as the second layer freezes.
RISING = layer(1, backward=-2.0, forward=0.5, optimizer=0.5)


def test_costs_that_may_well_be_right_have_no_trouble():
    assert RIGHT.trouble == ""
    assert trouble_words(RIGHT.trouble) == ""
    assert layer(1, backward=-0.05).trouble == ""  # noise
    assert made_costs((1.0, -0.2, 0.5)).trouble == ""
    noise = (-0.1, 0.1, 0.05, 0.0, -0.05, 0.1)
    assert made_costs((1.0, 2.0, 0.5), noise=noise).trouble == ""


def test_a_step_that_gets_slower_as_more_freezes():
    quiet, loud = (6.0, 5.0, 3.0, 2.5), (6.0, 5.0, 8.5, 2.5)
    spoilt = replace(RISING, rounds=(loud, quiet, loud, loud))
    assert (
        "slower as more freezes (1500.00 ms with 1 of 4 layers frozen, 3000.00 ms with 2)"
        in spoilt.trouble
    )
    # Where all rounds agree it is so: frozen, another kernel runs.
    real = replace(RISING, rounds=(loud,) * 4)
    assert real.trouble == ""
    # One round agrees with itself and says nothing.
    assert "slower" in replace(RISING, rounds=(loud,)).trouble


@pytest.mark.parametrize("part", ["forward", "frozen_forward", "backward", "optimizer"])
@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_cost_below_zero_names_its_layer(part, index):
    spoilt = layer(index, **{part: -0.7})
    assert f"the cost of 'layer{index}' is below 0 (-700.00 ms)" in spoilt.trouble
    assert layer(index, **{part: -0.01}).trouble == ""


def test_costs_below_zero_of_several_layers_and_outside_of_all():
    spoilt = replace(layer(0, optimizer=-0.7), overhead=-0.8)
    assert "'outside the layers' and of 1 more is below 0 (-800.00 ms)" in spoilt.trouble


def test_rounds_that_differ_too_much_to_know_anything():
    quiet, loud = (6.0, 5.0, 3.0, 2.5), (6.0, 5.0, 3.0, 5.5)
    spoilt = with_rounds(*(quiet, loud) * 3)
    assert "a step saves anything from 8.3 % to 58.3 %" in spoilt.trouble
    assert with_rounds(*(quiet,) * 9, loud).trouble == ""  # one of many
    assert with_rounds(quiet, loud).trouble == ""  # too few to tell
    drift = [tuple((1 + k) * t for t in quiet) for k in range(6)]
    assert with_rounds(*drift).trouble == ""  # a machine that slows down evenly


def test_trouble_is_known_of_costs_from_a_file_and_told_first(tmp_path):
    spoilt = layer(2, forward=2.0, optimizer=-1.0)
    spoilt.save(tmp_path / "costs.json")
    loaded = Costs.load(tmp_path / "costs.json")
    assert loaded.trouble == spoilt.trouble != ""
    for text in (loaded.table(), Plan(loaded, Schedule(), 100).table()):
        first, *others = text.splitlines()
        assert first == trouble_words(loaded.trouble)
        assert first.startswith("spoilt costs, not to be relied on: the cost of 'layer2'")
        assert not any("spoilt" in line for line in others)
    assert "spoilt" not in RIGHT.table() + Plan(RIGHT, Schedule(), 100).table()


# --- Measured again ----------------------------------------------------------------------------


def disturbed(clock, until):
    """A machine on which any work may take ten times as long, until a moment of the clock."""
    generator = random.Random(0)

    def pace(seconds):
        return seconds * (10.0 if clock.now < until and generator.random() < 0.3 else 1.0)

    clock.pace = pace


def test_rounds_that_are_spoilt_are_repeated_until_they_are_not(virtual):
    price = prices(5)
    disturbed(virtual, until=8.0)
    told = []
    costs = measured(virtual, price, progress=lambda done, to_do: told.append((done, to_do)))
    assert len(costs.rounds) in (12, 18)
    assert costs.trouble == ""
    for depth in range(5):
        expected = true_seconds(price, depth) / true_seconds(price, 0)
        found = costs.step_seconds(depth) / costs.step_seconds(0)
        assert found == pytest.approx(expected, abs=0.1)
    assert told[-1][0] == told[-1][1] == len(told) > told[0][1]


def test_rounds_are_not_repeated_for_ever_and_then_it_is_said(virtual, monkeypatch):
    monkeypatch.setattr("freezeout.costs.costs.trouble_in", lambda *_: "never right")
    costs = measured(virtual, prices(5))
    assert len(costs.rounds) in (18, 24)  # three times the first six, but for rounding
    assert costs.trouble == "never right"


@pytest.mark.parametrize("rounds", [1, 5])
def test_few_rounds_that_were_asked_for_stay_few(virtual, rounds):
    disturbed(virtual, until=math.inf)
    assert len(measured(virtual, prices(5), rounds=rounds).rounds) == rounds


def test_a_quiet_machine_is_measured_once(virtual):
    assert len(measured(virtual, prices(5)).rounds) == 6
