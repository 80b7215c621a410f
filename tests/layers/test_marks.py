"""Marks of our own freezes: they follow the tensor, and end when the user decides otherwise."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.testing._internal.two_tensor import TwoTensor

from freezeout import FreezeOut, Freezer, FrozenPrefixWarning, split_layers, unfreeze
from freezeout.layers import FROZEN, freeze_parameter, is_ours, thaw_parameters
from tests.contracts import differing, flags, snapshot
from tests.freezing.surgery import learning, linear_net, start, train


def frozen_net(depth: int = 2) -> tuple[Any, Freezer]:
    model = linear_net()
    freezer = Freezer(split_layers(model))
    freezer.set_depth(depth)
    return model, freezer


def one_by_one(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def positional(module: nn.Module) -> None:
    module.weight.requires_grad_(requires_grad=False)
    module.bias.requires_grad_(False)


BY_HAND = [lambda module: module.requires_grad_(False), one_by_one, positional]


@pytest.mark.parametrize("freeze", BY_HAND)
def test_what_the_user_freezes_after_a_run_stays_frozen_in_the_next(
    freeze: Callable[[nn.Module], Any],
) -> None:
    model = linear_net()
    optimizer, scheduler = start(model)
    train(model, scheduler, optimizer, 40)
    assert scheduler.frozen == 2
    freeze(model[0])
    before = snapshot(model)
    with pytest.warns(FrozenPrefixWarning, match="learn again: '2.weight', '2.bias'. If one"):
        optimizer, scheduler = start_all(model)
    train(model, scheduler, optimizer, 40)
    assert scheduler.frozen >= 1
    assert differing(before, snapshot(model)) == [n for n in before if not n.startswith("0.")]
    unfreeze(model)
    assert learning(model) == ["2.weight", "2.bias", "4.weight", "4.bias"]


def start_all(model: nn.Module) -> tuple[Any, FreezeOut]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return optimizer, FreezeOut(optimizer, model, 40, t0=0.5, spacing="linear")


@pytest.mark.parametrize("freeze", BY_HAND)
def test_only_the_part_that_the_user_froze_is_the_users(freeze: Callable[..., Any]) -> None:
    model, freezer = frozen_net()
    freeze(model[2])
    freezer.unfreeze()
    assert learning(model) == ["0.weight", "0.bias", "4.weight", "4.bias"]
    freezer.set_depth(2)
    freezer.unfreeze()
    assert learning(model) == ["0.weight", "0.bias", "4.weight", "4.bias"]


def test_what_the_user_thaws_learns_and_may_freeze_again() -> None:
    model, freezer = frozen_net(1)
    assert model[0].requires_grad_() is model[0]
    assert model[0].weight.requires_grad
    assert "requires_grad_" not in model[0].weight.__dict__
    model[0].requires_grad_(False)  # now it is the user's
    freezer.unfreeze()
    assert not model[0].weight.requires_grad
    model[0].requires_grad_(True)
    freezer.set_depth(1)
    freezer.unfreeze()
    assert all(flags(model).values())


def test_a_method_of_a_frozen_parameter_returns_the_parameter() -> None:
    model, _ = frozen_net(1)
    weight = model[0].weight
    assert weight.requires_grad_(True) is weight
    assert weight.requires_grad_(False) is weight
    assert vars(weight) == {}


def test_parameters_frozen_before_are_not_marked() -> None:
    model = linear_net()
    model[0].weight.requires_grad_(False)
    Freezer(split_layers(model)).set_depth(1)
    assert not is_ours(model, "0.weight", model[0].weight)
    assert is_ours(model, "0.bias", model[0].bias)
    assert not is_ours(model, "2.bias", model[2].bias)


# Copies and files


def through_pickle(model: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(model))


def through_a_file(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle, through_a_file])
def test_a_copy_has_marks_of_its_own(duplicate: Callable[[nn.Module], Any]) -> None:
    model, _ = frozen_net()
    twin = duplicate(model)
    twin[0].requires_grad_(False)  # the user's there, ours here
    unfreeze(twin)
    assert learning(twin) == ["2.weight", "2.bias", "4.weight", "4.bias"]
    assert learning(model) == ["4.weight", "4.bias"]
    unfreeze(model)
    assert all(flags(model).values())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle, through_a_file])
def test_a_copied_part_can_be_unfrozen(duplicate: Callable[[nn.Module], Any]) -> None:
    model, _ = frozen_net()
    part = duplicate(model[0])
    assert not part.weight.requires_grad
    unfreeze(part)
    assert part.weight.requires_grad
    assert not model[0].weight.requires_grad


def test_saved_parameters_load_with_weights_only() -> None:
    model, _ = frozen_net()
    model[0].weight.note = 1  # an attribute of the user's is saved as ever
    named = dict(model.named_parameters())
    for state in (model.state_dict(), model.state_dict(keep_vars=True), named):
        file = io.BytesIO()
        torch.save(state, file)
        assert b"freezeout" not in file.getvalue()
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        assert all(torch.equal(loaded[name], t) for name, t in named.items())
        linear_net().load_state_dict(loaded)
    assert loaded["0.weight"].note == 1
    assert loaded["0.weight"].requires_grad_(True).requires_grad


def test_a_model_saved_whole_by_an_earlier_version_is_unfrozen() -> None:
    """There a module's mark was a list of names."""
    model, _ = frozen_net()
    names = {i: [mark.name for mark in model[i].__dict__[FROZEN]] for i in (0, 2)}
    assert names == {0: ["weight", "bias"], 2: ["weight", "bias"]}
    for i in (0, 2):
        model[i].weight.requires_grad = model[i].bias.requires_grad = False
        for p in model[i].parameters():
            p.__dict__.clear()
        model[i].__dict__[FROZEN] = names[i]
    twin = through_pickle(model)
    assert is_ours(twin, "0.weight", twin[0].weight)
    unfreeze(twin)
    assert all(flags(twin).values())
    assert not [key for m in twin.modules() for key in vars(m) if "freezeout" in key]


