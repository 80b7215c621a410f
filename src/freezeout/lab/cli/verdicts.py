"""What an experiment has shown: comparisons on the terminal and as CSV, and failed runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from freezeout.errors import RunError
from freezeout.lab.evidence import compare, comparison_csv
from freezeout.lab.experiments import Experiment, Unread, read_runs
from freezeout.lab.report.terminal import ComparisonTables, print_to
from freezeout.lab.training import stop_code
from freezeout.storage import write_text
from freezeout.text import command

__all__ = ["MARGIN", "check_margin", "show"]

MARGIN = 0.25
"""Points of error that count as no difference by default."""


def check_margin(margin: float) -> float:
    """Return the margin.

    Raises:
        RunError: If it is out of range.
    """
    if not 0.0 < margin < 100.0:
        raise RunError(f"--margin must lie between 0 and 100 points, got {margin}. Try 0.25.")
    return margin


def show(experiment: Experiment, verb: str, *, finished: bool, margin: float = MARGIN) -> int:
    """Print and save the comparisons; say which runs failed and how to go on.

    Args:
        experiment: The experiment.
        verb: The verb that carries it out.
        finished: Whether nothing is left to do.
        margin: Points of error that count as no difference.

    Returns:
        The exit code: 0, or 2 if a run failed, or 130 (143 by ``SIGTERM``) if it was stopped.
    """
    folder = experiment.folder
    try:
        records, unread = read_runs([folder / "runs"])
    except RunError:
        records, unread = [], []
    if experiment.grid.variants and any(record.error is not None for record in records):
        comparisons = compare(records, margin=margin)
        write_text(folder / "comparison.csv", comparison_csv(comparisons))
        for comparison in comparisons:
            print()
            print_to(sys.stdout, ComparisonTables(comparison))
        print()
        print(f"numbers: {folder / 'comparison.csv'}")
    print(f"figures and all runs on one page: {command('report', folder)}")
    if not finished:
        print(f"stopped, all saved; go on with: {command(verb, '--resume', folder)}")
        return stop_code()
    if unread:
        _tell_unread(unread, folder, verb)
        return 2
    left = experiment.grid.size - experiment.done()
    if left:  # such as by a disk that failed for a moment
        raise RunError(
            f"{left} of {experiment.grid.size} runs are not done, though none failed. Go on with: "
            f"{command(verb, '--resume', folder)}"
        )
    return 0


def _tell_unread(unread: Sequence[Unread], folder: Path, verb: str) -> None:
    """Name the runs that are missing, and say in one line what to do about them."""
    for run in unread:
        print(f"{'failed' if run.failed else 'left out'}: {run.name}: {run.reason}")
    failed = sum(run.failed for run in unread)
    found, advice = [], []
    if failed:
        found.append(f"{_runs(failed)} failed")
        advice.append(f"Try again with: {command(verb, '--resume', folder, '--retry')}")
    if failed < len(unread):
        found.append(f"{_runs(len(unread) - failed)} cannot be read")
        again = command(verb, "--resume", folder)
        advice.insert(0, f"Copy again what cannot be read, or delete it, then: {again}")
    print(
        f"freezeout: error: {' and '.join(found)}, the others are done. First: "
        f"{unread[0].name}: {unread[0].reason.rstrip('.')}. {'; or '.join(advice)}",
        file=sys.stderr,
    )


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
