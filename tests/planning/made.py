"""Costs of made numbers, curves, and schedules by hand."""

import dataclasses

from tests.strategies import made_costs

CURVES = ["linear", "squared", "cubic"]
SPACINGS = [*CURVES, "budget"]
GRAIN = 1e-4

FOUR = made_costs((1.0, 2.0, 0.5), last=0.5, overhead=0.5)
"""A step takes 6 s, or 2.5 s with all but the last layer frozen."""

TEN = made_costs([0.3, 1.0, 0.2, 0.9, 0.1, 0.6, 0.6, 0.05, 0.4])


def gentler(made):
    """The plan with the next larger t0."""
    schedule = dataclasses.replace(made.schedule, t0=made.schedule.t0 + GRAIN)
    return dataclasses.replace(made, schedule=schedule)
