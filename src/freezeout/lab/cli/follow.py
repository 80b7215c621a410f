"""Train by a saved plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeout.errors import RunError
from freezeout.planning import Plan

__all__ = ["plan_settings", "read_plan"]


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        CostError: If the file cannot be read, or does not hold a plan.
    """
    return Plan.load(path)


def plan_settings(plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a plan decides.

    Args:
        plan: The plan.
        given: Settings of the command line; they must leave schedule and length to the plan.

    Raises:
        RunError: If they do not.
    """
    schedule = plan.schedule.to_dict()
    for name in (*schedule, "const_time", "epochs"):
        if name in given:
            raise RunError(
                f"--{name.replace('_', '-')} cannot be given with --plan: schedule and length are "
                "the plan's. Leave it out (--steps sets another length), or make another plan."
            )
    return {
        **schedule,
        "steps": given.get("steps", plan.total_steps),
        "const_time": False,
    }
