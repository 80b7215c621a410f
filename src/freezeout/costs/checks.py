"""Checks of what is to be measured."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.errors import CostError, check_whole
from freezeout.freezing import check_optimizer
from freezeout.layers import Layers, check_belongs, unwrap
from freezeout.tensors import tensors_in
from freezeout.wrappers import is_sharded, wrappers_of

__all__ = ["check_arguments", "check_freezable", "check_model"]


def check_arguments(
    model: object,
    example: object,
    loss: object,
    optimizer: object,
    autocast: object,
    rounds: object,
    progress: object,
) -> None:
    """Raise for an invalid argument of `measure_costs`."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}. "
            "Pass the model that will be trained."
        )
    wrapped = any(isinstance(m, nn.parallel.DistributedDataParallel) for m in model.modules())
    if wrapped or wrappers_of(unwrap(model)):
        raise CostError(
            "costs of a model in DistributedDataParallel cannot be measured, nor of the model "
            "inside while it is wrapped. Measure it before it is wrapped: the exchange of "
            "gradients is not in the costs."
        )
    if is_sharded(model):
        raise CostError(
            "costs of a model under fully_shard cannot be measured. Measure it before it is "
            "sharded: the exchange between processes is not in the costs."
        )
    empty = (
        isinstance(example, (str, Mapping, tuple, list)) and next(tensors_in(example), None) is None
    )
    if example is None or empty:
        raise ValueError(
            f"example must hold a batch as in training, got {example!r}. Pass one tensor, a tuple "
            "of positional or a dict of keyword arguments of the model."
        )
    if loss is not None and not callable(loss):
        raise TypeError(
            f"loss must be a callable from the model's output to a scalar, got {loss!r}. "
            "Pass for example loss=lambda output: cross_entropy(output, y)."
        )
    if optimizer is not None:
        hint = "Pass the one that will train the model, or leave it out for SGD with momentum."
        check_optimizer(optimizer, hint)
    check_whole("rounds", rounds, "Try 6.", least=1)
    if autocast is not None and not isinstance(autocast, torch.dtype):
        raise TypeError(
            f"autocast must be a torch.dtype such as torch.bfloat16, got {autocast!r}. Leave it "
            "out for full precision."
        )
    if progress is not None and not callable(progress):
        raise TypeError(
            f"progress must be a callable of the steps done and to do, got {progress!r}. Leave it "
            "out to hear nothing."
        )


def check_model(layers: Layers, model: nn.Module, optimizer: Optimizer | None) -> None:
    """Raise where layers or optimizer are of another model, or it cannot be measured."""
    check_belongs(layers, model, optimizer)
    if any(p.is_meta for p in layers.model.parameters()):
        raise CostError(
            f"parameters of {type(layers.model).__name__} are on the meta device and have no "
            "values. Give them some first: model.to_empty(device=...)."
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in layers.model.modules()):
        raise CostError(
            f"{type(layers.model).__name__} holds a scripted or traced module, which cannot be "
            "watched or put back. Measure the model before torch.jit.script."
        )


def check_freezable(layers: Layers) -> None:
    """Raise `CostError` if no layer before the last has parameters that learn."""
    frozen = [layer for layer in layers[:-1] for _, p in layer.parameters if not p.requires_grad]
    learning = [layer for layer in layers[:-1] for _, p in layer.parameters if p.requires_grad]
    if not learning:
        why = "they require no gradient already" if frozen else "they have no parameters"
        raise CostError(
            f"nothing before the last layer ({layers[-1].name!r}) can freeze: {why}. Freezing "
            "saves nothing here. Cut the model otherwise (layers=...), or let more of it learn."
        )
