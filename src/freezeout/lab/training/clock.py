"""How long training steps take, and what freezing has saved so far."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["DepthCost", "StepClock", "Window", "measured_saving"]


@dataclass(frozen=True)
class Window:
    """Consecutive steps with equally many frozen layers, timed together.

    Attributes:
        end: Optimizer steps done when it ended.
        steps: Number of steps in it, at least 1.
        seconds: Mean seconds of one of them.
        frozen: Length of the frozen prefix.
    """

    end: int
    steps: int
    seconds: float
    frozen: int


@dataclass(frozen=True)
class DepthCost:
    """What a training step cost while a given number of layers was frozen.

    Attributes:
        frozen: Length of the frozen prefix.
        steps: Number of steps taken at that depth.
        median_seconds: Median seconds of such a step.
    """

    frozen: int
    steps: int
    median_seconds: float


def measured_saving(costs: Sequence[DepthCost]) -> float | None:
    r"""Return the fraction of training time saved, against the run's own unfrozen steps.

    With $n_d$ steps of median time $m_d$ at $d$ frozen layers, the saving is
    $1 - \sum_d n_d m_d / (m_0 \sum_d n_d)$. Medians keep a few slow steps (a first batch, a busy
    disk) from deciding it. It is negative when the steps grew slower. The unfrozen steps come first
    in time, so a change in the machine's speed during the run counts too. Evaluation, loading and
    saving take the same time with or without freezing, so the whole run saves a smaller fraction.

    Args:
        costs: One entry per length of the frozen prefix, in any order. Entries without steps are
            ignored.

    Returns:
        The saving as a fraction, at most 1; ``None`` if no step was unfrozen, none was frozen, or
        the unfrozen steps took no measurable time.

    Example:
        >>> measured_saving([DepthCost(0, 50, 0.2), DepthCost(1, 50, 0.1)])
        0.25
    """
    timed = {cost.frozen: cost for cost in costs if cost.steps}
    if 0 not in timed or len(timed) == 1 or timed[0].median_seconds == 0:
        return None
    spent = math.fsum(cost.steps * cost.median_seconds for cost in timed.values())
    unfrozen = timed[0].median_seconds * sum(cost.steps for cost in timed.values())
    return 1.0 - spent / unfrozen


class StepClock:
    """Time training steps: batch, forward, backward, optimizer and scheduler; nothing else.

    On a CPU every step is timed alone. A GPU works asynchronously and would be slowed down by
    waiting after every step, so there `length` steps are timed together, and the clock waits for
    the device only at both ends.

    Args:
        device: Where the steps run.
        length: Most steps in a window; by default 1 on a CPU and 20 on a GPU.
        now: Reads a clock in seconds.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        length: int | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device = device
        self.length = length or (20 if device.type == "cuda" else 1)
        self._now = now
        self._windows: list[Window] = []
        self._begin: float | None = None
        self._pending = 0
        self._frozen = 0

    @property
    def windows(self) -> tuple[Window, ...]:
        """All windows so far."""
        return tuple(self._windows)

    def __len__(self) -> int:
        """Return the number of windows so far."""
        return len(self._windows)

    @property
    def full(self) -> bool:
        """Whether the running window has its full length."""
        return self._pending >= self.length

    def begin_step(self, frozen: int) -> None:
        """Say that a step begins, with `frozen` layers frozen."""
        if self._begin is None:
            self._wait()
            self._begin = self._now()
        self._frozen = frozen

    def end_step(self) -> None:
        """Say that the work of a step has been handed to the device."""
        self._pending += 1

    def close(self, done: int) -> None:
        """End the running window, if any, after `done` optimizer steps in all."""
        if self._begin is None:
            return
        if self._pending:
            self._wait()
            seconds = (self._now() - self._begin) / self._pending
            self._windows.append(Window(done, self._pending, seconds, self._frozen))
        self._begin = None
        self._pending = 0

    def costs(self) -> list[DepthCost]:
        """Return the cost at each number of frozen layers that occurred, in rising order."""
        by_depth: dict[int, list[Window]] = {}
        for window in self._windows:
            by_depth.setdefault(window.frozen, []).append(window)
        return [
            DepthCost(
                frozen, sum(w.steps for w in found), statistics.median(w.seconds for w in found)
            )
            for frozen, found in sorted(by_depth.items())
        ]

    def saved_seconds(self) -> float | None:
        """Return seconds saved against as many unfrozen steps, by medians; ``None`` without any."""
        costs = self.costs()
        if not costs or costs[0].frozen != 0:
            return None
        unfrozen = costs[0].median_seconds
        return sum(cost.steps * (unfrozen - cost.median_seconds) for cost in costs)

    def pace(self) -> float | None:
        """Return the median seconds of the latest steps with as many frozen layers as now."""
        latest = [w.seconds for w in self._windows[-50:] if w.frozen == self._windows[-1].frozen]
        return statistics.median(latest) if latest else None

    def total_since(self, step: int) -> float:
        """Return the seconds in the steps done after the first `step`."""
        return sum(w.steps * w.seconds for w in self._windows if w.end > step)

    def state_dict(self) -> dict[str, Any]:
        """Return the windows, as tensors."""
        return {
            "counts": torch.tensor(
                [(w.end, w.steps, w.frozen) for w in self._windows], dtype=torch.int64
            ).reshape(-1, 3),
            "seconds": torch.tensor([w.seconds for w in self._windows], dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._windows = [
            Window(end, steps, seconds, frozen)
            for (end, steps, frozen), seconds in zip(
                state["counts"].tolist(), state["seconds"].tolist(), strict=True
            )
        ]

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
