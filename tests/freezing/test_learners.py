"""What should learn and never moves is found; what stands still for a reason is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from freezeout import FreezeOut, Freezer, MovementError, MovementWarning, split_layers
from tests.freezing.optimizers import copies, loss_of, make_net, train

LONG: dict[str, Any] = {"t0": 0.9, "spacing": "linear"}


class WalkShort(SGD):
    """Walk through the groups beside something that was made with the first of them only."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.plans = [object() for _ in self.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group, _ in zip(self.param_groups, self.plans, strict=False):
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"])


class MatricesOnly(SGD):
    """Step matrices, and forget the rest."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.ndim > 1:
                    p.add_(p.grad, alpha=-group["lr"])


@pytest.mark.parametrize(
    ("kind", "standing", "cause"),
    [
        (WalkShort, "'2.weight', '2.bias', '4.weight' and 1 more", r"keeps lists .*\(plans\)"),
        (MatricesOnly, "'0.bias', '2.bias', '4.bias'", "MatricesOnly does not step them"),
    ],
)
def test_layers_that_the_optimizer_never_reaches_are_told(
    kind: Any, standing: str, cause: str
) -> None:
    model = make_net()
    optimizer = kind(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, 200, **LONG)
    before = copies(model.parameters())
    train(model, optimizer, scheduler, stop=15)
    with pytest.warns(MovementWarning, match=f"a rate: {standing}. .*{cause}") as caught:
        train(model, optimizer, scheduler, start=15, stop=60)
    assert len(caught) == 1
    now = list(model.parameters())
    assert [torch.equal(p, q) for p, q in zip(now, before, strict=True)].count(True) > 2
    assert not torch.equal(before[0], now[0])


def test_strict_raises_what_never_moves() -> None:
    model = make_net()
    optimizer = MatricesOnly(model.parameters(), lr=0.1)
    with pytest.raises(MovementError, match="never moved, although"):
        train(model, optimizer, FreezeOut(optimizer, model, 200, strict=True, **LONG), stop=60)


class Cast(nn.Module):
    """Take what comes to another type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.dtype)


def test_updates_too_small_for_the_type_are_told() -> None:
    model = make_net().bfloat16()
    nn.init.ones_(model[2].bias)
    optimizer = Adam(model.parameters(), lr=1e-5)
    scheduler = FreezeOut(optimizer, model, 200, **LONG)
    outer = nn.Sequential(Cast(torch.bfloat16), model, Cast(torch.float32))
    with pytest.warns(MovementWarning, match=r"'2.bias'.*too small for bfloat16: raise the rate"):
        train(outer, optimizer, scheduler, stop=40)


# --- No false alarms ---------------------------------------------------------------------------


def quiet(model: nn.Module, optimizer: Any, scheduler: Any = None, steps: int = 80) -> None:
    """Train; warnings are errors in these tests."""
    train(model, optimizer, scheduler, stop=steps)


def standing(freezer: Freezer) -> list[str]:
    """What has not moved yet, as far as the freezer knows."""
    learners = freezer._keeper._learners[freezer.optimizers[0]]
    return [learners._names[key] for key in learners._before]


def test_ordinary_training_is_done_with_after_ten_updates() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    freezer = Freezer(split_layers(model), optimizer)
    learners = freezer._keeper._learners[optimizer]
    quiet(model, optimizer, steps=9)
    assert not learners.done
    quiet(model, optimizer, steps=1)
    assert learners.done
    assert not learners._before


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_gradients_of_zero(kind: Any) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.masked = nn.Linear(8, 2), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x) + 0.0 * self.masked(x)

    model = Unused()
    optimizer = kind(model.parameters(), lr=0.1)
    freezer = Freezer(split_layers(model, layers=["used", "masked"]), optimizer)
    quiet(model, optimizer)
    assert standing(freezer) == ["masked.weight", "masked.bias"]


def test_gradients_that_are_rounding_alone() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    nn.init.constant_(model[0].bias, 100.0)  # the norm takes it away again
    optimizer = SGD(model.parameters(), lr=0.1)
    freezer = Freezer(split_layers(model), optimizer)
    before = model[0].bias.detach().clone()
    quiet(model, optimizer)
    assert standing(freezer) == ["0.bias"]
    assert torch.equal(before, model[0].bias)


def test_a_warm_up_at_rate_zero_and_tiny_rates_of_one() -> None:
    model = make_net()
    nn.init.ones_(model[2].bias)
    optimizer = Adam(model.parameters(), lr=1e-3)
    scheduler = FreezeOut(optimizer, model, 10**6, warmup_steps=10**6 // 2)
    for n in range(60):  # without `scheduler.step()`: the rate of the first step of a warm-up
        loss_of(model, n).backward()
        optimizer.param_groups[0]["lr"] = 0.0
        optimizer.step()
        optimizer.zero_grad()
    assert optimizer.param_groups[-1]["lr"] < 1e-6
    assert standing(scheduler.freezer) == ["0.weight", "0.bias", "2.bias"]


def test_steps_that_a_scaler_skips() -> None:
    class Skipping(SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            return None

    model = make_net()
    optimizer = Skipping(model.parameters(), lr=0.1)
    freezer = Freezer(split_layers(model), optimizer)
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    quiet(model, optimizer)
    assert len(standing(freezer)) == 6
    del optimizer.found_inf  # type: ignore[attr-defined]
    with pytest.warns(MovementWarning, match="never moved"):
        quiet(model, optimizer)


def test_gradients_that_are_taken_within_the_backward_pass() -> None:
    model = make_net()
    optimizers = {id(p): SGD([p], lr=0.1) for p in model.parameters()}
    before = copies(model.parameters())

    def now(p: torch.Tensor) -> None:
        optimizers[id(p)].step()
        p.grad = None

    handles = [p.register_post_accumulate_grad_hook(now) for p in model.parameters()]
    outer = SGD(model.parameters(), lr=0.1)
    freezer = Freezer(split_layers(model), outer)
    quiet(model, outer)
    assert (len(handles), standing(freezer)) == (6, [])
    assert not any(map(torch.equal, before, model.parameters()))


def test_what_freezes_meanwhile_is_forgotten() -> None:
    model = make_net()
    optimizer = MatricesOnly(model.parameters(), lr=0.1)
    freezer = Freezer(split_layers(model), optimizer)
    quiet(model, optimizer, steps=12)
    model[4].bias.requires_grad_(False)
    freezer.set_depth(2)
    quiet(model, optimizer)
    assert freezer.depth == 2
