"""Freezing and unfreezing a prefix of layers. What freezes is decided elsewhere.

A frozen layer is in inference mode and stays there through ``model.train()``; its parameters need
no gradient, hold none, and have no optimizer state. All of it is kept in the modules themselves, as
plain attributes, so that a deep copy or a saved model is frozen as its original is; `unfreeze`
undoes it in any of them. Group membership in the optimizer never changes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from freezeout.errors import FrozenPrefixWarning, PrefixError
from freezeout.layers import Layer, Layers

__all__ = ["FreezeEvent", "Freezer", "Listener", "unfreeze"]

_FLAGS = "_freezeout_frozen"  # in a module's __dict__: names of its parameters that we froze


@dataclass(frozen=True)
class FreezeEvent:
    """One layer froze or unfroze.

    Attributes:
        frozen: Whether it is frozen now.
        index: Index of the layer.
        name: Name of the layer.
        step: Optimizer steps done, or ``None`` where the caller did not say.
    """

    frozen: bool
    index: int
    name: str
    step: int | None


Listener: TypeAlias = Callable[[FreezeEvent], None]


class Freezer:
    """Freezes and unfreezes the first layers of a model.

    Freezing a layer clears ``requires_grad`` of its parameters, drops their gradients and their
    optimizer state, and puts its modules in inference mode (BatchNorm uses running statistics,
    dropout is off), also after ``model.train()``. Unfreezing puts flags and mode back; the
    optimizer starts that layer with fresh state. Parameters that did not require a gradient before
    never will. Freeze between an optimizer step and the next forward pass only.

    After each freeze the first forward pass with gradients checks that the output of the frozen
    layers needs no gradient, so that the backward pass really stops there. Inside a region that
    ``torch.compile`` traces it does not check.

    Args:
        layers: The layers of the model. Leftovers of an earlier freezer on it are undone.
        optimizer: Its state for frozen parameters is released; ``None`` if there is none.
        strict: Raise `PrefixError` where the check fails, instead of warning with
            `FrozenPrefixWarning`.

    Example:
        >>> from freezeout import Freezer, split_layers
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> freezer = Freezer(split_layers(net))
        >>> freezer.set_depth(1)
        >>> [p.requires_grad for p in net.parameters()]
        [False, False, True, True]
        >>> freezer.unfreeze()
    """

    def __init__(
        self, layers: Layers, optimizer: Optimizer | None = None, *, strict: bool = False
    ) -> None:
        self.layers = layers
        self.optimizer = optimizer
        self.strict = strict
        self._depth = 0
        self._verified = True
        self._checks: list[RemovableHandle] = []
        self._unseen: set[int] = set()  # frozen modules with parameters that have not run since
        self._seen: set[int] = set()
        self._told: set[str] = set()
        self._listeners: list[Listener] = []
        unfreeze(layers.model)

    @property
    def depth(self) -> int:
        """Length of the frozen prefix: layers 0 to depth - 1 are frozen."""
        return self._depth

    @property
    def verified(self) -> bool:
        """Whether a forward pass since the last freeze has shown that the backward pass stops."""
        return self._verified

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with a `FreezeEvent` after every freeze and unfreeze of a layer.

        Args:
            listener: Any callable of one argument.

        Returns:
            A function that removes the listener again.
        """
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    def set_depth(self, depth: int, *, step: int | None = None) -> None:
        """Makes exactly the first `depth` layers frozen; does nothing where they are already.

        Args:
            depth: Length of the frozen prefix, from 0 to the number of layers - 1: the last layer
                never freezes.
            step: Optimizer steps done, passed on to listeners.

        Raises:
            TypeError: If `depth` is not a whole number.
            ValueError: If `depth` is out of range.
        """
        most = len(self.layers) - 1
        if not isinstance(depth, int) or isinstance(depth, bool):
            raise TypeError(f"depth must be a whole number from 0 to {most}, got {depth!r}.")
        if not 0 <= depth <= most:
            raise ValueError(
                f"depth must lie in 0 to {most}, got {depth}. It counts the frozen layers from the "
                "input; the last layer never freezes."
            )
        if depth == self._depth:
            return
        self._drop_checks()
        while self._depth < depth:
            layer = self.layers[self._depth]
            self._freeze(layer)
            self._depth += 1
            self._tell(FreezeEvent(True, layer.index, layer.name, step))
        while self._depth > depth:
            layer = self.layers[self._depth - 1]
            _unfreeze_layer(self.layers.model, layer)
            self._depth -= 1
            self._tell(FreezeEvent(False, layer.index, layer.name, step))
        self._add_checks()

    def unfreeze(self, *, step: int | None = None) -> None:
        """Unfreezes everything, last frozen layer first."""
        self.set_depth(0, step=step)

    def _freeze(self, layer: Layer) -> None:
        for name, parameter in layer.parameters:
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                owner, local = _owner(self.layers.model, name)
                owner.__dict__.setdefault(_FLAGS, []).append(local)
            parameter.grad = None
            if self.optimizer is not None:
                self.optimizer.state.pop(parameter, None)
        for module in layer.modules:
            if not isinstance(module.__dict__.get("train"), _StayInEval):
                module.__dict__["train"] = _StayInEval(module)

    def _tell(self, event: FreezeEvent) -> None:
        for listener in tuple(self._listeners):
            listener(event)

    def _add_checks(self) -> None:
        self._verified = self._depth == 0
        for layer in self.layers[: self._depth]:
            inside = {id(child) for module in layer.modules for child in module.children()}
            outermost = [module for module in layer.modules if id(module) not in inside]
            for module in outermost:
                check = _BoundaryCheck(self, layer)
                self._checks.append(module.register_forward_hook(check))
            self._unseen |= {id(m) for m in outermost if any(True for _ in m.parameters())}

    def _drop_checks(self) -> None:
        for handle in self._checks:
            handle.remove()
        self._checks.clear()
        self._unseen, self._seen = set(), set()

    def _check(self, module: nn.Module, layer: Layer, output: Any) -> None:
        """Called with the output of each frozen layer in the first pass after a freeze."""
        leak = next((t for t in _tensors(output) if t.requires_grad), None)
        next_pass = id(module) in self._seen
        if id(module) in self._unseen:
            self._unseen.discard(id(module))
            self._seen.add(id(module))
        if leak is not None:
            self._drop_checks()
            self._report(layer, leak)
        elif next_pass or not self._unseen:
            self._drop_checks()
            self._verified = True

    def _report(self, layer: Layer, output: torch.Tensor) -> None:
        message = (
            f"layer {layer.index} ({layer.name!r}) is frozen, but its output still needs a "
            f"gradient, because of {self._cause(output)}. The backward pass goes on through frozen "
            "layers, so less is saved. Name the layers so that all that feeds a frozen layer comes "
            "before it (layers=...), or pass example=... for the true order of execution."
        )
        if self.strict:
            raise PrefixError(message)
        if message not in self._told:
            self._told.add(message)
            warnings.warn(message, FrozenPrefixWarning, stacklevel=2)

    def _cause(self, output: torch.Tensor) -> str:
        names = {id(p): name for name, p in self.layers.model.named_parameters()}
        active: list[str] = []
        again: list[str] = []
        for leaf in _leaves_of_graph(output):
            if id(leaf) not in names:
                return f"an input of shape {tuple(leaf.shape)} that itself requires a gradient"
            index = self.layers.index_of(leaf) if isinstance(leaf, nn.Parameter) else None
            thawed = index is not None and index < self._depth
            (again if thawed else active).append(f"{names[id(leaf)]!r} (layer {index})")
        if again and not active:
            return f"frozen parameters that were made to require a gradient again: {again[0]}"
        if not active:
            return "an output that was marked as requiring a gradient"
        more = f" and {len(active) - 3} more" if len(active) > 3 else ""
        return f"active parameters that feed it: {', '.join(active[:3])}{more}"


