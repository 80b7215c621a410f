"""Layers that the user names."""

import pytest
from torch import nn

from freezeout import SplitError, split_layers
from tests.layers.convolutional import BackboneAndHead, ResNet
from tests.layers.examples import INPUT, mlp, names, of, sharing
from tests.layers.transformers import ViT


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
            "Pass modules of the model that is trained, or their names.",
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
