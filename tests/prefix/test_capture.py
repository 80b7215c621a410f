"""How a capture begins, ends, is interrupted, moves on, and what it leaves behind."""

from __future__ import annotations

import copy
import gc
import io
import threading
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import FreezeOutError, Freezer, FrozenPrefixWarning, split_layers
from freezeout.prefix import Capture
from tests.prefix.dictionary import Dictionary
from tests.prefix.small import CASES, batch, small_twins
from tests.prefix.steps import blocks, network, step
from tests.prefix.twins import Twins

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
        model.b.weight.data = model.b.weight.data * 2  # which no version shows
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
        move_in_every_pass(both)
    assert both.capture.last is not None
    assert [node.name for node in both.capture.last.boundary] == []


@torch.no_grad()
def move_in_every_pass(both: Twins) -> None:
    for _ in range(5):
        with torch.enable_grad():
            both.agree(lambda model: model(batch(1)).sum())
        for model in (both.plain, both.captured):
            model.a.weight.mul_(0.9)


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
    results: list[torch.Tensor] = []

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.a(x)
        if threading.current_thread() is threading.main_thread() and m is both.captured:
            thread = threading.Thread(
                target=lambda: results.append(m(batch(5)) + m.b(batch(5))[0, 0])
            )
            thread.start()
            thread.join()
        return m.c(m.b(h))

    both = small_twins(forward, Dictionary())
    for n in (1, 2, 1):
        both.agree(lambda model, n=n: model(batch(n)).sum())
    expected = both.plain(batch(5)) + both.plain.b(batch(5))[0, 0]
    assert len(results) == 3
    assert all(torch.equal(r, expected) for r in results)
    assert both.capture.captured == 3


def test_a_frozen_part_that_begins_to_draw_is_said_to_and_runs_in_its_place_from_then_on() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.map(x + torch.rand(6) if x[0, 0] > 0 else x)

    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(Sometimes(), nn.Linear(6, 6), nn.Linear(6, 3))

    both = Twins(build, lambda m: split_layers(m, layers=["0", "1", "2"]), 2)
    calm, wild = -batch(1).abs(), batch(2).abs()
    for _ in range(2):
        both.agree(lambda model: model(calm).sum())
    with pytest.raises(FreezeOutError, match="drew random numbers and did not before"):
        both.captured(wild)
    for x in (wild, calm, wild):
        both.agree(lambda model, x=x: model(x).sum())


class Drawing(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 6)
        self.own = torch.Generator().manual_seed(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.map(x + torch.rand(6, generator=self.own))


class Counting(nn.Module):
    """Counts its calls, and does something else in every second one."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 6)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.map(x * (1 + self.calls % 2))


@pytest.mark.parametrize("part", [Drawing, Counting])
@pytest.mark.parametrize("served", [False, True])
def test_frozen_parts_with_a_memory_run_in_every_pass(part: type[nn.Module], served: bool) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(part(), nn.Linear(6, 6), nn.Linear(6, 3))

    both = Twins(
        build,
        lambda m: split_layers(m, layers=["0", "1", "2"]),
        2,
        Dictionary() if served else None,
    )
    for _ in range(6):
        both.agree(lambda model: model(batch(1)).sum())
    assert both.capture.captured == 6


def test_inference_mode_inside_a_pass() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.a(x)
        with torch.inference_mode():
            most = float(m.b(h).max())
        return m.c(m.b(h) + most)

    both = small_twins(forward, Dictionary())
    for n in (1, 2, 1):
        both.agree(lambda model, n=n: model(batch(n)).sum())


def test_a_pass_holds_no_batch_when_it_is_over() -> None:
    both = small_twins(CASES["keeps_something"])
    x = batch(1)
    for _ in range(2):
        both.agree(lambda model: model(x).sum())
    assert both.capture.last is not None
    assert both.capture.last.inputs == ()
    assert not [
        holder for holder in gc.get_referrers(x) if isinstance(holder, dict) and 0 in holder
    ]


class Store:
    """Keeps keys and values, as the cache of a decoder does."""

    def __init__(self) -> None:
        self.kept: torch.Tensor | None = None


def test_what_an_object_keeps_is_computed_when_somebody_asks_even_when_all_has_changed() -> None:
    stores = (Store(), Store())

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        stores[m is both.captured].kept = m.b(m.a(x))
        return m.c(x)

    both = small_twins(forward)
    for change in ("nothing", "input", "boundary", "close"):
        for _ in range(2):
            x = batch(1)
            both.agree(lambda model, x=x: model(x).sum())
        assert both.capture.last is not None
        assert both.capture.last.memory.values.computed == 0
        if change == "input":
            x.zero_()
        elif change == "boundary":
            both.set_depth(1)
            with torch.no_grad():
                for model in (both.plain, both.captured):
                    model.b.weight.zero_()
        elif change == "close":
            both.capture.close()
        one, other = (store.kept for store in stores)
        assert torch.equal(one, other)
        assert torch.equal(one * 2, other * 2)
        both.set_depth(2)


def test_what_an_object_keeps_is_refused_once_frozen_weights_have_changed_unseen() -> None:
    store = Store()

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        store.kept = m.b(m.a(x))
        return m.c(x)

    both = small_twins(forward)
    for _ in range(2):
        both.captured(batch(1))
    with torch.no_grad():
        both.captured.a.weight.mul_(2)
    assert store.kept is not None
    with pytest.raises(FreezeOutError, match="frozen weights have changed since"):
        store.kept.sum()
