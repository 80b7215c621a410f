"""What people put around a training loop: autocast, scalers, averages, other optimizers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from freezeout import FreezeOut, is_active, unfreeze
from freezeout.reference import RateOnly
from tests.contracts import bits, differing, make_batch, snapshot
from tests.scheduler.loops import LINEAR, STEPS, loss_of, make_net

# Mixed precision, accumulation, clipping


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    """Half precision, a scaler that skips a step, accumulation and clipping, all at once.

    The oracle is frozen by hand: flags, and a group of parameters for each layer. A third network
    has the same weights in every step, and all gradients.
    """
    model, by_hand, whole = make_net(), make_net(), make_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR, strict=True)
    other = torch.optim.AdamW([{"params": list(layer.parameters())} for layer in by_hand], lr=0.02)
    scalers = [torch.amp.GradScaler("cpu", init_scale=256.0) for _ in range(3)]
    calls = 0
    while (step := scheduler.last_epoch) < STEPS:
        for group, factor in zip(other.param_groups, scheduler.factors_at(step), strict=True):
            group["lr"] = 0.02 * factor
        by_hand[: scheduler.frozen].requires_grad_(False)
        by_hand.zero_grad()
        whole.load_state_dict(model.state_dict())
        for micro in range(2):
            for net, scaler in zip((model, by_hand, whole), scalers, strict=True):
                with torch.autocast("cpu", dtype=dtype):
                    loss = loss_of(net, 2 * calls + micro) / 2
                scaler.scale(loss).backward()
        for ours, hand, full in zip(
            *(n.parameters() for n in (model, by_hand, whole)), strict=True
        ):
            assert (ours.grad is None) is (hand.grad is None) is (not ours.requires_grad)
            if ours.grad is not None:
                assert torch.equal(ours.grad, hand.grad)
                assert torch.equal(ours.grad, full.grad)
        norms = []
        for net, part, scaler in zip(
            (model, by_hand, whole),
            (optimizer, other, torch.optim.SGD(whole.parameters(), lr=0.0)),
            scalers,
            strict=True,
        ):
            if calls == 5:
                net[-1].weight.grad.fill_(float("inf"))
            scaler.unscale_(part)
            norms.append(nn.utils.clip_grad_norm_(net.parameters(), 0.1))
            scaler.step(part)
            scaler.update()
            net.zero_grad()
        if scheduler.frozen and calls != 5:
            assert norms[0] < norms[2]  # fewer gradients: the same threshold clips less
        scheduler.step()
        calls += 1
        for ours, hand in zip(model.parameters(), by_hand.parameters(), strict=True):
            assert torch.equal(ours, hand)
    assert calls == STEPS + 1
    assert scheduler.frozen == 3
    assert {scaler.get_scale() for scaler in scalers} == {128.0}


def test_a_scaler_with_nothing_left_to_scale() -> None:
    model = make_net()
    early = torch.optim.SGD(model[:2].parameters(), lr=0.1)
    late = torch.optim.SGD(model[2:].parameters(), lr=0.1)
    first = FreezeOut(early, model, STEPS, schedule=LINEAR)
    second = FreezeOut(late, model, STEPS, together_with=first)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    active = []
    for step in range(STEPS):
        scaler.scale(loss_of(model, step)).backward()
        active.append(is_active(early))
        for optimizer in (early, late):
            if is_active(optimizer):
                scaler.step(optimizer)
        scaler.update()
        model.zero_grad()
        first.step()
        second.step()
        assert first.frozen == second.frozen == second.depth_at(step + 1)
    assert active == [True] * 7 + [False] * 5
    assert second.frozen == 3  # the one that is frozen whole does not hold it up
    scaler.scale(loss_of(model, 0)).backward()
    with pytest.raises(AssertionError, match="No inf checks were recorded"):
        scaler.step(early)


def test_an_optimizer_in_a_trainer_s_wrapper() -> None:
    class Wrapped(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

        param_groups = property(lambda self: self.optimizer.param_groups)

    model = make_net()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(Wrapped(inner), model, STEPS, schedule=LINEAR)
    assert scheduler.optimizer is inner
    loss_of(model, 0).backward()
    inner.step()
    scheduler.step()
    assert scheduler.last_epoch == 1


# Averages


def test_an_average_of_weights_goes_on_and_meets_the_frozen_layers() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    mine = copy.deepcopy(model.state_dict())
    for step in range(STEPS):
        loss_of(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        average.update_parameters(model)
        for name, value in model.state_dict().items():
            mine[name] = value.clone() if step == 0 else mine[name].lerp(value, 0.5)
    assert scheduler.frozen == 3
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, mine[name])
    # Eight updates after the first layer froze, what it was before has faded to 1/256.
    distance = (average.module[0][0].weight - model[0][0].weight).abs().max()
    assert 0 < distance < 0.05
    assert all(p.requires_grad for p in average.parameters())


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree"])
@pytest.mark.parametrize("evaluating", [False, True])
def test_a_schedule_free_optimizer_freezes_at_its_average(name: str, evaluating: bool) -> None:
    schedulefree = pytest.importorskip("schedulefree", reason="an optional optimizer")
    model = make_net()
    optimizer: Any = getattr(schedulefree, name)(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, t0=0.3, spacing="linear", anneal=None)
    optimizer.train()
    frozen: dict[int, torch.Tensor] = {}
    for step in range(STEPS):
        loss_of(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
        optimizer.eval()
        wanted = [bits(p).clone() for p in model.parameters()]
        if not evaluating:
            optimizer.train()
        scheduler.step()
        per_layer = 4  # parameters
        for i, p in enumerate(model[: scheduler.frozen].parameters()):
            if i not in frozen:
                torch.testing.assert_close(p.view(-1), wanted[i].view(p.dtype).view(-1))
                frozen[i] = bits(p).clone()
        optimizer.train()
        for mode in (optimizer.eval, optimizer.train):
            mode()
            for i, p in enumerate(model[: scheduler.frozen].parameters()):
                assert torch.equal(bits(p), frozen[i])
                assert not optimizer.state.get(p)
    assert len(frozen) == 3 * per_layer


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
@pytest.mark.parametrize("option", ["capturable", "fused", "foreach"])
def test_optimizers_on_a_gpu(name: str, option: str) -> None:
    """Frozen bits stay, and the run is that of the plain optimizer."""
    if name == "SGD" and option == "capturable":
        pytest.skip("SGD has no capturable")
    kind = getattr(torch.optim, name)
    nets = [make_net().cuda() for _ in range(2)]
    runs = []
    rate = torch.tensor(0.02).cuda() if option == "capturable" else 0.02
    for net, options in zip(nets, ({option: True}, {"foreach": False}), strict=True):
        optimizer = kind(net.parameters(), lr=rate if options.get(option) else 0.02, **options)
        runs.append((net, optimizer, FreezeOut(optimizer, net, STEPS, schedule=LINEAR)))
    for step in range(STEPS):
        x, y = (part.cuda() for part in make_batch("matrix", step))
        for net, optimizer, scheduler in runs:
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert runs[0][2].frozen == 3


class MomentumTeacher(nn.Module):
    """As in BYOL: a teacher, defined first, that follows its student and is never trained."""

    def __init__(self) -> None:
        super().__init__()
        student = nn.Sequential(
            *(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()) for _ in range(3)),
            nn.Linear(4, 4),
        )
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.student = student

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            goal = self.teacher(x + 0.1)
        return F.mse_loss(F.normalize(self.student(x)), F.normalize(goal))

    @torch.no_grad()
    def follow(self) -> None:
        for mean, p in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(p, 0.1)


@pytest.mark.parametrize("named", [False, True])
def test_a_momentum_encoder_defined_first_keeps_its_modes(named: bool) -> None:
    """A layer of its own if it is named, joined to the first that learns if not."""
    names = [*(f"{part}.{i}" for part in ("teacher", "student") for i in range(4))]
    ends = []
    for kind in (FreezeOut, RateOnly):
        torch.manual_seed(0)
        model = MomentumTeacher()
        optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
        scheduler = kind(optimizer, model, 20, t0=0.2, layers=names if named else None)
        for _ in range(20):
            model.train()
            before = model.teacher[0][1].running_mean.clone()
            optimizer.zero_grad()
            model(torch.randn(8, 4)).backward()
            optimizer.step()
            model.follow()
            scheduler.step()
            assert all(module.training for module in model.teacher.modules())
            assert not torch.equal(before, model.teacher[0][1].running_mean)
        assert scheduler.frozen == (len(scheduler.layers) - 1 if kind is FreezeOut else 0)
        assert not any(module.training for module in model.student[0].modules())
        ends.append(snapshot(model))
    assert differing(*ends) == []


@pytest.mark.parametrize("convert", [nn.Module.double, nn.Module.bfloat16, nn.Module.cpu])
def test_parameters_that_are_swapped_in_a_conversion(convert: Any) -> None:
    """PyTorch does not swap what has a weak reference, so nobody here may keep one."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
        still: torch.Tensor | None = None
        for step in range(STEPS):
            if scheduler.frozen == 1 and model[0][0].weight.dtype == torch.float32:
                convert(model)
                still = bits(model[0][0].weight)
            x, y = make_batch("matrix", step)
            F.cross_entropy(model(x.to(model[0][0].weight.dtype)), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            assert still is None or torch.equal(still, bits(model[0][0].weight))
        assert still is not None
        assert scheduler.frozen == 3
        unfreeze(model)
        assert all(p.requires_grad for p in model.parameters())
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