def unfreeze(model: nn.Module) -> None:
    """Undoes every freeze in a model, also in a deep copy or in one that was saved and loaded.

    Args:
        model: Any module; one that was never frozen is left as it is.

    Example:
        >>> import copy
        >>> from freezeout import Freezer, split_layers
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> Freezer(split_layers(net)).set_depth(1)
        >>> twin = copy.deepcopy(net)
        >>> unfreeze(twin)
        >>> twin[0].weight.requires_grad, net[0].weight.requires_grad
        (True, False)
    """
    for module in model.modules():
        for name in module.__dict__.pop(_FLAGS, ()):
            parameter = module._parameters.get(name)
            if parameter is not None:
                parameter.requires_grad_(True)
        _back_to_mode(module)
        for key, hook in tuple(module._forward_hooks.items()):
            if isinstance(hook, _BoundaryCheck):
                del module._forward_hooks[key]


def _unfreeze_layer(model: nn.Module, layer: Layer) -> None:
    for name, parameter in layer.parameters:
        owner, local = _owner(model, name)
        frozen = owner.__dict__.get(_FLAGS, [])
        if local in frozen:
            frozen.remove(local)
            parameter.requires_grad_(True)
        if not frozen:
            owner.__dict__.pop(_FLAGS, None)
    for module in layer.modules:
        _back_to_mode(module)


