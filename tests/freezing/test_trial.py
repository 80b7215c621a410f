"""Parts that return something else in evaluation mode, when they freeze."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import FreezeOut, Freezer, FrozenPrefixWarning, PrefixError, split_layers
from freezeout.freezing.hooks import Outside
from tests.contracts import differing, hooks, snapshot


class Stage(nn.Module):
    """Gives an auxiliary output beside its own while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.aux = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.drop = nn.Dropout()

    def forward(self, x: torch.Tensor) -> Any:
        h = self.drop(F.relu(self.norm(self.a(x))))
        return (h, self.aux(h)) if self.training else h


class Proposals(Stage):
    """Returns its losses by name, as a detector's proposal network does."""

    def forward(self, x: torch.Tensor) -> Any:
        h = self.drop(F.relu(self.norm(self.a(x))))
        losses = OrderedDict(aux=self.aux(h)) if self.training else OrderedDict()
        return h, losses


class Nothing(Stage):
    """Returns ``None`` where there is nothing to say."""

    def forward(self, x: torch.Tensor) -> Any:
        h = self.drop(F.relu(self.norm(self.a(x))))
        return [h, self.aux(h) if self.training else None]


class Gate(nn.Module):
    """A part without parts, which gives a loss beside its output."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))

    def forward(self, x: torch.Tensor) -> Any:
        return (x @ self.weight, self.weight.square().mean()) if self.training else x @ self.weight


class Around(nn.Module):
    """Holds a part that returns something else, and so does itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Stage()

    def forward(self, x: torch.Tensor) -> Any:
        found = self.inner(x)
        return found if isinstance(found, torch.Tensor) else (found[0], {"aux": found[1]})


