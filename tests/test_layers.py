"""Cutting models into layers: what comes out for each kind of model, and every error."""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from freezeout import Freezer, Layer, Layers, Schedule, SplitError, split_layers
from freezeout.layers import unwrap
from freezeout.models import build

IMAGES = torch.zeros(2, 3, 16, 16)
TOKENS = torch.zeros(2, 5, dtype=torch.long)


# --- Models ------------------------------------------------------------------------------------


class ConvNet(nn.Module):
    """Convolutions, norms and a classifier as attributes, in the order in which they run."""

    def __init__(self, *, affine: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4, affine=affine)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4, affine=affine)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.dropout(F.relu(self.bn1(self.conv1(x))))
        x = self.dropout(F.relu(self.bn2(self.conv2(x))))
        return self.fc(x.mean((2, 3)))


class ConvsThenNorms(nn.Module):
    """Defined in another order than executed."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.bn2 = nn.BatchNorm2d(4)

    forward = ConvNet.forward

    def dropout(self, x):
        return x


class BasicBlock(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.layer2 = nn.Sequential(BasicBlock(4, 8), BasicBlock(8, 8))
        self.fc = nn.Linear(8, 2)

    def features(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.layer2(self.layer1(x)).mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


class Backbone(ResNet):
    def __init__(self) -> None:
        super().__init__()
        del self.fc

    forward = ResNet.features


class BackboneAndHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.backbone(x))


class PlainBackboneAndHead(nn.Module):
    """A backbone without any list inside."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ConvNet()
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.backbone(x))


class Attention(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(torch.softmax(q @ k.mT, -1) @ v)


class TransformerBlock(nn.Module):
    """Norms defined last, as many do: were it opened, they would join the wrong layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, 8))
        self.patch_embed = nn.Conv2d(3, 8, 4, 4)
        self.pos_drop = nn.Dropout()
        self.blocks = nn.Sequential(*(TransformerBlock() for _ in range(3)))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = self.blocks(self.pos_drop(x + self.pos_embed))
        return self.head(self.norm(x)[:, 0])


class Encoder(nn.Module):
    """As in torchvision: the position embedding sits on the inner container."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, 16, 8))
        self.layers = nn.Sequential(*(TransformerBlock() for _ in range(2)))
        self.ln = nn.LayerNorm(8)

    def forward(self, x):
        return self.ln(self.layers(x + self.pos_embedding))


class EncoderViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, 8, 4, 4)
        self.encoder = Encoder()
        self.heads = nn.Sequential(nn.Dropout(), nn.Linear(8, 2))

    def forward(self, x):
        return self.heads(self.encoder(self.conv_proj(x).flatten(2).mT).mean(1))


class PreActBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.conv(F.relu(self.bn(x)))


class PreActNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([PreActBlock(), PreActBlock()])
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(self.bn(x).mean((2, 3)))


class GPT(nn.Module):
    def __init__(self, *, tied: bool = True, functional: bool = False) -> None:
        super().__init__()
        self.wte = nn.Embedding(11, 8)
        self.wpe = nn.Embedding(5, 8)
        self.h = nn.ModuleList(TransformerBlock() for _ in range(2))
        self.ln_f = nn.LayerNorm(8)
        if not functional:
            self.lm_head = nn.Linear(8, 11, bias=False)
            if tied:
                self.lm_head.weight = self.wte.weight
        self.functional = functional

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        x = self.ln_f(x)
        return F.linear(x, self.wte.weight) if self.functional else self.lm_head(x)


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


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 8)
        self.down = nn.Linear(8, 8)

    def forward(self, x):
        return self.down(F.relu(self.up(x)))


class MoEBlock(nn.Module):
    """Experts in a list, norms defined last."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList(Expert() for _ in range(3))
        self.norm1 = nn.LayerNorm(8)
        self.norm2 = nn.LayerNorm(8)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        weights = torch.softmax(self.gate(x), -1)
        return x + sum(
            weights[..., i : i + 1] * expert(self.norm2(x)) for i, expert in enumerate(self.experts)
        )


class MoE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layers = nn.ModuleList(MoEBlock() for _ in range(3))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class ConvNormAct(nn.Sequential):
    """As in torchvision."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(nn.Conv2d(width_in, width, 1), nn.BatchNorm2d(width), nn.ReLU())


