"""Names of networks, and what is said of wrong ones."""

import doctest
import importlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from freezeout.lab import models
from freezeout.lab.models import VGG, DenseNet, ResNet, WideResNet, available, build
from tests.lab.models.families import families, on_meta

# --- Names ------------------------------------------------------------------------------------


def test_every_example_name_builds():
    lines = available()
    assert [line.split("<")[0] for line in lines] == ["densenet-", "resnet-", "vgg", "wrn-"]
    kinds = [type(on_meta(line.split("such as ")[1])) for line in lines]
    assert kinds == [DenseNet, ResNet, VGG, WideResNet]


def depths(extra: int) -> st.SearchStrategy[int]:
    return st.integers(1, 4).map(lambda layers: 6 * layers + extra)


widths = st.integers(1, 9)


@settings(max_examples=15)
@given(depth=depths(2), width=widths, classes=widths, channels=widths)
def test_resnet_names(depth, width, classes, channels):
    model = on_meta(f"resnet-{depth}-{width}", num_classes=classes, in_channels=channels)
    assert isinstance(model, ResNet)
    layers = (nn.Conv2d, nn.Linear)
    assert sum(isinstance(module, layers) for module in model.modules()) == depth
    assert model.stem.conv.weight.shape == (width, channels, 3, 3)
    assert model.classifier.weight.shape == (classes, 4 * width)


@settings(max_examples=15)
@given(depth=depths(4), widen=widths)
def test_wrn_names(depth, widen):
    model = on_meta(f"wrn-{depth}-{widen}")
    assert isinstance(model, WideResNet)
    shortcuts = 2 if widen == 1 else 3
    weighted = sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model.modules())
    # The authors count the three shortcut convolutions, and no linear layer.
    assert weighted - 1 - shortcuts + 3 == depth
    assert model.classifier.in_features == 64 * widen


@settings(max_examples=15)
@given(depth=depths(4), growth=widths)
def test_densenet_names(depth, growth):
    model = on_meta(f"densenet-{depth}-{growth}")
    assert isinstance(model, DenseNet)
    layers = (nn.Conv2d, nn.Linear)
    assert sum(isinstance(module, layers) for module in model.modules()) == depth
    assert model.stem.out_channels == 2 * growth
    assert model.blocks.block1_layer1.conv2.out_channels == growth


@settings(max_examples=15)
@given(depth=st.sampled_from([11, 13, 16, 19]), width=widths)
def test_vgg_names(depth, width):
    model = on_meta(f"vgg{depth}-{width}")
    assert isinstance(model, VGG)
    layers = (nn.Conv2d, nn.Linear)
    assert sum(isinstance(module, layers) for module in model.modules()) == depth
    assert model.features.conv1_1.out_channels == width
    assert model.classifier.linear1.weight.shape == (8 * width, 8 * width)


def test_widths_left_out_are_those_of_the_papers():
    assert str(on_meta("resnet-20")) == str(on_meta("resnet-20-16"))
    assert str(on_meta("vgg16")) == str(on_meta("vgg16-64"))


@settings(max_examples=80)
@given(
    name=st.sampled_from(["densenet-76-12", "resnet-20", "vgg16", "vgg16-32", "wrn-40-4"]),
    data=st.data(),
)
def test_a_damaged_name_is_refused_and_shown(name, data):
    position = data.draw(st.integers(0, len(name) - 1))
    damages = {
        "doubled dash": name.replace("-", "--") + "-",
        "letter lost": name[1:],
        "upper case": name.capitalize(),
        "leading zero": name.replace("1", "01").replace("4", "04").replace("2", "02"),
        "space": f"{name[:position]} {name[position:]}",
        "line end": f"{name}\n",
        "foreign digit": name[:-1] + "\u0663",
        "long number": f"{name}00000",
        "another number": f"{name}-1-1",
    }
    damaged = damages[data.draw(st.sampled_from(sorted(damages)))]
    with pytest.raises(ValueError, match="unknown network ") as error:
        build(damaged, num_classes=10)
    assert repr(damaged) in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=60)
@given(st.text(alphabet="resntdwvg-0189{}[]", max_size=14))
def test_any_text_is_a_network_or_a_value_error(name):
    try:
        model = on_meta(name)
    except ValueError as error:
        text = str(error)
        assert repr(name) in text or text.startswith(("depth must", "growth must", "widen must"))
    else:
        assert isinstance(model, (DenseNet, ResNet, VGG, WideResNet))


# --- Messages ---------------------------------------------------------------------------------

