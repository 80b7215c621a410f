"""Every surgery of the table: what is frozen stands still, what is held and learns moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import freezeout
from freezeout import FreezeOut
from tests.compatibility.small_run import what_is_said
from tests.compatibility.surgeries import SURGERIES, Surgery
from tests.contracts import SCHEDULE, STEPS, bits, make_net, train

AT = 5
"""After so many updates it is done; blocks freeze after 4, 7 and 10."""

LATE = 6
"""Updates after which what has come into a frozen block is found: two after the freeze."""


class Live:
    """Look at the blocks of the model as it is now, whatever has been done to it."""

    def __init__(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        scheduler: FreezeOut,
        start: int = 0,
    ) -> None:
        self.model, self.scheduler = model, scheduler
        self._start = start
        self._held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._still: dict[str, torch.Tensor] = {}
        self._since = self._learning()
        self.held = len(self._since)

    def __call__(self, done: int) -> None:
        if self.scheduler.last_epoch < self._start:
            return
        now = {}
        learning = {id(p) for part in self._parts() for p in part.parameters()}
        for index, block in enumerate(self.model.blocks[: self.scheduler.frozen]):
            for name, t in (*block.named_parameters(), *block.named_buffers()):
                if id(t) not in learning:  # a tied weight belongs to its last user
                    now[f"blocks.{index}.{name}"] = bits(t)
        for name, tensor in now.items():
            before = self._still.setdefault(name, tensor)
            assert torch.equal(before, tensor), f"{name} is frozen and moved in update {done}"

    def end(self) -> None:
        """What the optimizer held and what learned when the surgery was done has moved."""
        now = dict(self.model.named_parameters())
        stuck = [name for name, was in self._since.items() if torch.equal(was, bits(now[name]))]
        assert not stuck, f"{', '.join(stuck)} never moved"

    def _parts(self) -> list[nn.Module]:
        return [*self.model.blocks[self.scheduler.frozen :], self.model.head]

    def _learning(self) -> dict[str, torch.Tensor]:
        inside = {id(p) for part in self._parts() for p in part.parameters()}
        return {
            name: bits(p)
            for name, p in self.model.named_parameters()
            if id(p) in inside and id(p) in self._held and p.requires_grad
        }


@pytest.mark.parametrize("surgery", SURGERIES, ids=lambda surgery: surgery.name)
def test_surgery_between_two_freezes(surgery: Surgery) -> None:
    model: Any = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    scheduler = FreezeOut(optimizer, model, STEPS, schedule=SCHEDULE)
    train(model, optimizer, [scheduler], stop=AT)
    assert scheduler.frozen == 1
    with what_is_said() as said:
        torch.manual_seed(0)
        surgery.do(model, optimizer)
        model.train()
        live = Live(model, optimizer, scheduler, LATE if surgery.freezes_late else 0)
        if surgery.outcome == "refused":
            with pytest.raises((ValueError, freezeout.FreezeOutError), match=surgery.words):
                finish(model, optimizer, scheduler)
            return
        finish(model, optimizer, scheduler, live)
        live.end()
    if surgery.outcome == "told":
        assert any(surgery.words in line for line in said), f"{surgery.words!r} is not in {said}"
    else:
        assert said == []
        assert live.held
    freezeout.unfreeze(model)
    by_hand = {"part frozen by hand": "blocks.1.conv", "frozen block removed": "blocks.0"}
    mine = by_hand.get(surgery.name, "-")
    for name, p in model.named_parameters():
        assert p.requires_grad is not name.startswith(mine), name
    model.eval()
    model.train()
    assert all(module.training for module in model.modules())


def finish(model: Any, optimizer: Any, scheduler: Any, look: Any = None) -> None:
    """The rest of the run, in whatever precision the model has now."""
    dtype = next(model.parameters()).dtype
    handle = model.register_forward_pre_hook(lambda _, args: tuple(a.to(dtype) for a in args))
    train(model, optimizer, [scheduler], start=AT, after_step=look)
    handle.remove()
