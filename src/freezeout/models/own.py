"""A network that a function of the user's own makes."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

from freezeout.errors import RunError
from freezeout.importing import (
    Purpose,
    call_function,
    check_target,
    current_folder_first,
    find_function,
    is_target,
    kind_of,
)

__all__ = ["build_own", "check_own"]

_PURPOSE = Purpose(
    option="--model",
    gives="the model",
    kind=nn.Module,
    noun="a model",
    anew=", so that every run begins with weights of its own",
    offers=("num_classes", "in_channels", "image_size"),
)

_MADE: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def check_own(name: str) -> bool:
    """Whether a name is of the user's own network; nothing is imported.

    Raises:
        ValueError: If it has a colon, but not the form ``module:function``.
    """
    if is_target(name):
        check_target(name, _PURPOSE)
        return True
    return False


def build_own(
    target: str, *, num_classes: int, in_channels: int, image_size: tuple[int, int]
) -> nn.Module:
    """Calls the user's function and returns its network, in training mode.

    It gets those of the arguments that it takes by name. Importing its module does not move torch's
    generator on the CPU: the network is the same whether it was imported before or not. Meanwhile
    the current folder is on ``sys.path``, first, as with ``python -m``.

    Args:
        target: ``module:function``; dots after the colon reach into classes and objects.
        num_classes: Number of logits.
        in_channels: Channels of an image.
        image_size: (height, width) in pixels.

    Raises:
        RunError: If anything in this goes wrong; the message is one line and says what to do.
    """
    offers = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    with current_folder_first():
        with torch.random.fork_rng(devices=[]):
            function = find_function(target, _PURPOSE)
        model: Any = call_function(target, function, offers)
    if not isinstance(model, nn.Module):
        raise RunError(
            f"{target} must return a torch.nn.Module, got {kind_of(model)}. Return the model alone:"
            " loss and optimizer are those of the settings."
        )
    if model in _MADE:
        raise RunError(
            f"{target} returned the very model that it returned before. Make a new one within the "
            "function at every call, so that every run begins with weights of its own."
        )
    _MADE.add(model)
    return model.train()
