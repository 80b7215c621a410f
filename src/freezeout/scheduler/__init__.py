"""`FreezeOut`: a learning-rate scheduler that freezes layers. A `Schedule` drives a `Freezer`.

Read ``rates`` first (construction, counting updates, setting rates), then ``scheduler`` (freezing),
then ``together`` (several optimizers of one model).
"""

from freezeout.scheduler.rates import RateScheduler
from freezeout.scheduler.scheduler import FreezeOut

__all__ = ["FreezeOut", "RateScheduler"]
