"""The command line: one file per verb.

Exit codes: 0 done; 1 a defect of freezeout itself (with a traceback to report); 2 bad input or a
run that cannot go on (one line on the error stream); 130 stopped by ``SIGINT`` (all saved, if
training had begun). Processes of one run end with the same code, and one of them speaks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from freezeout import __version__
from freezeout.cli.launcher import End, Launcher
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
        The exit code. One of several processes that have joined ends with it instead.
    """
    options = _parse(arguments)  # --help and --version end here, and need no other process
    if _launched():
        try:
            launcher = Launcher(os.environ)
        except FreezeOutError as error:
            if not _is_another():  # nobody can be asked who speaks
                print(f"freezeout: error: {_one_line(error)}", file=sys.stderr)
            return 2
        return launcher.run(lambda launcher: _attempt(options, launcher))
    end = _attempt(options)
    if end.line:
        print(end.line, file=sys.stderr)
    return end.code


def _launched() -> bool:
    """Whether a launcher such as torchrun started this process as one of several."""
    size = os.environ.get("WORLD_SIZE", "1")
    return size.isdecimal() and int(size) > 1


def _is_another() -> bool:
    """Whether this is one of the processes of a machine beside its first."""
    local = os.environ.get("LOCAL_RANK", "")
    return local.isdecimal() and 0 < int(local) < int(os.environ["WORLD_SIZE"])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace | End:
    """What the words ask for, or how bad usage ends."""
    try:
        return _parser().parse_args(arguments)
    except _UsageError as error:
        return End(2, str(error), error)
    except ModuleNotFoundError as error:
        return _missing(error)
    except KeyboardInterrupt as error:
        return End(130, "freezeout: interrupted", error)


def _attempt(options: argparse.Namespace | End, launcher: Launcher | None = None) -> End:
    """Does what is asked for; how that ended.

    Args:
        options: What is asked for, or an end at once.
        launcher: What joins this process to others, for a verb that works in several.
    """
    if isinstance(options, End):
        return options
    try:
        if launcher is not None:
            _check_verb(options)
            options.launcher = launcher
        code: int = options.run(options)
    except _UsageError as error:
        return End(2, str(error), error)
    except FreezeOutError as error:
        return End(2, f"freezeout: error: {_one_line(error)}", error)
    except ModuleNotFoundError as error:
        return _missing(error)
    except KeyboardInterrupt as error:
        return End(130, "freezeout: interrupted", error)
    return End(code)


def _missing(error: ModuleNotFoundError) -> End:
    """The end where a package is missing that the command line needs; any other is a defect."""
    if (error.name or "").split(".")[0] not in _EXTRAS:
        raise error
    return End(
        2,
        f"freezeout: error: the command line needs the package {error.name}, which is not "
        "installed. Run: pip install 'freezeout[cli]'",
        error,
    )


def _check_verb(options: argparse.Namespace) -> None:
    if not getattr(options, "several", False):
        raise _UsageError(
            "freezeout: error: only freezeout train works in several processes, but a launcher "
            f"started {os.environ['WORLD_SIZE']} (WORLD_SIZE). Run it without torchrun."
        )


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
