"""What a training step costs under FreezeOut, as ratios within one run.

Three questions, each with a bar:

a. Attached but nothing frozen, against the plain loop: at most 1.01. ``scheduler.step()`` against
   that of torch's ``CosineAnnealingLR`` on equally many parameter groups: at most 2.
b. With k layers frozen, for every k, against the floor (the same prefix run by hand under
   ``no_grad`` in inference mode, only the rest trained): at most 1.02.
c. Bytes that the frozen prefix saves for backward, and optimizer state held for it: none.

Run it as ``python benchmarks/step_cost.py``; ``--help`` lists the settings. It prints tables,
writes a JSON file, and exits with 0 if every bar holds and with 1 otherwise.

Times: variants take turns step by step in shuffled orders. A step is batch, ``zero_grad``, forward,
backward, ``optimizer.step()`` and ``scheduler.step()``, timed alone, with the device synchronised
at both ends (on a GPU this lays bare the work of the CPU that would otherwise overlap). Figures are
medians of ratios within rounds. On a machine that does other work as well, ``--clock cpu`` counts
the seconds that the processor worked for this process, with far less noise.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

import freezeout
from by_hand import Floor
from freezeout import FreezeOut, Layers, split_layers
from freezeout.models import build
from held import gradient_bytes, saved_for_backward, state_bytes
from ratios import CONFIDENCE, Comparison, Effort, Question, Variant, compare

__all__ = ["Driven", "Holding", "Settings", "driven", "floor_agrees", "holding", "main"]

ATTACHED_BAR = 1.01
SCHEDULER_BAR = 2.0
FLOOR_BAR = 1.02

TOTAL_STEPS = 1_000_000
"""So long that nothing freezes while the clock runs, and that rates hardly move."""

STEPS_BEFORE_FREEZE = 3
"""Real steps before layers freeze, so that there is optimizer state to release."""

RATE = 0.01
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        model: A name for `freezeout.models.build`.
        image_size: Height and width of the images in pixels.
        channels: Channels of the images.
        classes: Number of classes.
        batch_size: Images per step.
        device: ``"cpu"`` or ``"cuda"``.
        precision: ``"fp32"``, or ``"bf16"`` for autocast.
        floor_groups: Parameter groups of the floor's optimizer: ``"layer"`` for one per trained
            layer, as separate rates need them, or ``"one"``.
        seed: Of weights, data and orders.
    """

    model: str = "wrn-16-2"
    image_size: int = 32
    channels: int = 3
    classes: int = 10
    batch_size: int = 32
    device: str = "cpu"
    precision: str = "fp32"
    floor_groups: str = "layer"
    seed: int = 0

    def network(self) -> nn.Module:
        """The same network at every call."""
        torch.manual_seed(self.seed)
        network = build(
            self.model,
            num_classes=self.classes,
            in_channels=self.channels,
            image_size=self.image_size,
        )
        return network.to(self.device)

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """A few batches of noise, the same at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.batch_size, self.channels, self.image_size, self.image_size)
        return [
            (
                torch.randn(shape, generator=generator).to(self.device),
                torch.randint(0, self.classes, shape[:1], generator=generator).to(self.device),
            )
            for _ in range(4)
        ]

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of a forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16)

    def loss(self, forward: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        """The loss of a batch."""
        x, y = batch
        with self.autocast():
            return F.cross_entropy(forward(x), y)


def sgd(groups: Sequence[Sequence[nn.Parameter]]) -> SGD:
    return SGD(
        [{"params": list(group)} for group in groups],
        lr=RATE,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )


def groups_by_layer(layers: Layers) -> list[list[nn.Parameter]]:
    return [[p for _, p in layer.parameters] for layer in layers]


def training_step(
    settings: Settings,
    forward: Callable[[Tensor], Tensor],
    optimizer: SGD,
    scheduler: CosineAnnealingLR | FreezeOut,
) -> Callable[[], None]:
    """One step of a plain loop, on the next batch."""
    batches = itertools.cycle(settings.batches())

    def step() -> None:
        optimizer.zero_grad()
        settings.loss(forward, next(batches)).backward()
        optimizer.step()
        scheduler.step()

    return step


# ---------------------------------------------------------------- (a) attached, nothing frozen


def plain_loop(settings: Settings, *, by_layer: bool) -> Callable[[], None]:
    """A step without FreezeOut, with one parameter group or with one per layer."""
    model = settings.network()
    groups = groups_by_layer(split_layers(model)) if by_layer else [list(model.parameters())]
    optimizer = sgd(groups)
    scheduler = CosineAnnealingLR(optimizer, T_max=TOTAL_STEPS)
    return training_step(settings, model, optimizer, scheduler)


def attached(settings: Settings, effort: Effort) -> list[Comparison]:
    """FreezeOut on a plain loop, with nothing frozen yet.

    The bar is the tightest, so this may take one look more.
    """
    model = settings.network()
    optimizer = sgd([list(model.parameters())])
    scheduler = FreezeOut(optimizer, model, total_steps=TOTAL_STEPS)
    answers = compare(
        {
            "plain": Variant(plain_loop(settings, by_layer=False)),
            "attached": Variant(training_step(settings, model, optimizer, scheduler)),
            "groups": Variant(plain_loop(settings, by_layer=True)),
        },
        [
            Question("attached / plain loop", "attached", "plain", ATTACHED_BAR),
            Question("attached / plain loop, a group per layer", "attached", "groups"),
            Question("plain loop, a group per layer / plain loop", "groups", "plain"),
        ],
        replace(effort, looks=effort.looks + 1),
        torch.device(settings.device),
    )
    _must_be(scheduler.frozen == 0, "nothing may be frozen here")
    return answers


def scheduler_step(settings: Settings, effort: Effort, *, calls: int = 50) -> list[Comparison]:
    """``scheduler.step()`` alone, with equally many parameter groups.

    Before every call an optimizer step without gradients happens outside the clock, so that there
    is progress to act on. No device is involved.
    """
    model = settings.network()
    ours = sgd([list(model.parameters())])
    freeze_out = FreezeOut(ours, model, total_steps=TOTAL_STEPS)
    theirs = sgd(groups_by_layer(split_layers(settings.network())))
    cosine = CosineAnnealingLR(theirs, T_max=TOTAL_STEPS)
    groups = len(theirs.param_groups)
    _must_be(len(ours.param_groups) == groups, "both optimizers must hold as many groups")
    answers = compare(
        {
            "FreezeOut": Variant(freeze_out.step, ours.step, calls),
            "CosineAnnealingLR": Variant(cosine.step, theirs.step, calls),
        },
        [
            Question(
                f"scheduler.step() / CosineAnnealingLR.step(), {groups} groups",
                "FreezeOut",
                "CosineAnnealingLR",
                SCHEDULER_BAR,
            )
        ],
        effort,
        torch.device("cpu"),
    )
    _must_be(freeze_out.last_epoch == cosine.last_epoch, "both must have advanced alike")
    return answers


# ---------------------------------------------------------------- (b) k layers frozen


@dataclass(frozen=True)
class Driven:
    """A network that FreezeOut has brought to a depth by real training steps.

    Attributes:
        model: The network.
        layers: Its layers.
        optimizer: Its optimizer.
        scheduler: What froze it.
        step: One more step.
        state_before: Bytes of optimizer state held for the prefix just before it froze.
    """

    model: nn.Module
    layers: Layers
    optimizer: SGD
    scheduler: FreezeOut
    step: Callable[[], None]
    state_before: int

    def frozen_parameters(self) -> list[nn.Parameter]:
        """Those of the layers that are frozen."""
        return [p for layer in self.layers[: self.scheduler.frozen] for _, p in layer.parameters]


def driven(settings: Settings, depth: int) -> Driven:
    """Trains a few steps, after which FreezeOut freezes the first `depth` layers."""
    model = settings.network()
    layers = split_layers(model)
    optimizer = sgd([list(model.parameters())])
    early = STEPS_BEFORE_FREEZE / TOTAL_STEPS
    scheduler = FreezeOut(
        optimizer,
        model,
        total_steps=TOTAL_STEPS,
        times=[early] * depth + [1.0] * (len(layers) - depth),
        scaled=False,  # a layer that freezes this early would start at a huge rate
        layers=layers,
        strict=True,
    )
    step = training_step(settings, model, optimizer, scheduler)
    for _ in range(STEPS_BEFORE_FREEZE - 1):
        step()
    prefix = [p for layer in layers[:depth] for _, p in layer.parameters]
    before = state_bytes(optimizer, prefix)
    _must_be(scheduler.frozen == 0, "nothing may freeze before its time")
    step()
    _must_be(scheduler.frozen == depth, "the layers must freeze at their time")
    return Driven(model, layers, optimizer, scheduler, step, before)


def floor_of(settings: Settings, subject: Driven) -> tuple[nn.Module, Floor]:
    """The floor for a driven network: the same weights, its frozen layers run by hand."""
    model = settings.network()
    model.load_state_dict(subject.model.state_dict())
    return model, Floor(model, split_layers(model), subject.scheduler.frozen)


def floor_agrees(settings: Settings, subject: Driven, model: nn.Module, floor: Floor) -> bool:
    """Whether the floor computes the same loss and gradients as the driven network.

    Bit for bit on a CPU. On a GPU sums may be taken in another order, so there up to rounding.
    Gradients are dropped, buffers put back, and torch's random state set to the seed.
    """
    batch = settings.batches()[0]
    pairs = list(zip(subject.model.parameters(), model.parameters(), strict=True))
    buffers = [(b, b.clone()) for net in (subject.model, model) for b in net.buffers()]
    values: list[tuple[Tensor, Tensor]] = []
    losses = []
    for forward in (subject.model, floor):
        for ours, theirs in pairs:
            (ours if forward is subject.model else theirs).grad = None
        torch.manual_seed(settings.seed)
        loss = settings.loss(forward, batch)
        loss.backward()
        losses.append(loss.detach())
    values.append((losses[0], losses[1]))
    agree = True
    for ours, theirs in pairs:
        if ours.grad is not None and theirs.grad is not None:
            values.append((ours.grad, theirs.grad))
        agree = agree and (ours.grad is None) == (theirs.grad is None)
        ours.grad = theirs.grad = None
    for buffer, value in buffers:
        buffer.copy_(value)
    if settings.device == "cpu":
        return agree and all(torch.equal(a, b) for a, b in values)
    close = 1e-3 if settings.precision == "fp32" else 5e-2
    return agree and all(float((a - b).norm()) <= close * float(b.norm()) for a, b in values)


def at_depth(settings: Settings, depth: int, effort: Effort) -> list[Comparison]:
    """A step with `depth` layers frozen against the floor, and against nothing frozen."""
    subject = driven(settings, depth)
    twin, floor = floor_of(settings, subject)
    _must_be(
        floor_agrees(settings, subject, twin, floor),
        f"the floor at depth {depth} must compute the same loss and gradients",
    )
    groups = floor.groups
    if settings.floor_groups == "one":
        groups = [[p for group in groups for p in group]]
    optimizer = sgd(groups)
    scheduler = CosineAnnealingLR(optimizer, T_max=TOTAL_STEPS)
    variants = {
        "frozen": Variant(subject.step),
        "floor": Variant(training_step(settings, floor, optimizer, scheduler)),
    }
    questions = [Question(f"{depth} frozen / floor", "frozen", "floor", FLOOR_BAR, depth)]
    if depth:
        variants["unfrozen"] = Variant(driven(settings, 0).step)
        questions.append(
            Question(f"{depth} frozen / nothing frozen", "frozen", "unfrozen", depth=depth)
        )
    answers = compare(variants, questions, effort, torch.device(settings.device))
    _must_be(subject.scheduler.frozen == depth, "the depth must not change under the clock")
    return answers


# ---------------------------------------------------------------- (c) memory


@dataclass(frozen=True)
class Holding:
    """Bytes that a step holds with so many layers frozen.

    Attributes:
        depth: Number of frozen layers.
        prefix_saved: Saved for backward by the frozen layers.
        prefix_state: Optimizer state held for them.
        prefix_state_before: The same just before they froze.
        prefix_gradients: Their gradients.
        total_saved: Saved for backward in all, loss included.
        total_state: Optimizer state held in all.
    """

    depth: int
    prefix_saved: int
    prefix_state: int
    prefix_state_before: int
    prefix_gradients: int
    total_saved: int
    total_state: int

    @property
    def good(self) -> bool:
        """Whether the prefix holds nothing, and there was something to let go."""
        held = self.prefix_saved + self.prefix_state + self.prefix_gradients
        return held == 0 and (self.depth == 0 or self.prefix_state_before > 0)


def holding(settings: Settings, depth: int) -> Holding:
    """Counts what a step holds after `depth` layers froze, from steps that really happen."""
    subject = driven(settings, depth)
    frozen = subject.frozen_parameters()
    subject.step()
    batch = settings.batches()[0]
    saved = saved_for_backward(subject.layers, depth, lambda: settings.loss(subject.model, batch))
    return Holding(
        depth=depth,
        prefix_saved=saved.prefix,
        prefix_state=state_bytes(subject.optimizer, frozen),
        prefix_state_before=subject.state_before,
        prefix_gradients=gradient_bytes(frozen),
        total_saved=saved.total,
        total_state=state_bytes(subject.optimizer, subject.model.parameters()),
    )


def _must_be(condition: bool, what: str) -> None:
    """Stops a measurement that would not measure what it says."""
    if not condition:
        raise RuntimeError(f"the measurement is not valid: {what}.")


# ---------------------------------------------------------------- results


def describe_comparison(answer: Comparison) -> dict[str, Any]:
    question = answer.question
    return {
        "name": question.name,
        "depth": question.depth,
        "median": answer.median,
        "interval": None if answer.low is None else [answer.low, answer.high],
        "level": answer.level,
        "rounds": answer.rounds,
        "seconds": {
            question.numerator: answer.seconds[0],
            question.denominator: answer.seconds[1],
        },
        "bar": question.bar,
        "verdict": answer.verdict,
    }


def describe_holding(found: Holding) -> dict[str, Any]:
    return {**asdict(found), "bar": 0, "verdict": "holds" if found.good else "fails"}


def hardware(device: str) -> dict[str, Any]:
    """Names of the processor and, where it is used, of the GPU."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": usable,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }
    return found


