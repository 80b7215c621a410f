"""Custom networks: what the user's function may return, and how it is loaded.

The function is called with those of ``num_classes``, ``in_channels`` and ``image_size`` (height,
width) that it takes by name, where data are named that tell them; else without arguments. It
returns the model, or ``(model, example)``, ``(model, example, loss)`` or ``(model, example, loss,
optimizer)``, of which all but the model may be ``None``.

* A plan without data takes all of it (:func:`load_custom`).
* A run on data (:func:`build_custom`) has the batches, the loss and the optimizer of its settings.
  An example may say what the data say anyway; anything else is refused.
"""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.errors import RunError
from freezeout.lab.importing import Factory, error_line, kind_of
from freezeout.lab.models.examples import draw_example, parse_shape
from freezeout.layers import unwrap
from freezeout.tensors import tensors_in

__all__ = ["MODEL", "CustomModel", "build_custom", "load_custom", "move_custom"]

MODEL = Factory(
    option="--model",
    makes="the model",
    kind=nn.Module,
    noun="a model",
    reason=", so that every run begins with its own weights",
    offers=("num_classes", "in_channels", "image_size"),
    source="--data",
)

_MADE: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@dataclass(frozen=True)
class CustomModel:
    """What the user's function returned, checked.

    Attributes:
        model: The model.
        example: A batch as the model takes it: one tensor, a tuple of positional or a dict of
            keyword arguments; ``None`` where the function gives none.
        loss: Turns the model's output into a scalar, or ``None``.
        optimizer: The one that will train the model, or ``None``.
    """

    model: nn.Module
    example: Any = None
    loss: Callable[[Any], torch.Tensor] | None = None
    optimizer: Optimizer | None = None


def load_custom(
    target: str, *, shape: str | None, batch_size: int, device: torch.device, seed: int
) -> CustomModel:
    """Call the user's function without data, and return what it made, with an example for it.

    The function is called after ``torch.manual_seed(seed)``, without arguments. Where it gives no
    example, one is drawn: see :func:`freezeout.lab.models.examples.draw_example`.

    All is moved with ``.to(device)``, which keeps the identity of parameters, so an optimizer made
    by the function stays right; one that has taken steps must have taken them on this device.

    Args:
        target: ``module:function``; dots after the colon reach into classes and objects.
        shape: Shape of one input without its batch, such as ``"3x224x224"``; for text the number
            of tokens. ``None`` leaves it to the model.
        batch_size: Inputs in an example drawn here, at least 1.
        device: Where the model is to be trained.
        seed: For the function and for the example.

    Raises:
        RunError: If anything in this goes wrong; the message is one line and says what to do.
    """
    wanted = None if shape is None else parse_shape(shape)
    torch.manual_seed(seed)
    made = _checked(target, MODEL.call(target))
    example = made.example
    if example is None:
        example = draw_example(unwrap(made.model), wanted, batch_size=batch_size, seed=seed)
    elif wanted is not None:
        raise RunError(
            f"--input {shape} was given, but {target} returns an example. Leave --input out, or "
            "return None in the example's place."
        )
    loss = made.loss
    return CustomModel(
        move_custom(target, made.model, device),
        move_custom(target, example, device),
        move_custom(target, loss, device) if isinstance(loss, nn.Module) else loss,
        made.optimizer,
    )


def build_custom(
    target: str, *, num_classes: int, in_channels: int, image_size: tuple[int, int]
) -> nn.Module:
    """Call the user's function for a run on data, and return its model, in training mode.

    Args:
        target: ``module:function``; dots after the colon reach into classes and objects.
        num_classes: Number of logits.
        in_channels: Channels of an image.
        image_size: (height, width) in pixels.

    Raises:
        RunError: If anything in this goes wrong, or the function returns what a run cannot use;
            the message is one line and says what to do.
    """
    offers = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    made = _checked(target, MODEL.call(target, offers))
    _check_usable(target, made, (in_channels, *image_size))
    if made.model in _MADE:
        raise RunError(
            f"{target} returned the same model as before. Make a new one within the "
            "function at every call, so that every run begins with its own weights."
        )
    _MADE.add(made.model)
    return made.model.train()


def move_custom(target: str, value: Any, device: torch.device) -> Any:
    """Return a value with the tensors in it on a device; see `tensors_in` for where they may be.

    Raises:
        RunError: If it cannot be moved.
    """
    try:
        return _moved(value, device)
    except Exception as error:
        raise RunError(
            f"what {target} returns cannot be moved to {device}: {error_line(error)}. Choose "
            "another --device, or fix the function."
        ) from error


def _checked(target: str, given: Any) -> CustomModel:
    """Return what a function gave as a `CustomModel`, whose parts are of the right types."""
    parts = given if isinstance(given, tuple) else (given,)
    if not 1 <= len(parts) <= 4:
        raise RunError(
            f"{target} must return the model, or up to (model, example, loss, optimizer), got a "
            f"tuple of {len(parts)}. An example of several arguments is one tuple within it."
        )
    model, example, loss, optimizer = (*parts, None, None, None)[:4]
    if not isinstance(model, nn.Module):
        place = "first in its tuple " if isinstance(given, tuple) else ""
        raise RunError(
            f"{target} must return a torch.nn.Module {place}(or a tuple that begins with one), "
            f"got {kind_of(model)}. Return the model."
        )
    if example is not None and next(tensors_in(example), None) is None:
        raise RunError(
            f"the example that {target} returns must hold tensors, got {kind_of(example)}. "
            "Return a batch: one tensor, a tuple of positional or a dict of keyword arguments of "
            "the model."
        )
    if loss is not None and not callable(loss):
        raise RunError(
            f"the loss that {target} returns must be a function of the model's output, got "
            f"{kind_of(loss)}. Return for example lambda output: cross_entropy(output, y)."
        )
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise RunError(
            f"the optimizer that {target} returns must be a torch.optim.Optimizer, got "
            f"{kind_of(optimizer)}. Return the one that will train the model, or None."
        )
    return CustomModel(model, example, loss, optimizer)


def _check_usable(target: str, made: CustomModel, image: tuple[int, ...]) -> None:
    """Raise where a function gave what a run on images of some shape cannot use."""
    advice = "Return the model alone, or train in a custom loop with freezeout.FreezeOut."
    if made.loss is not None:
        raise RunError(
            f"{target} returns a loss, but a run on data takes the cross-entropy of their labels. "
            f"{advice}"
        )
    if made.optimizer is not None:
        raise RunError(
            f"{target} returns an optimizer, but a run on data takes that of its settings "
            f"(--optimizer, --lr). {advice}"
        )
    if made.example is None:
        return
    shape = tuple(made.example.shape) if isinstance(made.example, torch.Tensor) else None
    if shape is None or shape[1:] != image:
        got = kind_of(made.example) if shape is None else f"the shape {shape}"
        raise RunError(
            f"the example that {target} returns must be images as those of the data, (N, "
            f"{', '.join(map(str, image))}), got {got}. {advice}"
        )


def _moved(value: Any, device: torch.device) -> Any:
    if callable(getattr(value, "to", None)):  # a tensor, or a batch that knows how it is moved
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_moved(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        moved = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(moved, field.name, _moved(getattr(value, field.name), device))
        return moved
    return value
