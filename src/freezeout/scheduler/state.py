"""Check a saved state against the scheduler that is to load it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from freezeout.errors import CheckpointError, is_number
from freezeout.schedule import Schedule

__all__ = ["check_state"]


def check_state(
    state: Any, here: Mapping[str, Any], schedule: Schedule, kind: str, num_layers: int
) -> None:
    """Raise `CheckpointError` unless a state was saved by a scheduler like this one.

    Args:
        state: What was given to ``load_state_dict``.
        here: The state of the scheduler that is to load it.
        schedule: Its settings.
        kind: Its name.
        num_layers: Number of its layers.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"the state must be a dict, got {type(state).__name__}. "
            f"Load what state_dict() of a {kind} scheduler returned."
        )
    missing = sorted(here.keys() - state.keys())
    if missing:
        raise CheckpointError(
            f"the state has no {', '.join(missing)}: it is not that of a {kind} scheduler. "
            "Load what its state_dict() returned."
        )
    done = state["last_epoch"]
    if not isinstance(state["schedule"], Mapping) or type(done) is not int or done < 0:
        raise CheckpointError(
            f"the state is damaged: last_epoch={done!r}. It must be a whole number of at "
            "least 0; load what state_dict() returned."
        )
    differences = schedule.differences(state["schedule"])
    for key in here:
        if key not in ("last_epoch", "schedule") and state[key] != here[key]:
            differences.append(_difference(key, state[key], here[key]))
    if differences:
        raise CheckpointError(
            f"the checkpoint was made with other settings: {'; '.join(differences)}. "
            f"Construct {kind} as for the run that saved it."
        )
    _check_optional(state, num_layers)


def _check_optional(state: Mapping[str, Any], num_layers: int) -> None:
    """Check what is there only where something happened."""
    rates = state.get("base_lrs_now", [])
    given = state.get("base_lrs")
    deepest = state.get("deepest", 0)
    sound = {
        "base_lrs_now": isinstance(rates, list)
        and all(is_number(rate) and 0 <= rate < math.inf for rate in rates)
        and len(rates) in (0, len(given) if isinstance(given, list) else len(rates)),
        "deepest": type(deepest) is int and 0 <= deepest < num_layers,
        "turn": state.get("turn") in (None, "before", "after"),
    }
    for key, is_sound in sound.items():
        if not is_sound:
            raise CheckpointError(
                f"the state is damaged: {key}={state[key]!r} is not what state_dict() stores "
                "there. Load what state_dict() returned."
            )


def _difference(key: str, there: Any, here: Any) -> str:
    """Write down how two values differ; of two lists, their lengths or the first pair."""
    if isinstance(there, list) or isinstance(here, list):  # real networks have hundreds of layers
        counts = [len(side) if isinstance(side, list) else "no" for side in (there, here)]
        if counts[0] != counts[1]:
            return f"{counts[0]} {key} there but {counts[1]} here"
        index = next(i for i, (a, b) in enumerate(zip(there, here, strict=True)) if a != b)
        key, there, here = f"{key}[{index}]", there[index], here[index]
    return f"{key}={there!r} there but {key}={here!r} here"
