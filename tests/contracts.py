"""What must hold for every optimizer: small networks, a table of optimizers, a list of contracts.

The table is compared with ``torch.optim`` by a test, so that an optimizer new there fails until it
is listed here. Every contract takes a `Case` and asserts.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer

from freezeout import FreezeOut, Schedule, reference, split_layers

STEPS = 12
"""Length of every run here. Three layers freeze at 4 and 8, four layers at 4, 7 and 10."""

SCHEDULE = Schedule(t0=0.3, spacing="linear", scale_cap=2.0)


class Block(nn.Module):
    """Convolution, normalisation, dropout: parameters, buffers and a use of random numbers."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(torch.relu(self.norm(self.conv(x))))


class ConvNet(nn.Module):
    """Four layers: three blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(2, 3), Block(3, 3), Block(3, 3))
        self.head = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


class SparseNet(nn.Module):
    """Three layers of embeddings with sparse gradients, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(7, 3, sparse=True)
        self.second = nn.Embedding(7, 3, sparse=True)
        self.third = nn.Embedding(7, 3, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.first(x) + self.second(x) * self.third(x)).mean(1)


def matrix_net() -> nn.Module:
    """Three layers whose parameters are all matrices."""
    return nn.Sequential(
        nn.Linear(6, 8, bias=False),
        nn.Tanh(),
        nn.Linear(8, 8, bias=False),
        nn.Tanh(),
        nn.Linear(8, 3, bias=False),
    )


NETS: dict[str, Callable[[], nn.Module]] = {
    "conv": ConvNet,
    "matrix": matrix_net,
    "sparse": SparseNet,
}


def make_net(kind: str = "conv", *, seed: int = 0) -> nn.Module:
    """A network with reproducible weights."""
    torch.manual_seed(seed)
    return NETS[kind]()


