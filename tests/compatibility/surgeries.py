"""What people do to a model that is being trained, between two freezes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.ao import quantization
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm
from torch.optim import Optimizer

from tests.compatibility.outcome import Outcome
from tests.contracts import Block

Do = Callable[[Any, Optimizer], None]


@dataclass(frozen=True)
class Surgery:
    """One change of a model, and what comes of it.

    Attributes:
        name: For the table.
        do: Changes the model in place; its first block is frozen, two and the head learn.
        outcome: See `outcome.MEANING`.
        words: Where told or refused: a part of what is said.
        note: What a user should know, for the table.
        freezes_late: Whether what comes into frozen layers freezes some updates later.
    """

    name: str
    do: Do
    outcome: Outcome = "works"
    words: str = ""
    note: str = ""
    freezes_late: bool = False

    def __post_init__(self) -> None:
        """Say it in the table."""
        if self.freezes_late:
            object.__setattr__(
                self, "note", "what is new in frozen layers freezes within a few updates"
            )


class Adapter(nn.Module):
    """A small trainable part beside a layer, as LoRA has it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


class PointwiseAdapter(nn.Module):
    """The same beside a convolution."""

    def __init__(self, base: nn.Conv2d) -> None:
        super().__init__()
        self.base = base
        self.beside = nn.Conv2d(base.in_channels, base.out_channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.beside(x)


def _convolutions(model: Any) -> list[nn.Conv2d]:
    return [module for module in model.modules() if type(module) is nn.Conv2d]


def sync_norms(model: Any, optimizer: Optimizer) -> None:
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


def subclass_norms(model: Any, optimizer: Optimizer) -> None:
    class Norm(nn.BatchNorm2d):
        pass

    for block in model.blocks:
        new = Norm(block.norm.num_features)
        new.__dict__.update(block.norm.__dict__ | {"_modules": {}})
        block.norm = new.train(model.training)


def prune_all(model: Any, optimizer: Optimizer) -> None:
    for module in _convolutions(model):
        prune.l1_unstructured(module, "weight", amount=0.3)


def prune_and_make_permanent(model: Any, optimizer: Optimizer) -> None:
    prune_all(model, optimizer)
    for module in _convolutions(model):
        prune.remove(module, "weight")


class _Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def right_inverse(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


def parametrize_all(model: Any, optimizer: Optimizer) -> None:
    for module in _convolutions(model):
        parametrize.register_parametrization(module, "weight", _Doubled())


def parametrize_and_remove(model: Any, optimizer: Optimizer) -> None:
    convolutions = _convolutions(model)
    parametrize_all(model, optimizer)
    for module in convolutions:
        parametrize.remove_parametrizations(module, "weight")


def spectral_norms(model: Any, optimizer: Optimizer) -> None:
    for module in _convolutions(model):
        parametrizations.spectral_norm(module)


def old_spectral_norms(model: Any, optimizer: Optimizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for module in _convolutions(model):
            old_spectral_norm(module)


def weight_norms(model: Any, optimizer: Optimizer) -> None:
    for module in _convolutions(model):
        parametrizations.weight_norm(module)


def old_weight_norms(model: Any, optimizer: Optimizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for module in _convolutions(model):
            old_weight_norm(module)


def prepare_for_quantization(model: Any, optimizer: Optimizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
        quantization.prepare_qat(model.train(), inplace=True)


def adapt_the_head(model: Any, optimizer: Optimizer) -> None:
    model.head = Adapter(model.head)


def adapt_all_convolutions(model: Any, optimizer: Optimizer) -> None:
    for block in model.blocks:
        block.conv = PointwiseAdapter(block.conv)


def adapt_with_a_group(model: Any, optimizer: Optimizer) -> None:
    model.head = Adapter(model.head)
    parameters = [*model.head.down.parameters(), *model.head.up.parameters()]
    optimizer.add_param_group({"params": parameters, "lr": 0.1})


def merge_an_adapter(model: Any, optimizer: Optimizer) -> None:
    base = model.head
    adapter = Adapter(base)
    with torch.no_grad():
        base.weight += adapter.up.weight @ adapter.down.weight
    model.head = adapter.base


def assign_a_state(model: Any, optimizer: Optimizer) -> None:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def load_a_state(model: Any, optimizer: Optimizer) -> None:
    model.load_state_dict({name: 0.5 * t for name, t in model.state_dict().items()})


def replace_the_head(model: Any, optimizer: Optimizer) -> None:
    model.head = nn.Linear(3, 3)


def replace_a_block(model: Any, optimizer: Optimizer) -> None:
    model.blocks[2] = Block(3, 3)


def replace_the_frozen_block(model: Any, optimizer: Optimizer) -> None:
    model.blocks[0] = Block(2, 3)


def remove_a_block(model: Any, optimizer: Optimizer) -> None:
    del model.blocks[2]


def remove_the_frozen_block(model: Any, optimizer: Optimizer) -> None:
    model.blocks[0] = nn.Conv2d(2, 3, 1).requires_grad_(False)


def add_a_block(model: Any, optimizer: Optimizer) -> None:
    model.blocks.append(Block(3, 3))


def to_double(model: Any, optimizer: Optimizer) -> None:
    optimizer.state.clear()  # it has the precision of before
    model.double()


def to_a_device(model: Any, optimizer: Optimizer) -> None:
    model.to("cpu")


def freeze_by_hand(model: Any, optimizer: Optimizer) -> None:
    model.blocks[1].conv.requires_grad_(False)


def thaw_by_hand(model: Any, optimizer: Optimizer) -> None:
    model.requires_grad_(True)


def wrap_in_a_sequence(model: Any, optimizer: Optimizer) -> None:
    model.blocks = nn.Sequential(*(nn.Sequential(block) for block in model.blocks))


def tie_two_blocks(model: Any, optimizer: Optimizer) -> None:
    model.blocks[1].conv.weight = model.blocks[2].conv.weight


def compile_the_blocks(model: Any, optimizer: Optimizer) -> None:
    for block in model.blocks:
        block.compile(backend="eager")


def leave_a_copy(model: Any, optimizer: Optimizer) -> None:
    model.teacher_of_this_run = [copy.deepcopy(model)]


_NOBODY = "no optimizer holds"
_MOVED = "frozen parameters or buffers moved"
_REPLACED = "was replaced in the model"
_LATER: Any = {"freezes_late": True}

SURGERIES = [
    Surgery("`SyncBatchNorm.convert_sync_batchnorm`", sync_norms, "told", _REPLACED, **_LATER),
    Surgery("norms replaced by those of a subclass", subclass_norms),
    Surgery("`prune`", prune_all),
    Surgery("`prune`, then `prune.remove`", prune_and_make_permanent, "told", _MOVED),
    Surgery("`parametrize.register_parametrization`", parametrize_all),
    Surgery("`parametrize.remove_parametrizations`", parametrize_and_remove),
    Surgery("`parametrizations.spectral_norm`", spectral_norms, **_LATER),
    Surgery("`spectral_norm`, the old one", old_spectral_norms),
    Surgery("`parametrizations.weight_norm`", weight_norms, "told", _NOBODY),
    Surgery("`weight_norm`, the old one", old_weight_norms, "told", _NOBODY),
    Surgery("`prepare_qat`", prepare_for_quantization, **_LATER),
    Surgery("LoRA added to the head", adapt_the_head, "told", _NOBODY),
    Surgery("LoRA added to every block", adapt_all_convolutions, "told", _NOBODY),
    Surgery(
        "LoRA added, with `add_param_group`",
        adapt_with_a_group,
        "refused",
        "then make a new optimizer and a new FreezeOut",
    ),
    Surgery("LoRA merged", merge_an_adapter),
    Surgery("`load_state_dict(assign=True)`", assign_a_state, "told", _NOBODY),
    Surgery("`load_state_dict`", load_a_state),
    Surgery("head replaced", replace_the_head, "told", _NOBODY),
    Surgery("block that learns replaced", replace_a_block, "told", _NOBODY),
    Surgery("frozen block replaced", replace_the_frozen_block, **_LATER),
    Surgery("block that learns removed", remove_a_block),
    Surgery("frozen block removed", remove_the_frozen_block),
    Surgery("block added", add_a_block, "told", _NOBODY),
    Surgery("another precision", to_double),
    Surgery("`to(device)`", to_a_device),
    Surgery("part frozen by hand", freeze_by_hand),
    Surgery(
        "all thawed by hand", thaw_by_hand, note="rates stay 0; the next freeze takes them too"
    ),
    Surgery("blocks wrapped", wrap_in_a_sequence),
    Surgery("weights tied", tie_two_blocks, "told", "it learns until its last user freezes"),
    Surgery("blocks compiled", compile_the_blocks),
    Surgery("a copy of the model kept in it", leave_a_copy),
]
