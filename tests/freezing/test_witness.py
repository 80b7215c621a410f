"""The bits of what is frozen are watched, whoever writes to them; right writes are no movement."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from freezeout import FreezeOut, Freezer, MovementError, MovementWarning, split_layers
from freezeout.freezing import witness
from tests.contracts import bits
from tests.freezing.optimizers import SETTINGS, STEPS, bits_at_the_freeze, make_net, moved, train

# --- Who moved it ------------------------------------------------------------------------------


def frozen(model: nn.Module, depth: int = 1, **options: Any) -> tuple[Any, Freezer]:
    optimizer = SGD(model.parameters(), lr=0.1)
    freezer = Freezer(split_layers(model), optimizer, **options)
    freezer.set_depth(depth)
    return optimizer, freezer


@torch.no_grad()
def in_place(p: torch.Tensor) -> None:
    p.add_(1e-3)


def through_data(p: torch.Tensor) -> None:
    p.data[0] += 1e-3


def of_storage(p: torch.Tensor) -> None:
    p.data = p.data + 1e-3


@pytest.mark.parametrize("write", [in_place, through_data, of_storage])
def test_any_write_is_told_by_name(write: Callable[[torch.Tensor], None]) -> None:
    model = make_net()
    optimizer, freezer = frozen(model, 2)
    train(model, optimizer, stop=3)
    write(model[2].weight)
    with pytest.warns(MovementWarning, match=r"moved: '2.weight'\. Something outside") as caught:
        train(model, optimizer, stop=5)
    assert len(caught) == 1
    train(model, optimizer, stop=10)  # once
    assert freezer.depth == 2


def test_a_write_in_place_is_told_at_the_next_update() -> None:
    model = make_net()
    optimizer, _ = frozen(model)
    train(model, optimizer, stop=20)  # far from the next look at everything
    in_place(model[0].bias)
    with pytest.warns(MovementWarning, match=r"moved: '0.bias'"):
        train(model, optimizer, stop=1)


def test_a_last_look_sees_everything() -> None:
    model = make_net()
    optimizer, freezer = frozen(model)
    train(model, optimizer, stop=20)
    freezer.look()
    through_data(model[0].weight)
    train(model, optimizer, stop=1)
    with pytest.warns(MovementWarning, match=r"moved: '0.weight'"):
        freezer.look()


def test_only_what_is_new_is_summed_up_at_a_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    summed: list[int] = []
    real = witness.digests
    monkeypatch.setattr(witness, "digests", lambda found: summed.append(len(found)) or real(found))
    model = make_net()
    _, freezer = frozen(model)
    freezer.set_depth(2)
    assert summed == [2, 2]


def test_strict_raises() -> None:
    model = make_net()
    optimizer, _ = frozen(model, strict=True)
    train(model, optimizer, stop=3)
    in_place(model[0].weight)
    with pytest.raises(MovementError, match=r"moved: '0.weight'"):
        train(model, optimizer, stop=1)


def test_it_can_be_switched_off() -> None:
    model = make_net()
    optimizer, freezer = frozen(model, witness=False)
    in_place(model[0].weight)
    train(model, optimizer, stop=5)
    freezer.look()
    assert freezer.depth == 1
    other = make_net()
    adam = Adam(other.parameters())
    scheduler = FreezeOut(adam, other, STEPS, witness=False, **SETTINGS)
    assert scheduler.freezer._keeper._witness is None


class Counting(nn.Module):
    """Update a buffer in every forward pass, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 8))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return x * self.weight


def test_buffers_that_a_module_goes_on_updating_are_told() -> None:
    model = nn.Sequential(Counting(), *make_net())
    optimizer, _ = frozen(model)
    with pytest.warns(MovementWarning, match=r"moved: '0.seen'\. Counting updates its buffers"):
        train(model, optimizer, stop=2)


class OwnNorm(nn.BatchNorm1d):
    """Takes the place of another, and its statistics."""