def versions(device: str) -> dict[str, str | None]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "freezeout": freezeout.__version__,
        "cuda": torch.version.cuda if device == "cuda" else None,
        "cudnn": str(torch.backends.cudnn.version()) if device == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def shortcomings(result: dict[str, Any]) -> list[str]:
    """One line for every bar that does not hold, or was not decided."""
    return [
        f"{row['name']}: {row['median']:.4f}, bar {row['bar']:g}, {row['verdict']}"
        for row in result["comparisons"]
        if row["verdict"] not in (None, "holds")
    ] + [
        f"{row['depth']} frozen: prefix holds {row['prefix_saved']} bytes for backward, "
        f"{row['prefix_state']} of optimizer state (before: {row['prefix_state_before']}), "
        f"{row['prefix_gradients']} of gradients"
        for row in result["memory"]
        if row["verdict"] != "holds"
    ]


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# ---------------------------------------------------------------- tables


COMPARISON_ROW = "{:<52} {:>8} {:>18} {:>6} {:>9} {:>9} {:>5}  {}"
MEMORY_ROW = "{:>6} {:>13} {:>13} {:>13} {:>13} {:>14} {:>13}  {}"


def say(text: str = "") -> None:
    print(text, flush=True)


def comparison_line(answer: Comparison) -> str:
    question = answer.question
    interval = "-" if answer.low is None else f"{answer.low:.4f} - {answer.high:.4f}"
    above, below = (f"{1e3 * t:.3f}" for t in answer.seconds)
    bar = "" if question.bar is None else f"{question.bar:g}"
    return COMPARISON_ROW.format(
        question.name,
        f"{answer.median:.4f}",
        interval,
        answer.rounds,
        above,
        below,
        bar,
        answer.verdict or "",
    ).rstrip()