KNOWN = (
    "the names are densenet-<depth>-<growth>, resnet-<depth>[-<base width>], "
    "vgg<depth>[-<base width>], wrn-<depth>-<widen>."
)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("rsenet-20", "Did you mean 'resnet-20'?"),
        ("ResNet20", "Did you mean 'resnet-20'?"),
        ("resnet-020", "Did you mean 'resnet-20'?"),
        ("vgg-16", "Did you mean 'vgg16'?"),
        ("densenet_76_12", "Did you mean 'densenet-76-12'?"),
        ("densenet-bc-100-12", "Did you mean 'densenet-100-12'?"),
        ("wide-resnet-40-4", "Did you mean 'wrn-40-4'?"),
        (
            "wrn-40",
            "Write it as wrn-<depth>-<widen>, such as 'wrn-40-4', with up to four digits each.",
        ),
        (
            "resnet-12345",
            "Write it as resnet-<depth>[-<base width>], such as 'resnet-20', "
            "with up to four digits each.",
        ),
        ("", "Numbers have one to four digits; 'resnet-20' is a good start."),
        ("perceptron", "Numbers have one to four digits; 'resnet-20' is a good start."),
    ],
)
def test_unknown_names(name, advice):
    with pytest.raises(ValueError, match="unknown") as error:
        build(name, num_classes=10)
    assert str(error.value) == f"unknown network {name!r}: {KNOWN} {advice}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "densenet-75-12",
            "depth must be 6n + 4 with n at least 1 for a DenseNet-BC, got 75. "
            "The nearest depths are 70 and 76.",
        ),
        (
            "wrn-41-4",
            "depth must be 6n + 4 with n at least 1 for a wide ResNet, got 41. "
            "The nearest depths are 40 and 46.",
        ),
        (
            "resnet-18",
            "depth must be 6n + 2 with n at least 1 for a CIFAR ResNet, got 18. "
            "The nearest depths are 14 and 20.",
        ),
        (
            "resnet-2",
            "depth must be 6n + 2 with n at least 1 for a CIFAR ResNet, got 2. "
            "The nearest depth is 8.",
        ),
        (
            "densenet-9-12",
            "depth must be 6n + 4 with n at least 1 for a DenseNet-BC, got 9. "
            "The nearest depth is 10.",
        ),
        (
            "vgg14",
            "depth must be 11, 13, 16 or 19 for a VGG, got 14. The nearest depths are 13 and 16.",
        ),
        ("vgg8", "depth must be 11, 13, 16 or 19 for a VGG, got 8. The nearest depth is 11."),
        ("vgg99", "depth must be 11, 13, 16 or 19 for a VGG, got 99. The nearest depth is 19."),
        (
            "vgg0",
            "depth must be at least 1, got 0. A VGG has 11, 13, 16 or 19 weighted layers.",
        ),
        (
            "wrn-0-4",
            "depth must be at least 1, got 0. "
            "A wide ResNet has three blocks of n units with two layers each.",
        ),
        (
            "densenet-76-0",
            "growth must be at least 1, got 0. It is the channels each layer adds, such as 12.",
        ),
        (
            "wrn-40-0",
            "widen must be at least 1, got 0. It multiplies the channels; 1 is a thin network.",
        ),
        (
            "resnet-20-0",
            "base_width must be at least 1, got 0. "
            "It is the channels of the first block, 16 by default.",
        ),
        (
            "vgg16-0",
            "base_width must be at least 1, got 0. "
            "It is the channels of the first block, 64 by default.",
        ),
    ],
)
def test_impossible_numbers_in_names(name, message):
    with pytest.raises(ValueError, match="got") as error:
        build(name, num_classes=10)
    assert str(error.value) == message


SIZE_ADVICE = "Give the height and width of one image in pixels, or one number for both."


@families
@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"num_classes": 0},
            ValueError,
            "num_classes must be at least 1, got 0. Give the number of classes in the data.",
        ),
        (
            {"num_classes": 2.0},
            TypeError,
            "num_classes must be a whole number of at least 1, got 2.0. "
            "Give the number of classes in the data.",
        ),
        (
            {"num_classes": True},
            TypeError,
            "num_classes must be a whole number of at least 1, got True. "
            "Give the number of classes in the data.",
        ),
        (
            {"in_channels": -1},
            ValueError,
            "in_channels must be at least 1, got -1. "
            "Give the channels of one image: 1 for grey, 3 for colour.",
        ),
        (
            {"image_size": 0},
            ValueError,
            f"image_size must be at least 1, got 0. {SIZE_ADVICE}",
        ),
        (
            {"image_size": (8, -2)},
            ValueError,
            f"image_size must be at least 1, got -2. {SIZE_ADVICE}",
        ),
        (
            {"image_size": (0, 8)},
            ValueError,
            f"image_size must be at least 1, got 0. {SIZE_ADVICE}",
        ),
        (
            {"image_size": (3, 8, 8)},
            ValueError,
            f"image_size must be one number or two, got (3, 8, 8). {SIZE_ADVICE}",
        ),
        (
            {"image_size": "32"},
            TypeError,
            f"image_size must be a whole number of at least 1, got '32'. {SIZE_ADVICE}",
        ),
    ],
)
def test_impossible_arguments(name, options, kind, message):
    with pytest.raises(kind) as error:
        build(name, **{"num_classes": 10, **options})
    assert str(error.value) == message


@pytest.mark.parametrize("network", [WideResNet, VGG])
@pytest.mark.parametrize("dropout", [-0.1, 1.0, math.nan])
def test_impossible_dropout(network, dropout):
    depth = {WideResNet: 10, VGG: 11}[network]
    with pytest.raises(ValueError, match="dropout") as error:
        network(depth, 1, num_classes=2, dropout=dropout)
    assert str(error.value) == (
        f"dropout must lie in [0, 1), got {dropout}. "
        "It is the chance that a value is set to zero in training; 0 turns it off."
    )


def test_a_name_that_is_no_string():
    with pytest.raises(TypeError) as error:
        build(20, num_classes=10)
    assert str(error.value) == "name must be a string, got 20. Give one such as 'resnet-20'."


# --- Surface ----------------------------------------------------------------------------------


def test_public_names():
    networks = {"VGG", "DenseNet", "ResNet", "WideResNet"}
    custom = {"CustomModel", "load_custom", "move_custom"}
    assert set(models.__all__) == {*networks, *custom, "available", "build", "check_name"}
    assert all(hasattr(models, name) for name in models.__all__)


@pytest.mark.parametrize("part", ["densenet", "registry", "resnet", "vgg", "wide_resnet"])
def test_docstring_examples(part):
    module = importlib.import_module(f"freezeout.lab.models.{part}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
