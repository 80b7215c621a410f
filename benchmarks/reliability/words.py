"""Generated command lines: each ends with 0 or 2, a refused one with one line."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from benchmarks.reliability.case import Case, judge
from benchmarks.reliability.children import obey_permissions, run_child
from benchmarks.reliability.going_on import train_words
from benchmarks.reliability.readers import documents
from benchmarks.reliability.tiny import SMALL, command, plan_file, scratch_home
from freezeout.errors import RunError
from freezeout.lab.cli import main

__all__ = ["words"]

_LINES = 10  # of one case
_LEFT_OUT = ("--ray",)  # it would look for a cluster


def words(case: Case) -> None:
    """Run some generated command lines, in which nothing is trained or fetched."""
    for number in range(_LINES):
        folder = case.folder / str(number)
        shutil.copytree(_home(), folder, symlinks=True)
        os.mkfifo(folder / "pipe")
        line = _line(case.random)
        end = run_child(_harmless(line), folder)
        case.count("command lines")
        case.did(line, "nothing is trained", end)
        judge(end)
        case.trail.clear()


def _harmless(line: Sequence[str]) -> Callable[[], int]:
    """Return what runs a command line up to where it would train, or ask the network."""

    def work() -> int:
        import freezeout.lab.experiments.runners.local as local
        import freezeout.lab.training.stretch as stretch

        mock.patch.object(stretch.Stretch, "train", _not_trained).start()
        mock.patch.object(local.Pool, "run", _not_trained).start()
        mock.patch.object(socket.socket, "connect", _not_connected).start()
        mock.patch.object(socket, "getaddrinfo", _not_connected).start()
        obey_permissions()
        return command(line)()

    return work


def _not_trained(*_: Any, **__: Any) -> NoReturn:
    raise RunError("all that was asked for is understood, and nothing is trained here.")


def _not_connected(*_: Any, **__: Any) -> NoReturn:
    raise OSError(101, "Network is unreachable")


@functools.cache
def _home() -> Path:
    """Return a folder with all that a path may lead to."""
    home = Path(tempfile.mkdtemp(prefix="words-", dir=scratch_home()))
    end = run_child(command(train_words("epochs", "run")), home)
    if end.code:
        raise RuntimeError(f"a run ended with {end.words}: {end.err}")
    for name, text in documents().items():
        if "/" not in name:
            (home / name).write_bytes(text)
    shutil.copy(plan_file(), home / "plan.json")
    (home / "empty").mkdir()
    (home / "nothing").write_bytes(b"")
    (home / "noise").write_bytes(random.Random(0).randbytes(3000))
    (home / "nowhere").symlink_to("is-not-there")
    (home / "loop").symlink_to("loop")
    (home / "locked").mkdir(mode=0)
    return home


_PATHS = (
    *("run", "run/settings.toml", "config.toml", "sweep.toml", "plan.json", "costs.json", "empty"),
    *("nothing", "noise", "nowhere", "loop", "loop/x", "locked", "locked/x", "noise/inside", ""),
    *("new", "new/deep/er", "x" * 300, "y/" * 2100, "\udcff\udcfe", "a b", "-", "~", "~none/x"),
    *(
        "/dev/null",
        "/dev/null/x",
        "/dev/zero",
        "/dev/full",
        "pipe",
        "/proc/none/x",
        "run/../run",
        ".",
        "..",
        "'q\"",
        "=1",
        "new\nline",
    ),
)
_WHOLE = (
    *("0", "1", "2", "3", "-1", "7", "60", "1000", "9" * 400, "-" + "9" * 30, "2147483648", "1_0"),
    *("9223372036854775807", "9223372036854775808", "1000000000", "1000001", "00", " 1", "١"),
)
_DECIMAL = (
    *("0", "1", "0.5", "-1", "1e309", "nan", "inf", "-inf", "1e-320", "1e308", "0.999999", "-0.0"),
    *("1e6", "1e30", "1_0.5", "٠.٥"),
)
_OTHER = ("1.5", "0x1", "", "1,5", "0.3,0.6,1", "0.2,0.4,0.6,0.8,1", "0.5,", ",", "1,0.5", "nan,1")
_NAMES = (
    *("digits", "cifar10", "resnet-8", "resnet-9", "wrn-10-1", "wrn-0-0", "vgg11", "densenet-10-2"),
    *(
        "resnet--8",
        "resnet-8-0",
        "json:loads",
        "nothing:here",
        ":",
        "a:",
        "math:pi",
        "x" * 3000,
        "",
    ),
    *("\udcff", "paper", "demo", "paper-small", "cpu", "cuda:7", "cuda:-1", "cubic:0.5", "cubic:2"),
    *("cubic:0.5,cubic:0.5", "linear:0.5:max_freezes=0", "25%", "100%", "2h", "0s", "1h30m", "-5%"),
    *("3x8x8", "0x0", "png", "bash", "none", "fp32", "Ünïcode", "[red]", "%(prog)s", "{}", "%s"),
)


@functools.cache
def _verbs() -> dict[str, list[argparse.Action]]:
    """Return the verbs, each with the options of its parser."""
    seen: list[argparse.ArgumentParser] = []

    def parse_args(self: argparse.ArgumentParser, *_: Any) -> NoReturn:
        seen.append(self)
        raise SystemExit(0)

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args),
        contextlib.suppress(SystemExit),
    ):
        main([])
    (parser,) = seen
    found = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {name: list(verb._actions) for name, verb in found.choices.items()}


def _line(chance: random.Random) -> list[str]:
    """Draw a command line: mostly one that would do, with some words that may not."""
    if chance.random() < 0.03:
        pool = ("", "--", "-", "--version", "-h", "--help", "trian", "\udcff", "--print-completion")
        return [chance.choice(pool) for _ in range(chance.randrange(4))]
    verb = chance.choice([*_verbs()])
    options = [one for one in _verbs()[verb] if not {*one.option_strings} & {*_LEFT_OUT}]
    line = [verb, *chance.choice(_BEGINNINGS[verb])] if chance.random() < 0.8 else [verb]
    often = [4 if one.metavar in ("DIR", "FILE") else 1 for one in options]
    for action in chance.choices(options, often, k=chance.choice((1, 1, 1, 2, 3, 4))):
        line += _given(chance, action)
    if chance.random() < 0.05:
        line.insert(chance.randrange(len(line) + 1), chance.choice((*_PATHS, *_NAMES, "--")))
    return line


_BEGINNINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "train": ((), SMALL, SMALL, ("--resume", "run"), (*SMALL, "--plan", "plan.json")),
    "plan": (SMALL[:10], (*SMALL[:10], "--t0", "0.6"), (*SMALL[:10], "--costs", "costs.json")),
    "compare": (SMALL, SMALL, ("--resume", "new")),
    "sweep": (("sweep.toml",), ("sweep.toml", "--dry-run"), ("--preset", "paper-small")),
    "report": (("run",), ("run", "--out", "page"), (".",)),
}
"""Words of verbs that would do."""


def _given(chance: random.Random, action: argparse.Action) -> list[str]:
    """Draw an option and its value, or the value of a positional argument."""
    flag = [chance.choice(action.option_strings)] if action.option_strings else []
    if action.nargs == 0:
        return flag
    values = [_value(chance, action) for _ in range(chance.choice((1,) * 16 + (0, 2)))]
    if flag and len(values) == 1 and chance.random() < 0.3:
        return [f"{flag[0]}={values[0]}"]
    return flag + values


def _value(chance: random.Random, action: argparse.Action) -> str:
    """Draw a value, most often of the right kind."""
    if chance.random() < 0.1:
        return chance.choice((*_PATHS, *_WHOLE, *_DECIMAL, *_OTHER, *_NAMES))
    if action.choices:
        return str(chance.choice([*action.choices]))
    if action.metavar in ("DIR", "FILE"):
        return chance.choice(_PATHS)
    if action.type is int:
        return chance.choice(_WHOLE)
    return chance.choice(_DECIMAL if action.type is float else (*_NAMES, *_OTHER))
