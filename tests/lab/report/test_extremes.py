"""Records with numbers that no machine has measured: shown, or left out, without a crash."""

import io
from dataclasses import replace

import pytest

from freezeout.lab.evidence import StepTime, compare
from freezeout.lab.report import section_of, write_report
from freezeout.lab.report.terminal import ComparisonTables, print_to
from tests.lab.report.records import record

HUGE = 10**300


def with_step_times(seconds):
    return lambda run: {"step_times": tuple(replace(t, seconds=seconds) for t in run.step_times)}


CHANGES = {
    "below zero": lambda run: {
        **{"train_seconds": -5.0, "total_seconds": -1.0, **with_step_times(-1.0)(run)},
        **{"total_steps": -5, "steps": -5, "freeze_steps": (-1,) * 8},
    },
    "no time at all": lambda run: {
        "train_seconds": 0.0,
        "tested": tuple(replace(test, step=0, seconds=0.0) for test in run.tested),
        **with_step_times(0.0)(run),
    },
    "ages": lambda run: {
        "train_seconds": 1e12,
        "tested": tuple(replace(test, seconds=1e12) for test in run.tested),
        **with_step_times(1e300)(run),
    },
    "no steps": lambda run: {
        **{"total_steps": 0, "steps": 0, "epochs": 0.0, "rate_steps": (0,), "rates": ()},
        **{"tested": (), "step_times": (), "memory": (), "freeze_steps": (None,) * 8},
    },
    "huge": lambda run: {
        **{"total_steps": HUGE, "steps": HUGE, "epochs": 1e300, "freeze_steps": (HUGE,) * 8},
        "tested": (replace(run.tested[0], step=HUGE, error=5.0),),
        "step_times": (StepTime(HUGE, 1.0, 900),),
        "base_rate": 1e300,
        "rates": tuple(tuple(1e300 * rate for rate in one) for one in run.rates),
        **{"peak_memory": HUGE, "memory": ((5, HUGE), (7, 0))},
        **{"measured": 1e300, "predicted": -1e300, "predicted_interval": (-1e300, 1e300)},
    },
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_page_and_tables_are_made_of_any_numbers(name, tmp_path):
    odd = record("odd", seed=0)
    odd = replace(odd, **CHANGES[name](odd))
    others = [record(f"v{seed}", seed=seed) for seed in (1, 2)]
    full = [
        record(f"b{seed}", arm="baseline", kind="baseline", t0=1.0, spacing=None, seed=seed)
        for seed in (0, 1, 2)
    ]
    comparisons = compare([odd, *others, *full])
    for comparison in comparisons:
        print_to(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), ComparisonTables(comparison))
    page = write_report(
        tmp_path,
        [odd, *others, *full],
        title="odd",
        date="today",
        sections=[section_of(comparison) for comparison in comparisons],
        left_out=[("bad", "cannot be read")],
        figures="svg",
    )
    text = page.read_text(encoding="utf-8")
    assert "odd" in text
    assert "cannot be read" in text
