"""Real training steps with more and fewer layers frozen, and a clock."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.costs.flops import counted_flops
from freezeout.costs.rehearsal import rehearsed
from freezeout.costs.step import TrainingStep
from freezeout.costs.threads import use_threads
from freezeout.costs.timeline import SavedBytes, Timeline, Where
from freezeout.freezing import Freezer
from freezeout.layers import Layers
from freezeout.tensors import held_bytes, tensor_bytes, tensors_in, uncompiled

__all__ = [
    "Measurement",
    "Phases",
    "device_name",
    "measure",
    "no_garbage_collection",
]

MOST_DEPTHS = 6
"""Depths at which whole steps are measured; layers between them share the difference."""

WATCHED_STEPS = 3
"""Steps that are watched layer by layer; their medians count."""

WARMUP_STEPS = 2
"""Steps at every depth before the clock runs; FLOPs are counted in the first."""

SURE = 6
"""Rounds from which on they can tell how far they are off, and are repeated where that is much."""

MORE = 2.0
"""Time that more rounds may take, in that of the first ones."""


@dataclass(frozen=True)
class Phases:
    """Seconds of one training step."""

    forward: float
    loss: float
    backward: float
    optimizer: float
    clear: float

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return self.forward + self.loss + self.backward + self.optimizer + self.clear


@dataclass(frozen=True)
class Measurement:
    """What was read, before anything is fitted to it.

    Attributes:
        steps: For each depth, one entry per round; the unfrozen step has two.
        forward: Seconds of each layer in a watched step; 0 where nothing was seen.
        backward: The same of the backward pass.
        forward_flops: Of each layer.
        watched_flops: Backward, of each layer in the watched step.
        backward_flops: Of a whole step, by depth.
        saved_bytes: Of each layer.
        gradient_bytes: Of each layer.
        state_bytes: Of each layer.
        batch_size: First dimension of the example's first tensor.
        device: Where it ran, in words.
        precision: Of the forward pass.
        optimizer: Name of the optimizer's class.
        fewer_threads: Half of the threads, and seconds of an unfrozen step with them.
    """

    steps: dict[int, list[list[Phases]]]
    forward: list[float]
    backward: list[float]
    forward_flops: list[int]
    watched_flops: list[int]
    backward_flops: dict[int, int]
    saved_bytes: list[int]
    gradient_bytes: list[int]
    state_bytes: list[int]
    batch_size: int | None
    device: str
    precision: str
    optimizer: str
    fewer_threads: tuple[int, float] | None = None


def measure(
    model: nn.Module,
    layers: Layers,
    example: Any,
    *,
    loss: Callable[[Any], torch.Tensor] | None,
    optimizer: Optimizer | None,
    autocast: torch.dtype | None,
    rounds: int,
    progress: Callable[[int, int], None] | None,
    spoilt: Callable[[Measurement], bool],
) -> Measurement:
    """Run and time the steps; `measure_costs` has the arguments.

    More rounds are run, for a limited time, while `spoilt` says that those measured are of no use.

    Raises:
        CostError: If the step cannot be run.
    """
    settings = loss, optimizer, autocast
    with rehearsed(model, layers, example, *settings) as (step, twin, batch):
        return _Bench(layers, twin, step, rounds, progress or _quiet, spoilt).run(batch)


class _Bench:
    """The order of events: watched steps, warm-up at every depth, then rounds of timed steps."""

    def __init__(
        self,
        layers: Layers,
        optimizer: Optimizer,
        step: TrainingStep,
        rounds: int,
        progress: Callable[[int, int], None],
        spoilt: Callable[[Measurement], bool],
    ) -> None:
        self._layers = layers
        self._optimizer = optimizer
        self._step = step
        self._rounds = rounds
        self._progress = progress
        self._spoilt = spoilt
        # Without the optimizer: a layer that is unfrozen must not pay for fresh state.
        self._freezer = Freezer(layers)
        self._gradient_bytes = [
            sum(tensor_bytes(p) for _, p in layer.parameters if p.requires_grad) for layer in layers
        ]
        self._done = 0
        most = min(MOST_DEPTHS, len(layers))
        self._to_do = 1 + WATCHED_STEPS + WARMUP_STEPS * most + rounds * (most + 1)

    def run(self, batch_size: int | None) -> Measurement:
        forward_flops, watched_flops, saved = self._counted_step()
        state = [self._state_bytes(layer.index) for layer in self._layers]
        forward, backward = self._watched_steps()
        weights = backward if any(backward) else [float(f) for f in watched_flops]
        depths = _spread(weights)
        backward_flops = self._warm_up(depths)
        begun = time.perf_counter()
        found = Measurement(
            steps=self._timed(depths),
            forward=forward,
            backward=backward,
            forward_flops=forward_flops,
            watched_flops=watched_flops,
            backward_flops=backward_flops,
            saved_bytes=saved,
            gradient_bytes=self._gradient_bytes,
            state_bytes=state,
            batch_size=batch_size,
            device=device_name(self._step.device),
            precision=self._step.precision,
            optimizer=type(self._optimizer).__name__,
            fewer_threads=self._fewer_threads(),
        )
        enough = begun + (1.0 + MORE) * (time.perf_counter() - begun)
        while self._rounds >= SURE and time.perf_counter() < enough and self._spoilt(found):
            self._to_do += self._rounds * (len(depths) + 1)
            for depth, rows in self._timed(depths).items():
                found.steps[depth].extend(rows)
        return found

    def _fewer_threads(self) -> tuple[int, float] | None:
        """Return half of the threads, and the seconds of a step with them; ``None`` for one."""
        threads = torch.get_num_threads()
        if self._step.device.type != "cpu" or threads == 1:
            return None
        self._freezer.set_depth(0)
        half = threads // 2
        with no_garbage_collection(), use_threads(half):
            self._one(_Clock(self._step.device))
            taken = [self._one(_Clock(self._step.device)).total for _ in range(WATCHED_STEPS)]
        return half, median(taken)

    def _counted_step(self) -> tuple[list[int], list[int], list[int]]:
        """Return forward and backward FLOPs and saved bytes of every layer."""
        count = len(self._layers)
        with counted_flops() as counter:
            timeline = Timeline(self._layers, counter.get_total_flops)
            saved = SavedBytes(self._layers, lambda: _layer_at(timeline.now, count))
            with timeline.watching(), saved.counting():
                self._step(timeline.stamp)
        sums = timeline.sums(lambda a, b: b - a)
        forward = [round(sums.get(("forward", i), 0)) for i in range(count)]
        forward[-1] += round(sums.get(("loss", 0), 0))
        backward = [round(sums.get(("backward", i), 0)) for i in range(count)]
        self._tick()
        return forward, backward, saved.by_layer()

    def _watched_steps(self) -> tuple[list[float], list[float]]:
        seen: list[dict[Where, float]] = []
        clock = _Clock(self._step.device)
        timeline = Timeline(self._layers, clock.read)
        for _ in range(WATCHED_STEPS):
            timeline.clear()
            clock.wait()
            with timeline.watching(), uncompiled():  # inside a compiled region no layer shows
                self._step(timeline.stamp)
            clock.wait()
            seen.append(timeline.sums(clock.seconds))
            self._tick()
        layers = range(len(self._layers))
        forward = [median(s.get(("forward", i), 0.0) for s in seen) for i in layers]
        backward = [median(s.get(("backward", i), 0.0) for s in seen) for i in layers]
        return forward, backward

    def _warm_up(self, depths: Sequence[int]) -> dict[int, int]:
        """Run steps at every depth, the first one checked; return FLOPs of its backward pass."""
        flops = {}
        for depth in reversed(depths):
            self._freezer.check = True
            self._freezer.set_depth(depth)
            with counted_flops() as counter:
                timeline = Timeline(self._layers, counter.get_total_flops)
                self._step(timeline.stamp)
            phases = timeline.sums(lambda a, b: b - a)
            flops[depth] = round(phases[("backward", len(self._layers) - 1)])
            self._tick()
            for _ in range(WARMUP_STEPS - 1):
                self._step(_ignore)
                self._tick()
        self._freezer.check = False
        return flops

    def _timed(self, depths: Sequence[int]) -> dict[int, list[list[Phases]]]:
        steps: dict[int, list[list[Phases]]] = {depth: [] for depth in depths}
        clock = _Clock(self._step.device)
        generator = random.Random(0)
        with no_garbage_collection():
            for _ in range(self._rounds):
                order = [0, *depths]  # the unfrozen step twice: every ratio has it below
                generator.shuffle(order)
                for depth in depths:
                    steps[depth].append([])
                for depth in order:
                    self._freezer.set_depth(depth)
                    steps[depth][-1].append(self._one(clock))
                    self._tick()
        return steps

    def _one(self, clock: _Clock) -> Phases:
        readings: list[Any] = []
        clock.wait()
        self._step(lambda _: readings.append(clock.read()))
        clock.wait()
        return Phases(*(clock.seconds(a, b) for a, b in pairwise(readings)))

    def _state_bytes(self, index: int) -> int:
        return sum(
            held_bytes(tensor)
            for _, parameter in self._layers[index].parameters
            for tensor in tensors_in(self._optimizer.state.get(parameter, {}))
        )

    def _tick(self) -> None:
        self._done += 1
        self._progress(min(self._done, self._to_do), self._to_do)


class _Clock:
    """The device's own clock on CUDA, so that nothing waits within a step; else the host's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"

    def read(self) -> Any:
        if not self._cuda:
            self.wait()
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        if not self._cuda:
            return float(end - begin)
        return float(begin.elapsed_time(end)) / 1000.0

    def wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self._device)
        elif self._device.type != "cpu":
            torch.accelerator.synchronize()


