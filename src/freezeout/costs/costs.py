"""The measured costs of a training step: per layer, and at every depth of freezing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cached_property
from math import fsum
from pathlib import Path
from typing import Any

from freezeout.costs.layer_cost import LayerCost, is_finite
from freezeout.costs.trouble import trouble_in, trouble_words
from freezeout.errors import CostError, check_number, check_whole
from freezeout.layers import Layers
from freezeout.storage import KeptFile, read_json, write_json
from freezeout.tensors import tensor_bytes
from freezeout.text import milliseconds, one_line, percent, plain_table

__all__ = ["Costs"]

_FILE = KeptFile(
    "file of costs", "Give the costs.json that freezeout plan wrote.", "Measure again.", CostError
)


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
        if not all(is_finite(t) and t > 0 for row in self.rounds for t in row):
            raise ValueError("times of whole steps must be finite numbers above 0.")
        if not is_finite(self.overhead):
            raise ValueError(f"overhead must be a finite number, got {self.overhead!r}.")

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each layer."""
        return tuple(layer.name for layer in self.layers)

    @cached_property
    def trouble(self) -> str:
        """What in these costs cannot be right, in a few words; empty if nothing is.

        Costs below 0, a step that gets slower as more freezes, rounds that disagree: something else
        kept the machine busy while they were measured. What is planned with them says so.
        """
        steps = [self.step_seconds(depth) for depth in self.depths]
        return trouble_in(self.layers, self.overhead, self.depths, self.rounds, steps)

    def step_seconds(self, depth: int = 0) -> float:
        """Return the seconds of a training step with the first `depth` layers frozen.

        Args:
            depth: From 0 to the number of layers - 1.
        """
        self._check(depth)
        frozen = fsum(layer.frozen_forward for layer in self.layers[:depth])
        active = fsum(layer.seconds for layer in self.layers[depth:])
        return self.overhead + frozen + active

    def step_flops(self, depth: int = 0) -> int:
        """Return the floating-point operations of a step with the first `depth` layers frozen."""
        self._check(depth)
        forward = sum(layer.forward_flops for layer in self.layers)
        return forward + sum(layer.backward_flops for layer in self.layers[depth:])

    def saved_bytes(self, depth: int = 0) -> int:
        """Return the bytes held when the backward pass begins, with `depth` layers frozen."""
        self._check(depth)
        return sum(layer.saved_bytes for layer in self.layers[depth:])

    def gradient_bytes(self, depth: int = 0) -> int:
        """Return the bytes of gradients that a step produces with `depth` layers frozen."""
        self._check(depth)
        return sum(layer.gradient_bytes for layer in self.layers[depth:])

    def state_bytes(self, depth: int = 0) -> int:
        """Return the bytes of optimizer state with `depth` layers frozen."""
        self._check(depth)
        return sum(layer.state_bytes for layer in self.layers[depth:])

    def round_seconds(self) -> list[list[float]]:
        """Return the step at every depth as each round of measurement saw it.

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
        """Return in what a step differs from the one that was measured.

        Args:
            layers: Its layers.
            batch_size: First dimension of its batch.
            precision: Of its forward pass, such as ``"float32"``.
            optimizer: Name of its optimizer's class.
            device: As `device_name` has it.

        Returns:
            One phrase for each difference, such as ``"batch 16 in place of 32"``.
        """
        sizes = [sum(tensor_bytes(p) for _, p in layer.parameters) for layer in layers]
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
        """Return these costs with something more in every step, such as loading a batch.

        Args:
            seconds: Added to every step, at least 0.

        Raises:
            TypeError: If `seconds` is not a number.
            ValueError: If it is negative or not finite.
        """
        check_number("seconds", seconds, "It is added to every step.", least=0.0)
        seconds = float(seconds)
        rounds = tuple(tuple(t + seconds for t in row) for row in self.rounds)
        return replace(self, overhead=self.overhead + seconds, rounds=rounds)

    def accumulated(self, micro_batches: int) -> Costs:
        """Return these costs for steps that accumulate gradients over several batches.

        Forward and backward passes happen once for each of them, the optimizer's step once for all.
        What belongs to no layer is assumed to happen for each of them, too.

        Args:
            micro_batches: Batches per optimizer step, at least 1.

        Raises:
            TypeError: If `micro_batches` is not a whole number.
            ValueError: If it is below 1.
        """
        check_whole("micro_batches", micro_batches, "It counts the batches per step.", least=1)
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
        """Return the layers with their seconds, FLOPs and bytes, as plain text.

        Costs that are spoilt (see `trouble`) say so in the first line.
        """
        header = ("layer", "name", "forward", "backward", "optimizer", "GFLOPs", "saved", "share")
        total = self.step_seconds()
        rows = [header]
        for i, layer in enumerate(self.layers):
            flops = layer.forward_flops + layer.backward_flops
            rows.append(
                (
                    str(i),
                    layer.name,
                    milliseconds(layer.forward),
                    milliseconds(layer.backward),
                    milliseconds(layer.optimizer),
                    f"{flops / 1e9:.3f}",
                    f"{layer.saved_bytes / 2**20:.1f} MiB",
                    percent(layer.seconds / total),
                )
            )
        lines = [*filter(None, [trouble_words(self.trouble)]), *plain_table(rows)]
        seen = [row[0] for row in self.rounds]
        lines.append(
            f"step: {milliseconds(total)} ({milliseconds(min(seen))} to "
            f"{milliseconds(max(seen))} in {len(seen)} rounds), of which "
            f"{milliseconds(self.overhead)} belong to no layer; "
            f"{milliseconds(self.step_seconds(len(self) - 1))} with all but the last layer frozen"
        )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Costs:
        """Make the costs that `to_dict` gave.

        Raises:
            CostError: If they are damaged or not costs.
        """
        try:
            if not isinstance(values, Mapping):
                raise ValueError(f"{type(values).__name__} given")
            known = {f.name: f.default is MISSING for f in fields(cls)}
            wrong = sorted({*values} - {*known} | {k for k, v in known.items() if v} - {*values})
            if wrong:
                raise ValueError(f"missing or unknown: {', '.join(map(str, wrong))}")
            rest = {k: v for k, v in values.items() if k not in ("layers", "depths", "rounds")}
            made = cls(
                layers=tuple(LayerCost(**layer) for layer in values["layers"]),
                depths=tuple(values["depths"]),
                rounds=tuple(tuple(row) for row in values["rounds"]),
                **rest,
            )
            texts = (*made.names, made.device, made.torch_version, made.precision, made.optimizer)
            counts = (made.threads, made.batch_size or 0, *made.depths)
            if not all(isinstance(t, str) for t in texts) or not all(
                type(n) is int for n in counts
            ):
                raise TypeError("a name is no text, or a count no whole number")
            made.table()  # fails where their sums are beyond a float
            return made
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            what = one_line(error).rstrip(".")
            raise CostError(f"these are not costs: {what}. Measure them again.") from error

    def save(self, path: str | Path) -> None:
        """Write the costs to a JSON file, with a digest.

        Raises:
            RunError: If the disk does not take it; an older file is left as it was.
        """
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Costs:
        """Read costs from a JSON file.

        Raises:
            CostError: If it is not there, cannot be read, is damaged, is of another version or
                holds no costs.
        """
        values = read_json(Path(path), _FILE)
        entries = {f.name for f in fields(cls)}
        more = sorted(values.keys() - entries)
        if more and values.keys() >= entries:
            raise _FILE.of_another_version(Path(path), f"it has {more[0]!r} too")
        try:
            return cls.from_dict(values)
        except CostError as error:
            raise CostError(f"in {path}: {error}") from error

    def _check(self, depth: int) -> None:
        hint = "It counts the frozen layers from the input; the last layer never freezes."
        check_whole("depth", depth, hint, most=len(self.layers) - 1)

    def _fill(self, row: Sequence[float]) -> list[float]:
        """Return a row of `rounds`, stretched to every depth."""
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
