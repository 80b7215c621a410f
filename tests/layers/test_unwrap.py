"""Wrapped models and wrapped parts are looked into."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from freezeout import split_layers
from freezeout.layers import unwrap
from tests.layers.convolutional import BackboneAndHead, ResNet
from tests.layers.examples import IMAGES


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
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600
    )
    assert ran.stdout == "('0', '2') True\n"


class PassesOn(nn.Module):
    """Gives away attributes of a part as its own, as wrappers like to."""

    def __init__(self, part):
        super().__init__()
        self.stem, self.part, self.head = nn.Linear(8, 8), part, nn.Linear(2, 2)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("part"), name)

    def forward(self, x):
        return self.head(self.part(self.stem(x)))


@importing_the_compiler
@pytest.mark.parametrize("example", [{}, {"example": torch.ones(2, 8)}], ids=["order", "example"])
@pytest.mark.parametrize("wrapper", ["compile", "compile of DataParallel", "DataParallel"])
def test_a_model_that_passes_on_attributes_of_a_compiled_part_is_cut_as_a_whole(wrapper, example):
    part = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    model = PassesOn(wrapped()[wrapper](part))
    assert unwrap(model) is model
    assert unwrap(model.part) is part
    layers = split_layers(model, **example)
    assert layers.model is model
    assert (layers.names[0], layers.names[-1]) == ("stem", "head")
    owned = {id(p) for layer in layers for _, p in layer.parameters}
    assert owned == {id(p) for p in model.parameters()}
