"""What training runs show: records of runs, and whether freezing paid.

`RunRecord` holds one run in plain numbers. `compare` sets runs with paired seeds beside each other;
`compare_arms` does so for plain errors and seconds from any training loop. Numbers only: nothing
here needs torch or knows how runs were made; scipy has the distributions.
"""

from freezeout.lab.evidence.arms import Arm
from freezeout.lab.evidence.columns import comparison_csv, comparison_rows
from freezeout.lab.evidence.comparison import Comparison, Row, compare, compare_arms
from freezeout.lab.evidence.decision import Outcome, Reason
from freezeout.lab.evidence.record import Kind, RunRecord, StepTime, Tested
from freezeout.lab.evidence.statistics import (
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
from freezeout.lab.evidence.verdict import Verdict

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
    "comparison_csv",
    "comparison_rows",
    "difference_found",
    "mean_interval",
    "paired_difference",
    "ratio_interval",
    "saving_interval",
    "seeds_needed",
    "seeds_to_narrow",
]
