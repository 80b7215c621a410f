"""A captured model and its plain twin, which must stay bit for bit alike."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from freezeout import Freezer, Layers
from freezeout.layers import same_bits
from freezeout.prefix import Capture, Source

Loss = Callable[[nn.Module], torch.Tensor]


class Twins:
    """Two equal models with equally many layers frozen; one of them is captured.

    Args:
        build: Makes a model; both get the weights of the first.
        split: Cuts a model.
        source: Of the captured one.

    Attributes:
        plain: The model that runs as ever.
        captured: The other.
        capture: Its capture; it follows the freezer.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        split: Callable[[nn.Module], Layers],
        depth: int,
        source: Source | None = None,
    ) -> None:
        self.plain, self.captured = build().train(), build().train()
        self.captured.load_state_dict(self.plain.state_dict())
        self.freezers = [Freezer(split(model)) for model in (self.plain, self.captured)]
        for freezer in self.freezers:
            freezer.check = False
        self.capture = Capture.of(self.freezers[1], source)
        self.set_depth(depth)

    def set_depth(self, depth: int) -> None:
        for freezer in self.freezers:
            freezer.set_depth(depth)

    @property
    def layers(self) -> Layers:
        return self.freezers[1].layers

    def agree(
        self,
        loss: Loss,
        *,
        around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        backward: bool = True,
    ) -> torch.Tensor:
        """Runs a step of both from the same random numbers, and compares all that it leaves."""
        before = random_states()
        seen = []
        for model in (self.plain, self.captured):
            set_random_states(before)
            model.zero_grad()
            with around():
                value = loss(model)
            if backward:
                value.backward()
            seen.append((value.detach(), random_states()))
        (one, states), (other, other_states) = seen
        assert same_bits(one, other), f"the loss is {one} and {other}"
        assert states == other_states, "other random numbers were drawn"
        self.compare()
        return other

    def compare(self) -> None:
        pairs = zip(self.plain.named_parameters(), self.captured.named_parameters(), strict=True)
        for (name, p), (_, q) in pairs:
            assert (p.grad is None) == (q.grad is None), name
            assert p.grad is None or same_bits(p.grad, q.grad), f"the gradient of {name}"
            assert same_bits(p, q), name
        buffers = zip(self.plain.named_buffers(), self.captured.named_buffers(), strict=True)
        for (name, b), (_, c) in buffers:
            assert same_bits(b, c), name

    def close(self) -> None:
        self.capture.close()
        for freezer in self.freezers:
            freezer.unfreeze()


def random_states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return bytes(torch.get_rng_state().tolist()), (name, keys.tobytes(), *rest), random.getstate()


def set_random_states(states: tuple[Any, ...]) -> None:
    of_torch, (name, keys, *rest), of_python = states
    torch.set_rng_state(torch.tensor(list(of_torch), dtype=torch.uint8))
    np.random.set_state((name, np.frombuffer(keys, dtype=np.uint32), *rest))
    random.setstate(of_python)


def flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def frozen_flops(model: nn.Module, layers: Layers, depth: int, run: Callable[[], object]) -> int:
    """FLOPs that a plain pass spends in the forward passes of frozen modules."""
    counter = FlopCounterMode(display=False)
    found = [0, 0]  # how deep inside, FLOPs

    def enter(module: nn.Module, args: Any) -> None:
        if found[0] == 0:
            counter.__enter__()
        found[0] += 1

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        found[0] -= 1
        if found[0] == 0:
            counter.__exit__(None, None, None)
            found[1] += counter.get_total_flops()

    handles = []
    for layer in layers[:depth]:
        for module in layer.modules:
            handles += [
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave),
            ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found[1]
