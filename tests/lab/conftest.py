"""Fixtures with custom networks and data."""

import sys
import textwrap
from types import ModuleType

import pytest


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module into the current folder, which is empty and in no path."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)

    def write(source, file="nets.py"):
        place = tmp_path / file
        place.parent.mkdir(parents=True, exist_ok=True)
        head = "import torch\nimport numpy as np\nfrom torch import nn\n"
        place.write_text(head + textwrap.dedent(source))

    yield write
    assert sys.path == path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def offer(monkeypatch):
    """Makes a module ``nets`` whose function returns a value made by the test."""

    def offer(value):
        module = ModuleType("nets")
        module.make = lambda: value
        monkeypatch.setitem(sys.modules, "nets", module)

    return offer
