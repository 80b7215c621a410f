"""``freezeout plan``: what each layer costs here, and what freezing would save."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from freezeout.cli.options import add_settings, add_sources, merged_settings
from freezeout.cli.plan_subject import Subject, load_subject
from freezeout.errors import FrozenPrefixWarning, RunError
from freezeout.planner import PlanSpacing
from freezeout.schedule import Schedule
from freezeout.training.settings import Settings

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  freezeout plan --model wrn-40-4 --data cifar10 --batch-size 128
  freezeout plan --model densenet-40-12 --data cifar10 --saving 25%
  freezeout plan --preset paper-wrn --device cuda --time 2h --spacing budget
  freezeout plan --import mypackage.nets:make_resnet --input 3x224x224 --batch-size 32

Up to about 60 training steps are run on random images; nothing is trained, and no data is read
but your own (--data module:function), which must be loaded for the shape of its images. The
table tries schedules of its own; the schedule of a preset or file counts for its rates only.
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


def add_parser(verbs: Any) -> None:
    """Adds the verb.

    Args:
        verbs: What ``ArgumentParser.add_subparsers`` returned.
    """
    parser = verbs.add_parser(
        "plan",
        help="measure what layers cost, and predict what freezing saves",
        description="Measure what each layer of a network costs in a training step on this "
        "machine; predict what freezing saves; find the schedule for a wanted saving.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    wish = parser.add_argument_group("what to plan").add_mutually_exclusive_group()
    wish.add_argument(
        "--saving", type=_fraction, metavar="PERCENT", help="save so much: 25%% or 0.25"
    )
    wish.add_argument(
        "--time", type=_seconds, metavar="TIME", help="all training steps within 2h, 90min, 1h30m"
    )
    wish.add_argument("--t0", type=float, metavar="X", help="this t0, in (0, 1]")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--spacing",
        dest="plan_spacing",  # a run's setting of this name knows no budget
        choices=("linear", "squared", "cubic", "budget"),
        help="growth of freeze times; budget: made from the measured costs (default: cubic)",
    )
    how.add_argument(
        "--max-freezes", type=int, metavar="N", help="let layers freeze together, at N steps"
    )
    how.add_argument(
        "--import",
        dest="own",
        metavar="MODULE:FACTORY",
        help="your own network: a function that returns the model, or (model, example, loss, "
        "optimizer), of which the later ones may be left out",
    )
    how.add_argument(
        "--input",
        metavar="SHAPE",
        help="with --import: shape of one input, such as 3x224x224, or number of tokens",
    )
    how.add_argument(
        "--rounds", type=int, metavar="N", help="measurements of each depth (default: 6)"
    )
    how.add_argument("--costs", type=Path, metavar="FILE", help="take a costs.json measured before")
    how.add_argument(
        "--out", type=Path, metavar="DIR", help="new or empty folder (default: runs/plan-...-N)"
    )
    add_sources(how)
    add_settings(parser.add_argument_group("settings"), _SETTINGS)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from freezeout.cli.plan_show import Outcome, show, write, write_costs
    from freezeout.planner import plan
    from freezeout.training.folder import RunFolder, next_free, slug

    settings = Settings.from_dict(merged_settings(options))
    _refuse_idle_options(options)
    own: str | None = getattr(options, "own", None)
    shape: str | None = getattr(options, "input", None)
    spacing = getattr(options, "plan_spacing", settings.spacing)
    wish = {
        name: getattr(options, option)
        for name, option in (("saving", "saving"), ("seconds", "time"), ("t0", "t0"))
        if hasattr(options, option)
    }
    if spacing == "budget" and "t0" in wish:
        raise RunError("--spacing budget takes no --t0: give --saving or --time.")
    rounds, most = getattr(options, "rounds", 6), getattr(options, "max_freezes", None)
    for flag, value in (("--rounds", rounds), ("--max-freezes", most)):
        if value is not None and value < 1:
            raise RunError(f"{flag} must be at least 1, got {value}.")
    name = slug(own or f"{settings.data}-{settings.model}")
    folder = RunFolder(getattr(options, "out", None) or next_free(Path("runs"), f"plan-{name}"))
    folder.check_empty(resumable=False)

    subject = load_subject(settings, own, shape)
    _check_warmup(settings, subject, spacing, wish.get("t0"))
    if hasattr(options, "costs"):
        costs = subject.read_costs(options.costs)
    else:
        with _progress(subject.title) as progress, _noting(subject.notes):
            costs = subject.measure(rounds, progress)
    write_costs(costs, folder)  # at once: they may have taken long
    rates: dict[str, Any] = {
        "scaled": settings.scaled,
        "anneal": settings.anneal,
        "warmup_steps": settings.warmup_steps,
        "scale_cap": settings.scale_cap,
    }
    try:
        chosen = None
        if wish:
            chosen = plan(
                costs, subject.total_steps, spacing=spacing, max_freezes=most, **wish, **rates
            )
        outcome = Outcome(subject, costs, rates, chosen)
    except (ValueError, TypeError) as error:
        raise RunError(f"{error} The costs are kept: --costs {folder.path}/costs.json") from error
    write(outcome, folder)
    show(outcome, folder, sys.stdout)
    return 0


def _refuse_idle_options(options: argparse.Namespace) -> None:
    """Options that would have no effect."""
    own = hasattr(options, "own")
    if hasattr(options, "input") and not own:
        raise RunError("--input goes with --import; a built-in network takes the data's images.")
    if not any(hasattr(options, name) for name in ("saving", "time", "t0")):
        for name, flag in (("plan_spacing", "--spacing"), ("max_freezes", "--max-freezes")):
            if hasattr(options, name):
                raise RunError(f"{flag} goes with --saving, --time or --t0: add one of them.")
    if hasattr(options, "costs") and hasattr(options, "rounds"):
        raise RunError("--rounds measures and --costs does not: leave one of them out.")
    for name in ("model", "data", "train_size", "holdout", "epochs"):
        if own and hasattr(options, name):
            flag = name.replace("_", "-")
            raise RunError(
                f"--{flag} is for the built-in networks, --import for your own: leave one of them "
                "out (the length of the run is --steps)."
            )


def _check_warmup(
    settings: Settings, subject: Subject, spacing: PlanSpacing, t0: float | None
) -> None:
    """Before anything is measured: whether a warm-up leaves room for the schedule."""
    total = subject.total_steps
    gentlest = Schedule(t0=0.9, spacing="linear")
    asked = gentlest if t0 is None or spacing == "budget" else Schedule(t0=t0, spacing=spacing)
    first = asked.freeze_steps(len(subject.layers), total)[0]
    if first is not None and settings.warmup_steps > first:
        raise RunError(
            f"warmup_steps must not exceed {first} of {total} steps, where the first layer would "
            f"freeze at t0 = {asked.t0:g}, got {settings.warmup_steps}. Warm up for less."
        )


@contextmanager
def _noting(notes: list[str]) -> Iterator[None]:
    """Turns warnings that freezing saves less than it could into notes."""
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
    """A bar on the error stream while steps are measured, where that is a terminal."""
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
    if total <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text!r}")
    return total
