"""Verdicts on made runs with planted differences."""

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from freezeout.lab.evidence import (
    Arm,
    compare_arms,
    paired_difference,
    seeds_needed,
    seeds_to_narrow,
)
from freezeout.lab.evidence.statistics import spread_of
from tests.lab.evidence.made_arms import (
    EQUAL,
    VARIANT,
    VARIANT_SECONDS,
    arms,
    by_seed,
    drawn_errors,
    verdict,
)

# --- Verdicts -----------------------------------------------------------------------------------


def test_less_error_at_equal_time_paid():
    found = verdict()
    assert (found.outcome, found.reason) == ("paid", "lower error")
    assert found.difference == paired_difference(VARIANT, EQUAL)
    # Differences -0.9, -0.9, -0.9, -0.9, -1.0: mean -0.92, t(4) s / sqrt(5) = 0.0555.
    assert found.sentence.startswith(
        "Freezing paid: its error is 0.92 points lower than that of a plain run of the same time "
        "(95 % interval -0.98 to -0.86). Freezing took 19.9 % less time than the full run ("
    )
    assert found.sentence.endswith(" and ended 0.08 points higher (-0.02 to 0.18).")
    assert found.more_seeds is None


def test_more_error_at_equal_time_did_not_pay_however_little_above_the_full_run():
    found = verdict(EQUAL, VARIANT)
    assert (found.outcome, found.reason) == ("did not pay", "higher error")
    assert "0.92 points higher than that of a plain run of the same time" in found.sentence
    assert "Training for fewer epochs does better." in found.sentence


def test_the_same_error_at_equal_time_is_no_difference_within_the_margin():
    near = [4.9, 5.3, 4.95, 5.35, 5.3]
    found = verdict(VARIANT, near)
    assert (found.outcome, found.reason) == ("no difference", "same error")
    assert "so the same to within 0.25 points" in found.sentence
    assert verdict(VARIANT, near, margin=0.1).outcome == "undecided"


def test_a_wide_interval_is_undecided_and_says_how_many_seeds_could_tell():
    equal = [5.9, 4.5, 5.5, 4.8, 6.0]
    found = verdict(VARIANT, equal)
    spread = spread_of(paired_difference(VARIANT, equal), 0.95)
    more = seeds_needed(spread, 0.25) - 5
    assert (found.outcome, found.reason, found.more_seeds) == ("undecided", "wide interval", more)
    assert f"with 5 paired seeds. About {more} more seeds could tell." in found.sentence
    assert found.sentence.startswith("Whether freezing pays cannot be told yet: its error is")


def test_seeds_enough_to_find_the_margin_but_not_to_exclude_it_ask_for_a_narrower_interval():
    variant = [5.0] * 6
    differences = [0.33, 0.0, 0.3, -0.1, 0.25, 0.2]  # 0.163, -0.012 to 0.339
    found = verdict(
        variant,
        [5.0 - difference for difference in differences],
        None,
        seconds=None,
    )
    spread = spread_of(paired_difference(differences, [0.0] * 6), 0.95)
    assert seeds_needed(spread, 0.25) <= 6
    assert (found.outcome, found.reason) == ("undecided", "wide interval")
    assert found.more_seeds == seeds_to_narrow(spread, 0.125) - 6


def test_a_hopeless_question_says_so():
    equal = [40.0, 1.0, 30.0, 2.0, 8.0]
    variant = [value + np.mean(equal) - np.mean(VARIANT) for value in VARIANT]
    found = verdict(variant, equal, margin=0.01)
    assert (found.outcome, found.more_seeds) == ("undecided", None)
    assert "More than 10,000 seeds would be needed to tell." in found.sentence


@pytest.mark.parametrize(("count", "word", "more"), [(0, "no seed", 5), (1, "only one seed", 4)])
def test_fewer_than_two_pairs_decide_nothing(count, word, more):
    errors = {100: 1.0} | by_seed(EQUAL[:count])
    equal = Arm(name="short", kind="equal-time", of="cubic", errors=errors)
    found = compare_arms([*arms(equal=None), equal]).verdicts[0]
    assert (found.outcome, found.reason, found.more_seeds) == ("undecided", "too few seeds", more)
    assert f"{word} is paired with the equal-time baseline" in found.sentence
    assert "5 are recommended" in found.sentence


