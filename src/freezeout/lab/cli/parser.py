"""The words of the command line: verbs, options, help, completion.

Everything here answers quickly: what is wrong with the words is known before torch is loaded.
"""

from __future__ import annotations

import argparse
import shutil
from typing import Any, NoReturn

from freezeout import __version__
from freezeout.text import printable

__all__ = ["UsageError", "make_parser"]

_LEAST_WIDTH = 20  # of help; less would hold no option
_LONGEST = 300  # of what is wrong, in characters


class UsageError(Exception):
    """Bad usage; the text is the whole line to print."""


class _Parser(argparse.ArgumentParser):
    """Report bad usage in one line, show help in colour, and complete paths."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(argument_default=argparse.SUPPRESS, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise bad usage, where argparse would end the program."""
        wrong = printable(message)
        if len(wrong) > _LONGEST:
            wrong = f"{wrong[: _LONGEST // 2]} ... {wrong[-_LONGEST // 2 :]}"
        raise UsageError(f"{self.prog}: error: {wrong}. See {self.prog} --help.")

    def format_help(self) -> str:
        """Return the help; what lays it out is loaded here, not for every command."""
        self.formatter_class = _formatter()
        return super().format_help()


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


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs; each sets ``run``, which carries it out."""
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
