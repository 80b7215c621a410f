"""What an experiment has shown: comparisons on the terminal and as CSV, and what failed."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

from freezeout.errors import RunError
from freezeout.evidence import compare, comparison_rows
from freezeout.experiments.experiment import Experiment
from freezeout.experiments.records import Unread, read_runs
from freezeout.report.comparison_tables import print_comparison
from freezeout.training.checkpoint import write_atomically

__all__ = ["MARGIN", "check_margin", "show"]

MARGIN = 0.25
"""Points of error that count as no difference, where nothing else is said."""


def check_margin(margin: float) -> float:
    """The margin, if it is one.

    Raises:
        RunError: If it is not.
    """
    if not 0.0 < margin < 100.0:
        raise RunError(f"--margin must lie between 0 and 100 points, got {margin}. Try 0.25.")
    return margin


def show(experiment: Experiment, verb: str, *, finished: bool, margin: float = MARGIN) -> int:
    """Prints and saves what there is to compare, and says what failed and how to go on.

    Args:
        experiment: The experiment.
        verb: The verb that carries it out.
        finished: Whether nothing is left to do.
        margin: Points of error that count as no difference.

    Returns:
        The exit code: 0, or 2 if a run failed, or 130 if it was stopped.
    """
    folder = experiment.folder
    try:
        records, unread = read_runs([folder / "runs"])
    except RunError:
        records, unread = [], []
    if experiment.grid.variants and any(record.error is not None for record in records):
        comparisons = compare(records, margin=margin)
        tables = [comparison_rows(comparison) for comparison in comparisons]
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(tables[0][0])
        for _, rows in tables:
            writer.writerows(rows)
        write_atomically(
            folder / "comparison.csv", lambda file: file.write(text.getvalue().encode())
        )
        for comparison in comparisons:
            print()
            print_comparison(comparison, sys.stdout)
        print()
        print(f"numbers: {folder / 'comparison.csv'}")
    print(f"figures and all runs on one page: freezeout report {folder}")
    if not finished:
        print(f"stopped, all saved; go on with: freezeout {verb} --resume {folder}")
        return 130
    if unread:
        _tell_failed(unread, folder, verb)
        return 2
    return 0


def _tell_failed(failed: list[Unread], folder: Path, verb: str) -> None:
    runs = "run" if len(failed) == 1 else "runs"
    print(
        f"freezeout: error: {len(failed)} {runs} failed, the others are done. First: "
        f"{failed[0].name}: {failed[0].reason} Try again with: freezeout {verb} --resume {folder} "
        "--retry",
        file=sys.stderr,
    )