class InvertedResidual(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            ConvNormAct(width_in, 8), ConvNormAct(8, 8), nn.Conv2d(8, width, 1)
        )

    def forward(self, x):
        return self.conv(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNormAct(3, 4), InvertedResidual(4, 4), InvertedResidual(4, 8), ConvNormAct(8, 6)
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 2))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class Stage(nn.Module):
    def __init__(self, width: int, *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(2))
        self.downsample = None if last else nn.Linear(width, 2 * width)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 4, 4, 4)
        self.layers = nn.ModuleList([Stage(4, last=False), Stage(8, last=True)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).mT
        for stage in self.layers:
            x = stage(x)
        return self.head(self.norm(x).mean(1))


class BertEmbeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(1000, 8)  # more than half of all parameters
        self.position = nn.Embedding(5, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, ids):
        return self.norm(self.word(ids) + self.position(torch.arange(ids.shape[1])))


class BertEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TransformerBlock() for _ in range(2))

    def forward(self, x):
        for layer in self.layer:
            x = layer(x)
        return x


class BertModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings()
        self.encoder = BertEncoder()
        self.pooler = nn.Sequential(nn.Linear(8, 8), nn.Tanh())

    def forward(self, input_ids):
        return self.pooler(self.encoder(self.embeddings(input_ids))[:, 0])


class BertClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bert = BertModel()
        self.dropout = nn.Dropout()
        self.classifier = nn.Linear(8, 2)

    def forward(self, input_ids):
        return self.classifier(self.dropout(self.bert(input_ids)))


