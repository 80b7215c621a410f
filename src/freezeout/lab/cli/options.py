"""Settings of a run as command-line options, and where their values come from."""

from __future__ import annotations

import argparse
from collections.abc import Container
from typing import Any

from freezeout.lab.cli.paths import option_path
from freezeout.lab.training import Settings, setting_fields

__all__ = [
    "add_pool_options",
    "add_settings",
    "add_sources",
    "given_settings",
    "merged_settings",
    "setting_words",
]


def add_pool_options(group: Any, *, ray: bool) -> None:
    """Add the options that say where and how long to run."""
    group.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="runs at a time, at least 1 (default: as many as there are cores for; 1 on a GPU)",
    )
    group.add_argument(
        "--minutes",
        type=float,
        metavar="X",
        help="save all and stop after this many minutes; --resume goes on",
    )
    group.add_argument("--retry", action="store_true", help="try failed runs again")
    group.add_argument(
        "--drop-checkpoints",
        action="store_true",
        help="delete the checkpoint of each run once it is done; log and summary stay",
    )
    if ray:
        group.add_argument(
            "--ray",
            metavar="ADDRESS",
            help="run on a Ray cluster: its address, or auto; all machines see the same --out",
        )


def add_sources(group: Any) -> None:
    """Add ``--preset`` and ``--config``."""
    from freezeout.lab.training import PRESETS

    group.add_argument("--preset", help=f"named settings: {', '.join(PRESETS)}")
    group.add_argument(
        "--config", type=option_path, metavar="FILE", help="settings from a TOML file"
    )


def add_settings(group: Any, names: Container[str] | None = None) -> None:
    """Add an option for every setting, or for those of some names."""
    for spec in setting_fields():
        if names is not None and spec.name not in names:
            continue
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


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given on the command line."""
    names = (spec.name for spec in setting_fields())
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def merged_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the preset, then of the file, then of the command line."""
    from freezeout.lab.training import check_names, preset, read_toml

    values: dict[str, Any] = {}
    if hasattr(options, "config"):
        values = read_toml(options.config)
    name = getattr(options, "preset", values.pop("preset", None))
    base = {} if name is None else preset(name)
    if hasattr(options, "config"):
        check_names(values, str(options.config))
    return {**base, **values, **given_settings(options)}


def setting_words(settings: Settings, leave_out: Container[str]) -> list[str]:
    """Write the options that give settings where they are not the defaults.

    Args:
        settings: The settings.
        leave_out: Names to leave out.
    """
    words = []
    for spec in setting_fields():
        value, flag = getattr(settings, spec.name), spec.name.replace("_", "-")
        if spec.name in leave_out or value == spec.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            words += [f"--{flag}", ",".join(map(str, value))]
        else:
            words += [f"--{flag}", str(value)]
    return words
