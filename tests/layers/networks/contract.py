"""What must hold for every network that people bring: how it is cut, frozen and trained on.

The table of networks, with the expected cuts, is in ``test_networks.py``.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from freezeout import FreezeOut, Freezer, FrozenPrefixWarning, Layers, split_layers
from tests.contracts import assert_same, bits, differing

STEPS = 12
T0 = 0.25


@dataclass(frozen=True)
class Leak:
    """Depths at which backward goes on through the prefix, and what the warning says.

    Attributes:
        depths: The depths.
        layer: Index of the frozen layer that is named.
        cause: Part of what is named as the cause.
    """

    depths: Sequence[int]
    layer: int
    cause: str


@dataclass(frozen=True)
class Cut:
    """One way of cutting a network, and what comes of it.

    Attributes:
        names: Names of the layers, separated by spaces.
        how: ``"plain"``, ``"example"`` or ``"both"``; with `layers` only ``"plain"``.
        layers: Given to `split_layers`.
        leaks: Where the backward pass does not stop, and the words of the warning.
        tie: Part of the warning of `FreezeOut` when it is made; empty if there is none.
        idle: Whether the example leaves parameters unused.
        unseen: Whether the first layer never runs, so that no depth can be verified.
    """

    names: str
    how: str = "both"
    layers: Sequence[Any] | None = None
    leaks: Sequence[Leak] = ()
    tie: str = ""
    idle: bool = False
    unseen: bool = False


@dataclass(frozen=True)
class Network:
    """A network at toy size.

    Attributes:
        build: Makes it.
        batch: Makes the input of step `n`: a tensor, a tuple of positional or a dict of keyword
            arguments. With labels in a dict, the network gives the loss itself.
        cuts: The ways of cutting it.
        needs: A package that it cannot do without.
    """

    build: Callable[[], nn.Module]
    batch: Callable[[int], Any]
    cuts: Sequence[Cut]
    needs: str | None = None

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build()

    def split(self, cut: Cut, model: nn.Module, *, example: bool) -> Layers:
        given = self.batch(0) if example else None
        return split_layers(model, layers=cut.layers, example=given)

    def loss(self, model: nn.Module, n: int) -> torch.Tensor:
        """The loss of step `n`; dropout draws the same in every network in the same modes."""
        batch = self.batch(n)
        torch.manual_seed(100 + n)
        if isinstance(batch, dict):
            return model(**batch).loss
        out = model(*batch) if isinstance(batch, tuple) else model(batch)
        target = (torch.arange(len(out)) + n) % out.shape[1]
        return F.cross_entropy(out.flatten(2).mean(2) if out.ndim > 2 else out, target)


def is_cut_as_expected(network: Network, cut: Cut, *, example: bool) -> None:
    model = network.model()
    layers = network.split(cut, model, example=example)
    assert " ".join(layers.names) == cut.names
    assert bool(layers.idle) == (cut.idle and example)
    held = [(name, id(p)) for layer in layers for name, p in layer.parameters]
    assert sorted(held) == sorted((name, id(p)) for name, p in model.named_parameters())


def freezes_layer_by_layer(network: Network, cut: Cut, *, example: bool) -> None:
    """To the greatest depth: bits, gradients, the boundary, and the way of the backward pass."""
    model = network.model()
    layers = network.split(cut, model, example=example)
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    freezer = Freezer(layers, optimizer)
    model.train()
    with Operators() as whole:
        network.loss(model, 0).backward()
    operators, messages = [whole.count], []
    for depth in range(1, len(layers)):
        freezer.set_depth(depth)
        assert all(p.grad is None for layer in layers[:depth] for _, p in layer.parameters)
        before = [layer_bits(model, layers, i) for i in range(len(layers))]
        mirror(model, twin, layers, depth)
        with heard(messages), saved_inside(layers[:depth]) as saved:
            loss = network.loss(model, depth)
        optimizer.zero_grad()
        with Operators() as counted:
            loss.backward()
        operators.append(counted.count)
        leaks = any(depth in leak.depths for leak in cut.leaks)
        assert freezer.verified == (not leaks and not cut.unseen), f"depth {depth}: {messages}"
        assert (sum(saved) > 0) == leaks, f"depth {depth}: {sum(saved)} bytes saved in the prefix"

        network.loss(twin, depth).backward()
        gradients_match(layers, twin, depth)
        optimizer.step()
        after = [layer_bits(model, layers, i) for i in range(len(layers))]
        for i in range(depth):
            assert_same(before[i], after[i])
        assert differing(before[-1], after[-1])
    assert operators == sorted(operators, reverse=True)
    assert operators[-1] < operators[0]
    words_are_expected(messages, cut, layers)


def trains_to_the_end(network: Network, cut: Cut, *, example: bool) -> None:
    model = network.model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    messages: list[str] = []
    settings = {"t0": T0, "spacing": "linear", "scale_cap": 2.0}
    layers = network.split(cut, model, example=example)
    with heard(messages):
        scheduler = FreezeOut(optimizer, model, STEPS, layers=layers, **settings)
    assert len(messages) == bool(cut.tie)
    assert cut.tie in "".join(messages)
    messages.clear()
    froze: list[tuple[int, int]] = []
    scheduler.freezer.add_listener(lambda event: froze.append((event.index, event.step)))
    operators = []
    for n in range(STEPS):
        with heard(messages):
            loss = network.loss(model, n)
        assert math.isfinite(loss.item())
        with Operators() as counted:
            loss.backward()
        operators.append(counted.count)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        assert scheduler.frozen == sum(1 for _, step in froze if step <= n + 1)
    last = len(layers) - 1
    assert froze == [(i, freeze_step(i, last)) for i in range(last)]
    assert operators[-1] < operators[0]
    assert bool(messages) == bool(cut.leaks)


CONTRACTS: list[Callable[..., None]] = [
    is_cut_as_expected,
    freezes_layer_by_layer,
    trains_to_the_end,
]


def freeze_step(index: int, last: int) -> int:
    """First step at which the layer's freeze time, grown linearly, has come."""
    return math.ceil(STEPS * (T0 + (1 - T0) * index / last) - 1e-9)


