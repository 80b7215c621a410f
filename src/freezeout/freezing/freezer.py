"""Freeze and unfreeze a prefix of layers. What freezes is decided elsewhere.

A frozen layer is in inference mode and stays there through ``model.train()``; its parameters need
no gradient, hold none, and have no optimizer state. What is frozen is looked up in the model as it
is at each freeze. All of it is kept in the modules and parameters themselves, as plain attributes,
so that a deep copy or a saved model is frozen as its original is; `unfreeze` undoes it in any of
them. Group membership in the optimizer never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import nn
from torch.optim import Optimizer

from freezeout.errors import check_bool, check_whole
from freezeout.freezing.account import Account, check_thawed
from freezeout.freezing.boundary import BoundaryWatch, report
from freezeout.freezing.eval_mode import back_to_mode, stay_in_eval
from freezeout.freezing.first_look import FirstLook
from freezeout.freezing.group_norm import guard_group_norm
from freezeout.freezing.hooks import weakly
from freezeout.freezing.keeper import Keeper
from freezeout.freezing.optimizers import release, renew
from freezeout.freezing.outline import Outlines
from freezeout.freezing.quiet import let_change, stop_changes
from freezeout.freezing.trial import Trial
from freezeout.freezing.undo import start_thawed
from freezeout.layers import Layer, Layers, freeze_parameter, thaw_parameters
from freezeout.wrappers import Companions, Replace, gathered_forms

__all__ = ["FreezeEvent", "Freezer", "Listener"]


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
    dropout is off), also after ``model.train()``; not those of parts that had nothing to learn when
    the model was cut. Unfreezing puts flags and mode back; the optimizer starts that layer with
    fresh state. Parameters that did not require a gradient before never will, nor those on which
    you call ``requires_grad_(False)`` while they are frozen. Freeze between an optimizer step and
    the next forward pass only.

    Modules and parameters may be replaced, wrapped, pruned or parametrized: each freeze looks the
    layers up in the model again, and so does the check after it. After a change in between, call
    `settle`.

    In several processes all must freeze alike: they compare their decisions before each freeze.
    The ``DistributedDataParallel`` around the model then exchanges the gradients of what still
    learns, and no buffers of what is frozen; ``fully_shard`` needs the comparison alone. `follow`
    sets the options.

    After each freeze the first forward pass with gradients checks that the output of the frozen
    layers needs no gradient, so that the backward pass really stops there. Passes that parameters
    of another module feed (a generator before its discriminator) are skipped. Inside a region
    that ``torch.compile`` traces there is no check.

    Args:
        layers: The layers of the model. What an earlier freezer left frozen is unfrozen, with a
            `FrozenPrefixWarning`.
        optimizer: Its state for frozen parameters is released; ``None`` if there is none. Further
            ones can be added to `optimizers`.
        strict: Raise `PrefixError` where the check fails, instead of warning with
            `FrozenPrefixWarning`. The same for what the witness sees: `MovementError` instead of
            `MovementWarning`.
        witness: Watch the bits of what is frozen, and of what should learn in the first updates,
            and tell who moved or did not move (see `freezeout.freezing.Account` for the kinds).
            It reads version counters before every update, and sums up all bits now and then.

    Attributes:
        optimizers: Those whose state for frozen parameters is released.
        check: Whether to check after the next freezes; true at first. The check hooks every module
            for one pass, which shows in timings.

    Raises:
        TypeError: If `strict` or `witness` is not ``True`` or ``False``.
        ValueError: If the optimizer lacks what an earlier freezer left frozen, and would be
            unfrozen now to be moved by nobody.

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
        self,
        layers: Layers,
        optimizer: Optimizer | None = None,
        *,
        strict: bool = False,
        witness: bool = True,
    ) -> None:
        check_bool("strict", strict, "It says whether to raise where a check fails.")
        check_bool("witness", witness, "It says whether to watch the bits of what is frozen.")
        if optimizer is not None:
            check_thawed(layers.model, optimizer)
        self.layers = layers
        self.optimizers = [] if optimizer is None else [optimizer]
        self.strict = strict
        self.check = True
        self._depth = 0
        self._updates = 0  # since the last freeze
        self._verified = True
        self._watch: BoundaryWatch | None = None
        self._outlines = Outlines()
        self._trial: Trial | None = None
        self._told: set[str] = set()
        self._listeners: list[Listener] = []
        self._companions = Companions(layers.model)
        self._spared: set[int] = set()
        self._refresh()
        start_thawed(layers.model)
        guard_group_norm()  # now: behind a part that the user froze it is needed from the start
        self._keeper = Keeper(layers.model, self.optimizers, strict=strict, witness=witness)

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

    def add_optimizer(self, optimizer: Optimizer) -> None:
        """Add an optimizer of the same model: its state for frozen parameters is released, too.

        Args:
            optimizer: Another one than those in `optimizers`.
        """
        self.optimizers.append(optimizer)
        self._keeper.follow(optimizer)

    def account(self) -> Account:
        """Return what becomes of every parameter of the model: who moves it, who froze it."""
        return self._keeper.account()

    def look(self) -> None:
        """Compare the bits of all that is frozen with what they were, and tell what has moved.

        It is done by itself after 1, 2, 4, 8, ... updates, and before each for writes in place;
        call it at the end of a run to be sure. It does nothing with ``witness=False``.

        Raises:
            MovementError: If something moved and the freezer is strict; else `MovementWarning`.
        """
        self._keeper.look(everything=True)

    def after_update(self) -> None:
        """Put back what a step has taken away or a wrapper moved; `FreezeOut` calls it.

        What has come into frozen layers is found after 1, 2, 4, 8, ... calls since a freeze (later
        every 1024), and freezes; what has left the model is forgotten.
        """
        self._keeper.after_update()
        self._updates += 1
        n = self._updates
        if self._depth and (n & (n - 1) == 0 or n % 1024 == 0) and self._refresh():
            self.settle()

    def look_ahead(self) -> None:
        """Check the next forward pass with gradients for what would fail once layers freeze.

        That is activation checkpointing with ``use_reentrant=True``: behind frozen layers it gives
        no gradient to any block, without an error. The pass then raises `FreezeOutError`.
        """
        FirstLook(self.layers.model, self._outlines)

    def settle(self) -> None:
        """Bring what has changed since the last freeze in line; do nothing if that is nothing.

        That is new wrappers, and new modules and parameters in frozen layers, which freeze too.
        """
        if self._depth:
            self._refresh()
            self._freeze_again(self._depth)
            self._companions.settle(self._frozen_modules())
            self._keeper.frozen(self._frozen_parameters(), self._frozen_modules())

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
        self._refresh()
        spared = self._find_spared(depth) if depth > self._depth else set()
        when += f", without {len(spared)} parameters" if spared else ""
        self._spared |= spared
        frozen = self._still(self.layers[:depth])
        self._companions.prepare(f"freeze {depth} of {len(self.layers)} layers{when}", frozen)
        self._drop_watch()
        try:
            self._freeze_again(min(self._depth, depth))
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
            self._updates = 0
            self._keeper.frozen(self._frozen_parameters(), self._frozen_modules())
            if self._depth and self.check:
                self._trial = Trial(self.layers.model, self._frozen_modules(), self._outlines)
            if self._depth and self.check and not self._spared:
                self._watch = BoundaryWatch(
                    self.layers,
                    self._depth,
                    partial(report, self.strict, self._told),
                    weakly(self._follow_changes),
                    weakly(self._set_verified),
                )

    def unfreeze(self, *, step: int | None = None) -> None:
        """Unfreeze everything, last frozen layer first."""
        self.set_depth(0, step=step)

    def _frozen_modules(self) -> list[nn.Module]:
        return self._still(self.layers[: self._depth])

    def _frozen_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [pair for layer in self.layers[: self._depth] for pair in layer.parameters]

    def _still(self, layers: Iterable[Layer]) -> list[nn.Module]:
        """Return the modules of layers whose mode changes: not those that others train on."""
        spared = self._spared
        if spared:
            layers = [layer for layer in layers if not _all_in(layer, spared)]
        modules = self.layers.to_inference(layers)
        if not spared:
            return modules
        return [m for m in modules if spared.isdisjoint(map(id, m._parameters.values()))]

    def _find_spared(self, depth: int) -> set[int]:
        """Return which parameters of the first layers another optimizer moves, new ones alone."""
        return self._keeper.spared(
            (name, p)
            for layer in self.layers[:depth]
            for name, p in layer.parameters
            if p.requires_grad and id(p) not in self._spared
        )

    def _refresh(self) -> bool:
        """Look the layers up in the model as it is now; return whether it has changed."""
        return self.layers.refresh(gathered_forms(self.layers.model))

    def _follow_changes(self) -> bool:
        """Freeze what has come into frozen layers, just before the pass that is watched."""
        if not self._refresh():
            return False
        self._freeze_again(self._depth)
        self._keeper.frozen(self._frozen_parameters(), self._frozen_modules())
        return True

    def _freeze_again(self, depth: int) -> None:
        """Freeze what has come into the first layers, which are frozen, since they froze."""
        for layer in self.layers[:depth]:
            self._freeze(layer)

    def _freeze(self, layer: Layer) -> None:
        model = self.layers.model
        came_late = layer.index < self._depth
        for name, parameter in layer.parameters:
            if id(parameter) in self._spared or (came_late and not parameter.requires_grad):
                continue
            freeze_parameter(model, name, parameter)
            parameter.grad = None
            for optimizer in self.optimizers:
                release(optimizer, parameter)
        for module in self._still([layer]):
            stop_changes(module)
            wanted = module.training or (came_late and model.training)
            stay_in_eval(module, wanted=wanted, root=model)

    def _unfreeze(self, layer: Layer) -> None:
        self._spared.difference_update(id(p) for _, p in layer.parameters)
        for _, parameter in thaw_parameters(self.layers.model, layer.parameters):
            for optimizer in self.optimizers:
                renew(optimizer, parameter)
        for module in layer.modules:
            let_change(module)
            back_to_mode(module)

    def _tell(self, event: FreezeEvent) -> None:
        for listener in tuple(self._listeners):
            listener(event)

    def _drop_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def _set_verified(self, verified: bool) -> None:
        self._verified = verified


def _all_in(layer: Layer, parameters: set[int]) -> bool:
    return bool(layer.parameters) and all(id(p) in parameters for _, p in layer.parameters)
