"""``freezeout report``: one page with figures and tables of any runs."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Iterator, Sequence
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

    several = len(comparison.verdicts) > 1
    verdicts = []
    for verdict in comparison.verdicts:
        sentence = f"{verdict.variant}: {verdict.sentence}" if several else verdict.sentence
        verdicts.append(f"{sentence} {verdict.control_sentence}".strip())
    return Section(
        cell=comparison.cell,
        title=comparison.cell,
        sentences=(*verdicts, *comparison.notes),
        tables=tuple(_tables(comparison)),
    )


def _tables(comparison: Comparison) -> Iterator[Table]:
    """What each arm took and reached, and the differences that decide: narrow enough to be read."""
    from freezeout.report.table import Column, Table

    rows = comparison.rows
    arm = Column("arm", "arm")
    percent = f"{100 * comparison.level:g} %"
    seconds = max((row.seconds.mean for row in rows if row.seconds), default=0.0)
    places = 1 if seconds >= 100 else 2 if seconds >= 10 else 3
    yield Table(
        id="comparison",
        title="What each arm took and reached",
        columns=(
            arm,
            Column("seeds", "seeds"),
            *_two("error_percent", "error, %", 2),
            *_two("seconds", "training, s", places),
            *_two("saving", "saved, %", 1, scale=100),
            Column("peak_memory", "peak MB", decimals=0, scale=1e-6),
        ),
        rows=tuple(
            (
                row.arm,
                len(row.seeds),
                *_pair(row.error),
                *_pair(row.seconds),
                *_pair(row.saving),
                row.peak_memory,
            )
            for row in rows
        ),
        note=f"Intervals hold with {percent} each. Saved: against the baseline, over paired seeds.",
    )
    compared = [row for row in rows if row.kind != "baseline"]
    if compared:
        yield Table(
            id="differences",
            title="Differences of error, in points",
            columns=(
                arm,
                *_two("against_equal_time", "to equal time", 2, signed=True),
                *_two("against_baseline", "to the full run", 2, signed=True),
                *_two("time_ratio", "time / variant's", 3),
            ),
            rows=tuple(
                (
                    row.arm,
                    *_pair(row.against_equal_time),
                    *_pair(row.against_baseline),
                    *_pair(row.time_ratio),
                )
                for row in compared
            ),
            note=f"Over paired seeds; intervals hold with {percent} each. Below zero is better.",
        )


def _two(key: str, title: str, decimals: int, **how: Any) -> tuple[Column, Column]:
    from freezeout.report.table import Column

    return (
        Column(key, title, decimals=decimals, **how),
        Column(f"{key}_interval", "interval", decimals=decimals, interval=True, **how),
    )


def _pair(estimate: Estimate | None) -> tuple[float | None, tuple[float, float] | None]:
    if estimate is None:
        return None, None
    if estimate.low is None or estimate.high is None:
        return estimate.mean, None
    return estimate.mean, (estimate.low, estimate.high)
