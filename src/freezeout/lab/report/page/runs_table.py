"""The table of runs: what is known of each, finished or not."""

from __future__ import annotations

from collections.abc import Sequence

from freezeout.lab.evidence import RunRecord
from freezeout.lab.report.grouping import by_arm
from freezeout.lab.report.table import Column, Table

__all__ = ["runs_table", "shown_runs"]

_FIRST = (
    "name",
    "arm",
    "seed",
    "error_percent",
    "train_seconds",
    "saving_measured",
    "saving_predicted",
)


_COLUMNS = (
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
    Column("predicted_interval", "95 % interval", decimals=1, scale=100, unit="%", interval=True),
    Column("peak_bytes", "peak memory", decimals=0, scale=1e-6, unit="MB"),
    Column("device", "device"),
    Column("precision", "precision"),
)

_ATTRIBUTES = {
    "error_percent": "error",
    "saving_measured": "measured",
    "saving_predicted": "predicted",
    "peak_bytes": "peak_memory",
}
"""What a record calls a column, where it is not the column's key."""


def runs_table(records: Sequence[RunRecord]) -> Table:
    """Return one row per run, by arm and seed.

    Args:
        records: At least one run.

    Returns:
        A table called ``runs``.
    """
    names = [_ATTRIBUTES.get(column.key, column.key) for column in _COLUMNS]
    rows = (
        tuple(getattr(run, name) for name in names)
        for runs in by_arm(records).values()
        for run in runs
    )
    note = (
        "Savings are of training time; measured ones are against the baseline of the same cell and "
        "seed where there is one, else by the run's own unfrozen steps."
    )
    return Table("runs", "Runs", _COLUMNS, tuple(rows), note)


def shown_runs(table: Table) -> Table:
    """Return the table of the runs of one cell as the page shows it.

    Args:
        table: Made by `runs_table`.

    Returns:
        The same rows without the cell and without the folders that all names begin with; what came
        out stands first.
    """
    keys = [column.key for column in table.columns]
    order = [keys.index(key) for key in _FIRST]
    order += [i for i, key in enumerate(keys) if key not in (*_FIRST, "cell")]
    start = _shared([str(row[0]) for row in table.rows])
    rows = tuple((str(row[0])[start:], *(row[i] for i in order[1:])) for row in table.rows)
    columns = tuple(table.columns[i] for i in order)
    return Table(table.id, table.title, columns, rows, table.note)


def _shared(names: Sequence[str]) -> int:
    """Return the length of the folders that all names begin with."""
    parts = [name.split("/")[:-1] for name in names]
    same = 0
    while all(len(part) > same and part[same] == parts[0][same] for part in parts):
        same += 1
    return sum(len(part) + 1 for part in parts[0][:same])
