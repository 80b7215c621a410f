"""Entries of kept objects."""

import math

import pytest

from freezeout.lab.experiments.entries import (
    Entries,
    flag,
    listed,
    mapping,
    number,
    seconds,
    text,
    whole,
)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (whole, [0, 7, 10**12], [-1, 10**12 + 1, 10**300, 1.0, True, "7", None, [], math.nan]),
        (number, [0, 2.5, 1e12], [-1e-9, 1e13, math.nan, math.inf, 10**300, True, "2", None]),
        (seconds, [0, 1e-9, 5], [-1, 1e-300, math.nan, "5"]),
        (text, ["a", "<b>", "é"], ["", "a\nb", "\x00", "\ud800", "x" * 1001, 5, None, ["a"]]),
        (flag, [True, False], [0, 1, "true", None]),
        (mapping, [{}, {"a": 1}], [[], "a", None, 3]),
    ],
)
def test_a_value_of_another_kind_or_out_of_range_is_refused(check, right, wrong):
    assert [check(value) for value in right] == right
    for value in wrong:
        with pytest.raises(ValueError, match=r"^must be .*, got .{1,40}$"):
            check(value)


def test_every_item_of_a_list_is_checked():
    assert listed([1, 2], whole) == (1, 2)
    for value in ([1, "2"], {"1": 2}, "12", None):
        with pytest.raises(ValueError, match="must be"):
            listed(value, whole)


def test_an_entry_is_named_with_its_place():
    entries = Entries({"steps": "many", "none": None}, "epoch 3")
    with pytest.raises(ValueError, match=r"^'steps' of epoch 3 must be a whole number from 0 to"):
        entries.get("steps", whole)
    with pytest.raises(ValueError, match=r"^'error' of epoch 3 is missing$"):
        entries.get("error", number)
    assert entries.maybe("none", whole) is None is entries.maybe("error", whole)
    with pytest.raises(ValueError, match="'steps' of epoch 3"):
        entries.maybe("steps", whole)
    entries.only(("steps", "none", "more"))
    with pytest.raises(ValueError, match=r"^'none' is no entry of epoch 3$"):
        entries.only(("steps",))
