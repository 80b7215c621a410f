"""Watch the first forward pass of training for what would fail only once layers freeze."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from freezeout.freezing.hooks import Hook, Outside
from freezeout.wrappers import refuse_reentrant, regions

__all__ = ["FirstLook"]


class FirstLook:
    """Watch the first forward pass of training for reentrant activation checkpointing.

    The other modules get hooks only when the model is called, and for one pass; a compiled module
    is watched from outside, and nothing within it. A model whose own ``forward`` is never called
    is checked after its first freeze, as is what changes later.

    Args:
        root: The model.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._inner: list[RemovableHandle] = []
        self._swapped: list[nn.Module] = []
        self._outer = [
            root.register_forward_pre_hook(Hook(self._enter)),
            root.register_forward_hook(Hook(self._leave)),
        ]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in (*self._inner, *self._outer):
            handle.remove()
        for module in self._swapped:
            Outside.undo(module)

    def _enter(self, module: nn.Module) -> None:
        if self._inner or not module.training:  # left over from a pass that failed; a dry run
            return
        compiled = regions(module)
        hidden = {id(m) for region in compiled for m in region.module.modules()}
        look = Hook(self._look, grad=False)
        for region in compiled:
            if region.module is region.entry and region.module is not module:
                Outside.put_around(region.module, look)
                self._swapped.append(region.module)
        for inner in module.modules():
            if id(inner) not in hidden and not isinstance(inner, torch.jit.ScriptModule):
                self._inner.append(inner.register_forward_pre_hook(look))

    def _look(self, module: nn.Module, output: Any = None) -> None:
        try:
            refuse_reentrant(module)
        except Exception:
            self.close()
            raise

    def _leave(self, module: nn.Module, output: Any) -> None:
        if module.training:
            self.close()
