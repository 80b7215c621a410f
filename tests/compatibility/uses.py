"""What people do with a model that is partly frozen, without changing it."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, update_bn

import freezeout
from tests.compatibility.outcome import Outcome
from tests.contracts import assert_same, bits, make_net, snapshot

Do = Callable[[nn.Module, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class Use:
    """One use of a model whose first block is frozen, and what comes of it.

    Attributes:
        name: For the table.
        do: Uses the model, its input and target, and asserts.
        outcome: See `outcome.MEANING`.
        words: Where told or refused: a part of what is said.
        note: What a user should know, for the table.
    """

    name: str
    do: Do
    outcome: Outcome = "works"
    words: str = ""
    note: str = ""


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def _is_a_frozen_copy(model: nn.Module, twin: nn.Module) -> None:
    """It is frozen as the model is, and can be thawed by itself."""
    assert _frozen(twin) == _frozen(model) != set()
    assert_same(snapshot(twin), snapshot(model))
    twin.train()
    assert [m.training for m in twin.modules()] == [m.training for m in model.modules()]
    freezeout.unfreeze(twin)
    twin.train()
    assert all(m.training for m in twin.modules())
    assert _frozen(twin) == set()
    assert _frozen(model) != set()


def deep_copy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    _is_a_frozen_copy(model, copy.deepcopy(model))


def pickled(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    _is_a_frozen_copy(model, pickle.loads(pickle.dumps(model)))


def saved_whole(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    _is_a_frozen_copy(model, torch.load(file, weights_only=False))


def saved_state(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = make_net(seed=1)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert_same(snapshot(fresh), snapshot(model))
    assert _frozen(fresh) == set()


def _gives_the_same(model: nn.Module, other: Callable[..., Any], x: torch.Tensor) -> None:
    """In evaluation mode, where nothing is drawn."""
    expected = model.eval()(x)
    torch.testing.assert_close(other(x), expected)
    model.train()


def scripted(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        _gives_the_same(model, torch.jit.script(model.eval()), x)
    model.train()


def traced(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        _gives_the_same(model, torch.jit.trace(model.eval(), x), x)
    model.train()


def exported(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    _gives_the_same(model, torch.export.export(model.eval(), (x,)).module(), x)
    model.train()


def symbolically_traced(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    _gives_the_same(model, fx.symbolic_trace(model.eval()), x)
    model.train()


def compiled(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    _gives_the_same(model, torch.compile(model, backend="eager"), x)


def functional(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    model.eval()
    doubled = {name: 2 * p.detach() for name, p in model.named_parameters()}
    expected = functional_call(model, doubled, (x,))
    assert not torch.equal(expected, model(x))
    model.train()


def _loss(model: nn.Module) -> Callable[..., torch.Tensor]:
    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    return loss


def gradients_per_sample(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    learning = {name: p.detach() for name, p in model.eval().named_parameters() if p.requires_grad}
    each = vmap(grad(_loss(model)), in_dims=(None, 0, 0))(learning, x, y)
    F.cross_entropy(model(x), y).backward()
    for name, p in model.named_parameters():
        assert (p.grad is None) is (name not in each)
        if p.grad is not None:
            torch.testing.assert_close(each[name].mean(0), p.grad)
    model.zero_grad()
    model.train()


def accumulated(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    model.eval()
    F.cross_entropy(model(x), y).backward()
    whole = [p.grad for p in model.parameters()]
    model.zero_grad()
    for part, target in zip(x.chunk(2), y.chunk(2), strict=True):
        (F.cross_entropy(model(part), target) / 2).backward()
    for p, expected in zip(model.parameters(), whole, strict=True):
        assert (p.grad is None) is (expected is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, expected)
    model.zero_grad()
    model.train()


def clipped(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    model.eval()  # the statistics of what learns are to be as without this pass
    F.cross_entropy(model(x), y).backward()
    clip_grad_norm_(model.parameters(), 1e-3)
    held = [p.grad for p in model.parameters() if p.grad is not None]
    assert torch.cat([g.flatten() for g in held]).norm() <= 1.01e-3
    assert len(held) == sum(p.requires_grad for p in model.parameters())
    model.zero_grad()
    model.train()


def averaged(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    average = AveragedModel(model)
    average.update_parameters(model)
    frozen = _frozen(model)
    for (name, p), (_, q) in zip(
        model.named_parameters(), average.module.named_parameters(), strict=True
    ):
        assert torch.equal(bits(p), bits(q)), name
    freezeout.unfreeze(average)
    average.train()
    update_bn([x, x], average)
    assert _frozen(model) == frozen
    assert all(not m.training for m in model.blocks[0].modules())  # type: ignore[index, operator, union-attr]


def data_parallel(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    F.cross_entropy(nn.DataParallel(model.eval())(x), y).backward()
    for p in model.parameters():
        assert (p.grad is not None) is p.requires_grad
    model.zero_grad()
    model.train()


def moved(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    model.to(torch.device("cpu"), memory_format=torch.channels_last)
    model.to(memory_format=torch.contiguous_format)


USES = [
    Use("`copy.deepcopy`", deep_copy),
    Use("`pickle`", pickled, note="freezeout must be installed where it is loaded"),
    Use(
        "`torch.save` of the model",
        saved_whole,
        note="freezeout must be installed where it is loaded",
    ),
    Use("`state_dict`, loaded with `weights_only=True`", saved_state),
    Use("`torch.jit.script`", scripted),
    Use("`torch.jit.trace`", traced),
    Use("`torch.export.export`", exported),
    Use("`torch.fx.symbolic_trace`", symbolically_traced),
    Use("`torch.compile` for evaluation", compiled),
    Use("`torch.func.functional_call`", functional),
    Use("`torch.func.vmap` of `grad`: gradients per sample", gradients_per_sample),
    Use("gradient accumulation", accumulated),
    Use("gradient clipping by the norm", clipped, note="the norm has fewer gradients in it"),
    Use("`AveragedModel`, `update_bn`", averaged, note="`unfreeze` the average before `update_bn`"),
    Use("`nn.DataParallel`", data_parallel, note="on a CPU alone, where it only passes on"),
    Use("`to(device)`, `to(memory_format=...)`", moved),
]
