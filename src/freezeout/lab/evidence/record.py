"""What is known of one training run, in plain numbers: all that tables, figures and pages need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Kind", "RunRecord", "StepTime", "Tested"]

Kind: TypeAlias = Literal["baseline", "equal-time", "variant", "control"]
"""What a run is in a comparison.

``baseline`` freezes nothing over the full length; ``equal-time`` freezes nothing and is shortened
to the time of a variant; a ``variant`` freezes; a ``control`` has a variant's rates and freezes
nothing.
"""


@dataclass(frozen=True)
class Tested:
    """One test of a run.

    Attributes:
        step: Optimizer steps done.
        seconds: Seconds in training steps up to then.
        error: Error on the test data in percent, 0-100.
    """

    step: int
    seconds: float
    error: float


@dataclass(frozen=True)
class StepTime:
    """Typical time of some consecutive steps with equally many frozen layers.

    Attributes:
        step: Optimizer steps done at their end.
        seconds: Median seconds of one of them.
        frozen: Length of the frozen prefix.
    """

    step: int
    seconds: float
    frozen: int


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run.

    Attributes:
        name: Name of the run, unique among those shown together: its folder.
        cell: What is compared within: network, data and all else that arms and seeds share.
        model: Name of the network.
        data: Name of the data set.
        arm: What sets the run apart in its cell, as shown: ``"cubic, t0 = 0.8"``.
        kind: What the run is in a comparison.
        of: Arm of the variant that an equal-time baseline or a control belongs to; ``None`` for
            others.
        spacing: ``"linear"``, ``"squared"`` or ``"cubic"``; ``None`` if nothing freezes or freeze
            times are given one by one.
        scaled: Whether initial rates are scaled by 1/t_i.
        t0: Freeze time of the first layer before spacing; 1 if nothing freezes.
        max_freezes: Most moments at which layers freeze; ``None`` for no limit.
        seed: Seed of the run; runs of one cell with one seed are paired.
        epochs: Length of the run in epochs.
        total_steps: Length of the run in optimizer steps.
        steps: Optimizer steps done.
        finished: Whether it came to its end.
        base_rate: Base learning rate.
        layer_names: Names of the layers, in order of execution.
        freeze_steps: Step at which each freezes; ``None``: never.
        rate_steps: Steps at which rates are known, increasing.
        rates: Learning rate of every layer at each of `rate_steps`.
        tested: Tests, in order.
        step_times: Step times, in order; few enough to draw.
        memory: (steps done, peak bytes since the entry before) pairs, in order.
        train_seconds: Seconds in training steps.
        total_seconds: Wall seconds of the run, with testing and saving; ``None`` if unknown.
        peak_memory: Peak bytes of the run: of the GPU's memory or of the process; ``None`` if
            unknown.
        predicted: Saving predicted before the run, as a fraction; ``None`` if it was not.
        predicted_interval: Its 95 % interval.
        measured: Saving measured by a clock, as a fraction: against the baseline of the same cell
            and seed where there is one, else by the run's own unfrozen steps; ``None`` if unknown.
        device: Where it ran: ``"CPU, 1 thread"``, ``"NVIDIA H200"``.
        precision: ``"fp32"`` or ``"bf16"``.
    """

    name: str
    cell: str
    model: str
    data: str
    arm: str
    kind: Kind
    of: str | None
    spacing: str | None
    scaled: bool
    t0: float
    max_freezes: int | None = None
    seed: int
    epochs: float
    total_steps: int
    steps: int
    finished: bool
    base_rate: float
    layer_names: tuple[str, ...]
    freeze_steps: tuple[int | None, ...]
    rate_steps: tuple[int, ...]
    rates: tuple[tuple[float, ...], ...]
    tested: tuple[Tested, ...]
    step_times: tuple[StepTime, ...]
    memory: tuple[tuple[int, int], ...]
    train_seconds: float
    total_seconds: float | None
    peak_memory: int | None
    predicted: float | None
    predicted_interval: tuple[float, float] | None
    measured: float | None
    device: str
    precision: str

    @property
    def error(self) -> float | None:
        """Final test error in percent; ``None`` if the run is unfinished or was never tested."""
        return self.tested[-1].error if self.finished and self.tested else None
