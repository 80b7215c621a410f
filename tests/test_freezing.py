"""`Freezer`: what freezing does to a model, what it leaves alone, that the backward pass stops."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from contracts import (
    bits,
    differing,
    flags,
    hooks,
    make_batch,
    make_net,
    modes,
    snapshot,
)
from freezeout import (
    FreezeEvent,
    Freezer,
    FrozenPrefixWarning,
    PrefixError,
    split_layers,
    unfreeze,
)


def make(depth: int = 0, **options: Any) -> tuple[Any, Freezer]:
    model = make_net()
    freezer = Freezer(split_layers(model), **options)
    freezer.set_depth(depth)
    return model, freezer


def backward(model: nn.Module, n: int = 0) -> None:
    x, y = make_batch("conv", n)
    F.cross_entropy(model(x), y).backward()


def expected_flags(model: nn.Module, depth: int) -> dict[str, bool]:
    layers = split_layers(model)
    return {name: layers.index_of(p) >= depth for name, p in model.named_parameters()}


def expected_modes(model: nn.Module, depth: int, mode: bool = True) -> dict[str, bool]:
    frozen = tuple(f"blocks.{i}" for i in range(depth))
    if depth == len(model.blocks):
        frozen += ("blocks",)  # the container goes with the last block in it
    return {name: mode and not name.startswith(frozen or ("-",)) for name in modes(model)}


# Flags and modes


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_exactly_the_first_layers_freeze(depth: int) -> None:
    model, freezer = make(depth)
    assert freezer.depth == depth
    assert flags(model) == expected_flags(model, depth)
    assert modes(model) == expected_modes(model, depth)
    before = snapshot(make_net())
    assert differing(snapshot(model), before) == []
    freezer.unfreeze()
    assert freezer.depth == 0
    assert all(flags(model).values())
    assert all(modes(model).values())


def test_inference_mode_survives_every_call_of_train_and_eval() -> None:
    model, freezer = make(2)
    for call in (
        lambda: model.train(),
        lambda: model.eval().train(),
        lambda: model.blocks.train(),
        lambda: model.blocks[0].train(),
        lambda: model.blocks[0].norm.train(True),
        lambda: model.blocks[1].drop.train(),
    ):
        call()
        assert modes(model) == expected_modes(model, 2)
    assert model.train() is model
    assert model.blocks[0].train() is model.blocks[0]
    model.eval()
    assert not any(modes(model).values())
    freezer.unfreeze()
    assert not any(modes(model).values())
    freezer.set_depth(2)
    model.train()
    freezer.unfreeze()
    assert all(modes(model).values())
    with pytest.raises(ValueError, match="boolean"):
        make(1)[0].blocks[0].train("yes")


def test_modes_set_by_hand_come_back() -> None:
    model = make_net()
    model.blocks[0].norm.eval()
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    model.blocks[1].norm.eval()
    freezer.unfreeze()
    off = [name for name, training in modes(model).items() if not training]
    assert off == ["blocks.0.norm", "blocks.1.norm"]


class FixedNorm(nn.Module):
    """A block that keeps its normalisation in evaluation mode, as detection backbones do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.calls: list[bool] = []

    def train(self, mode: bool = True) -> FixedNorm:
        self.calls.append(mode)
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.linear(x)))


class Stubborn(nn.Linear):
    """Writes the flag of itself directly, whatever it is asked."""

    def train(self, mode: bool = True) -> Stubborn:
        self.training = True
        return self


def test_a_train_method_of_the_users_own_is_still_called_and_has_its_way_after_unfreezing() -> None:
    model = nn.Sequential(FixedNorm(), FixedNorm(), nn.Linear(4, 2)).train()
    freezer = Freezer(split_layers(model, layers=["0", "1", "2"]))
    freezer.set_depth(1)
    model[0].calls.clear()
    model.eval()
    model.train()
    assert model[0].calls == [False, True]
    frozen = [name for name in modes(model) if name.startswith("0")]
    assert not any(modes(model)[name] for name in frozen)
    freezer.unfreeze()
    assert modes(model)["0"]
    assert modes(model)["0.linear"]
    assert not modes(model)["0.norm"]
    assert modes(model) == modes(nn.Sequential(FixedNorm(), FixedNorm(), nn.Linear(4, 2)).train())