def test_without_an_equal_time_baseline_the_question_is_open():
    found = verdict(equal=None)
    assert (found.outcome, found.reason) == ("undecided", "no equal-time baseline")
    assert found.sentence.startswith(
        "Whether freezing pays is open without an equal-time baseline: "
    )
    assert "less time than the full run" in found.sentence


def test_no_time_saved_did_not_pay_whatever_the_error():
    found = verdict(seconds=[105.0, 106.0, 104.0, 105.0, 106.0])
    assert (found.outcome, found.reason) == ("did not pay", "no time saved")
    assert found.sentence.startswith(
        "Freezing did not pay: it saved no time. Freezing took 5.2 % more"
    )
    # Numbers count in the direction that is named.
    low, high = map(float, re.search(r"full run \((\S+) to (\S+)\)", found.sentence).groups())
    assert 0 < low < 5.2 < high


@pytest.mark.parametrize(
    ("options", "reason", "words"),
    [
        ({"seconds": [70.0, 130.0, 90.0, 99.0, 100.0]}, "saving uncertain", "at all is uncertain"),
        ({"full": None}, "saving unknown", "it is not known to have saved time"),
        ({"seconds": None}, "saving unknown", "it is not known to have saved time"),
    ],
)
def test_paid_needs_a_saving_that_is_sure(options, reason, words):
    found = verdict(**options)
    assert (found.outcome, found.reason) == ("undecided", reason)
    assert words in found.sentence
    # More error at equal time needs none.
    assert verdict(EQUAL, VARIANT, **options).outcome == "did not pay"


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1.06, "took 6.0 % longer than the variant, so the comparison is hard on freezing."),
        (0.94, "took 6.0 % less time than the variant, so the comparison flatters freezing."),
        (1.02, None),
        (0.98, None),
    ],
)
def test_times_that_were_not_equal_are_said(factor, words):
    found = verdict(equal_seconds=[factor * value for value in VARIANT_SECONDS])
    assert found.outcome == "paid"
    if words is None:
        assert "equal-time baseline took" not in found.sentence
    else:
        assert words in found.sentence


def test_far_from_equal_times_allow_no_verdict_that_they_may_have_made():
    shorter, longer = ([f * value for value in VARIANT_SECONDS] for f in (0.8, 1.2))
    paid, lost = (VARIANT, EQUAL), (EQUAL, VARIANT)
    same = (VARIANT, [4.9, 5.3, 4.95, 5.35, 5.3])
    for errors, times, outcome in [
        (paid, shorter, "undecided"),
        (paid, longer, "paid"),
        (lost, longer, "undecided"),
        (lost, shorter, "did not pay"),
        (same, longer, "undecided"),
        (same, shorter, "no difference"),
    ]:
        found = verdict(*errors, equal_seconds=times)
        assert found.outcome == outcome
        assert (found.reason == "unequal times") == (outcome == "undecided")


def test_unknown_times_of_the_equal_time_baseline_are_said():
    made = arms()
    made = [dataclasses.replace(a, seconds={}) if a.kind == "equal-time" else a for a in made]
    assert (
        "Whether the equal-time baseline took as long as the variant is not known."
        in compare_arms(made).verdicts[0].sentence
    )


@pytest.mark.parametrize("offset", [0.0, 0.1, -0.1])
def test_equal_differences_decide_only_by_their_number(offset):
    # Without a difference n equal signs have a chance of 2^(1 - n): 1/16 for 5, 1/32 for 6.
    rows = {count: ([5.0 + offset] * count, [5.0] * count) for count in (5, 6)}
    five, six = (verdict(*rows[count], None, seconds=None) for count in (5, 6))
    assert (five.outcome, five.reason, five.more_seeds) == ("undecided", "equal differences", 1)
    assert "the same in all 5 paired seeds" in five.sentence
    assert six.reason == {0.0: "same error", 0.1: "higher error", -0.1: "saving unknown"}[offset]


# --- Several variants ---------------------------------------------------------------------------


