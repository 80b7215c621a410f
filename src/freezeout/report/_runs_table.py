"""The table of runs: what is known of each, finished or not."""

from __future__ import annotations

from collections.abc import Sequence

from freezeout.evidence.record import RunRecord
from freezeout.report.arms import by_arm
from freezeout.report.table import Cell, Column, Table

__all__ = ["runs_table"]


def runs_table(records: Sequence[RunRecord]) -> Table:
    """One row per run, by arm and seed.

    Args:
        records: At least one run.

    Returns:
        A table called ``runs``.
    """
    columns = (
        Column("name", "run"),
        Column("cell", "cell"),
        Column("arm", "arm"),
        Column("kind", "kind"),
        Column("seed", "seed"),
        Column("epochs", "epochs"),
        Column("steps", "steps"),
        Column("total_steps", "of steps"),
        Column("finished", "finished"),
        Column("error_percent", "test error", decimals=2, unit="%"),
        Column("train_seconds", "training time", decimals=1, unit="s"),
        Column("total_seconds", "with testing", decimals=1, unit="s"),
        Column("saving_measured", "saving measured", decimals=1, scale=100, unit="%"),
        Column("saving_predicted", "saving predicted", decimals=1, scale=100, unit="%"),
        Column(
            "predicted_interval", "95 % interval", decimals=1, scale=100, unit="%", interval=True
        ),
        Column("peak_bytes", "peak memory", decimals=0, scale=1e-6, unit="MB"),
        Column("device", "device"),
        Column("precision", "precision"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            run.name,
            run.cell,
            run.arm,
            run.kind,
            run.seed,
            run.epochs,
            run.steps,
            run.total_steps,
            run.finished,
            run.error,
            run.train_seconds,
            run.total_seconds,
            run.measured,
            run.predicted,
            run.predicted_interval,
            run.peak_memory,
            run.device,
            run.precision,
        )
        for runs in by_arm(records).values()
        for run in runs
    ]
    note = "Savings are of training time; measured ones are within the run, by its unfrozen steps."
    return Table("runs", "Runs", columns, tuple(rows), note)