def test_a_train_method_that_writes_flags_itself_does_not_thaw() -> None:
    model = nn.Sequential(Stubborn(4, 4), nn.Linear(4, 2))
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    model.train()
    assert [m.training for m in model] == [False, True]
    model.eval()
    assert [m.training for m in model] == [False, False]
    freezer.unfreeze()
    assert [m.training for m in model] == [True, False]


class Deaf(nn.Linear):
    """Keeps its mode, whatever it is asked."""

    def train(self, mode: bool = True) -> Deaf:
        return self


def test_a_train_method_that_does_nothing_finds_its_mode_again() -> None:
    model = nn.Sequential(Deaf(4, 4), nn.Linear(4, 2))
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    model.eval()
    model.train()
    assert [m.training for m in model] == [False, True]
    freezer.unfreeze()
    assert [m.training for m in model] == [True, True]


def test_a_train_attribute_of_the_instance_is_put_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    calls = []

    def own(mode: bool = True) -> nn.Module:
        calls.append(mode)
        return nn.Module.train(model[0], mode)

    model[0].__dict__["train"] = own
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    model.train()
    assert calls == [True]
    assert not model[0].training
    freezer.unfreeze()
    assert model[0].__dict__["train"] is own
    assert model[0].training
    assert "train" not in model[1].__dict__


def test_parameters_frozen_by_design_stay_so() -> None:
    model = make_net()
    model.blocks[0].norm.weight.requires_grad_(False)
    model.blocks[1].requires_grad_(False)
    before = flags(model)
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    assert [name for name, flag in flags(model).items() if flag] == ["head.weight", "head.bias"]
    freezer.unfreeze()
    assert flags(model) == before
    assert not all(before.values())


def test_flags_toggled_while_frozen_end_as_they_began() -> None:
    model, freezer = make(1)
    model.requires_grad_(True)
    freezer.set_depth(0)
    assert all(flags(model).values())
    freezer.set_depth(1)
    model.requires_grad_(False)
    freezer.set_depth(0)
    assert flags(model) == {name: name.startswith("blocks.0") for name in flags(model)}


def test_refreezing_after_unfreezing_knows_new_designs() -> None:
    model, freezer = make(1)
    freezer.unfreeze()
    model.blocks[0].conv.requires_grad_(False)
    freezer.set_depth(1)
    freezer.unfreeze()
    assert [name for name, flag in flags(model).items() if not flag] == ["blocks.0.conv.weight"]


@pytest.mark.parametrize("depth", [4, -1])
def test_a_depth_out_of_range_is_refused_and_changes_nothing(depth: int) -> None:
    model, freezer = make(1)
    with pytest.raises(ValueError, match=rf"depth must lie in 0 to 3, got {depth}\."):
        freezer.set_depth(depth)
    assert freezer.depth == 1
    assert flags(model) == expected_flags(model, 1)


@pytest.mark.parametrize("depth", [1.0, True, "1", None])
def test_a_depth_must_be_a_whole_number(depth: Any) -> None:
    with pytest.raises(TypeError, match="whole number from 0 to 3"):
        make()[1].set_depth(depth)


# Gradients, optimizer state, bits


def test_gradients_and_state_of_frozen_layers_go_and_others_stay() -> None:
    model = make_net()
    optimizer = torch.optim.AdamW(model.parameters())
    freezer = Freezer(split_layers(model), optimizer)
    backward(model)
    optimizer.step()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    states = {name: optimizer.state[p] for name, p in model.named_parameters()}
    freezer.set_depth(2)
    for name, p in model.named_parameters():
        if name.startswith(("blocks.0", "blocks.1")):
            assert p.grad is None
            assert p not in optimizer.state
        else:
            assert p.grad is gradients[name]
            assert optimizer.state[p] is states[name]
    assert len(optimizer.param_groups) == 1
    assert len(optimizer.param_groups[0]["params"]) == len(gradients)


