"""The training steps whose cost `step.cost` measures: networks, loops, and what they hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.common.measuring import must_be
from benchmarks.step.by_hand import Floor
from benchmarks.step.memory import gradient_bytes, saved_for_backward, state_bytes
from freezeout import FreezeOut, Layers, split_layers
from freezeout.lab.models import build

__all__ = [
    "OPTIMIZER",
    "TOTAL_STEPS",
    "Driven",
    "Holding",
    "Settings",
    "driven",
    "floor_agrees",
    "floor_of",
    "freezing_after",
    "groups_by_layer",
    "holding",
    "plain_loop",
    "sgd",
    "training_step",
]

TOTAL_STEPS = 1_000_000
"""So long that nothing freezes while the clock runs, and that rates hardly move."""

STEPS_BEFORE_FREEZE = 3
"""Real steps before layers freeze, so that there is optimizer state to release."""

RATE = 0.01

OPTIMIZER = "SGD, Nesterov momentum 0.9, weight decay 5e-4"
"""What `sgd` makes, in words."""


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        model: A name for `freezeout.lab.models.build`.
        image_size: Height and width of the images in pixels.
        channels: Channels of the images.
        classes: Number of classes.
        batch_size: Images per step.
        device: ``"cpu"`` or ``"cuda"``.
        precision: ``"fp32"``, or ``"bf16"`` for autocast.
        floor_groups: Parameter groups of the floor's optimizer: ``"layer"`` for one per trained
            layer, as separate rates need them, or ``"one"``.
        seed: Of weights, data and orders.
    """

    model: str = "wrn-16-2"
    image_size: int = 32
    channels: int = 3
    classes: int = 10
    batch_size: int = 32
    device: str = "cpu"
    precision: str = "fp32"
    floor_groups: str = "layer"
    seed: int = 0

    def network(self) -> nn.Module:
        """Build the same network at every call."""
        torch.manual_seed(self.seed)
        network = build(
            self.model,
            num_classes=self.classes,
            in_channels=self.channels,
            image_size=self.image_size,
        )
        return network.to(self.device)

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Make a few batches of noise, the same at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.batch_size, self.channels, self.image_size, self.image_size)
        return [
            (
                torch.randn(shape, generator=generator).to(self.device),
                torch.randint(0, self.classes, shape[:1], generator=generator).to(self.device),
            )
            for _ in range(4)
        ]

    def autocast(self) -> AbstractContextManager[object]:
        """Set the precision of a forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16)

    def loss(self, forward: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the loss of a batch."""
        x, y = batch
        with self.autocast():
            return F.cross_entropy(forward(x), y)


def sgd(groups: Sequence[Sequence[nn.Parameter]]) -> SGD:
    return SGD(
        [{"params": list(group)} for group in groups],
        lr=RATE,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )


def groups_by_layer(layers: Layers) -> list[list[nn.Parameter]]:
    return [[p for _, p in layer.parameters] for layer in layers]


def training_step(
    settings: Settings,
    forward: Callable[[Tensor], Tensor],
    optimizer: SGD,
    scheduler: CosineAnnealingLR | FreezeOut,
) -> Callable[[], None]:
    """Make a step of a plain loop, on the next batch."""
    batches = itertools.cycle(settings.batches())

    def step() -> None:
        optimizer.zero_grad()
        settings.loss(forward, next(batches)).backward()
        optimizer.step()
        scheduler.step()

    return step


def plain_loop(settings: Settings, *, by_layer: bool) -> Callable[[], None]:
    """Make a step without FreezeOut, with one parameter group or with one per layer."""
    model = settings.network()
    groups = groups_by_layer(split_layers(model)) if by_layer else [list(model.parameters())]
    optimizer = sgd(groups)
    scheduler = CosineAnnealingLR(optimizer, T_max=TOTAL_STEPS)
    return training_step(settings, model, optimizer, scheduler)