class Tower(nn.Module):
    """Like CLIP's: norms around a stack of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.layers = nn.ModuleList(TransformerBlock() for _ in range(2))
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class TwoTowers(nn.Module):
    """Defined text first, executed image first."""

    def __init__(self) -> None:
        super().__init__()
        self.text = Tower()
        self.image = Tower()
        self.image_head = nn.Linear(8, 4)
        self.text_head = nn.Linear(8, 4)

    def forward(self, text, image):
        image = self.image_head(self.image(image))
        return image @ self.text_head(self.text(text)).mT


class DoubleConv(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(width_in, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return self.convs(x)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = DoubleConv(3, 4)
        self.down2 = DoubleConv(4, 8)
        self.up2 = nn.ConvTranspose2d(8, 4, 2, 2)
        self.up1 = DoubleConv(8, 4)
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        skip = self.down1(x)
        x = self.up2(self.down2(F.max_pool2d(skip, 2)))
        return self.out(self.up1(torch.cat([x, skip], 1)))


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


# --- What holds for all of them ----------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@models_in_order
def test_layers_are_the_sensible_ones_with_and_without_an_example(name):
    model, example = make(name)
    plain, traced = split_layers(model), split_layers(model, example=example)
    assert list(plain.names) == IN_ORDER[name][2]
    assert list(traced.names) == IN_ORDER[name][2]
    assert plain.idle == traced.idle == ()


@every_model
@pytest.mark.parametrize("with_example", [False, True])
def test_every_parameter_is_in_exactly_one_layer_and_no_module_in_two(name, with_example):
    model, example = make(name)
    layers = split_layers(model, example=example if with_example else None)
    found = [(name, id(p)) for layer in layers for name, p in layer.parameters]
    assert sorted(found) == sorted((name, id(p)) for name, p in model.named_parameters())
    modules = [id(m) for layer in layers for m in layer.modules]
    assert len(modules) == len(set(modules))
    assert set(modules) <= {id(m) for m in model.modules()}
    assert [layer.index for layer in layers] == list(range(len(layers)))
    assert all(layer.parameters for layer in layers)
    for layer in layers:
        assert all(layers.index_of(p) == layer.index for _, p in layer.parameters)
        assert layer.num_parameters == sum(p.numel() for _, p in layer.parameters)
    assert layers.index_of(nn.Parameter(torch.zeros(1))) is None
    assert layers.model is model


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@every_model
def test_the_output_of_a_frozen_prefix_needs_no_gradient(name):
    """The point of the order; only what is used early and learns late stands in the way."""
    model, example = make(name)
    layers = split_layers(model, example=example)
    tied = {layers.index_of(model.get_parameter(tie[0])) for tie in layers.ties}
    tied |= {len(layers) - 1} if name == "functional tie" else set()
    for depth in range(1, len(layers)):
        frozen = {id(m) for layer in layers[:depth] for m in layer.modules}
        for layer in layers:
            for _, p in layer.parameters:
                p.requires_grad_(layer.index >= depth)
        leaks: list[str] = []

        def check(module, args, output, leaks=leaks):
            outputs = output if isinstance(output, tuple) else (output,)
            flat = [o for o in outputs if isinstance(o, torch.Tensor)]
            leaks += [type(module).__name__] if any(o.requires_grad for o in flat) else []

        handles = [m.register_forward_hook(check) for m in model.modules() if id(m) in frozen]
        run(model.train(), example)
        for handle in handles:
            handle.remove()
        expected_to_leak = any(depth <= index for index in tied if index is not None)
        if name == "called twice":  # "middle" is frozen and fed by "shared", which is not yet
            expected_to_leak = depth == 2
        assert bool(leaks) == expected_to_leak, (depth, leaks)


def test_layers_behave_as_a_sequence():
    layers = split_layers(mlp())
    assert len(layers) == 3
    assert layers[0].name == "0"
    assert layers[-1] is layers[2]
    assert [layer.name for layer in layers[1:]] == ["2", "3"]
    assert list(layers) == [layers[0], layers[1], layers[2]]
    assert repr(layers) == "Layers(3 layers of Sequential)"
    assert repr(layers[0]) == "Layer(0, '0', 40 parameters)"
    with pytest.raises(IndexError):
        layers[3]


@pytest.mark.parametrize(
    ("network", "count"),
    [("densenet-76-12", 40), ("wrn-40-4", 20), ("vgg16", 14), ("resnet-20", 11)],
)
def test_own_networks_have_the_layers_of_the_paper(network, count):
    model = build(network, num_classes=10)
    plain = split_layers(model)
    traced = split_layers(model, example=torch.zeros(1, 3, 32, 32))
    assert len(plain) == len(traced) == count
    assert plain.names == traced.names
    assert [layer.parameters for layer in plain] == [layer.parameters for layer in traced]
    for ours, theirs in zip(plain, traced, strict=True):
        assert {*map(id, ours.modules)} == {*map(id, theirs.modules)}
    assert any(name.startswith("classifier") for name in names(plain[-1]))
    if network in ("densenet-76-12", "wrn-40-4"):
        assert plain[0].name == "stem"
        assert {name.partition(".")[0] for name in names(plain[-1])} == {"norm", "classifier"}


# --- Where parameters and modules go -----------------------------------------------------------


def test_norms_join_the_convolution_before_them():
    model = ConvNet()
    layers = split_layers(model)
    assert names(layers[0]) == ["conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"]
    assert of(layers, model.bn1) == [0]
    assert of(layers, model.bn2) == [1]


def test_a_norm_without_parameters_freezes_with_the_convolution_whose_output_it_measures():
    model = ConvNet(affine=False)
    for layers in (split_layers(model), split_layers(model, example=IMAGES)):
        assert (of(layers, model.bn1), of(layers, model.bn2)) == ([0], [1])


def test_blocks_own_all_that_is_inside_them():
    model = ResNet()
    layers = split_layers(model)
    block = model.layer2[0]
    assert {*map(id, layers[3].modules)} == {*map(id, block.modules())}
    assert all(name.startswith("layer2.0.") for name in names(layers[3]))
    assert of(layers, model.layer2) == [4]  # the container freezes with the last block in it


@pytest.mark.parametrize("example", [None, IMAGES])
def test_final_norm_and_classifier_share_the_last_layer(example):
    for model, norm in ((ViT(), "norm"), (EncoderViT(), "encoder.ln"), (PreActNet(), "bn")):
        layers = split_layers(model, example=example)
        assert f"{norm}.weight" in names(layers[-1])
        assert layers[-1].name in ("head", "heads.1", "fc")


def test_parameters_on_the_root_belong_to_its_first_layer_or_their_first_user():
    model = ViT()
    plain, traced = split_layers(model), split_layers(model, example=IMAGES)
    for parameter in (model.cls_token, model.pos_embed):
        assert plain.index_of(parameter) == 0
        assert traced.index_of(parameter) == 1  # used after patch_embed, before blocks.0


def test_parameters_on_an_inner_container_belong_to_its_first_layer():
    model = EncoderViT()
    for example in (None, IMAGES):
        layers = split_layers(model, example=example)
        assert layers.index_of(model.encoder.pos_embedding) == 1
        assert layers[1].name == "encoder.layers.0"


def test_a_parameter_on_a_container_belongs_to_the_first_of_several_users():
    class Offset(Unused):
        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Parameter(torch.zeros(4))
            self.c = nn.Linear(4, 2)

        def forward(self, x):
            return self.c(self.b(self.a(x) + self.offset) + self.offset)

    model = Offset()
    assert split_layers(model).index_of(model.offset) == 0
    assert split_layers(model, example=INPUT).index_of(model.offset) == 1


@pytest.mark.parametrize("example", [None, TOKENS])
def test_a_tied_weight_belongs_to_its_last_user(example):
    model = GPT()
    layers = split_layers(model, example=example)
    assert layers.ties == (("wte.weight", "lm_head.weight"),)
    assert layers.index_of(model.wte.weight) == len(layers) - 1
    assert [*layers.early_ties()] == [(("wte.weight", "lm_head.weight"), 0, 3)]
    assert of(layers, model.wte) == [0]


def test_an_untied_model_has_no_ties():
    layers = split_layers(GPT(tied=False))
    assert layers.ties == ()
    assert layers.early_ties() == []


def test_a_weight_that_a_function_uses_again_is_found_by_the_example():
    model = GPT(functional=True)
    assert split_layers(model).index_of(model.wte.weight) == 0  # nothing shows the second use
    layers = split_layers(model, example=TOKENS)
    assert layers.index_of(model.wte.weight) == len(layers) - 1


def test_a_module_called_twice_takes_the_place_of_its_last_call():
    assert split_layers(CalledTwice()).names == ("first", "shared", "middle", "head")
    traced = split_layers(CalledTwice(), example=INPUT)
    assert traced.names == ("first", "middle", "shared", "head")


@pytest.mark.parametrize("example", [None, INPUT])
def test_a_module_inside_two_blocks_belongs_to_the_later_one(example):
    shared = nn.Linear(4, 4)
    layers = split_layers(sharing(shared), example=example)
    assert of(layers, shared) == [1]
    assert layers.index_of(shared.weight) == 1
    assert layers.ties == (("0.shared.weight", "1.shared.weight"),) or len(layers.ties) == 2
    assert all(first == 0 and owner == 1 for _, first, owner in layers.early_ties())
    assert len(layers.early_ties()) == 2


def test_the_example_mends_an_order_of_definition_that_is_not_that_of_execution():
    model = ConvsThenNorms()
    assert split_layers(model).names == ("fc", "conv2", "conv1")
    traced = split_layers(model, example=IMAGES)
    assert traced.names == ("conv1", "conv2", "fc")
    assert [sorted({name.split(".")[0] for name in names(layer)}) for layer in traced] == [
        ["bn1", "conv1"],
        ["bn2", "conv2"],
        ["fc"],
    ]


def test_with_an_example_a_final_norm_joins_what_is_executed_next():
    """By definition the text norm is followed by the image tower, which runs long before it."""
    model, example = make("two towers")
    layers = split_layers(model, example=example)
    assert layers.names == tuple(
        [f"image.{part}" for part in ("embed", "layers.0", "layers.1")]
        + ["image_head"]
        + [f"text.{part}" for part in ("embed", "layers.0", "layers.1")]
        + ["text_head"]
    )
    assert layers.index_of(model.text.norm.weight) == 7
    assert layers.index_of(model.image.norm.weight) == 3


def test_what_never_runs_belongs_to_the_last_layer():
    model = WithAuxiliary().train()
    assert split_layers(model).names == ("stem", "auxiliary", "body", "head")
    layers = split_layers(model, example=INPUT)
    assert layers.names == ("stem", "body", "head")
    assert layers.idle == ("auxiliary.weight", "auxiliary.bias")
    assert layers.index_of(model.auxiliary.weight) == 2
    assert of(layers, model.auxiliary) == [2]


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


def test_a_parameter_on_a_container_that_only_training_uses_keeps_its_place():
    model = Masked()
    layers = split_layers(model, example=torch.zeros(1, 4))
    assert layers.index_of(model.token) == 0
    assert layers.idle == ("token",)


def test_dropout_in_a_sequence_freezes_with_the_layer_it_follows():
    dropout = nn.Dropout()
    model = nn.Sequential(nn.Linear(4, 4), dropout, nn.Linear(4, 2))
    for example in (None, INPUT):
        assert of(split_layers(model, example=example), dropout) == [0]


def test_dropout_at_the_start_of_a_head_never_freezes():
    model = MobileNet()
    for example in (None, IMAGES):
        layers = split_layers(model, example=example)
        assert of(layers, model.classifier[0]) == [len(layers) - 1]


def test_dropout_before_everything_freezes_with_the_first_layer():
    dropout = nn.Dropout()
    model = nn.Sequential(dropout, nn.Linear(4, 4), nn.Linear(4, 2))
    for example in (None, INPUT):
        assert of(split_layers(model, example=example), dropout) == [0]


def test_dropout_on_a_container_belongs_to_no_layer_until_an_example_shows_its_last_use():
    model = ConvNet()
    assert of(split_layers(model), model.dropout) == []
    assert of(split_layers(model, example=IMAGES), model.dropout) == [1]
    vit = ViT()
    assert of(split_layers(vit), vit.pos_drop) == []
    # It follows the sum with pos_embed, so it may not freeze before that.
    assert of(split_layers(vit, example=IMAGES), vit.pos_drop) == [1]


def test_dropout_used_in_a_sequence_and_elsewhere_does_not_freeze_early():
    model = SharedActivation(nn.Dropout)
    assert of(split_layers(model), model.act) == []
    assert of(split_layers(model, example=INPUT), model.act) == [2]


def test_one_dropout_at_two_places_of_a_sequence_freezes_with_the_later():
    dropout = nn.Dropout()
    model = nn.Sequential(nn.Linear(4, 4), dropout, nn.Linear(4, 4), dropout, nn.Linear(4, 2))
    for example in (None, INPUT):
        assert of(split_layers(model, example=example), dropout) == [1]


def test_weight_norm_does_not_change_the_cut():
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        nn.ReLU(),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)),
    )
    for example in (None, INPUT):
        assert split_layers(model, example=example).names == ("0", "2")


def test_blocks_of_one_kind_stay_whole_in_stages_whose_first_block_differs():
    """The first block of a stage has a shortcut, and a list of parts that could be opened."""

    class Part(nn.Module):
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(a, b, 1), nn.Conv2d(b, b, 1)

    class Block(nn.Module):
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.parts = nn.Sequential(Part(a, b), Part(b, b))

    model = nn.Sequential(
        nn.Sequential(Block(4, 4), Block(4, 4)), nn.Sequential(Block(4, 8), Block(8, 8))
    )
    assert split_layers(model).names == ("0.0", "0.1", "1.0", "1.1")


# --- Wrappers ----------------------------------------------------------------------------------


def wrapped() -> dict[str, Callable[[nn.Module], nn.Module]]:
    return {
        "DataParallel": nn.DataParallel,
        "compile": torch.compile,
        "DataParallel of compile": lambda m: nn.DataParallel(torch.compile(m)),
        "compile of DataParallel": lambda m: torch.compile(nn.DataParallel(m)),
    }


importing_the_compiler = pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning")


@importing_the_compiler
@pytest.mark.parametrize("wrapper", wrapped())
def test_wrappers_are_looked_through(wrapper):
    model = ResNet()
    outer = wrapped()[wrapper](model)
    assert unwrap(outer) is model
    for options in ({}, {"example": IMAGES}, {"layers": ["conv1", "bn1", "layer*.*", "fc"]}):
        inside, outside = split_layers(model, **options), split_layers(outer, **options)
        assert outside.model is model
        assert outside.names == inside.names
        assert [layer.parameters for layer in outside] == [layer.parameters for layer in inside]


def test_unwrap_leaves_other_modules_alone():
    model = BackboneAndHead()
    assert unwrap(model) is model


def test_wrapped_parts_are_looked_through_as_well():
    model = BackboneAndHead()
    model.backbone = nn.DataParallel(model.backbone)
    assert len(split_layers(model)) == 6
    assert split_layers(model).names[1] == "backbone.module.layer1.0"
    assert split_layers(model, example=IMAGES).names == split_layers(model).names
    small = nn.ModuleDict()  # nothing that looks like a block, and less than half of everything
    small["features"] = nn.DataParallel(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    small["head"] = nn.Linear(4, 40)
    assert split_layers(small).names == ("features.module.0", "features.module.1", "head")


@importing_the_compiler
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_parts_are_not_compiled_for_the_example():
    def refuse(graph, inputs):
        raise AssertionError("compiled")

    model = ResNet()
    model.layer1[0] = torch.compile(model.layer1[0], backend=refuse)
    model.layer1[1].compile(backend=refuse)
    layers = split_layers(model, example=IMAGES)
    assert layers.names == ("conv1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc")
    with pytest.raises(Exception, match="compiled"):
        model(IMAGES)


@pytest.mark.multiprocess
def test_distributed_data_parallel_is_looked_through():
    program = (
        "import torch, tempfile\n"
        "from torch import nn\n"
        "import torch.distributed as dist\n"
        "from freezeout import split_layers\n"
        "with tempfile.NamedTemporaryFile() as f:\n"
        "    dist.init_process_group('gloo', init_method=f'file://{f.name}.s', rank=0,"
        " world_size=1)\n"
        "    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))\n"
        "    layers = split_layers(nn.parallel.DistributedDataParallel(net))\n"
        "    print(layers.names, layers.model is net)\n"
        "    dist.destroy_process_group()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert ran.stdout == "('0', '2') True\n"


# --- Layers named by the user ------------------------------------------------------------------


def test_layers_by_name_pattern_module_and_group_are_the_same():
    model = ResNet()
    blocks = [*model.layer1, *model.layer2]
    by_name = ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]
    wanted = ("conv1", *by_name, "fc")
    for specs in (
        [["conv1", "bn1"], *by_name, "fc"],
        [("conv1", model.bn1), "layer?.*", "fc"],
        [[model.conv1, model.bn1], *blocks, model.fc],
        (["conv1", "bn1"], "layer1.*", "layer2.[01]".replace("[01]", "?"), model.fc),
    ):
        layers = split_layers(model, layers=specs)
        assert layers.names == wanted
        assert names(layers[0]) == ["conv1.weight", "bn1.weight", "bn1.bias"]
        assert {*map(id, layers[1].modules)} == {*map(id, model.layer1[0].modules())}


def test_a_pattern_stays_within_one_part_of_a_name():
    layers = split_layers(BackboneAndHead(), layers=["backbone.*", "head"])
    assert layers.names == (
        *(f"backbone.{part}" for part in ("conv1", "bn1", "layer1", "layer2")),
        "head",
    )


def test_a_pattern_within_a_group_makes_one_layer():
    layers = split_layers(ResNet(), layers=[["conv1", "bn1", "layer1.*"], "layer2", "fc"])
    assert layers.names == ("layer1.0", "layer2", "fc")
    assert {name.split(".")[0] for name in names(layers[0])} == {"conv1", "bn1", "layer1"}


def test_named_layers_keep_their_order_and_an_example_corrects_it():
    model, specs = mlp(), ["3", "0", "2"]
    assert split_layers(model, layers=specs).names == ("3", "0", "2")
    assert split_layers(model, layers=specs, example=INPUT).names == ("0", "2", "3")


def test_parameters_on_containers_need_not_be_named():
    model = ViT()
    layers = split_layers(model, layers=["patch_embed", "blocks.*", ["norm", "head"]])
    assert layers.index_of(model.cls_token) == 0
    assert len(layers) == 5


def test_named_modules_without_parameters_join_the_next_layer():
    model = nn.Sequential(nn.Dropout(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    layers = split_layers(model, layers=["*"])
    assert layers.names == ("1", "3")
    assert (of(layers, model[0]), of(layers, model[2])) == ([0], [1])


def test_named_layers_may_share_a_module():
    """One activation handed to every block is common, and no overlap."""
    for shared in (nn.ReLU(), nn.Linear(4, 4)):
        model = sharing(shared)
        layers = split_layers(model, layers=["*"])
        assert layers.names == ("0", "1", "2")
        assert of(layers, shared) == [1]


def leftover() -> nn.Module:
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(9)))


@pytest.mark.parametrize(
    ("model", "specs", "error", "message"),
    [
        (
            ResNet,
            ["conv1", "layer.0"],
            SplitError,
            "no module is named 'layer.0'. Did you mean 'layer2.0', 'layer1.0', 'layer2.1'? Names "
            "are those of model.named_modules(); '*' stands for anything within one part of a "
            "dotted name.",
        ),
        (
            mlp,
            ["zzzzzz"],
            SplitError,
            "no module is named 'zzzzzz'. Names are those of model.named_modules(); '*' stands "
            "for anything within one part of a dotted name.",
        ),
        (
            mlp,
            ["", "3"],
            SplitError,
            "no module is named ''. Names are those of model.named_modules(); '*' stands for "
            "anything within one part of a dotted name.",
        ),
        (
            ResNet,
            ["conv1", "bn1", "layer1", "layer1.0", "layer2", "fc"],
            SplitError,
            "layers 'layer1' and 'layer1.0' overlap. "
            "Name each module once, and not both a module and one inside it.",
        ),
        (
            ResNet,
            ["conv1", "bn1", "layer1.0", "layer1", "layer2", "fc"],
            SplitError,
            "layers 'layer1' and 'layer1.0' overlap. "
            "Name each module once, and not both a module and one inside it.",
        ),
        (
            mlp,
            ["0", "0", "2", "3"],
            SplitError,
            "layers '0' and '0' overlap. "
            "Name each module once, and not both a module and one inside it.",
        ),
        (
            mlp,
            [["0", "0"], "2", "3"],
            SplitError,
            "layers '0' and '0' overlap. "
            "Name each module once, and not both a module and one inside it.",
        ),
        (
            mlp,
            ["0", "3"],
            SplitError,
            "layers must cover every parameter, but these modules are in none of them: '2'. "
            "Add them, in order from input to output.",
        ),
        (
            leftover,
            ["0", "1"],
            SplitError,
            "layers must cover every parameter, but these modules are in none of them: '2', '3', "
            "'4', '5', '6' and more. Add them, in order from input to output.",
        ),
        (
            mlp,
            ["0", nn.Linear(2, 2)],
            SplitError,
            "layers holds a Linear that is not part of the model. "
            "Pass modules of the very model that is trained, or their names.",
        ),
        (
            mlp,
            "0",
            TypeError,
            "layers must be a sequence of names or modules, got '0'. Put a single name in a list.",
        ),
        (
            mlp,
            3,
            TypeError,
            "layers must be a sequence of names or modules, got 3. Put a single name in a list.",
        ),
        (
            mlp,
            ["0", 2],
            TypeError,
            "layers must hold names, modules or sequences of these, got 2. "
            "Each entry is one layer, or with a pattern one layer for each match.",
        ),
        (
            mlp,
            ["0", ["2", 3]],
            TypeError,
            "layers must hold names, modules or sequences of these, got 3. "
            "Each entry is one layer, or with a pattern one layer for each match.",
        ),
        (
            mlp,
            [],
            ValueError,
            "layers must name at least two layers, got none. Give them from input to output, or "
            "leave layers out to have them found.",
        ),
        (
            mlp,
            ["0", [], "2", "3"],
            ValueError,
            "layers must not hold an empty sequence. Each entry is one layer: a name, a module, "
            "or a sequence of at least one of these.",
        ),
        (
            mlp,
            [["0", "2", "3"]],
            SplitError,
            "Sequential could not be cut: found one layer ('0'), and at least two are needed, "
            "because the last layer never freezes. Name the layers from input to output, for "
            "example layers=['0', '2', '3'], or restructure the model into submodules.",
        ),
    ],
)
def test_named_layers_that_do_not_fit_say_why(model, specs, error, message):
    with pytest.raises(error) as caught:
        split_layers(model(), layers=specs)
    assert str(caught.value) == message


# --- Models that cannot be cut -----------------------------------------------------------------


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.LazyLinear(2), nn.Linear(2, 2)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return x


class OnlyRoot(Scale):
    pass


ROOT = (
    "OnlyRoot could not be cut: found no layer, and at least two are needed, because the last "
    "layer never freezes. Pass a model that is made of submodules."
)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (
            lambda: nn.Sequential(nn.ReLU(), nn.Flatten()),
            None,
            "Sequential has no parameters, so there is nothing to freeze. "
            "Pass the model that is being trained.",
        ),
        (
            Lazy,
            None,
            "parameter 'a.weight' is lazy and has no shape yet. "
            "Run the model once on an example input before cutting it.",
        ),
        (
            lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
            None,
            "Sequential could not be cut: found one layer ('0'), and at least two are needed, "
            "because the last layer never freezes. Name the layers from input to output, or "
            "restructure the model into submodules.",
        ),
        (OnlyRoot, None, ROOT),
        (
            OnlyRoot,
            INPUT,
            ROOT,
        ),
        (
            lambda: nn.Linear(4, 2),
            None,
            ROOT.replace("OnlyRoot", "Linear"),
        ),
        (
            Unused,
            INPUT,
            "the example runs no module of Unused that has parameters, so it gives no order. "
            "Pass an input as in training, or leave example out.",
        ),
        (
            mlp,
            torch.zeros(2, 5),
            "Sequential does not run on the example: mat1 and mat2 shapes cannot be multiplied "
            "(2x5 and 4x8) (RuntimeError). Pass an input as in training: one tensor, a tuple of "
            "positional or a dict of keyword arguments, on the model's device.",
        ),
    ],
)
def test_a_model_that_cannot_be_cut_says_why_and_what_to_pass(model, example, message):
    with pytest.raises(SplitError) as caught:
        split_layers(model(), example=example)
    assert str(caught.value) == message


@pytest.mark.parametrize("thing", [None, ResNet, "resnet", [nn.Linear(2, 2)]])
def test_only_modules_can_be_cut(thing):
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got \w+\. Pass the"):
        split_layers(thing)


def test_the_cause_of_a_failing_example_is_kept():
    with pytest.raises(SplitError) as caught:
        split_layers(mlp(), example=torch.zeros(2, 5))
    assert isinstance(caught.value.__cause__, RuntimeError)


# --- The example -------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b, self.a = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, *, y=None):
        return self.b(self.a(x) + (0 if y is None else y))


@pytest.mark.parametrize(
    "example", [INPUT, (INPUT,), [INPUT], {"x": INPUT}, {"x": INPUT, "y": INPUT}]
)
def test_the_example_may_be_a_tensor_a_tuple_or_keyword_arguments(example):
    assert split_layers(TwoInputs(), example=example).names == ("a", "b")


class Fussy(nn.Module):
    """Draws random numbers, counts and replaces buffers, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.b = nn.Linear(4, 2)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("cache", torch.zeros(1))
        self.register_buffer("nothing", None)
        self.fail = False

    def forward(self, x):
        self.count.add_(1)
        self.cache = torch.cat([self.cache, torch.rand(1)])
        self.nothing = torch.ones(1)
        x = self.norm(self.a(x)) + self.frozen(x)
        if self.fail:
            raise RuntimeError("on purpose")
        return self.b(x)