def test_zero_grad_does_not_bring_gradients_back() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    freezer = Freezer(split_layers(model), optimizer)
    backward(model)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    freezer.set_depth(1)
    before = snapshot(model)
    for n in range(3):
        optimizer.zero_grad(set_to_none=False)
        model.train()
        backward(model, n)
        optimizer.step()
    changed = differing(before, snapshot(model))
    assert changed == [name for name in before if not name.startswith("blocks.0")]


def test_power_iterations_of_a_frozen_spectral_norm_stand_still() -> None:
    norm = nn.utils.parametrizations.spectral_norm
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.Linear(4, 4)), nn.ReLU(), norm(nn.Linear(4, 2)))
    freezer = Freezer(split_layers(model, layers=["0", "2"]))
    freezer.set_depth(1)
    before = snapshot(model)
    model.train()
    model(torch.randn(3, 4)).sum().backward()
    changed = differing(before, snapshot(model))
    assert changed
    assert all(name.startswith("2.") for name in changed)


# The backward pass stops


class Packed:
    """Counts bytes saved for backward, apart for what happens before a module has run."""

    def __init__(self, boundary: nn.Module) -> None:
        self.before = self.after = 0
        self._passed = False
        self._handle = boundary.register_forward_hook(self._pass)
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda t: t)

    def _pass(self, *args: Any) -> None:
        self._passed = True

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._passed:
            self.after += tensor.nbytes
        else:
            self.before += tensor.nbytes
        return tensor

    def __enter__(self) -> Packed:
        self._hooks.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        self._hooks.__exit__(*args)
        self._handle.remove()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_prefix_saves_nothing_for_backward(depth: int) -> None:
    model, freezer = make()
    x, _ = make_batch("conv", 0)
    boundary = model.blocks[depth - 1]
    with Packed(boundary) as free:
        model(x)
    freezer.set_depth(depth)
    with Packed(boundary) as frozen:
        model(x)
    assert free.before > 0
    assert frozen.before == 0
    assert 0 < frozen.after <= free.after


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_the_graph_ends_at_active_parameters(depth: int) -> None:
    model, freezer = make(depth)
    reached: list[torch.Tensor] = []
    boundary: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, output: boundary.append(output))
    stack, seen = [model(make_batch("conv", 0)[0]).grad_fn], set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if hasattr(node, "variable"):
                reached.append(node.variable)
            stack += [parent for parent, _ in node.next_functions]
    active = [p for layer in freezer.layers[depth:] for _, p in layer.parameters]
    assert {id(p) for p in reached} == {id(p) for p in active}
    assert [t.grad_fn is None for t in boundary] == [i < depth for i in range(3)]