def _back_to_mode(module: nn.Module) -> None:
    guard = module.__dict__.get("train")
    if isinstance(guard, _StayInEval):
        del module.__dict__["train"]
        if guard.replaced is not None:
            module.__dict__["train"] = guard.replaced
        module.training = guard.wanted


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, local = name.rpartition(".")
    return model.get_submodule(path), local


class _StayInEval:
    """Takes the place of a frozen module's ``train``: keeps its inference mode.

    It lives in the module's ``__dict__``, where it is found before the class's method, is copied
    together with the module, and pickles.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.wanted = module.training  # what to go back to
        self.replaced = module.__dict__.get("train")
        self.hold()

    def __call__(self, mode: bool = True) -> nn.Module:
        self.module.training = self.wanted
        if self.replaced is not None:
            self.replaced(mode)
        else:
            type(self.module).train(self.module, mode)  # may be a method of the user's own
        self.wanted = self.module.training
        for inner in self.module.modules():
            guard = inner.__dict__.get("train")
            if isinstance(guard, _StayInEval):
                guard.hold()
        return self.module

    def hold(self) -> None:
        """Inference mode, except for one flag that only chooses between two implementations.

        A `torch.nn.TransformerEncoder` takes the mode of its first layer for that of all, and hands
        nested tensors to layers that are still learning; its dropout sits in submodules.
        """
        self.module.training = self.wanted and isinstance(self.module, nn.TransformerEncoderLayer)


class _BoundaryCheck:
    """Forward hook that hands the output of a frozen layer to its freezer, where gradients count.

    A deep copy or a pickle of the model must not drag the freezer and its optimizer along: there
    the hook does nothing.
    """

    def __init__(self, freezer: Freezer | None, layer: Layer | None) -> None:
        self._freezer = freezer
        self._layer = layer

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._freezer is None or self._layer is None or torch.compiler.is_compiling():
            return
        if torch.is_grad_enabled():
            self._freezer._check(module, self._layer, output)

    def __reduce__(self) -> tuple[type[_BoundaryCheck], tuple[None, None]]:
        return _BoundaryCheck, (None, None)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _leaves_of_graph(output: torch.Tensor) -> list[torch.Tensor]:
    """The tensors at which the backward pass from `output` would end."""
    if output.grad_fn is None:
        return [output]
    leaves, seen, stack = [], {output.grad_fn}, [output.grad_fn]
    while stack:
        node = stack.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.append(variable)
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return leaves
