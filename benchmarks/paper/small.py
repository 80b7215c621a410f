"""Put what ``freezeout sweep --preset paper-small`` found where it can be committed.

    freezeout sweep --preset paper-small --data-dir DATA --out runs/paper-small
    python -m benchmarks.paper.small runs/paper-small

Write ``report.html`` with its figures and tables, ``comparison.csv``, ``machine.json`` and
``table.md`` (the table of docs/benchmarks.md) into ``benchmarks/results/paper-small``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.command import RESULTS as ALL
from benchmarks.common.command import write_json
from benchmarks.common.machine import hardware, versions
from benchmarks.paper.tables import markdown
from freezeout.errors import FreezeOutError, RunError
from freezeout.lab.cli import main as freezeout
from freezeout.lab.evidence import Comparison, compare, comparison_csv
from freezeout.lab.experiments import read_runs
from freezeout.storage import write_text

__all__ = ["main"]

RESULTS = ALL / "paper-small"
TITLE = "FreezeOut on three small families: does freezing pay?"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return the exit code."""
    parser = argparse.ArgumentParser(description="Commit what the scaled-down set found.")
    parser.add_argument("folder", type=Path, help="folder of the experiment")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write")
    options = parser.parse_args(arguments)
    try:
        comparisons = _compared(options.folder)
    except FreezeOutError as error:
        print(f"paper.small: error: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    table = markdown(comparisons)
    write_text(options.out / "table.md", table)
    write_text(options.out / "comparison.csv", comparison_csv(comparisons))
    facts = {"hardware": hardware("cpu"), "versions": versions("cpu")}
    write_json(facts, options.out / "machine.json")
    print(table)
    return freezeout(["report", str(options.folder), "--out", str(options.out), "--title", TITLE])


def _compared(folder: Path) -> tuple[Comparison, ...]:
    records, unread = read_runs([folder])
    unfinished = [record.name for record in records if not record.finished]
    if unread or unfinished:
        first = unfinished[0] if unfinished else unread[0].name
        raise RunError(
            f"{len(unread) + len(unfinished)} runs of {folder} failed or are not finished, such as "
            f"{first}. Finish them first: freezeout sweep --resume {folder} --retry"
        )
    return compare(records)


if __name__ == "__main__":
    sys.exit(main())
