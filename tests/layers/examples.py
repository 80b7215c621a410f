"""The table of models that the tests of cutting share, and small ones with one odd thing each."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from freezeout import Layer, Layers
from tests.layers.convolutional import (
    BackboneAndHead,
    ConvNet,
    ConvsThenNorms,
    MobileNet,
    PlainBackboneAndHead,
    PreActNet,
    ResNet,
    UNet,
)
from tests.layers.transformers import GPT, BertClassifier, EncoderViT, MoE, Swin, TwoTowers, ViT

IMAGES = torch.zeros(2, 3, 16, 16)
TOKENS = torch.zeros(2, 5, dtype=torch.long)


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.shared = nn.Linear(4, 4)
        self.middle = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.shared(self.first(x))
        return self.head(self.shared(self.middle(x)))


class BlockWith(nn.Module):
    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.own = nn.Linear(4, 4)
        self.shared = shared

    def forward(self, x):
        return self.shared(self.own(x))


def sharing(shared: nn.Module) -> nn.Module:
    return nn.Sequential(BlockWith(shared), BlockWith(shared), nn.Linear(4, 2))


class WithAuxiliary(nn.Module):
    """The auxiliary head runs only while training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.auxiliary = nn.Linear(4, 2)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        y = self.head(self.body(x))
        return (y, self.auxiliary(x)) if self.training else y


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 8, num_layers=2, batch_first=True)
        self.fc = nn.Linear(8, 11)

    def forward(self, ids):
        return self.fc(self.lstm(self.embed(ids))[0])


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.key, self.query, self.value = (nn.Linear(8, 4) for _ in range(3))

    def forward(self, x):
        return torch.softmax(self.query(x) @ self.key(x).mT, -1) @ self.value(x)


class ManyHeads(nn.Module):
    """Attention heads in a list of their own, norms defined last."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([Head(), Head()])
        self.mlp = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        h = self.norm(x)
        return x + self.mlp(torch.cat([head(h) for head in self.heads], -1))


class HeadsGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.blocks = nn.Sequential(*(ManyHeads() for _ in range(3)))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.embed(ids))))


class SharedActivation(nn.Module):
    """One ReLU inside a sequence and, again, at the very end."""

    def __init__(self, kind: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.act = kind()
        self.body = nn.Sequential(nn.Linear(4, 4), self.act)
        self.middle = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.act(self.head(self.act(self.middle(self.body(x)))))


class Scale(nn.Module):
    """A parameter and no child."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.scale


def mlp(**between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4), nn.Linear(4, 2))


TRANSFORMER = {"dim_feedforward": 16, "batch_first": True}
INPUT = torch.zeros(2, 4)