def condition(model: nn.Module) -> dict[str, object]:
    state: dict[str, object] = {f"mode of {n}": m.training for n, m in model.named_modules()}
    state |= {f"hooks of {n}": len(m._forward_hooks) for n, m in model.named_modules()}
    state |= {f"pre-hooks of {n}": len(m._forward_pre_hooks) for n, m in model.named_modules()}
    state |= {n: p.detach().clone() for n, p in model.named_parameters()}
    state |= {f"flag of {n}": p.requires_grad for n, p in model.named_parameters()}
    state |= {f"gradient of {n}": copy.deepcopy(p.grad) for n, p in model.named_parameters()}
    state |= {f"buffer {n}": b.clone() for n, b in model.named_buffers()}
    state |= {f"identity of {n}": id(b) for n, b in model.named_buffers()}
    state["numbers"] = torch.random.get_rng_state()
    state["dictionary"] = sorted(model.__dict__)
    state["gradients on"] = torch.is_grad_enabled()
    return state


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    assert before.keys() == after.keys()
    for key, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, after[key]), key  # type: ignore[arg-type]
        else:
            assert value == after[key], key


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_example_leaves_no_trace(fail, training):
    model = Fussy().train(training)
    model.norm.eval()
    model.b(model.a(INPUT)).sum().backward()
    model.fail = fail
    torch.manual_seed(3)
    before = condition(model)
    if fail:
        with pytest.raises(SplitError, match="on purpose"):
            split_layers(model, example=torch.randn(8, 4, generator=torch.Generator()))
    else:
        layers = split_layers(model, example=torch.randn(8, 4, generator=torch.Generator()))
        assert layers.names == ("a", "b")
    assert_same(before, condition(model))
    model.fail = False
    model(torch.randn(8, 4))
    assert model.count == 1  # the check can see a forward pass
    assert len(model.cache) == 2


