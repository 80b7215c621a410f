"""What a watch over frozen bits must see: flags set by hand, writes at a freeze, subclasses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from freezeout import Freezer, MovementWarning, split_layers
from freezeout.freezing.bits import has_bits
from tests.contracts import bits
from tests.freezing.optimizers import make_net, train


def frozen(model: nn.Module, depth: int = 1) -> tuple[Any, Freezer]:
    optimizer = SGD(model.parameters(), lr=0.1)
    freezer = Freezer(split_layers(model), optimizer)
    freezer.set_depth(depth)
    return optimizer, freezer


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(8), nn.BatchNorm1d(8, affine=False)])
def test_statistics_that_move_under_a_flag_set_by_hand_are_told_and_stop(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(8, 8), norm, nn.Dropout(0.1), *make_net())
    optimizer, _ = frozen(model)
    train(model, optimizer, stop=3)
    for module in model.modules():
        module.training = True
    with pytest.warns(MovementWarning, match=r"'1.running_mean', '1.running_var'"):
        train(model, optimizer, stop=1)
    assert not any(module.training for module in model[:2])
    assert model[3].training
    before = bits(model[1].running_mean)
    train(model, optimizer, stop=5)
    assert torch.equal(before, bits(model[1].running_mean))


def test_flags_set_by_hand_before_a_pass_without_statistics_are_put_back() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)), *make_net())
    optimizer, _ = frozen(model)
    model[0][1].training = True
    train(model, optimizer, stop=1)
    assert not model[0][1].training


def through_data(p: torch.Tensor) -> None:
    p.data[0] += 1e-3


def in_place(p: torch.Tensor) -> None:
    with torch.no_grad():
        p.add_(1e-3)


@pytest.mark.parametrize("write", [through_data, in_place])
@pytest.mark.parametrize("settle", [False, True])
def test_a_write_just_before_a_freeze_is_not_taken_for_right(write: Any, settle: bool) -> None:
    model = make_net()
    optimizer, freezer = frozen(model)
    train(model, optimizer, stop=20)  # far from the next look at everything
    write(model[0].weight)
    freezer.settle() if settle else freezer.set_depth(2)
    with pytest.warns(MovementWarning, match=r"moved: '0.weight'") as caught:
        train(model, optimizer, stop=3)
    assert len(caught) == 1


def test_what_learned_and_freezes_again_has_not_moved() -> None:
    model = make_net()
    optimizer, freezer = frozen(model, 2)
    freezer.check = False
    train(model, optimizer, stop=20)
    model[2].weight.requires_grad = True
    before = bits(model[2].weight)
    with pytest.warns(MovementWarning, match="to require a gradient again") as caught:
        train(model, optimizer, stop=1)
    assert not torch.equal(before, bits(model[2].weight))
    freezer.settle()
    train(model, optimizer, stop=3)
    freezer.look()
    assert len(caught) == 1


class Named(nn.Parameter):
    """A parameter with attributes of its own, as libraries have them."""


class Computing(nn.Parameter):
    """A parameter with its own idea of every function."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*(a.data if type(a) is cls else a for a in args), **(kwargs or {}))


def test_subclasses_that_are_plain_tensors_to_every_operator_can_be_read() -> None:
    assert has_bits(Named(torch.zeros(2)))
    assert not has_bits(Computing(torch.zeros(2)))
    assert not has_bits(nn.UninitializedParameter())


@pytest.mark.parametrize("write", [through_data, in_place])
def test_writes_to_a_subclass_of_a_parameter_are_told(write: Any) -> None:
    model = make_net()
    model[0].weight = Named(model[0].weight.detach())
    optimizer, freezer = frozen(model)
    train(model, optimizer, stop=3)
    freezer.look()
    write(model[0].weight)
    with pytest.warns(MovementWarning, match=r"moved: '0.weight'"):
        train(model, optimizer, stop=3)
