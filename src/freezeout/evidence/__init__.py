"""What training runs show: records of runs, and whether freezing paid.

`RunRecord` holds one run in plain numbers. `compare` sets runs with paired seeds beside each other;
`compare_arms` does so for plain errors and seconds from any training loop. Numbers only: nothing
here needs torch or knows how runs were made; scipy has the distributions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from freezeout.evidence.record import Kind, RunRecord, StepTime, Tested

if TYPE_CHECKING:
    from freezeout.evidence.arms import Arm
    from freezeout.evidence.columns import comparison_rows
    from freezeout.evidence.comparison import Comparison, Row, compare, compare_arms
    from freezeout.evidence.decision import Outcome, Reason
    from freezeout.evidence.statistics import (
        Estimate,
        Found,
        difference_found,
        mean_interval,
        paired_difference,
        ratio_interval,
        saving_interval,
        seeds_needed,
        seeds_to_narrow,
    )
    from freezeout.evidence.verdict import Verdict

__all__ = [
    "Arm",
    "Comparison",
    "Estimate",
    "Found",
    "Kind",
    "Outcome",
    "Reason",
    "Row",
    "RunRecord",
    "StepTime",
    "Tested",
    "Verdict",
    "compare",
    "compare_arms",
    "comparison_rows",
    "difference_found",
    "mean_interval",
    "paired_difference",
    "ratio_interval",
    "saving_interval",
    "seeds_needed",
    "seeds_to_narrow",
]


_HOMES = {
    "Arm": "arms",
    "Comparison": "comparison",
    "Estimate": "statistics",
    "Found": "statistics",
    "Outcome": "decision",
    "Reason": "decision",
    "Row": "comparison",
    "Verdict": "verdict",
    "compare": "comparison",
    "compare_arms": "comparison",
    "comparison_rows": "columns",
    "difference_found": "statistics",
    "mean_interval": "statistics",
    "paired_difference": "statistics",
    "ratio_interval": "statistics",
    "saving_interval": "statistics",
    "seeds_needed": "statistics",
    "seeds_to_narrow": "statistics",
}
"""Modules that load scipy, which takes a second: only once something of theirs is asked for."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"freezeout.evidence.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