def test_the_example_runs_without_gradients_and_in_evaluation_mode():
    seen = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.b(self.a(x))
            seen.append((self.training, self.a.training, y.requires_grad))
            return y

    split_layers(Spy().train(), example=INPUT)
    assert seen == [(False, False, False)]


def test_cutting_without_an_example_runs_nothing():
    class NeverRun(Unused):
        def forward(self, x):
            raise AssertionError("ran")

    assert split_layers(NeverRun()).names == ("a", "b")


# --- The table ---------------------------------------------------------------------------------


def test_table():
    layers = split_layers(ResNet())
    assert str(layers) == layers.table()
    assert layers.table() == (
        "layer  name      parameters\n"
        "    0  conv1            116\n"
        "    1  layer1.0         304\n"
        "    2  layer1.1         304\n"
        "    3  layer2.0         944\n"
        "    4  layer2.1       1,184\n"
        "    5  fc                18"
    )


def test_table_with_freeze_times():
    layers = split_layers(ResNet())
    assert layers.table(Schedule().freeze_times(6)) == (
        "layer  name      parameters  freezes at\n"
        "    0  conv1            116      0.5120\n"
        "    1  layer1.0         304      0.5927\n"
        "    2  layer1.1         304      0.6815\n"
        "    3  layer2.0         944      0.7787\n"
        "    4  layer2.1       1,184      0.8847\n"
        "    5  fc                18       never"
    )