def memory_line(found: Holding) -> str:
    return MEMORY_ROW.format(
        found.depth,
        f"{found.prefix_saved:,}",
        f"{found.prefix_state:,}",
        f"{found.prefix_state_before:,}",
        f"{found.prefix_gradients:,}",
        f"{found.total_saved:,}",
        f"{found.total_state:,}",
        "holds" if found.good else "fails",
    )


def measure(settings: Settings, effort: Effort, depths: Sequence[int]) -> dict[str, Any]:
    """Measures everything and says each figure as soon as it is known."""
    layers = split_layers(settings.network())
    before = _load()
    say("(c) bytes held with k layers frozen")
    above = ("", "saved by", "state of", "state before", "gradients of", "saved", "state", "")
    below = ("k", "prefix", "prefix", "freezing", "prefix", "in all", "in all", "bar 0")
    say(MEMORY_ROW.format(*above).rstrip())
    say(MEMORY_ROW.format(*below))
    memory = []
    for depth in depths:
        memory.append(holding(settings, depth))
        say(memory_line(memory[-1]))
        gc.collect()

    say()
    say(
        f"(a), (b) ratios of times ({effort.clock} clock) within a round; "
        f"intervals of {100 * CONFIDENCE:g} % over all looks"
    )
    heads = ("a / b", "median", "interval", "rounds", "a, ms", "b, ms", "bar", "")
    say(COMPARISON_ROW.format(*heads).rstrip())
    comparisons: list[Comparison] = []
    questions: list[Callable[[], list[Comparison]]] = [
        lambda: scheduler_step(settings, effort),
        lambda: attached(settings, effort),
        *(_asking(settings, depth, effort) for depth in depths),
    ]
    for ask in questions:
        answers = ask()
        comparisons += answers
        for answer in answers:
            say(comparison_line(answer))
        gc.collect()

    result: dict[str, Any] = {
        "benchmark": "step_cost",
        "format": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "hardware": {**hardware(settings.device), "load": {"before": before, "after": _load()}},
        "versions": versions(settings.device),
        "settings": {
            **asdict(settings),
            "depths": list(depths),
            "optimizer": "SGD, Nesterov momentum 0.9, weight decay 5e-4",
        },
        "layers": [
            {"index": layer.index, "name": layer.name, "parameters": layer.num_parameters}
            for layer in layers
        ],
        "statistics": {
            **asdict(effort),
            "figure": "median of the ratios of times within a round",
            "interval": "order statistics of the median (binomial), no distribution assumed",
            "confidence_of_all_looks": CONFIDENCE,
        },
        "comparisons": [describe_comparison(answer) for answer in comparisons],
        "memory": [describe_holding(found) for found in memory],
    }
    result["shortcomings"] = shortcomings(result)
    result["passed"] = not result["shortcomings"]
    return result


