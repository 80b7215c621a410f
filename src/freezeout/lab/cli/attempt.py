"""Do what the words ask for, alone or as one of several processes, and say how it ended."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from freezeout.errors import FreezeOutError
from freezeout.lab.cli.launched import is_another, is_launched
from freezeout.lab.cli.parser import UsageError, make_parser
from freezeout.lab.cli.paths import refusal
from freezeout.lab.cli.signals import end_line
from freezeout.lab.streams import outlive
from freezeout.lab.training import Interrupted, forget_signals
from freezeout.lab.training.processes import End
from freezeout.text import one_line, printable

if TYPE_CHECKING:
    from freezeout.lab.training.processes import Launcher

__all__ = ["EXTRAS", "attempt"]

EXTRAS = (
    *("numpy", "scipy", "filelock", "psutil", "rich", "rich_argparse", "shtab", "matplotlib"),
    *("PIL", "jinja2", "markupsafe", "sklearn", "pooch", "tomli", "tomli_w"),
)
"""Packages of the extra ``lab``, as they are imported."""


def attempt(arguments: Sequence[str] | None) -> int:
    """Do what the words ask for.

    Args:
        arguments: Words after the program's name; by default those of the process.

    Returns:
        The exit code. One of several joined processes ends with it instead of returning.
    """
    forget_signals()
    options = _parse(arguments)  # --help and the like end here, and need no other process
    if is_launched():
        from freezeout.lab.training.processes import Launcher

        try:
            launcher = Launcher(os.environ)
        except FreezeOutError as error:
            if not is_another():  # they cannot agree on who prints
                _complain(f"freezeout: error: {one_line(error)}")
            return 2
        return launcher.run(lambda launcher: _joined(options, launcher))
    end = _attempt(options)
    if end.line:
        _complain(end.line)
    return end.code


def _complain(line: str) -> None:
    with outlive(sys.stderr):
        print(line, file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace | End:
    """Return what the words ask for, or how bad usage ends."""
    try:
        return make_parser().parse_args(arguments)
    except UsageError as error:
        return End(2, str(error), error)
    except ModuleNotFoundError as error:
        return _missing(error)
    except BrokenPipeError:
        raise
    except OSError as error:  # help, to a disk that is full
        return End(2, f"freezeout: error: cannot write: {error.strerror}. Make room.", error)


def _joined(options: argparse.Namespace | End, launcher: Launcher) -> End:
    """Make the attempt as one of several processes, which a signal ends together."""
    try:
        return _attempt(options, launcher)
    except KeyboardInterrupt as error:
        number = Interrupted.number_of(error)
        return End(128 + number, end_line(number), error)


def _attempt(options: argparse.Namespace | End, launcher: Launcher | None = None) -> End:
    """Do what is asked for, and return how that ended.

    Args:
        options: What is asked for, or how bad usage ends.
        launcher: Joins this process to others, for a verb that works in several.
    """
    if isinstance(options, End):
        return options
    try:
        if launcher is not None:
            _check_verb(options)
            options.launcher = launcher
        code: int = options.run(options)
    except UsageError as error:
        return End(2, str(error), error)
    except FreezeOutError as error:
        return End(2, f"freezeout: error: {one_line(error)}", error)
    except ModuleNotFoundError as error:
        return _missing(error)
    except MemoryError as error:
        return End(
            2,
            "freezeout: error: there is not enough memory for this. Close other programs, or take "
            "a smaller batch, network or number of --processes.",
            error,
        )
    except BrokenPipeError:
        raise
    except OSError as error:
        words = refusal(error)
        if words is None:
            raise
        return End(2, f"freezeout: error: {printable(words)}", error)
    return End(code)


def _missing(error: ModuleNotFoundError) -> End:
    """Return the end where a package of the `lab` extra is missing; any other is a defect."""
    module = (error.name or "").split(".")[0]
    if module not in EXTRAS:
        raise error
    return End(
        2,
        f"freezeout: error: the command line needs the package {module.replace('_', '-')}, which "
        "is not installed. Run: pip install 'freezeout[lab]'",
        error,
    )


def _check_verb(options: argparse.Namespace) -> None:
    if not getattr(options, "several", False):
        raise UsageError(
            "freezeout: error: only freezeout train works in several processes, but a launcher "
            f"started {os.environ['WORLD_SIZE']} (WORLD_SIZE). Run it without torchrun."
        )
