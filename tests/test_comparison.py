"""Comparisons and verdicts: made runs with planted differences, and what is said of them."""

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import strategies  # noqa: F401  # fixes Hypothesis's seed
from freezeout.evidence import (
    Arm,
    RunRecord,
    compare,
    compare_arms,
    comparison_rows,
    paired_difference,
    saving_interval,
    seeds_needed,
    seeds_to_narrow,
)
from freezeout.evidence import record as record_parts  # pytest takes "Tested" for tests
from freezeout.evidence.statistics import spread_of

FULL, EQUAL, VARIANT = (
    [5.0, 5.2, 4.9, 5.1, 5.3],
    [6.0, 6.1, 5.9, 6.2, 6.3],
    [5.1, 5.2, 5.0, 5.3, 5.3],
)
FULL_SECONDS, VARIANT_SECONDS = [100.0, 101.0, 99.0, 100.5, 99.5], [80.0, 81.0, 79.0, 80.0, 80.5]


def by_seed(values):
    return dict(enumerate(values))


def arms(
    variant=VARIANT,
    equal=EQUAL,
    full=FULL,
    *,
    seconds=VARIANT_SECONDS,
    equal_seconds=None,
    full_seconds=FULL_SECONDS,
    control=None,
    name="cubic",
):
    """A variant's arms; ``None`` leaves an arm, or its times, out."""

    def arm(kind, errors, times, **more):
        timed = {} if times is None else by_seed(times[: len(errors)])
        return Arm(kind=kind, errors=by_seed(errors), seconds=timed, **more)

    made = [arm("variant", variant, seconds, name=name)]
    if full is not None:
        made.append(arm("baseline", full, full_seconds, name="full"))
    if equal is not None:
        times = seconds if equal_seconds is None else equal_seconds
        made.append(arm("equal-time", equal, times, name=f"short {name}", of=name))
    if control is not None:
        made.append(arm("control", control, full_seconds, name=f"rates {name}", of=name))
    return made


def verdict(*args, level=0.95, margin=0.25, **options):
    comparison = compare_arms(arms(*args, **options), level=level, margin=margin)
    return comparison.verdicts[0]


def record(kind="variant", arm="cubic", seed=0, error=5.0, **changes):
    of = "cubic" if kind in ("equal-time", "control") else None
    made = RunRecord(
        name=f"{arm}-{seed}",
        cell="digits",
        model="net",
        data="digits",
        arm=arm,
        kind=kind,
        of=of,
        spacing=None,
        scaled=True,
        t0=1.0,
        seed=seed,
        epochs=3,
        total_steps=30,
        steps=30,
        finished=True,
        base_rate=0.1,
        layer_names=("a", "b"),
        freeze_steps=(None, None),
        rate_steps=(),
        rates=(),
        tested=(record_parts.Tested(15, 5.0, 50.0), record_parts.Tested(30, 10.0, error)),
        step_times=(),
        memory=(),
        train_seconds=10.0,
        total_seconds=None,
        peak_memory=1000,
        predicted=None,
        predicted_interval=None,
        measured=None,
        device="CPU",
        precision="fp32",
    )
    return dataclasses.replace(made, **changes)


# --- Rows ---------------------------------------------------------------------------------------


def test_rows_hold_paired_numbers():
    comparison = compare_arms(arms(control=VARIANT))
    full, variant, equal, control = comparison.rows
    assert [row.kind for row in comparison.rows] == ["baseline", "variant", "equal-time", "control"]
    assert variant.error.mean == pytest.approx(np.mean(VARIANT))
    assert variant.against_baseline == paired_difference(VARIANT, FULL)
    assert variant.against_equal_time == paired_difference(VARIANT, EQUAL)
    assert variant.saving == saving_interval(VARIANT_SECONDS, FULL_SECONDS)
    assert variant.seconds.mean == pytest.approx(80.1)
    assert equal.against_baseline == paired_difference(EQUAL, FULL)
    assert (equal.time_ratio.mean, equal.time_ratio.interval) == (1.0, (1.0, 1.0))
    assert control.against_equal_time is None
    assert control.time_ratio is None
    assert (full.saving, full.against_baseline, full.against_equal_time) == (None, None, None)


