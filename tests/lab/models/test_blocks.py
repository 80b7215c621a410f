"""What the blocks compute, their structure and initial weights."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from freezeout.lab.models import VGG, ResNet, WideResNet, build
from tests.lab.models.families import SMALL, families, on_meta, parameters, settle

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
