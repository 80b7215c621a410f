"""Models that change after they were cut: what is frozen stands still, what should learn learns."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from freezeout import FreezeOut, Freezer, FrozenPrefixWarning, split_layers, unfreeze
from tests.contracts import differing, flags, modes, snapshot
from tests.freezing.surgery import Convolved, learning, linear_net, start, train

SHAPE = (8, 2, 8)


class OtherNorm(nn.BatchNorm1d):
    """Stands for SyncBatchNorm, which needs a GPU to run."""


def with_other_norms(model: nn.Module, *, keep_parameters: bool = True) -> None:
    """Replace norms as ``convert_sync_batchnorm`` does: the same parameters in new modules."""
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.BatchNorm1d:
                new = OtherNorm(norm.num_features)
                new.training = norm.training
                if keep_parameters:
                    new.weight, new.bias = norm.weight, norm.bias
                    new.running_mean, new.running_var = norm.running_mean, norm.running_var
                setattr(parent, name, new)


def assert_frozen_stand_still(
    model: nn.Module, scheduler: FreezeOut, optimizer: Any, frozen: str
) -> None:
    """Train on, and compare by names: those that begin with `frozen` stand still, others move."""
    before = snapshot(model)
    train(model, scheduler, optimizer, 3, shape=SHAPE if "Conv" in repr(model) else (8, 8))
    assert scheduler.freezer.verified
    changed = differing(before, snapshot(model))
    assert not [name for name in changed if name.startswith(frozen)]
    parameters = dict(model.named_parameters())
    rest = [n for n in parameters if not n.startswith(frozen)]
    assert rest
    assert [n for n in rest if n in changed] == rest


@pytest.mark.parametrize("keep_parameters", [True, False])
@pytest.mark.parametrize("when", ["before", "right after"])
def test_replaced_norms_freeze_with_their_layer(when: str, keep_parameters: bool) -> None:
    model = Convolved()
    freezer = Freezer(split_layers(model), strict=True)
    if when == "before":
        with_other_norms(model, keep_parameters=keep_parameters)
    freezer.set_depth(1)
    if when == "right after":
        with_other_norms(model, keep_parameters=keep_parameters)
    x = torch.randn(SHAPE)
    before = snapshot(model)
    model.train()(x).sum().backward()
    changed = differing(before, snapshot(model))
    assert not [name for name in changed if name.startswith("0.")]
    assert [name for name in changed if name.startswith("1.")]
    assert freezer.verified
    assert not model[0][1].training
    assert model[1][1].training
    unfreeze(model)
    assert len(learning(model)) == len(list(model.parameters()))
    assert all(modes(model.train()).values())


def test_a_replaced_norm_gets_the_mode_back_that_is_asked_for() -> None:
    model = Convolved()
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    with_other_norms(model)
    freezer.settle()
    assert not model[0][1].training
    freezer.unfreeze()
    assert all(modes(model).values())
    assert all(flags(model).values())


def test_a_replaced_block_freezes_in_the_place_of_the_old_one() -> None:
    model = linear_net()
    freezer = Freezer(split_layers(model), strict=True)
    model[0] = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 16))
    freezer.set_depth(1)
    model(torch.randn(4, 8)).sum().backward()
    assert freezer.verified
    assert learning(model) == ["2.weight", "2.bias", "4.weight", "4.bias"]
    assert freezer.layers.index_of(model[0][2].weight) == 0
    assert freezer.layers[0].parameters[0][0] == "0.0.weight"
    freezer.unfreeze()
    assert all(flags(model).values())


def test_a_new_part_outside_all_layers_never_freezes() -> None:
    model = nn.Sequential()
    model.add_module("a", nn.Linear(4, 4))
    model.add_module("b", nn.Linear(4, 4))
    layers = split_layers(model)
    freezer = Freezer(layers)
    model.add_module("c", nn.Linear(4, 2))
    freezer.set_depth(1)
    assert learning(model) == ["b.weight", "b.bias", "c.weight", "c.bias"]
    assert layers.index_of(model.c.weight) == 1


class Adapted(nn.Module):
    """A low-rank adapter around a linear map, as fine-tuning libraries put it there."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize("while_frozen", [False, True])
def test_an_adapter_freezes_with_the_layer_it_is_in(while_frozen: bool) -> None:
    model = linear_net()
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1 if while_frozen else 0)
    model[0], model[2] = Adapted(model[0]), Adapted(model[2])
    if not while_frozen:
        freezer.set_depth(1)
    model(torch.randn(4, 8)).sum().backward()
    assert freezer.verified
    frozen = [name for name, flag in flags(model).items() if not flag]
    assert frozen == ["0.base.weight", "0.base.bias", "0.down.weight", "0.up.weight"]
    assert model[0].up.weight.grad is None
    assert model[2].up.weight.grad is not None
    freezer.unfreeze()
    assert all(flags(model).values())


def test_an_adapter_around_weights_frozen_by_hand_learns_until_its_layer_freezes() -> None:
    model = linear_net()
    for i in (0, 2):
        model[i] = Adapted(model[i].requires_grad_(False))
    optimizer, scheduler = start(model)
    train(model, scheduler, optimizer, 20)
    assert scheduler.frozen == 1
    assert learning(model) == ["2.down.weight", "2.up.weight", "4.weight", "4.bias"]
    unfreeze(model)
    assert "0.up.weight" in learning(model)
    assert "0.base.weight" not in learning(model)


