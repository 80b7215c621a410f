"""``freezeout report``: one page with figures and tables of any runs."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from freezeout.errors import RunError
from freezeout.lab.cli.paths import option_path

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  freezeout report runs/compare-digits-resnet-20-1      report/report.html in that folder
  freezeout report runs/digits-resnet-20-1 runs/digits-resnet-20-2 --out page
"""


def add_parser(verbs: Any) -> None:
    """Add the verb.

    Args:
        verbs: What ``ArgumentParser.add_subparsers`` returned.
    """
    parser = verbs.add_parser(
        "report",
        help="make one HTML page, figures and tables from run folders",
        description="One self-contained page from run folders, with every figure as image and CSV.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "folders",
        type=option_path,
        nargs="+",
        metavar="DIR",
        help="folders of runs, or that hold them",
    )
    parser.add_argument(
        "--out",
        type=option_path,
        metavar="DIR",
        help="where to write (default: report in the first DIR)",
    )
    parser.add_argument("--title", metavar="TEXT", help="heading of the page")
    parser.add_argument(
        "--margin",
        type=float,
        metavar="X",
        help="points of error that count as no difference, above 0 (default: 0.25)",
    )
    parser.add_argument(
        "--figures",
        choices=("png", "pdf", "svg"),
        metavar="KIND",
        help="kind of the figures' files: png (default), pdf or svg",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from freezeout.lab.cli.verdicts import MARGIN, check_margin
    from freezeout.lab.evidence import compare
    from freezeout.lab.experiments import read_runs
    from freezeout.lab.report import section_of, write_report

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
        out.mkdir(parents=True, exist_ok=True)  # before figures are drawn, which takes a while
        page = write_report(
            out,
            records,
            title=title,
            date=_today(),
            sections=[section_of(comparison) for comparison in comparisons],
            left_out=[(run.name, run.reason) for run in unread],
            figures=getattr(options, "figures", "png"),
        )
    except OSError as error:
        raise RunError(
            f"cannot write into {out}: {error.strerror or error}. Give another folder with --out."
        ) from error
    print(f"{page}  ({len(records)} runs{f', {len(unread)} left out' if unread else ''})")
    for run in unread:
        print(f"left out: {run.name}: {run.reason}")
    return 0


def _today() -> str:
    """Return today, or the day of ``SOURCE_DATE_EPOCH``, so that a page can be made again."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch.isdecimal():
        return datetime.date.today().isoformat()
    try:
        day = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc).date()
    except (ValueError, OverflowError, OSError) as error:
        raise RunError(
            "SOURCE_DATE_EPOCH must be seconds since 1970 that end before the year 10000. Unset "
            "it, or give the time of the page."
        ) from error
    return day.isoformat()
