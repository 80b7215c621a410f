"""Networks as people bring them: expected cuts, or the words of the warning, and training on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from freezeout import split_layers
from tests.layers.networks import attention, convolutions, hugging_face, kept, sequences
from tests.layers.networks.contract import CONTRACTS, Cut, Leak, Network


def generator(n: int) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def images(n: int, size: int = 8) -> torch.Tensor:
    return torch.randn(4, 3, size, size, generator=generator(n))


def small_images(n: int) -> torch.Tensor:
    return images(n, 4)


def tokens(n: int, length: int = 5) -> torch.Tensor:
    return torch.randint(3, sequences.VOCABULARY, (4, length), generator=generator(n))


def text(n: int) -> dict[str, torch.Tensor]:
    return {"input_ids": tokens(n), "labels": tokens(n)}


def labelled(n: int) -> dict[str, torch.Tensor]:
    return {"input_ids": tokens(n), "labels": tokens(n)[:, 0] % 3}


def speech(n: int) -> dict[str, torch.Tensor]:
    return {"input_features": torch.randn(4, 8, 20, generator=generator(n)), "labels": tokens(n)}


def own(build: Callable[[], Any], *cuts: Cut, batch: Callable[[int], Any] = images) -> Network:
    return Network(build, batch, cuts)


def hub(build: Callable[[], Any], batch: Callable[[int], Any], *cuts: Cut) -> Network:
    return Network(build, batch, cuts, needs="transformers")


RESNET = "conv1 layer1.0 layer1.1 layer2.0 layer2.1 fc"
TRUNK = "trunk.0 trunk.1"
IMAGE = "image.stem image.blocks.0 image.blocks.1 image.proj"
TEXT = "text.embed text.blocks.0 text.blocks.1"
KEPT = ["1", "2.0", "3.0", "4"]
WHISPER = "model.encoder.conv1 model.encoder.conv2 model.encoder.layers.0 model.encoder.layers.1"
WHISPER_DECODER = "model.decoder.embed_positions model.decoder.layers.0 model.decoder.layers.1"
ALBERT = "albert.embeddings albert.encoder.embedding_hidden_mapping_in"
ALBERT_GROUP = "albert.encoder.albert_layer_groups.0"
ALBERT_BLOCK = f"{ALBERT_GROUP}.albert_layers.0"
ALBERT_PARTS = " ".join(f"{ALBERT_BLOCK}.{part}" for part in ("attention", "ffn", "ffn_output"))
ALBERT_OPENED = f"{ALBERT} {ALBERT_PARTS} albert.pooler classifier"
BART_ENCODER, BART_DECODER = (
    " ".join(
        f"model.{part}.{name}"
        for name in ("embed_tokens", "embed_positions", "layers.0", "layers.1")
    )
    for part in ("encoder", "decoder")
)
DEBERTA = "deberta.embeddings deberta.encoder.layer.0 deberta.encoder.layer.1"
T5_ENCODER = "encoder.block.0 encoder.block.1"
T5_DECODER = "decoder.block.0 decoder.block.1"

NETWORKS: dict[str, Network] = {
    "resnet": own(lambda: convolutions.ResNet(convolutions.BasicBlock), Cut(RESNET)),
    "resnet-bottleneck": own(lambda: convolutions.ResNet(convolutions.Bottleneck), Cut(RESNET)),
    "densenet": own(
        convolutions.DenseNet,
        Cut(
            "features.conv0 features.denseblock1.denselayer1 features.denseblock1.denselayer2 "
            "features.transition1.conv features.denseblock2.denselayer1 "
            "features.denseblock2.denselayer2 classifier"
        ),
    ),
    "efficientnet": own(
        convolutions.EfficientNet,
        Cut("features.0.0 features.1.0 features.2.0 features.2.1 features.3.0 classifier.1"),
    ),
    "convnext": own(
        convolutions.ConvNeXt,
        Cut(
            "features.0.0 features.1.0 features.1.1 features.2.1 features.3.0 features.3.1 "
            "classifier.2"
        ),
    ),
    "unet": own(convolutions.UNet, Cut("inc down1 down2 up1 up2 outc")),
    "unet-of-lists": own(
        convolutions.UNetOfLists,
        Cut(
            "ups.0 ups.1 ups.2 ups.3 downs.0 downs.1 bottleneck final_conv",
            how="plain",
            leaks=[Leak(range(1, 7), 0, "'bottleneck.double_conv.4.")],
        ),
        Cut("downs.0 downs.1 bottleneck ups.0 ups.1 ups.2 ups.3 final_conv", how="example"),
    ),
    "vit": own(
        attention.VisionTransformer,
        Cut("conv_proj encoder.layers.encoder_layer_0 encoder.layers.encoder_layer_1 heads.head"),
    ),
    "vit-timm": own(
        attention.TimmVisionTransformer, Cut("patch_embed blocks.0 blocks.1 blocks.2 head")
    ),
    "swin": own(
        attention.SwinTransformer,
        Cut("features.0.0 features.1.0 features.1.1 features.2 features.3.0 features.3.1 head"),
        batch=lambda n: images(n, 16),
    ),
    "lstm": own(sequences.StackedLSTM, Cut("encoder rnn decoder"), batch=tokens),
    "gru-cells": own(sequences.LoopOverCells, Cut("embed cells.0 cells.1 head"), batch=tokens),
    "mixture-of-experts": own(
        sequences.MixtureOfExperts, Cut("embed layers.0 layers.1 head", idle=True), batch=tokens
    ),
    "encoder-decoder": own(
        sequences.EncoderDecoder,
        Cut(
            "encoder.embed_tokens encoder.block.0 encoder.block.1 "
            "decoder.embed_tokens decoder.block.0 decoder.block.1 head"
        ),
        batch=lambda n: (tokens(n), tokens(n + 50)),
    ),
    "two-inputs": own(
        sequences.TwoInputs,
        Cut(f"{IMAGE} {TEXT} {TRUNK} head", how="plain"),
        Cut(f"{TEXT} {IMAGE} {TRUNK} head", how="example"),
        batch=lambda n: (images(n), tokens(n)),
    ),
    "two-inputs-trunk-first": own(
        lambda: sequences.TwoInputs(trunk_first=True),
        Cut(
            f"{TRUNK} {IMAGE} {TEXT} head",
            how="plain",
            leaks=[
                Leak(range(1, 6), 0, "'image.proj.bias' (layer 5)"),
                Leak(range(6, 10), 0, "'text.norm.bias' (layer 9)"),
            ],
        ),
        Cut(f"{TEXT} {IMAGE} {TRUNK} head", how="example"),
        batch=lambda n: (images(n), tokens(n)),
    ),
    "momentum-contrast": own(
        kept.MomentumContrast, Cut(" ".join(f"query.{n}" for n in KEPT)), batch=small_images
    ),
    "fixed-end": own(kept.Perceptual, Cut(" ".join(f"net.{n}" for n in KEPT)), batch=small_images),
    "fixed-tower": own(
        kept.FixedTower, Cut("blocks.0.0 blocks.1.0 blocks.2.0 head"), batch=small_images
    ),
    "hf-bert": hub(
        hugging_face.bert,
        labelled,
        Cut("bert.embeddings bert.encoder.layer.0 bert.encoder.layer.1 bert.pooler classifier"),
    ),
    "hf-vit": hub(
        hugging_face.vit,
        lambda n: {"pixel_values": images(n), "labels": torch.arange(4) % 3},
        Cut("vit.embeddings vit.layers.0 vit.layers.1 classifier"),
    ),
    "hf-gpt2": hub(
        hugging_face.gpt2,
        text,
        Cut(
            "transformer.wpe transformer.h.0 transformer.h.1 lm_head",
            leaks=[Leak(range(1, 4), 0, "'transformer.wte.weight' (layer 3)")],
            tie="'transformer.wte.weight' = 'lm_head.weight' is used by layer 0 but learns with "
            "layer 3",
        ),
    ),
    "hf-gpt2-untied": hub(
        lambda: hugging_face.gpt2(tied=False),
        text,
        Cut("transformer.wte transformer.wpe transformer.h.0 transformer.h.1 lm_head"),
    ),
    "hf-llama": hub(
        hugging_face.llama,
        text,
        Cut("model.embed_tokens model.layers.0 model.layers.1 lm_head"),
    ),
    "hf-mixtral": hub(
        hugging_face.mixtral,
        text,
        Cut("model.embed_tokens model.layers.0 model.layers.1 lm_head"),
    ),
    "hf-t5": hub(
        hugging_face.t5,
        text,
        Cut(
            f"{T5_ENCODER} {T5_DECODER} lm_head",
            leaks=[Leak(range(1, 5), 0, "'shared.weight' (layer 4)")],
            tie="is used by layer 0 but learns with layer 4",
        ),
    ),
    "hf-t5-untied": hub(
        lambda: hugging_face.t5(tied=False),
        text,
        Cut(
            f"{T5_ENCODER} decoder.embed_tokens {T5_DECODER} lm_head",
            leaks=[Leak(range(1, 3), 0, "'shared.weight' (layer 2)")],
            tie="is used by layer 0 but learns with layer 2",
        ),
        Cut(
            f"shared {T5_ENCODER} {T5_DECODER} lm_head",
            how="plain",
            layers=[
                "shared",
                "encoder.block.0",
                ("encoder.block.1", "encoder.final_layer_norm"),
                "decoder.block.*",
                ("decoder.final_layer_norm", "lm_head"),
            ],
        ),
    ),
    "hf-bart-untied": hub(
        hugging_face.bart,
        text,
        Cut(
            f"model.shared {BART_ENCODER} {BART_DECODER} lm_head",
            how="plain",
            leaks=[
                Leak([4], 3, "'model.encoder.layernorm_embedding.bias' (layer 4)"),
                Leak([8, 9], 7, "'model.decoder.layernorm_embedding.bias' (layer 9)"),
            ],
            unseen=True,
        ),
        Cut(f"{BART_ENCODER} {BART_DECODER} lm_head", how="example", idle=True),
    ),
    "hf-albert": hub(
        hugging_face.albert,
        labelled,
        Cut(ALBERT_OPENED, how="plain", leaks=[Leak(range(2, 5), 1, f"'{ALBERT_BLOCK}.")]),
        Cut(f"{ALBERT} {ALBERT_GROUP} albert.pooler classifier", how="example"),
        Cut(
            f"{ALBERT} {ALBERT_BLOCK} albert.pooler classifier",
            layers=[*ALBERT.split(), ALBERT_BLOCK, "albert.pooler", "classifier"],
        ),
    ),
    "hf-deberta-v2": hub(
        hugging_face.deberta,
        labelled,
        Cut(
            f"{DEBERTA} deberta.encoder.rel_embeddings pooler classifier",
            how="plain",
            leaks=[Leak(range(2, 4), 1, "'deberta.encoder.LayerNorm.bias' (layer 3)")],
        ),
        Cut(f"{DEBERTA} pooler classifier", how="example"),
        Cut(
            f"{DEBERTA} pooler classifier",
            layers=[
                (
                    "deberta.embeddings",
                    "deberta.encoder.rel_embeddings",
                    "deberta.encoder.LayerNorm",
                ),
                "deberta.encoder.layer.*",
                "pooler",
                "classifier",
            ],
        ),
    ),
    "hf-whisper": hub(
        hugging_face.whisper,
        speech,
        Cut(
            f"{WHISPER} {WHISPER_DECODER} proj_out",
            leaks=[Leak(range(5, 8), 4, "'model.decoder.embed_tokens.weight' (layer 7)")],
            tie="'model.decoder.embed_tokens.weight' = 'proj_out.weight' is used by layer 4 but "
            "learns with layer 7",
        ),
    ),
    "hf-whisper-untied": hub(
        lambda: hugging_face.whisper(tied=False),
        speech,
        Cut(f"{WHISPER} model.decoder.embed_tokens {WHISPER_DECODER} proj_out"),
    ),
}


def kind(cut: Cut, example: bool) -> str:
    return ("named-" if cut.layers else "") + ("example" if example else "plain")


CASES = [
    pytest.param(name, cut, example, id=f"{name}-{kind(cut, example)}")
    for name, network in NETWORKS.items()
    for cut in network.cuts
    for example in (False, True)
    if cut.how == "both" or (cut.how == "example") == example
]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize(("name", "cut", "example"), CASES)
def test_every_network(name: str, cut: Cut, example: bool, contract: Callable[..., None]) -> None:
    network = NETWORKS[name]
    if network.needs is not None:
        pytest.importorskip(network.needs, reason=f"{name} is built by {network.needs}")
    contract(network, cut, example=example)


def test_experts_that_got_no_token_freeze_with_their_block() -> None:
    """Another batch may send them some, and backward would then run on through frozen layers."""
    network = NETWORKS["mixture-of-experts"]
    model = network.model()
    layers = split_layers(model, example=network.batch(0))
    unused = [name for name in layers.idle if ".experts." in name]
    assert unused == list(layers.idle)
    assert unused
    for name in unused:
        owner = layers.index_of(model.get_parameter(name))
        assert layers.names[owner] == ".".join(name.split(".")[:2])


@pytest.mark.parametrize("example", [False, True])
def test_the_last_norm_of_an_encoder_freezes_with_its_last_block(example: bool) -> None:
    """The embedding that comes next takes numbers of tokens, so the norm cannot feed it."""
    network = NETWORKS["encoder-decoder"]
    model = network.model()
    layers = split_layers(model, example=network.batch(0) if example else None)
    assert layers.names[layers.index_of(model.encoder.final_norm.weight)] == "encoder.block.1"
    assert layers.names[layers.index_of(model.decoder.final_norm.weight)] == "head"


class Stage(nn.Module):
    """A stage as wide as the one before it."""

    def __init__(self, depth: int, *, smaller: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(attention.Block(8) for _ in range(depth)))
        self.downsample = nn.Linear(8, 8) if smaller else nn.Identity()


FIRST_STAGE = "0.blocks.0 0.blocks.1 0.downsample"


@pytest.mark.parametrize(
    ("second", "names"),
    [
        ((3, True), f"{FIRST_STAGE} 1.blocks.0 1.blocks.1 1.blocks.2 1.downsample"),
        ((2, False), f"{FIRST_STAGE} 1.blocks.0 1.blocks.1"),
        ((2, True), "0 1"),  # nothing tells them from two blocks that have lists inside
    ],
)
def test_stages_of_one_width_are_opened_unless_they_are_alike(
    second: tuple[int, bool], names: str
) -> None:
    depth, smaller = second
    model = nn.Sequential(Stage(2, smaller=True), Stage(depth, smaller=smaller))
    assert " ".join(split_layers(model).names) == names


def test_the_page_has_a_row_for_every_network_with_the_number_of_its_layers() -> None:
    page = Path(__file__).parents[2] / "docs" / "networks.md"
    told: dict[str, int] = {}
    for names, count in re.findall(r"\| (`[^|]*`): (\d+) \|", page.read_text()):
        for name in re.findall(r"`([\w-]+)`", names):
            assert name not in told
            told[name] = int(count)
    assert told.keys() == NETWORKS.keys()
    for name, count in told.items():
        best = max(NETWORKS[name].cuts, key=lambda cut: (cut.how == "example", not cut.layers))
        assert len(best.names.split()) == count, name


def test_the_readme_counts_them() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    assert re.findall(r"(\w+) networks\]\(docs/networks\.md\)", readme.read_text()) == [
        str(len(NETWORKS))
    ]
