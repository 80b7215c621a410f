r"""What a schedule saves, predicted from measured costs.

With $n_d$ of $N$ steps taken while the first $d$ layers are frozen, a run takes
$\sum_d n_d T(d)$ seconds and saves the fraction

$$s = 1 - \frac{\sum_d n_d T(d)}{N\,T(0)} .$$

Everything follows from the freeze steps of a `Schedule`, the same that `FreezeOut` carries out, and
from the step $T(d)$ of measured `Costs`. Only training steps count: evaluation and saving take the
same time with and without freezing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise, zip_longest
from math import fsum
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from freezeout.costs import Costs, order_statistic, trouble_words
from freezeout.errors import CostError, check_whole
from freezeout.layers import Layers, LayerSpec, split_layers
from freezeout.schedule import POWERS, Schedule
from freezeout.scheduler import FreezeOut
from freezeout.storage import KeptFile, read_json, write_json
from freezeout.text import (
    interval_text,
    milliseconds,
    one_line,
    percent,
    plain_table,
    precise_seconds,
    size_text,
)

__all__ = ["Plan"]

_FILE = KeptFile("plan", "Give the plan.json that freezeout plan wrote.", "Plan again.", CostError)

_ENTRIES = {"schedule", "total_steps", "spacing", "note", "reached", "predicted", "costs"}
"""Of a file."""


@dataclass(frozen=True)
class Plan:
    """A schedule for a run of known length, and what it is predicted to save.

    ``plan.scheduler(optimizer, model)`` carries it out; that is
    ``FreezeOut(optimizer, model, plan.total_steps, schedule=plan.schedule)``.

    Args:
        costs: Measured costs of a step.
        schedule: The schedule.
        total_steps: Length of the run in optimizer steps, at least 1.
        spacing: ``"budget"`` where freeze times were made from costs; else that of the schedule,
            or ``"own"`` for explicit times.
        note: A remark on how it was made, such as a wish that cannot be met.
        reached: Whether the wish is met.

    Raises:
        ValueError: If the schedule does not fit the number of layers or steps.
    """

    costs: Costs
    schedule: Schedule
    total_steps: int
    spacing: str = ""
    note: str = ""
    reached: bool = True

    def __post_init__(self) -> None:
        self.schedule.freeze_steps(len(self.costs), self.total_steps)  # checks both
        object.__setattr__(self, "total_steps", int(self.total_steps))  # JSON has no NumPy
        if not self.spacing:
            own = "own" if self.schedule.times is not None else self.schedule.spacing
            object.__setattr__(self, "spacing", own)

    @cached_property
    def freeze_times(self) -> tuple[float, ...]:
        """When each layer freezes, as a fraction of training."""
        return self.schedule.freeze_times(len(self.costs))

    @cached_property
    def freeze_steps(self) -> tuple[int | None, ...]:
        """When each layer freezes, in steps; ``None`` for those that learn to the end."""
        return self.schedule.freeze_steps(len(self.costs), self.total_steps)

    @cached_property
    def steps_at_depth(self) -> tuple[int, ...]:
        """Steps of the run with 0, 1, 2 ... frozen layers; they add up to `total_steps`."""
        ends = [self.total_steps if n is None else n for n in self.freeze_steps[:-1]]
        edges = [0, *ends, self.total_steps]
        return tuple(b - a for a, b in pairwise(edges))

    @property
    def freezes(self) -> int:
        """Number of different steps at which something freezes."""
        return len({n for n in self.freeze_steps if n is not None})

    @property
    def seconds(self) -> float:
        """Predicted seconds of all training steps."""
        return self._sum(self._step_seconds)

    @property
    def baseline_seconds(self) -> float:
        """Predicted seconds of as many steps without freezing."""
        return self.total_steps * self._step_seconds[0]

    @cached_property
    def saving(self) -> float:
        """Predicted saving of time, as a fraction."""
        return 1.0 - self.seconds / self.baseline_seconds

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Where the predicted saving lies with 95 % confidence, as fractions.

        Every round of measurement gives one saving. These are the order statistics of those savings
        that enclose the median (binomial, free of assumptions about the noise). They cover the
        noise of the measurement, not a machine that behaves otherwise later. ``None`` if there are
        fewer than 6 rounds.
        """
        steps, count = self.steps_at_depth, self.total_steps
        savings = sorted(
            1.0 - fsum(n * t for n, t in zip(steps, row, strict=True)) / (count * row[0])
            for row in self.costs.round_seconds()
        )
        outside = order_statistic(len(savings))
        if outside is None:
            return None
        return min(savings[outside], self.saving), max(savings[-1 - outside], self.saving)

    @property
    def flops_saving(self) -> float:
        """Saving of floating-point operations, as a fraction."""
        return self._mean_saving([self.costs.step_flops(d) for d in range(len(self.costs))])

    @property
    def activation_saving(self) -> float:
        """Mean saving over the run of the bytes held for the backward pass, as a fraction.

        Their peak over the whole run is that of its first step, and is not saved.
        """
        return self._mean_saving([self.costs.saved_bytes(d) for d in range(len(self.costs))])

    @property
    def state_saving(self) -> float:
        """Mean saving over the run of optimizer state, as a fraction."""
        return self._mean_saving([self.costs.state_bytes(d) for d in range(len(self.costs))])

    @property
    def gradient_saving(self) -> float:
        """Saving of gradient traffic in data-parallel training, as a fraction."""
        return self._mean_saving([self.costs.gradient_bytes(d) for d in range(len(self.costs))])

    def depth_at(self, step: int) -> int:
        """Return the length of the frozen prefix after `step` steps."""
        check_whole("step", step, "It counts the steps done.")
        return bisect_right([n for n in self.freeze_steps[:-1] if n is not None], step)

    def step_seconds(self, step: int) -> float:
        """Return the predicted seconds of the step that follows `step` others.

        Args:
            step: Steps done, at least 0.
        """
        return self._step_seconds[self.depth_at(step)]

    def saved_bytes(self, step: int) -> int:
        """Return the bytes held for the backward pass in the step that follows `step` others.

        They are most in the first step, so the run's peak of memory is not saved.
        """
        return self.costs.saved_bytes(self.depth_at(step))

    def scheduler(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        *,
        layers: Layers | Sequence[LayerSpec] | None = None,
        example: Any = None,
        strict: bool = False,
        witness: bool = True,
    ) -> FreezeOut:
        """Make the `FreezeOut` scheduler that carries the plan out.

        Args:
            optimizer: See `FreezeOut`.
            model: See `FreezeOut`.
            layers: As they were given to `measure_costs`.
            example: An example input, where the layers were cut with one.
            strict: See `FreezeOut`.
            witness: See `FreezeOut`.

        Raises:
            CostError: If the model's layers are not those that the plan was made for.
        """
        cut = (
            layers
            if isinstance(layers, Layers)
            else split_layers(model, layers=layers, example=example)
        )
        self.check(cut)
        return FreezeOut(
            optimizer,
            model,
            self.total_steps,
            schedule=self.schedule,
            layers=cut,
            strict=strict,
            witness=witness,
        )

    def check(self, layers: Layers) -> None:
        """Raise `CostError` if the plan was made for other layers than these."""
        there, here = self.costs.names, layers.names
        if there != here:
            pairs = enumerate(zip_longest(there, here))
            first, (other, own) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
            raise CostError(
                f"the plan was made for {len(there)} layers, but the model has {len(here)}, and "
                f"layer {first} is {other!r} in the plan and {own!r} in the model. Make a plan for "
                "this model."
            )

    def lengthened(self) -> Plan:
        """Return the same schedule over as many steps as fit into this run's time without freezing.

        This is the paper's constant-time experiment: freezing buys more training, not less time.
        A plan that saves nothing stays as it is.
        """
        limit = self.baseline_seconds * (1.0 + 1e-12)  # up to the rounding of sums
        steps = max(self.total_steps, int(self.total_steps / max(1.0 - self.saving, 1e-9)))
        while replace(self, total_steps=steps).seconds > limit and steps > self.total_steps:
            steps -= 1
        while replace(self, total_steps=steps + 1).seconds <= limit:
            steps += 1
        return replace(self, total_steps=steps)

    def table(self) -> str:
        """Return the plan in plain text: what it saves, then the layers with their freeze steps.

        The first line says so where the costs are spoilt (see `Costs.trouble`).
        """
        return _text(self)

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        if callable(self.schedule.anneal):
            raise ValueError(
                f"a plan with a custom curve cannot be saved, got anneal="
                f"{self.schedule.to_dict()['anneal']}. Save plan.costs and plan.freeze_times."
            )
        return {
            "schedule": self.schedule.to_dict(),
            "total_steps": self.total_steps,
            "spacing": self.spacing,
            "note": self.note,
            "reached": self.reached,
            "predicted": {
                "saving": self.saving,
                "interval": self.interval,
                "seconds": self.seconds,
                "baseline_seconds": self.baseline_seconds,
                "freeze_steps": list(self.freeze_steps),
            },
            "costs": self.costs.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Make the plan that `to_dict` gave. What it predicts follows from its costs again.

        Raises:
            CostError: If it is damaged or not a plan.
        """
        try:
            costs = Costs.from_dict(values["costs"])
            settings = {"max_freezes": None, **values["schedule"]}  # plans made before it existed
            made = cls(
                costs=costs,
                schedule=Schedule(**{f.name: settings[f.name] for f in fields(Schedule)}),
                **{k: values[k] for k in ("total_steps", "spacing", "note", "reached")},
            )
            for name, kind in (("spacing", str), ("note", str), ("reached", bool)):
                if not isinstance(values[name], kind):
                    raise TypeError(f"{name} is {values[name]!r}.")
            made.table()  # fails where a name is not text, or a number not a number
            saved = (made.saving, made.flops_saving, made.activation_saving, made.state_saving)
            if not all(map(math.isfinite, (*saved, made.gradient_saving))):
                raise ValueError("its costs are not finite.")
            return made
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            what = "no entry" if isinstance(error, KeyError) else type(error).__name__
            raise CostError(
                f"this is not a plan: {what}: {one_line(error).rstrip('.')}. Plan again."
            ) from error

    def save(self, path: str | Path) -> None:
        """Write the plan to a JSON file, costs and a digest included.

        Raises:
            RunError: If the disk does not take it; an older file is left as it was.
            ValueError: If it has a custom curve.
        """
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan from a JSON file.

        Raises:
            CostError: If it is not there, cannot be read, is damaged, is of another version or
                holds no plan.
        """
        values = read_json(Path(path), _FILE)
        more = sorted(values.keys() - _ENTRIES)
        if more and values.keys() >= _ENTRIES:
            raise _FILE.of_another_version(Path(path), f"it has {more[0]!r} too")
        try:
            return cls.from_dict(values)
        except CostError as error:
            raise CostError(f"{path}: {error}") from error

    @cached_property
    def _step_seconds(self) -> list[float]:
        return [self.costs.step_seconds(d) for d in range(len(self.costs))]

    def _sum(self, by_depth: Sequence[float]) -> float:
        return fsum(n * value for n, value in zip(self.steps_at_depth, by_depth, strict=True))

    def _mean_saving(self, by_depth: Sequence[float]) -> float:
        whole = self.total_steps * by_depth[0]
        return 1.0 - self._sum(by_depth) / whole if whole else 0.0


def _text(plan: Plan) -> str:
    """Write down what a plan saves, then one line per layer."""
    costs = plan.costs
    last = plan.depth_at(plan.total_steps - 1)
    held, state = (
        f"saved on average: {size_text(of(0))} at first, {size_text(of(last))} at the end"
        for of in (costs.saved_bytes, costs.state_bytes)
    )
    lines = [
        *filter(None, [trouble_words(costs.trouble)]),
        f"{_name(plan)}, {plan.total_steps:,} steps",
        f"  time              {percent(plan.saving)} saved{interval_text(plan.interval)}: "
        f"{precise_seconds(plan.seconds)} in place of {precise_seconds(plan.baseline_seconds)}",
        f"  FLOPs             {percent(plan.flops_saving)} saved",
        f"  held for backward {percent(plan.activation_saving)} {held}",
        f"  optimizer state   {percent(plan.state_saving)} {state}",
        f"  gradient traffic  {percent(plan.gradient_saving)} saved, where processes exchange "
        "gradients",
    ]
    if plan.note:
        lines.append(f"  note: {plan.note}")
    scales = plan.schedule.scales(len(costs))
    rows = [("layer", "name", "freezes at", "step", "first rate", "step then takes")]
    for i, (layer, t, n) in enumerate(
        zip(costs.layers, plan.freeze_times, plan.freeze_steps, strict=True)
    ):
        after = "" if n is None else milliseconds(plan.step_seconds(n))
        rows.append(
            (
                str(i),
                layer.name,
                "never" if n is None else f"{t:.4f}",
                "" if n is None else f"{n:,}",
                f"x {scales[i]:.2f}",
                after,
            )
        )
    lines += plain_table(rows)
    return "\n".join(lines)


def _name(plan: Plan) -> str:
    schedule = plan.schedule
    words = [plan.spacing if plan.spacing != "own" else "explicit freeze times"]
    if schedule.times is None:
        words.append("nothing freezes" if schedule.t0 == 1.0 else f"t0 = {schedule.t0:g}")
    elif plan.spacing in POWERS:
        words.append(f"merged to {plan.freezes} freezes")
    if schedule.anneal is not None:
        words.append("scaled" if schedule.scaled else "unscaled")
    return ", ".join(words)
