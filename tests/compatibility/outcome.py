"""The three outcomes that something brought to freezeout can have, and the names of tests."""

from __future__ import annotations

import ast
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias

ROOT = Path(__file__).parents[2]

Outcome: TypeAlias = Literal["works", "told", "refused"]

MEANING: dict[Outcome, str] = {
    "works": "nothing is said: what is frozen does not move by a bit, what should learn learns",
    "told": "a warning says what is not as you may expect, and names it; what is frozen still does "
    "not move",
    "refused": "an error says what cannot be followed and what to do, before anything has changed",
}


def versions(*packages: str) -> str:
    """Names and versions of installed packages, for people."""
    return ", ".join(f"{name} {version(name).partition('+')[0]}" for name in packages)


@cache
def named_tests(file: str) -> frozenset[str]:
    """The names of the test functions of a file, given from the root of the repository."""
    tree = ast.parse((ROOT / file).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )
