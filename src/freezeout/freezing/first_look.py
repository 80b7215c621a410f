"""Watch the first forward pass of training for what would go wrong only once layers freeze."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from freezeout.freezing.eval_mode import guard_of
from freezeout.freezing.hooks import Handle, Hook, Outside, hook_after, hook_before, hook_outside
from freezeout.freezing.outline import Outlines, is_of_torch
from freezeout.layers import modules_in
from freezeout.wrappers import refuse_reentrant, regions

__all__ = ["FirstLook"]


class FirstLook:
    """Watch the first forward pass of training, and note what the model's parts return.

    Reentrant activation checkpointing is refused. What the parts return is compared after a freeze.
    The other modules get hooks only when the model is called, and for one pass; a compiled module
    is watched from outside, and nothing within it. A model whose own ``forward`` is never called
    is checked after its first freeze, as is what changes later.

    Args:
        root: The model.
        outlines: Where to note what its parts return.
    """

    def __init__(self, root: nn.Module, outlines: Outlines) -> None:
        self._outlines = outlines
        self._inner: list[Handle | Outside] = []
        self._outer = [
            hook_before(root, Hook(self._enter)),
            hook_after(root, Hook(self._leave)),
        ]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in (*self._inner, *self._outer):
            handle.remove()

    def _enter(self, module: nn.Module) -> None:
        if self._inner or not module.training:  # left over from a pass that failed; a dry run
            return
        compiled = regions(module)
        hidden = {id(m) for region in compiled for m in modules_in(region.module)}
        look = Hook(self._look, grad=False)
        for region in compiled:
            if region.module is not module:
                note = Hook(self._note, region.module)
                own = [look, note] if region.module is region.entry else [note]
                self._inner += hook_outside(region, own)
        for inner in modules_in(module):
            if id(inner) in hidden or isinstance(inner, torch.jit.ScriptModule):
                continue
            self._inner.append(hook_before(inner, look))
            if not is_of_torch(inner):
                self._inner.append(hook_after(inner, Hook(self._note, inner)))

    def _note(self, _: nn.Module, module: nn.Module, output: Any) -> None:
        if module.training and guard_of(module) is None:
            self._outlines.note(module, output)

    def _look(self, module: nn.Module, output: Any = None) -> None:
        try:
            refuse_reentrant(module)
        except Exception:
            self.close()
            raise

    def _leave(self, module: nn.Module, output: Any) -> None:
        if module.training:
            self.close()