def mirror(model: nn.Module, twin: nn.Module, layers: Layers, depth: int) -> None:
    """Gives the unfrozen twin the model's weights and buffers, and inference mode where frozen."""
    twin.load_state_dict(model.state_dict())
    twin.zero_grad()
    twin.train()
    frozen = {id(module) for layer in layers[:depth] for module in layer.modules}
    for one, other in zip(model.modules(), twin.modules(), strict=True):
        if id(one) in frozen:
            other.training = False


def gradients_match(layers: Layers, twin: nn.Module, depth: int) -> None:
    twins = dict(twin.named_parameters())
    learning = 0
    for layer in layers:
        for name, p in layer.parameters:
            if layer.index < depth:
                assert p.grad is None, f"{name} is frozen and has a gradient"
                assert not p.requires_grad
            elif p.grad is None:
                assert twins[name].grad is None, f"{name} has no gradient, but its twin has"
            else:
                learning += 1
                torch.testing.assert_close(
                    p.grad, twins[name].grad, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: n + m
                )
    assert learning > 0


def layer_bits(model: nn.Module, layers: Layers, index: int) -> dict[str, torch.Tensor]:
    """Bytes of a layer's parameters and of its modules' buffers."""
    inside = {id(module) for module in layers[index].modules}
    tensors: dict[str, torch.Tensor] = dict(layers[index].parameters)
    for name, module in model.named_modules():
        if id(module) in inside:
            tensors |= {f"{name}.{k}": b for k, b in module.named_buffers(recurse=False)}
    return {name: bits(tensor) for name, tensor in tensors.items()}


def words_are_expected(messages: Sequence[str], cut: Cut, layers: Layers) -> None:
    """Every warning is foreseen, and every one foreseen was given."""
    unheard = list(cut.leaks)
    for message in messages:
        said = [leak for leak in cut.leaks if _says(message, leak, layers)]
        assert said, f"not foreseen: {message}"
        unheard = [leak for leak in unheard if leak not in said]
    assert not unheard, f"no warning says {unheard[0]}"


def _says(message: str, leak: Leak, layers: Layers) -> bool:
    start = (
        f"layer {leak.layer} ({layers.names[leak.layer]!r}) is frozen, but its output still needs "
        "a gradient, because of active parameters that feed it: "
    )
    return message.startswith(start) and leak.cause in message


@contextmanager
def heard(messages: list[str]) -> Iterator[None]:
    """Collects warnings about the prefix; all others are errors, as everywhere."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.simplefilter("always", FrozenPrefixWarning)
        yield
    messages += [str(warning.message) for warning in caught]


@contextmanager
def saved_inside(layers: Sequence[Any]) -> Iterator[list[int]]:
    """Sizes of what modules of these layers save for the backward pass while they run."""
    saved: list[int] = []
    running: list[nn.Module] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if running:
            saved.append(tensor.nbytes)
        return tensor

    handles = []
    for layer in layers:
        for module in layer.modules:
            handles.append(module.register_forward_pre_hook(lambda m, args: running.append(m)))
            handles.append(
                module.register_forward_hook(lambda m, args, out: running.pop() and None)
            )
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield saved
    finally:
        for handle in handles:
            handle.remove()


class Operators(TorchDispatchMode):
    """Counts operators."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))
