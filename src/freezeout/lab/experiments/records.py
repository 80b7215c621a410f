"""Read run folders: from what `freezeout` left behind to plain records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from freezeout.errors import FreezeOutError, RunError
from freezeout.lab.evidence import RunRecord, StepTime, Tested
from freezeout.lab.experiments.arms import Variant, control_name, variant_of
from freezeout.lab.experiments.job import Label, failure
from freezeout.lab.training import RunFolder, Settings
from freezeout.schedule import Schedule
from freezeout.storage import KeptFile, read_json
from freezeout.text import one_line

__all__ = ["Unread", "find_runs", "read_run", "read_runs"]

_RECORD = KeptFile("record", "Copy it again.", "Copy it again, or leave the run out.")

_RATE_POINTS = 120  # along each curve of rates


@dataclass(frozen=True)
class Unread:
    """A run without a record.

    Attributes:
        name: Its folder, as shown.
        reason: Why: it failed, or its folder cannot be read.
    """

    name: str
    reason: str


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Return the run folders among and below some folders, sorted, each once.

    Raises:
        RunError: If a folder does not exist, or there is no run at all.
    """
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise RunError(
                f"{folder} is not a folder. Give folders of runs, or one that holds them."
            )
        marks = ("settings.toml", "failed.json")
        found.update(path.parent for mark in marks for path in folder.rglob(mark))
    if not found:
        raise RunError(
            "there is no run in the folders that were given: none has a settings.toml. Give "
            "folders made by freezeout train, compare or sweep."
        )
    return sorted(found)


def read_runs(folders: Iterable[Path]) -> tuple[list[RunRecord], list[Unread]]:
    """Read all runs among and below some folders.

    Returns:
        The records, and the runs without one: failed, or unreadable.

    Raises:
        RunError: If a folder does not exist, or there is no run at all.
    """
    paths = find_runs(folders)
    records, unread = [], []
    for path, name in zip(paths, _names(paths), strict=True):
        reason = failure(path)
        if reason is not None:
            unread.append(Unread(name, reason))
            continue
        try:
            records.append(read_run(path, name))
        except (FreezeOutError, OSError, KeyError, ValueError, TypeError, IndexError) as error:
            text = one_line(error)
            unread.append(Unread(name, f"cannot be read: {text}"))
    records = _told_apart(records, dict(zip(_names(paths), paths, strict=True)))
    return _measured_beside(records), unread


def read_run(path: Path, name: str | None = None) -> RunRecord:
    """Read one run, finished or not.

    Args:
        path: Its folder.
        name: What to call it; by default as its folder.

    Raises:
        FreezeOutError: If the folder holds no run or its settings cannot be read.
        ValueError: If something in it is damaged; KeyError and TypeError, too.
    """
    folder = RunFolder(path)
    settings = folder.settings()
    log = folder.read_log()
    start: Mapping[str, Any] = next((r for r in log if r["event"] == "start"), {})
    epochs = [r for r in log if r["event"] == "epoch"]
    summary = _json(folder.summary_file)
    label = _label(path, settings)
    total = int(start["total_steps"]) if start else settings.steps or 0
    steps = int(summary.get("steps") or (epochs[-1]["step"] if epochs else 0))
    finished = summary.get("interrupted") is False
    names = tuple(start.get("layers", ()))
    plan = folder.plan()
    variant = variant_of(settings)
    rate_steps = _rate_steps(total)
    return RunRecord(
        name=name or path.name,
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
        epochs=_epochs(start, total, settings),
        total_steps=total,
        steps=steps,
        finished=finished,
        base_rate=settings.lr,
        layer_names=names,
        freeze_steps=_freeze_steps(settings, start, len(names), total),
        rate_steps=rate_steps if names else (),
        rates=_rates(settings.schedule, settings.lr, rate_steps, total, len(names)),
        tested=tuple(_tests(epochs)),
        step_times=tuple(_step_times(summary, epochs)),
        memory=tuple((r["step"], r["memory"]) for r in epochs if r.get("memory") is not None),
        train_seconds=float(summary.get("train_seconds") or sum(r["seconds"] for r in epochs)),
        total_seconds=summary.get("total_seconds"),
        peak_memory=summary.get("peak_memory"),
        predicted=None if plan is None else plan.saving,
        predicted_interval=None if plan is None else plan.interval,
        measured=summary.get("saving"),
        device=summary.get("device") or settings.device,
        precision=settings.precision,
    )


def _label(path: Path, settings: Settings) -> Label:
    """Return what a run is in its experiment; for one trained by itself its settings say so."""
    values = _json(path / "arm.json")
    if values:
        return Label(**values)
    cell = f"{settings.model} on {settings.data}"
    variant = variant_of(settings)
    if variant is None:
        return Label(cell=cell, arm="baseline", kind="baseline")
    if settings.freeze:
        return Label(cell=cell, arm=variant.name, kind="variant")
    return Label(cell=cell, arm=control_name(variant), kind="control", of=variant.name)


