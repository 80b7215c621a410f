"""A whole run: from settings to a folder with log, checkpoint and a finished network."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from freezeout.costs import trouble_words
from freezeout.errors import CheckpointError, RunError
from freezeout.lab.data import Dataset
from freezeout.lab.training.checkpoint import load_checkpoint, save_checkpoint
from freezeout.lab.training.folder import RunFolder, held
from freezeout.lab.training.forecasting import LEAST_STEPS, cost_differences, forecast
from freezeout.lab.training.observer import Observer
from freezeout.lab.training.preparation import ready
from freezeout.lab.training.processes import ALONE, Processes, local_norms
from freezeout.lab.training.settings import Settings
from freezeout.lab.training.signals import StopSignals
from freezeout.lab.training.stretch import Stretch, on_machine, tell
from freezeout.lab.training.threads import pick_threads
from freezeout.lab.training.trainer import Trainer
from freezeout.planning import Plan
from freezeout.text import interval_text, percent, precise_seconds

__all__ = ["MOVABLE", "RunResult", "resume", "start"]

MOVABLE = ("device", "data_dir", "checkpoint_minutes")
"""Settings that a resumed run may change."""


@dataclass(frozen=True)
class RunResult:
    """What a run leaves in memory.

    Attributes:
        trainer: The trainer in its final state.
        interrupted: Whether a signal stopped the run before its end.
        seconds: Wall seconds of the run, with those before a resume.
        plan: What the run was predicted to cost; ``None`` if it was not.
    """

    trainer: Trainer
    interrupted: bool
    seconds: float
    plan: Plan | None = None


def start(
    settings: Settings,
    folder: RunFolder,
    observers: Sequence[Observer] = (),
    *,
    predict: bool | None = None,
    plan: Plan | None = None,
    dataset: Dataset | None = None,
    processes: Processes = ALONE,
) -> RunResult:
    """Train from the beginning, in a new or empty folder, which this process holds meanwhile.

    A folder in which a run was only begun (see `RunFolder.only_begun`) counts as empty.

    Args:
        settings: What to train and how. Where `threads` is left open on a CPU, a few steps with
            1, 2, 4 ... of them decide. With `const_time` the step is measured first. The folder's
            settings have the `threads` and `steps` that result.
        folder: Where settings, log and checkpoints go.
        observers: Told of what happens.
        predict: Whether to measure the step first and predict what freezing saves; ``None``: if
            something freezes and the run has at least `LEAST_STEPS` steps.
        plan: A plan that `settings` carry out. Its costs are used in place of new ones.
        dataset: The data, if it was prepared before; see `prepare`.
        processes: Those that train together, all of which call this alike; rank 0 alone writes and
            tells. They cannot predict: what they exchange is in no measured cost.

    Returns:
        The finished or interrupted run; ``SIGINT`` and ``SIGTERM`` end it after the step under way.

    Raises:
        FreezeOutError: If it cannot start or go on; what was saved stays.
    """
    _check_unpredicted(settings, predict, processes)
    if settings.const_time and predict is False:
        raise RunError(
            "const_time needs a prediction, got predict=False. Leave one of them out: a run is "
            "lengthened by what freezing is predicted to save."
        )
    with held(folder, processes, new=True):
        return _start(settings, folder, observers, predict, plan, dataset, processes)


def _start(
    settings: Settings,
    folder: RunFolder,
    observers: Sequence[Observer],
    predict: bool | None,
    plan: Plan | None,
    dataset: Dataset | None,
    processes: Processes,
) -> RunResult:
    _tell_notes(folder, observers)
    asked = settings.threads
    settings, dataset = ready(settings, dataset, observers, processes)
    trainer = Trainer(settings, dataset, processes)
    if asked is None:
        settings = _pick_threads(trainer, plan, observers)
    _tell_of_norms(trainer, observers)
    if plan is not None:
        plan = _followed(plan, trainer, observers)
    if plan is None:
        plan = _predict(trainer, predict, observers)
    if plan is not None and settings.const_time:
        before, plan = plan.total_steps, plan.lengthened()
        settings = replace(settings, steps=plan.total_steps, const_time=False)
        trainer = Trainer(settings, dataset)
        tell(
            observers,
            f"constant time: {plan.total_steps:,} steps with freezing take as long as {before:,} "
            "without",
        )
    processes.from_main(lambda: folder.create(settings, plan))
    _begin(trainer, folder)
    return _go(trainer, folder, observers, plan)


def _pick_threads(trainer: Trainer, plan: Plan | None, observers: Sequence[Observer]) -> Settings:
    """Find the number of threads, tell it, and return the settings of the run with it."""
    costs = None if plan is None else plan.costs
    chosen = trainer.processes.from_main(lambda: pick_threads(trainer, trainer.processes, costs))
    if chosen.text:
        tell(observers, chosen.text)
    trainer.settings = replace(trainer.settings, threads=chosen.count)
    return trainer.settings


def _predict(trainer: Trainer, wanted: bool | None, observers: Sequence[Observer]) -> Plan | None:
    """Measure the step and tell what freezing will save, where that is wanted."""
    settings = trainer.settings
    freezes = any(n is not None for n in trainer.scheduler.freeze_steps)
    long = trainer.total_steps >= LEAST_STEPS
    if not (wanted or settings.const_time or (wanted is None and freezes and long)):
        return None
    if trainer.processes.size > 1:
        tell(observers, "no prediction: what several processes exchange is in no measured cost")
        return None
    tell(observers, "measuring what a training step costs ...")
    with on_machine(settings):
        plan = forecast(trainer)
    _tell_plan(plan, observers)
    return plan


def _followed(plan: Plan, trainer: Trainer, observers: Sequence[Observer]) -> Plan | None:
    """Return the plan over the steps of this run; ``None`` if it was measured on another step."""
    plan.check(trainer.scheduler.layers)
    differences = cost_differences(plan.costs, trainer)
    if trainer.processes.size > 1:
        differences = [f"one process in place of {trainer.processes.size}"]
    if differences:
        tell(
            observers,
            f"the plan was measured with {'; '.join(differences)}: its schedule is followed, its "
            "prediction does not hold",
        )
        return None
    plan = replace(plan, schedule=trainer.settings.schedule, total_steps=trainer.total_steps)
    _tell_plan(plan, observers)
    return plan


def _tell_plan(plan: Plan, observers: Sequence[Observer]) -> None:
    spoilt = trouble_words(plan.costs.trouble)
    if spoilt:
        tell(observers, spoilt)
    tell(
        observers,
        f"predicted{', by spoilt costs' if spoilt else ''}: freezing saves "
        f"{percent(plan.saving)}{interval_text(plan.interval)} of the training steps' time, "
        f"{precise_seconds(plan.seconds)} in place of {precise_seconds(plan.baseline_seconds)}",
    )


def _begin(trainer: Trainer, folder: RunFolder) -> None:
    """Write the first line of the log and a checkpoint, so that a run killed at once can resume."""
    state = trainer.state_dict()
    if not trainer.processes.main:
        return
    settings = trainer.settings
    folder.log(
        "start",
        step=0,
        settings=settings.to_dict(),
        total_steps=trainer.total_steps,
        epoch_steps=len(trainer.task.train_data),
        layers=list(trainer.scheduler.layers.names),
        freeze_steps=list(trainer.scheduler.freeze_steps),
        torch=torch.__version__,
        device=str(trainer.device),
        processes=trainer.processes.size,
    )
    save_checkpoint(folder.checkpoint, state)


def resume(
    folder: RunFolder,
    changes: Mapping[str, Any] | None = None,
    observers: Sequence[Observer] = (),
    *,
    dataset: Dataset | None = None,
    processes: Processes = ALONE,
) -> RunResult:
    """Go on with an interrupted run, to the same bits as if it had never been interrupted.

    This process holds the folder from before it reads anything in it to the end of the run.
    Damaged lines of the log are left out, and `observers` are told.
    On another number of processes it goes on to the same result but for rounding.

    Args:
        folder: The folder of the run.
        changes: Settings to change; only where and how often it saves and runs may change
            (`device`, `data_dir`, `checkpoint_minutes`).
        observers: Told of what happens.
        dataset: The data, if it was prepared before; see `prepare`.
        processes: Those that train together; see `start`.

    Returns:
        The finished or again interrupted run.

    Raises:
        FreezeOutError: If there is nothing to resume, it does not fit, or it cannot go on.
    """
    with held(folder, processes, new=False):
        return _resume(folder, changes or {}, observers, dataset, processes)


def _resume(
    folder: RunFolder,
    changes: Mapping[str, Any],
    observers: Sequence[Observer],
    dataset: Dataset | None,
    processes: Processes,
) -> RunResult:
    settings, state = processes.from_main(lambda: _saved(folder, changes))
    _tell_notes(folder, observers)
    settings, dataset = ready(settings, dataset, observers, processes)
    trainer = Trainer(settings, dataset, processes)
    _tell_of_norms(trainer, observers)
    if state is not None:
        trainer.load_state_dict(state)
    if processes.main:
        _tell_damage(folder, observers)
        folder.rewind_log(-1 if state is None else trainer.step, trainer.epoch)
    if state is None:
        _begin(trainer, folder)
    else:
        _note_processes(trainer, len(state.get("generators", [None])), folder, observers)
    plan = processes.from_main(folder.plan)
    if plan is not None:
        plan.check(trainer.scheduler.layers)
    return _go(trainer, folder, observers, plan)


def _tell_notes(folder: RunFolder, observers: Sequence[Observer]) -> None:
    for note in folder.notes:
        tell(observers, note)
    folder.notes.clear()


def _tell_damage(folder: RunFolder, observers: Sequence[Observer]) -> None:
    wrong = folder.log_damage()
    if wrong:
        count = "1 line" if len(wrong) == 1 else f"{len(wrong)} lines"
        tell(observers, f"{count} of {folder.log_file} left out as damaged ({wrong[0]})")


def _saved(folder: RunFolder, changes: Mapping[str, Any]) -> tuple[Settings, dict[str, Any] | None]:
    """Return settings and state to go on from; the state is ``None`` if none was saved yet."""
    settings = folder.settings()
    for name, value in changes.items():
        if name not in MOVABLE and value != getattr(settings, name):
            raise CheckpointError(
                f"the run in {folder.path} has {name}={getattr(settings, name)!r}, got {value!r}. "
                "A resumed run keeps its settings: leave this one out, or start a new run."
            )
    # A run that was killed before its very first checkpoint begins again.
    begun = os.path.lexists(folder.checkpoint) or folder.has_steps()
    state = load_checkpoint(folder.checkpoint) if begun else None
    if state is not None:
        _check_same(folder, settings, state.get("settings"))
    return Settings.from_dict({**settings.to_dict(), **changes}), state


def _check_unpredicted(settings: Settings, predict: bool | None, processes: Processes) -> None:
    asked = "const_time" if settings.const_time else "predict" if predict else None
    if asked is not None and processes.size > 1:
        raise RunError(
            f"{asked} needs measured costs, which are those of one process, got {processes.size}: "
            "what several exchange is in none of them. Leave it out, or run in one process."
        )


def _tell_of_norms(trainer: Trainer, observers: Sequence[Observer]) -> None:
    found = local_norms(trainer.model) if trainer.processes.size > 1 else []
    if found:
        tell(
            observers,
            f"{', '.join(found)} normalises in each process by itself, so the result depends on "
            "how many there are",
        )


def _note_processes(
    trainer: Trainer, before: int, folder: RunFolder, observers: Sequence[Observer]
) -> None:
    """Tell and log that a run goes on in another number of processes."""
    now = trainer.processes.size
    if now == before or trainer.finished:
        return
    tell(
        observers,
        f"goes on in {now} process{'' if now == 1 else 'es'}, after {before}: the same result but "
        "for rounding",
    )
    if trainer.processes.main:
        noted = [r["processes"] for r in folder.read_log() if "processes" in r]
        if noted[-1:] != [now]:  # not by a resume that was killed before it saved anything
            folder.log("resume", step=trainer.step, processes=now)


def _check_same(folder: RunFolder, settings: Settings, saved: Any) -> None:
    if not isinstance(saved, Mapping) or not all(map(_is_setting, saved.items())):
        raise CheckpointError(
            f"checkpoint {folder.checkpoint} holds no settings. Restore it from a copy, or start "
            "the run again in an empty folder."
        )
    here = settings.to_dict()
    for name in sorted(here.keys() | saved.keys()):
        if name not in MOVABLE and here.get(name) != saved.get(name):
            raise CheckpointError(
                f"{folder.checkpoint} was made with {name}={saved.get(name)!r}, but "
                f"{folder.settings_file} has {here.get(name)!r}. Put back the settings or the "
                "checkpoint that belong together."
            )


def _is_setting(item: tuple[Any, Any]) -> bool:
    """Return whether a name and a value are plain, as those of settings are."""
    name, value = item
    values = value if isinstance(value, list) else [value]
    return isinstance(name, str) and all(type(v) in (str, int, float, bool) for v in values)


def _go(
    trainer: Trainer, folder: RunFolder, observers: Sequence[Observer], plan: Plan | None
) -> RunResult:
    stretch = Stretch(trainer, folder, observers)
    remove = trainer.scheduler.freezer.add_listener(stretch.note_freeze)
    try:
        stop = threading.Event()
        once = trainer.processes.size > 1  # a launcher repeats itself
        with on_machine(trainer.settings), StopSignals(stop, once=once):
            stretch.train(stop)
    finally:
        remove()
    return RunResult(trainer, not trainer.finished, stretch.seconds(), plan)
