"""What people do with models while they train: a captured one stays bit for bit alike."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from freezeout import Freezer, FrozenPrefixWarning, split_layers
from freezeout.prefix import Capture
from tests.layers.test_networks import NETWORKS
from tests.prefix.dictionary import Dictionary
from tests.prefix.small import CASES, batch, small_twins
from tests.prefix.twins import Twins


def network(name: str, depth: int, source: Dictionary | None = None) -> Twins:
    found = NETWORKS[name]
    cut = max(found.cuts, key=lambda cut: cut.how == "example")
    return Twins(found.model, lambda m: found.split(cut, m, example=True), depth, source)


def step(both: Twins, name: str, n: int, **settings: Any) -> None:
    both.plain.load_state_dict(copy.deepcopy(both.captured.state_dict()))
    torch.manual_seed(n)
    both.agree(lambda model: NETWORKS[name].loss(model, n), **settings)


def blocks(count: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    made = [nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.1)) for _ in range(count)]
    return nn.Sequential(*made, nn.Linear(6, 3))


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


# ---- interruptions


def test_an_error_in_mid_pass_leaves_nothing() -> None:
    source = Dictionary()
    both = network("resnet", 3, source)
    step(both, "resnet", 1)
    untouched = state_of(both.captured)
    with pytest.raises(RuntimeError, match="channels"):
        both.captured(torch.randn(4, 5, 8, 8))
    assert source.events[-1] == "failed"
    assert state_of(both.captured) == untouched
    assert torch.overrides._get_current_function_mode_stack() == []
    for n in (1, 2, 1):
        step(both, "resnet", n)


def test_an_interrupt_in_mid_pass_leaves_nothing_once_the_model_is_called_again() -> None:
    stop = [False]

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.a(x)
        if stop[0]:
            raise KeyboardInterrupt
        return m.c(m.b(h))

    both = small_twins(forward, Dictionary())
    both.agree(lambda model: model(batch(1)).sum())
    for end in ("call", "function"):
        stop[0] = True
        with pytest.raises(KeyboardInterrupt):
            both.captured(batch(1))
        stop[0] = False
        if end == "call":
            both.captured(batch(1))
        assert type(torch.ones(2)) is type(both.captured.b(batch(1))) is torch.Tensor
        both.captured(batch(1))
        assert torch.overrides._get_current_function_mode_stack() == []
        assert not any("_compiled_call_impl" in m.__dict__ for m in both.captured.modules())
        both.agree(lambda model: model(batch(1)).sum())
    both.capture.close()
    assert torch.overrides._get_current_function_mode_stack() == []
    assert not any("_compiled_call_impl" in m.__dict__ for m in both.captured.modules())


def state_of(model: nn.Module) -> list[Any]:
    return [
        (name, {k: id(v) for k, v in vars(m).items()}, len(m._forward_hooks))
        for name, m in model.named_modules()
    ]


def test_copies_pickles_and_state_dicts_in_mid_pass_are_those_of_the_plain_model() -> None:
    made: dict[str, Any] = {}

    class Copying(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made["copy"] = copy.deepcopy(net[0])
            made["value"] = copy.deepcopy(x)
            made["state"] = net.state_dict()
            file = io.BytesIO()
            torch.save((net[0], x), file)
            file.seek(0)
            made["saved"], made["loaded"] = torch.load(file, weights_only=False)
            return x

    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Linear(6, 6), nn.ReLU()), Copying(), nn.Linear(6, 6), nn.Linear(6, 3)]
    net = nn.Sequential(*parts)
    freezer = Freezer(split_layers(net, layers=["0", "2", "3"]))
    freezer.check = False
    freezer.set_depth(2)
    capture = Capture.of(freezer, Dictionary())
    for _ in range(3):
        net(batch(1))
        expected = net[0](batch(1))
        for module in (made["copy"], made["saved"]):
            assert not any("_compiled_call_impl" in m.__dict__ for m in module.modules())
            assert torch.equal(module(batch(1)), expected)
        for value in (made["value"], made["loaded"]):
            assert type(value) is torch.Tensor
            assert torch.equal(value, expected)
        assert all(torch.equal(v, net.state_dict()[k]) for k, v in made["state"].items())
    assert capture.captured == 3


def test_a_copy_of_a_captured_model_is_not_captured() -> None:
    both = small_twins(CASES["plain"])
    both.agree(lambda model: model(batch(1)).sum())
    twin = copy.deepcopy(both.captured)
    file = io.BytesIO()
    torch.save(copy.deepcopy(both.captured).a, file)
    before = both.capture.captured
    twin(batch(1))
    assert both.capture.captured == before


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
    both = small_twins(CASES["plain"], Dictionary(), depth=1)
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


# ---- memory


def test_values_are_forgotten_when_the_pass_is_over() -> None:
    both = small_twins(CASES["plain"])
    for n in (1, 2):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    assert both.capture.last is not None
    assert list(both.capture.last.memory.values) == []
    assert both.capture.last.memory.lazies == []


def test_a_deep_prefix_is_computed_without_recursion_and_without_keeping_all_values() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
            self.most = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            for _ in range(3000):
                h = h * 1.0001
            return self.last(h)

    torch.manual_seed(0)
    both = Twins(Deep, split_layers, 1)
    for n in (1, 2):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    assert both.capture.last is not None
    assert both.capture.last.memory.values.computed == 3001
    assert both.capture.last.memory.values.most == 2


def test_nothing_is_computed_that_nobody_needs() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.a(x)
        m.b(h)
        return m.c(h) if x.shape[0] == 4 else m.c(m.b(h))

    both = small_twins(forward)
    for n in (1, 2):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    assert both.capture.last is not None
    assert both.capture.last.memory.values.computed == 1


# ---- boundaries


def test_moving_on_meets_the_rows_of_the_boundary_before() -> None:
    source = Dictionary()
    both = network("resnet", 2, source)
    step(both, "resnet", 1)
    for depth in (3, 4, 5):
        both.set_depth(depth)
        step(both, "resnet", 7)  # a new plan records: all is computed once more
        source.events.clear()
        step(both, "resnet", 1)
        assert source.served, depth
        assert both.capture.last is not None
        assert both.capture.last.memory.values.computed <= 4
    for depth in (2, 4, 0, 1):
        both.set_depth(depth)
        step(both, "resnet", 1)
        step(both, "resnet", 1)


def test_values_are_handed_to_the_source_before_active_code_changes_them() -> None:
    source = Dictionary()
    both = small_twins(CASES["active_code_writes_into_what_it_gets"], source)
    for n in (1, 2, 1, 2):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    expected = F.linear(batch(1), both.captured.a.weight, both.captured.a.bias)
    assert any(torch.equal(value, expected) for value in source.table.values())
    assert [e for e in source.events if not e.startswith("made")] == ["begin", "end"] * 4


def test_a_boundary_has_the_types_and_strides_of_the_plain_pass() -> None:
    seen: list[list[Any]] = [[], []]

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.a(x).t().contiguous().t()
        wide = m.b(h)[:, ::2].repeat(1, 2).expand(2, 4, 6)
        return m.c(h) + m.c(wide.to(torch.float64).float()).sum(0)

    class Transposing(Dictionary):
        def get(self, node: Any) -> torch.Tensor | None:
            value = super().get(node)
            if value is None:
                return None
            return value.double().mT.contiguous().mT

    both = small_twins(forward, Transposing())
    for model, told in zip((both.plain, both.captured), seen, strict=True):
        model.c.register_forward_pre_hook(
            lambda m, a, t=told: t.append((a[0].stride(), a[0].dtype, a[0].shape, type(a[0])))
        )
    for n in (1, 2, 1, 2):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    assert seen[0] == seen[1]


# ---- weights


def test_weights_that_change_between_passes_are_noticed() -> None:
    source = Dictionary()
    both = small_twins(CASES["in_place_between"], source)

    def all_agree() -> None:
        for n in (1, 2, 1, 2, 1):
            both.agree(lambda model, n=n: model(batch(n)).sum())

    all_agree()
    state = {k: v * 1.5 for k, v in both.plain.state_dict().items()}
    for model in (both.plain, both.captured):
        model.load_state_dict(state)
    all_agree()
    for model in (both.plain, both.captured):
        model.load_state_dict({k: v * 0.5 for k, v in state.items()}, assign=True)
    all_agree()
    for model in (both.plain, both.captured):
        model.a = copy.deepcopy(model.b)
    all_agree()
    for model in (both.plain, both.captured):
        model.double()
    for n in (1, 1):
        both.agree(lambda model, n=n: model(batch(n).double()).sum())
    for model in (both.plain, both.captured):
        model.float()
        model.train()
        model.eval()
        model.train()
    all_agree()


def test_what_moves_again_and_again_counts_as_active_and_that_is_said() -> None:
    both = small_twins(CASES["plain"], Dictionary())
    with pytest.warns(FrozenPrefixWarning, match="again and again .*a.weight"):
        for n in (1, 1, 1, 1, 1):
            both.agree(lambda model, n=n: model(batch(n)).sum())
            for model in (both.plain, both.captured):
                with torch.no_grad():
                    model.a.weight.mul_(0.9)
    assert both.capture.last is not None
    assert [node.name for node in both.capture.last.boundary] == []


def test_parts_that_are_put_into_frozen_layers_learn() -> None:
    class Added(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.own = inner, nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) + self.own(x)

    both = Twins(blocks, split_layers, 3, Dictionary())
    for n in (1, 1):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    for model in (both.plain, both.captured):
        torch.manual_seed(3)
        model[1][0] = Added(model[1][0])
    for n in (1, 1):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    assert both.captured[1][0].own.weight.grad is not None


def test_thawing_takes_everything_back() -> None:
    both = small_twins(CASES["plain"], Dictionary())
    for n in (1, 1):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    both.set_depth(0)
    before = both.capture.captured
    for n in (1, 1):
        both.agree(lambda model, n=n: model(batch(n)).sum())
        assert both.captured.a.weight.grad is not None
    assert both.capture.captured == before
    both.close()
    assert not both.captured._forward_hooks
    assert not both.captured._forward_pre_hooks
    both.set_depth(1)
    both.agree(lambda model: model(batch(1)).sum())
    assert both.capture.captured == before


def test_the_pass_that_is_checked_after_a_freeze_runs_as_ever() -> None:
    both = small_twins(CASES["plain"], depth=0)
    for freezer in both.freezers:
        freezer.check = True
    both.set_depth(2)
    for n in (1, 2, 1):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    assert all(freezer.verified for freezer in both.freezers)
    assert both.capture.captured == 2
    assert both.capture.plain == {"it is checked, as the first after a freeze is": 1}


# ---- limits


def test_plans_that_grow_with_every_pass_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freezeout.prefix.nodes.MOST_NODES", 20)

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.a(x)
        return m.c(m.b(h * float(h.max())))

    both = small_twins(forward)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(12):
            both.agree(lambda model, n=n: model(batch(n)).sum())
    assert ["plain arguments" in str(w.message) for w in caught] == [True]
    assert both.capture.plain["refused"] >= 3


def test_plans_of_old_signatures_go() -> None:
    both = small_twins(CASES["plain"])
    for rows in range(1, 40):
        both.agree(lambda model, rows=rows: model(batch(1, rows)).sum())
    assert len(both.capture._plans) == 16


def test_other_threads_run_the_model_as_ever() -> None:
    import threading

    results: list[torch.Tensor] = []

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.a(x)
        if threading.current_thread() is threading.main_thread() and m is both.captured:
            with contextlib.suppress(RuntimeError):
                thread = threading.Thread(target=lambda: results.append(m.b(batch(5))))
                thread.start()
                thread.join()
        return m.c(m.b(h))

    both = small_twins(forward, Dictionary())
    for n in (1, 2, 1):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    assert len(results) == 3
    assert all(torch.equal(r, both.plain.b(batch(5))) for r in results)