@pytest.mark.parametrize("frozen_before", [0, 1])
def test_parameters_of_an_assigned_state_freeze_in_the_place_of_the_old(frozen_before: int) -> None:
    model = linear_net()
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(frozen_before)
    old = model[0].weight
    state = {name: t.clone() for name, t in linear_net().state_dict().items()}
    model.load_state_dict(state, assign=True)
    assert model[0].weight is not old
    freezer.set_depth(2)
    model(torch.randn(4, 8)).sum().backward()
    assert freezer.verified
    assert learning(model) == ["4.weight", "4.bias"]
    assert freezer.layers.index_of(model[0].weight) == 0
    assert freezer.layers.index_of(old) is None
    freezer.unfreeze()
    assert all(flags(model).values())


@pytest.mark.parametrize("convert", ["half", "double", "to"])
def test_a_model_of_another_data_type_stays_frozen(convert: str) -> None:
    model = linear_net()
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    {"half": model.half, "double": model.double, "to": lambda: model.to(torch.bfloat16)}[convert]()
    dtype = model[0].weight.dtype
    assert dtype != torch.float32
    model(torch.randn(4, 8, dtype=dtype)).sum().backward()
    assert freezer.verified
    assert model[0].weight.grad is None
    assert model[2].weight.grad is not None
    unfreeze(model)
    assert all(flags(model).values())


# Pruned and parametrized weights


def pruned(module: nn.Module) -> None:
    prune.l1_unstructured(module, "weight", amount=0.3)


def weight_normed(module: nn.Module) -> None:
    parametrizations.weight_norm(module)


def spectral_normed(module: nn.Module) -> None:
    parametrizations.spectral_norm(module)


def old_weight_normed(module: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(module)


CHANGES = [pruned, weight_normed, spectral_normed, old_weight_normed]


@pytest.mark.parametrize("change", CHANGES)
def test_weights_changed_while_frozen_learn_again(change: Callable[[nn.Module], None]) -> None:
    model = linear_net()
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    change(model[0])
    change(model[2])
    freezer.set_depth(2)
    before = snapshot(model)
    model.train()(torch.randn(4, 8)).sum().backward()
    assert differing(before, snapshot(model)) == []
    assert freezer.verified
    assert learning(model) == ["4.weight", "4.bias"]
    copies = [copy.deepcopy(model)]
    if not parametrize.is_parametrized(model[0]):  # PyTorch pickles no other
        copies.append(pickle.loads(pickle.dumps(model)))
    for each in copies:
        unfreeze(each)
        assert all(flags(each).values())
    assert learning(model) == ["4.weight", "4.bias"]
    freezer.set_depth(1)
    assert {name.partition(".")[0] for name in learning(model)} == {"2", "4"}
    freezer.unfreeze()
    assert all(flags(model).values())


@pytest.mark.parametrize("change", CHANGES)
def test_retraining_after_such_a_change(change: Callable[[nn.Module], None]) -> None:
    model = linear_net()
    optimizer, scheduler = start(model)
    train(model, scheduler, optimizer, 40)
    assert scheduler.frozen == 2
    for i in (0, 2):
        change(model[i])
    before = snapshot(model)
    unfreeze(model)
    optimizer, scheduler = start(model)
    train(model, scheduler, optimizer, 40)
    still = set(before) - set(differing(before, snapshot(model)))
    assert [name for name in still if not name.endswith("_mask")] == []
    assert scheduler.frozen == 2


def test_pruning_that_is_made_permanent_while_frozen() -> None:
    model = linear_net()
    pruned(model[0])
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    prune.remove(model[0], "weight")
    assert "0.weight" in flags(model)
    unfreeze(model)
    assert all(flags(model).values())


def test_a_parametrization_that_is_removed_while_frozen() -> None:
    model = linear_net()
    spectral_normed(model[0])
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    parametrize.remove_parametrizations(model[0], "weight")
    assert learning(model) == ["2.weight", "2.bias", "4.weight", "4.bias"]
    freezer.unfreeze()
    assert all(flags(model).values())


# Between two runs


def test_a_model_of_which_half_is_new_in_the_second_run() -> None:
    model = linear_net()
    optimizer, scheduler = start(model)
    train(model, scheduler, optimizer, 40)
    model[4] = nn.Linear(16, 2)
    model[2] = nn.Linear(16, 16)
    before = snapshot(model)
    with pytest.warns(FrozenPrefixWarning, match="learn again: '0.weight', '0.bias'. If one"):
        optimizer, scheduler = start_all(model)
    train(model, scheduler, optimizer, 40)
    assert scheduler.frozen == 2
    assert differing(before, snapshot(model)) == list(before)


def start_all(model: nn.Module) -> tuple[Any, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return optimizer, FreezeOut(optimizer, model, 40, t0=0.5, spacing="linear")


def test_layers_cut_before_a_change_may_be_used_after_it() -> None:
    model = Convolved()
    layers = split_layers(model)
    with_other_norms(model, keep_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, 40, layers=layers, t0=0.5, spacing="linear")
    train(model, scheduler, optimizer, 20, shape=SHAPE)
    assert_frozen_stand_still(model, scheduler, optimizer, "0.")


def test_an_optimizer_of_assigned_parameters_belongs_to_the_model() -> None:
    model = linear_net()
    layers = split_layers(model)
    state = {name: t.clone() for name, t in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, 40, layers=layers, t0=0.5, spacing="linear")
    before = snapshot(model)
    train(model, scheduler, optimizer, 20)
    assert scheduler.frozen == 1
    assert differing(before, snapshot(model)) == list(before)
    assert_frozen_stand_still(model, scheduler, optimizer, "0.")