@dataclass(frozen=True)
class Driven:
    """A network that FreezeOut has brought to a depth by real training steps.

    Attributes:
        model: The network.
        layers: Its layers.
        optimizer: Its optimizer.
        scheduler: What froze it.
        step: One more step.
        state_before: Bytes of optimizer state held for the prefix just before it froze.
    """

    model: nn.Module
    layers: Layers
    optimizer: SGD
    scheduler: FreezeOut
    step: Callable[[], None]
    state_before: int

    def frozen_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the layers that are frozen."""
        return [p for layer in self.layers[: self.scheduler.frozen] for _, p in layer.parameters]


def freezing_after(
    steps: int, depth: int, optimizer: SGD, model: nn.Module, layers: Layers
) -> FreezeOut:
    """Return a scheduler that freezes the first `depth` layers after some steps, no others."""
    return FreezeOut(
        optimizer,
        model,
        total_steps=TOTAL_STEPS,
        times=[steps / TOTAL_STEPS] * depth + [1.0] * (len(layers) - depth),
        scaled=False,  # a layer that freezes this early would start at a huge rate
        layers=layers,
        strict=True,
    )


def driven(settings: Settings, depth: int) -> Driven:
    """Train a few steps, after which FreezeOut freezes the first `depth` layers."""
    model = settings.network()
    layers = split_layers(model)
    optimizer = sgd([list(model.parameters())])
    scheduler = freezing_after(STEPS_BEFORE_FREEZE, depth, optimizer, model, layers)
    step = training_step(settings, model, optimizer, scheduler)
    for _ in range(STEPS_BEFORE_FREEZE - 1):
        step()
    prefix = [p for layer in layers[:depth] for _, p in layer.parameters]
    before = state_bytes(optimizer, prefix)
    must_be(scheduler.frozen == 0, "nothing may freeze before its time")
    step()
    must_be(scheduler.frozen == depth, "the layers must freeze at their time")
    return Driven(model, layers, optimizer, scheduler, step, before)


def floor_of(settings: Settings, subject: Driven) -> tuple[nn.Module, Floor]:
    """Make the floor for a driven network: the same weights, its frozen layers run by hand."""
    model = settings.network()
    model.load_state_dict(subject.model.state_dict())
    return model, Floor(model, split_layers(model), subject.scheduler.frozen)


def floor_agrees(settings: Settings, subject: Driven, model: nn.Module, floor: Floor) -> bool:
    """Check that the floor computes the same loss and gradients as the driven network.

    Bit for bit on a CPU. On a GPU sums may be taken in another order, so there up to rounding.
    Gradients are dropped, buffers put back, and torch's random state set to the seed.
    """
    batch = settings.batches()[0]
    pairs = list(zip(subject.model.parameters(), model.parameters(), strict=True))
    buffers = [(b, b.clone()) for net in (subject.model, model) for b in net.buffers()]
    values: list[tuple[Tensor, Tensor]] = []
    losses = []
    for forward in (subject.model, floor):
        for ours, theirs in pairs:
            (ours if forward is subject.model else theirs).grad = None
        torch.manual_seed(settings.seed)
        loss = settings.loss(forward, batch)
        loss.backward()
        losses.append(loss.detach())
    values.append((losses[0], losses[1]))
    agree = True
    for ours, theirs in pairs:
        if ours.grad is not None and theirs.grad is not None:
            values.append((ours.grad, theirs.grad))
        agree = agree and (ours.grad is None) == (theirs.grad is None)
        ours.grad = theirs.grad = None
    for buffer, value in buffers:
        buffer.copy_(value)
    if settings.device == "cpu":
        return agree and all(torch.equal(a, b) for a, b in values)
    close = 1e-3 if settings.precision == "fp32" else 5e-2
    return agree and all(float((a - b).norm()) <= close * float(b.norm()) for a, b in values)


@dataclass(frozen=True)
class Holding:
    """Bytes that a step holds with so many layers frozen.

    Attributes:
        depth: Number of frozen layers.
        prefix_saved: Saved for backward by the frozen layers.
        prefix_state: Optimizer state held for them.
        prefix_state_before: The same just before they froze.
        prefix_gradients: Their gradients.
        total_saved: Saved for backward in all, loss included.
        total_state: Optimizer state held in all.
    """

    depth: int
    prefix_saved: int
    prefix_state: int
    prefix_state_before: int
    prefix_gradients: int
    total_saved: int
    total_state: int

    @property
    def good(self) -> bool:
        """Whether the prefix holds nothing, and there was something to let go."""
        held = self.prefix_saved + self.prefix_state + self.prefix_gradients
        return held == 0 and (self.depth == 0 or self.prefix_state_before > 0)


def holding(settings: Settings, depth: int) -> Holding:
    """Count what a step holds after `depth` layers froze, from steps that really happen."""
    subject = driven(settings, depth)
    frozen = subject.frozen_parameters()
    subject.step()
    batch = settings.batches()[0]
    saved = saved_for_backward(subject.layers, depth, lambda: settings.loss(subject.model, batch))
    return Holding(
        depth=depth,
        prefix_saved=saved.prefix,
        prefix_state=state_bytes(subject.optimizer, frozen),
        prefix_state_before=subject.state_before,
        prefix_gradients=gradient_bytes(frozen),
        total_saved=saved.total,
        total_state=state_bytes(subject.optimizer, subject.model.parameters()),
    )
