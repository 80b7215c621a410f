"""Training as a saved plan says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeout.errors import RunError
from freezeout.saving import Plan

__all__ = ["plan_settings", "read_plan"]


def read_plan(path: Path) -> Plan:
    """Reads a plan.

    Raises:
        RunError: If the file cannot be read.
        CostError: If it holds no plan.
    """
    try:
        return Plan.load(path)
    except OSError as error:
        raise RunError(
            f"cannot read the plan {path}: {error.strerror}. Give the plan.json that "
            "freezeout plan wrote."
        ) from error


def plan_settings(plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a plan decides.

    Args:
        plan: The plan.
        given: Settings of the command line, which must leave the schedule to the plan.

    Raises:
        RunError: If they do not.
    """
    schedule = plan.schedule.to_dict()
    merged = schedule.pop("max_freezes") is not None  # a run has the times that came of it
    for name in (*schedule, "const_time", "epochs"):
        if name in given:
            raise RunError(
                f"--{name.replace('_', '-')} cannot be given with --plan: schedule and length are "
                "the plan's. Leave it out (--steps sets another length), or make another plan."
            )
    times = plan.freeze_times if merged else schedule["times"]
    return {
        **schedule,
        "times": None if times is None else tuple(times),
        "steps": given.get("steps", plan.total_steps),
        "const_time": False,
    }
