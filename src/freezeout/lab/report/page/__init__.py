"""One page of many runs: figures, tables and sentences in a file that needs no network."""

from freezeout.lab.report.page.page import write_report

__all__ = ["write_report"]