class Count(TorchDispatchMode):
    """Counts the operators of a backward pass by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_operators_of_the_backward_pass(depth: int) -> None:
    model, _ = make(depth)
    x, y = make_batch("conv", 0)
    loss = F.cross_entropy(model(x), y)
    with Count() as count:
        loss.backward()
    assert count.names.count("convolution_backward") == 3 - depth
    assert sum("batch_norm_backward" in name for name in count.names) == 3 - depth


# Listeners


def test_listeners_are_told_of_every_change_in_order() -> None:
    _, freezer = make()
    told: list[FreezeEvent] = []
    also: list[FreezeEvent] = []
    remove = freezer.add_listener(told.append)
    freezer.add_listener(also.append)
    freezer.set_depth(2, step=7)
    freezer.set_depth(2, step=8)
    freezer.set_depth(1, step=9)
    freezer.unfreeze()
    assert told == [
        FreezeEvent(True, 0, "blocks.0", 7),
        FreezeEvent(True, 1, "blocks.1", 7),
        FreezeEvent(False, 1, "blocks.1", 9),
        FreezeEvent(False, 0, "blocks.0", None),
    ]
    remove()
    remove()
    freezer.set_depth(1)
    assert len(told) == 4
    assert also == [*told, FreezeEvent(True, 0, "blocks.0", None)]


def test_listeners_see_the_layer_already_changed() -> None:
    model, freezer = make()
    seen = []
    freezer.add_listener(lambda e: seen.append((freezer.depth, model.blocks[e.index].training)))
    freezer.set_depth(2)
    freezer.set_depth(1)
    assert seen == [(1, False), (2, False), (1, True)]


def test_a_listener_may_remove_itself() -> None:
    _, freezer = make()
    seen = []

    def once(event: FreezeEvent) -> None:
        seen.append(event.index)
        remove()

    remove = freezer.add_listener(once)
    others: list[int] = []
    freezer.add_listener(lambda event: others.append(event.index))
    freezer.set_depth(2)
    assert seen == [0]
    assert others == [0, 1]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["train", "eval"])), max_size=8))
def test_where_one_ends_does_not_depend_on_the_way(path: list[int | str]) -> None:
    model, freezer = make()
    events: list[FreezeEvent] = []
    freezer.add_listener(events.append)
    depth, mode, expected = 0, True, []
    for n, move in enumerate(path):
        if isinstance(move, str):
            mode = move == "train"
            model.train(mode)
            continue
        freezer.set_depth(move, step=n)
        told = len(events)
        freezer.set_depth(move, step=n)
        assert len(events) == told
        expected += [(True, i) for i in range(depth, move)]
        expected += [(False, i) for i in reversed(range(move, depth))]
        depth = move
    assert [(e.frozen, e.index) for e in events] == expected
    assert flags(model) == expected_flags(model, depth)
    assert modes(model) == expected_modes(model, depth, mode)
    backward(model)
    assert hooks(model) == 0
    freezer.unfreeze()
    assert all(flags(model).values())
    assert set(modes(model).values()) == {mode}
    traces = {key for m in model.modules() for key in m.__dict__ if "freezeout" in key}
    assert traces == set()
    assert all("train" not in m.__dict__ for m in model.modules())


# Copies, saving and loading


def through_a_file(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize("pending", [True, False])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_a_file])
def test_a_copy_is_frozen_and_independent(
    duplicate: Callable[[nn.Module], nn.Module], pending: bool
) -> None:
    model = make_net()
    optimizer = torch.optim.Adam(model.parameters())
    freezer = Freezer(split_layers(model), optimizer)
    freezer.set_depth(2)
    if not pending:
        backward(model)
    twin: Any = duplicate(model)
    assert differing(snapshot(model), snapshot(twin)) == []
    twin.train()
    assert flags(twin) == expected_flags(model, 2)
    assert modes(twin) == expected_modes(model, 2)
    backward(twin)
    assert freezer.verified is not pending
    assert twin.blocks[0].train.__dict__["module"] is twin.blocks[0]

    unfreeze(twin)
    assert all(flags(twin).values())
    assert all(modes(twin).values())
    assert hooks(twin) == 0
    assert flags(model) == expected_flags(model, 2)
    assert modes(model) == expected_modes(model, 2)

    freezer.unfreeze()
    Freezer(split_layers(twin)).set_depth(1)
    assert flags(twin) == expected_flags(twin, 1)
    assert all(flags(model).values())


@pytest.mark.parametrize("pending", [True, False])
def test_neither_freezer_nor_optimizer_are_dragged_into_a_pickle(pending: bool) -> None:
    model = make_net()
    freezer = Freezer(split_layers(model), torch.optim.Adam(model.parameters()))
    freezer.add_listener(lambda event: None)  # would not pickle
    freezer.set_depth(2)
    if not pending:
        backward(model)
    data = pickle.dumps(model)
    assert b"torch.optim" not in data
    assert b"Freezer" not in data
    assert (b"freezeout._hooks" in data) is pending
    assert b"_StayInEval" in data


def test_the_models_state_has_the_usual_keys_and_loads_strictly() -> None:
    model, _ = make(2)
    assert list(model.state_dict()) == list(make_net().state_dict())
    other, _ = make()
    torch.manual_seed(3)
    other.blocks[0].conv.reset_parameters()
    assert differing(snapshot(other), snapshot(model)) == ["blocks.0.conv.weight"]
    assert not any(model.load_state_dict(other.state_dict(), strict=True))
    assert differing(snapshot(other), snapshot(model)) == []
    assert flags(model) == expected_flags(model, 2)
    assert not any(other.load_state_dict(model.state_dict(), strict=True))
    assert all(flags(other).values())
    assert all(modes(other).values())


def test_a_new_freezer_starts_from_nothing_frozen() -> None:
    model, _ = make(3)
    again = Freezer(split_layers(model))
    assert again.depth == 0
    assert all(flags(model).values())
    assert all(modes(model).values())


def test_a_pending_check_of_an_earlier_freezer_is_forgotten() -> None:
    model, _ = make(2, strict=True)
    assert hooks(model) > 0
    Freezer(split_layers(model))
    assert hooks(model) == 0
    backward(model)
    assert model.blocks[0].conv.weight.grad is not None


def test_unfreeze_leaves_other_models_alone() -> None:
    model = make_net()
    model.blocks[0].requires_grad_(False)
    model.blocks[1].eval()
    model.head.register_forward_hook(lambda *args: None)
    before = (flags(model), modes(model), hooks(model))
    unfreeze(model)
    assert (flags(model), modes(model), hooks(model)) == before
    assert before[2] == 1


def test_averages_of_weights_keep_averaging() -> None:
    model, freezer = make()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    average.update_parameters(model)
    with torch.no_grad():
        for p in model.parameters():
            p += 1.0
    freezer.set_depth(2)
    for _ in range(40):
        average.update_parameters(model)
    for p, q in zip(model.parameters(), average.module.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5)
        assert q.requires_grad
    assert all(modes(average).values())

    late = AveragedModel(model)
    assert modes(late.module.train()) == expected_modes(model, 2)
    unfreeze(late)
    assert all(modes(late).values())
    assert modes(model) == expected_modes(model, 2)


# The check of the boundary


class Graph(nn.Module):
    """Layers defined as a, b, c, head but executed in a given order."""

    def __init__(self, order: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.order:
            x = torch.tanh(self.get_submodule(name)(x))
        return self.head(x)


def test_a_true_prefix_passes_in_silence_and_leaves_no_hook() -> None:
    model, freezer = make(strict=True)
    assert freezer.verified
    for depth in (1, 3):
        freezer.set_depth(depth)
        assert not freezer.verified
        assert hooks(model) > 0
        backward(model)
        assert freezer.verified
        assert hooks(model) == 0
    freezer.set_depth(0)
    assert freezer.verified
    assert hooks(model) == 0


def test_what_was_verified_stays_so_until_the_next_freeze() -> None:
    model, freezer = make(1)
    backward(model)
    freezer.set_depth(1)
    assert freezer.verified
    assert hooks(model) == 0
    freezer.set_depth(2)
    assert not freezer.verified
    assert hooks(model) > 0


def test_an_evaluation_first_does_not_fool_it() -> None:
    model = Graph("bac")
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            model(torch.ones(2, 4))
        assert not freezer.verified
        assert hooks(model) > 0
    with pytest.raises(PrefixError):
        model(torch.ones(2, 4))


def test_the_culprit_is_named_once_and_training_goes_on() -> None:
    model = Graph("bac")
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    with pytest.warns(FrozenPrefixWarning) as caught:
        model(torch.ones(2, 4)).sum().backward()
    (message,) = [str(w.message) for w in caught]
    assert message.startswith(
        "layer 0 ('a') is frozen, but its output still needs a gradient, because of active "
        "parameters that feed it: 'b."
    )
    assert "(layer 1)" in message
    assert "layers=..." in message
    assert model.a.weight.grad is None
    assert model.b.weight.grad is not None
    assert not freezer.verified
    assert hooks(model) == 0
    freezer.set_depth(0)
    freezer.set_depth(1)
    assert hooks(model) > 0
    model(torch.ones(2, 4))  # says the same thing once only


def test_strict_raises_and_the_pass_after_it_runs() -> None:
    model = Graph("bac")
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match=r"layer 0 \('a'\) is frozen"):
        model(torch.ones(2, 4))
    model(torch.ones(2, 4)).sum().backward()
    assert not freezer.verified
    freezer.set_depth(2)  # b comes before a: now all of the prefix comes first
    model(torch.ones(2, 4)).sum().backward()
    assert freezer.verified


def test_it_looks_at_every_frozen_layer_not_only_at_the_last() -> None:
    """Frozen are c and a, in the order of definition; executed first is a, then b, then c."""
    model = Graph("abc")
    freezer = Freezer(split_layers(model, layers=["c", "a", "b", "head"]), strict=True)
    freezer.set_depth(2)
    with pytest.raises(PrefixError, match=r"layer 0 \('c'\).*'b\.(weight|bias)' \(layer 2\)"):
        model(torch.ones(2, 4))


def test_a_layer_that_never_runs_is_not_called_verified_and_leaves_no_hook() -> None:
    model = Graph("bc")
    freezer = Freezer(split_layers(model))
    freezer.set_depth(2)
    model(torch.ones(2, 4))
    assert hooks(model) == 0
    assert not freezer.verified  # nobody saw what layer "a" gives


def test_the_order_of_execution_from_an_example_passes() -> None:
    model = Graph("bac")
    freezer = Freezer(split_layers(model, example=torch.ones(2, 4)), strict=True)
    freezer.set_depth(1)
    model(torch.ones(2, 4))
    assert freezer.verified
    assert not model.b.weight.requires_grad
    assert model.a.weight.requires_grad


def test_an_input_that_requires_a_gradient_is_named() -> None:
    model, _ = make(1)
    x = make_batch("conv", 0)[0].requires_grad_()
    with pytest.warns(FrozenPrefixWarning, match=r"an input of shape \(4, 2, 4, 4\) that itself"):
        model(x)
    model, _ = make(1, strict=True)
    with pytest.raises(PrefixError, match="an input of shape"):
        model(x)


@pytest.mark.parametrize("first", ["discriminator", "generator"])
@pytest.mark.parametrize("parts", [False, True])
def test_the_generator_s_pass_through_a_discriminator_is_passed_over(
    first: str, parts: bool
) -> None:
    """Training goes on as without freezing, and only a pass of real data shows the cut."""
    torch.manual_seed(1)
    generator, model = nn.Linear(3, 4), Graph("abc")
    twin, plain = copy.deepcopy(generator), copy.deepcopy(model)
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(2)

    def judge(x: torch.Tensor) -> torch.Tensor:
        return Graph.forward(model, x) if parts else model(x)

    noise, real = torch.randn(5, 3), torch.randn(5, 4)
    for turn in range(2):
        if turn or first == "generator":
            judge(generator(noise)).mean().backward()
            assert not freezer.verified or turn
            assert freezer.verified or hooks(model) > 0
        judge(real).mean().backward()
        judge(generator(noise).detach()).mean().backward()
        assert freezer.verified
        assert hooks(model) == 0
    plain(twin(noise)).mean().backward()
    times = 2 if first == "generator" else 1
    torch.testing.assert_close(generator.weight.grad, times * twin.weight.grad)
    assert model.a.weight.grad is model.b.weight.grad is None
    assert model.c.weight.grad is not None


@pytest.mark.parametrize("strict", [False, True])
def test_where_another_module_always_feeds_the_model_it_is_told_in_the_end(strict: bool) -> None:
    before, model = nn.Linear(3, 4), Graph("abc")
    freezer = Freezer(split_layers(model), strict=strict)
    freezer.set_depth(1)
    for _ in range(99):
        model(before(torch.ones(2, 3)))
        assert hooks(model) > 0
    message = (
        r"^layer 0 \('a'\) is frozen, but its output still needs a gradient, because of parameters "
        r"of another module that fed the model in 100 passes in a row\. The backward pass goes on "
        r"through frozen layers, so less is saved\. Gradients are right\. To save it all, put both "
        r"in one model and cut that\.$"
    )
    with (
        pytest.raises(PrefixError, match=message)
        if strict
        else pytest.warns(FrozenPrefixWarning, match=message)
    ):
        model(before(torch.ones(2, 3)))
    assert hooks(model) == 0
    assert not freezer.verified
    model(before(torch.ones(2, 3)))


def test_an_active_layer_in_the_way_is_named_also_where_another_module_feeds_the_model() -> None:
    before, model = nn.Linear(3, 4), Graph("bac")
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match=r"active parameters that feed it: 'b\.(weight|bias)'"):
        model(before(torch.ones(2, 3)))
    assert hooks(model) == 0


def test_frozen_parameters_made_to_require_a_gradient_again_are_named() -> None:
    model, _ = make(2, strict=True)
    model.requires_grad_(True)
    with pytest.raises(PrefixError, match=r"require a gradient again: 'blocks\.0\."):
        backward(model)


@pytest.mark.parametrize("wrap", [lambda t: (None, [t]), lambda t: {"y": t}, lambda t: [(t,)]])
def test_outputs_may_be_nested(wrap: Callable[[torch.Tensor], Any]) -> None:
    class Wraps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> Any:
            return wrap(self.inner(x))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.first, self.head = nn.Linear(4, 4), Wraps(), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = self.first(self.early(x))
            while not isinstance(found, torch.Tensor):
                found = found["y"] if isinstance(found, dict) else found[-1]
            return self.head(found)

    model = Net()
    freezer = Freezer(split_layers(model, layers=["first", "early", "head"]), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match="layer 0 "):
        model(torch.ones(2, 4))
    freezer = Freezer(split_layers(model, layers=["early", "first", "head"]), strict=True)
    freezer.set_depth(2)
    model(torch.ones(2, 4))
    assert freezer.verified


# Company


def test_activation_checkpointing_keeps_gradients() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.net.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return self.net.head(x.mean((2, 3)))

    names = ["net.blocks.0", "net.blocks.1", "net.blocks.2", "net.head"]
    model, (plain, _) = Checkpointed(), make(1)
    freezer = Freezer(split_layers(model, layers=names), strict=True)
    freezer.set_depth(1)
    for net in (model, plain):
        torch.manual_seed(5)
        backward(net)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None and q.grad is not None:
            assert torch.equal(bits(p.grad), bits(q.grad))
    assert freezer.verified
    assert hooks(model) == 0


@pytest.mark.parametrize("fullgraph", [True, False])
def test_compiled_models_keep_their_gradients_across_a_freeze(fullgraph: bool) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    plain = copy.deepcopy(model)
    freezer = Freezer(split_layers(model))
    x = torch.randn(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = torch.compile(model, backend="eager", fullgraph=fullgraph)
        for depth in (0, 1, 2, 0):
            freezer.set_depth(depth)
            for net in (compiled, plain):
                net.zero_grad()
                net(x).square().sum().backward()
            for i, (p, q) in enumerate(zip(model.parameters(), plain.parameters(), strict=True)):
                if i < 2 * depth:
                    assert p.grad is None
                else:
                    assert p.grad is not None
                    assert torch.equal(p.grad, q.grad)
    torch.compiler.reset()


def test_a_frozen_model_still_exports() -> None:
    model, _ = make(2)
    backward(model)
    model.eval()
    x, _ = make_batch("conv", 0)
    expected = model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, with another category in each version
        assert torch.equal(torch.jit.trace(model, x)(x), expected)
        assert torch.equal(torch.fx.symbolic_trace(model)(x), expected)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(10, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=x == 0))


def test_a_padded_transformer_goes_on_when_its_first_block_freezes() -> None:
    """Torch takes the mode of the first block for that of all, and would hand on nested tensors."""
    tokens = torch.randint(1, 10, (2, 5), generator=torch.Generator().manual_seed(0))
    tokens[0, 3:] = 0
    model, plain = Encoder(), Encoder()
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(2)
    for module in (plain.embed, *plain.encoder.layers[0].modules()):
        module.training = False
    for net in (model, plain):
        torch.manual_seed(1)
        net(tokens).square().sum().backward()
    assert freezer.verified
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == name.startswith(("embed", "encoder.layers.0."))
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)
    first = model.encoder.layers[0]
    assert not any(m.training for m in first.modules() if m is not first)
    model.eval()
    assert not first.training
    model.train()
    freezer.unfreeze()
    assert all(modes(model).values())


# What the first reviews of the check found: leaks out of sight of the outermost module


class Bypass(nn.Module):
    """Calls a method of its first part, or a list of blocks, that an active weight feeds."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.inner(x)
            return out

    def __init__(self) -> None:
        super().__init__()
        self.part = self.Part()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.part.encode(x + self.head.weight.sum())
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.head(x)
        return out


