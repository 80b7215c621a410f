"""Keep a frozen module in inference mode, also through ``model.train()``, copies and pickles."""

from __future__ import annotations

from typing import Any

from torch import nn

from freezeout.freezing.group_norm import guard_group_norm

__all__ = ["StayInEval", "back_to_mode"]


def back_to_mode(module: nn.Module) -> None:
    """Release a module that `StayInEval` holds, and put its mode back."""
    guard = module.__dict__.get("train")
    if isinstance(guard, StayInEval):
        del module.__dict__["train"]
        if guard.replaced is not None:
            module.__dict__["train"] = guard.replaced
        module.training = guard.wanted


class StayInEval:
    """Take the place of a frozen module's ``train``: keep its inference mode.

    It lives in the module's ``__dict__``, where it is found before the class's method, is copied
    together with the module, and pickles.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.wanted = module.training  # what to go back to
        self.replaced = module.__dict__.get("train")
        self.hold()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Come back in a frozen model that was saved whole, which may go on training as it is."""
        self.__dict__.update(state)
        guard_group_norm()

    def __call__(self, mode: bool = True) -> nn.Module:
        """Note the mode that is asked for, and stay in inference mode."""
        self.module.training = self.wanted
        if self.replaced is not None:
            self.replaced(mode)
        else:
            type(self.module).train(self.module, mode)  # may be a custom method
        self.wanted = self.module.training
        for inner in self.module.modules():
            guard = inner.__dict__.get("train")
            if isinstance(guard, StayInEval):
                guard.hold()
        return self.module

    def hold(self) -> None:
        """Set inference mode, except where the flag only chooses between two implementations.

        A `torch.nn.TransformerEncoder` takes the mode of its first layer for that of all, and hands
        nested tensors to layers that are still learning; its dropout sits in submodules.
        """
        self.module.training = self.wanted and type(self.module) is nn.TransformerEncoderLayer
