"""Runs as a report gets them, made up but plausible."""

import math
import random
from dataclasses import replace
from typing import Any

from freezeout.lab.evidence import RunRecord, StepTime, Tested

CELL = "small CNN on digits"
OTHER_CELL = "WRN-40-4 on CIFAR-100"


def record(
    name: str = "cubic-0.8-s0",
    *,
    cell: str = CELL,
    arm: str = "cubic, t0 = 0.8",
    kind: str = "variant",
    of: str | None = None,
    spacing: str | None = "cubic",
    scaled: bool = True,
    t0: float = 0.8,
    seed: int = 0,
    layers: int = 8,
    error: float = 6.0,
    seconds: float = 300.0,
    epochs: float = 40,
    tests: int = 40,
    windows: int = 120,
    **changes: Any,
) -> RunRecord:
    """One finished run; whatever is not said follows from the rest."""
    luck = random.Random(ascii(name) + str(seed))
    total = round(100 * epochs)
    power = {"linear": 1, "squared": 2, "cubic": 3}.get(spacing or "", 1)
    times = [(t0 + (1 - t0) * i / max(1, layers - 1)) ** power for i in range(layers)]
    freezes = kind == "variant"
    anneals = [t if kind in ("variant", "control") else 1.0 for t in times]
    freeze_steps = tuple(
        round(t * total) if freezes and i < layers - 1 else None for i, t in enumerate(times)
    )
    rate_steps = tuple(range(0, total + 1, max(1, total // 100)))
    rates = tuple(
        tuple(
            0.5 * (0.1 / end if scaled else 0.1) * (1 + math.cos(math.pi * s / total / end))
            if s < end * total
            else 0.0
            for s in rate_steps
        )
        for end in anneals
    )

    def frozen(step: int) -> int:
        return sum(at is not None and step > at for at in freeze_steps)

    base = seconds / total * 1.12
    ends = [round((i + 1) * total / windows) for i in range(windows)]
    values: dict[str, Any] = {
        "name": name,
        "cell": cell,
        "model": cell.split(" on ")[0],
        "data": cell.split(" on ")[-1],
        "arm": arm,
        "kind": kind,
        "of": of,
        "spacing": spacing,
        "scaled": scaled,
        "t0": t0,
        "seed": seed,
        "epochs": epochs,
        "total_steps": total,
        "steps": total,
        "finished": True,
        "base_rate": 0.1,
        "layer_names": tuple(f"stage{i // 3 + 1}.block{i % 3}" for i in range(layers)),
        "freeze_steps": freeze_steps,
        "rate_steps": rate_steps,
        "rates": rates,
        "tested": tuple(
            Tested(
                round((i + 1) * total / tests),
                seconds * (i + 1) / tests,
                error
                if i == tests - 1
                else error
                + 55 * math.exp(-5 * (i + 1) / tests)
                + luck.uniform(0, 1.2) * (1 - i / tests),
            )
            for i in range(tests)
        ),
        "step_times": tuple(
            StepTime(
                end,
                base * (1 - 0.6 * frozen(end) / layers) * luck.uniform(0.97, 1.06),
                frozen(end),
            )
            for end in ends
        ),
        "memory": tuple(
            (
                round((i + 1) * total / 20),
                400_000_000 - 180_000_000 * frozen(i * total // 20) // layers,
            )
            for i in range(20)
        ),
        "train_seconds": seconds,
        "total_seconds": seconds * 1.08,
        "peak_memory": 400_000_000,
        "predicted": None,
        "predicted_interval": None,
        "measured": None,
        "device": "CPU, 1 thread",
        "precision": "fp32",
    }
    return RunRecord(**{**values, **changes})


# Arm, kind, of, spacing, scaled, t0, saving, added error, share of epochs.
_ARMS: tuple[tuple[str, str, str | None, str | None, bool, float, float, float, float], ...] = (
    ("baseline", "baseline", None, None, True, 1.0, 0.0, 0.0, 1.0),
    ("cubic, t0 = 0.8", "variant", None, "cubic", True, 0.8, 0.18, 0.05, 1.0),
    ("cubic, t0 = 0.5", "variant", None, "cubic", True, 0.5, 0.34, 0.9, 1.0),
    ("linear, unscaled, t0 = 0.5", "variant", None, "linear", False, 0.5, 0.22, 0.5, 1.0),
    ("linear, unscaled, t0 = 0.8", "variant", None, "linear", False, 0.8, 0.09, 0.2, 1.0),
    (
        "equal time to cubic, t0 = 0.8",
        "equal-time",
        "cubic, t0 = 0.8",
        None,
        True,
        1.0,
        0.0,
        0.25,
        0.82,
    ),
    ("control of cubic, t0 = 0.8", "control", "cubic, t0 = 0.8", "cubic", True, 0.8, 0.0, 0.1, 1.0),
)


def comparison(
    cell: str = CELL,
    *,
    seeds: int = 5,
    error: float = 6.2,
    seconds: float = 340.0,
    layers: int = 8,
    **changes: Any,
) -> list[RunRecord]:
    """Seven arms with `seeds` runs each."""
    luck = random.Random(cell)
    runs = []
    for arm, kind, of, spacing, scaled, t0, saving, more, share in _ARMS:
        for seed in range(seeds):
            noise = luck.gauss(0, 0.12)
            measured = saving + luck.gauss(0, 0.012) if kind == "variant" else None
            spent = seconds * share * (1 - (measured or 0.0)) * luck.uniform(0.985, 1.015)
            runs.append(
                record(
                    f"{cell.split()[0].lower()}/{arm.replace(', ', '-').replace(' ', '')}-s{seed}",
                    cell=cell,
                    arm=arm,
                    kind=kind,
                    of=of,
                    spacing=spacing,
                    scaled=scaled,
                    t0=t0,
                    seed=seed,
                    layers=layers,
                    error=error + more + noise,
                    seconds=spent,
                    epochs=40 * share,
                    predicted=saving if kind == "variant" else None,
                    predicted_interval=(saving - 0.02, saving + 0.02)
                    if kind == "variant"
                    else None,
                    measured=measured,
                    **changes,
                )
            )
    return runs


def two_cells() -> list[RunRecord]:
    """Two cells with five seeds per arm, one run cut short."""
    runs = comparison() + comparison(
        OTHER_CELL,
        error=21.8,
        seconds=20_400.0,
        layers=20,
        device="NVIDIA H200",
        precision="bf16",
    )
    return [*runs[:-1], cut_short(runs[-1])]


def cut_short(run: RunRecord, share: float = 0.6) -> RunRecord:
    """The run, stopped before its end."""
    steps = round(share * run.total_steps)
    return replace(
        run,
        name=f"{run.name}-cut",
        finished=False,
        steps=steps,
        tested=tuple(test for test in run.tested if test.step <= steps),
        step_times=tuple(time for time in run.step_times if time.step <= steps),
        train_seconds=share * run.train_seconds,
        total_seconds=None,
        measured=None,
    )
