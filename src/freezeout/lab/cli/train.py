"""``freezeout train``: train one of the paper's networks, or a custom one, with FreezeOut."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freezeout.errors import RunError
from freezeout.lab.cli.options import add_settings, add_sources, given_settings, merged_settings
from freezeout.lab.cli.paths import option_path

if TYPE_CHECKING:
    from freezeout.lab.training import RunFolder, Settings
    from freezeout.planning import Plan

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  freezeout train                                       digits, nothing to download
  freezeout train --data fashion-mnist --data-dir DATA --model vgg11-16 --epochs 5
  freezeout train --preset paper-wrn --device cuda      the paper's WRN-40-4 on CIFAR-100
  freezeout train --const-time                          longer, in the time of one without freezing
  freezeout train --plan runs/plan-digits-resnet-20-1/plan.json   as freezeout plan says
  freezeout train --model mypackage.nets:make_net --data mypackage.data:load    custom
  freezeout train --resume runs/digits-resnet-20-1      go on with an interrupted run
  torchrun --nproc-per-node 2 -m freezeout train        in two processes, to the same result

Settings are taken from the defaults, then --preset, then --config, then the command line.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb.

    Args:
        verbs: What ``ArgumentParser.add_subparsers`` returned.
    """
    parser = verbs.add_parser(
        "train",
        help="train one of the paper's networks, or a custom one, with FreezeOut",
        description="Train a network while its layers freeze one by one; measure what that saves.",
        epilog=_EPILOG,
    )
    run = parser.add_argument_group("run")
    add_sources(run)
    run.add_argument(
        "--plan", type=option_path, metavar="FILE", help="follow a plan.json of freezeout plan"
    )
    run.add_argument(
        "--out",
        type=option_path,
        metavar="DIR",
        help="new or empty folder (default: runs/DATA-MODEL-N)",
    )
    run.add_argument("--resume", type=option_path, metavar="DIR", help="go on with the run in DIR")
    run.add_argument(
        "--display",
        choices=("auto", "live", "lines", "none"),
        help="what to show meanwhile (default: live on a terminal, lines elsewhere)",
    )
    run.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard events into the run folder"
    )
    run.add_argument(
        "--predict",
        action=argparse.BooleanOptionalAction,
        help="measure the step first and predict what freezing saves (default: in runs of 400 "
        "steps and more in which something freezes)",
    )
    add_settings(parser.add_argument_group("settings"))
    parser.set_defaults(run=_run, several=True)


def _run(options: argparse.Namespace) -> int:
    # Imported here because only a run needs them, not --help or bad usage.
    from freezeout.lab.cli.show import finish
    from freezeout.lab.report.terminal import make_display
    from freezeout.lab.training import Observer, TensorBoardObserver, held, resume, start, stop_code
    from freezeout.lab.training.processes import ALONE

    launcher = getattr(options, "launcher", None)
    processes = ALONE if launcher is None else launcher.join()
    chosen = processes.from_main(lambda: _choose(options))
    folder = chosen.folder
    with held(folder, processes, new=chosen.settings is not None):
        observers: list[Observer] = []
        with ExitStack() as stack:
            if processes.main:
                display = make_display(getattr(options, "display", "auto"))
                observers.append(stack.enter_context(display))
                if getattr(options, "tensorboard", False):
                    observers.append(stack.enter_context(TensorBoardObserver(folder.tensorboard)))
            if chosen.settings is None:
                result = resume(folder, chosen.given, observers, processes=processes)
            else:
                result = start(
                    chosen.settings,
                    folder,
                    observers,
                    predict=getattr(options, "predict", None),
                    plan=chosen.plan,
                    processes=processes,
                )
        processes.from_main(lambda: finish(result, folder))
    return stop_code() if result.interrupted else 0


@dataclass(frozen=True)
class _Choice:
    """What to run.

    Attributes:
        folder: Where to run it.
        given: Settings given on the command line.
        settings: Of a new run; ``None`` to go on with the one in the folder.
        plan: What a new run follows.
    """

    folder: RunFolder
    given: dict[str, Any]
    settings: Settings | None = None
    plan: Plan | None = None


def _choose(options: argparse.Namespace) -> _Choice:
    from freezeout.lab.cli.follow import plan_settings, read_plan
    from freezeout.lab.training import RunFolder, Settings, next_free, slug

    given = given_settings(options)
    resumed: Path | None = getattr(options, "resume", None)
    if resumed is not None:
        for name in ("preset", "config", "out", "plan", "predict"):
            if hasattr(options, name):
                no = "no-" if getattr(options, name) is False else ""
                raise RunError(
                    f"--{no}{name} cannot be given with --resume: a resumed run keeps its "
                    "settings, its plan and its folder. Leave it out, or start a new run."
                )
        return _Choice(RunFolder(resumed), given)
    followed: Plan | None = None
    values = merged_settings(options)
    if hasattr(options, "plan"):
        followed = read_plan(options.plan)
        values = {**values, **plan_settings(followed, given)}
    settings = Settings.from_dict(values)
    out: Path | None = getattr(options, "out", None)
    stem = slug(f"{settings.data}-{settings.model}")
    folder = RunFolder(out or next_free(Path("runs"), stem), made=out is None)
    return _Choice(folder, given, settings, followed)
