"""Two tables to read before training: what each layer costs, and what freezing would save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from freezeout.costs import Costs
from freezeout.lab.report.terminal.output import has_blocks
from freezeout.lab.report.terminal.tables import (
    FittedColumn,
    FittedTable,
    counted_column,
    decimals_for,
    time_unit,
)
from freezeout.planning import Plan, paper_saving
from freezeout.text import fixed, format_seconds, interval_text, percent, size_text

__all__ = ["LayerTable", "PlanTable"]


@dataclass(frozen=True)
class LayerTable:
    """What each layer costs in one training step: one line per layer, for a `rich` console.

    Bars show each layer's share of the step. They are blocks on a terminal whose encoding has them,
    else ``#``.

    Args:
        costs: Measured costs.
    """

    costs: Costs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        costs, layers = self.costs, self.costs.layers
        times = {
            "forward": [layer.forward for layer in layers],
            "backward": [layer.backward for layer in layers],
            "optimizer": [layer.optimizer for layer in layers],
        }
        sums = [fsum(column) for column in times.values()]
        step = costs.step_seconds()
        shares = [layer.seconds / step for layer in layers]
        outside = costs.overhead / step
        ascii_only = not has_blocks(console, options)
        unit, scale = time_unit(max(sums, key=abs), ascii_only=ascii_only)
        decimals = decimals_for(max(map(abs, sums)) * scale)

        def time(seconds: float) -> str:
            return fixed(seconds * scale, decimals)

        yield _heading(
            "One training step",
            f"{time(step)} {unit}, of which {time(costs.overhead)} {unit} outside the layers; "
            f"{size_text(costs.saved_bytes())} held for the backward pass",
        )
        names = [*costs.names, "outside the layers", "whole step"]
        flops = [layer.forward_flops + layer.backward_flops for layer in layers]
        held = [layer.saved_bytes for layer in layers]
        parameters = [layer.parameter_bytes for layer in layers]
        state = [layer.state_bytes for layer in layers]
        percents = [percent(share) for share in (*shares, outside, fsum((*shares, outside)))]
        yield FittedTable(
            [
                FittedColumn("#", "#", [*map(str, range(len(layers))), "", ""], style="dim"),
                FittedColumn("layer", "layer", names, "left", kind="name"),
                *(
                    FittedColumn(title, f"{title}\n{unit}", [*map(time, seconds), "", time(total)])
                    for (title, seconds), total in zip(times.items(), sums, strict=True)
                ),
                counted_column("FLOPs", "FLOPs", flops, sum(flops), flops=True),
                counted_column("held", "held", held, sum(held)),
                counted_column("parameters", "params", parameters, sum(parameters)),
                counted_column("optimizer state", "state", state, sum(state)),
                FittedColumn("share", "share\nof step", percents),
                FittedColumn("bar", "", [*shares, outside, 0.0], "left", kind="bar"),
            ],
            spare=("parameters", "optimizer state", "FLOPs", "optimizer", "held"),
            sections=(len(layers),),
        )


@dataclass(frozen=True)
class PlanTable:
    """What schedules are predicted to save: one line per plan, for a `rich` console.

    Args:
        plans: At least one; all for the same costs and steps, those of one spacing together.
        paper: Cost of each layer by the paper's formula, for its own estimate beside the plans;
            none if empty, or if nothing has a cost.

    Raises:
        ValueError: If there is no plan.
    """

    plans: Sequence[Plan]
    paper: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not self.plans:
            raise ValueError("plans must hold at least one plan, got none.")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first, plans = self.plans[0], self.plans
        yield _heading(
            "Without freezing",
            f"{format_seconds(first.baseline_seconds)} in {first.total_steps:,} training steps; "
            f"{size_text(first.costs.saved_bytes())} held for the backward pass",
        )
        yield FittedTable(
            self._columns(),
            spare=(
                "mean memory saved",
                "rate factor",
                "FLOPs saved",
                "memory at the end",
                "time",
                "paper's estimate",
            ),
            sections=[i for i in range(1, len(plans)) if plans[i].spacing != plans[i - 1].spacing],
        )
        interval = "; its 95 % interval in brackets" if any(p.interval for p in plans) else ""
        yield Text(
            "Predicted saving: of the time of training steps, from layer costs measured on this "
            f"machine{interval}.",
            style="dim",
        )
        if any(self._estimate(plan) != "-" for plan in plans):
            yield Text(
                "Paper's estimate: the paper's FLOP formula (backward as cheap as forward).",
                style="dim",
            )

    def _columns(self) -> list[FittedColumn]:
        plans = self.plans
        ends = [size_text(plan.saved_bytes(plan.total_steps - 1)) for plan in plans]
        rates = [f"{plan.schedule.scales(len(plan.costs))[0]:.2f}x" for plan in plans]
        style = "bold green" if all(plan.saving > 0 for plan in plans) else "bold"
        columns = [
            FittedColumn("spacing", "spacing", [plan.spacing for plan in plans], "left"),
            FittedColumn("t0", "t0", _t0s(plans)),
            FittedColumn(
                "time", "time of\nall\nsteps", [format_seconds(plan.seconds) for plan in plans]
            ),
            FittedColumn(
                "saving",
                "predicted saving on\nthis machine, by\nits measured costs",
                _savings(plans),
                "left",
                style,
            ),
            FittedColumn("FLOPs saved", "FLOPs\nsaved", [percent(p.flops_saving) for p in plans]),
            FittedColumn("memory at the end", "memory\nheld at\nthe end", ends),
            FittedColumn(
                "mean memory saved",
                "mean\nmemory\nsaved",
                [percent(plan.activation_saving) for plan in plans],
            ),
            FittedColumn("rate factor", "first\nlayer's\nrate", rates),
        ]
        estimates = [self._estimate(plan) for plan in plans]
        if any(estimate != "-" for estimate in estimates):
            header = "paper's\nestimate\n(FLOPs)"
            columns.append(FittedColumn("paper's estimate", header, estimates, style="dim"))
        return columns

    def _estimate(self, plan: Plan) -> str:
        """Write the saving by the paper's formula, which knows curves of a t0 alone."""
        schedule = plan.schedule
        if schedule.times is not None or not sum(self.paper) > 0:
            return "-"
        return percent(paper_saving(self.paper, schedule.t0, spacing=schedule.spacing))


def _heading(title: str, rest: str) -> Text:
    return Text.assemble((title, "bold"), f": {rest}")


def _t0s(plans: Sequence[Plan]) -> list[str]:
    """Write every t0 with equally many decimals, as few as they need, at most four."""
    known = [None if plan.schedule.times is not None else plan.schedule.t0 for plan in plans]
    texts = [f"{t0:.4f}".rstrip("0") for t0 in known if t0 is not None]
    decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
    return ["-" if t0 is None else f"{t0:.{decimals}f}" for t0 in known]


def _savings(plans: Sequence[Plan]) -> list[str]:
    """Write savings under each other, then their intervals under each other."""
    values = [percent(plan.saving) for plan in plans]
    room = max(map(len, values))
    return [
        f"{value:>{room}}{interval_text(plan.interval)}"
        for plan, value in zip(plans, values, strict=True)
    ]
