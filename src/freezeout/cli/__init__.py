"""The command line: one file per verb.

Exit codes: 0 done; 1 a defect of freezeout itself (with a traceback to report); 2 bad input or a
run that cannot go on (one line on the error stream); 130 stopped by ``SIGINT`` (all saved, if
training had begun).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from freezeout import __version__
from freezeout.errors import FreezeOutError

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """Reports bad usage in one line."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{self.prog}: error: {message}. See {self.prog} --help.")


class _UsageError(Exception):
    """Bad usage; the text is the whole line to print."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words after the program's name; by default those of the process.

    Returns:
        The exit code.
    """
    try:
        options = _parser().parse_args(arguments)
        code: int = options.run(options)
    except _UsageError as error:
        return _fail(str(error))
    except FreezeOutError as error:
        return _fail(f"freezeout: error: {_one_line(error)}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRAS:
            raise
        return _fail(
            f"freezeout: error: the command line needs the package {error.name}, which is not "
            "installed. Run: pip install 'freezeout[cli]'"
        )
    except KeyboardInterrupt:
        return _fail("freezeout: interrupted", code=130)
    return code


_EXTRAS = (
    *("numpy", "scipy", "filelock", "rich", "matplotlib", "sklearn", "pooch", "tomli", "tomli_w"),
)


def _parser() -> argparse.ArgumentParser:
    from freezeout.cli import compare, plan, report, sweep, train

    parser = _Parser(
        prog="freezeout",
        description="Train neural networks for less by progressively freezing layers (FreezeOut).",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"freezeout {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    train.add_parser(verbs)
    plan.add_parser(verbs)
    compare.add_parser(verbs)
    sweep.add_parser(verbs)
    report.add_parser(verbs)
    return parser


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _fail(line: str, code: int = 2) -> int:
    if os.environ.get("LOCAL_RANK", "0") in ("", "0"):  # one of several processes speaks for all
        print(line, file=sys.stderr)
    return code