def test_marks_leave_nothing_behind_and_keep_nothing_alive() -> None:
    model, freezer = frozen_net()
    freezer.unfreeze()
    assert all(vars(p) == {} for p in model.parameters())
    assert not [key for m in model.modules() for key in vars(m) if "freezeout" in key]
    freezer.set_depth(2)
    weight = weakref.ref(model[0].weight)
    del model, freezer
    gc.collect()
    assert weight() is None


class Marked(nn.Parameter):
    """A parameter of a class of its own, as quantized and sharded ones are."""


def test_parameters_of_other_classes_get_no_attributes() -> None:
    model = linear_net()
    model[0].weight = Marked(model[0].weight.data)
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    assert vars(model[0].weight) == {}
    assert is_ours(model, "0.weight", model[0].weight)
    twin = copy.deepcopy(model)
    for each in (model, twin):
        unfreeze(each)
        assert all(flags(each).values())


@pytest.mark.parametrize("kind", [nn.Parameter, Marked])
def test_marks_follow_a_parameter_to_another_name(kind: type[nn.Parameter]) -> None:
    model = linear_net()
    model[0].weight = kind(model[0].weight.data)
    Freezer(split_layers(model)).set_depth(1)
    model[0].register_parameter("kernel", model[0]._parameters.pop("weight"))
    assert is_ours(model, "0.kernel", model[0].kernel)
    unfreeze(model)
    assert all(flags(model).values())
    assert not [key for m in model.modules() for key in vars(m) if "freezeout" in key]


def test_marks_of_pruned_weights_hold_for_an_assigned_state() -> None:
    model = linear_net()
    Freezer(split_layers(model)).set_depth(1)
    prune.random_unstructured(model[0], "weight", amount=0.5)
    model.load_state_dict({k: t.clone() for k, t in model.state_dict().items()}, assign=True)
    assert not model[0].weight_orig.requires_grad
    unfreeze(model)
    assert all(flags(model).values())


@pytest.mark.parametrize("convert", [nn.Module.double, nn.Module.bfloat16])
def test_a_model_of_wrapped_tensors_is_converted_after_a_freeze(convert: Any) -> None:
    """As sharded and quantized weights are: PyTorch always swaps those."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    for layer in model:
        twins = [layer.weight.detach().clone() for _ in range(2)]
        layer.weight = nn.Parameter(TwoTensor(*twins))
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    convert(model)
    assert {p.dtype for p in model.parameters()} != {torch.float32}
    assert [p.requires_grad for p in model.parameters()] == [False] * 4 + [True] * 2
    freezer.unfreeze()
    assert all(flags(model).values())


@pytest.mark.parametrize("convert", [nn.Module.double, nn.Module.bfloat16])
def test_frozen_parameters_can_be_swapped_in_a_conversion(convert: Any) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        by_hand = model[0].bias.requires_grad_(False)
        for name, parameter in model[0].named_parameters(prefix="0"):
            freeze_parameter(model, name, parameter)
        convert(model)
        weight = model[0].weight
        assert weight.dtype != torch.float32
        assert is_ours(model, "0.weight", weight)
        assert not is_ours(model, "0.bias", by_hand)
        twin = copy.deepcopy(model)
        for each in (twin, model):
            thaw_parameters(each, list(each.named_parameters()))
            assert [p.requires_grad for p in each.parameters()] == [True, False, True, True]
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
