"""Does freezing pay on a GPU, at the paper's scale? Run in pieces of under ten minutes.

Per network and data set: the baseline, the paper's recommended schedule (cubic, t0 = 0.8, scaled),
and a baseline shortened to the time of that schedule, with paired seeds, at the paper's protocol:
batch 50, 100 epochs, SGD with Nesterov momentum, rate 0.1. The arms of a seed take turns on the
device, a hundredth of a run at a time.

``python benchmarks/paper_gpu.py --data-dir DATA`` does one piece and ends; the same line again goes
on where it stopped. Cells come one after the other, seed by seed. Every finished run is appended to
a file of results, one line of JSON each, never twice. Where only that file is at hand, such as on
another machine, seeds that are in it with all their arms are not run again. ``--epochs``,
``--batch-size`` and ``--precision`` fit the set into a smaller budget; the names of the cells then
say so.

``python benchmarks/paper_gpu.py --summarise FILE...`` compares what files of results hold and
writes ``results/paper_gpu.json``, with the tables beside it as CSV.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from freezeout.durations import format_seconds
from freezeout.errors import FreezeOutError
from freezeout.experiments.experiment import Runner
from freezeout.experiments.pool import Pool
from freezeout.report.comparison_tables import print_comparison
from paper_piece import Piece, say
from paper_results import merged, read, write_summary
from paper_runs import CELLS, Standing, pieces_left

__all__ = ["main"]

STATE = Path("runs") / "paper_gpu"
OUT = Path(__file__).parent / "results" / "paper_gpu.json"


# ---------------------------------------------------------------- one piece


def do(piece: Piece, pool: Callable[..., Runner]) -> int:
    """One piece, and what there is to say after it."""
    before = piece.standings()
    finished = piece.work(pool)
    after = piece.standings()
    say()
    for one in after:
        say(standing_line(one))
    say_left(before, after, finished, piece.given.minutes)
    for comparison in piece.comparisons():
        say()
        print_comparison(comparison, sys.stdout)
    say()
    say(f"{len(piece.results.entries)} finished runs in {piece.results.path}")
    unmeasured = [f"{cell} cannot be measured: {why}" for cell, why in piece.problems.items()]
    failed = [*unmeasured, *(reason for one in after for reason in one.failed)]
    for reason in failed:
        say(f"failed: {reason}")
    if failed:
        say("Try again with --retry.")
    return 1 if failed else 0


def standing_line(one: Standing) -> str:
    text = f"{one.cell}: {one.done} of {one.runs} runs done"
    if one.failed:
        text += f", {len(one.failed)} failed"
    if one.seconds_left is None:
        return f"{text}, its steps are not measured yet"
    if one.left:
        text += f", {format_seconds(one.seconds_left)} of training left"
    return text


def say_left(
    before: Sequence[Standing], after: Sequence[Standing], finished: bool, minutes: float
) -> None:
    left = sum(one.left for one in after)
    if finished:
        say("Nothing is left to do." if not left else f"{left} runs could not be begun.")
        return
    pieces = pieces_left(before, after)
    if pieces is None:
        say(f"{left} runs left. This piece did not get on: give more --minutes than {minutes:g}.")
        return
    guess = any(one.seconds_left is None for one in after)
    say(
        f"{left} runs left: about {pieces} more piece{'' if pieces == 1 else 's'} like this one"
        + (", if cells not measured yet take as long as the others." if guess else ".")
    )


# ---------------------------------------------------------------- files of results


def summarise(files: Sequence[Path], out: Path) -> int:
    """Compares the runs in files of results."""
    if out.suffix != ".json":
        raise ValueError(f"--out must end with .json, got {out}. The tables go beside it as .csv.")
    entries, dropped = merged([read(path) for path in files])
    if not entries:
        raise ValueError(f"no finished run in {', '.join(map(str, files))}. Give other files.")
    for comparison in write_summary(entries, out):
        print_comparison(comparison, sys.stdout)
        say()
    twice = f"; {dropped} more left out that were there already" if dropped else ""
    say(f"{len(entries)} runs{twice}")
    say(f"Written to {out} and {out.with_suffix('.csv').name}")
    return 0


# ---------------------------------------------------------------- command line


def arguments(cells: Mapping[str, Mapping[str, Any]]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Exit status: 0 if the piece was done, 1 if a run failed, 2 if it cannot begin or "
        "go on, 130 after a second Ctrl-C (the first one saves and ends the piece).",
        allow_abbrev=False,
    )

    def names(text: str) -> list[str]:
        found = list(dict.fromkeys(name.strip() for name in text.split(",")))
        for name in found:
            if name not in cells:
                raise argparse.ArgumentTypeError(
                    f"must be names with commas, out of {', '.join(cells)}, got {name!r}"
                )
        return found

    add = parser.add_argument
    add("--data-dir", type=Path, metavar="DIR", help="folder that holds the data sets")
    add(
        "--cells",
        type=names,
        default=list(cells),
        help=f"what to run, in this order, with commas (default: {','.join(cells)})",
    )
    add("--seeds", type=_positive, default=3, help="in each cell (default: %(default)s)")
    add("--epochs", type=_positive, help="(default: the paper's 100)")
    add("--batch-size", type=_positive, help="(default: the paper's 50); the rate stays")
    add("--precision", choices=("fp32", "bf16"), help="(default: fp32)")
    add("--device", choices=("cpu", "cuda"), default="cuda", help="(default: %(default)s)")
    add(
        "--processes",
        type=_positive,
        default=1,
        help="seeds at a time; the arms of each take turns (default: %(default)s)",
    )
    add("--minutes", type=_minutes, default=9.0, help="of a piece, in all (default: %(default)g)")
    add("--retry", action="store_true", help="try runs again that failed")
    add(
        "--state",
        type=Path,
        metavar="DIR",
        default=STATE,
        help="folder of the experiment, to go on with (default: %(default)s)",
    )
    add(
        "--results",
        type=Path,
        metavar="FILE",
        help="file that finished runs are appended to (default: that of --state, with .jsonl)",
    )
    add(
        "--summarise",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="run nothing: compare what files of results hold",
    )
    add("--out", type=Path, metavar="FILE", help=f"with --summarise (default: results/{OUT.name})")
    return parser


def main(
    argv: Sequence[str] | None = None,
    *,
    cells: Mapping[str, Mapping[str, Any]] = CELLS,
    pool: Callable[..., Runner] = Pool,
) -> int:
    """Runs the benchmark; returns the exit status.

    Args:
        argv: The command line.
        cells: Settings of the cells by name, over the paper's protocol.
        pool: Makes what brings runs to their end, called as `Pool` is.
    """
    begun = time.monotonic()
    parser = arguments(cells)
    given = parser.parse_args(argv)
    if given.summarise is not None and given.data_dir is not None:
        parser.error("--summarise runs nothing and needs no --data-dir. Leave one of them out.")
    if given.summarise is None and given.out is not None:
        parser.error("--out belongs to --summarise. Finished runs go to --results.")
    if given.summarise is None and given.data_dir is None:
        parser.error("give --data-dir, the folder that holds the data sets, or --summarise.")
    try:
        if given.summarise is not None:
            return summarise(given.summarise, given.out or OUT)
        piece = Piece(given, cells, begun)
    except (FreezeOutError, ValueError) as error:
        parser.error(" ".join(str(error).split()))
    try:
        return do(piece, pool)
    except FreezeOutError as error:  # what was finished before is in the results
        parser.error(" ".join(str(error).split()))
    except KeyboardInterrupt:  # the second one: runs go on from their last checkpoints
        say("stopped at once; the same command goes on")
        return 130


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _minutes(text: str) -> float:
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
