"""What a module is, by what it holds: norms of every make, and maps that are called norms."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import Freezer, split_layers


class NormedLinear(nn.Module):
    """A linear map with weights of length one, whatever its name says."""

    def __init__(self, width_in, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width_in))

    def forward(self, x):
        return F.linear(F.normalize(x, dim=1), F.normalize(self.weight, dim=1))


class WeightNormConv(nn.Module):
    def __init__(self, width_in, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width_in, 1, 1))
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.conv2d(x, F.normalize(self.weight) * self.gain.view(-1, 1, 1, 1))


class NormalizedExperts(nn.Module):
    def __init__(self, width_in, width):
        super().__init__()
        self.bank = nn.Parameter(torch.randn(2, width_in, width))

    def forward(self, x):
        return torch.einsum("bi,eio->bo", F.normalize(x), self.bank)


@pytest.mark.parametrize("with_example", [False, True])
@pytest.mark.parametrize(
    ("kind", "example"),
    [
        (NormedLinear, torch.randn(2, 4)),
        (WeightNormConv, torch.randn(2, 4, 3, 3)),
        (NormalizedExperts, torch.randn(2, 4)),
    ],
)
def test_a_map_with_norm_in_its_name_is_a_layer(kind, example, with_example):
    ends = [nn.Linear(4, 6), nn.Linear(6, 2)]
    if example.ndim > 2:
        ends = [nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1)]
    model = nn.Sequential(ends[0], nn.ReLU(), kind(6, 6), nn.ReLU(), kind(6, 6), ends[1])
    layers = split_layers(model, example=example if with_example else None)
    assert layers.names == ("0", "2", "4", "5")


class BatchNormAct2d(nn.BatchNorm2d):
    """As timm's: a norm that carries what follows it."""

    def __init__(self, width):
        super().__init__(width)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class GroupNormAct(nn.GroupNorm):
    def __init__(self, width):
        super().__init__(2, width)
        self.act = nn.PReLU(width)

    def forward(self, x):
        return self.act(super().forward(x))


class ActivatedBatchNorm(nn.Module):
    """As in-place ABN: no subclass of torch's, no such name."""

    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x):
        statistics = (self.running_mean, self.running_var, self.weight, self.bias)
        return F.leaky_relu(F.batch_norm(x, *statistics, training=self.training))


class LayerNorm2d(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.LayerNorm(width)

    def forward(self, x):
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Root(nn.Module):
    """A root-mean-square norm, and no subclass."""

    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x):
        return x * x.pow(2).mean(1, keepdim=True).add(1e-6).rsqrt() * self.scale


class Affine(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, width, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x):
        return self.alpha * x + self.beta


class FixedBatchNorm(nn.Module):
    """Nothing but statistics, as detectors have it."""

    def __init__(self, width):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(width, 1, 1))
        self.register_buffer("running_var", torch.ones(width, 1, 1))

    def forward(self, x):
        return (x - self.running_mean) / self.running_var


NORMS = [BatchNormAct2d, GroupNormAct, ActivatedBatchNorm, LayerNorm2d, Root, Affine]
NORMS += [FixedBatchNorm, nn.PReLU, nn.BatchNorm2d, nn.InstanceNorm2d]


class Net(nn.Module):
    """The tree of timm's EfficientNet: norms as attributes between convolutions and blocks."""

    def __init__(self, norm):
        super().__init__()
        self.conv_stem, self.bn1 = nn.Conv2d(3, 8, 3), norm(8)
        self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)))
        self.conv_head, self.bn2 = nn.Conv2d(8, 8, 1), norm(8)
        self.classifier = nn.Linear(8, 2)

    def forward(self, x):
        x = self.blocks(self.bn1(self.conv_stem(x)))
        return self.classifier(self.bn2(self.conv_head(x)).mean((2, 3)))


@pytest.mark.parametrize("with_example", [False, True])
@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.__name__)
def test_a_norm_of_any_make_joins_the_convolution_before_it(norm, with_example):
    model, example = Net(norm), torch.randn(2, 3, 9, 9)
    layers = split_layers(model, example=example if with_example else None)
    assert layers.names == ("conv_stem", "blocks.0.0", "conv_head", "classifier")
    if list(model.bn1.parameters()):
        assert layers.index_of(next(model.bn1.parameters())) == 0
        assert layers.index_of(next(model.bn2.parameters())) == 2
    if model.bn1.state_dict():
        owned = {id(module) for module in layers[0].modules}
        assert {id(module) for module in model.bn1.modules()} <= owned


@pytest.mark.parametrize("norm", [BatchNormAct2d, ActivatedBatchNorm, nn.BatchNorm2d])
def test_statistics_of_such_a_norm_stand_still_once_it_is_frozen(norm):
    model, example = Net(norm).train(), torch.randn(4, 3, 9, 9) + 1
    freezer = Freezer(split_layers(model), torch.optim.SGD(model.parameters(), lr=0.1))
    model(example).sum().backward()
    freezer.set_depth(1)
    means = [model.bn1.running_mean.clone(), model.bn2.running_mean.clone()]
    model(example).sum().backward()
    assert torch.equal(model.bn1.running_mean, means[0])
    assert not torch.equal(model.bn2.running_mean, means[1])


def test_a_scale_is_a_layer_where_there_would_be_too_few():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return x * self.scale

    assert split_layers(nn.Sequential(Scale(), nn.Linear(4, 2))).names == ("0", "1")
    three = nn.Sequential(nn.Linear(4, 4), Scale(), nn.Linear(4, 4), Scale(), nn.Linear(4, 2))
    layers = split_layers(three)
    assert layers.names == ("0", "2", "4")
    assert layers.index_of(three[1].scale) == 0


def test_a_linear_map_to_one_feature_is_no_vector():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1), nn.Linear(1, 1))
    assert split_layers(model).names == ("0", "2", "3")
