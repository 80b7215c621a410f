"""Random examples for custom models that come without one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from freezeout.errors import RunError
from freezeout.lab.importing import error_line, parameters_of

__all__ = ["draw_example", "parse_shape"]

_TOKENS = 128

# Endings of the names of Hugging Face's classes, by the labels that their heads take.
_IDS = ("ForCausalLM", "ForMaskedLM", "ForConditionalGeneration", "ForSeq2SeqLM", "LMHeadModel")
_TAGS = ("ForTokenClassification",)
_CLASSES = ("ForSequenceClassification", "ForImageClassification")


def parse_shape(text: str) -> tuple[int, ...]:
    """Read the shape of one input, such as ``"3x224x224"``.

    Raises:
        RunError: If it has another form.
    """
    sizes = text.strip().lower().split("x")
    if not all(re.fullmatch("[0-9]{1,9}", size) and int(size) > 0 for size in sizes):
        raise RunError(
            "--input must be the shape of one input without its batch, positive whole numbers with "
            f"x between them, got {text!r}. Write --input 3x224x224, or for text --input 128."
        )
    return tuple(map(int, sizes))


def draw_example(
    model: nn.Module, shape: tuple[int, ...] | None, *, batch_size: int, seed: int
) -> Any:
    """Draw a random batch as a model takes it.

    A Hugging Face text model gets token ids, with labels where its ``forward`` takes them and
    their shape is known; any other model normal numbers in its precision.

    Args:
        model: The model, without wrappers.
        shape: Shape of one input, or number of tokens. ``None``: what the model says of itself, in
            its ``config`` (Hugging Face) or ``pretrained_cfg`` (timm).
        batch_size: Inputs in the batch.
        seed: For what is drawn.

    Returns:
        A tensor, or a dict of keyword arguments.

    Raises:
        RunError: If nothing tells the shape, or it does not fit the model or the memory.
    """
    return _Draw(model, batch_size, seed).example(shape)


class _Draw:
    """Draw random examples for a model. Frameworks are told by what they put on their models."""

    def __init__(self, model: nn.Module, batch_size: int, seed: int) -> None:
        self._model = model
        self._batch = batch_size
        self._random = torch.Generator().manual_seed(seed)
        self._config: Any = getattr(model, "config", None)
        self._main = getattr(model, "main_input_name", None)  # as Hugging Face has it
        self._takes = parameters_of(model.forward).keys()

    def example(self, shape: tuple[int, ...] | None) -> Any:
        """Draw an example of a shape, or of the one that the model names."""
        text = self._main == "input_ids" and hasattr(self._config, "vocab_size")
        try:
            if text:
                return self._text(self._length(shape))
            images = self._normal(*(shape or self._named_shape()))
        except (RuntimeError, MemoryError) as error:
            raise RunError(
                f"a batch of {self._batch} such inputs cannot be made: {error_line(error)}. Give a "
                "smaller --batch-size or --input."
            ) from error
        if self._main == "pixel_values" and self._config is not None:
            return {"pixel_values": images, **self._labels(None)}
        return images

    def _named_shape(self) -> tuple[int, ...]:
        """Return the shape of an input that the model names."""
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
            "example) from the function, or give --input CxHxW, such as --input 3x224x224, or the "
            "data, --data."
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
        """Draw labels for the model's head; none where it takes none, or their shape is unknown."""
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
                return {"labels": self._normal(*(() if classes == 1 else (classes,)))}
            return {"labels": self._integers(classes, self._batch)}
        return {}

    def _ids(self, length: int) -> torch.Tensor:
        """Draw token ids of shape (batch, length); none with a special meaning, as padding has."""
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
