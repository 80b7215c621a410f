"""The look at the first forward pass of all: what would only show once layers freeze?"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from torch import nn
from torch.utils.checkpoint import CheckpointFunction

from freezeout._hooks import Hook
from freezeout.compiled import regions
from freezeout.errors import FreezeOutError

__all__ = ["FirstLook"]

_REENTRANT = CheckpointFunction.forward.__code__


class FirstLook:
    """Watches the first forward pass with gradients for reentrant activation checkpointing.

    That kind runs blocks without gradients and lets them take part in the backward pass only if
    their *input* needs one. Behind a frozen prefix it does not: all blocks would silently stop
    learning. Hooks of its own are put on the other modules only once the model is called, for one
    pass, and none where anything is compiled.

    Args:
        root: The model.
    """

    def __init__(self, root: nn.Module) -> None:
        self._handles = [
            root.register_forward_pre_hook(Hook(self._enter)),
            root.register_forward_hook(Hook(self._leave)),
        ]

    def close(self) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _enter(self, module: nn.Module) -> None:
        if not regions(module):
            look = Hook(self._look, grad=False)
            self._handles += [m.register_forward_pre_hook(look) for m in module.modules()]

    def _look(self, module: nn.Module) -> None:
        if _in_reentrant_checkpoint():
            self.close()
            raise FreezeOutError(_refusal(module))

    def _leave(self, module: nn.Module, output: Any) -> None:
        self.close()


def _in_reentrant_checkpoint() -> bool:
    """Whether the caller runs inside ``checkpoint(..., use_reentrant=True)``."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _REENTRANT:
        frame = frame.f_back
    return frame is not None


def _refusal(module: nn.Module) -> str:
    """Why reentrant checkpointing does not go with freezing."""
    return (
        f"{type(module).__name__} runs under activation checkpointing with use_reentrant=True. "
        "Behind frozen layers that kind gives no gradient to any block, without an error. Use "
        "use_reentrant=False (transformers: gradient_checkpointing_kwargs={'use_reentrant': "
        "False})."
    )
