r"""When each layer freezes, and at which rate it learns until then. Start reading here.

Numbers in, numbers out: this room imports no torch, so that it reads beside the paper.

Training runs over *progress* $t \in [0, 1]$, the steps done divided by ``total_steps``. Layer $i$
learns until its freeze time $t_i$, at the rate

$$\alpha_i(t) = \alpha \cdot s_i \cdot c(t / t_i), \qquad s_i = 1/t_i \text{ (scaled) or } 1,
\qquad c(u) = \tfrac12 (1 + \cos \pi u),$$

and is frozen from $t_i$ on. Everything is closed form: nothing depends on the step before, so a
resumed run and an uninterrupted one cannot differ.
"""

from freezeout.schedule.formulas import (
    POWERS,
    annealing,
    freeze_step,
    freeze_times,
    initial_scales,
    rate_factors,
    warmup_factor,
)
from freezeout.schedule.merging import merge_times
from freezeout.schedule.schedule import Schedule, make_schedule
from freezeout.schedule.settings import Anneal, RateSettings, ScheduleSettings, Spacing

__all__ = [
    "POWERS",
    "Anneal",
    "RateSettings",
    "Schedule",
    "ScheduleSettings",
    "Spacing",
    "annealing",
    "freeze_step",
    "freeze_times",
    "initial_scales",
    "make_schedule",
    "merge_times",
    "rate_factors",
    "warmup_factor",
]
