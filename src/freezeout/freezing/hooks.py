"""Hooks that watch a forward pass and do not get in the way of copies, pickles or compilers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, ParamSpec, TypeVar
from weakref import WeakMethod, ref

import torch
from torch import nn
from torch.fx import _symbolic_trace
from torch.utils.hooks import RemovableHandle

from freezeout.layers import modules_in
from freezeout.wrappers import Region

__all__ = [
    "Handle",
    "Hook",
    "Outside",
    "forget_hooks",
    "hook_after",
    "hook_before",
    "hook_outside",
    "unwatched",
    "weakly",
]

P = ParamSpec("P")
T = TypeVar("T")

_SCRIPTING = "__prepare_scriptable__"


class Hook:
    """Pass a call on if gradients are enabled; with ``grad=False`` if they are not.

    A deep copy or a pickle of the model must not drag the watch, and with it the optimizer, along:
    there the hook does nothing.

    Attributes:
        paused: Whether all hooks do nothing, because a part is run once more on the side.

    Args:
        action: Called with the module, the leading arguments, and the output if there is one.
        *leading: Further arguments of `action`.
        grad: Whether gradients must be enabled; ``None`` if it does not matter.
        inputs: Whether `action` also takes the positional and keyword arguments of the module,
            before its output. What it returns then takes the place of that output.
    """

    paused: ClassVar[bool] = False

    def __init__(
        self,
        action: Callable[..., Any] | None,
        *leading: Any,
        grad: bool | None = True,
        inputs: bool = False,
    ) -> None:
        self._action = action
        self._leading = leading
        self._grad = grad
        self.inputs = inputs

    def __call__(self, module: nn.Module, args: Any, *more: Any) -> Any:
        """Pass the call on, unless it is being compiled or traced."""
        if self._action is None or torch.compiler.is_compiling() or Hook.paused:
            return None
        if self._grad is not None and torch.is_grad_enabled() is not self._grad:
            return None
        if torch._C._get_tracing_state() is not None or getattr(
            _symbolic_trace, "_is_fx_tracing_flag", False
        ):
            return None
        passed = (args, *more) if self.inputs else more
        return self._action(module, *self._leading, *passed)

    def __reduce__(self) -> tuple[type[Hook], tuple[None]]:
        return Hook, (None,)


@contextmanager
def unwatched() -> Iterator[None]:
    """Let no hook of ours act meanwhile."""
    before, Hook.paused = Hook.paused, True
    try:
        yield
    finally:
        Hook.paused = before


def weakly(method: Callable[P, T]) -> Callable[P, T | None]:
    """Return what calls a method while its object lives, and returns ``None`` after that.

    Args:
        method: A bound method.
    """
    alive = WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        found = alive()
        return None if found is None else found(*args, **kwargs)

    return call


class Handle:
    """Remove a hook from a module again.

    Args:
        module: The module that has the hook.
        handle: What PyTorch returned for it; ``None`` if it takes no hooks.
    """

    def __init__(self, module: nn.Module, handle: RemovableHandle | None) -> None:
        self._module = ref(module)  # weak: a module that is replaced meanwhile is not to be kept
        self._handle = handle

    def remove(self) -> None:
        """Remove the hook."""
        if self._handle is None:
            return
        self._handle.remove()
        module = self._module()
        if module is None:
            return
        if not any(isinstance(hook, Hook) for hooks in _hooks(module) for hook in hooks):
            module.__dict__.pop(_SCRIPTING, None)


def hook_before(module: nn.Module, hook: Hook) -> Handle:
    """Run a hook before a module's forward pass; a scripted one takes none."""
    if isinstance(module, torch.jit.ScriptModule):
        return Handle(module, None)
    handle = module.register_forward_pre_hook(hook, with_kwargs=hook.inputs)
    return _with_way_out(module, handle)


def hook_after(module: nn.Module, hook: Hook) -> Handle:
    """Run a hook after a module's forward pass, before others if it changes the output."""
    if isinstance(module, torch.jit.ScriptModule):
        return Handle(module, None)
    handle = module.register_forward_hook(hook, prepend=hook.inputs, with_kwargs=hook.inputs)
    return _with_way_out(module, handle)


def hook_outside(region: Region, hooks: Sequence[Hook]) -> list[Handle | Outside]:
    """Run hooks after the call of a compiled region, and outside of what is compiled."""
    if region.entry is not region.module:  # the wrapper's own hooks run outside
        return [hook_after(region.entry, hook) for hook in hooks]
    return [Outside(region.module, hooks)]


class _StepAside:
    """Take our hooks off a module that ``torch.jit.script`` is about to compile.

    It would compile them too, which fails. The check that they were for is not made.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self) -> nn.Module:
        _forget(self._module)
        return self._module


def _with_way_out(module: nn.Module, handle: RemovableHandle) -> Handle:
    if _SCRIPTING not in module.__dict__ and not hasattr(type(module), _SCRIPTING):
        module.__dict__[_SCRIPTING] = _StepAside(module)
    return Handle(module, handle)


class Outside:
    """Stand in for a compiled module's call while its output is watched, from outside.

    Args:
        module: A module with a compiled call.
        hooks: What runs after it.
    """

    def __init__(self, module: nn.Module, hooks: Sequence[Hook]) -> None:
        self.call: Callable[..., Any] = module.__dict__["_compiled_call_impl"]
        self._module = module
        self._hooks = hooks
        module.__dict__["_compiled_call_impl"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled call, then the hooks on its output."""
        output = self.call(*args, **kwargs)
        for hook in self._hooks:
            inputs = (args, kwargs) if hook.inputs else (args,)
            changed = hook(self._module, *inputs, output)
            output = output if changed is None else changed
        return output

    def remove(self) -> None:
        """Give the module the call back for which this one stands in."""
        above = self._module.__dict__.get("_compiled_call_impl")
        if above is self:
            self._module.__dict__["_compiled_call_impl"] = self.call
        while isinstance(above, Outside):
            if above.call is self:
                above.call = self.call
            above = above.call


def forget_hooks(model: nn.Module) -> None:
    """Remove every watch's hooks from a model, also those left in a copy."""
    for module in modules_in(model):
        _forget(module)


def _forget(module: nn.Module) -> None:
    while isinstance(stand_in := module.__dict__.get("_compiled_call_impl"), Outside):
        stand_in.remove()
    for hooks in _hooks(module):
        for key in [key for key, hook in hooks.items() if isinstance(hook, Hook)]:
            del hooks[key]
            module._forward_hooks_with_kwargs.pop(key, None)
            module._forward_pre_hooks_with_kwargs.pop(key, None)
    if isinstance(module.__dict__.get(_SCRIPTING), _StepAside):
        del module.__dict__[_SCRIPTING]


def _hooks(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    return module._forward_hooks, module._forward_pre_hooks
