"""The oracle itself, and FreezeOut against it where theory says that both end alike."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import CheckpointError, FreezeOut, Freezer, Schedule, reference, split_layers
from tests.contracts import (
    STEPS,
    Case,
    assert_same,
    bits,
    differing,
    make_batch,
    make_batches,
    make_net,
    snapshot,
    train,
)

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
Clip = Callable[[nn.Module], None]


def run_reference(
    schedule: Schedule, groups: Callable[[nn.Module], Any], clip: Clip | None = None
) -> nn.Module:
    model = make_net()
    reference.train(
        model,
        torch.optim.SGD(groups(model), **SGD),
        make_batches(),
        F.cross_entropy,
        layers=split_layers(model),
        schedule=schedule,
        total_steps=STEPS,
        before_step=None if clip is None else lambda: clip(model),
    )
    return model


def run_freezeout(
    schedule: Schedule, groups: Callable[[nn.Module], Any], clip: Clip | None = None
) -> tuple[nn.Module, FreezeOut]:
    model = make_net()
    optimizer = torch.optim.SGD(groups(model), **SGD)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=schedule)
    before_step = None if clip is None else lambda: clip(model)
    train(model, optimizer, [scheduler], before_step=before_step)
    return model, scheduler


def one_group(model: nn.Module) -> Any:
    return model.parameters()


def decay_and_no_decay(model: nn.Module) -> Any:
    return [
        {"params": [p for p in model.parameters() if p.ndim > 1], "lr": 0.2},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]


def square_root(u: float) -> float:
    return math.sqrt(1.0 - u)


SCHEDULES = [
    *(
        Schedule(t0=0.4, spacing=spacing, scaled=scaled)
        for spacing, scaled in itertools.product(("linear", "squared", "cubic"), (True, False))
    ),
    Schedule(t0=0.3, spacing="linear", anneal="linear"),
    Schedule(t0=0.3, spacing="linear", anneal=square_root),
    Schedule(t0=0.3, spacing="linear", anneal=None),
    Schedule(t0=0.3, spacing="linear", warmup_steps=3),
    Schedule(t0=0.3, scale_cap=1.5),
    Schedule(times=(0.1, 0.1, 0.9, 1.0)),
    Schedule(times=(0.5, 1.0, 1.0, 1.0), warmup_steps=2, scaled=False),
]


@pytest.mark.parametrize("groups", [one_group, decay_and_no_decay])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: repr(s).partition(" at 0x")[0])
def test_freezeout_ends_in_the_weights_of_the_reference(
    schedule: Schedule, groups: Callable[[nn.Module], Any]
) -> None:
    model, scheduler = run_freezeout(schedule, groups)
    assert differing(snapshot(model), snapshot(run_reference(schedule, groups))) == []
    assert scheduler.frozen > 0
    changed = differing(snapshot(model), snapshot(make_net()))
    assert changed == list(snapshot(model))


def test_the_comparison_notices_other_settings() -> None:
    model, _ = run_freezeout(Schedule(t0=0.4), one_group)
    for other in (Schedule(t0=0.5), Schedule(t0=0.4, scaled=False), Schedule(t0=0.4, scale_cap=2)):
        assert differing(snapshot(model), snapshot(run_reference(other, one_group))) != []


def test_clipping_by_value_keeps_the_equality() -> None:
    def clip(model: nn.Module) -> None:
        nn.utils.clip_grad_value_(model.parameters(), 0.01)

    schedule = Schedule(t0=0.3, spacing="linear")
    model, _ = run_freezeout(schedule, one_group, clip)
    assert differing(snapshot(model), snapshot(run_reference(schedule, one_group, clip))) == []
    unclipped, _ = run_freezeout(schedule, one_group)
    assert differing(snapshot(model), snapshot(unclipped)) != []


def test_clipping_by_the_global_norm_cannot_keep_it_and_the_docs_say_so() -> None:
    def clip(model: nn.Module) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)

    schedule = Schedule(t0=0.3, spacing="linear")
    model, scheduler = run_freezeout(schedule, one_group, clip)
    changed = differing(snapshot(model), snapshot(run_reference(schedule, one_group, clip)))
    first = [name for name, _ in scheduler.layers[0].parameters]
    assert not set(first) & set(changed)  # froze before the norms parted
    assert "head.weight" in changed
    assert "global" in str(reference.__doc__)
    assert "norm" in str(reference.__doc__)


@pytest.mark.parametrize("kind", [torch.optim.Rprop, torch.optim.ASGD])
def test_a_rate_of_zero_does_not_stop_every_optimizer_and_the_docs_say_so(kind: Any) -> None:
    case = Case(kind, {"lr": 0.05})
    schedule = Schedule(t0=0.3, spacing="linear")
    model, optimizer, scheduler = case.set_up(schedule=schedule)
    train(model, optimizer, [scheduler])
    twin = case.model()
    reference.train(
        twin,
        case.make(twin),
        make_batches(),
        F.cross_entropy,
        layers=split_layers(twin),
        schedule=schedule,
        total_steps=STEPS,
    )
    changed = differing(snapshot(model), snapshot(twin))
    assert {name for name, _ in scheduler.layers[0].parameters} <= set(changed)
    assert kind.__name__ in str(reference.__doc__)


def test_the_reference_freezes_nothing_and_keeps_the_modes_of_the_paper() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    layers = split_layers(model)
    seen: list[tuple[list[bool], bool]] = []

    def look() -> None:
        seen.append(
            (
                [layer.modules[0].training for layer in layers],
                all(p.grad is not None and p.requires_grad for p in model.parameters()),
            )
        )

    losses = reference.train(
        model,
        optimizer,
        make_batches(),
        F.cross_entropy,
        layers=layers,
        schedule=Schedule(t0=0.3, spacing="linear"),
        total_steps=STEPS,
        before_step=look,
    )
    assert len(losses) == STEPS
    assert all(math.isfinite(loss) for loss in losses)
    assert all(has_all for _, has_all in seen)
    # 0.3, 0.533, 0.767 of 12 steps: layers leave at 4, 7 and 10
    assert [sum(training) for training, _ in seen] == [4] * 4 + [3] * 3 + [2] * 3 + [1] * 2
    assert len(optimizer.state) == len(list(model.parameters()))


def test_the_reference_uses_the_rates_of_the_paper() -> None:
    """Plain SGD on a fixed gradient: the distance moved is the sum of the rates, in float64."""
    model = nn.Sequential(*(nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in range(3)))
    layers = split_layers(model)
    start = [p.item() for p in model.parameters()]
    _fixed_gradient(model, layers)
    for i, (p, p0) in enumerate(zip(model.parameters(), start, strict=True)):
        t_i = (0.5 + 0.5 * i / 2) ** 2
        rates = [
            0.5 * 0.1 / t_i * (1 + math.cos(math.pi * (n / 20) / t_i)) if n / 20 < t_i else 0.0
            for n in range(20)
        ]
        assert p0 - p.item() == pytest.approx(sum(rates), rel=1e-12)


def _fixed_gradient(model: nn.Module, layers: Any) -> None:
    def set_gradients() -> None:
        for p in model.parameters():
            p.grad = torch.ones_like(p)

    reference.train(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        [(torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1))] * 20,
        lambda output, target: output.sum(),
        layers=layers,
        schedule=Schedule(t0=0.5, spacing="squared"),
        total_steps=20,
        before_step=set_gradients,
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_active_gradients_equal_those_of_the_unfrozen_network(depth: int) -> None:
    frozen, free = make_net(), make_net()
    Freezer(split_layers(frozen)).set_depth(depth)
    for layer in split_layers(free)[:depth]:
        for module in layer.modules:
            module.training = False
    for model in (frozen, free):
        x, y = make_batch("conv", 0)
        torch.manual_seed(7)
        F.cross_entropy(model(x), y).backward()
    layers = split_layers(frozen)
    compared = 0
    for (name, a), (_, b) in zip(frozen.named_parameters(), free.named_parameters(), strict=True):
        assert b.grad is not None, name
        if layers.index_of(a) < depth:
            assert a.grad is None, name
        else:
            assert a.grad is not None, name
            assert torch.equal(bits(a.grad), bits(b.grad)), name
            compared += 1
    assert compared > 0


# --- The oracle as a scheduler: the control of a comparison --------------------------------------


def run_control(schedule: Schedule, *, stop_at: int | None = None) -> tuple[nn.Module, Any, Any]:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    control = reference.RateOnly(optimizer, model, STEPS, schedule=schedule)
    for x, y in itertools.islice(make_batches(), stop_at):
        model.train()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        control.step()
    return model, optimizer, control


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("spacing", ["linear", "cubic"])
def test_the_control_ends_in_the_weights_of_the_oracle_and_of_freezeout(
    spacing: Any, scaled: bool
) -> None:
    schedule = Schedule(t0=0.5, spacing=spacing, scaled=scaled)
    control, _, scheduler = run_control(schedule)
    oracle = run_reference(schedule, lambda model: model.parameters())
    frozen, _ = run_freezeout(schedule, lambda model: model.parameters())
    assert_same(snapshot(control), snapshot(oracle))
    assert_same(snapshot(control), snapshot(frozen))
    assert scheduler.frozen == 0
    plain, _, _ = run_control(Schedule(t0=1.0))
    assert differing(snapshot(plain), snapshot(control))


def test_the_control_computes_every_gradient_to_the_end() -> None:
    model, optimizer, control = run_control(Schedule(t0=0.3), stop_at=STEPS - 1)
    x, y = next(iter(make_batches()))
    F.cross_entropy(model(x), y).backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] == 0.0 < rates[-1]
    assert control.freeze_steps == (None,) * len(control.layers)
    assert control.factors_at(0)[0] == pytest.approx(1 / 0.027)


def test_the_control_keeps_inference_mode_after_train_and_goes_on_exactly() -> None:
    schedule = Schedule(t0=0.4, spacing="linear")
    whole, _, _ = run_control(schedule)
    half, optimizer, control = run_control(schedule, stop_at=STEPS // 2)
    state = control.state_dict()
    model = make_net()
    other = torch.optim.SGD(model.parameters(), **SGD)
    again = reference.RateOnly(other, model, STEPS, schedule=schedule)
    again.load_state_dict(state)
    model.load_state_dict(half.state_dict())
    other.load_state_dict(optimizer.state_dict())
    for x, y in itertools.islice(make_batches(), STEPS // 2, None):
        model.train()
        F.cross_entropy(model(x), y).backward()
        other.step()
        other.zero_grad()
        again.step()
    assert_same(snapshot(model), snapshot(whole))
    model.train()
    model(next(iter(make_batches()))[0])
    assert not any(m.training for m in again.layers[0].modules)
    assert all(m.training for m in again.layers[-1].modules)


def test_a_control_takes_only_its_own_state() -> None:
    _, _, control = run_control(Schedule(t0=0.5), stop_at=1)
    other = {**control.state_dict(), "total_steps": 3}
    with pytest.raises(CheckpointError, match="total_steps=3 there but total_steps=12 here"):
        control.load_state_dict(other)
    model = make_net()
    scheduler = FreezeOut(torch.optim.SGD(model.parameters(), **SGD), model, STEPS, t0=0.5)
    with pytest.raises(
        CheckpointError, match="the state has no control: it is not that of a RateOnly"
    ):
        control.load_state_dict(scheduler.state_dict())
