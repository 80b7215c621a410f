"""Networks of transformers in configurations in which something comes and goes between passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tests.layers.networks import hugging_face as small
from tests.layers.real.transformers_other import SEGFORMER, SPEECH, TEXT, VIT

__all__ = ["CONFIGURATIONS", "Configuration"]

Batch = dict[str, Any]


@dataclass(frozen=True)
class Configuration:
    """A network, and a batch for each step.

    Attributes:
        build: Makes it.
        batch: Makes the batch of a step.
        prepare: What is set on it before it is cut.
        depths: Shares of its layers that are frozen.
    """

    build: Callable[[], nn.Module]
    batch: Callable[[int], Batch]
    prepare: Callable[[nn.Module], object] = lambda model: None
    depths: tuple[float, ...] = field(default=(0.5, 0.99))


def ids(n: int, length: int = 6) -> torch.Tensor:
    return torch.randint(3, 12, (4, length), generator=torch.Generator().manual_seed(n))


def mask(n: int, length: int = 6) -> torch.Tensor:
    return (torch.arange(length) < torch.tensor([[length], [3], [4 + n % 2], [length]])).long()


def masked(n: int) -> Batch:
    """A mask in every second step."""
    batch: Batch = {"input_ids": ids(n), "labels": ids(n)[:, 0] % 3}
    return batch | ({"attention_mask": mask(n)} if n % 2 else {})


def full_or_masked(n: int) -> Batch:
    """A mask that hides nothing in every second step: its values decide about the way."""
    hides = mask(n) if n % 2 else torch.ones(4, 6, dtype=torch.long)
    return {"input_ids": ids(n), "labels": ids(n), "attention_mask": hides}


def text(n: int) -> Batch:
    return {"input_ids": ids(n), "labels": ids(n)}


def longer_or_shorter(n: int) -> Batch:
    return {"input_ids": ids(n, 5 + n % 2), "labels": ids(n, 5 + n % 2)}


def labelled(n: int) -> Batch:
    return {"input_ids": ids(n), "labels": ids(n)[:, 0] % 3}


def with_hidden_states(n: int) -> Batch:
    return labelled(n) | {"output_hidden_states": True}


def from_embeddings(n: int) -> Batch:
    embedded = torch.randn(4, 6, 16, generator=torch.Generator().manual_seed(n))
    return {"inputs_embeds": embedded, "labels": ids(n)[:, 0] % 3}


def with_a_cache(n: int) -> Batch:
    from transformers import DynamicCache

    return text(n) | {"past_key_values": DynamicCache(), "use_cache": True}


def pictures(n: int) -> Batch:
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(n))
    return {"pixel_values": pixels, "labels": torch.full((2, 16, 16), n % 2)}


def captioned(n: int) -> Batch:
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(n))
    return {"input_ids": ids(n), "pixel_values": pixels, "return_loss": True}


def waves(n: int) -> Batch:
    wave = torch.randn(2, 800, generator=torch.Generator().manual_seed(n))
    return {"input_values": wave, "labels": torch.tensor([[1, 2], [3, n % 3 + 1]])}


def speech(n: int) -> Batch:
    features = torch.randn(4, 8, 20, generator=torch.Generator().manual_seed(n))
    return {"input_features": features, "labels": ids(n)}


def of(name: str, settings: dict[str, Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        kind = getattr(transformers, name)
        config = {k: dict(v) if isinstance(v, dict) else v for k, v in settings.items()}
        model: nn.Module = kind(kind.config_class(**config))
        return model

    return build


def bart_that_drops_layers() -> nn.Module:
    model = small.bart()
    model.model.encoder.layerdrop = model.model.decoder.layerdrop = 0.5
    return model


def checkpointed(model: nn.Module) -> None:
    name = "activation_checkpointing_enable"  # before version 5: of gradients
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


_SPEC: dict[str, Any] = {"apply_spec_augment": True, "mask_time_prob": 0.3, "mask_time_length": 2}
_SPEC |= {"layerdrop": 0.3, "pad_token_id": 0}

CONFIGURATIONS = {
    "bert, a mask in every second step": Configuration(small.bert, masked),
    "bert, checkpointed": Configuration(small.bert, labelled, checkpointed),
    "bert, hidden states": Configuration(small.bert, with_hidden_states),
    "bert, from embeddings": Configuration(small.bert, from_embeddings),
    "gpt2, sequences of two lengths": Configuration(
        lambda: small.gpt2(tied=False), longer_or_shorter
    ),
    "gpt2, checkpointed": Configuration(lambda: small.gpt2(tied=False), text, checkpointed),
    "llama, a mask that may hide nothing": Configuration(small.llama, full_or_masked),
    "llama, a cache from outside": Configuration(small.llama, with_a_cache),
    "mixtral": Configuration(small.mixtral, text),
    "deberta": Configuration(small.deberta, masked),
    "bart, layers dropped": Configuration(bart_that_drops_layers, text),
    "t5, checkpointed": Configuration(lambda: small.t5(tied=False), text, checkpointed),
    "whisper": Configuration(lambda: small.whisper(tied=False), speech),
    "wav2vec2, masked and layers dropped": Configuration(
        of("Wav2Vec2ForCTC", {**SPEECH, **_SPEC}), waves
    ),
    "clip": Configuration(
        of("CLIPModel", {"text_config": TEXT, "vision_config": VIT, "projection_dim": 16}),
        captioned,
    ),
    "segformer": Configuration(of("SegformerForSemanticSegmentation", SEGFORMER), pictures),
}
