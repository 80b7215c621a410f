"""``freezeout report``: one page with figures and tables of any runs."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freezeout.errors import RunError

if TYPE_CHECKING:
    from freezeout.evidence import Comparison, Estimate
    from freezeout.report.section import Section
    from freezeout.report.table import Column, Table

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  freezeout report runs/compare-digits-resnet-20-1      report/report.html in that folder
  freezeout report runs/digits-resnet-20-1 runs/digits-resnet-20-2 --out page
"""


def add_parser(verbs: Any) -> None:
    """Adds the verb.

    Args:
        verbs: What ``ArgumentParser.add_subparsers`` returned.
    """
    parser = verbs.add_parser(
        "report",
        help="make one HTML page, figures and tables from run folders",
        description="One self-contained page, and every figure as PNG and CSV, from run folders.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="folders of runs, or that hold them"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: report in the first DIR)"
    )
    parser.add_argument("--title", metavar="TEXT", help="heading of the page")
    parser.add_argument(
        "--margin",
        type=float,
        metavar="X",
        help="points of error that count as no difference, above 0 (default: 0.25)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from freezeout.cli.evidence import MARGIN, check_margin
    from freezeout.evidence import compare
    from freezeout.experiments.records import read_runs
    from freezeout.report.page import write_report

    margin = check_margin(getattr(options, "margin", MARGIN))
    folders: Sequence[Path] = options.folders
    records, unread = read_runs(folders)
    if not records:
        raise RunError(
            f"none of the {len(unread)} runs that were found can be shown; the first, "
            f"{unread[0].name}: {unread[0].reason}"
        )
    comparisons = compare(records, margin=margin)
    out: Path = getattr(options, "out", None) or folders[0] / "report"
    title = getattr(options, "title", None) or "Does freezing pay?"
    try:
        page = write_report(
            out,
            records,
            title=title,
            date=_today(),
            sections=[_section(comparison) for comparison in comparisons],
            left_out=[(run.name, run.reason) for run in unread],
        )
    except OSError as error:
        raise RunError(
            f"cannot write into {out}: {error.strerror or error}. Give another folder with --out."
        ) from error
    print(f"{page}  ({len(records)} runs{f', {len(unread)} left out' if unread else ''})")
    return 0


def _today() -> str:
    """Today, or the day that ``SOURCE_DATE_EPOCH`` names, so that pages can be made again."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch.isdecimal():
        return datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc).date().isoformat()
    return datetime.date.today().isoformat()


def _section(comparison: Comparison) -> Section:
    from freezeout.report.section import Section

    verdicts = [
        f"{verdict.variant}: {verdict.sentence}"
        if len(comparison.verdicts) > 1
        else verdict.sentence
        for verdict in comparison.verdicts
    ]
    return Section(
        cell=comparison.cell,
        title=comparison.cell,
        sentences=(*verdicts, *comparison.notes),
        tables=(_table(comparison),) if comparison.rows else (),
    )


def _table(comparison: Comparison) -> Table:
    from freezeout.report.table import Column, Table

    def pair(estimate: Estimate | None) -> tuple[float, float] | None:
        if estimate is None or estimate.low is None or estimate.high is None:
            return None
        return estimate.low, estimate.high

    def two(key: str, title: str, decimals: int, **how: Any) -> tuple[Column, Column]:
        return (
            Column(key, title, decimals=decimals, **how),
            Column(f"{key}_interval", "interval", decimals=decimals, interval=True, **how),
        )

    columns = (
        Column("arm", "arm"),
        Column("seeds", "seeds"),
        *two("error_percent", "error, %", 2),
        *two("seconds", "time in training, s", 1),
        *two("saving", "time saved, %", 1, scale=100),
        *two("against_equal_time", "error against equal time, points", 2, signed=True),
        *two("against_baseline", "error against the full run, points", 2, signed=True),
        *two("time_ratio", "its time to the variant's", 3),
        Column("peak_memory", "peak memory, MB", decimals=0, scale=1e-6),
    )
    rows = []
    for row in comparison.rows:
        values: list[Any] = [row.arm, len(row.seeds)]
        for estimate in (
            row.error,
            row.seconds,
            row.saving,
            row.against_equal_time,
            row.against_baseline,
            row.time_ratio,
        ):
            values += [None if estimate is None else estimate.mean, pair(estimate)]
        rows.append((*values, row.peak_memory))
    return Table(
        id="comparison",
        title="Comparison",
        columns=columns,
        rows=tuple(rows),
        note=f"Intervals hold with {100 * comparison.level:g} % each; differences are taken over "
        "paired seeds.",
    )