class Net(nn.Module):
    """A stem, three stages and a head; it unpacks what its stages return."""

    def __init__(self, kind: type[nn.Module] = Stage) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(8, 8)
        self.stages = nn.ModuleList(kind() for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        total = 0.0
        for stage in self.stages:
            found = stage(x)
            if self.training:
                x, aux = found
                aux = next(iter(aux.values())) if isinstance(aux, dict) else aux
                total = total + aux.mean()
            else:
                x = found if isinstance(found, torch.Tensor) else found[0]
        return self.head(x) + total


KINDS = [Stage, Proposals, Nothing, Gate, Around]
NAMES = ["stem", "stages.*", "head"]


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_and_what_is_frozen_stands_still(kind: type[nn.Module]) -> None:
    model = Net(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings: dict[str, Any] = {"t0": 0.25, "spacing": "linear", "strict": True}
    scheduler = FreezeOut(optimizer, model, 20, layers=NAMES, **settings)
    for step in range(20):
        model.train()
        before, frozen = snapshot(model), scheduler.frozen
        model(torch.randn(8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        changed = differing(before, snapshot(model))
        parts = ["stem.", "stages.0.", "stages.1.", "stages.2.", "head."]
        still = tuple(parts[:frozen]) or ("-",)
        assert not [name for name in changed if name.startswith(still)]
        assert [name for name in changed if name.startswith(parts[frozen])]
        if step:
            assert scheduler.freezer.verified
        scheduler.step()
        assert sum(part.training for part in model.stages) <= 3
    assert scheduler.frozen >= 3
    assert [m.training for m in model.stages[0].modules() if "torch.nn" in type(m).__module__] == [
        False for m in model.stages[0].modules() if "torch.nn" in type(m).__module__
    ]


def frozen_net(kind: type[nn.Module], depth: int = 2, **options: Any) -> tuple[Any, Freezer]:
    model = Net(kind).train()
    freezer = Freezer(split_layers(model, layers=NAMES), **options)
    freezer.set_depth(depth)
    return model, freezer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [True, False])
def test_the_flag_is_kept_in_copies_and_through_every_mode(
    known: bool, kind: type[nn.Module]
) -> None:
    model, freezer = frozen_net(kind, 0, strict=True)
    if known:
        freezer.look_ahead()
        model(torch.randn(4, 8))
    freezer.set_depth(2)
    model(torch.randn(4, 8)).sum().backward()
    assert freezer.verified
    assert hooks(model) == 0
    part = model.stages[0].inner if kind is Around else model.stages[0]
    assert part.training
    x = torch.randn(4, 8)
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        part = each.stages[0].inner if kind is Around else each.stages[0]
        each.eval()
        assert not part.training
        assert isinstance(part(x), torch.Tensor) or kind in (Proposals, Nothing)
        each.train()
        assert part.training
        assert not any(m.training for m in part.children())
    freezer.unfreeze()
    assert all(m.training for m in model.modules())
    freezer.set_depth(2)  # known from the first time
    assert [stage.training for stage in model.stages] == [kind is not Around, True, True]


@pytest.mark.parametrize("kind", [Stage, Proposals])
def test_a_pass_to_evaluate_right_after_a_freeze_decides_nothing(kind: type[nn.Module]) -> None:
    model, _ = frozen_net(kind)
    with torch.no_grad():
        model.eval()(torch.randn(4, 8))
    model.train()
    assert not model.stages[0].training
    model(torch.randn(4, 8)).sum().backward()
    assert model.stages[0].training


def test_a_model_that_is_called_part_by_part() -> None:
    model, freezer = frozen_net(Stage, strict=True)
    for _ in range(2):
        x = model.stem(torch.randn(4, 8))
        for stage in model.stages:
            x, _ = stage(x)
        model.head(x).sum().backward()
    assert freezer.verified
    assert [stage.training for stage in model.stages] == [True, True, True]
    assert not model.stages[0].norm.training


def beside(module: Any, h: torch.Tensor) -> Any:
    return (h, module.aux(h)) if module.training else h


class Elsewhere(nn.Module):
    """Has its mode read by a function outside of its class."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.aux = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return beside(self, self.norm(self.a(x)))


def test_a_part_of_which_only_the_first_pass_tells() -> None:
    model, freezer = frozen_net(Elsewhere, 0, strict=True)
    freezer.look_ahead()
    model(torch.randn(4, 8))
    freezer.set_depth(2)
    model(torch.randn(4, 8)).sum().backward()
    assert freezer.verified
    assert model.stages[0].training
    assert not model.stages[0].norm.training


def test_a_run_on_the_side_is_no_pass_over_the_model() -> None:
    model = nn.ModuleList([Stage(), nn.Linear(8, 8), nn.Linear(8, 2)]).train()
    freezer = Freezer(split_layers(model, layers=["0", "1", "2"]), strict=True)
    freezer.set_depth(2)
    model[0](torch.randn(4, 8))
    assert not freezer.verified
    with pytest.raises(PrefixError, match="that itself requires a gradient"):
        model[1](torch.randn(4, 8, requires_grad=True))


class Plain(Stage):
    """Reads its mode, but returns the same in both."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.norm(self.a(x)), 0.5, self.training)


class Lists(Plain):
    """Returns as many items as the batch has rows; its class reads the mode."""

    def forward(self, x: torch.Tensor) -> Any:
        rows = list(super().forward(x))
        return tuple(rows)


@pytest.mark.parametrize("kind", [Plain, Lists])
@pytest.mark.parametrize("known", [True, False])
def test_others_are_in_evaluation_mode_and_a_trial_leaves_no_trace(
    known: bool, kind: type[nn.Module]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), kind()).train()
    head = nn.Linear(8, 2)
    whole = nn.ModuleList([model, head])
    freezer = Freezer(split_layers(whole, layers=["0.0", "0.1", "1"]))
    if known:
        freezer.look_ahead()
        model(torch.randn(3, 8))
    freezer.set_depth(2)
    before = snapshot(whole)
    random = torch.get_rng_state()
    with torch.no_grad():
        found = model(torch.ones(5, 8))
        again = model(torch.ones(5, 8))
    assert torch.equal(torch.get_rng_state(), random)
    assert differing(before, snapshot(whole)) == []
    assert all(map(torch.equal, found, again))
    assert not model[1].training


class Memory:
    """What a part adds to in every pass, and cannot be added to twice."""

    def __init__(self, rows: list[torch.Tensor]) -> None:
        self.rows = rows

    def add(self, row: torch.Tensor) -> None:
        if self.rows:
            raise IndexError("full")
        self.rows.append(row)


class Remembers(nn.Module):
    """Takes an object that it changes; its class reads the mode."""

    def __init__(self, data: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.data = data

    def forward(self, x: torch.Tensor, memory: Memory) -> Any:
        memory.add(x)
        h = F.dropout(self.linear(x), 0.5, self.training)
        return (h, h) if self.data and len(x) > 4 else h


def remembering(data: bool) -> tuple[Any, Freezer]:
    torch.manual_seed(0)
    model = nn.ModuleList([Remembers(data), nn.Linear(8, 8), nn.Linear(8, 2)])
    return model.train(), Freezer(split_layers(model, layers=["0", "1", "2"]))


def test_inputs_that_do_not_bear_a_second_run_are_left_alone() -> None:
    model, freezer = remembering(data=False)
    freezer.set_depth(1)
    memory = Memory([])
    model[0](torch.randn(4, 8), memory)
    assert len(memory.rows) == 1
    assert not model[0].training


def test_another_structure_that_cannot_be_explained_is_said() -> None:
    model, freezer = remembering(data=True)
    freezer._outlines.note(model[0], torch.ones(2, 8))
    freezer.set_depth(1)
    with pytest.warns(FrozenPrefixWarning, match=r"Remembers is frozen.* is not known \(full\)"):
        model[0](torch.randn(8, 8), Memory([]))
    assert not model[0].training


@dataclasses.dataclass
class Images:
    """An object of a detector's, which holds tensors."""

    rows: torch.Tensor


class Detector(Stage):
    """Takes an object, and changes what is in it."""

    def forward(self, images: Any) -> Any:
        if not isinstance(images, Images):
            return super().forward(images)
        kept = images.rows
        images.rows = kept + 1
        return super().forward(kept)


def test_objects_with_tensors_are_copied_for_the_run_on_the_side() -> None:
    model = nn.ModuleList([Detector(), nn.Linear(8, 8), nn.Linear(8, 2)]).train()
    freezer = Freezer(split_layers(model, layers=["0", "1", "2"]))
    freezer.set_depth(1)
    images = Images(torch.ones(4, 8))
    assert isinstance(model[0](images), tuple)
    assert model[0].training


class Inner(nn.Linear):
    """Says by its mode what the part around it returns."""


class Reads(nn.Module):
    """Returns something else by the mode of what is inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Inner(8, 8)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.linear(x)
        return (h, h.mean()) if self.linear.training else h


class Counts(Stage):
    """Changes a buffer of its own in training mode, and returns something else."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            self.seen += 1
        return super().forward(x)


class InPlace(Stage):
    """Changes its input, and returns something else."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x.mul_(2) if not x.requires_grad else x)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Counts, "also changes its buffer 'seen' in training mode"),
        (InPlace, "changes its input in place"),
        (Reads, "takes the mode of what is inside it"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(kind: type[nn.Module], why: str) -> None:
    model, freezer = frozen_net(kind, 0)
    freezer.look_ahead()
    model(torch.randn(4, 8))
    freezer.set_depth(2)
    with pytest.raises(PrefixError, match=f"{kind.__name__} is frozen, and returns .* {why}"):
        model(torch.randn(4, 8))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of PyTorch, compiling
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_part_that_is_compiled_by_itself(wrapped: bool) -> None:
    model = Net(Stage)
    for i, stage in enumerate(model.stages):
        if wrapped:
            model.stages[i] = torch.compile(stage, backend="eager")
        else:
            stage.compile(backend="eager")
    freezer = Freezer(split_layers(model, layers=["stem", "stages.*", "head"]), strict=True)
    freezer.look_ahead()
    model(torch.randn(4, 8)).sum().backward()
    freezer.set_depth(2)
    for _ in range(2):
        model.train()(torch.randn(4, 8)).sum().backward()
    assert freezer.verified
    assert hooks(model) == 0
    calls = [vars(stage).get("_compiled_call_impl") for stage in model.stages]
    assert not any(isinstance(call, Outside) for call in calls)
    inner: Callable[[Any], Any] = lambda m: m._orig_mod if wrapped else m  # noqa: E731
    assert inner(model.stages[0]).training
    assert not inner(model.stages[0]).norm.training
