"""``freezeout train``: train one of the paper's networks with FreezeOut."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from freezeout.errors import RunError

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  freezeout train                                       digits, nothing to download
  freezeout train --data fashion-mnist --data-dir DATA --model vgg11-16 --epochs 5
  freezeout train --preset paper-wrn --device cuda      the paper's WRN-40-4 on CIFAR-100
  freezeout train --resume runs/digits-resnet-20-1      go on with an interrupted run

Settings are taken from the defaults, then --preset, then --config, then the command line.
"""


def add_parser(verbs: Any) -> None:
    """Adds the verb.

    Args:
        verbs: What ``ArgumentParser.add_subparsers`` returned.
    """
    from freezeout.training.presets import PRESETS

    parser = verbs.add_parser(
        "train",
        help="train one of the paper's networks with FreezeOut",
        description="Train a network while its layers freeze one by one; measure what that saves.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    run = parser.add_argument_group("run")
    run.add_argument("--preset", help=f"named settings: {', '.join(PRESETS)}")
    run.add_argument("--config", type=Path, metavar="FILE", help="settings from a TOML file")
    run.add_argument(
        "--out", type=Path, metavar="DIR", help="new or empty folder (default: runs/DATA-MODEL-N)"
    )
    run.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in DIR")
    run.add_argument(
        "--display",
        choices=("auto", "live", "lines", "none"),
        help="what to show meanwhile (default: live on a terminal, lines elsewhere)",
    )
    run.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard events into the run folder"
    )
    _add_settings(parser.add_argument_group("settings"))
    parser.set_defaults(run=_run)


def _add_settings(group: Any) -> None:
    from freezeout.training.settings import setting_fields

    for spec in setting_fields():
        kind, choices = spec.metadata["kind"], spec.metadata["choices"]
        text = spec.metadata["help"]
        if spec.default is not None:
            text += f" (default: {str(spec.default).lower() if kind is bool else spec.default})"
        flag = "--" + spec.name.replace("_", "-")
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        elif choices:
            group.add_argument(flag, choices=choices, help=text)
        elif kind is tuple:
            group.add_argument(flag, type=_numbers, metavar="T,T,...", help=text)
        else:
            group.add_argument(flag, type=kind, metavar=_METAVARS[kind], help=text)


_METAVARS = {str: "NAME", int: "N", float: "X"}


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas, got {text!r}") from None


def _run(options: argparse.Namespace) -> int:
    _refuse_launcher()
    # What only a run needs comes after --help and bad usage have been dealt with.
    from freezeout.cli.show import DisplayObserver, finish
    from freezeout.report.choose import make_display
    from freezeout.training.folder import RunFolder, next_free
    from freezeout.training.observer import Observer
    from freezeout.training.run import resume, start
    from freezeout.training.settings import Settings
    from freezeout.training.tensorboard import TensorBoardObserver

    given = _given_settings(options)
    resumed: Path | None = getattr(options, "resume", None)
    if resumed is not None:
        for name in ("preset", "config", "out"):
            if hasattr(options, name):
                raise RunError(
                    f"--{name} cannot be given with --resume: a resumed run keeps its settings "
                    "and its folder. Leave it out, or start a new run."
                )
        folder = RunFolder(resumed)
        settings = folder.settings()
    else:
        settings = Settings.from_dict(_merged(options, given))
        out = getattr(options, "out", None)
        folder = RunFolder(out or next_free(Path("runs"), f"{settings.data}-{settings.model}"))
        folder.check_empty()

    with DisplayObserver(make_display(getattr(options, "display", "auto"))) as display:
        observers: list[Observer] = [display]
        board = None
        if getattr(options, "tensorboard", False):
            board = TensorBoardObserver(folder.tensorboard)
            observers.append(board)
        try:
            if resumed is None:
                result = start(settings, folder, observers)
            else:
                result = resume(folder, given, observers)
        finally:
            if board is not None:
                board.close()
    finish(result, folder)
    return 130 if result.interrupted else 0


def _given_settings(options: argparse.Namespace) -> dict[str, Any]:
    from freezeout.training.settings import setting_fields

    names = (spec.name for spec in setting_fields())
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def _merged(options: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """Preset, then file, then command line."""
    from freezeout.training.presets import preset
    from freezeout.training.settings import check_names
    from freezeout.training.toml import read_toml

    values: dict[str, Any] = {}
    if hasattr(options, "config"):
        values = read_toml(options.config)
    name = getattr(options, "preset", values.pop("preset", None))
    base = {} if name is None else preset(name)
    if hasattr(options, "config"):
        check_names(values, str(options.config))
    return {**base, **values, **given}


def _refuse_launcher() -> None:
    size = os.environ.get("WORLD_SIZE", "1")
    if size.isdecimal() and int(size) > 1:
        raise RunError(
            f"freezeout train runs in one process, but a launcher started {size} (WORLD_SIZE). "
            "Training on several processes is not supported yet: run it without torchrun."
        )
