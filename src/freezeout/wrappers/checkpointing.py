"""Detect and refuse reentrant activation checkpointing, which does not work with freezing.

It runs blocks without gradients, and they take part in the backward pass only if their *input*
needs a gradient. Behind a frozen prefix it does not: no block would learn, without an error.
"""

from __future__ import annotations

from torch import nn
from torch.utils.checkpoint import CheckpointFunction

from freezeout.errors import FreezeOutError
from freezeout.tensors import called_from

__all__ = ["refuse_reentrant"]

_REENTRANT = CheckpointFunction.forward.__code__


def refuse_reentrant(module: nn.Module) -> None:
    """Raise `FreezeOutError` if the caller runs inside ``checkpoint(..., use_reentrant=True)``.

    Args:
        module: What runs there, for the message.
    """
    if called_from(_REENTRANT):
        raise FreezeOutError(
            f"{type(module).__name__} runs under activation checkpointing with use_reentrant=True. "
            "Behind frozen layers that kind gives no gradient to any block, without an error. Use "
            "use_reentrant=False (transformers: gradient_checkpointing_kwargs={'use_reentrant': "
            "False})."
        )
