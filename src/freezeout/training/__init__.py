"""A plain, fast training loop for the paper's networks, with exact resume.

Start in `freezeout.training.run`; `trainer` has the loop, `settings` all that can be set.
"""

from freezeout.training.folder import RunFolder
from freezeout.training.observer import EpochRecord, Observer, Progress
from freezeout.training.presets import PRESETS
from freezeout.training.processes import Processes
from freezeout.training.run import RunResult, resume, start
from freezeout.training.settings import Settings
from freezeout.training.trainer import Trainer

__all__ = [
    "PRESETS",
    "EpochRecord",
    "Observer",
    "Processes",
    "Progress",
    "RunFolder",
    "RunResult",
    "Settings",
    "Trainer",
    "resume",
    "start",
]
