"""``freezeout report``: one page with figures and tables of any runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  freezeout report runs/compare-digits-resnet-20-1      report/report.html in that folder
  freezeout report runs/digits-* --out page             of any run folders
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
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folders with runs")
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
    raise NotImplementedError
