"""FreezeOut in other people's trainers. Each module here imports one framework, this one none.

::

    lightning      FreezeOutCallback for Lightning's Trainer
    transformers   FreezeOutCallback for the Trainer of Hugging Face transformers

With Accelerate, and in Lightning's ``configure_optimizers``, `freezeout.FreezeOut` is enough.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freezeout.integrations import lightning, transformers

__all__ = ["lightning", "transformers"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
