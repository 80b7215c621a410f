"""Undo every freeze in a model, whoever made it, also in a copy or one that was saved whole."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from torch import nn

from freezeout.errors import FrozenPrefixWarning
from freezeout.freezing.account import name_some
from freezeout.freezing.eval_mode import back_to_mode
from freezeout.freezing.hooks import forget_hooks
from freezeout.freezing.quiet import let_change
from freezeout.layers import forget_marks, modules_in, named_parameters, thaw_parameters
from freezeout.wrappers import Companions, reshard

__all__ = ["start_thawed", "unfreeze"]


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
    _undo(model)


def _undo(model: nn.Module) -> list[str]:
    """Undo every freeze in a model; return the names of the parameters that learn again."""
    reshard(model)
    thawed = [name for name, _ in thaw_parameters(model, named_parameters(model))]
    forget_marks(model)
    for module in modules_in(model):
        back_to_mode(module)
        let_change(module)
    forget_hooks(model)
    if thawed:
        Companions(model).settle([])
    return thawed


def start_thawed(model: nn.Module) -> None:
    """Undo every freeze in a model, and warn of the parameters that learn again.

    Args:
        model: The model, before another freezer takes it over.
    """
    names = _undo(model)
    if not names:
        return
    warnings.warn(
        f"parameters that an earlier freeze left frozen learn again: "
        f"{name_some(names)}. If one was meant to stay frozen, call "
        "freezeout.unfreeze(model) first, then freeze it by hand.",
        FrozenPrefixWarning,
        stacklevel=_to_caller(),
    )


def _to_caller() -> int:
    """Return the ``stacklevel`` of the first caller outside this package, for one who warns."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and frame.f_globals.get("__name__", "").startswith("freezeout."):
        frame, level = frame.f_back, level + 1
    return level
