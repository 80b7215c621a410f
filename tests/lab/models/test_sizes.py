"""Published sizes and shapes."""

import pytest
import torch
from torch import nn

from freezeout.lab.models import VGG, DenseNet, build
from tests.lab.models.families import SIZES, SMALL, families, on_meta, parameters

# --- Published sizes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "published", "digits"),
    [
        # Huang et al. 2017, table 2, in millions.
        ("densenet-100-12", 0.8, 1),
        ("densenet-250-24", 15.3, 1),
        ("densenet-190-40", 25.6, 1),
        # Zagoruyko and Komodakis 2016, tables 4 and 5.
        ("wrn-40-1", 0.6, 1),
        ("wrn-40-4", 8.9, 1),
        ("wrn-16-8", 11.0, 1),
        ("wrn-28-10", 36.5, 1),
        # He et al. 2015, table 6.
        ("resnet-20", 0.27, 2),
        ("resnet-32", 0.46, 2),
        ("resnet-44", 0.66, 2),
        ("resnet-56", 0.85, 2),
        ("resnet-110", 1.7, 1),
    ],
)
def test_parameters_match_the_papers_in_millions(name, published, digits):
    assert round(parameters(on_meta(name)) / 1e6, digits) == published


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("densenet-100-12", 769_162),
        ("wrn-40-4", 8_949_210),
        ("wrn-28-10", 36_479_194),
        ("resnet-20", 269_722),
    ],
)
def test_parameters_match_other_implementations_exactly(name, published):
    assert parameters(on_meta(name)) == published


@pytest.mark.parametrize(
    ("name", "published", "convolution_biases"),
    [
        ("vgg11", 132_868_840, 64 + 128 + 2 * 256 + 4 * 512),
        ("vgg13", 133_053_736, 2 * 64 + 2 * 128 + 2 * 256 + 4 * 512),
        ("vgg16", 138_365_992, 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512),
        ("vgg19", 143_678_248, 2 * 64 + 2 * 128 + 4 * 256 + 8 * 512),
    ],
)
def test_vgg_features_match_the_imagenet_networks(name, published, convolution_biases):
    # The usual ImageNet versions with BatchNorm, less their head and the biases BatchNorm undoes.
    imagenet_head = (512 * 7 * 7 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    model = on_meta(name)
    assert parameters(model.features) == published - imagenet_head - convolution_biases
    # 512-512: two hidden layers with BatchNorm, then the classifier.
    assert parameters(model.classifier) == 2 * (512 * 512 + 2 * 512) + 513 * 10


def test_densenet_76_12_has_the_layers_of_the_paper():
    model = on_meta("densenet-76-12")
    channels = [
        child.conv1.in_channels
        for key, child in model.blocks.named_children()
        if key.startswith("block")
    ]
    # 12 layers a block from 24 channels; 168 and 228 are halved between blocks.
    starts = (24, 84, 114)
    assert channels == [start + 12 * layer for start in starts for layer in range(12)]
    assert model.blocks.block2_layer5.conv1.out_channels == 48
    assert model.blocks.block2_layer5.conv2.out_channels == 12
    assert model.norm.num_features == 114 + 144
    assert len(model.blocks) == 36 + 2


def test_class_count_and_channel_count_change_only_the_ends():
    for name in SMALL.values():
        before = dict(on_meta(name).named_parameters())
        after = dict(on_meta(name, num_classes=7, in_channels=5).named_parameters())
        changed = {key for key in before if before[key].shape != after[key].shape}
        assert before.keys() == after.keys()
        first = next(iter(before))
        last = list(before)[-2:]
        assert changed == {first, *last}
        assert after[first].shape[1] == 5
        assert [after[key].shape[0] for key in last] == [7, 7]


# --- Shapes -----------------------------------------------------------------------------------


@families
@pytest.mark.parametrize(("height", "width", "channels"), SIZES)
def test_any_image_gives_logits(name, height, width, channels):
    torch.manual_seed(0)
    model = build(name, num_classes=5, in_channels=channels, image_size=(height, width))
    images = torch.randn(3, channels, height, width)
    trained = model(images)
    assert trained.shape == (3, 5)
    assert trained.isfinite().all()
    with torch.no_grad():
        inferred = model.eval()(images[:1])
    assert inferred.shape == (1, 5)
    assert inferred.isfinite().all()


@families
def test_one_number_is_a_square(name):
    square = build(name, num_classes=3, image_size=8)
    assert str(square) == str(build(name, num_classes=3, image_size=(8, 8)))
    assert str(square) == str(build(name, num_classes=3, image_size=[8, 8]))


@pytest.mark.parametrize(("network", "depth"), [(DenseNet, 10), (VGG, 11)])
def test_height_comes_first(network, depth):
    model = network(depth, 2, num_classes=3, image_size=(1, 64)).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 1, 64)).shape == (1, 3)
        with pytest.raises(RuntimeError, match="too small"):
            model(torch.zeros(1, 3, 64, 1))


@families
def test_image_size_changes_no_parameter(name):
    small, large = on_meta(name, image_size=1), on_meta(name, image_size=64)
    assert [key for key, _ in small.named_parameters()] == [
        key for key, _ in large.named_parameters()
    ]
    assert parameters(small) == parameters(large)


@families
def test_images_larger_than_built_for_still_run(name):
    model = build(name, num_classes=3, image_size=8).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 33, 20)).shape == (1, 3)


def sizes_seen(model: nn.Module, images: torch.Tensor, kinds: tuple[type, ...]) -> list:
    """Image sizes that modules of ``kinds`` put out, in order of execution."""
    seen = []
    for module in model.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda *call: seen.append(tuple(call[2].shape[2:])))
    with torch.no_grad():
        model.eval()(images)
    return seen


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((32, 32), [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]),
        ((28, 28), [(14, 14), (7, 7), (3, 3), (1, 1)]),
        ((8, 8), [(4, 4), (2, 2), (1, 1)]),
        ((17, 23), [(8, 11), (4, 5), (2, 2), (1, 1)]),
        ((1, 5), [(1, 2), (1, 1)]),
        ((1, 1), []),
    ],
)
def test_vgg_pools_until_one_pixel_is_left(size, expected):
    model = build("vgg11-2", num_classes=2, image_size=size)
    assert sizes_seen(model, torch.zeros(1, 3, *size), (nn.MaxPool2d,)) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((32, 32), [(16, 16), (8, 8)]),
        ((17, 23), [(8, 11), (4, 5)]),
        ((3, 5), [(1, 2), (1, 1)]),
        ((1, 1), [(1, 1), (1, 1)]),
    ],
)
def test_densenet_transitions_halve_down_to_one_pixel(size, expected):
    model = build("densenet-10-2", num_classes=2, image_size=size)
    transition = type(model.blocks.transition1)
    assert sizes_seen(model, torch.zeros(1, 3, *size), (transition,)) == expected


@pytest.mark.parametrize("name", ["resnet-8-2", "wrn-10-1"])
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((32, 32), [(32, 32), (16, 16), (8, 8)]),
        ((17, 23), [(17, 23), (9, 12), (5, 6)]),
        ((1, 1), [(1, 1), (1, 1), (1, 1)]),
    ],
)
def test_strided_blocks_halve_rounding_up(name, size, expected):
    model = build(name, num_classes=2)
    block = type(model.blocks.block1_layer1)
    assert sizes_seen(model, torch.zeros(1, 3, *size), (block,)) == expected
