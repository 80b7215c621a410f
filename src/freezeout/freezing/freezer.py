"""Freeze and unfreeze a prefix of layers. What freezes is decided elsewhere.

A frozen layer is in inference mode and stays there through ``model.train()``; its parameters need
no gradient, hold none, and have no optimizer state. All of it is kept in the modules themselves, as
plain attributes, so that a deep copy or a saved model is frozen as its original is; `unfreeze`
undoes it in any of them. Group membership in the optimizer never changes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn
from torch.optim import Optimizer

from freezeout.errors import FrozenPrefixWarning, PrefixError, check_whole
from freezeout.freezing.boundary import BoundaryWatch
from freezeout.freezing.eval_mode import StayInEval, back_to_mode
from freezeout.freezing.first_look import FirstLook
from freezeout.freezing.group_norm import guard_group_norm
from freezeout.freezing.hooks import forget_hooks
from freezeout.freezing.optimizers import release, renew
from freezeout.layers import FROZEN, Layer, Layers
from freezeout.wrappers import Companions, Replace, reshard

__all__ = ["FreezeEvent", "Freezer", "Listener", "unfreeze"]


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
    """Freeze and unfreeze the first layers of a model.

    Freezing a layer clears ``requires_grad`` of its parameters, drops their gradients and their
    optimizer state, and puts its modules in inference mode (BatchNorm uses running statistics,
    dropout is off), also after ``model.train()``. Unfreezing puts flags and mode back; the
    optimizer starts that layer with fresh state. Parameters that did not require a gradient before
    never will. Freeze between an optimizer step and the next forward pass only.

    In several processes all must freeze alike: they compare their decisions before each freeze.
    The ``DistributedDataParallel`` around the model then exchanges the gradients of what still
    learns, and no buffers of what is frozen; ``fully_shard`` needs the comparison alone. `follow`
    sets the options.

    After each freeze the first forward pass with gradients checks that the output of the frozen
    layers needs no gradient, so that the backward pass really stops there. Passes that parameters
    of another module feed (a generator before its discriminator) are skipped. Inside a region
    that ``torch.compile`` traces there is no check.

    Args:
        layers: The layers of the model. What an earlier freezer left frozen is unfrozen.
        optimizer: Its state for frozen parameters is released; ``None`` if there is none. Further
            ones can be added to `optimizers`.
        strict: Raise `PrefixError` where the check fails, instead of warning with
            `FrozenPrefixWarning`.

    Attributes:
        optimizers: Those whose state for frozen parameters is released.
        check: Whether to check after the next freezes; true at first. The check hooks every module
            for one pass, which shows in timings.

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
        self.optimizers = [] if optimizer is None else [optimizer]
        self.strict = strict
        self.check = True
        self._depth = 0
        self._verified = True
        self._watch: BoundaryWatch | None = None
        self._told: set[str] = set()
        self._listeners: list[Listener] = []
        self._companions = Companions(layers.model)
        # Found now: a part of the model may be wrapped later, and its names with it.
        self._owners = {
            id(p): _owner(layers.model, name) for layer in layers for name, p in layer.parameters
        }
        unfreeze(layers.model)
        guard_group_norm()  # now: behind a part that the user froze it is needed from the start

    @property
    def depth(self) -> int:
        """Length of the frozen prefix: layers 0 to depth - 1 are frozen."""
        return self._depth

    @property
    def verified(self) -> bool:
        """Whether a forward pass since the last freeze has shown that the backward pass stops.

        It stays false if that cannot be seen: a frozen layer runs no module (a function takes its
        weights), another module feeds every pass, or the model is compiled as a whole.
        """
        return self._verified

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with a `FreezeEvent` after every freeze and unfreeze of a layer.

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

    def follow(
        self,
        *,
        replace: Replace | None = None,
        keep_unsharded: bool | None = None,
        timeout: float | None = None,
    ) -> None:
        """Set how wrappers around the model follow a freeze. Options left out keep their value.

        Wrappers are found by themselves, whenever they were made.

        Args:
            replace: Called with a new ``DistributedDataParallel`` after each freeze that the old
                one cannot follow in place (in a PyTorch with other internals); it must put the new
                one where the training loop calls it.
            keep_unsharded: With ``fully_shard``: groups that are frozen as a whole stay gathered,
                which saves their all-gathers and costs the memory of their full parameters.
            timeout: Seconds to wait for the other processes before a freeze; 600 by default.

        Raises:
            ValueError: If `timeout` is not above 0.
        """
        self._companions.follow(replace=replace, keep_unsharded=keep_unsharded, timeout=timeout)

    def look_ahead(self) -> None:
        """Check the next forward pass with gradients for what would fail once layers freeze.

        That is activation checkpointing with ``use_reentrant=True``: behind frozen layers it gives
        no gradient to any block, without an error. The pass then raises `FreezeOutError`.
        """
        FirstLook(self.layers.model)

    def settle(self) -> None:
        """Bring wrappers made after the last freeze in line; do nothing if there are none."""
        if self._depth:
            self._companions.settle(self._frozen_modules())

    def set_depth(self, depth: int, *, step: int | None = None) -> None:
        """Freeze exactly the first `depth` layers; do nothing if they are frozen already.

        Args:
            depth: Length of the frozen prefix, from 0 to the number of layers - 1: the last layer
                never freezes.
            step: Optimizer steps done, passed on to listeners.

        Raises:
            TypeError: If `depth` is not a whole number.
            ValueError: If `depth` is out of range.
            DistributedError: If processes disagree on it, or a wrapper cannot follow; nothing has
                changed then.
        """
        hint = "It counts the frozen layers from the input; the last layer never freezes."
        check_whole("depth", depth, hint, most=len(self.layers) - 1)
        if depth == self._depth:
            return
        when = "" if step is None else f" after step {step}"
        frozen = [module for layer in self.layers[:depth] for module in layer.modules]
        self._companions.prepare(f"freeze {depth} of {len(self.layers)} layers{when}", frozen)
        self._drop_watch()
        try:
            while self._depth < depth:
                layer = self.layers[self._depth]
                self._freeze(layer)
                self._depth += 1
                self._tell(FreezeEvent(True, layer.index, layer.name, step))
            while self._depth > depth:
                layer = self.layers[self._depth - 1]
                self._unfreeze(layer)
                self._depth -= 1
                self._tell(FreezeEvent(False, layer.index, layer.name, step))
        finally:  # also where a listener raises
            self._companions.settle(self._frozen_modules())
            self._verified = self._depth == 0
            if self._depth and self.check:
                self._watch = BoundaryWatch(
                    self.layers, self._depth, self._report, self._set_verified
                )

    def unfreeze(self, *, step: int | None = None) -> None:
        """Unfreeze everything, last frozen layer first."""
        self.set_depth(0, step=step)

    def _frozen_modules(self) -> list[nn.Module]:
        return [module for layer in self.layers[: self._depth] for module in layer.modules]

    def _freeze(self, layer: Layer) -> None:
        for _, parameter in layer.parameters:
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                owner, local = self._owners[id(parameter)]
                owner.__dict__.setdefault(FROZEN, []).append(local)
            parameter.grad = None
            for optimizer in self.optimizers:
                release(optimizer, parameter)
        for module in layer.modules:
            if not isinstance(module.__dict__.get("train"), StayInEval):
                module.__dict__["train"] = StayInEval(module)

    def _unfreeze(self, layer: Layer) -> None:
        for _, parameter in layer.parameters:
            owner, local = self._owners[id(parameter)]
            frozen = owner.__dict__.get(FROZEN, [])
            if local in frozen:
                frozen.remove(local)
                parameter.requires_grad_(True)
                for optimizer in self.optimizers:
                    renew(optimizer, parameter)
            if not frozen:
                owner.__dict__.pop(FROZEN, None)
        for module in layer.modules:
            back_to_mode(module)

    def _tell(self, event: FreezeEvent) -> None:
        for listener in tuple(self._listeners):
            listener(event)

    def _drop_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _set_verified(self, verified: bool) -> None:
        self._verified = verified

    def _report(self, message: str) -> None:
        if self.strict:
            raise PrefixError(message)
        if message not in self._told:
            self._told.add(message)
            warnings.warn(message, FrozenPrefixWarning, stacklevel=2)


def unfreeze(model: nn.Module) -> None:
    """Undo every freeze in a model, also in a deep copy or a model that was saved and loaded.

    Args:
        model: Any module; one that was never frozen stays as it is.

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
    reshard(model)
    unfrozen = False
    for module in model.modules():
        for name in module.__dict__.pop(FROZEN, ()):
            parameter = module._parameters.get(name)
            if parameter is not None:
                parameter.requires_grad_(True)
                unfrozen = True
        back_to_mode(module)
    forget_hooks(model)
    if unfrozen:
        Companions(model).settle([])


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, local = name.rpartition(".")
    return model.get_submodule(path), local
