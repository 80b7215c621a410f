"""The checks of single arguments, which every room shares."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest

from freezeout.errors import check_bool, check_fraction, check_number, check_whole, is_number


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, math.inf, Fraction(1, 3), np.float32(1), np.int64(3)]
)
def test_real_numbers_are_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize("value", [True, None, "1", 1j, [1], np.array([1.0])])
def test_anything_else_is_not(value):
    assert not is_number(value)
    with pytest.raises(TypeError, match=r"^rate must be a number, got .*\. Try 1\.$"):
        check_number("rate", value, "Try 1.")
    with pytest.raises(TypeError, match=r"^rate must be a number in \(0, 1\], got .*\. Try 1\.$"):
        check_fraction("rate", value, "Try 1.")


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (-1, {}, "steps must be at least 0, got -1. Try 5."),
        (1, {"least": 2}, "steps must be at least 2, got 1. Try 5."),
        (4, {"most": 3}, "steps must lie in 0 to 3, got 4. Try 5."),
        (0, {"least": 1, "most": 3}, "steps must lie in 1 to 3, got 0. Try 5."),
    ],
)
def test_whole_numbers_lie_within_bounds(value, bounds, message):
    check_whole("steps", np.int64(3), "Try 5.", **bounds)
    with pytest.raises(ValueError, match=re.escape(message)):
        check_whole("steps", value, "Try 5.", **bounds)


@pytest.mark.parametrize("value", [2.0, True, "2", None, np.float64(2)])
def test_what_only_looks_whole_is_refused(value):
    with pytest.raises(TypeError, match=r"^steps must be a whole number, got "):
        check_whole("steps", value, "Try 5.", least=None)
    check_whole("steps", -7, "Try 5.", least=None)
    with pytest.raises(TypeError, match=r"^steps must be a whole number of at least 1, got "):
        check_whole("steps", value, "Try 5.", least=1)
    with pytest.raises(TypeError, match=r"^steps must be a whole number from 1 to 3, got "):
        check_whole("steps", value, "Try 5.", least=1, most=3)


@pytest.mark.parametrize(
    ("value", "bounds", "words"),
    [
        (math.nan, {}, "finite"),
        (math.inf, {}, "finite"),
        (-0.5, {"least": 0.0}, "at least 0 and finite"),
        (math.inf, {"least": 0.0}, "at least 0 and finite"),
        (0.0, {"above": 0.0}, "above 0 and finite"),
        (math.nan, {"above": 0.0}, "above 0 and finite"),
    ],
)
def test_numbers_lie_within_bounds(value, bounds, words):
    check_number("rate", 0.1, "Try 1.", **bounds)
    message = f"rate must be {words}, got {value}. Try 1."
    with pytest.raises(ValueError, match=re.escape(message)):
        check_number("rate", value, "Try 1.", **bounds)


@pytest.mark.parametrize(
    ("within", "inside", "outside"),
    [
        ("(0, 1]", (1, 1e-300), (0, 1.01, math.nan)),
        ("[0, 1)", (0, 0.99), (1, -0.01, math.nan)),
        ("(0, 1)", (1e-300, 0.99), (0, 1, math.nan)),
    ],
)
def test_fractions_lie_in_their_interval(within, inside, outside):
    for value in inside:
        check_fraction("share", value, "Try 0.5.", within=within)
    for value in outside:
        message = f"share must lie in {within}, got {value}. Try 0.5."
        with pytest.raises(ValueError, match=re.escape(message)):
            check_fraction("share", value, "Try 0.5.", within=within)


@pytest.mark.parametrize("value", [0, 1, None, "true", np.True_])
def test_only_true_and_false_are_truth_values(value):
    check_bool("flip", True, "Choose one.")
    check_bool("flip", False, "Choose one.")
    message = f"flip must be True or False, got {value!r}. Choose one."
    with pytest.raises(TypeError, match=re.escape(message)):
        check_bool("flip", value, "Choose one.")
