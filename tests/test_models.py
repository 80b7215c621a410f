"""The networks: published sizes, shapes, structure, initialisation, names and messages."""

import doctest
import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from freezeout import models
from freezeout.models import VGG, DenseNet, ResNet, WideResNet, available, build

# The smallest network of each family that still has every kind of module.
SMALL = {
    "densenet": "densenet-16-4",
    "resnet": "resnet-14-4",
    "vgg": "vgg11-4",
    "wrn": "wrn-16-1",
}
SIZES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (17, 23, 3), (1, 1, 2), (1, 9, 1), (2, 1, 4)]

families = pytest.mark.parametrize("name", SMALL.values(), ids=SMALL.keys())


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(name: str, **options: int) -> nn.Module:
    """Build without memory or random numbers, for counting."""
    with torch.device("meta"):
        return build(name, **{"num_classes": 10, **options})


def settle(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Give BatchNorm running statistics that belong to ``images``, and go to inference mode.

    With fresh statistics a deep network in inference mode can shrink its signal to nothing, and
    comparisons of outputs would hold trivially.
    """
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = None
    with torch.no_grad():
        model.train()(images)
    return model.eval()


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


# --- What the blocks compute ------------------------------------------------------------------


def test_dense_layer_keeps_its_input_and_adds_growth():
    torch.manual_seed(1)
    layer = build("densenet-10-3", num_classes=2).blocks.block1_layer1
    x = torch.randn(2, 6, 4, 4)
    kept = x.clone()
    out = layer(x)
    assert out.shape == (2, 9, 4, 4)
    assert torch.equal(out[:, :6], kept)
    assert torch.equal(x, kept)  # nothing in place: another layer reads it too


def test_transition_normalises_before_its_relu():
    torch.manual_seed(1)
    layer = build("densenet-10-3", num_classes=2).blocks.transition1
    x = torch.randn(2, 9, 4, 4)
    wanted = F.avg_pool2d(F.conv2d(F.relu(layer.norm(x)), layer.conv.weight), 2)
    assert torch.allclose(layer(x), wanted, atol=1e-6)


def test_resnet_shortcut_is_every_second_pixel_and_zero_channels():
    block = build("resnet-8-3", num_classes=2).blocks.block2_layer1
    nn.init.zeros_(block.norm2.weight)  # silences the residual
    x = torch.rand(2, 3, 5, 4)
    kept = x.clone()
    out = block(x)
    assert out.shape == (2, 6, 3, 2)
    assert torch.equal(out[:, :3], kept[:, :, ::2, ::2])
    assert out[:, 3:].eq(0).all()
    assert torch.equal(x, kept)


def test_resnet_activates_after_the_sum_and_wrn_does_not():
    x = -torch.rand(2, 16, 4, 4)
    resnet = build("resnet-8", num_classes=2).blocks.block1_layer1
    nn.init.zeros_(resnet.norm2.weight)
    assert resnet(x).eq(0).all()
    wrn = build("wrn-10-1", num_classes=2).blocks.block1_layer1
    nn.init.zeros_(wrn.conv2.weight)
    assert torch.equal(wrn(x), x)


def test_wrn_projects_the_activated_input_where_the_shape_changes():
    torch.manual_seed(1)
    blocks = build("wrn-16-2", num_classes=2).blocks
    block = blocks.block2_layer1
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 32, 5, 4)
    kept = x.clone()
    wanted = F.conv2d(F.relu(block.norm1(x)), block.shortcut.weight, stride=2)
    assert torch.allclose(block(x), wanted, atol=1e-6)
    assert torch.equal(x, kept)
    assert blocks.block1_layer1.shortcut is not None  # 16 to 32 channels
    assert blocks.block2_layer2.shortcut is None


@families
def test_the_classifier_sees_the_average_over_all_pixels(name):
    torch.manual_seed(0)
    model = build(name, num_classes=3).eval()
    seen = {}
    if isinstance(model, VGG):
        last, activation = model.features, nn.Identity()
    elif isinstance(model, ResNet):
        last, activation = model.blocks, nn.Identity()
    else:
        last, activation = model.norm, nn.ReLU()
    last.register_forward_hook(lambda *call: seen.update(image=activation(call[2])))
    model.classifier.register_forward_pre_hook(lambda *call: seen.update(vector=call[1][0]))
    with torch.no_grad():
        model(torch.randn(2, 3, 70, 52))
    image, vector = seen["image"], seen["vector"]
    assert image.shape[2] * image.shape[3] > 1
    assert vector.abs().max() > 0
    assert torch.allclose(vector, image.flatten(2).sum(2) / (image.shape[2] * image.shape[3]))


@pytest.mark.parametrize("network", [WideResNet, VGG])
def test_dropout_acts_in_training_only(network):
    torch.manual_seed(0)
    depth = {WideResNet: 10, VGG: 11}[network]
    images = torch.randn(4, 3, 32, 32)
    model = network(depth, 4, num_classes=3, dropout=0.5)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
    without = network(depth, 4, num_classes=3, dropout=0.0)
    assert torch.equal(without(images), without(images))


def test_dropout_defaults_are_those_of_the_paper():
    wrn = build("wrn-10-1", num_classes=2)
    assert {m.p for m in wrn.modules() if isinstance(m, nn.Dropout)} == {0.0}
    vgg = build("vgg11-1", num_classes=2)
    assert [m.p for m in vgg.modules() if isinstance(m, nn.Dropout)] == [0.5]


# --- Structure --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (SMALL["densenet"], ["stem", "blocks", "norm", "classifier"]),
        (SMALL["wrn"], ["stem", "blocks", "norm", "classifier"]),
        (SMALL["resnet"], ["stem", "blocks", "classifier"]),
        (SMALL["vgg"], ["features", "classifier"]),
    ],
)
def test_parts_in_order_hold_every_parameter(name, parts):
    model = build(name, num_classes=3)
    assert [key for key, _ in model.named_children()] == parts
    assert not list(model.parameters(recurse=False))
    assert not list(model.buffers(recurse=False))
    held = sum(parameters(getattr(model, part)) for part in parts)
    assert held == parameters(model)


@families
def test_units_run_once_each_in_the_order_of_the_tree(name):
    model = build(name, num_classes=3).eval()
    sequences = [model.features] if "vgg" in name else [model.blocks]
    sequences += [m for m in (model.classifier,) if isinstance(m, nn.Sequential)]
    for sequence in sequences:
        assert not any(isinstance(child, nn.Sequential) for child in sequence)
    ran, wanted = [], []
    for key, child in model.named_children():
        units = list(child.named_children()) if isinstance(child, nn.Sequential) else [("", child)]
        for unit, module in units:
            wanted.append(f"{key}.{unit}")
            module.register_forward_hook(lambda *_, path=f"{key}.{unit}": ran.append(path))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert ran == wanted


def test_block_names():
    def names(model):
        return [key for key, _ in model.named_children()]

    two = [f"block{block}_layer{layer}" for block in (1, 2, 3) for layer in (1, 2)]
    assert names(on_meta("resnet-14").blocks) == two
    assert names(on_meta("wrn-16-1").blocks) == two
    assert names(on_meta("densenet-16-4").blocks) == [
        *two[:2], "transition1", *two[2:4], "transition2", *two[4:],
    ]  # fmt: skip
    assert names(on_meta("resnet-14").stem) == ["conv", "norm"]
    assert names(on_meta("vgg11", image_size=8).features) == [
        "conv1_1", "norm1_1", "relu1_1", "pool1",
        "conv2_1", "norm2_1", "relu2_1", "pool2",
        "conv3_1", "norm3_1", "relu3_1", "conv3_2", "norm3_2", "relu3_2", "pool3",
        "conv4_1", "norm4_1", "relu4_1", "conv4_2", "norm4_2", "relu4_2",
        "conv5_1", "norm5_1", "relu5_1", "conv5_2", "norm5_2", "relu5_2",
    ]  # fmt: skip


@families
def test_no_module_works_in_place(name):
    model = build(name, num_classes=3)
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    # What each unit hands on is still what it was when the forward pass ends.
    handed = []
    for part in model.children():
        for unit in part if isinstance(part, nn.Sequential) else [part]:
            unit.register_forward_hook(lambda *call: handed.append((call[2], call[2].clone())))
    with torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
    assert len(handed) > 3
    assert all(torch.equal(now, then) for now, then in handed)


@families
@pytest.mark.parametrize("size", [8, 1])
def test_gradients_reach_every_parameter(name, size):
    torch.manual_seed(0)
    model = build(name, num_classes=3, image_size=size)
    logits = model(torch.randn(16, 3, size, size))
    F.cross_entropy(logits, torch.arange(16) % 3).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@families
def test_channels_last_gives_the_same_and_is_kept(name):
    torch.manual_seed(0)
    model = build(name, num_classes=5)
    images = torch.randn(4, 3, 32, 32)
    settle(model, images)
    with torch.no_grad():
        wanted = model(images)
    layouts = []
    parts = model.features if isinstance(model, VGG) else model.blocks
    for unit in parts:
        unit.register_forward_hook(
            lambda *call: layouts.append(call[2].is_contiguous(memory_format=torch.channels_last))
        )
    model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        got = model(images.to(memory_format=torch.channels_last))
    assert wanted.std() > 0.01
    assert torch.allclose(got, wanted, atol=1e-4)
    assert layouts
    assert all(layouts)


@families
def test_an_image_is_judged_on_its_own_in_inference(name):
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32)
    model = settle(build(name, num_classes=5), images)
    with torch.no_grad():
        together, alone = model(images), model(images[2:3])
    assert torch.allclose(together[2:3], alone, atol=1e-4)
    assert not torch.allclose(together[1:2], alone, atol=1e-2)


# --- Initialisation ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["densenet-10-24", "resnet-8-32", "vgg11-16", "wrn-10-2"])
def test_initial_weights_follow_the_paper(name):
    torch.manual_seed(0)
    model = build(name, num_classes=10)
    normalised = []
    for key, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            wanted = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            weight = module.weight.detach()
            # Five standard errors of an estimate from that many normal values.
            error = 5 * wanted / math.sqrt(weight.numel())
            assert abs(weight.std().item() - wanted) < error, key
            assert abs(weight.mean().item()) < error, key
            assert module.bias is None, key
            normalised.append(weight.flatten() / wanted)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert module.weight.eq(1).all(), key
            assert module.bias.eq(0).all(), key
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            assert module.weight.abs().max() <= bound, key
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), key
            assert module.bias is None or module.bias.eq(0).all(), key
    # Normal, not uniform with the same deviation, which would have a fourth moment of 1.8.
    assert torch.cat(normalised).pow(4).mean().item() == pytest.approx(3, abs=0.2)
    assert build(name, num_classes=10).training


@families
def test_the_seed_decides_the_weights(name):
    def weights(seed):
        torch.manual_seed(seed)
        return build(name, num_classes=3).state_dict()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if "conv" in key or key.endswith("stem.weight")]
    assert drawn
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


# --- Names ------------------------------------------------------------------------------------


def test_every_example_name_builds():
    lines = available()
    assert [line.split("<")[0] for line in lines] == ["densenet-", "resnet-", "vgg", "wrn-"]
    kinds = [type(on_meta(line.split("such as ")[1])) for line in lines]
    assert kinds == [DenseNet, ResNet, VGG, WideResNet]


def depths(extra: int) -> st.SearchStrategy[int]:
    return st.integers(1, 4).map(lambda layers: 6 * layers + extra)


widths = st.integers(1, 9)


@settings(max_examples=15, deadline=None)
@given(depth=depths(2), width=widths, classes=widths, channels=widths)
def test_resnet_names(depth, width, classes, channels):
    model = on_meta(f"resnet-{depth}-{width}", num_classes=classes, in_channels=channels)
    assert isinstance(model, ResNet)
    layers = (nn.Conv2d, nn.Linear)
    assert sum(isinstance(module, layers) for module in model.modules()) == depth
    assert model.stem.conv.weight.shape == (width, channels, 3, 3)
    assert model.classifier.weight.shape == (classes, 4 * width)


@settings(max_examples=15, deadline=None)
@given(depth=depths(4), widen=widths)
def test_wrn_names(depth, widen):
    model = on_meta(f"wrn-{depth}-{widen}")
    assert isinstance(model, WideResNet)
    shortcuts = 2 if widen == 1 else 3
    weighted = sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model.modules())
    # The authors count the three shortcut convolutions, and no linear layer.
    assert weighted - 1 - shortcuts + 3 == depth
    assert model.classifier.in_features == 64 * widen


@settings(max_examples=15, deadline=None)
@given(depth=depths(4), growth=widths)
def test_densenet_names(depth, growth):
    model = on_meta(f"densenet-{depth}-{growth}")
    assert isinstance(model, DenseNet)
    layers = (nn.Conv2d, nn.Linear)
    assert sum(isinstance(module, layers) for module in model.modules()) == depth
    assert model.stem.out_channels == 2 * growth
    assert model.blocks.block1_layer1.conv2.out_channels == growth


@settings(max_examples=15, deadline=None)
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


@settings(max_examples=80, deadline=None)
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


@settings(max_examples=60, deadline=None)
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
            "depth must be a positive integer, got 0. A VGG has 11, 13, 16 or 19 weighted layers.",
        ),
        (
            "wrn-0-4",
            "depth must be a positive integer, got 0. "
            "A wide ResNet has three blocks of n units with two layers each.",
        ),
        (
            "densenet-76-0",
            "growth must be a positive integer, got 0. "
            "It is the channels each layer adds, such as 12.",
        ),
        (
            "wrn-40-0",
            "widen must be a positive integer, got 0. "
            "It multiplies the channels; 1 is a thin network.",
        ),
        (
            "resnet-20-0",
            "base_width must be a positive integer, got 0. "
            "It is the channels of the first block, 16 by default.",
        ),
        (
            "vgg16-0",
            "base_width must be a positive integer, got 0. "
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
            "num_classes must be a positive integer, got 0. "
            "Give the number of classes in the data.",
        ),
        (
            {"num_classes": 2.0},
            TypeError,
            "num_classes must be a positive integer, got 2.0. "
            "Give the number of classes in the data.",
        ),
        (
            {"num_classes": True},
            TypeError,
            "num_classes must be a positive integer, got True. "
            "Give the number of classes in the data.",
        ),
        (
            {"in_channels": -1},
            ValueError,
            "in_channels must be a positive integer, got -1. "
            "Give the channels of one image: 1 for grey, 3 for colour.",
        ),
        (
            {"image_size": 0},
            ValueError,
            f"image_size must be a positive integer, got 0. {SIZE_ADVICE}",
        ),
        (
            {"image_size": (8, -2)},
            ValueError,
            f"image_size must be a positive integer, got -2. {SIZE_ADVICE}",
        ),
        (
            {"image_size": (0, 8)},
            ValueError,
            f"image_size must be a positive integer, got 0. {SIZE_ADVICE}",
        ),
        (
            {"image_size": (3, 8, 8)},
            ValueError,
            f"image_size must be one number or two, got (3, 8, 8). {SIZE_ADVICE}",
        ),
        (
            {"image_size": "32"},
            TypeError,
            f"image_size must be a positive integer, got '32'. {SIZE_ADVICE}",
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
    assert set(models.__all__) == {*networks, "available", "build", "check_name"}
    assert all(hasattr(models, name) for name in models.__all__)


@pytest.mark.parametrize("part", ["densenet", "registry", "resnet", "vgg", "wide_resnet"])
def test_docstring_examples(part):
    module = importlib.import_module(f"freezeout.models.{part}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