def test_rows_stand_in_one_order_whatever_the_order_given():
    given_arms = [*arms(name="b", control=VARIANT), *arms(name="a", full=None)]
    orphan = Arm(name="lost", kind="control", of="gone", errors={0: 1.0})
    for order in (given_arms, given_arms[::-1]):
        rows = compare_arms([orphan, *order]).rows
        first, second = ("b", "a") if order is given_arms else ("a", "b")
        owners = [row.of or row.arm for row in rows]
        count = {"a": 2, "b": 3}
        assert owners == ["full", *[first] * count[first], *[second] * count[second], "gone"]


def test_unpaired_seeds_are_left_out_of_differences_and_said():
    made = arms(equal=EQUAL[:3], seconds=VARIANT_SECONDS)
    comparison = compare_arms(made)
    variant = comparison.rows[1]
    assert variant.error.count == 5
    assert variant.against_equal_time == paired_difference(VARIANT[:3], EQUAL[:3])
    assert variant.against_baseline.count == 5
    assert comparison.notes == (
        "Differences and savings are over the seeds that both arms have: "
        "the equal-time baseline of cubic lacks seeds 3, 4.",
    )
    assert compare_arms(arms()).notes == ()


def test_seeds_are_paired_by_number_and_not_by_place():
    variant = Arm(name="v", kind="variant", errors={3: 5.0, 1: 7.0, 0: 1.0})
    full = Arm(name="f", kind="baseline", errors={1: 6.0, 2: 9.0, 3: 4.5})
    row = compare_arms([variant, full]).rows[1]
    assert row.against_baseline == paired_difference([7.0, 5.0], [6.0, 4.5])


def test_memory_is_a_mean_and_the_largest():
    arm = Arm(name="v", kind="variant", errors={0: 1.0, 1: 2.0}, memory={0: 100, 1: 300})
    row = compare_arms([arm]).rows[0]
    assert (row.memory.mean, row.peak_memory) == (200.0, 300)
    assert compare_arms(arms()).rows[0].peak_memory is None


# --- From records -------------------------------------------------------------------------------


def test_records_become_one_comparison_per_cell_of_finished_runs():
    made = [
        record(seed=0, error=5.0),
        record(seed=1, error=6.0),
        record(seed=2, finished=False),
        record("baseline", "full", seed=0, error=4.0, train_seconds=20.0),
        record("equal-time", "short", seed=0, error=5.5),
        record("control", "rates", seed=0, error=5.0, finished=False),
        record(cell="fashion"),
        record(cell="nothing", finished=False),
    ]
    digits, fashion = compare(made)
    assert (digits.cell, fashion.cell) == ("digits", "fashion")
    assert [row.kind for row in digits.rows] == ["baseline", "variant", "equal-time"]
    variant = digits.rows[1]
    assert (variant.seeds, variant.error.mean) == ((0, 1), 5.5)
    assert variant.saving.mean == pytest.approx(0.5)
    assert variant.against_baseline.mean == pytest.approx(1.0)
    assert digits.notes[0] == "2 unfinished or untested runs left out."
    assert fashion.notes == ()


def test_records_and_plain_numbers_are_compared_alike():
    kinds = {"baseline": ("full", FULL), "equal-time": ("short cubic", EQUAL)}
    kinds["variant"] = ("cubic", VARIANT)
    records = [
        record(kind, arm, seed, error, train_seconds=times[seed], peak_memory=None)
        for kind, (arm, errors) in kinds.items()
        for times in [FULL_SECONDS if kind == "baseline" else VARIANT_SECONDS]
        for seed, error in enumerate(errors)
    ]
    assert compare(records) == (compare_arms(arms(), cell="digits"),)


def test_times_of_different_devices_are_not_passed_over():
    made = [record(seed=0), record("baseline", "full", device="NVIDIA H200", precision="bf16")]
    assert compare(made)[0].notes == (
        "Runs were made on CPU, fp32; NVIDIA H200, bf16: their times do not compare.",
    )
    assert compare([record(seed=0), record("baseline", "full")])[0].notes == ()


def test_two_runs_of_one_arm_with_one_seed_are_refused_by_name():
    with pytest.raises(ValueError, match=r"one run per seed, got 'cubic-0' and 'copy'.*seed 0"):
        compare([record(), record(name="copy")])
    assert compare([record(), record(name="copy", finished=False)])


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


# --- The control --------------------------------------------------------------------------------


def test_a_control_with_the_variants_errors_is_counted():
    comparison = compare_arms(arms(control=VARIANT))
    found = comparison.verdicts[0]
    assert (found.as_control, found.unlike_control) == ((0, 1, 2, 3, 4), ())
    assert comparison.notes == ()


