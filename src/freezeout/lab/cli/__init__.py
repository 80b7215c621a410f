"""The command line: one file per verb."""

from freezeout.lab.cli.program import main

__all__ = ["main"]
