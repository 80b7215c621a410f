"""What takes the place of modules while a pass is captured, and only then.

The largest modules within one frozen layer are opaque: their forward pass is one node, or does not
run at all. Modules that learn get real tensors, and nothing is watched inside. All others, which
hold both, run as they are written.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol

from torch import nn

from freezeout.layers import Layers, modules_in, parameters_in
from freezeout.prefix.constants import Constants

__all__ = ["Host", "StandIn", "StandIns"]

_CALL = "_compiled_call_impl"
"""Where `torch.nn.Module` looks for another way to call it, and what it leaves out of pickles."""

_LISTS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


class Host(Protocol):
    """The pass for which modules are replaced."""

    def opaque(self, stand_in: StandIn, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Answer the call of a module within one frozen layer."""

    def active(self, stand_in: StandIn, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a module that learns."""


class StandIn:
    """Take a module's calls during a pass.

    Attributes:
        module: The module.
        name: Its qualified name.
        is_opaque: Whether it lies within one frozen layer.
        moved: What has ever moved of its weights, in words.
    """

    def __init__(self, module: nn.Module, name: str, is_opaque: bool, moved: str = "") -> None:
        self.module = module
        self.name = name
        self.is_opaque = is_opaque
        self.moved = moved
        self._host: Host | None = None
        self._thread = 0
        self._replaced: Any = None

    @property
    def is_compiled(self) -> bool:
        """Whether ``torch.compile`` runs the module."""
        return self._replaced is not None or "_orig_mod" in self.module._modules

    @property
    def description(self) -> str:
        """What tells the module's forward pass from others, and from its own at another time."""
        modes = "".join("et"[module.training] for module in modules_in(self.module))
        return f"module {self.name} {modes if 't' in modes else ''} {self.moved}"

    def put(self, host: Host, thread: int) -> None:
        """Take the module's place."""
        self._host, self._thread = host, thread
        self._replaced = self.module.__dict__.get(_CALL)
        self.module.__dict__[_CALL] = self

    def take_away(self) -> None:
        """Give the module its place back."""
        self._host = None
        if self.module.__dict__.get(_CALL) is not self:
            return
        if self._replaced is None:
            del self.module.__dict__[_CALL]
        else:
            self.module.__dict__[_CALL] = self._replaced

    def original(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module as it would have been, hooks and compiled code included."""
        call = self._replaced or self.module._call_impl
        return call(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Pass the module's call on to the pass."""
        host = self._host
        if host is None or threading.get_ident() != self._thread:
            return self.original(*args, **kwargs)
        if self.is_opaque:
            return host.opaque(self, args, kwargs)
        return host.active(self, args, kwargs)

    def __deepcopy__(self, memo: Any) -> Any:
        """Stay out of copies of the module."""
        return self._replaced

    def __reduce__(self) -> Any:
        """Stay out of pickles of the module."""
        return _nothing, ()


def _nothing() -> None:
    """Return what a pickle of a module has in the place of its compiled call."""


class StandIns:
    """The modules of a model that are replaced during a pass.

    Args:
        layers: Its layers, as they are now.
        depth: Length of the frozen prefix.
        constants: What counts as constant; a module that holds anything else is not opaque.
    """

    def __init__(self, layers: Layers, depth: int, constants: Constants) -> None:
        self._layer = {id(m): layer.index for layer in layers[:depth] for m in layer.modules}
        self._constants = constants
        self._found: dict[int, StandIn] = {}
        self._look(layers.model, "")
        self._all = list(self._found.values())
        inside = [m for s in self._all if s.is_opaque for m in modules_in(s.module)]
        self._inside = list({id(m): m for m in inside}.values())
        self._registers: list[Sized] = [
            register
            for m in self._inside
            for register in (m._forward_hooks, m._forward_pre_hooks, m._modules)
        ]
        self._sizes = list(map(len, self._registers))
        self._children = [
            (m._modules, list(m._modules.values())) for m in self._inside if m._modules
        ]

    @property
    def opaque(self) -> list[StandIn]:
        """Those within one frozen layer."""
        return [stand_in for stand_in in self._all if stand_in.is_opaque]

    def modes(self) -> tuple[bool, ...]:
        """Return the mode of each module in an opaque one."""
        return tuple([module.training for module in self._inside])

    def have_changed(self) -> bool:
        """Return whether parts of opaque modules were replaced, or hooks put on them."""
        return list(map(len, self._registers)) != self._sizes or any(
            list(now.values()) != before for now, before in self._children
        )

    def put(self, host: Host) -> None:
        """Take all their places."""
        thread = threading.get_ident()
        for stand_in in self._all:
            stand_in.put(host, thread)

    def take_away(self) -> None:
        """Give all modules their places back."""
        for stand_in in self._all:
            stand_in.take_away()

    def __iter__(self) -> Iterator[StandIn]:
        return iter(self._all)

    def _look(self, module: nn.Module, name: str) -> None:
        if id(module) in self._found:
            return
        if name and self._is_opaque(module):
            moved = self._constants.moved_in(module)
            self._found[id(module)] = StandIn(module, name, True, moved)
            return
        if name and self._is_closed(module):
            self._found[id(module)] = StandIn(module, name, False)
            return
        for key, child in module._modules.items():
            if child is not None:
                self._look(child, f"{name}.{key}" if name else key)

    def _is_opaque(self, module: nn.Module) -> bool:
        """Return whether it lies within one frozen layer, and nobody listens inside."""
        inside = list(modules_in(module))
        return (
            {self._layer.get(id(m)) for m in inside} == {self._layer.get(id(module))} - {None}
            and any(True for _ in parameters_in(module))
            and self._constants.holds_all_of(module)
            and not any(map(_has_listeners, inside))
        )

    def _is_closed(self, module: nn.Module) -> bool:
        """Return whether nothing in it is frozen, or ``torch.compile`` runs it as a whole."""
        if module.__dict__.get(_CALL) is not None or "_orig_mod" in module._modules:
            return True
        inside = modules_in(module)
        return (
            not isinstance(module, _LISTS)
            and not any(id(m) in self._layer for m in inside)
            and any(True for _ in parameters_in(module))
        )


def _has_listeners(module: nn.Module) -> bool:
    """Return whether hooks are on a module that skipping it would skip.

    Those of ``fully_shard`` only gather and scatter.
    """
    return any(
        not (getattr(hook, "__module__", None) or "").startswith("torch.distributed")
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for hook in hooks.values()
    )
