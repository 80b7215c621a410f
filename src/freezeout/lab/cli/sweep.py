"""``freezeout sweep``: a grid of runs as one experiment that can be interrupted at any time."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from freezeout.errors import RunError
from freezeout.lab.cli.options import add_pool_options, add_settings, given_settings
from freezeout.lab.cli.paths import option_path

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  freezeout sweep sweep.toml --out runs/sweep           run what the file says; repeat it to go on
  freezeout sweep --preset paper-small --data-dir DATA  the paper's three families, scaled down
  freezeout sweep --preset paper-fair --dry-run         list what would be run
  freezeout sweep --resume runs/sweep --retry           go on, and try again what failed
  freezeout sweep sweep.toml --out /shared/s --ray auto on a Ray cluster

a sweep file:
  preset = "paper"            # settings for all runs, as in freezeout train --config
  epochs = 20
  [grid]                      # a list for everything that varies
  model = ["wrn-16-4", "densenet-40-12"]
  data = ["cifar10"]
  t0 = [0.8, 0.5]
  spacing = ["cubic", "linear"]
  scaled = [true, false]
  seed = [0, 1, 2, 3, 4]
  [arms]                      # baseline is true by default
  equal_time = true           # a baseline shortened to the time of each variant
  rates_only = true           # each variant's rates, with nothing frozen
"""


def add_parser(verbs: Any) -> None:
    """Add the verb.

    Args:
        verbs: What ``ArgumentParser.add_subparsers`` returned.
    """
    parser = verbs.add_parser(
        "sweep",
        help="run a grid of trainings as one experiment that can be resumed",
        description="Run networks x data x ways of freezing x seeds; each run in its own folder.",
        epilog=_EPILOG,
    )
    run = parser.add_argument_group("experiment")
    run.add_argument(
        "file",
        type=option_path,
        nargs="?",
        default=None,
        metavar="FILE",
        help="the sweep file (TOML)",
    )
    run.add_argument("--preset", help="a named experiment; see docs/comparing.md")
    run.add_argument(
        "--out",
        type=option_path,
        metavar="DIR",
        help="its folder, new or begun (default: runs/NAME)",
    )
    run.add_argument(
        "--resume", type=option_path, metavar="DIR", help="go on with the experiment in DIR"
    )
    run.add_argument("--dry-run", action="store_true", help="list the runs, and run nothing")
    add_pool_options(run, ray=True)
    add_settings(parser.add_argument_group("settings for all runs, over those of the file"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from freezeout.lab.cli.experiments import carry_out
    from freezeout.lab.cli.verdicts import show

    experiment = _experiment(options)
    if getattr(options, "dry_run", False):
        return _list(experiment)
    finished = carry_out(experiment, options)
    return show(experiment, "sweep", finished=finished)


def _experiment(options: argparse.Namespace) -> Any:
    from freezeout.lab.cli.experiments import pinned
    from freezeout.lab.experiments import Experiment, Grid, experiment_preset

    given = given_settings(options)
    sources = ("file", "preset", "resume")
    ways = [name for name in sources if getattr(options, name, None) is not None]
    if len(ways) != 1:
        got = " and ".join(ways) or "none of them"
        raise RunError(
            f"give one of a sweep file, --preset and --resume, got {got}. See freezeout sweep "
            "--help."
        )
    if ways == ["resume"]:
        if given or hasattr(options, "out"):
            raise RunError(
                "a resumed experiment keeps its settings and its folder. Leave out "
                f"{', '.join('--' + n.replace('_', '-') for n in [*given, *_out(options)])}."
            )
        return Experiment.load(options.resume)
    if ways == ["preset"]:
        name = options.preset
        grid = Grid.from_dict(experiment_preset(name), f"preset {name}", given)
    else:
        name = options.file.stem
        grid = Grid.load(options.file, given)
    return Experiment(getattr(options, "out", Path("runs") / name), pinned(grid))


def _out(options: argparse.Namespace) -> list[str]:
    return ["out"] if hasattr(options, "out") else []


def _list(experiment: Any) -> int:
    grid = experiment.grid
    each = 1 + grid.equal_time + grid.rates_only
    print(f"{grid.size} runs in {experiment.folder}")
    print(f"seeds: {', '.join(map(str, grid.seeds))}")
    arms = (["baseline"] if grid.baseline else []) + [v.name for v in grid.variants]
    kinds = (("equal time", grid.equal_time), ("rates only", grid.rates_only))
    extra = [name for name, wanted in kinds if wanted]
    more = f", each variant also as {' and '.join(extra)}" if each > 1 else ""
    print(f"arms: {', '.join(arms)}{more}")
    for cell in grid.cells:
        print(f"cell: {cell.name}")
    return 0
