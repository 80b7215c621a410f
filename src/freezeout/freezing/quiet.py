"""Stop what changes a module in its forward pass, even in evaluation mode, while it is frozen.

One entry of a table for each kind. What was changed is kept in the module's ``__dict__``, so that
it can be undone in a copy or a loaded model too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["let_change", "stop_changes"]

_QUIET = "_freezeout_quiet"
"""In a module's ``__dict__``: per kind, what its `undo` needs."""


@dataclass(frozen=True)
class _Kind:
    """A kind of module that changes in its forward pass.

    Attributes:
        applies: Whether a module is of this kind, and would change.
        stop: Stop that, and return what `undo` needs.
        undo: Put it back.
    """

    applies: Callable[[Any], bool]
    stop: Callable[[Any], Any]
    undo: Callable[[Any, Any], None]


def stop_changes(module: nn.Module) -> None:
    """Keep a module's forward pass from changing it; do nothing if it does not.

    Args:
        module: The module alone, without those inside it.
    """
    for name, kind in _KINDS.items():
        if name not in module.__dict__.get(_QUIET, ()) and kind.applies(module):
            module.__dict__.setdefault(_QUIET, {})[name] = kind.stop(module)


def let_change(module: nn.Module) -> None:
    """Undo `stop_changes`.

    Args:
        module: The module alone, without those inside it.
    """
    for name, kept in module.__dict__.pop(_QUIET, {}).items():
        _KINDS[name].undo(module, kept)


def _renormalises(module: Any) -> bool:
    return isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None


def _renormalise(module: Any) -> float:
    """Shorten every row once, as looking it up would, and never again."""
    weight = module.weight.detach()
    rows = torch.arange(len(weight), device=weight.device)
    if not weight.is_meta:
        torch.embedding_renorm_(weight, rows, module.max_norm, module.norm_type)
    kept = float(module.max_norm)
    module.max_norm = None
    return kept


def _renormalise_again(module: Any, kept: float) -> None:
    if module.max_norm is None:
        module.max_norm = kept


def _drops_between_layers(module: Any) -> bool:
    return isinstance(module, nn.RNNBase) and module.dropout > 0


def _stop_dropping(module: Any) -> float:
    kept = float(module.dropout)
    module.dropout = 0.0
    return kept


def _drop_again(module: Any, kept: float) -> None:
    if module.dropout == 0.0:
        module.dropout = kept


def _is_fake_quantizer(module: Any) -> bool:
    return callable(getattr(module, "disable_observer", None)) and isinstance(
        module._buffers.get("observer_enabled"), torch.Tensor
    )


def _stop_observing(module: Any) -> torch.Tensor:
    kept: torch.Tensor = module.observer_enabled.clone()
    module.disable_observer()
    return kept


def _observe_again(module: Any, kept: torch.Tensor) -> None:
    module.observer_enabled.copy_(kept)


def _is_observer(module: Any) -> bool:
    quantization = sys.modules.get("torch.ao.quantization.observer")
    kind = getattr(quantization, "ObserverBase", None)
    return kind is not None and isinstance(module, kind)


class _Through:
    """Take the place of an observer's ``forward``, which records what it returns."""

    def __call__(self, x: Any) -> Any:
        return x


def _pass_through(module: Any) -> Any:
    kept = module.__dict__.get("forward")
    module.__dict__["forward"] = _Through()
    return kept


def _record_again(module: Any, kept: Any) -> None:
    if isinstance(module.__dict__.get("forward"), _Through):
        del module.__dict__["forward"]
        if kept is not None:
            module.__dict__["forward"] = kept


_KINDS = {
    "embeddings that renormalise": _Kind(_renormalises, _renormalise, _renormalise_again),
    "fake quantizers": _Kind(_is_fake_quantizer, _stop_observing, _observe_again),
    "observers": _Kind(_is_observer, _pass_through, _record_again),
    # Not a change in the module: without dropout its flag can stay up, as cuDNN wants it.
    "recurrent networks": _Kind(_drops_between_layers, _stop_dropping, _drop_again),
}
