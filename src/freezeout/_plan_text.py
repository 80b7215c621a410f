"""A plan in plain text, for those who print one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from freezeout.durations import precise_seconds
from freezeout.schedule import POWERS

if TYPE_CHECKING:
    from freezeout.saving import Plan

__all__ = ["plan_text"]


def plan_text(plan: Plan) -> str:
    """What a plan saves, then one line per layer.

    Args:
        plan: The plan.
    """
    costs = plan.costs
    end = plan.depth_at(plan.total_steps - 1)
    lines = [
        f"{_name(plan)}, {plan.total_steps:,} steps",
        f"  time              {_percent(plan.saving)} saved{_interval(plan)}: "
        f"{precise_seconds(plan.seconds)} in place of {precise_seconds(plan.baseline_seconds)}",
        f"  FLOPs             {_percent(plan.flops_saving)} saved",
        f"  held for backward {_percent(plan.activation_saving)} saved on average: "
        f"{_bytes(costs.saved_bytes(0))} at first, {_bytes(costs.saved_bytes(end))} at the end",
        f"  optimizer state   {_percent(plan.state_saving)} saved on average: "
        f"{_bytes(costs.state_bytes(0))} at first, {_bytes(costs.state_bytes(end))} at the end",
        f"  gradient traffic  {_percent(plan.gradient_saving)} saved, where processes exchange "
        "gradients",
    ]
    if plan.note:
        lines.append(f"  note: {plan.note}")
    scales = plan.schedule.scales(len(costs))
    rows = [("layer", "name", "freezes at", "step", "first rate", "step then takes")]
    for i, (layer, t, n) in enumerate(
        zip(costs.layers, plan.freeze_times, plan.freeze_steps, strict=True)
    ):
        after = "" if n is None else f"{1000 * plan.step_seconds(n):.2f} ms"
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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if i == 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _name(plan: Plan) -> str:
    schedule = plan.schedule
    words = [plan.spacing if plan.spacing != "own" else "own freeze times"]
    if schedule.times is None:
        words.append("nothing freezes" if schedule.t0 == 1.0 else f"t0 = {schedule.t0:g}")
    elif plan.spacing in POWERS:
        words.append(f"merged to {plan.freezes} freezes")
    if schedule.anneal is not None:
        words.append("scaled" if schedule.scaled else "unscaled")
    return ", ".join(words)


def _interval(plan: Plan) -> str:
    if plan.interval is None:
        return ""
    low, high = plan.interval
    return f" ({_number(100 * low)} to {_number(100 * high)})"


def _percent(fraction: float) -> str:
    return f"{_number(100 * fraction)} %"


def _number(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}"  # never "-0.0"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
