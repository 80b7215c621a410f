"""What people put around a training loop: scalers, checkpointing, averages, several optimizers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from contracts import bits, hooks, make_batch
from freezeout import (
    FreezeOut,
    FreezeOutError,
    Freezer,
    FrozenPrefixWarning,
    Schedule,
    is_active,
    split_layers,
)

STEPS = 12
LINEAR = Schedule(t0=0.3, spacing="linear", scale_cap=2.0)


def make_net(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)

    def block(n_in: int) -> nn.Module:
        return nn.Sequential(nn.Linear(n_in, width), nn.LayerNorm(width), nn.Tanh())

    return nn.Sequential(block(6), block(width), block(width), nn.Linear(width, 3))


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    x, y = make_batch("matrix", step)
    return F.cross_entropy(model(x).float(), y)


class Blocks(nn.Module):
    """Runs its blocks in some way of the caller's, and counts how often each one runs."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        net = make_net()
        self.blocks = nn.ModuleList(net[:-1])
        self.head = net[-1]
        self._call = call
        self.ran = [0, 0, 0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, block in enumerate(self.blocks):

            def run(x: torch.Tensor, i: int = i, block: nn.Module = block) -> torch.Tensor:
                self.ran[i] += 1
                return block(x)

            x = self._call(run, x)
        return self.head(x)


# Activation checkpointing


def test_frozen_blocks_are_not_computed_again() -> None:
    model = Blocks(lambda run, x: checkpoint(run, x, use_reentrant=False))
    freezer = Freezer(split_layers(model), strict=True)
    for depth, ran in ((0, [2, 2, 2]), (1, [1, 2, 2]), (3, [1, 1, 1])):
        freezer.set_depth(depth)
        model.ran = [0, 0, 0]
        loss_of(model, depth).backward()
        assert model.ran == ran
        assert freezer.verified
        assert all((p.grad is not None) is p.requires_grad for p in model.parameters())
        model.zero_grad()


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpointing_is_refused_in_the_first_step() -> None:
    # What it is refused for: behind a frozen layer no block gets a gradient, without an error.
    model = Blocks(lambda run, x: checkpoint(run, x, use_reentrant=True))
    model.blocks[0].requires_grad_(False)
    loss_of(model, 0).backward()
    assert model.blocks[2][0].weight.grad is None
    assert model.head.weight.grad is not None

    model = Blocks(lambda run, x: checkpoint(run, x, use_reentrant=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    with torch.no_grad():
        model(make_batch("matrix", 0)[0])  # an evaluation before says nothing yet
    with pytest.raises(FreezeOutError) as refused:
        loss_of(model, 0)
    assert str(refused.value) == (
        "Sequential runs under activation checkpointing with use_reentrant=True. Behind frozen "
        "layers that kind gives no gradient to any block, without an error. Use "
        "use_reentrant=False (transformers: gradient_checkpointing_kwargs={'use_reentrant': "
        "False})."
    )
    assert hooks(model) == 0


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_it_is_not_refused_where_nothing_freezes() -> None:
    model = Blocks(lambda run, x: checkpoint(run, x, use_reentrant=True))
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, t0=1.0)
    assert hooks(model) == 0
    loss_of(model, 0)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize(
    "how", ["in parts", "a dry run", "later", "a compiled head", "compiled blocks"]
)
def test_what_the_first_pass_does_not_show_is_refused_after_a_freeze(how: str) -> None:
    on = how != "later"
    model = Blocks(lambda run, x: checkpoint(run, x, use_reentrant=True) if on else run(x))
    if how == "a compiled head":
        model.head.compile(backend="eager")
    if how == "compiled blocks":
        for block in model.blocks:
            block.compile(backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=LINEAR)
    if how == "a dry run":
        loss_of(model.eval(), 0)
        model.train()
    x, y = make_batch("matrix", 0)

    def forward() -> torch.Tensor:
        return Blocks.forward(model, x) if how == "in parts" else model(x)

    if how in ("in parts", "later"):  # here only the freeze brings it to light
        F.cross_entropy(forward(), y).backward()
        optimizer.step()
        scheduler.step(4)
        assert scheduler.frozen == 1
        on = True
    with pytest.raises(FreezeOutError, match=r"use_reentrant=True\. Behind frozen layers"):
        forward()
    assert hooks(model) == (2 if how == "in parts" else 0)  # still waiting for its own forward


def test_a_failed_first_pass_leaves_no_more_hooks_than_one() -> None:
    model = make_net()
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, schedule=LINEAR)
    found = []
    for _ in range(3):
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            model(torch.ones(2, 5))
        found.append(hooks(model))
    assert found[0] == found[2]
    loss_of(model, 0)
    assert hooks(model) == 0


def test_scripted_parts_are_no_obstacle() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, with another category in each version
        scripted = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.Tanh()))
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    holder = nn.ModuleDict({"first": model, "spare": scripted})
    holder.forward = lambda x: model(x)  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(
        optimizer,
        holder,
        STEPS,
        schedule=LINEAR,
        layers=["first.0", "first.2", ("first.3", "spare")],
    )
    loss_of(holder, 0).backward()
    assert hooks(holder) == 0
    assert scheduler.frozen == 0


def test_the_first_look_takes_its_hooks_away() -> None:
    model = make_net()
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, schedule=LINEAR)
    assert hooks(model) == 2
    with torch.no_grad():
        model(make_batch("matrix", 0)[0])
    assert hooks(model) == 2
    loss_of(model, 0).backward()
    assert hooks(model) == 0


def test_blocks_under_no_grad_are_the_model_s_own_affair() -> None:
    """A teacher, or features that are not learnt: not checkpointing."""

    def call(run: Callable[..., Any], x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return run(x)

    model = Blocks(call)
    FreezeOut(torch.optim.SGD(model.parameters(), lr=0.1), model, STEPS, schedule=LINEAR)
    loss_of(model, 0).backward()
    assert hooks(model) == 0


def test_inputs_that_are_made_to_require_gradients_are_named() -> None:
    model = make_net()
    model[0].register_forward_hook(lambda module, args, output: output.requires_grad_(True))
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    with pytest.warns(FrozenPrefixWarning, match=r"enable_input_require_grads\(\) does that"):
        loss_of(model, 0)
    assert not freezer.verified


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


# Several optimizers


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