def _spread(weights: Sequence[float]) -> list[int]:
    """Choose depths: 0, all but the last layer, and between them at even parts of the cost."""
    last = len(weights) - 1
    if last < MOST_DEPTHS:
        return list(range(last + 1))
    total = sum(weights[:last]) or float(last)
    costs = weights[:last] if sum(weights[:last]) else [1.0] * last
    chosen, passed = {0, last}, 0.0
    marks = [total * k / (MOST_DEPTHS - 1) for k in range(1, MOST_DEPTHS - 1)]
    for depth, cost in enumerate(costs):
        while marks and passed + cost / 2 >= marks[0]:
            chosen.add(max(depth, 1))
            marks.pop(0)
        passed += cost
    for depth in range(1, last):  # where one layer outweighs several marks
        if len(chosen) >= MOST_DEPTHS:
            break
        chosen.add(depth)
    return sorted(chosen)


def _layer_at(where: Where, count: int) -> int | None:
    """Return which layer a saved tensor counts for; the loss counts with the last."""
    return {"forward": where[1], "loss": count - 1}.get(where[0])


def device_name(device: torch.device, threads: int | None = None) -> str:
    """Return a device in words.

    Args:
        device: The device.
        threads: Threads of torch; by default those of now.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = threads or torch.get_num_threads()
    return f"{device.type.upper()}, {threads} thread{'' if threads == 1 else 's'}"


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage now, and not again before the end of the block."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _ignore(where: Where) -> None:
    pass


def _quiet(done: int, to_do: int) -> None:
    pass
