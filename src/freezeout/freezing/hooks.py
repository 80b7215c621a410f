"""Hooks that watch a forward pass and do not get in the way of copies, pickles or compilers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["Hook", "Outside", "forget_hooks"]


class Hook:
    """Pass a call on if gradients are enabled; with ``grad=False`` if they are not.

    A deep copy or a pickle of the model must not drag the watch, and with it the optimizer, along:
    there the hook does nothing.
    """

    def __init__(
        self, action: Callable[..., None] | None, *leading: Any, grad: bool = True
    ) -> None:
        self._action = action
        self._leading = leading
        self._grad = grad

    def __call__(self, module: nn.Module, args: Any, *output: Any) -> None:
        """Pass the call on, unless it is being compiled."""
        if self._action is None or torch.compiler.is_compiling():
            return
        if torch.is_grad_enabled() is not self._grad:
            return
        self._action(module, *self._leading, *output)

    def __reduce__(self) -> tuple[type[Hook], tuple[None]]:
        return Hook, (None,)


class Outside:
    """Stand in for a compiled module's call while its output is watched, from outside."""

    def __init__(self, module: nn.Module, call: Callable[..., Any], *hooks: Hook) -> None:
        self.call = call
        self._module = module
        self._hooks = hooks

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled call, then the hooks on its output."""
        output = self.call(*args, **kwargs)
        for hook in self._hooks:
            hook(self._module, args, output)
        return output

    @staticmethod
    def put_around(module: nn.Module, *hooks: Hook) -> None:
        """Route a module's compiled call through a stand-in, until `undo`."""
        call = module.__dict__["_compiled_call_impl"]
        module.__dict__["_compiled_call_impl"] = Outside(module, call, *hooks)

    @staticmethod
    def undo(module: nn.Module) -> None:
        """Give a module its compiled call back, however many stand in for it."""
        while isinstance(stand_in := module.__dict__.get("_compiled_call_impl"), Outside):
            module.__dict__["_compiled_call_impl"] = stand_in.call


def forget_hooks(model: nn.Module) -> None:
    """Remove every watch's hooks from a model, also those left in a copy."""
    for module in model.modules():
        Outside.undo(module)
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, Hook)]:
                del hooks[key]