@pytest.mark.parametrize("names", [["part", "blocks", "head"], ["part", ("blocks",), "head"]])
def test_leaks_are_seen_inside_methods_and_lists(names: list[Any]) -> None:
    model = Bypass()
    freezer = Freezer(split_layers(model, layers=names), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match=r"layer 0 \('part'\).*'head.weight' \(layer 2\)"):
        model(torch.ones(2, 4))
    assert not freezer.verified
    assert hooks(model) == 0


def test_outputs_may_be_dataclasses() -> None:
    @dataclasses.dataclass
    class Output:
        logits: torch.Tensor

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> Output:
            return Output(x * self.weight)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = Wrapped(), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.first(x + self.head.bias).logits)
            return out

    model = Net()
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    with pytest.raises(PrefixError, match=r"'head\.bias'"):
        model(torch.ones(2, 4))


class UnusedLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.aux = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.a(x))
        return out


def test_a_model_with_nothing_left_to_learn_is_told_what_to_pass() -> None:
    model = UnusedLast()
    freezer = Freezer(split_layers(model))
    freezer.set_depth(1)
    model(torch.ones(2, 4)).sum().backward()  # one layer still learns: nothing to say
    assert freezer.verified
    freezer.set_depth(2)
    with pytest.warns(FrozenPrefixWarning, match=r"all 2 layers .* are frozen.*'aux' did not run"):
        model(torch.ones(2, 4))
    assert hooks(model) == 0
    # With an example the layer that runs last is the last.
    layers = split_layers(model, example=torch.ones(2, 4))
    assert layers.names == ("a", "b")


