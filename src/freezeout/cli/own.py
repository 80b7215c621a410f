"""The user's own network, named on the command line as ``module:factory``."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.errors import RunError
from freezeout.importing import (
    Purpose,
    call_function,
    current_folder_first,
    error_line,
    find_function,
    kind_of,
    parameters_of,
)
from freezeout.layers import unwrap
from freezeout.tensors import tensors_in

__all__ = ["Own", "load_own"]

_PURPOSE = Purpose(
    option="--import",
    gives="the model",
    kind=nn.Module,
    noun="a model",
    anew=", so that it is made anew from --seed",
)


@dataclass(frozen=True)
class Own:
    """What a factory gave: a model, and what is needed to train it for a step.

    Attributes:
        model: The model, on the device.
        example: A batch as the model takes it, on the device: one tensor, a tuple of positional or
            a dict of keyword arguments.
        loss: Turns the model's output into a scalar, or ``None`` where the factory names none.
        optimizer: The one that will train the model, or ``None``.
    """

    model: nn.Module
    example: Any
    loss: Callable[[Any], torch.Tensor] | None
    optimizer: Optimizer | None


def load_own(
    target: str, *, shape: str | None, batch_size: int, device: torch.device, seed: int
) -> Own:
    """Loads a network by the name of the function that makes it, with a batch for it.

    The function is called without arguments after ``torch.manual_seed(seed)`` and returns the
    model, or a tuple ``(model, example)``, ``(model, example, loss)`` or ``(model, example, loss,
    optimizer)``, of which all but the model may be ``None``. Meanwhile the current folder is on
    ``sys.path``, first, as with ``python -m``; what was imported stays imported.

    Where the function gives no example, one is drawn at random: token ids for a Hugging Face text
    model, with labels where its ``forward`` takes them and their shape is known; else normal
    numbers in the model's precision. Its shape is `shape`, or what the model says of itself
    (``config`` of Hugging Face, ``pretrained_cfg`` of timm).

    The model is moved with ``.to(device)``, which keeps the identity of its parameters, so an
    optimizer made by the function stays right; one that has taken steps already must have taken
    them on this device. A loss that is a module is moved too.

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
    wanted = None if shape is None else _parse_shape(shape)
    with current_folder_first():
        factory = find_function(target, _PURPOSE)
        torch.manual_seed(seed)
        given = call_function(target, factory)
    model, example, loss, optimizer = _check(target, given)
    if example is None:
        example = _Draw(unwrap(model), batch_size, seed).example(wanted)
    elif wanted is not None:
        raise RunError(
            f"--input {shape} was given, but {target} returns an example of its own. Leave --input "
            "out, or return None in the example's place."
        )
    try:
        model = model.to(device)
        loss = loss.to(device) if isinstance(loss, nn.Module) else loss
        example = _moved(example, device)
    except Exception as error:
        raise RunError(
            f"what {target} returns cannot be moved to {device}: {error_line(error)}. Choose "
            "another --device, or mend the function."
        ) from error
    return Own(model, example, loss, optimizer)


# --- What the function gave --------------------------------------------------------------------


def _check(target: str, given: Any) -> tuple[nn.Module, Any, Any, Optimizer | None]:
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
            f"the example that {target} returns must hold tensors, got {kind_of(example)}. Return "
            "a batch: one tensor, a tuple of positional or a dict of keyword arguments of the "
            "model."
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
    return model, example, loss, optimizer


def _moved(value: Any, device: torch.device) -> Any:
    """A value with the tensors in it on a device; see `tensors_in` for where they may be."""
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


# --- An example where the function gave none ---------------------------------------------------


def _parse_shape(text: str) -> tuple[int, ...]:
    sizes = text.strip().lower().split("x")
    if not all(re.fullmatch("[0-9]{1,9}", size) and int(size) > 0 for size in sizes):
        raise RunError(
            "--input must be the shape of one input without its batch, positive whole numbers with "
            f"x between them, got {text!r}. Write --input 3x224x224, or for text --input 128."
        )
    return tuple(map(int, sizes))


_TOKENS = 128

_IDS = ("ForCausalLM", "ForMaskedLM", "ForConditionalGeneration", "ForSeq2SeqLM", "LMHeadModel")
_TAGS = ("ForTokenClassification",)
_CLASSES = ("ForSequenceClassification", "ForImageClassification")


