"""What people do with models while they train: a captured one stays bit for bit alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from freezeout import Freezer, FrozenPrefixWarning, split_layers
from freezeout.prefix import Capture
from tests.prefix.dictionary import Dictionary
from tests.prefix.small import CASES, batch, small_twins
from tests.prefix.steps import blocks, network, step
from tests.prefix.twins import Twins

# ---- settings of a pass


@pytest.mark.parametrize(("name", "depth"), [("resnet", 3), ("vit-timm", 2), ("lstm", 1)])
def test_autocast(name: str, depth: int) -> None:
    source = Dictionary()
    both = network(name, depth, source)
    for n in (1, 2, 1, 2):
        step(both, name, n, around=lambda: torch.autocast("cpu", torch.bfloat16))
    assert source.served
    step(both, name, 1)  # what was kept of passes with it is not for passes without
    both.close()


def test_autocast_that_the_model_itself_switches() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            h = m.a(x)
            with torch.autocast("cpu", enabled=False):
                h = m.b(h.float())
        return m.c(h)

    both = small_twins(forward, Dictionary())
    for n in (1, 2, 1, 2):
        both.agree(lambda model, n=n: model(batch(n)).sum())


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = blocks()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in (0, 1, 2, 3):
            x = x + checkpoint(self.blocks[i], x, use_reentrant=False)
        return checkpoint(lambda h: self.blocks[4](h * 2), x, use_reentrant=False)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_checkpointing(depth: int) -> None:
    source = Dictionary()
    both = Twins(Checkpointed, split_layers, depth, source)
    for seed, n in enumerate((1, 2, 1, 2)):
        torch.manual_seed(seed)
        both.agree(lambda model, n=n: model(batch(n)).square().mean())
    assert source.served


def test_smaller_last_batches_and_evaluation_in_between() -> None:
    source = Dictionary()
    both = small_twins(CASES["in_place_between"], source)
    x = batch(0, 10)
    for _ in range(3):
        for rows in x.split(4):
            both.agree(lambda model, rows=rows: model(rows).square().mean())
        before = both.capture.captured
        for model in (both.plain, both.captured):
            model.eval()
            with torch.no_grad():
                model(x)
            model.train()
        assert both.capture.captured == before
    assert both.capture.plain == {"gradients are off": 3}
    assert source.served
    assert not source.missed


def test_evaluation_with_gradients_is_captured_and_exact() -> None:
    both = network("vit-timm", 2, Dictionary())
    for mode in (True, False, True, False):
        both.plain.train(mode)
        both.captured.train(mode)
        step(both, "vit-timm", 1)
    assert both.capture.captured == 4


def test_inputs_that_need_gradients_and_torch_func_run_as_ever() -> None:
    both = small_twins(CASES["plain"])
    x = batch(1).requires_grad_()
    both.agree(lambda model: model(x).sum())
    weights = {k: v.detach() for k, v in both.captured.named_parameters()}
    torch.func.functional_call(both.captured, weights, (batch(1),))
    torch.func.vmap(both.captured)(batch(1))
    assert both.capture.plain["an input needs a gradient"] == 1
    assert both.capture.plain["it is run by torch.func"] == 1


def test_weights_that_stand_in_for_a_call_are_used() -> None:
    source = Dictionary()
    both = small_twins(CASES["plain"], source)
    for n in (1, 1):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    other = {k: v.detach() * 2 for k, v in both.captured.named_parameters()}
    expected = torch.func.functional_call(both.plain, other, (batch(1),))
    assert torch.equal(torch.func.functional_call(both.captured, other, (batch(1),)), expected)
    both.agree(lambda model: model(batch(1)).sum())


# ---- hooks


@pytest.mark.parametrize("place", ["layer1.0.conv1", "layer1.0", "layer2.1", "bn1", "relu", ""])
def test_hooks_of_others_see_every_pass(place: str) -> None:
    both = network("resnet", 3, Dictionary())
    seen: list[list[float]] = [[], []]
    for model, told in zip((both.plain, both.captured), seen, strict=True):
        module = model.get_submodule(place)
        module.register_forward_pre_hook(lambda m, a, t=told: t.append(float(a[0].detach().sum())))
        module.register_forward_hook(lambda m, a, out, t=told: t.append(float(out.detach().sum())))
    for n in (1, 2, 1, 2):
        step(both, "resnet", n)
    assert seen[0] == seen[1]
    assert len(seen[0]) >= 8


def test_a_hook_may_change_what_a_frozen_block_gives() -> None:
    both = network("resnet", 3, Dictionary())
    step(both, "resnet", 1)  # before there is one
    for model in (both.plain, both.captured):
        model.layer1[0].register_forward_hook(lambda m, a, out: out * 2)
        model.layer1[1].conv2.register_forward_pre_hook(lambda m, a: (a[0] + 1,))
    for n in (1, 2, 1):
        step(both, "resnet", n)


# ---- several models


def test_a_gan_whose_critic_is_captured() -> None:
    critic, other = blocks(3), blocks(3)
    makers = [nn.Linear(4, 6), nn.Linear(4, 6)]
    makers[1].load_state_dict(makers[0].state_dict())
    captures = []
    for model in (critic, other):
        freezer = Freezer(split_layers(model))
        freezer.check = False
        freezer.set_depth(2)
        captures.append(freezer)
    capture = Capture.of(captures[1], Dictionary())
    for n in range(4):
        noise = torch.randn(4, 4, generator=torch.Generator().manual_seed(n % 2))
        for model, maker in zip((critic, other), makers, strict=True):
            model.zero_grad()
            maker.zero_grad()
            torch.manual_seed(n)
            (model(batch(9)).mean() - model(maker(noise)).mean()).backward()
        for p, q in zip(
            [*critic.parameters(), *makers[0].parameters()],
            [*other.parameters(), *makers[1].parameters()],
            strict=True,
        ):
            assert (p.grad is None) == (q.grad is None)
            assert p.grad is None or torch.equal(p.grad, q.grad)
    assert (capture.captured, capture.plain["an input needs a gradient"]) == (4, 4)


def test_two_captured_models_of_which_one_calls_the_other() -> None:
    def build() -> nn.Module:
        class Outer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.front = blocks(1)[0]
                self.inner = blocks(2)
                self.end = nn.Linear(3, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.end(self.inner(self.front(x)))

        torch.manual_seed(0)
        return Outer()

    both = Twins(build, lambda m: split_layers(m, layers=["front", "inner", "end"]), 2)
    inner = both.captured.inner
    second = Capture(inner, split_layers(inner), 1)
    for n in (1, 2, 1):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    assert both.capture.captured == 3
    second.close()


# ---- compiled


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_blocks() -> None:
    source = Dictionary()
    both = network("vit-timm", 2, source)
    for model in (both.plain, both.captured):
        for block in model.blocks:
            block.compile(backend="eager")
    both.capture.move(2)
    for n in (1, 2, 1, 2):
        step(both, "vit-timm", n)
    assert both.capture.captured == 4
    assert source.served
    assert all(block._compiled_call_impl is not None for block in both.captured.blocks)


@pytest.mark.parametrize("inside", [False, True])
def test_a_model_that_is_compiled_as_a_whole_is_not_captured_and_that_is_said(inside: bool) -> None:
    both = small_twins(CASES["plain"], Dictionary(), depth=0)
    whole = []
    for model in (both.plain, both.captured):
        if inside:
            model.compile(backend="eager")
            whole.append(model)
        else:
            whole.append(torch.compile(model, backend="eager"))
    with pytest.warns(FrozenPrefixWarning, match="compiled as a whole"):
        both.set_depth(2)
    for n in (1, 2, 1):
        one, other = (model(batch(n)) for model in whole)
        assert torch.equal(one, other)
    assert both.capture.captured == 0