def test_parts_called_one_by_one_are_watched_for_one_pass() -> None:
    model = Bypass()
    freezer = Freezer(split_layers(model, layers=["part", "blocks", "head"]), strict=True)
    freezer.set_depth(1)
    for _ in range(2):
        model.head(model.blocks[0](model.part.encode(torch.ones(2, 4))))
    assert freezer.verified
    assert hooks(model) == 0


def test_a_listener_that_raises_does_not_leave_the_freeze_unchecked() -> None:
    model = UnusedLast()
    freezer = Freezer(split_layers(model))

    def fails(event: FreezeEvent) -> None:
        raise RuntimeError("mine")

    remove = freezer.add_listener(fails)
    with pytest.raises(RuntimeError, match="mine"):
        freezer.set_depth(1)
    remove()
    assert freezer.depth == 1
    assert not freezer.verified
    model(torch.ones(2, 4)).sum().backward()
    assert freezer.verified


class OwnDropout(nn.Module):
    """Functional dropout and a running buffer on a container that is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.drop = nn.Dropout()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
        return nn.functional.dropout(self.b(self.drop(self.a(x))), 0.5, self.training)


@pytest.mark.parametrize("example", [None, torch.ones(2, 4)])
def test_a_container_freezes_with_the_last_layer_in_it(example: torch.Tensor | None) -> None:
    model = nn.Sequential()
    model.add_module("enc", OwnDropout())
    model.add_module("head", nn.Linear(4, 1))
    layers = split_layers(model, example=example)
    assert layers.names == ("enc.a", "enc.b", "head")
    freezer = Freezer(layers)
    freezer.set_depth(1)
    model.train()
    assert model.enc.training
    model(torch.ones(2, 4))
    assert model.enc.seen == 1
    freezer.set_depth(2)
    model.train()
    first, second = model.enc(torch.ones(64, 4)), model.enc(torch.ones(64, 4))
    assert torch.equal(first, second)
    assert model.enc.seen == 1
    freezer.unfreeze()
    assert model.enc.training


def test_without_the_check_no_module_gets_a_hook():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    freezer = Freezer(split_layers(net))
    freezer.check = False
    freezer.set_depth(1)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    freezer.unfreeze()
    freezer.check = True
    freezer.set_depth(1)
    assert any(m._forward_hooks for m in net.modules())
