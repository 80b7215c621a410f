"""What holds for the layers of every model."""

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import nn

from freezeout import Layer, split_layers
from freezeout.lab.models import build
from tests.layers.examples import (
    IN_ORDER,
    MODELS,
    every_model,
    make,
    mlp,
    models_in_order,
    names,
    run,
)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@models_in_order
def test_layers_are_the_sensible_ones_with_and_without_an_example(name):
    model, example = make(name)
    plain, traced = split_layers(model), split_layers(model, example=example)
    assert list(plain.names) == IN_ORDER[name][2]
    assert list(traced.names) == IN_ORDER[name][2]
    assert plain.idle == traced.idle == ()


@pytest.mark.filterwarnings("ignore:'auxiliary' looks like a head")
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
def test_the_labs_networks_have_the_layers_of_the_paper(network, count):
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


@pytest.mark.filterwarnings("ignore:'auxiliary' looks like a head")
def test_the_same_cut_comes_out_every_time():
    def described(layers: Iterable[Layer]) -> list[object]:
        return [(layer.name, names(layer), len(layer.modules)) for layer in layers]

    for name in MODELS:
        (model, example), (twin, _) = make(name), make(name)
        assert described(split_layers(model)) == described(split_layers(twin))
        assert described(split_layers(model, example=example)) == described(
            split_layers(copy.deepcopy(model), example=example)
        )
