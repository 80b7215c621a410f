"""Comparisons: made runs become paired rows and columns; what is refused."""

import math

import numpy as np
import pytest

from freezeout.lab.evidence import (
    Arm,
    compare,
    compare_arms,
    comparison_rows,
    paired_difference,
    saving_interval,
)
from tests.lab.evidence.made_arms import (
    EQUAL,
    FULL,
    FULL_SECONDS,
    VARIANT,
    VARIANT_SECONDS,
    arms,
    record,
)

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
    with pytest.raises(ValueError, match="margin must be above 0 and finite, got 0"):
        call([], margin=0)


def test_an_arm_keeps_what_it_was_given():
    given_errors = {1: 5.0, 0: 4.0}
    arm = Arm(name="v", kind="variant", errors=given_errors)
    given_errors[2] = 100.0
    assert arm.seeds == (0, 1)