@pytest.mark.parametrize("kind", [nn.SyncBatchNorm, nn.BatchNorm1d, OwnNorm])
def test_statistics_that_a_new_norm_goes_on_gathering_are_told_as_such(kind: Any) -> None:
    """Until it has been found, or is told of: it is no case of a stray write."""
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), *make_net())
    optimizer, freezer = frozen(model)
    train(model, optimizer, stop=1)
    old, model[0][1] = model[0][1], kind(8)
    model[0][1].__dict__["_buffers"] = dict(old._buffers)
    cause = r"BatchNorm1d was replaced in the model.*Call scheduler\.freezer\.settle\(\)"
    with pytest.warns(MovementWarning, match=rf"moved: '0\.1\.running_mean'.*{cause}"):
        train(model, optimizer, stop=2)
    freezer.settle()
    kept = model[0][1].running_mean.clone()
    train(model, optimizer, stop=4)
    assert torch.equal(kept, model[0][1].running_mean)


def test_buffers_of_active_layers_may_change() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Counting(), nn.BatchNorm1d(8), *make_net())
    model[1].eval()
    optimizer, freezer = frozen(model)
    before = model[2].running_mean.clone()
    train(model, optimizer, stop=5)
    freezer.look()
    assert not torch.equal(before, model[2].running_mean)


class Renormalising(nn.Module):
    """Write to its own weight in every forward pass, as an embedding with `max_norm` does."""

    max_norm = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.weight.mul_(0.999)
        return x * self.weight.detach().clone() if not self.training else x * self.weight.clone()


def test_weights_that_a_module_renormalises_are_told_with_what_to_do() -> None:
    model = nn.Sequential(Renormalising(), *make_net())
    optimizer, _ = frozen(model)
    with pytest.warns(MovementWarning, match=r"'0.weight'\. Renormalising .*set max_norm to None"):
        train(model, optimizer, stop=2)


# --- Right writes ------------------------------------------------------------------------------


def same_again(model: nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.clone())


def swapped_and_back(model: nn.Module) -> None:
    kept = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)
        for p, old in zip(model.parameters(), kept, strict=True):
            p.copy_(old)


def loaded(model: nn.Module) -> None:
    model.load_state_dict({k: v + 0.01 for k, v in model.state_dict().items()})


def loaded_around(model: nn.Module) -> None:
    around = nn.ModuleDict({"net": model})
    around.load_state_dict({k: v + 0.01 for k, v in around.state_dict().items()})


def to_double_and_back(model: nn.Module) -> None:
    model.double().float()


def to_another_layout(model: nn.Module) -> None:
    for p in model.parameters():
        p.data = p.data.t().contiguous().t()


def to_bfloat16(model: nn.Module) -> None:
    model.bfloat16().float()  # other bits in the same type, so it is loaded again
    loaded(model)


@pytest.mark.parametrize(
    "write",
    [
        same_again,
        swapped_and_back,
        loaded,
        loaded_around,
        to_double_and_back,
        to_another_layout,
        to_bfloat16,
    ],
)
def test_right_writes_are_no_movement(write: Callable[[nn.Module], None]) -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    train(model, optimizer, scheduler, stop=22)
    write(model)
    before = bits(model[0].weight)
    train(model, optimizer, scheduler, start=22)
    scheduler.freezer.look()
    assert scheduler.frozen == 2
    assert torch.equal(before, bits(model[0].weight))


def test_another_type_from_now_on_is_no_movement() -> None:
    model = make_net()
    optimizer, freezer = frozen(model)
    train(model, optimizer, stop=3)
    model.to(torch.bfloat16)
    freezer.look()
    freezer.look()
    in_place(model[0].weight)
    with pytest.warns(MovementWarning, match=r"moved: '0.weight'"):
        freezer.look()


def test_what_learns_again_may_move() -> None:
    model = make_net()
    optimizer, freezer = frozen(model, 2)
    train(model, optimizer, stop=3)
    freezer.set_depth(1)
    before = model[2].weight.detach().clone()
    train(model, optimizer, stop=3)
    freezer.look()
    assert not torch.equal(before, model[2].weight)


def test_what_is_thawed_by_hand_at_a_rate_of_zero_is_not_told() -> None:
    model = make_net()
    optimizer, _ = frozen(model, 2)
    train(model, optimizer, stop=1)
    model[2].weight.requires_grad_(True)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = model[2].weight.detach().clone()
    train(model, optimizer, stop=3)
    assert torch.equal(before, model[2].weight)


