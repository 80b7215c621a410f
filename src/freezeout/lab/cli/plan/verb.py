"""``freezeout plan``: what each layer costs here, and what freezing would save."""

from __future__ import annotations

import argparse
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from freezeout.errors import FrozenPrefixWarning, RunError
from freezeout.lab.cli.options import add_settings, add_sources, merged_settings
from freezeout.lab.cli.paths import option_path
from freezeout.schedule import RateSettings, Schedule, Spacing
from freezeout.text import quoted

if TYPE_CHECKING:
    from freezeout.lab.cli.plan.subject import Subject
    from freezeout.lab.training import RunFolder, Settings
    from freezeout.planning import PlanSpacing

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  freezeout plan --model wrn-40-4 --data cifar10 --batch-size 128
  freezeout plan --model densenet-40-12 --data cifar10 --saving 25%
  freezeout plan --preset paper-wrn --device cuda --time 2h --spacing budget
  freezeout plan --model mypackage.nets:make_resnet --input 3x224x224 --batch-size 32

Up to about 60 training steps are run on random images; nothing is trained, and no data is read
but custom data (--data module:function), which must be loaded for the shape of its images. The
table tries other schedules; the schedule of a preset or file counts for its rates only.
"""

_SETTINGS = (
    "model",
    "data",
    "train_size",
    "holdout",
    "epochs",
    "steps",
    "batch_size",
    "optimizer",
    "momentum",
    "nesterov",
    "weight_decay",
    "scaled",
    "anneal",
    "warmup_steps",
    "scale_cap",
    "precision",
    "channels_last",
    "device",
    "threads",
    "deterministic",
    "seed",
)

_ROUNDS = 6
_MOST_ROUNDS = 1000

_WISHES = {"saving": "saving", "seconds": "time", "t0": "t0", "times": "times"}
"""Arguments of `plan` of which one is given, and the options for them."""


def add_parser(verbs: Any) -> None:
    """Add the verb.

    Args:
        verbs: What ``ArgumentParser.add_subparsers`` returned.
    """
    parser = verbs.add_parser(
        "plan",
        help="measure what layers cost, and predict what freezing saves",
        description="Measure what each layer of a network costs in a training step on this "
        "machine; predict what freezing saves; find the schedule for a wanted saving.",
        epilog=_EPILOG,
    )
    wish = parser.add_argument_group("what to plan").add_mutually_exclusive_group()
    wish.add_argument(
        "--saving", type=_fraction, metavar="PERCENT", help="save so much: 25%% or 0.25"
    )
    wish.add_argument(
        "--time", type=_seconds, metavar="TIME", help="all training steps within 2h, 90min, 1h30m"
    )
    wish.add_argument("--t0", type=float, metavar="X", help="this t0, in (0, 1]")
    add_settings(wish, ("times",))
    how = parser.add_argument_group("how")
    how.add_argument(
        "--spacing",
        dest="plan_spacing",  # a run's setting of this name knows no budget
        choices=(*get_args(Spacing), "budget"),
        help="growth of freeze times; budget: made from the measured costs (default: cubic)",
    )
    add_settings(how, ("max_freezes",))
    how.add_argument(
        "--input",
        metavar="SHAPE",
        help="with --model module:function and without --data: shape of one input, such as "
        "3x224x224, or number of tokens (default: what the function or the model says)",
    )
    how.add_argument(
        "--rounds", type=int, metavar="N", help="measurements of each depth (default: 6)"
    )
    how.add_argument(
        "--costs", type=option_path, metavar="FILE", help="take a costs.json measured before"
    )
    how.add_argument(
        "--out",
        type=option_path,
        metavar="DIR",
        help="new or empty folder (default: runs/plan-...-N)",
    )
    add_sources(how)
    add_settings(parser.add_argument_group("settings"), _SETTINGS)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from freezeout.lab.cli.plan.subject import load_subject
    from freezeout.lab.importing import is_custom
    from freezeout.lab.training import RunFolder, Settings, held, next_free, slug

    values = merged_settings(options)
    settings = Settings.from_dict(values)
    # A custom network needs no data, so the default set does not count for it.
    on_data = "data" in values or not is_custom(settings.model)
    if settings.times is not None:
        options.times = settings.times  # also those of a file
    _refuse_idle_options(options, on_data=on_data)
    spacing = getattr(options, "plan_spacing", settings.spacing)
    wish = {
        name: getattr(options, option)
        for name, option in _WISHES.items()
        if hasattr(options, option)
    }
    if len(wish) > 1:  # options exclude each other, so the times are those of a file
        raise RunError(
            f"--{_WISHES[next(iter(wish))]} cannot be given beside times = "
            f"{list(options.times)} of the settings. Leave one of them out."
        )
    if spacing == "budget" and not {"saving", "seconds"} & {*wish}:
        flag = next(iter(wish))
        raise RunError(f"--spacing budget takes no --{flag}: give --saving or --time.")
    rounds = getattr(options, "rounds", _ROUNDS)
    if not 1 <= rounds <= _MOST_ROUNDS:
        raise RunError(
            f"--rounds must lie in 1 to {_MOST_ROUNDS}, got {rounds}. Leave it out for six."
        )
    name = slug(f"{settings.data}-{settings.model}" if on_data else settings.model)
    out: Path | None = getattr(options, "out", None)
    if out is not None:
        RunFolder(out).check_empty(resumable=False)

    subject = load_subject(settings, on_data=on_data, shape=getattr(options, "input", None))
    _check_schedule(settings, subject, spacing, wish)
    # Before anything is measured: a folder that cannot be had is found out at once.
    folder = RunFolder(out or next_free(Path("runs"), f"plan-{name}"), made=out is None)
    with held(folder, new=True):
        subject.notes.extend(folder.notes)
        _plan(options, settings, subject, wish, folder)
    return 0


def _plan(
    options: argparse.Namespace,
    settings: Settings,
    subject: Subject,
    wish: Mapping[str, Any],
    folder: RunFolder,
) -> None:
    """Measure costs or read them, and write and show what comes of them."""
    from freezeout.lab.cli.plan.show import PlanResult, show, write, write_costs
    from freezeout.planning import plan

    if hasattr(options, "costs"):
        costs = subject.read_costs(options.costs)
    else:
        with _progress(subject.title) as progress, _noting(subject.notes):
            costs = subject.measure(getattr(options, "rounds", _ROUNDS), progress)
    write_costs(costs, folder)  # at once: they may have taken long
    rates: Any = {name: getattr(settings, name) for name in RateSettings.__annotations__}
    try:
        chosen = None
        if wish:
            chosen = plan(
                costs,
                subject.total_steps,
                spacing=getattr(options, "plan_spacing", settings.spacing),
                max_freezes=settings.max_freezes,
                **wish,
                **rates,
            )
        result = PlanResult(subject, costs, rates, chosen)
    except (ValueError, TypeError) as error:
        kept = quoted(folder.path / "costs.json")
        raise RunError(f"{error} The costs are kept: --costs {kept}") from error
    write(result, folder)
    show(result, folder, sys.stdout)


def _refuse_idle_options(options: argparse.Namespace, *, on_data: bool) -> None:
    """Raise where an option would have no effect."""
    if hasattr(options, "input") and on_data:
        raise RunError(
            "--input goes with --model module:function and without --data: a network on data takes "
            "their images. Leave it out."
        )
    if not any(hasattr(options, option) for option in _WISHES.values()):
        for name, flag in (("plan_spacing", "--spacing"), ("max_freezes", "--max-freezes")):
            if hasattr(options, name):
                raise RunError(
                    f"{flag} goes with --saving, --time, --t0 or --times: add one of them."
                )
    if hasattr(options, "costs") and hasattr(options, "rounds"):
        raise RunError("--rounds measures and --costs does not: leave one of them out.")
    for name in ("train_size", "holdout", "epochs"):
        if hasattr(options, name) and not on_data:
            raise RunError(
                f"--{name.replace('_', '-')} counts data, and none are given. Add --data, or leave "
                "it out (the length of the run is --steps)."
            )


def _check_schedule(
    settings: Settings, subject: Subject, spacing: PlanSpacing, wish: Mapping[str, Any]
) -> None:
    """Check before anything is measured that times fit and a warm-up leaves room."""
    total = subject.total_steps
    asked = Schedule(t0=0.9, spacing="linear")  # the gentlest
    if "times" in wish:
        asked = Schedule(times=wish["times"])
    elif "t0" in wish and spacing != "budget":
        asked = Schedule(t0=wish["t0"], spacing=spacing)
    try:
        first = asked.freeze_steps(len(subject.layers), total)[0]
    except ValueError as error:
        raise RunError(str(error)) from error
    if first is not None and settings.warmup_steps > first:
        at = "" if asked.times else f" at t0 = {asked.t0:g}"
        raise RunError(
            f"warmup_steps must not exceed {first} of {total} steps, where the first layer would "
            f"freeze{at}, got {settings.warmup_steps}. Warm up for less."
        )


@contextmanager
def _noting(notes: list[str]) -> Iterator[None]:
    """Turn warnings that freezing saves less than it could into notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FrozenPrefixWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, FrozenPrefixWarning):
            notes.append(str(warning.message))
        else:
            warnings.showwarning(
                warning.message, warning.category, warning.filename, warning.lineno
            )


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on the error stream, if that is a terminal, while steps are measured."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        with suppress(OSError):
            print(f"measuring {title} ...", flush=True)
        yield None
        return
    columns = TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TextColumn("steps")
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, to_do: bar.update(task, completed=done, total=to_do)


def _fraction(text: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    value = float(found[1]) / (100.0 if found[2] else 1.0) if found else -1.0
    if not 0.0 <= value < 1.0:
        raise argparse.ArgumentTypeError(f"must be at least 0% and below 100%, got {text!r}")
    return value


_UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0, "d": 86400.0}


def _seconds(text: str) -> float:
    number = r"(\d+(?:\.\d*)?|\.\d+)\s*(d|h|min|m|s)"
    compact = text.strip().lower()
    if not re.fullmatch(rf"(?:{number}\s*)+", compact):
        raise argparse.ArgumentTypeError(f"must be like 2h, 90min, 1h30m or 45s, got {text!r}")
    total = sum(float(value) * _UNITS[unit] for value, unit in re.findall(number, compact))
    if not 0 < total < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, got {text!r}")
    return total
