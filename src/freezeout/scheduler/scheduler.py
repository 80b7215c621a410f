"""`FreezeOut`: a learning-rate scheduler that freezes layers. A `Schedule` drives a `Freezer`."""

from __future__ import annotations

import warnings
import weakref

from torch import nn
from torch.optim import Optimizer
from typing_extensions import Self

from freezeout.errors import FrozenPrefixWarning
from freezeout.freezing import Freezer
from freezeout.layers import check_something_learns
from freezeout.scheduler.rates import RateScheduler
from freezeout.scheduler.together import check_alone, note_driver
from freezeout.wrappers import Graphs, recompile_trouble

__all__ = ["FreezeOut"]


class FreezeOut(RateScheduler):
    r"""Anneal every layer's learning rate to zero on its own schedule, then freeze the layer.

    Use it as any other scheduler, and call ``step()`` after each optimizer step. Progress counts
    the optimizer updates that really happened: steps that a gradient scaler skipped, micro-batches
    of gradient accumulation and repeated calls do not advance it. Rates and frozen layers are a
    function of that count alone.

    At construction every parameter group is split by layer, once, so that each part can have its
    own rate; a group's other settings stay as they are. Groups are never added, removed or
    reordered afterwards. With ``anneal=None`` nothing is split and no rate is touched.

    A rate that is changed between two steps (by hand, by ``ReduceLROnPlateau``) changes the base
    rate of its group for good. In a ``SequentialLR`` progress starts at the milestone. Another
    scheduler that sets the rates as well is named in a warning, and its rates are overwritten.

    The prefix never holds a layer at which some backward pass was seen to end. Heads that take
    turns all learn to the end: `freeze_times` change then, and a warning says so.

    Args:
        optimizer: Any ``torch.optim`` optimizer except ``LBFGS``. Load its state after this.
        model: The model that is trained.
        total_steps: Length of training in optimizer updates, at least 1: epochs times batches
            per epoch (divided by the accumulation steps).
        schedule: The settings as one object, in place of giving them one by one.
        layers: How to cut the model (see `split_layers`), or its result.
        example: An example input, to find the true order of execution (see `split_layers`).
        strict: Raise, rather than warn, if a frozen layer's output still needs a gradient, or the
            witness sees something.
        witness: Watch that what is frozen keeps its bits, and that what should learn moves in the
            first updates (see `Freezer`).
        together_with: The `FreezeOut` of another optimizer of the same model (Muon for matrices,
            AdamW for the rest). Both freeze as one, a layer once both are done with it. Settings
            that are left out, and the layers, are those of the other.
        **settings: `t0`, `spacing`, `scaled`, `anneal`, `warmup_steps`, `scale_cap`, `times`,
            `max_freezes`: the settings of a `Schedule`, which says what they mean.

    Attributes:
        schedule: The settings.
        layers: The layers of the model in execution order.
        freezer: Freezes them; it takes listeners.
        total_steps: Length of training in optimizer updates.
        freeze_times: When each layer freezes, as a fraction of training.
        freeze_steps: The same in steps; ``None`` for layers that learn to the end.

    Raises:
        TypeError: If an argument has the wrong type, the optimizer moves parameters that have no
            gradient, or it has no learning rate to set.
        ValueError: If a setting is out of range, `layers` or `optimizer` are of another model,
            another `FreezeOut` drives this one and is not given as `together_with`, another one
            that is not at its end sets the rates of `optimizer` by the layers of another model, the
            optimizer lacks what an earlier run left frozen, or it keeps lists that cannot be split
            by layer.
        SplitError: If the model cannot be cut into layers.

    Warns:
        FrozenPrefixWarning: If a tied weight keeps the backward pass alive through frozen layers,
            or ``torch.compile`` would give up on the model after some freezes.
        UserWarning: If every base rate is 0, or rates are left from an unknown earlier scheduler.
        MovementWarning: If something frozen moves, or something that should learn does not.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> scheduler = FreezeOut(optimizer, net, total_steps=100, t0=0.5, spacing="linear")
        >>> for _ in range(50):
        ...     net(torch.randn(2, 4)).sum().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     scheduler.step()
        >>> scheduler.frozen, scheduler.get_last_lr()
        (1, [0.0, 0.05])

    Reference:
        Brock et al., "FreezeOut", 2017 (arXiv:1706.04983).
    """

    def _make_freezer(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        together_with: Self | None,
        *,
        strict: bool,
        witness: bool,
    ) -> Freezer:
        check_something_learns(self.layers, len(self._timetable.thresholds))
        self._warn_of_ties()
        if together_with is None:
            check_alone(self.layers.model, optimizer)
            freezer = Freezer(self.layers, optimizer, strict=strict, witness=witness)
            if self._timetable.thresholds:
                freezer.look_ahead()
        else:
            freezer = together_with.freezer
            freezer.add_optimizer(optimizer)
        self._outermost = weakref.ref(model)
        self._told: set[str] = set()
        self._graphs = Graphs(self.layers)
        trouble = recompile_trouble(self.layers, self.freeze_steps, model)
        self._warn_of_compiling(trouble, stacklevel=4)
        note_driver(self.layers.model, self)
        return freezer

    def depth_at(self, step: int) -> int:
        """Return the length of the frozen prefix after `step` optimizer updates.

        It never holds a layer that was seen to be the last to learn in some backward pass.

        Args:
            step: Optimizer updates done, at least 0.
        """
        return self._due_at(step)

    def _freeze(self, n: int) -> None:
        self.freezer.after_update()
        for _ in range(len(self._together)):  # a freeze may leave one of the optimizers idle
            depth = self._together.due
            if depth == self.freezer.depth:
                break
            self.freezer.set_depth(depth, step=n)
            model = self._outermost()  # None where it is gone
            trouble = self._graphs.make_room(self.layers.model if model is None else model, depth)
            self._warn_of_compiling(trouble, stacklevel=5)

    def _warn_of_compiling(self, trouble: str | None, stacklevel: int) -> None:
        if trouble is not None and trouble not in self._told:
            self._told.add(trouble)
            warnings.warn(trouble, FrozenPrefixWarning, stacklevel=stacklevel)

    def _warn_of_ties(self) -> None:
        for names, first, owner in self.layers.early_ties():
            until = self.freeze_steps[owner]
            if self._timetable.thresholds and (
                until is None or until > self._timetable.thresholds[0]
            ):
                warnings.warn(
                    f"the tied weight {' = '.join(map(repr, names))} is used by layer {first} but "
                    f"learns with layer {owner}, its last user. Until that freezes, the backward "
                    f"pass runs through every layer from {first} on and less is saved. Untie it to "
                    "save more.",
                    FrozenPrefixWarning,
                    stacklevel=4,
                )
