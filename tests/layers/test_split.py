"""Where parameters and modules go, and the models that cannot be cut."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import Freezer, FrozenPrefixWarning, SplitError, split_layers
from tests.layers.convolutional import ConvNet, ConvsThenNorms, MobileNet, PreActNet, ResNet
from tests.layers.examples import (
    IMAGES,
    INPUT,
    TOKENS,
    CalledTwice,
    Masked,
    Scale,
    SharedActivation,
    Unused,
    WithAuxiliary,
    make,
    mlp,
    names,
    of,
    sharing,
)
from tests.layers.transformers import GPT, EncoderViT, ViT

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
        + [f"text.{part}" for part in ("embed", "layers.0", "layers.1")]
        + ["image_head"]
    )
    assert layers.index_of(model.text_head.weight) == 6  # both give the output, side by side
    assert layers.index_of(model.text.norm.weight) == 6
    assert layers.index_of(model.image.norm.weight) == 6


def test_what_never_runs_belongs_to_the_last_layer():
    model = WithAuxiliary().train()
    with pytest.warns(FrozenPrefixWarning, match="'auxiliary' looks like a head beside 'head'"):
        assert split_layers(model).names == ("stem", "auxiliary", "body", "head")
    layers = split_layers(model, example=INPUT)
    assert layers.names == ("stem", "body", "head")
    assert layers.idle == ("auxiliary.weight", "auxiliary.bias")
    assert layers.index_of(model.auxiliary.weight) == 2
    assert of(layers, model.auxiliary) == [2]


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


# --- Models that cannot be cut -----------------------------------------------------------------


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.LazyLinear(2), nn.Linear(2, 2)


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


class ReadTables(nn.Module):
    """Weights that are read and never called: positions, queries, a scale, and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.positions = nn.Embedding(5, 8)
        self.encoder = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.queries = nn.Embedding(3, 8)
        self.scale = nn.LayerNorm(8)
        self.decoder = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.matrix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens):
        x = self.embed(tokens) + self.positions.weight[: tokens.shape[1]]
        for layer in self.encoder:
            x = layer(x).relu()
        x = self.queries.weight + x.mean(1, keepdim=True) * self.scale.weight + self.scale.bias
        for layer in self.decoder:
            x = (layer(x) + layer(self.queries.weight)).relu()
        return self.head(F.linear(x, self.matrix.weight, self.matrix.bias))


def test_a_table_that_is_read_belongs_to_its_first_user():
    """No call would show that it is frozen. A matrix that a function takes stays a layer."""
    torch.manual_seed(0)
    model, tokens = ReadTables(), torch.zeros(2, 4, dtype=torch.long)
    layers = split_layers(model, example=tokens)
    assert layers.names == (
        "embed",
        "encoder.0",
        "encoder.1",
        "decoder.0",
        "decoder.1",
        "matrix",
        "head",
    )
    held = {name: layer.name for layer in layers for name, _ in layer.parameters}
    assert held["positions.weight"] == "encoder.0"
    assert held["queries.weight"] == held["scale.weight"] == held["scale.bias"] == "decoder.0"
    assert held["matrix.weight"] == "matrix"
    freezer = Freezer(layers)
    for depth in range(1, len(layers)):
        freezer.set_depth(depth)
        model(tokens).sum().backward()
        assert freezer.verified == (depth < 6), depth
