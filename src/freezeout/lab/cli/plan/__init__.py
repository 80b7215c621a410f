"""``freezeout plan``: measure a network on this machine, and show what freezing would save."""

from freezeout.lab.cli.plan.verb import add_parser

__all__ = ["add_parser"]
