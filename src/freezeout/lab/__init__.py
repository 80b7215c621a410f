"""The tool: models, data, training, evidence, report, experiments, cli, each on those before it.

It stands on the library and needs more than torch: ``pip install 'freezeout[lab]'``. Its rooms are
imported once they are asked for, so ``import freezeout`` stays light.
"""

from typing import TYPE_CHECKING

from freezeout.lazy import lazy_names

if TYPE_CHECKING:
    from freezeout.lab import cli, data, evidence, experiments, models, report, training

__all__ = ["cli", "data", "evidence", "experiments", "models", "report", "training"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, {}, rooms=__all__)
