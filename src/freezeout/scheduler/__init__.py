"""`FreezeOut`: a learning-rate scheduler that freezes layers. A `Schedule` drives a `Freezer`.

Read ``rates`` first (construction, counting updates, setting rates), then ``scheduler`` (freezing),
then ``together`` (several optimizers of one model). The other files::

    timetable    when each layer freezes, and its factor at each step
    start_rates  the rates a run starts from: none at all, left by an earlier run, set by hand
    split        groups by layer, also for schedulers that were there before
    base_rates   rates changed between two steps: followed, or told whose they are
    last_set     what was last set, to see that
    others       other schedulers of the same optimizer
    turns        heads that take turns: how deep the prefix may get
    misuse       a scheduler that is not stepped
    counting     updates that really happen
    state        checks of a saved state
"""

from freezeout.scheduler.rates import RateScheduler
from freezeout.scheduler.scheduler import FreezeOut

__all__ = ["FreezeOut", "RateScheduler"]
