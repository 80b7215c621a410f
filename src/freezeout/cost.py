r"""What each layer costs in a training step, measured on the real step.

`measure_costs` runs a few dozen training steps of your model on your batch, with more and fewer
layers really frozen, and fits costs of single layers to what the whole step took. So the step with
the first $d$ layers frozen takes, in seconds,

$$T(d) = h + \sum_{i<d} g_i + \sum_{i \ge d} (f_i + b_i + o_i)$$

with $f_i$ the forward pass of layer $i$ while it learns and $g_i$ once it is frozen, $b_i$ its part
of the backward pass, $o_i$ its part of the optimizer's step, and $h$ what belongs to no layer. At
the depths that were measured $T(d)$ is the measurement itself; layers in between share the
difference in the proportion in which they took time in a step that was watched layer by layer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from math import fsum
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout._cost_checks import check_arguments, check_model, check_number, check_whole
from freezeout._cost_text import costs_text
from freezeout._fit import fit
from freezeout._measure import Measurement, device_name, measure
from freezeout.errors import CostError
from freezeout.layers import Layers, LayerSpec, split_layers

__all__ = ["Costs", "LayerCost", "device_name", "measure_costs"]


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one layer costs in one training step.

    Seconds of single layers can come out slightly below 0 where they are smaller than the noise of
    the measurement; their sums over a step are what was measured.

    Args:
        name: Name of the layer.
        forward: Seconds of its forward pass while it learns.
        frozen_forward: Seconds of its forward pass once it is frozen (nothing is saved, BatchNorm
            uses running statistics).
        backward: Seconds by which the backward pass is shorter once it is frozen, after those
            before it; for the last layer, those that stay.
        optimizer: Seconds of its part of the optimizer's step.
        forward_flops: Floating-point operations forward; one multiply-add counts 2.
        backward_flops: Those by which the backward pass shrinks once it is frozen; below 0 where
            another kernel then does more (attention without dropout).
        saved_bytes: Held for the backward pass until this layer is frozen.
        parameter_bytes: Of its parameters.
        gradient_bytes: Of their gradients: what data-parallel training exchanges.
        state_bytes: Of optimizer state.
    """

    name: str
    forward: float
    frozen_forward: float
    backward: float
    optimizer: float
    forward_flops: int
    backward_flops: int
    saved_bytes: int
    parameter_bytes: int
    gradient_bytes: int
    state_bytes: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            whole = name.endswith(("flops", "bytes"))
            if name == "name":
                continue
            least = -math.inf if name == "backward_flops" else 0  # frozen layers may do more
            right = isinstance(value, int) and value >= least if whole else True
            if not (_is_number(value) and right):
                kind = "a whole number of at least 0" if whole else "a finite number"
                raise ValueError(f"{name} of layer {self.name!r} must be {kind}, got {value!r}.")

    @property
    def seconds(self) -> float:
        """Seconds of a step spent on it while it learns."""
        return self.forward + self.backward + self.optimizer

    @property
    def saving(self) -> float:
        """Seconds by which a step gets shorter once it is frozen, after those before it."""
        return self.seconds - self.frozen_forward


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The measured costs of a training step, layer by layer.

    Args:
        layers: One entry per layer, input first; at least two.
        overhead: Seconds of a step that belong to no layer: the loss, clearing gradients, and what
            `with_overhead` added.
        depths: Numbers of frozen layers at which whole steps were measured, from 0 on.
        rounds: Seconds of a whole step at each of `depths`, one row per round of measurement.
        batch_size: First dimension of the example's first tensor, or ``None``.
        device: Where it was measured, in words.
        threads: Threads of torch then.
        torch_version: Version of torch.
        precision: Of the forward pass, such as ``"float32"`` or ``"bfloat16"``.
        optimizer: Name of the optimizer's class.

    Raises:
        ValueError: If the parts do not fit together.
    """

    layers: tuple[LayerCost, ...]
    overhead: float
    depths: tuple[int, ...]
    rounds: tuple[tuple[float, ...], ...]
    batch_size: int | None
    device: str
    threads: int
    torch_version: str
    precision: str = "float32"
    optimizer: str = "SGD"

    def __post_init__(self) -> None:
        last = len(self.layers) - 1
        if last < 1:
            raise ValueError(f"costs need at least 2 layers, got {len(self.layers)}.")
        if sorted(set(self.depths)) != list(self.depths) or self.depths[:1] != (0,):
            raise ValueError(f"depths must rise from 0, got {self.depths}.")
        if self.depths[-1] != last:
            raise ValueError(f"depths must end at {last}, got {self.depths}.")
        if not self.rounds or any(len(row) != len(self.depths) for row in self.rounds):
            raise ValueError("every round must hold one time for each of the depths.")
        if not all(_is_number(t) and t > 0 for row in self.rounds for t in row):
            raise ValueError("times of whole steps must be finite numbers above 0.")
        if not _is_number(self.overhead):
            raise ValueError(f"overhead must be a finite number, got {self.overhead!r}.")

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each layer."""
        return tuple(layer.name for layer in self.layers)

    def step_seconds(self, depth: int = 0) -> float:
        """Seconds of a training step with the first `depth` layers frozen.

        Args:
            depth: From 0 to the number of layers - 1.
        """
        self._check(depth)
        frozen = fsum(layer.frozen_forward for layer in self.layers[:depth])
        active = fsum(layer.seconds for layer in self.layers[depth:])
        return self.overhead + frozen + active

    def step_flops(self, depth: int = 0) -> int:
        """Floating-point operations of a training step with the first `depth` layers frozen."""
        self._check(depth)
        forward = sum(layer.forward_flops for layer in self.layers)
        return forward + sum(layer.backward_flops for layer in self.layers[depth:])

    def saved_bytes(self, depth: int = 0) -> int:
        """Bytes held for the backward pass at its beginning, with `depth` layers frozen."""
        self._check(depth)
        return sum(layer.saved_bytes for layer in self.layers[depth:])

    def gradient_bytes(self, depth: int = 0) -> int:
        """Bytes of gradients that a step produces with `depth` layers frozen."""
        self._check(depth)
        return sum(layer.gradient_bytes for layer in self.layers[depth:])

    def state_bytes(self, depth: int = 0) -> int:
        """Bytes of optimizer state with `depth` layers frozen."""
        self._check(depth)
        return sum(layer.state_bytes for layer in self.layers[depth:])

    def round_seconds(self) -> list[list[float]]:
        """The step at every depth as each single round of measurement saw it.

        Returns:
            One row per round, one time in seconds for each depth from 0 to the number of layers
            - 1. Between measured depths it follows `step_seconds`.
        """
        return [self._fill(row) for row in self.rounds]

    def differences(
        self,
        layers: Layers,
        *,
        batch_size: int | None,
        precision: str,
        optimizer: str,
        device: str,
    ) -> list[str]:
        """In what a step differs from the one that was measured.

        Args:
            layers: Its layers.
            batch_size: First dimension of its batch.
            precision: Of its forward pass, such as ``"float32"``.
            optimizer: Name of its optimizer's class.
            device: As `device_name` has it.

        Returns:
            One phrase for each difference, such as ``"batch 16 in place of 32"``.
        """
        sizes = [sum(_bytes(p) for _, p in layer.parameters) for layer in layers]
        pairs = [
            ("batch ", self.batch_size, batch_size),
            ("", self.precision, precision),
            ("", self.optimizer, optimizer),
            ("", self.device, device),
        ]
        found = [f"{word}{own} in place of {other}" for word, own, other in pairs if own != other]
        if self.names != layers.names or [c.parameter_bytes for c in self.layers] != sizes:
            found.insert(0, "another network")
        return found

    def with_overhead(self, seconds: float) -> Costs:
        """These costs with something more in every step, such as loading a batch.

        Args:
            seconds: Added to every step, at least 0.

        Raises:
            TypeError: If `seconds` is no number.
            ValueError: If it is negative or not finite.
        """
        check_number("seconds", seconds, "It is added to every step.")
        seconds = float(seconds)
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(
                f"seconds must be finite and at least 0, got {seconds}. It is added to every step."
            )
        rounds = tuple(tuple(t + seconds for t in row) for row in self.rounds)
        return replace(self, overhead=self.overhead + seconds, rounds=rounds)

    def accumulated(self, micro_batches: int) -> Costs:
        """These costs for steps that accumulate gradients over several batches.

        Forward and backward passes happen once for each of them, the optimizer's step once for all.
        What belongs to no layer is taken to happen for each, too.

        Args:
            micro_batches: Batches per optimizer step, at least 1.

        Raises:
            TypeError: If `micro_batches` is no whole number.
            ValueError: If it is below 1.
        """
        check_whole("micro_batches", micro_batches, 1, "It counts the batches per optimizer step.")
        k = int(micro_batches)
        once = [fsum(layer.optimizer for layer in self.layers[depth:]) for depth in self.depths]
        rounds = tuple(
            tuple(k * t - (k - 1) * o for t, o in zip(row, once, strict=True))
            for row in self.rounds
        )
        layers = tuple(
            replace(
                layer,
                forward=k * layer.forward,
                frozen_forward=k * layer.frozen_forward,
                backward=k * layer.backward,
                forward_flops=k * layer.forward_flops,
                backward_flops=k * layer.backward_flops,
            )
            for layer in self.layers
        )
        return replace(self, layers=layers, overhead=k * self.overhead, rounds=rounds)

    def table(self) -> str:
        """The layers with their seconds, FLOPs and bytes, as plain text."""
        return costs_text(self)

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Costs:
        """The costs that `to_dict` gave.

        Raises:
            CostError: If they are damaged or not costs at all.
        """
        try:
            if not isinstance(values, Mapping):
                raise ValueError(f"{type(values).__name__} given")
            known = {f.name: f.default is MISSING for f in fields(cls)}
            wrong = sorted({*values} - {*known} | {k for k, v in known.items() if v} - {*values})
            if wrong:
                raise ValueError(f"missing or unknown: {', '.join(map(str, wrong))}")
            rest = {k: v for k, v in values.items() if k not in ("layers", "depths", "rounds")}
            return cls(
                layers=tuple(LayerCost(**layer) for layer in values["layers"]),
                depths=tuple(values["depths"]),
                rounds=tuple(tuple(row) for row in values["rounds"]),
                **rest,
            )
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            what = str(error).rstrip(".")
            raise CostError(f"these are no costs: {what}. Measure them anew.") from error

    def to_json(self) -> bytes:
        """The text of a JSON file that `load` reads."""
        return (json.dumps(self.to_dict(), indent=1) + "\n").encode()

    def save(self, path: str | Path) -> None:
        """Writes the costs to a JSON file."""
        Path(path).write_bytes(self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Costs:
        """Reads costs from a JSON file.

        Raises:
            CostError: If it does not hold costs.
            OSError: If it cannot be read.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise CostError(f"{path} is no JSON file of costs: {error}. Measure anew.") from error
        except CostError as error:
            raise CostError(f"in {path}: {error}") from error

    def _check(self, depth: int) -> None:
        most = len(self.layers) - 1
        hint = "It counts the frozen layers from the input; the last layer never freezes."
        check_whole("depth", depth, None, hint)
        if not 0 <= depth <= most:
            raise ValueError(f"depth must lie in 0 to {most}, got {depth}. {hint}")

    def _fill(self, row: Sequence[float]) -> list[float]:
        """A row of `rounds`, stretched to every depth."""
        fitted = [self.step_seconds(depth) for depth in range(len(self))]
        full = [row[0]]
        for k in range(len(self.depths) - 1):
            a, b = self.depths[k], self.depths[k + 1]
            drop = fitted[a] - fitted[b]
            for depth in range(a + 1, b + 1):
                even = (depth - a) / (b - a)
                part = (fitted[a] - fitted[depth]) / drop if drop > 0 else even
                full.append(row[k] + (row[k + 1] - row[k]) * part)
        return full


def measure_costs(
    model: nn.Module,
    example: Any,
    *,
    loss: Callable[[Any], torch.Tensor] | None = None,
    optimizer: Optimizer | None = None,
    layers: Layers | Sequence[LayerSpec] | None = None,
    autocast: torch.dtype | None = None,
    rounds: int = 6,
    progress: Callable[[int, int], None] | None = None,
) -> Costs:
    """Measures what each layer costs in a training step, by running a few dozen of them.

    Steps with no layer frozen and with more and more layers frozen alternate in random order, so
    that a machine that speeds up or slows down meanwhile changes all alike. About
    ``7 * rounds + 11`` steps are run, most of them shortened by frozen layers; fewer for models of
    up to five layers. Their peak of memory on the device is that of a training step.

    Afterwards everything is as it was: weights, buffers, modes, flags, gradients, optimizer and
    random state, also where something fails; attributes of modules one level deep. Values wait in
    host memory meanwhile, those of tensors on the CPU in temporary files.

    Args:
        model: The model that will be trained, on its device. One in evaluation mode is measured in
            training mode.
        example: A batch as in training: one tensor, a tuple of positional or a dict of keyword
            arguments. Costs hold for this batch size.
        loss: Turns the model's output into a scalar loss. By default the output's own ``loss``
            where it has one (as in Hugging Face models given labels), else the mean of the output,
            which lacks the cost of a real loss.
        optimizer: The one that will train the model; it takes no step itself. By default SGD with
            momentum.
        layers: How to cut the model (see `split_layers`), or its result. By default it is cut as
            `FreezeOut` would without an example.
        autocast: Precision of the forward pass under ``torch.autocast``, such as
            ``torch.bfloat16``.
        rounds: Measurements of each depth, at least 1; more of them are surer.
        progress: Called with the steps done and those to do.

    Returns:
        The costs.

    Raises:
        CostError: If the model rejects the batch, memory runs out, or nothing in it could freeze;
            the message says what to do. The model is as it was.
        SplitError: If the model cannot be cut into layers.
        TypeError: If an argument has the wrong type.
        ValueError: If there is no example, or an argument is out of range.

    Warns:
        FrozenPrefixWarning: If something keeps the backward pass alive through frozen layers; what
            is measured has it in it.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
        >>> costs = measure_costs(net, torch.randn(32, 64))
        >>> costs.layers[0].forward_flops == 2 * 32 * 64 * 256
        True
        >>> costs.step_seconds(1) > 0
        True
    """
    check_arguments(model, example, loss, optimizer, autocast, rounds, progress)
    cut = layers if isinstance(layers, Layers) else split_layers(model, layers=layers)
    check_model(cut, model, optimizer)
    found = measure(
        model,
        cut,
        example,
        loss=loss,
        optimizer=optimizer,
        autocast=autocast,
        rounds=int(rounds),
        progress=progress,
    )
    return _costs(cut, found)


def _costs(layers: Layers, found: Measurement) -> Costs:
    fitted = fit(found)
    return Costs(
        layers=tuple(
            LayerCost(
                name=layer.name,
                forward=fitted.forward[i],
                frozen_forward=fitted.frozen_forward[i],
                backward=fitted.backward[i],
                optimizer=fitted.optimizer[i],
                forward_flops=found.forward_flops[i],
                backward_flops=fitted.backward_flops[i],
                saved_bytes=found.saved_bytes[i],
                parameter_bytes=sum(_bytes(p) for _, p in layer.parameters),
                gradient_bytes=found.gradient_bytes[i],
                state_bytes=found.state_bytes[i],
            )
            for i, layer in enumerate(layers)
        ),
        overhead=fitted.overhead,
        depths=fitted.depths,
        rounds=fitted.rounds,
        batch_size=found.batch_size,
        device=found.device,
        threads=torch.get_num_threads(),
        precision=found.precision,
        optimizer=found.optimizer,
        torch_version=str(torch.__version__),
    )


def _is_number(value: object) -> bool:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and math.isfinite(cast("float", value))


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
