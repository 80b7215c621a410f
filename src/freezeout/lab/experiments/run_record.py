"""Read the folder of one run: from its files to a plain record, every value checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

from freezeout.errors import FreezeOutError
from freezeout.lab.evidence import Kind, RunRecord, StepTime, Tested
from freezeout.lab.experiments.arms import control_name, variant_of
from freezeout.lab.experiments.entries import (
    Entries,
    flag,
    listed,
    mapping,
    number,
    seconds,
    text,
    whole,
)
from freezeout.lab.experiments.job import Label
from freezeout.lab.training import MOVABLE, RunFolder, Settings
from freezeout.storage import KeptFile, read_json, read_json_lines
from freezeout.text import one_line

__all__ = ["FoundRun", "read_folder", "read_run"]

_REMAKE = "Copy it again, or leave the run out."
_RECORD = KeptFile("record", "Copy it again.", _REMAKE)
_LOG = KeptFile("log", "Copy it again.", _REMAKE)
_SETTINGS = KeptFile("settings file", "Copy it again.", _REMAKE)

_RATE_POINTS = 120  # along each curve of rates
_MOST_LAYERS = 10_000
_MOST_BYTES = 1 << 60
_LOWEST_SAVING = -1e6  # a run of a million times the time


@dataclass(frozen=True)
class FoundRun:
    """A run in its folder.

    Attributes:
        path: The folder.
        settings: Its settings.
        labelled: Whether an experiment has said what it is.
        record: What is known of it.
    """

    path: Path
    settings: Settings
    labelled: bool
    record: RunRecord


def read_run(path: Path, name: str | None = None) -> RunRecord:
    """Read one run, finished or not.

    Args:
        path: Its folder.
        name: What to call it; by default as its folder.

    Raises:
        FreezeOutError: If the folder holds no run, or a file in it is damaged, holds something
            else, or cannot be read.
    """
    return read_folder(path, path.name if name is None else name).record


def read_folder(path: Path, name: str) -> FoundRun:
    """Do as `read_run`, and return what else is needed to tell runs apart."""
    folder = RunFolder(path)
    with _in(folder.settings_file, _SETTINGS):
        settings = folder.settings()
        text(settings.model)
        text(settings.data)
    start, epochs = _log(folder.log_file)
    with _in(folder.log_file, _LOG):
        begun = start.maybe("settings", mapping) or {}
    with _in(folder.settings_file, _SETTINGS):
        _check_begun(settings, begun)
    summary_values = _object(folder.summary_file)
    label_values = _object(path / "arm.json")
    with _in(folder.log_file, _LOG):
        total = start.maybe("total_steps", whole)
        if total is None:
            total = whole(settings.steps or 0)
        layers = start.maybe("layers", lambda value: listed(value, text)) or ()
        if len(layers) > _MOST_LAYERS:
            raise ValueError(f"it has more than {_MOST_LAYERS:,} layers")
        ends = _epochs(epochs, total, len(layers))
        length = _length(start, total, settings)
        freezes = _freeze_steps(start, len(layers), total)
    with _in(folder.summary_file, _RECORD):
        summary = _summary(Entries(summary_values), total, len(layers))
    with _in(path / "arm.json", _RECORD):
        label = _label(Entries(label_values), settings) if label_values else _own_label(settings)
    rate_steps = _rate_steps(total)
    with _in(folder.settings_file, _SETTINGS):  # such as freeze times for another number of layers
        if not settings.freeze and layers and total:
            freezes = settings.schedule.freeze_steps(len(layers), total)
        rates = _rates(settings, rate_steps, total, len(layers))
    with _in(folder.plan_file, _RECORD):
        predicted, interval = _prediction(folder)
    variant = variant_of(settings)
    record = RunRecord(
        name=name,
        cell=label.cell,
        model=settings.model,
        data=settings.data,
        arm=label.arm,
        kind=label.kind,
        of=label.of,
        spacing=None if variant is None or variant.times is not None else variant.spacing,
        scaled=settings.scaled,
        t0=1.0 if variant is None else variant.t0,
        max_freezes=None if variant is None else variant.max_freezes,
        seed=settings.seed,
        epochs=length,
        total_steps=total,
        steps=summary.steps or (ends[-1].step if ends else 0),
        finished=summary.finished,
        base_rate=settings.lr,
        layer_names=layers,
        freeze_steps=freezes,
        rate_steps=rate_steps if layers else (),
        rates=rates,
        tested=tuple(_tests(ends)),
        step_times=summary.step_times or tuple(_step_times(ends)),
        memory=tuple((end.step, end.memory) for end in ends if end.memory is not None),
        train_seconds=summary.train_seconds or sum(end.seconds for end in ends),
        total_seconds=summary.total_seconds,
        peak_memory=summary.peak_memory,
        predicted=predicted,
        predicted_interval=interval,
        measured=summary.saving,
        device=summary.device or settings.device,
        precision=settings.precision,
    )
    return FoundRun(path, settings, bool(label_values), record)


@contextmanager
def _in(path: Path, kept: KeptFile) -> Iterator[None]:
    """Name the file in which something is wrong."""
    try:
        yield
    except FreezeOutError:
        raise
    except OSError as error:
        raise kept.unreadable(path, error) from error
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise kept.damaged(path, one_line(error).rstrip(".")) from error


def _check_begun(settings: Settings, begun: Mapping[str, Any]) -> None:
    """Raise `ValueError` if a run was begun with other settings than it says now."""
    now = settings.to_dict()
    for name in (spec.name for spec in fields(Settings) if spec.name in begun):
        if name not in MOVABLE and now.get(name) != begun[name]:
            raise ValueError(f"it has another {name} than the log says that the run was begun with")


def _object(path: Path) -> dict[str, Any]:
    with _in(path, _RECORD):
        return read_json(path, _RECORD) if path.exists() else {}


def _log(path: Path) -> tuple[Entries, list[Entries]]:
    """Return what a log says of the start, and of each epoch once.

    Raises:
        FreezeOutError: If a line is damaged: what it said is missing, and would be taken for an
            epoch that never was.
    """
    with _in(path, _LOG):
        lines, wrong = read_json_lines(path, _LOG)
        if wrong:
            raise ValueError(wrong[0])
        start: Mapping[str, Any] = {}
        epochs: dict[int, Entries] = {}
        for count, line in enumerate(lines, 1):
            event = Entries(line, f"entry {count}").get("event", text)
            if event == "start":
                start = start or line
            elif event == "epoch":
                entries = Entries(line, f"epoch {len(epochs) + 1}")
                epochs[entries.get("step", whole)] = entries  # one that was done twice counts once
    return Entries(start, "the start"), list(epochs.values())


@dataclass(frozen=True)
class _Epoch:
    step: int
    seconds: float
    frozen: int
    error: float | None
    memory: int | None


def _epochs(found: Sequence[Entries], total: int, layers: int) -> list[_Epoch]:
    ends = [
        _Epoch(
            step=one.get("step", lambda value: whole(value, total)),
            seconds=one.get("seconds", seconds),
            frozen=one.get("frozen", lambda value: whole(value, layers)),
            error=one.maybe("test_error", _percentage),
            memory=one.maybe("memory", _bytes),
        )
        for one in found
    ]
    steps = [end.step for end in ends]
    if steps != sorted(steps):
        raise ValueError("its epochs are not in order")
    return ends


def _percentage(value: Any) -> float:
    return number(value, 0.0, 100.0)


def _bytes(value: Any) -> int:
    return whole(value, _MOST_BYTES)


def _saving(value: Any) -> float:
    return number(value, _LOWEST_SAVING, 1.0)


@dataclass(frozen=True)
class _Summary:
    steps: int | None
    finished: bool
    train_seconds: float | None
    total_seconds: float | None
    peak_memory: int | None
    saving: float | None
    device: str | None
    step_times: tuple[StepTime, ...]


def _summary(summary: Entries, total: int, layers: int) -> _Summary:
    def step(value: Any) -> int:
        return whole(value, total)

    def step_time(value: Any) -> StepTime:
        if not isinstance(value, list) or len(value) != 3:
            raise ValueError("must hold lists of three numbers")
        return StepTime(step(value[0]), seconds(value[1]), whole(value[2], layers))

    times = summary.maybe("step_times", lambda value: listed(value, step_time)) or ()
    if [time.step for time in times] != sorted(time.step for time in times):
        raise ValueError("'step_times' are not in order")
    return _Summary(
        steps=summary.maybe("steps", step),
        finished=summary.maybe("interrupted", flag) is False,
        train_seconds=summary.maybe("train_seconds", seconds),
        total_seconds=summary.maybe("total_seconds", seconds),
        peak_memory=summary.maybe("peak_memory", _bytes),
        saving=summary.maybe("saving", _saving),
        device=summary.maybe("device", text),
        step_times=times,
    )


def _label(label: Entries, settings: Settings) -> Label:
    label.only(spec.name for spec in fields(Label))
    kind = label.get("kind", text)
    if kind not in get_args(Kind):
        raise ValueError(f"'kind' must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    of = label.maybe("of", text)
    if (of is not None) != (kind in ("equal-time", "control")):
        raise ValueError(f"'of' does not fit the kind {kind!r}")
    return Label(
        cell=label.get("cell", text), arm=label.get("arm", text), kind=cast("Kind", kind), of=of
    )


def _own_label(settings: Settings) -> Label:
    """Return what a run is that was trained by itself: its settings say so."""
    cell = f"{settings.model} on {settings.data}"
    variant = variant_of(settings)
    if variant is None:
        return Label(cell=cell, arm="baseline", kind="baseline")
    if settings.freeze:
        return Label(cell=cell, arm=variant.name, kind="variant")
    return Label(cell=cell, arm=control_name(variant), kind="control", of=variant.name)


def _prediction(folder: RunFolder) -> tuple[float | None, tuple[float, float] | None]:
    plan = folder.plan()
    if plan is None:
        return None, None
    saving, interval = plan.saving, plan.interval
    if interval is None:
        return _saving(saving), None
    return _saving(saving), (_saving(interval[0]), _saving(interval[1]))


def _length(start: Entries, total: int, settings: Settings) -> float:
    """Return the length of the run in epochs, also where it ends within one."""
    each = start.maybe("epoch_steps", whole)
    return total / each if each else float(settings.epochs)


def _freeze_steps(start: Entries, layers: int, total: int) -> tuple[int | None, ...]:
    def step(value: Any) -> int | None:
        return None if value is None else whole(value, total)

    found = start.maybe("freeze_steps", lambda value: listed(value, step)) or ()
    if len(found) != layers:
        raise ValueError(f"it has {layers} layers and {len(found)} steps at which they freeze")
    return found


def _rate_steps(total: int) -> tuple[int, ...]:
    return tuple(sorted({round(i * total / _RATE_POINTS) for i in range(_RATE_POINTS + 1)}))


def _rates(
    settings: Settings, steps: Sequence[int], total: int, layers: int
) -> tuple[tuple[float, ...], ...]:
    if not layers or total < 1:
        return ()
    by_step = [settings.schedule.factors(n, total, layers) for n in steps]
    rates = tuple(tuple(settings.lr * f for f in one) for one in zip(*by_step, strict=True))
    if not all(math.isfinite(rate) for one in rates for rate in one):
        raise ValueError(f"the rates that follow from lr={settings.lr:g} are not finite")
    return rates


def _tests(ends: Sequence[_Epoch]) -> Iterator[Tested]:
    elapsed = 0.0
    for end in ends:
        elapsed += end.seconds
        if end.error is not None:
            yield Tested(step=end.step, seconds=elapsed, error=end.error)


def _step_times(ends: Sequence[_Epoch]) -> Iterator[StepTime]:
    """Yield the mean of every epoch, for a run that was cut off before its summary."""
    before = 0
    for end in ends:
        steps = end.step - before
        before = end.step
        if steps > 0:
            yield StepTime(end.step, end.seconds / steps, end.frozen)
