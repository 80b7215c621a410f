"""``freezeout compare``: does freezing pay, on this network, this data, this machine?"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from freezeout.errors import RunError
from freezeout.lab.cli.options import add_pool_options, add_settings, add_sources, merged_settings
from freezeout.lab.cli.paths import option_path
from freezeout.text import command

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  freezeout compare --model wrn-16-4 --data digits --epochs 12     minutes, nothing to download
  freezeout compare --preset paper-wrn --device cuda --seeds 5     the paper's WRN-40-4
  freezeout compare --variants cubic:0.8,linear:0.5:unscaled       several ways of freezing
  freezeout compare --model mypackage.nets:make_net --data mypackage.data:load    custom
  freezeout compare --resume runs/compare-digits-resnet-20-1 --seeds 10   five seeds more

For every seed it trains, in turns: the baseline; each variant; the baseline shortened to the
time of the variant, with its rate fully annealed; and the variant's rates with nothing frozen.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb.

    Args:
        verbs: What ``ArgumentParser.add_subparsers`` returned.
    """
    parser = verbs.add_parser(
        "compare",
        help="find out whether freezing pays, against training for fewer epochs",
        description="Compare freezing with the baseline, and with one that trains as long as it "
        "does, over paired seeds.",
        epilog=_EPILOG,
    )
    run = parser.add_argument_group("comparison")
    add_sources(run)
    run.add_argument(
        "--variants",
        type=lambda text: text.split(","),
        metavar="V,V,...",
        help="ways of freezing: SPACING:T0 or SPACING:T0:unscaled, with :max_freezes=N at the end "
        "where wanted (default: that of the settings)",
    )
    run.add_argument(
        "--seeds", type=int, metavar="N", help="seeds, from --seed on, at least 1 (default: 5)"
    )
    run.add_argument(
        "--margin",
        type=float,
        metavar="X",
        help="points of error that count as no difference, above 0 (default: 0.25)",
    )
    run.add_argument(
        "--rates-only",
        action=argparse.BooleanOptionalAction,
        help="train each variant's rates with nothing frozen as well (default: yes)",
    )
    run.add_argument(
        "--out",
        type=option_path,
        metavar="DIR",
        help="new folder (default: runs/compare-DATA-MODEL-N)",
    )
    run.add_argument(
        "--resume", type=option_path, metavar="DIR", help="go on with the comparison in DIR"
    )
    add_pool_options(run, ray=False)
    add_settings(parser.add_argument_group("settings"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from freezeout.lab.cli.experiments import carry_out
    from freezeout.lab.cli.verdicts import MARGIN, check_margin, show

    margin = check_margin(getattr(options, "margin", MARGIN))
    seeds = getattr(options, "seeds", None)
    if seeds is not None and not 1 <= seeds <= 1000:
        raise RunError(f"--seeds must lie in 1 to 1000, got {seeds}. Five are a good start.")
    experiment = _resumed(options, seeds) if hasattr(options, "resume") else _new(options, seeds)
    claimed = not (hasattr(options, "out") or hasattr(options, "resume"))
    finished = carry_out(experiment, options, claimed=claimed)
    return show(experiment, "compare", finished=finished, margin=margin)


def _new(options: argparse.Namespace, seeds: int | None) -> Any:
    from freezeout.lab.cli.experiments import pinned
    from freezeout.lab.experiments import Cell, Experiment, Grid, Variant, unfrozen, variant_of
    from freezeout.lab.training import Settings, next_free, slug

    settings = Settings.from_dict(merged_settings(options))
    if not settings.freeze or settings.const_time:
        name = "const-time" if settings.const_time else "no-freeze"
        raise RunError(
            f"--{name} cannot be given to compare: it decides itself what each arm freezes and how "
            "long it trains. Leave it out."
        )
    if hasattr(options, "variants"):
        variants = [
            replace(one, max_freezes=one.max_freezes or settings.max_freezes)
            for one in map(Variant.parse, options.variants)
        ]
    else:
        own = variant_of(settings)
        if own is None:
            raise RunError(
                "there is nothing to compare: t0=1 freezes nothing. Give --t0 below 1, or "
                "--variants cubic:0.8."
            )
        variants = [own]
    cell = Cell(
        name=f"{settings.model} on {settings.data}",
        settings=replace(unfrozen(settings), seed=0),
    )
    grid = Grid(
        cells=(cell,),
        variants=tuple(variants),
        seeds=tuple(range(settings.seed, settings.seed + (seeds or 5))),
        equal_time=True,
        rates_only=getattr(options, "rates_only", True),
        turns=True,
    )
    grid = pinned(grid)
    stem = f"compare-{slug(settings.data)}-{slug(settings.model)}"
    folder = getattr(options, "out", None) or next_free(Path("runs"), stem)  # the last to fail
    experiment = Experiment(folder, grid)
    if experiment.description.exists():
        there = Experiment.load(folder).grid
        if replace(there, seeds=grid.seeds) != experiment.grid:
            raise RunError(
                f"{folder} holds another experiment already. Go on with that: "
                f"{command('compare', '--resume', folder)}; or give a new folder with --out."
            )
    return experiment


_KEPT = ("variants", "rates_only", "out", "preset", "config")


def _resumed(options: argparse.Namespace, seeds: int | None) -> Any:
    from freezeout.lab.cli.options import given_settings
    from freezeout.lab.experiments import Experiment

    given = [name for name in _KEPT if hasattr(options, name)] + list(given_settings(options))
    if given:
        raise RunError(
            f"--{given[0].replace('_', '-')} cannot be given with --resume: a resumed comparison "
            "keeps its settings; it may only get more --seeds. Leave it out."
        )
    experiment = Experiment.load(options.resume)
    grid = experiment.grid
    if seeds is None:
        return experiment
    if seeds < len(grid.seeds):
        raise RunError(
            f"the comparison in {options.resume} has {len(grid.seeds)} seeds already, got --seeds "
            f"{seeds}. Give more, or leave it out."
        )
    first = max(grid.seeds) + 1
    more = range(first, first + seeds - len(grid.seeds))
    return Experiment(experiment.folder, replace(grid, seeds=(*grid.seeds, *more)))
