"""Plans by hand, and drawn ones."""

from hypothesis import strategies as st

from freezeout import Plan, Schedule
from tests import strategies
from tests.strategies import made_costs

THREE = made_costs((2.0, 1.0), frozen=(0.5, 0.25), last=0.25, overhead=0.25)
"""A step takes 4.25 s; 2.25 s with one layer frozen, 1.25 s with two."""

LINEAR = Schedule(t0=0.5, spacing="linear")
"""Of 8 steps, the first of three layers freezes at 4, the second at 6."""


def plans(layers: int):
    return st.builds(
        Plan,
        strategies.costs(min_layers=layers, max_layers=layers),
        strategies.schedules(layers),
        strategies.total_steps,
    )


any_plan = st.integers(2, 8).flatmap(plans)
