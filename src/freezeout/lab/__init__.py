"""The tool: models, data, training, evidence, report, experiments, cli, each on those before it.

It stands on the library and needs more than torch: ``pip install 'freezeout[lab]'``. Its rooms are
imported once they are asked for, so ``import freezeout`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freezeout.lab import cli, data, evidence, experiments, models, report, training

__all__ = ["cli", "data", "evidence", "experiments", "models", "report", "training"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
