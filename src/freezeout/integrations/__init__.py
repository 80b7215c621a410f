"""FreezeOut in other people's trainers. Each module here imports one framework, this one none.

::

    lightning      FreezeOutCallback for Lightning's Trainer
    transformers   FreezeOutCallback for the Trainer of Hugging Face transformers

With Accelerate, and in Lightning's ``configure_optimizers``, `freezeout.FreezeOut` is enough.
"""

from typing import TYPE_CHECKING

from freezeout.lazy import lazy_names

if TYPE_CHECKING:
    from freezeout.integrations import lightning, transformers

__all__ = ["lightning", "transformers"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, {}, rooms=__all__)