def test_variants_share_the_level():
    three = [*arms(), *arms(name="b", full=None), *arms(name="c", full=None)]
    comparison = compare_arms(three)
    assert comparison.level == 0.95
    assert comparison.verdict_level == pytest.approx(1 - 0.05 / 3)
    assert {found.level for found in comparison.verdicts} == {comparison.verdict_level}
    assert comparison.verdicts[0].difference == paired_difference(
        VARIANT, EQUAL, comparison.verdict_level
    )
    assert comparison.rows[1].against_equal_time == paired_difference(VARIANT, EQUAL)
    assert comparison.notes[0].startswith("3 variants share the 5 % chance of a wrong verdict")
    assert compare_arms(arms()).verdict_level == 0.95


def test_what_sharing_the_level_changes_is_said():
    others = [arm for name in "bcde" for arm in arms(name=name, full=None)]
    tight = [VARIANT[i] + d for i, d in enumerate([0.1, 0.5, 0.2, 0.25, 0.6])]
    assert verdict(VARIANT, tight).outcome == "paid"
    found = compare_arms([*arms(VARIANT, tight), *others]).verdicts[0]
    assert found.outcome == "undecided"
    assert 'As the only variant, at 95 %, it would have counted as "paid"' in found.sentence


# --- How often verdicts are wrong, and right ----------------------------------------------------

REPEATS = 400


def outcomes(rng, difference, seeds, *, spread=0.2, digits=None, repeats=REPEATS):
    """Verdicts on made runs with a true difference at equal time; a seed's luck is shared."""
    luck = rng.normal(8.0, 0.5, (repeats, seeds))
    noise = spread / math.sqrt(2)
    equal = luck + rng.normal(0.0, noise, luck.shape)
    variant = luck + difference + rng.normal(0.0, noise, luck.shape)
    if digits is not None:
        equal, variant = np.round(equal / digits) * digits, np.round(variant / digits) * digits
    seconds, full = [80.0 + s % 2 for s in range(seeds)], [100.0] * seeds
    return [
        verdict(v, e, [5.0] * seeds, seconds=seconds, full_seconds=full).outcome
        for v, e in zip(variant.tolist(), equal.tolist(), strict=True)
    ]


@pytest.mark.parametrize(("seeds", "digits"), [(5, None), (5, 0.28), (3, 0.28)])
def test_without_a_difference_verdicts_err_no_more_often_than_they_say(seeds, digits):
    # 0.28 points: one image of 360, as in the embedded digits.
    found = outcomes(np.random.default_rng(10 + seeds), 0.0, seeds, digits=digits)
    for wrong in ("paid", "did not pay"):
        assert found.count(wrong) <= binom.ppf(0.9999, REPEATS, 0.025)
    assert set(found) <= {"paid", "did not pay", "no difference", "undecided"}
    assert found.count("no difference") + found.count("undecided") > 0.9 * REPEATS
    if digits is None:  # neither is it shy
        assert found.count("paid") >= binom.ppf(0.0001, REPEATS, 0.025)


def test_no_difference_is_said_of_one_as_large_as_the_margin_no_more_often_than_it_may():
    found = outcomes(np.random.default_rng(20), 0.25, 8)
    assert found.count("no difference") <= binom.ppf(0.9999, REPEATS, 0.025)
    same = outcomes(np.random.default_rng(21), 0.0, 12, repeats=300)
    assert same.count("no difference") > 150


@pytest.mark.parametrize(("difference", "outcome"), [(-0.25, "paid"), (0.25, "did not pay")])
def test_a_planted_difference_is_found_with_the_computed_power(difference, outcome):
    seeds = seeds_needed(0.2, difference)
    found = outcomes(np.random.default_rng(30), difference, seeds)
    assert found.count(outcome) >= binom.ppf(0.0001, REPEATS, 0.8)
    fewer = outcomes(np.random.default_rng(31), difference, seeds - 1)
    assert fewer.count(outcome) <= binom.ppf(0.9999, REPEATS, 0.8)


@given(drawn_errors, drawn_errors, st.floats(0.01, 5.0))
def test_a_verdict_turns_when_arms_change_places(variant, equal, margin):
    # Both took less time than the full run, and equally long.
    there = verdict(variant, equal, seconds=[80.0] * 6, margin=margin, full_seconds=[100.0] * 6)
    back = verdict(equal, variant, seconds=[80.0] * 6, margin=margin, full_seconds=[100.0] * 6)
    # One pair of times has no interval, and more error needs none.
    turned = {"paid": "did not pay", "did not pay": "paid"}
    assert back.outcome == turned.get(there.outcome, there.outcome)
