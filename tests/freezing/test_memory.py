"""Who is done with a run gets its memory back, although the model lives on."""

import gc
import weakref

import pytest
import torch
from torch import nn

from freezeout import (
    FreezeOut,
    Freezer,
    FrozenPrefixWarning,
    PrefixError,
    split_layers,
)


def make(kind=torch.optim.SGD, **options):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4)
    )
    optimizer = kind(model.parameters(), lr=0.01)
    scheduler = FreezeOut(optimizer, model, total_steps=20, t0=0.3, spacing="linear", **options)
    return model, optimizer, scheduler


def train(model, optimizer, scheduler, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        scheduler.step()


def train_until_frozen(model, optimizer, scheduler):
    while not scheduler.frozen:
        train(model, optimizer, scheduler, 1)


@pytest.mark.parametrize("steps", [0, 1, 8], ids=["never ran", "before a freeze", "after"])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_a_model_does_not_hold_the_optimizer(kind, steps):
    model, optimizer, scheduler = make(kind)
    train(model, optimizer, scheduler, steps)
    gone = [weakref.ref(optimizer), weakref.ref(scheduler.freezer)]
    del optimizer, scheduler
    gc.collect()
    assert [alive() for alive in gone] == [None, None]


def test_nor_if_only_evaluation_follows_the_freeze():
    model, optimizer, scheduler = make(torch.optim.Adam)
    train_until_frozen(model, optimizer, scheduler)
    gone = [weakref.ref(optimizer), weakref.ref(scheduler.freezer)]
    model.eval()
    with torch.no_grad():
        model(torch.ones(2, 4))
    assert gone[0]() is optimizer
    del optimizer, scheduler
    gc.collect()
    assert [alive() for alive in gone] == [None, None]
    model.train()(torch.ones(2, 4)).sum().backward()  # the check that was left is harmless
    assert [model[i].weight.grad is None for i in (0, 2)] == [True, False]


@pytest.mark.parametrize(("strict", "kind"), [(False, FrozenPrefixWarning), (True, PrefixError)])
def test_the_boundary_is_checked_for_a_freezer_that_nobody_keeps(strict, kind):
    model, _, _ = make()
    del _
    model[0].register_forward_hook(lambda module, args, output: output + model[2].bias)
    Freezer(split_layers(model), strict=strict).set_depth(1)
    gc.collect()
    x = torch.ones(2, 4)
    with pytest.raises(kind) if strict else pytest.warns(kind, match="still needs a gradient"):
        model(x)


def replace(model, optimizer, index, new):
    """Put another part in a place, and leave nothing of the old one with the optimizer."""
    gone = [weakref.ref(model[index]), *map(weakref.ref, model[index].parameters())]
    model[index] = new
    live = set(model.parameters())
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p in live]
    for p in [p for p in optimizer.state if p not in live]:
        del optimizer.state[p]
    return gone


@pytest.mark.parametrize("index", [0, 2], ids=["frozen", "learning"])
@pytest.mark.parametrize("whole", [nn.Linear, lambda *sizes: nn.Sequential(nn.Linear(*sizes))])
def test_a_replaced_part_is_forgotten_at_the_next_look(index, whole):
    model, optimizer, scheduler = make(torch.optim.Adam)
    train_until_frozen(model, optimizer, scheduler)
    train(model, optimizer, scheduler, 3)
    kept = weakref.ref(model[1])
    gone = replace(model, optimizer, index, whole(4, 4))
    train(model, optimizer, scheduler, 1)  # the fourth since the freeze
    gc.collect()
    assert [alive() for alive in gone] == [None] * len(gone)
    assert kept() is model[1]
    assert [p.requires_grad for p in model[index].parameters()] == [index != 0] * 2


def test_also_long_after_the_last_freeze():
    model, _, _ = make()
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    for _ in range(3 * 1024 - 1):
        freezer.after_update()
    gone = weakref.ref(model[0])
    model[0] = nn.Linear(4, 4)
    gc.collect()
    assert gone() is not None
    freezer.after_update()
    gc.collect()
    assert gone() is None
    assert not model[0].weight.requires_grad


class Speaks(nn.Linear):
    def forward(self, x):
        return super().forward(x).clone() if self.training else super().forward(x)


def test_a_part_that_was_to_be_tried_is_forgotten():
    model = nn.Sequential(Speaks(4, 4), nn.Linear(4, 4))
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    gone = weakref.ref(model[0])
    model[0] = nn.Linear(4, 4)
    model(torch.ones(2, 4))
    gc.collect()
    assert gone() is None
    freezer.unfreeze()
    assert all(p.requires_grad for p in model.parameters())


def test_an_earlier_run_says_nothing_of_what_the_next_has_thawed():
    model, optimizer, first = make()
    train_until_frozen(model, optimizer, first)
    with pytest.warns(FrozenPrefixWarning, match="an earlier freeze left frozen learn again"):
        second = FreezeOut(optimizer, model, total_steps=20, t0=0.3, spacing="linear")
    train(model, optimizer, second, 2)  # and warnings are errors
    assert model[0].weight.requires_grad
    train_until_frozen(model, optimizer, second)
    assert not model[0].weight.requires_grad