def _asking(settings: Settings, depth: int, effort: Effort) -> Callable[[], list[Comparison]]:
    return lambda: at_depth(settings, depth, effort)


# ---------------------------------------------------------------- command line

FULL = {"model": "wrn-16-2", "image_size": 32, "batch_size": 32, "repeats": 16, "looks": 4}
QUICK = {"model": "resnet-8-4", "image_size": 8, "batch_size": 4, "repeats": 8, "looks": 1}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Exit status: 0 if every bar holds, 1 if one fails or is undecided.",
    )
    add = parser.add_argument
    add("--model", help=f"a network's name (default: {FULL['model']})")
    add("--image-size", type=_positive, help=f"pixels (default: {FULL['image_size']})")
    add("--channels", type=_positive, default=3, help="of an image (default: %(default)s)")
    add("--classes", type=_positive, default=10, help="number of them (default: %(default)s)")
    add("--batch-size", type=_positive, help=f"images (default: {FULL['batch_size']})")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=("fp32", "bf16"), default="fp32")
    add("--threads", type=_positive, default=1, help="of torch on the CPU (default: %(default)s)")
    add("--depths", default="all", help="'all', or numbers of frozen layers such as 0,3,7")
    add(
        "--repeats",
        type=_positive,
        help="rounds before the interval is first looked at; they double while it is undecided "
        f"(default: {FULL['repeats']})",
    )
    add("--looks", type=_positive, help=f"most looks (default: {FULL['looks']})")
    add(
        "--floor-groups",
        choices=("layer", "one"),
        default="layer",
        help="parameter groups of the floor's optimizer (default: %(default)s)",
    )
    add("--seed", type=int, default=0)
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="seconds that went by, or that the processor worked (default: %(default)s)",
    )
    add(
        "--out",
        type=Path,
        help="JSON file (default: results/step_cost-<device>.json beside this script; with "
        "--quick none)",
    )
    add("--quick", action="store_true", help="toy size: shows that it runs, measures nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    parser = arguments()
    given = parser.parse_args(argv)
    for name, value in (QUICK if given.quick else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings(
        model=given.model,
        image_size=given.image_size,
        channels=given.channels,
        classes=given.classes,
        batch_size=given.batch_size,
        device=device,
        precision=given.precision,
        floor_groups=given.floor_groups,
        seed=given.seed,
    )
    if device == "cuda" and given.clock == "cpu":
        parser.error("--clock cpu sees no work of a GPU. Leave it out, or choose --device cpu.")
    effort = Effort(given.repeats, given.looks, seed=given.seed, clock=given.clock)
    try:
        depths = parse_depths(given.depths, len(split_layers(settings.network())))
    except ValueError as error:
        parser.error(str(error))
    out: Path | None = given.out
    if out is None and not given.quick:
        out = RESULTS / f"step_cost-{device}.json"

    threads = torch.get_num_threads()
    torch.set_num_threads(given.threads)
    try:
        say(_heading(settings))
        result = measure(settings, effort, depths)
    finally:
        torch.set_num_threads(threads)
    say()
    for line in result["shortcomings"]:
        say(f"not met: {line}")
    say("Every bar holds." if result["passed"] else f"{len(result['shortcomings'])} not met.")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
        say(f"Written to {out}")
    return 0 if result["passed"] else 1


def parse_depths(text: str, num_layers: int) -> list[int]:
    """Numbers of frozen layers from ``"all"`` or a list with commas.

    Raises:
        ValueError: If a number is none, or is out of range.
    """
    if text == "all":
        return list(range(num_layers))
    wrong = (
        f"--depths must be 'all' or numbers from 0 to {num_layers - 1} with commas, got {text!r}. "
        "They count frozen layers; the last layer never freezes."
    )
    try:
        depths = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(wrong) from None
    if depths[0] < 0 or depths[-1] >= num_layers:
        raise ValueError(wrong)
    return depths


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _heading(settings: Settings) -> str:
    machine, software = hardware(settings.device), versions(settings.device)
    place = machine["gpu"] or f"{machine['threads']} thread(s) of {machine['cores']} cores"
    return (
        f"{settings.model}, batch {settings.batch_size} of {settings.channels} x "
        f"{settings.image_size} x {settings.image_size}, {settings.precision}, "
        f"{settings.device} ({machine['cpu']}, {place})\n"
        f"torch {software['torch']}, freezeout {software['freezeout']}, "
        f"Python {software['python']}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