def _measured_beside(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return records with savings measured against the baseline, where it took as many steps.

    Within a run the unfrozen steps come first, so that a machine that changes its speed spoils the
    figure; a baseline beside it met the same machine.
    """
    full = {(r.cell, r.seed): r for r in records if r.kind == "baseline" and r.finished}
    beside = []
    for record in records:
        other = full.get((record.cell, record.seed))
        if (
            other is not None
            and record.kind == "variant"
            and record.finished
            and record.total_steps == other.total_steps
            and other.train_seconds > 0
        ):
            record = replace(record, measured=1.0 - record.train_seconds / other.train_seconds)
        beside.append(record)
    return beside


_NOT_SHARED = (
    *(spec.name for spec in fields(Variant)),
    *("model", "data", "seed", "freeze"),
    *("data_dir", "device", "threads", "checkpoint_minutes", "evaluate_every"),
)
"""Settings that do not set cells apart: they name them, make the arms, or do not matter."""


def _told_apart(records: Sequence[RunRecord], paths: Mapping[str, Path]) -> list[RunRecord]:
    """Return records of which no two have the same cell, arm and seed.

    Runs that were trained one by one share a cell if their settings agree but for the way of
    freezing and the seed; what differs is added to its name. They never join a cell of an
    experiment. The same cell in several experiments, and a run that was done twice, are told apart
    by their folders.
    """
    labelled = {r.name for r in records if (paths[r.name] / "arm.json").is_file()}
    single = [r for r in records if r.name not in labelled]
    settings = {r.name: RunFolder(paths[r.name]).settings() for r in single}
    changed = {r.name: _varying(r, single, settings) for r in single}
    roots = {r.name: _root(paths[r.name]) for r in records if r.name in labelled}
    unlike = sorted(set(roots.values()))
    short = dict(zip(unlike, _names(unlike), strict=True))
    homes: dict[str, set[Path]] = {}
    for record in records:
        if record.name in roots:
            homes.setdefault(record.cell, set()).add(roots[record.name])
    told: list[RunRecord] = []
    seen = set()
    for record in records:
        cell = record.cell
        if record.name in roots:
            if len(homes[cell]) > 1:
                cell += f" ({short[roots[record.name]]})"
        else:
            cell += changed[record.name]
            cell += ", trained one by one" if cell in homes else ""
        if (cell, record.arm, record.seed) in seen:
            cell += f" ({record.name})"
        seen.add((cell, record.arm, record.seed))
        told.append(replace(record, cell=cell))
    return told


def _root(path: Path) -> Path:
    """Return the folder of the experiment that a run belongs to."""
    root = path.resolve().parents[2]
    return root.parent if root.name == "runs" else root


def _varying(
    record: RunRecord, among: Sequence[RunRecord], settings: Mapping[str, Settings]
) -> str:
    """Say what sets a run's settings apart from those of others of its network and data."""
    own = settings[record.name]
    others = [settings[r.name] for r in among if r.cell == record.cell]
    names = [spec.name for spec in fields(Settings) if spec.name not in _NOT_SHARED]
    words = [
        f"{name}={getattr(own, name)}"
        for name in names
        if any(getattr(other, name) != getattr(own, name) for other in others)
    ]
    return "".join(f", {word}" for word in words)


def _names(paths: Sequence[Path]) -> list[str]:
    """Return short names that tell the folders apart: what follows the last folder they share."""
    if len(paths) == 1:
        return [paths[0].name]
    whole = [path.resolve().parts for path in paths]
    shared = 0
    while len({parts[shared] for parts in whole if len(parts) > shared + 1}) == 1 and all(
        len(parts) > shared + 1 for parts in whole
    ):
        shared += 1
    return ["/".join(parts[shared:]) for parts in whole]


def _json(path: Path) -> dict[str, Any]:
    return read_json(path, _RECORD) if path.exists() else {}


def _epochs(start: Mapping[str, Any], total: int, settings: Settings) -> float:
    """Return the length of the run in epochs, also where it ends within one."""
    each = start.get("epoch_steps")
    return total / each if each else float(settings.epochs)


def _freeze_steps(
    settings: Settings, start: Mapping[str, Any], layers: int, total: int
) -> tuple[int | None, ...]:
    """Return when layers freeze; of a control, which freezes none, when its rates end."""
    if not settings.freeze and layers and total:
        return settings.schedule.freeze_steps(layers, total)
    return tuple(start.get("freeze_steps", ()))


def _rate_steps(total: int) -> tuple[int, ...]:
    return tuple(sorted({round(i * total / _RATE_POINTS) for i in range(_RATE_POINTS + 1)}))


def _rates(
    schedule: Schedule, base: float, steps: Sequence[int], total: int, layers: int
) -> tuple[tuple[float, ...], ...]:
    if not layers or total < 1:
        return ()
    by_step = [schedule.factors(n, total, layers) for n in steps]
    return tuple(tuple(base * factor for factor in one) for one in zip(*by_step, strict=True))


def _tests(epochs: Sequence[Mapping[str, Any]]) -> Iterator[Tested]:
    seconds = 0.0
    for record in epochs:
        seconds += record["seconds"]
        if record["test_error"] is not None:
            yield Tested(step=record["step"], seconds=seconds, error=record["test_error"])


def _step_times(
    summary: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]
) -> Iterator[StepTime]:
    """Yield those of the summary; for a run that was cut off, the mean of every epoch."""
    if summary.get("step_times"):
        for step, seconds, frozen in summary["step_times"]:
            yield StepTime(step=step, seconds=seconds, frozen=frozen)
        return
    before = 0
    for record in epochs:
        steps = record["step"] - before
        before = record["step"]
        if steps > 0:
            yield StepTime(record["step"], record["seconds"] / steps, record["frozen"])
