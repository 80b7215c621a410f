"""How long training steps take, and what freezing has saved so far."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["StepClock", "Window"]


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


class StepClock:
    """Times training steps: batch, forward, backward, optimizer and scheduler; nothing else.

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
        """Number of windows so far."""
        return len(self._windows)

    @property
    def full(self) -> bool:
        """Whether the running window has its full length."""
        return self._pending >= self.length

    def begin_step(self, frozen: int) -> None:
        """Says that a step begins, with `frozen` layers frozen."""
        if self._begin is None:
            self._wait()
            self._begin = self._now()
        self._frozen = frozen

    def end_step(self) -> None:
        """Says that the work of a step has been handed to the device."""
        self._pending += 1

    def close(self, done: int) -> None:
        """Ends the running window, if any, after `done` optimizer steps in all."""
        if self._begin is None:
            return
        if self._pending:
            self._wait()
            seconds = (self._now() - self._begin) / self._pending
            self._windows.append(Window(done, self._pending, seconds, self._frozen))
        self._begin = None
        self._pending = 0

    def costs(self) -> list[tuple[int, int, float]]:
        """For each number of frozen layers that occurred: it, its steps, their median seconds."""
        by_depth: dict[int, list[Window]] = {}
        for window in self._windows:
            by_depth.setdefault(window.frozen, []).append(window)
        return [
            (frozen, sum(w.steps for w in found), statistics.median(w.seconds for w in found))
            for frozen, found in sorted(by_depth.items())
        ]

    def saved_seconds(self) -> float | None:
        """Seconds saved against as many unfrozen steps, from medians; ``None`` without these."""
        costs = self.costs()
        if not costs or costs[0][0] != 0:
            return None
        unfrozen = costs[0][2]
        return sum(steps * (unfrozen - seconds) for _, steps, seconds in costs)

    def pace(self) -> float | None:
        """Median seconds of the latest steps with as many frozen layers as now."""
        latest = [w.seconds for w in self._windows[-50:] if w.frozen == self._windows[-1].frozen]
        return statistics.median(latest) if latest else None

    def total_since(self, step: int) -> float:
        """Seconds in the steps done after the first `step`."""
        return sum(w.steps * w.seconds for w in self._windows if w.end > step)

    def state_dict(self) -> dict[str, Any]:
        """The windows, as tensors."""
        return {
            "counts": torch.tensor(
                [(w.end, w.steps, w.frozen) for w in self._windows], dtype=torch.int64
            ).reshape(-1, 3),
            "seconds": torch.tensor([w.seconds for w in self._windows], dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` returned."""
        self._windows = [
            Window(end, steps, seconds, frozen)
            for (end, steps, frozen), seconds in zip(
                state["counts"].tolist(), state["seconds"].tolist(), strict=True
            )
        ]

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