def make_batch(kind: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of step `n`; the same for every run."""
    g = torch.Generator().manual_seed(100 + n)
    if kind == "sparse":
        x = torch.randint(0, 7, (4, 5), generator=g)
    else:
        x = torch.randn((4, 2, 4, 4) if kind == "conv" else (4, 6), generator=g)
    return x, torch.randint(0, 3, (4,), generator=g)


def make_batches(
    kind: str = "conv", start: int = 0, stop: int = STEPS
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of the steps from `start` to `stop`.

    The random state is set before each, so that runs agree on dropout from any step on, but only if
    they draw alike within a step.
    """
    for n in range(start, stop):
        torch.manual_seed(500 + n)
        yield make_batch(kind, n)


def train(
    model: nn.Module,
    optimizer: Optimizer,
    schedulers: Sequence[Any] = (),
    *,
    kind: str = "conv",
    start: int = 0,
    stop: int = STEPS,
    set_to_none: bool = True,
    before_step: Callable[[], None] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """A plain loop. `after_step` is told the number of steps done."""
    for n, (x, y) in enumerate(make_batches(kind, start, stop), start):
        model.train()
        F.cross_entropy(model(x), y).backward()
        if before_step is not None:
            before_step()
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        for scheduler in schedulers:
            scheduler.step()
        if after_step is not None:
            after_step(n + 1)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor: zeros of either sign differ, and a NaN equals itself."""
    return tensor.detach().clone().reshape(-1).view(torch.uint8)


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    """The bytes of all parameters and buffers."""
    return {
        name: bits(tensor) for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """Names whose bytes differ; both must have the same names."""
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Fails, naming what differs."""
    names = differing(a, b)
    assert not names, f"these differ: {', '.join(names)}"


def modes(model: nn.Module) -> dict[str, bool]:
    """Training mode of every module."""
    return {name: module.training for name, module in model.named_modules()}


def flags(model: nn.Module) -> dict[str, bool]:
    """``requires_grad`` of every parameter."""
    return {name: p.requires_grad for name, p in model.named_parameters()}


def hooks(model: nn.Module) -> int:
    """Number of forward hooks in a model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@dataclass(frozen=True)
class Case:
    """One way of making an optimizer.

    Attributes:
        kind: The class.
        settings: Its arguments.
        net: The network it trains.
        zero_rate_stops: Whether parameters stand still while the rate is zero.
        name: Shown as the test's id.
    """

    kind: type[Optimizer]
    settings: dict[str, Any] = field(default_factory=dict)
    net: str = "conv"
    zero_rate_stops: bool = True

    @property
    def name(self) -> str:
        shown = (
            f"{k}={v.item():.3g}t" if isinstance(v, torch.Tensor) else f"{k}={v}"
            for k, v in self.settings.items()
            if k not in ("lr", "weight_decay") or isinstance(v, torch.Tensor)
        )
        return "-".join((self.kind.__name__, *shown))

    def model(self, *, seed: int = 0) -> nn.Module:
        return make_net(self.net, seed=seed)

    def make(self, model: nn.Module) -> Optimizer:
        return self.kind(model.parameters(), **copy.deepcopy(self.settings))

    def set_up(self, *, seed: int = 0, **settings: Any) -> tuple[nn.Module, Optimizer, FreezeOut]:
        model = self.model(seed=seed)
        optimizer = self.make(model)
        given = settings or {"schedule": SCHEDULE}
        return model, optimizer, FreezeOut(optimizer, model, STEPS, **given)


def _cases() -> list[Case]:
    o = torch.optim
    sgd = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    adam = {"lr": 0.01, "weight_decay": 0.1}
    cases = [
        Case(o.SGD, {"lr": 0.1}),
        Case(o.SGD, sgd | {"nesterov": True}),
        Case(o.SGD, sgd | {"dampening": 0.1, "foreach": True}),
        Case(o.SGD, sgd | {"fused": True}),
        Case(o.SGD, sgd | {"lr": torch.tensor(0.1)}),
        Case(o.Adam, adam),
        Case(o.Adam, adam | {"amsgrad": True, "foreach": True}),
        Case(o.Adam, adam | {"fused": True}),
        Case(o.Adam, adam | {"lr": torch.tensor(0.01)}),
        Case(o.AdamW, adam),
        Case(o.AdamW, adam | {"foreach": True}),
        Case(o.AdamW, adam | {"fused": True}),
        Case(o.AdamW, adam | {"lr": torch.tensor(0.01), "fused": True}),
        Case(o.Adadelta, {"lr": 1.0, "weight_decay": 0.01}),
        Case(o.Adadelta, {"lr": 1.0, "weight_decay": 0.01, "foreach": True}),
        Case(o.Adafactor, {"lr": 0.01, "weight_decay": 0.1}),
        Case(o.Adafactor, {"lr": 0.01, "weight_decay": 0.1, "foreach": True}),
        Case(o.Adagrad, {"lr": 0.05, "weight_decay": 0.01, "lr_decay": 0.1}),
        Case(o.Adagrad, {"lr": 0.05, "weight_decay": 0.01, "fused": True}),
        Case(o.Adamax, adam),
        Case(o.Adamax, adam | {"foreach": True}),
        Case(o.NAdam, adam),
        Case(o.NAdam, adam | {"decoupled_weight_decay": True, "foreach": True}),
        Case(o.RAdam, adam),
        Case(o.RAdam, adam | {"decoupled_weight_decay": True, "foreach": True}),
        Case(o.RMSprop, {"lr": 0.01, "weight_decay": 0.01, "momentum": 0.9, "centered": True}),
        Case(o.RMSprop, {"lr": 0.01, "weight_decay": 0.01, "momentum": 0.9, "foreach": True}),
        # Its step sizes are its own; the rate is only the size of the first.
        Case(o.Rprop, {"lr": 0.01}, zero_rate_stops=False),
        Case(o.Rprop, {"lr": 0.01, "foreach": True}, zero_rate_stops=False),
        # It steps at the rate of the step before.
        Case(o.ASGD, {"lr": 0.1, "weight_decay": 0.01, "t0": 1.0}, zero_rate_stops=False),
        Case(o.ASGD, {"lr": 0.1, "weight_decay": 0.01, "foreach": True}, zero_rate_stops=False),
        Case(o.SparseAdam, {"lr": 0.05}, "sparse"),
        Case(o.SparseAdam, {"lr": torch.tensor(0.05)}, "sparse"),
    ]
    if hasattr(o, "Muon"):
        cases += [
            Case(o.Muon, {"lr": 0.05, "weight_decay": 0.1, "momentum": 0.95}, "matrix"),
            Case(o.Muon, {"lr": 0.05, "weight_decay": 0.1, "nesterov": False}, "matrix"),
        ]
    return cases


CASES = _cases()

REFUSED: frozenset[str] = frozenset({"LBFGS"})
"""Optimizers that move parameters without a gradient."""


def frozen_bits_never_move(case: Case) -> None:
    model, optimizer, scheduler = case.set_up()
    kept: dict[int, dict[str, torch.Tensor]] = {}
    moved: list[bool] = []
    before = {}

    def look(n: int) -> None:
        for layer in scheduler.layers[: scheduler.frozen]:
            now = _layer_bits(model, layer.index, scheduler)
            assert_same(kept.setdefault(layer.index, now), now)
            assert all(p.grad is None and not p.requires_grad for _, p in layer.parameters)
        head = _layer_bits(model, len(scheduler.layers) - 1, scheduler)
        moved.append(n == 1 or bool(differing(before["head"], head)))
        before["head"] = head

    train(model, optimizer, [scheduler], kind=case.net, set_to_none=False, after_step=look)
    assert sorted(kept) == list(range(len(scheduler.layers) - 1))
    assert moved == [True] * STEPS


def state_of_frozen_layers_is_released(case: Case) -> None:
    model, optimizer, scheduler = case.set_up()
    held = []

    def look(n: int) -> None:
        of = [
            any(optimizer.state.get(p) for _, p in layer.parameters) for layer in scheduler.layers
        ]
        held.append(of)
        assert not any(of[: scheduler.frozen])
        assert of[scheduler.frozen :] == held[0][scheduler.frozen :]

    train(model, optimizer, [scheduler], kind=case.net, after_step=look)
    assert scheduler.frozen == len(scheduler.layers) - 1
    assert len(set(held[0])) == 1  # all layers hold state at first, or none ever does
    assert held[0][0] is bool(case.settings.keys() - {"lr"} or case.kind is not torch.optim.SGD)


def groups_never_change(case: Case) -> None:
    model, optimizer, scheduler = case.set_up()

    def members() -> list[tuple[int, list[str], list[int]]]:
        return [(id(g), sorted(g), [id(p) for p in g["params"]]) for g in optimizer.param_groups]

    first = members()
    assert [g["lr"] > 0 for g in optimizer.param_groups] == [True] * len(scheduler.layers)
    train(
        model,
        optimizer,
        [scheduler],
        kind=case.net,
        after_step=lambda n: _equal(members(), first),
    )
    assert [g["lr"] > 0 for g in optimizer.param_groups] == [False] * len(scheduler.layers)


def unfreezing_resumes_learning(case: Case) -> None:
    model, optimizer, scheduler = case.set_up()
    train(model, optimizer, [scheduler], kind=case.net, stop=9)
    deep = scheduler.frozen
    assert deep >= 2
    still = snapshot(model)
    scheduler.step(1)
    assert scheduler.frozen == 0
    assert_same(still, snapshot(model))
    train(model, optimizer, [scheduler], kind=case.net, start=1, stop=9)
    changed = differing(still, snapshot(model))
    for layer in scheduler.layers[:deep]:
        assert all(name in changed for name, _ in layer.parameters)
    assert scheduler.frozen == deep
    assert not any(
        optimizer.state.get(p) for la in scheduler.layers[:deep] for _, p in la.parameters
    )


def equals_the_reference(case: Case) -> None:
    model, optimizer, scheduler = case.set_up()
    train(model, optimizer, [scheduler], kind=case.net)

    twin = case.model()
    layers = split_layers(twin)
    steps = SCHEDULE.freeze_steps(len(layers), STEPS)
    done = [0]

    def before_step() -> None:
        for layer, freeze_step in zip(layers, steps, strict=True):
            if not case.zero_rate_stops and freeze_step is not None and done[0] >= freeze_step:
                for _, parameter in layer.parameters:
                    parameter.grad = None
        done[0] += 1

    reference.train(
        twin,
        case.make(twin),
        make_batches(case.net),
        F.cross_entropy,
        layers=layers,
        schedule=SCHEDULE,
        total_steps=STEPS,
        before_step=before_step,
    )
    assert_same(snapshot(model), snapshot(twin))
    changed = differing(snapshot(case.model()), snapshot(model))
    assert changed == list(snapshot(model))


def resume_is_bit_exact(case: Case) -> None:
    whole = case.set_up()
    train(*whole[:2], [whole[2]], kind=case.net)
    for cut in (0, 4, 9):
        parts = case.set_up()
        train(*parts[:2], [parts[2]], kind=case.net, stop=cut)
        file = io.BytesIO()
        torch.save([part.state_dict() for part in parts], file)
        file.seek(0)
        fresh = case.set_up(seed=1)
        assert differing(snapshot(fresh[0]), snapshot(parts[0])) != []
        for part, state in zip(fresh, torch.load(file, weights_only=True), strict=True):
            part.load_state_dict(state)
        assert fresh[2].frozen == parts[2].frozen
        assert fresh[2].get_last_lr() == parts[2].get_last_lr()
        train(*fresh[:2], [fresh[2]], kind=case.net, start=cut)
        assert_same(snapshot(fresh[0]), snapshot(whole[0]))
        _equal(_plain(fresh[1].state_dict()), _plain(whole[1].state_dict()))
        _equal(fresh[2].state_dict(), whole[2].state_dict())


def t0_of_one_is_plain_cosine(case: Case) -> None:
    model, optimizer, scheduler = case.set_up(t0=1.0)
    train(model, optimizer, [scheduler], kind=case.net)
    assert scheduler.frozen == 0
    twin = case.model()
    plain = case.make(twin)
    cosine = torch.optim.lr_scheduler.LambdaLR(plain, plain_cosine)
    train(twin, plain, [cosine], kind=case.net)
    assert_same(snapshot(model), snapshot(twin))


def plain_cosine(n: int) -> float:
    """The factor of cosine annealing over `STEPS` steps."""
    return 0.5 * (1 + math.cos(math.pi * (n / STEPS)))


def settings_survive_the_split(case: Case) -> None:
    model = case.model()
    optimizer = case.make(model)
    before = {k: v for k, v in optimizer.param_groups[0].items() if k not in ("params", "lr")}
    scheduler = FreezeOut(optimizer, model, STEPS)
    assert len(optimizer.param_groups) == len(scheduler.layers)
    assert [group["name"] for group in optimizer.param_groups] == list(scheduler.layers.names)
    for group in optimizer.param_groups:
        ours = ("params", "lr", "initial_lr", "name")
        _equal({k: v for k, v in group.items() if k not in ours}, before)
        assert group["initial_lr"] == case.settings["lr"]


CONTRACTS: list[Callable[[Case], None]] = [
    frozen_bits_never_move,
    state_of_frozen_layers_is_released,
    groups_never_change,
    unfreezing_resumes_learning,
    equals_the_reference,
    resume_is_bit_exact,
    t0_of_one_is_plain_cosine,
    settings_survive_the_split,
]


def _layer_bits(model: nn.Module, index: int, scheduler: FreezeOut) -> dict[str, torch.Tensor]:
    layer = scheduler.layers[index]
    inside = {id(m) for m in layer.modules}
    tensors: dict[str, torch.Tensor] = dict(layer.parameters)
    for name, module in model.named_modules():
        if id(module) in inside:
            tensors |= {f"{name}.{k}": b for k, b in module.named_buffers(recurse=False)}
    return {name: bits(t) for name, t in tensors.items()}


def _equal(a: object, b: object) -> None:
    assert a == b, f"{a!r} is not {b!r}"


def _plain(value: Any) -> Any:
    """Tensors as lists, so that nested states compare by value."""
    if isinstance(value, torch.Tensor):
        return bits(value).tolist()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
