"""Keep a frozen module in inference mode, also through ``model.train()``, copies and pickles."""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn

from freezeout.freezing.group_norm import guard_group_norm
from freezeout.layers import modules_in

__all__ = ["StayInEval", "back_to_mode", "chooses_only", "guard_of", "stay_in_eval"]


def stay_in_eval(module: nn.Module, *, wanted: bool, root: nn.Module | None = None) -> None:
    """Put a module into inference mode and keep it there; do nothing if it is kept already.

    Args:
        module: The module alone, without those inside it.
        wanted: The mode to go back to.
        root: The model that it belongs to, whose own flag tells a pass to evaluate.
    """
    if guard_of(module) is None:
        module.training = wanted
        module.__dict__["train"] = StayInEval(module, root)


def guard_of(module: nn.Module) -> StayInEval | None:
    """Return what keeps a module in inference mode; ``None`` if it is not kept there."""
    guard = module.__dict__.get("train")
    return guard if isinstance(guard, StayInEval) else None


def back_to_mode(module: nn.Module) -> None:
    """Release a module that `StayInEval` holds, and put its mode back."""
    guard = guard_of(module)
    if guard is not None:
        del module.__dict__["train"]
        if guard.replaced is not None:
            module.__dict__["train"] = guard.replaced
        module.training = guard.due


class StayInEval:
    """Take the place of a frozen module's ``train``: keep its inference mode.

    It lives in the module's ``__dict__``, where it is found before the class's method, is copied
    together with the module, and pickles.

    Attributes:
        wanted: The mode that was asked for last.
        in_training: The mode that was asked for last while the whole model was training.
        keeps_flag: Whether the module's own flag stays as asked, because its output has another
            structure in inference mode. What is inside it is held apart.
        tried: Whether that is known.
    """

    keeps_flag = False
    tried = False

    def __init__(self, module: nn.Module, root: nn.Module | None = None) -> None:
        self.module = module
        self.wanted = self.in_training = module.training
        self.replaced = module.__dict__.get("train")
        self._root = None if root is None else weakref.ref(root)
        self.hold()

    @property
    def due(self) -> bool:
        """The mode to go back to.

        After an evaluation, Lightning puts the flags of all modules back one by one, as they were
        before it: then the model trains, and frozen modules have last been asked to evaluate.
        """
        return self.in_training if self._whole_trains() else self.wanted

    def _whole_trains(self) -> bool:
        root = None if self._root is None else self._root()
        return root is not None and root.training

    def __getstate__(self) -> dict[str, Any]:
        """Leave the whole model out: a copy of this module alone must not hold it."""
        return {**self.__dict__, "_root": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Come back in a frozen model that was saved whole, which may go on training as it is."""
        self.__dict__.update({"in_training": state["wanted"], "_root": None, **state})
        guard_group_norm()

    def __call__(self, mode: bool = True) -> nn.Module:
        """Note the mode that is asked for, and stay in inference mode."""
        self.module.training = self.due
        if self.replaced is not None:
            self.replaced(mode)
        else:
            type(self.module).train(self.module, mode)  # may be a custom method
        self.wanted = self.module.training
        if mode or self._root is None or self._whole_trains():
            self.in_training = self.wanted
        for inner in modules_in(self.module):
            guard = guard_of(inner)
            if guard is not None:
                guard.hold()
        return self.module

    def hold(self) -> None:
        """Set inference mode, except where the module keeps its own flag."""
        self.module.training = self.due and (self.keeps_flag or chooses_only(self.module))


def chooses_only(module: nn.Module) -> bool:
    """Return whether a module's own flag only chooses between two implementations.

    A `torch.nn.TransformerEncoder` takes the mode of its first layer for that of all, and hands
    nested tensors to layers that are still learning; the dropout of a layer sits in submodules.
    cuDNN refuses to go back through a recurrent network in evaluation mode, which is necessary
    where its weights are tied or something before it learns; without dropout it has one behaviour.
    """
    if isinstance(module, nn.RNNBase):
        return not module.dropout
    return isinstance(module, nn.TransformerEncoderLayer)