@pytest.mark.parametrize("inside", [False, True])
def test_a_state_loaded_into_a_part_is_no_movement(inside: bool) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), *make_net())
    optimizer, freezer = frozen(model)
    train(model, optimizer, stop=3)
    part = model[0][0] if inside else model[0]
    part.load_state_dict({k: v + 1 for k, v in part.state_dict().items()})
    train(model, optimizer, stop=3)
    freezer.look()
    in_place(model[0][0].weight)
    with pytest.warns(MovementWarning, match="'0.0.weight'"):
        train(model, optimizer, stop=1)


def test_weights_and_statistics_that_are_copied_back_are_not_laid_on_the_norm() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), *make_net())
    optimizer, freezer = frozen(model)
    assert freezer.layers[0].modules[-1] is model[1]
    with torch.no_grad():
        for tensor in (model[0].weight, model[1].running_mean):
            tensor.add_(0.5)
    with pytest.warns(MovementWarning, match="Something outside the optimizer's step wrote to"):
        train(model, optimizer, stop=1)


def test_what_the_user_froze_is_moved_by_the_user() -> None:
    """A target network in a frozen layer, which follows the online network by an average."""
    model = nn.Sequential(nn.Linear(8, 8), *make_net())
    model[0].weight.requires_grad_(False)
    optimizer, freezer = frozen(model)
    with torch.no_grad():
        model[0].weight.mul_(0.99)
    train(model, optimizer, stop=3)
    freezer.look()
    assert freezer.account().names("frozen by hand") == ("0.weight",)
    freezer.unfreeze()
    train(model, optimizer, stop=3)
    freezer.look()


def test_what_the_user_thaws_may_move_and_is_told() -> None:
    model = make_net()
    optimizer, freezer = frozen(model, 2)
    freezer.check = False
    train(model, optimizer, stop=3)
    model[2].weight.requires_grad_(True)
    before = model[2].weight.detach().clone()
    with pytest.warns(MovementWarning, match="to require a gradient again, and learn: '2.weight'"):
        train(model, optimizer, stop=3)
    train(model, optimizer, stop=3)  # once is enough
    freezer.look()
    assert not torch.equal(before, model[2].weight)
    bias = model[2].bias.detach().clone()
    freezer.settle()
    kept = model[2].weight.detach().clone()
    train(model, optimizer, stop=3)
    assert torch.equal(kept, model[2].weight)
    assert torch.equal(bias, model[2].bias)


def test_copies_and_pickles_of_the_model_are_watched_by_nobody() -> None:
    model = make_net()
    optimizer, freezer = frozen(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.load_state_dict({k: v + 1 for k, v in twin.state_dict().items()})
        in_place(twin[0].weight)
    train(model, optimizer, stop=3)
    freezer.look()
    freezer.unfreeze()
    assert not model._load_state_dict_post_hooks


def test_resume_through_fresh_objects_tells_nothing() -> None:
    def make() -> tuple[Any, Any, FreezeOut]:
        model = make_net()
        optimizer = Adam(model.parameters(), lr=0.01)
        return model, optimizer, FreezeOut(optimizer, model, STEPS, **SETTINGS)

    model, optimizer, scheduler = make()
    train(model, optimizer, scheduler, stop=25)
    saved = copy.deepcopy([part.state_dict() for part in (model, optimizer, scheduler)])
    for order in ((0, 1, 2), (2, 1, 0)):
        parts = make()
        for i in order:
            parts[i].load_state_dict(copy.deepcopy(saved[i]))
        at = {n: p.detach().clone() for n, p in parts[0][0].named_parameters(prefix="0")}
        train(parts[0], parts[1], parts[2], start=25)
        parts[2].freezer.look()
        assert (parts[2].frozen, moved(parts[0], at)) == (2, [])


def test_it_sees_nothing_in_an_ordinary_run() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), *make_net())
    optimizer = Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    at = bits_at_the_freeze(scheduler)
    train(model, optimizer, scheduler)
    scheduler.freezer.look()
    assert scheduler.frozen == len(scheduler.layers) - 1
    assert moved(model, at) == []