# Model, example, names of its layers. All are defined as executed, so both cuts are the same.
IN_ORDER: dict[str, tuple[Callable[[], nn.Module], object, list[str]]] = {
    "sequential": (mlp, INPUT, ["0", "2", "3"]),
    "conv-bn": (ConvNet, IMAGES, ["conv1", "conv2", "fc"]),
    "conv-bn without affine": (lambda: ConvNet(affine=False), IMAGES, ["conv1", "conv2", "fc"]),
    "resnet": (
        ResNet,
        IMAGES,
        ["conv1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc"],
    ),
    "backbone and head": (
        BackboneAndHead,
        IMAGES,
        [
            "backbone.conv1",
            *(f"backbone.layer{i}.{j}" for i in (1, 2) for j in (0, 1)),
            "head",
        ],
    ),
    "plain backbone and head": (
        PlainBackboneAndHead,
        IMAGES,
        ["backbone.conv1", "backbone.conv2", "backbone.fc", "head"],
    ),
    "vit": (ViT, IMAGES, ["patch_embed", "blocks.0", "blocks.1", "blocks.2", "head"]),
    "vit with encoder": (
        EncoderViT,
        IMAGES,
        ["conv_proj", "encoder.layers.0", "encoder.layers.1", "heads.1"],
    ),
    "pre-activation": (PreActNet, IMAGES, ["stem", "blocks.0", "blocks.1", "fc"]),
    "gpt": (lambda: GPT(tied=False), TOKENS, ["wte", "wpe", "h.0", "h.1", "lm_head"]),
    "tied gpt": (GPT, TOKENS, ["wpe", "h.0", "h.1", "lm_head"]),
    "mixture of experts": (
        MoE,
        TOKENS,
        ["embed", "layers.0", "layers.1", "layers.2", "head"],
    ),
    "mobilenet": (
        MobileNet,
        IMAGES,
        ["features.0.0", "features.1", "features.2", "features.3.0", "classifier.1"],
    ),
    "swin": (
        Swin,
        IMAGES,
        [
            "patch_embed",
            "layers.0.blocks.0",
            "layers.0.blocks.1",
            "layers.0.downsample",
            "layers.1.blocks.0",
            "layers.1.blocks.1",
            "head",
        ],
    ),
    "bert": (
        BertClassifier,
        {"input_ids": TOKENS},
        [
            "bert.embeddings",
            "bert.encoder.layer.0",
            "bert.encoder.layer.1",
            "bert.pooler.0",
            "classifier",
        ],
    ),
    "unet": (UNet, IMAGES, ["down1", "down2", "up2", "up1", "out"]),
    "lstm": (Recurrent, TOKENS, ["embed", "lstm", "fc"]),
    "heads in a list": (
        HeadsGPT,
        TOKENS,
        ["embed", "blocks.0", "blocks.1", "blocks.2", "head"],
    ),
    "nn.TransformerEncoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, **TRANSFORMER), 3),
        torch.zeros(2, 5, 4),
        ["layers.0", "layers.1", "layers.2"],
    ),
    "nn.Transformer": (
        lambda: nn.Transformer(4, 2, 2, 2, **TRANSFORMER),
        (torch.zeros(2, 5, 4), torch.zeros(2, 3, 4)),
        [f"{coder}.layers.{i}" for coder in ("encoder", "decoder") for i in (0, 1)],
    ),
    "shared activation": (SharedActivation, INPUT, ["body.0", "middle", "head"]),
    "root scale": (lambda: nn.Sequential(Scale(), nn.Linear(4, 2)), INPUT, ["0", "1"]),
    "shared submodule": (lambda: sharing(nn.Linear(4, 4)), INPUT, ["0", "1", "2"]),
}
# Where the example teaches better.
OTHERWISE: dict[str, tuple[Callable[[], nn.Module], object]] = {
    "convs then norms": (ConvsThenNorms, IMAGES),
    "functional tie": (lambda: GPT(functional=True), TOKENS),
    "called twice": (CalledTwice, INPUT),
    "auxiliary head": (WithAuxiliary, INPUT),
    "two towers": (TwoTowers, (torch.zeros(3, 5, 4), torch.zeros(3, 5, 4))),
}
MODELS = {name: entry[:2] for name, entry in IN_ORDER.items()} | OTHERWISE

every_model = pytest.mark.parametrize("name", MODELS)
models_in_order = pytest.mark.parametrize("name", IN_ORDER)


def make(name: str) -> tuple[nn.Module, object]:
    torch.manual_seed(0)
    builder, example = MODELS[name]
    return builder(), example


def names(layer: Layer) -> list[str]:
    return [name for name, _ in layer.parameters]


def of(layers: Layers, module: nn.Module) -> list[int]:
    """Indices of the layers that own a module."""
    return [layer.index for layer in layers if any(m is module for m in layer.modules)]


def run(model: nn.Module, example: object) -> torch.Tensor:
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


class Masked(nn.Module):
    """A token that only training uses, as in masked pre-training."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(4))
        self.stem = nn.Linear(4, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(self.stem(x + self.token if self.training else x)))


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return x