class _Draw:
    """Draws random examples for a model. Frameworks are told by what they put on their models."""

    def __init__(self, model: nn.Module, batch_size: int, seed: int) -> None:
        self._model = model
        self._batch = batch_size
        self._random = torch.Generator().manual_seed(seed)
        self._config: Any = getattr(model, "config", None)
        self._main = getattr(model, "main_input_name", None)  # as Hugging Face has it
        self._takes = parameters_of(model.forward).keys()

    def example(self, shape: tuple[int, ...] | None) -> Any:
        """An example of a shape, or of the one that the model names."""
        text = self._main == "input_ids" and hasattr(self._config, "vocab_size")
        try:
            if text:
                return self._text(self._length(shape))
            images = self._normal(*(shape or self._own_shape()))
        except (RuntimeError, MemoryError) as error:
            raise RunError(
                f"a batch of {self._batch} such inputs cannot be made: {error_line(error)}. Give a "
                "smaller --batch-size or --input."
            ) from error
        if self._main == "pixel_values" and self._config is not None:
            return {"pixel_values": images, **self._labels(None)}
        return images

    def _own_shape(self) -> tuple[int, ...]:
        size = getattr(self._config, "image_size", None) if self._main == "pixel_values" else None
        if isinstance(size, int):
            size = (size, size)
        if isinstance(size, (tuple, list)):
            return (getattr(self._config, "num_channels", 3), *size)
        for name in ("pretrained_cfg", "default_cfg"):  # timm
            facts = getattr(self._model, name, None)
            if isinstance(facts, Mapping) and isinstance(facts.get("input_size"), (tuple, list)):
                return tuple(facts["input_size"])
        raise RunError(
            f"nothing tells the shape of an input of {type(self._model).__name__}. Return (model, "
            "example) from the function, or give --input CxHxW, such as --input 3x224x224."
        )

    def _length(self, shape: tuple[int, ...] | None) -> int:
        most = getattr(self._config, "max_position_embeddings", None)
        most = most if isinstance(most, int) and most > 0 else None
        if shape is None:
            return min(_TOKENS, most or _TOKENS)
        name = type(self._model).__name__
        if len(shape) != 1:
            raise RunError(
                f"--input of {name} must be one number of tokens, got "
                f"{'x'.join(map(str, shape))}. Write for example --input {_TOKENS}."
            )
        if most and shape[0] > most:
            raise RunError(
                f"{name} takes at most {most} tokens (max_position_embeddings of its config), got "
                f"--input {shape[0]}. Give fewer, or make the model for more."
            )
        return shape[0]

    def _text(self, length: int) -> dict[str, torch.Tensor]:
        ids = self._ids(length)
        two_parts = getattr(self._config, "is_encoder_decoder", False)
        end = getattr(self._config, "eos_token_id", None)
        if two_parts and isinstance(end, int):
            ids[:, -1] = end  # where BART and T5 read the class of a text
        example = {"input_ids": ids}
        if "attention_mask" in self._takes:
            example["attention_mask"] = torch.ones_like(ids)
        example.update(self._labels(length))
        if two_parts and "labels" not in self._takes and "decoder_input_ids" in self._takes:
            example["decoder_input_ids"] = self._ids(length)  # nothing to make them from
        return example

    def _labels(self, length: int | None) -> dict[str, torch.Tensor]:
        """Labels by the model's head; none where it takes none, or nobody knows their shape."""
        name = type(self._model).__name__
        if "labels" not in self._takes:
            return {}
        if length is not None and name.endswith(_IDS):
            return {"labels": self._ids(length)}
        classes = getattr(self._config, "num_labels", 0)
        if length is not None and name.endswith(_TAGS):
            return {"labels": self._integers(classes, self._batch, length)}
        if name.endswith(_CLASSES):
            kind = getattr(self._config, "problem_type", None)
            if kind == "multi_label_classification":
                return {"labels": self._integers(2, self._batch, classes).to(self._dtype())}
            if kind == "regression" or (kind is None and classes == 1):
                sizes = (self._batch,) if classes == 1 else (self._batch, classes)
                return {"labels": self._normal(*sizes[1:])}
            return {"labels": self._integers(classes, self._batch)}
        return {}

    def _ids(self, length: int) -> torch.Tensor:
        """Token ids of shape (batch, length); none with a meaning of its own, such as padding."""
        plain = torch.ones(self._config.vocab_size, dtype=torch.bool)
        for name, value in vars(self._config).items():
            if name.endswith("_token_id"):
                for token in value if isinstance(value, (tuple, list)) else (value,):
                    if isinstance(token, int) and 0 <= token < len(plain):
                        plain[token] = False
        choice = plain.nonzero().flatten() if plain.any() else torch.arange(len(plain))
        return choice[self._integers(len(choice), self._batch, length)]

    def _integers(self, below: int, *sizes: int) -> torch.Tensor:
        return torch.randint(max(below, 1), sizes, generator=self._random)

    def _normal(self, *sizes: int) -> torch.Tensor:
        drawn = torch.randn(self._batch, *sizes, generator=self._random)
        return drawn.to(self._dtype())

    def _dtype(self) -> torch.dtype:
        floating = (p.dtype for p in self._model.parameters() if p.is_floating_point())
        return next(floating, torch.get_default_dtype())