def test_a_control_that_ends_elsewhere_is_told():
    comparison = compare_arms(arms(control=[*VARIANT[:3], VARIANT[3] + 0.01, 9.0]))
    found = comparison.verdicts[0]
    assert (found.as_control, found.unlike_control) == ((0, 1, 2), (3, 4))
    assert comparison.notes == (
        "The rate-only control of cubic ended with another error than the variant in 2 of 5 seeds "
        "(3, 4): there something other than the rates changed.",
    )


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


errors = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=6)


@given(errors, errors, st.floats(0.01, 5.0))
def test_a_verdict_turns_when_arms_change_places(variant, equal, margin):
    # Both took less time than the full run, and equally long.
    there = verdict(variant, equal, seconds=[80.0] * 6, margin=margin, full_seconds=[100.0] * 6)
    back = verdict(equal, variant, seconds=[80.0] * 6, margin=margin, full_seconds=[100.0] * 6)
    # One pair of times has no interval, and more error needs none.
    turned = {"paid": "did not pay", "did not pay": "paid"}
    assert back.outcome == turned.get(there.outcome, there.outcome)


# --- Columns ------------------------------------------------------------------------------------


def test_columns_hold_every_number_in_full():
    comparison = compare_arms(arms(control=VARIANT), cell="digits")
    columns, rows = comparison_rows(comparison)
    assert len(set(columns)) == len(columns)
    assert {len(row) for row in rows} == {len(columns)}
    variant = dict(zip(columns, rows[1], strict=True))
    expected = paired_difference(VARIANT, EQUAL)
    name = "error_points_against_equal_time"
    assert (variant[name], variant[f"{name}_low"], variant[f"{name}_high"]) == (
        expected.mean,
        *expected.interval,
    )
    assert variant[f"{name}_count"] == 5
    assert (variant["cell"], variant["arm"], variant["seeds"]) == ("digits", "cubic", 5)
    assert (variant["verdict"], variant["verdict_level"]) == ("paid", 0.95)
    baseline = dict(zip(columns, rows[0], strict=True))
    assert (baseline["verdict"], baseline["saving_fraction"]) == (None, None)
    assert baseline["saving_fraction_count"] == 0
    assert comparison_rows(compare_arms([])) == ((), ())


# --- Bad arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "plain"}, "kind must be one of 'baseline', 'equal-time', 'variant', 'control'"),
        ({"kind": "control"}, "of must name a variant for kind 'control', got None"),
        ({"of": "x"}, "of must be None for kind 'variant', got 'x'"),
        ({"errors": {0: 101.0}}, r"errors must lie in \[0, 100\], got 101.0 for seed 0 of 'cubic'"),
        ({"errors": {0: math.nan}}, "errors must lie"),
        ({"seconds": {0: 0.0}}, "seconds must be finite and above 0"),
        ({"memory": {0: -1}}, "memory must be finite and 0 or more"),
        ({"seconds": {4: 1.0}}, "got seed 4 of 'cubic', which has none"),
    ],
)
def test_bad_arms_are_named(changes, words):
    usual = {"name": "cubic", "kind": "variant", "errors": {0: 5.0}}
    assert Arm(**usual).seeds == (0,)
    with pytest.raises(ValueError, match=words):
        Arm(**(usual | changes))


def test_arms_that_cannot_be_told_apart_are_refused():
    twice = Arm(name="other", kind="equal-time", of="cubic", errors={0: 5.0})
    with pytest.raises(ValueError, match="kind 'equal-time' of 'cubic', got 'short cubic' and 'ot"):
        compare_arms([*arms(), twice])
    with pytest.raises(ValueError, match="kind 'baseline', got 'full' and 'more'"):
        compare_arms([*arms(), Arm(name="more", kind="baseline", errors={0: 5.0})])
    with pytest.raises(ValueError, match="Give variants different names"):
        compare_arms([*arms(), *arms(full=None, equal=None)])


@pytest.mark.parametrize("call", [compare, compare_arms])
def test_level_and_margin_have_their_ranges(call):
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\), got 95"):
        call([], level=95)
    with pytest.raises(ValueError, match="margin must be finite and above 0, got 0"):
        call([], margin=0)


def test_an_arm_keeps_what_it_was_given():
    given_errors = {1: 5.0, 0: 4.0}
    arm = Arm(name="v", kind="variant", errors=given_errors)
    given_errors[2] = 100.0
    assert arm.seeds == (0, 1)
