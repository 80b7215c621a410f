"""What must hold for every optimizer that works or is told about; see `rows.Row`."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from freezeout import FreezeOut, Schedule, split_layers
from freezeout.reference import RateOnly
from freezeout.schedule import Anneal
from tests.compatibility.rows import Row
from tests.compatibility.small_run import FREEZES, STEPS, what_is_said
from tests.contracts import bits


class Watch:
    """Look at a model after each update: what is frozen stands still, what learns moves."""

    def __init__(self, optimizer: Any, scheduler: FreezeOut, *, keeps_state: bool = False) -> None:
        self._states = [] if keeps_state else states_of(optimizer)
        self._scheduler = scheduler
        self._frozen: dict[str, torch.Tensor] = {}
        self._since: dict[str, torch.Tensor] = self._tensors(0)
        self._depth = 0
        self.depths: list[int] = []

    def __call__(self, done: int) -> None:
        depth = self._scheduler.frozen
        self.depths.append(depth)
        if depth != self._depth:
            self._active_have_moved(self._depth, done)
            self._depth = depth
            self._since = self._tensors(depth)
        for layer in self._scheduler.layers[:depth]:
            for name, p in layer.parameters:
                assert p.grad is None, f"{name} is frozen and has a gradient after {done} updates"
                assert not p.requires_grad, f"{name} is frozen and requires a gradient"
                for state in self._states:
                    assert not state.get(p), f"{name} is frozen and has state: {state[p]}"
                still = self._frozen.setdefault(name, bits(p))
                assert torch.equal(still, bits(p)), f"{name} is frozen and moved, update {done}"

    def end(self, done: int) -> None:
        """What learned to the end moved to the end, and everything froze that may."""
        self._active_have_moved(self._depth, done)
        assert sorted(set(self.depths)) == list(range(len(self._scheduler.layers)))

    def _tensors(self, depth: int) -> dict[str, torch.Tensor]:
        active = self._scheduler.layers[depth:]
        return {name: bits(p) for layer in active for name, p in layer.parameters}

    def _active_have_moved(self, depth: int, done: int) -> None:
        now = self._tensors(depth)
        stuck = [name for name, was in self._since.items() if torch.equal(was, now[name])]
        assert not stuck, f"{', '.join(stuck)} did not move from the last freeze to update {done}"


def states_of(optimizer: Any) -> list[Any]:
    """The state of an optimizer and of those that it holds."""
    found, queue = [], [optimizer]
    while queue:
        one = queue.pop()
        if hasattr(one, "state"):
            found.append(one.state)
        names = ("optimizer", "base_optimizer", "original_optimizer")
        queue += [getattr(one, name) for name in names if hasattr(one, name)]
    return found


def frozen_stand_still_and_the_others_learn(row: Row) -> None:
    """The run of a row, annealed and at a constant rate; what is said is as the row says."""
    for anneal in row.anneals:
        with what_is_said() as said:
            run = row.set_up(anneal=anneal)
            watch = Watch(*run[1:], keeps_state=row.keeps_state)
            row.train(run, look=watch)
            watch.end(STEPS)
        if row.outcome == "told":
            assert any(row.words in line for line in said), f"{row.words!r} is not in {said}"
        said = [line for line in said if row.outcome != "told" or row.words not in line]
        assert said == [], f"anneal={anneal}"


def ends_as_its_twin_in_which_nothing_freezes(row: Row) -> None:
    """As at the same rates, or else as one without the gradients of layers that are done."""
    with what_is_said():
        frozen = row.set_up()
        row.train(frozen)
        if row.anneals[0] is not None:
            at_rates = row.set_up(RateOnly)
            row.train(at_rates)
            same = difference(frozen[0], at_rates[0]) < 1e-5
            assert same is (row.twin == "rates"), f"{difference(frozen[0], at_rates[0]):.1e} apart"
        if row.twin == "no gradients":
            without = row.bare()
            twin = Unfrozen(*without, row.anneals[0])
            row.train((*without, twin))
            assert difference(frozen[0], without[0]) < 1e-5


class Unfrozen:
    """Rates as `RateOnly` sets them, if any; gradients of layers that are done go as they come."""

    def __init__(self, model: nn.Module, optimizer: Any, anneal: Anneal | None) -> None:
        settings = Schedule(t0=FREEZES["t0"], spacing=FREEZES["spacing"])
        self._layers = split_layers(model)
        self._due = settings.freeze_steps(len(self._layers), STEPS)
        self._rates = None
        if anneal is not None:
            self._rates = RateOnly(optimizer, model, STEPS, anneal=anneal, **FREEZES)
        self._done = 0
        self._steps = 0

    def step(self, *given: int) -> None:
        self._steps += 1
        if self._rates is not None:
            self._rates.step(*given)
        depth = sum(due is not None and due <= self._steps for due in self._due)
        for layer in self._layers[self._done : depth]:
            for _, p in layer.parameters:
                p.grad = None
                p.register_post_accumulate_grad_hook(_drop)
        self._done = depth


def _drop(parameter: torch.Tensor) -> None:
    parameter.grad = None


def resumes_as_it_was(row: Row) -> None:
    """Saved with one layer frozen and loaded into fresh objects, it goes on as uninterrupted."""
    with what_is_said():
        whole = row.set_up()
        row.train(whole, stop=13)
        saved = io.BytesIO()
        torch.save([part.state_dict() for part in whole], saved)
        row.train(whole, start=13)
        saved.seek(0)
        states = torch.load(saved, weights_only=False)
        if row.resume_differs:
            assert not _resumes(row, states, whole[0]), "it does resume exactly"
            return
        fresh = _resumed(row, states)
    assert difference(whole[0], fresh) == 0


def _resumed(row: Row, states: list[Any]) -> nn.Module:
    fresh = row.set_up(seed=1)
    for part, state in zip(fresh, states, strict=True):
        part.load_state_dict(state)
    assert fresh[2].frozen == 1
    row.train(fresh, start=13)
    return fresh[0]


def _resumes(row: Row, states: list[Any], expected: nn.Module) -> bool:
    try:
        return difference(expected, _resumed(row, states)) == 0
    except (KeyError, ValueError):  # of an optimizer that refuses a state without frozen layers
        return False


def difference(a: nn.Module, b: nn.Module) -> float:
    """The largest difference between the parameters of two models."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


CONTRACTS = (
    frozen_stand_still_and_the_others_learn,
    ends_as_its_twin_in_which_nothing_freezes,
    resumes_as_it_was,
)
