"""The program: read the words, run their verb, and end with the code that says how it went.

Exit codes: 0 done; 1 a defect of freezeout itself (with a traceback to report); 2 bad input or a
run that cannot go on (one line on the error stream); 130 stopped by ``SIGINT`` (all saved, if
training had begun). Processes of one run end with the same code, and one of them prints.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from freezeout import __version__
from freezeout.errors import FreezeOutError
from freezeout.lab.streams import outlive
from freezeout.lab.training.processes import End, Launcher
from freezeout.text import one_line

__all__ = ["main"]

_LEAST_WIDTH = 20  # of help; less would hold no option


class _Parser(argparse.ArgumentParser):
    """Report bad usage in one line, show help in colour, and complete paths."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            formatter_class=_formatter(),
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
            **kwargs,
        )

    def error(self, message: str) -> NoReturn:
        """Raise bad usage, where argparse would end the program."""
        raise _UsageError(f"{self.prog}: error: {message}. See {self.prog} --help.")


def _formatter() -> type[argparse.HelpFormatter]:
    from rich_argparse import RawDescriptionRichHelpFormatter

    class Formatter(RawDescriptionRichHelpFormatter):
        """Leave headings as they are, and take no bracket for markup."""

        group_name_formatter = str
        help_markup = text_markup = False

        def __init__(self, prog: str, **kwargs: Any) -> None:
            kwargs["width"] = max(_LEAST_WIDTH, shutil.get_terminal_size().columns - 2)
            super().__init__(prog, **kwargs)

    return Formatter


class _UsageError(Exception):
    """Bad usage; the text is the whole line to print."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; by default those of the process.

    Returns:
        The exit code. One of several joined processes ends with it instead of returning.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by >&-
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  (open until the process ends)
    try:
        return _main(arguments)
    except BrokenPipeError:  # nobody reads on, as behind | head
        return 0
    finally:
        with outlive(sys.stdout):
            sys.stdout.flush()


def _main(arguments: Sequence[str] | None) -> int:
    options = _parse(arguments)  # --help and the like end here, and need no other process
    if _launched():
        try:
            launcher = Launcher(os.environ)
        except FreezeOutError as error:
            if not _is_another():  # they cannot agree on who prints
                print(f"freezeout: error: {one_line(error)}", file=sys.stderr)
            return 2
        return launcher.run(lambda launcher: _attempt(options, launcher))
    end = _attempt(options)
    if end.line:
        print(end.line, file=sys.stderr)
    return end.code


def _launched() -> bool:
    """Return whether a launcher such as torchrun started this process as one of several."""
    size = os.environ.get("WORLD_SIZE", "1")
    return size.isdecimal() and int(size) > 1


def _is_another() -> bool:
    """Return whether this is not the first process on its machine."""
    local = os.environ.get("LOCAL_RANK", "")
    return local.isdecimal() and 0 < int(local) < int(os.environ["WORLD_SIZE"])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace | End:
    """Return what the words ask for, or how bad usage ends."""
    try:
        return _parser().parse_args(arguments)
    except _UsageError as error:
        return End(2, str(error), error)
    except ModuleNotFoundError as error:
        return _missing(error)
    except BrokenPipeError:
        raise
    except OSError as error:  # help, to a disk that is full
        return End(2, f"freezeout: error: cannot write: {error.strerror}. Make room.", error)
    except KeyboardInterrupt as error:
        return End(130, "freezeout: interrupted", error)


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
    except _UsageError as error:
        return End(2, str(error), error)
    except FreezeOutError as error:
        return End(2, f"freezeout: error: {one_line(error)}", error)
    except ModuleNotFoundError as error:
        return _missing(error)
    except KeyboardInterrupt as error:
        return End(130, "freezeout: interrupted", error)
    return End(code)


def _missing(error: ModuleNotFoundError) -> End:
    """Return the end where a package of the `lab` extra is missing; any other is a defect."""
    module = (error.name or "").split(".")[0]
    if module not in _EXTRAS:
        raise error
    return End(
        2,
        f"freezeout: error: the command line needs the package {module.replace('_', '-')}, which "
        "is not installed. Run: pip install 'freezeout[lab]'",
        error,
    )


def _check_verb(options: argparse.Namespace) -> None:
    if not getattr(options, "several", False):
        raise _UsageError(
            "freezeout: error: only freezeout train works in several processes, but a launcher "
            f"started {os.environ['WORLD_SIZE']} (WORLD_SIZE). Run it without torchrun."
        )


_EXTRAS = (
    *("numpy", "scipy", "filelock", "psutil", "rich", "rich_argparse", "shtab", "matplotlib"),
    *("PIL", "jinja2", "markupsafe", "sklearn", "pooch", "tomli", "tomli_w"),
)


def _parser() -> argparse.ArgumentParser:
    import shtab

    from freezeout.lab.cli import compare, plan, report, sweep, train

    parser = _Parser(
        prog="freezeout",
        description="Train neural networks for less by progressively freezing layers (FreezeOut).",
    )
    parser.add_argument("--version", action="version", version=f"freezeout {__version__}")
    shtab.add_argument_to(parser, help="print a script that completes words and paths in a shell")
    verbs = parser.add_subparsers(
        prog=parser.prog,  # or argparse would ask the formatter, which writes to the terminal
        metavar="VERB",
        required=True,
        parser_class=_Parser,
    )
    for verb in (train, plan, compare, sweep, report):
        verb.add_parser(verbs)
    paths = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
    for one in verbs.choices.values():
        for action in one._actions:
            if action.metavar in paths:
                # shtab reads an attribute that argparse's type does not have.
                action.complete = paths[action.metavar]  # type: ignore[attr-defined]
    return parser
