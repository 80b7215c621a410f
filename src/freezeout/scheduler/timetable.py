"""When each layer of one model freezes and how its rate falls until then."""

from __future__ import annotations

from bisect import bisect_right

from freezeout.schedule import Schedule, annealing, rate_factors, warmup_factor

__all__ = ["Timetable"]


class Timetable:
    """A schedule for a number of layers and steps, in which at most so many layers freeze.

    Args:
        schedule: The settings.
        num_layers: Number of layers.
        total_steps: Length of training in optimizer updates.

    Attributes:
        planned: At which step each layer is to freeze as the schedule has it; ``None`` if never.
        deepest: How many layers may freeze at most. All others learn to the end, as the last does.
        times: When each layer freezes, as a fraction of training.
        steps: The same in steps.
        thresholds: The steps alone, of the layers that freeze.
    """

    def __init__(self, schedule: Schedule, num_layers: int, total_steps: int) -> None:
        self.planned = schedule.freeze_steps(num_layers, total_steps)
        self._schedule = schedule
        self._total_steps = int(total_steps)
        self._curve = annealing(schedule.anneal)
        self.limit(num_layers - 1)

    def limit(self, deepest: int) -> None:
        """Let at most so many layers freeze.

        Args:
            deepest: Number of layers, less than there are.
        """
        count = len(self.planned)
        self.deepest = deepest
        ends = (1.0,) * (count - deepest)
        self.times = (*self._schedule.freeze_times(count)[:deepest], *ends)
        self._scales = (*self._schedule.scales(count)[:deepest], *ends)
        self.steps = (*self.planned[:deepest], *(None for _ in ends))
        self.thresholds = [n for n in self.steps if n is not None]

    def due_at(self, step: int) -> int:
        """Return how many layers are past their freeze times after `step` updates."""
        return bisect_right(self.thresholds, step)

    def factors_at(self, step: int) -> tuple[float, ...]:
        """Return each layer's rate over its base rate after `step` updates."""
        return rate_factors(
            step / self._total_steps,
            self.times,
            self._scales,
            self._curve,
            warmup_factor(step, self._schedule.warmup_steps),
        )