def test_table_refuses_times_of_another_number_of_layers():
    with pytest.raises(ValueError, match="times must hold") as caught:
        split_layers(mlp()).table((0.5, 1.0))
    assert str(caught.value) == (
        "times must hold one freeze time for each of the 3 layers, got 2. "
        "Take them from Schedule.freeze_times(3)."
    )


def test_the_same_cut_comes_out_every_time():
    def described(layers: Iterable[Layer]) -> list[object]:
        return [(layer.name, names(layer), len(layer.modules)) for layer in layers]

    for name in MODELS:
        (model, example), (twin, _) = make(name), make(name)
        assert described(split_layers(model)) == described(split_layers(twin))
        assert described(split_layers(model, example=example)) == described(
            split_layers(copy.deepcopy(model), example=example)
        )


# --- Parts that are kept as they are ------------------------------------------------------------


def with_kept(*kept):
    """Six layers, of which some require no gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    for i in kept:
        model[i].requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("kept", "names", "named"),
    [
        ((), "0 1 2 3 4 5", "0 1 2 3 4 5"),
        ((0, 1), "2 3 4 5", "0 1 2 3 4 5"),
        ((2, 4), "0 1 3 5", "0 1 2 3 4 5"),
        ((4, 5), "0 1 2 3", "0 1 2 3"),
        ((0, 3, 5), "1 2 4", "0 1 2 3 4"),
        ((0, 1, 2, 3, 4), "0 1 2 3 4 5", "0 1 2 3 4 5"),  # a head alone: one layer would be none
        ((1, 2, 3, 4, 5), "0 1 2 3 4 5", "0 1 2 3 4 5"),
        (range(6), "0 1 2 3 4 5", "0 1 2 3 4 5"),
    ],
)
def test_what_has_nothing_to_learn_joins_what_has(kept, names, named):
    model = with_kept(*kept)
    layers = split_layers(model)
    assert " ".join(layers.names) == names
    assert " ".join(split_layers(model, layers=[str(i) for i in range(6)]).names) == named
    assert [layer.index for layer in layers] == list(range(len(layers)))
    held = [name for layer in layers for name, _ in layer.parameters]
    assert sorted(held) == sorted(name for name, _ in model.named_parameters())
    assert {id(m) for layer in layers for m in layer.modules} == {id(m) for m in model}


def test_what_an_earlier_run_froze_still_has_something_to_learn():
    model = with_kept()
    Freezer(split_layers(model)).set_depth(3)
    assert split_layers(model).names == ("0", "1", "2", "3", "4", "5")
