"""One model with two optimizers freezes as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from freezeout import FreezeOut, Freezer, is_active, split_layers, unfreeze
from tests.contracts import bits
from tests.scheduler.loops import LINEAR, STEPS, loss_of, make_net


def two(model: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    kind = getattr(torch.optim, "Muon", torch.optim.SGD)
    return kind(matrices, lr=0.02), torch.optim.AdamW(others, lr=0.02)


@pytest.mark.parametrize("interleaved", [False, True])
def test_two_optimizers_freeze_as_one_in_any_order(interleaved: bool) -> None:
    model, alone = make_net(), make_net()
    optimizers = two(model)
    first = FreezeOut(optimizers[0], model, STEPS, schedule=LINEAR)
    second = FreezeOut(optimizers[1], model, STEPS, together_with=first)
    assert second.freezer is first.freezer
    assert second.schedule == LINEAR
    # The oracle: the same two optimizers, frozen by hand at the end of each step.
    apart = two(alone)
    freezer = Freezer(split_layers(alone), apart[0])
    freezer.optimizers.append(apart[1])
    for optimizer in apart:  # without gradients: what no optimizer holds is looked at now
        optimizer.step()
    for step in range(STEPS):
        for net in (model, alone):
            loss_of(net, step).backward()
        for optimizer, scheduler in zip(optimizers, (first, second), strict=True):
            optimizer.step()
            if interleaved:
                scheduler.step()
        if not interleaved:
            second.step()
            first.step()
        assert first.frozen == second.frozen == first.depth_at(step + 1)
        for optimizer, rates in zip(apart, (first, second), strict=True):
            factors = first.factors_at(step)
            names = {id(p): layer.index for layer in freezer.layers for _, p in layer.parameters}
            for group in optimizer.param_groups:
                for p in group["params"]:
                    solo = {**group, "params": [p], "lr": 0.02 * factors[names[id(p)]]}
                    optimizer.param_groups, kept = [solo], optimizer.param_groups
                    optimizer.step()
                    optimizer.param_groups = kept
            assert rates.optimizer is not optimizer
        freezer.set_depth(first.frozen)
        for net in (model, alone):
            net.zero_grad()
        for a, b in zip(model.parameters(), alone.parameters(), strict=True):
            assert torch.equal(a, b)
    assert all(p not in o.state for o in optimizers for p in model[:3].parameters())


def test_both_resume_where_one_has_run_out_of_layers() -> None:
    def build() -> tuple[nn.Module, list[torch.optim.Optimizer], list[FreezeOut]]:
        model = make_net()
        early = torch.optim.AdamW(model[0].parameters(), lr=0.02)
        late = torch.optim.SGD(model[1:].parameters(), lr=0.1)
        first = FreezeOut(early, model, STEPS, schedule=LINEAR)
        return model, [early, late], [first, FreezeOut(late, model, STEPS, together_with=first)]

    def go(parts: Any, start: int, stop: int) -> None:
        model, optimizers, schedulers = parts
        for step in range(start, stop):
            loss_of(model, step).backward()
            for optimizer in optimizers:
                if is_active(optimizer):
                    optimizer.step()
            model.zero_grad()
            for scheduler in schedulers:
                scheduler.step()

    whole = build()
    go(whole, 0, 8)
    assert whole[2][1].frozen == 2  # and the first stopped counting at 4
    again = build()
    for old, new in zip(
        (*whole[2], whole[0], *whole[1]), (*again[2], again[0], *again[1]), strict=True
    ):
        new.load_state_dict(old.state_dict())
    assert again[2][0].frozen == again[2][1].frozen == 2
    for parts in (whole, again):
        go(parts, 8, STEPS)
    for a, b in zip(whole[0].parameters(), again[0].parameters(), strict=True):
        assert torch.equal(bits(a), bits(b))


def test_what_the_second_leaves_out_is_as_in_the_first() -> None:
    model = make_net()
    muon, adamw = two(model)
    first = FreezeOut(muon, model, STEPS, schedule=LINEAR)
    second = FreezeOut(adamw, model, STEPS, together_with=first, warmup_steps=2, scale_cap=1.5)
    assert second.schedule == replace(LINEAR, warmup_steps=2, scale_cap=1.5)
    assert second.freeze_steps == first.freeze_steps
    assert second.factors_at(0)[0] < first.factors_at(0)[0]


def test_what_two_optimizers_must_agree_on() -> None:
    model = make_net()
    first_optimizer, second_optimizer = two(model)
    first = FreezeOut(first_optimizer, model, STEPS, schedule=LINEAR)
    with pytest.raises(ValueError, match="another FreezeOut drives this Sequential with an opti"):
        FreezeOut(second_optimizer, model, STEPS, schedule=LINEAR)
    with pytest.raises(TypeError, match="together_with must be the FreezeOut of the other"):
        FreezeOut(second_optimizer, model, STEPS, together_with=first_optimizer)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="together_with drives the same optimizer"):
        FreezeOut(first_optimizer, model, STEPS, together_with=first)
    with pytest.raises(TypeError, match="layers and example are those of together_with"):
        FreezeOut(second_optimizer, model, STEPS, together_with=first, layers=first.layers)
    with pytest.raises(ValueError, match=r"layer 0 is to freeze after 8 updates here and after 4"):
        FreezeOut(second_optimizer, model, 2 * STEPS, together_with=first)
    assert len(second_optimizer.param_groups) == 1
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS)  # a new run is no rival
    second = FreezeOut(second_optimizer, make_and_forget(model), STEPS)
    assert second.layers.model is not model


def test_a_new_run_with_two_new_optimizers_is_no_rival() -> None:
    model = make_net()
    runs = []  # all are alive, as those of a trainer that is kept
    for _ in range(2):
        unfreeze(model)
        muon, adamw = two(model)
        first = FreezeOut(muon, model, STEPS, schedule=LINEAR)
        runs.append((first, FreezeOut(adamw, model, STEPS, together_with=first)))
        assert all(p.requires_grad for p in model.parameters())
        for step in range(8):
            loss_of(model, step).backward()
            muon.step()
            adamw.step()
            model.zero_grad()
            for scheduler in runs[-1]:
                scheduler.step()
        assert runs[-1][0].frozen == runs[-1][1].frozen == 2


def make_and_forget(model: nn.Module) -> nn.Module:
    """The optimizer's parameters in another model, so that nothing drives it yet."""
    return nn.Sequential(*model)
