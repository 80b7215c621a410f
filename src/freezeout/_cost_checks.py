"""What `cost` demands of its arguments, and how it says so."""

from __future__ import annotations

import numbers
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from freezeout.distributed import is_sharded, wrappers_of
from freezeout.errors import CostError
from freezeout.layers import Layers, unwrap
from freezeout.tensors import tensors_in

__all__ = [
    "check_arguments",
    "check_freezable",
    "check_model",
    "check_number",
    "check_whole",
]


def check_whole(name: str, value: object, least: int | None, hint: str) -> None:
    """Raises unless `value` is a whole number of at least `least`; NumPy's are."""
    bound = "" if least is None else f" of at least {least}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number{bound}, got {value!r}. {hint}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be a whole number{bound}, got {value}. {hint}")


def check_number(name: str, value: object, hint: str) -> None:
    """Raises unless `value` is a real number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}. {hint}")


def check_arguments(
    model: object,
    example: object,
    loss: object,
    optimizer: object,
    autocast: object,
    rounds: object,
    progress: object,
) -> None:
    """Raises `TypeError` or `ValueError` for an argument that is none."""
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
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}. "
            "Pass the one that will train the model, or leave it out for SGD with momentum."
        )
    if isinstance(optimizer, LBFGS):
        raise TypeError(
            "a step of LBFGS cannot be measured: it runs the model several times itself, and "
            "FreezeOut cannot drive it. Pass another optimizer."
        )
    check_whole("rounds", rounds, 1, "Try 6.")
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
    """Raises where layers or optimizer are of another model, or it cannot be measured."""
    if layers.model is not unwrap(model):
        raise ValueError(
            f"layers were cut from another {type(layers.model).__name__} than the model. "
            "Cut the model that is measured: split_layers(model)."
        )
    if optimizer is not None and all(
        layers.index_of(p) is None for group in optimizer.param_groups for p in group["params"]
    ):
        raise ValueError(
            f"the optimizer holds no parameter of the {type(layers.model).__name__} given as "
            "model. Make it from this model's parameters."
        )
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
    """Raises `CostError` if no layer before the last has parameters that learn."""
    frozen = [layer for layer in layers[:-1] for _, p in layer.parameters if not p.requires_grad]
    learning = [layer for layer in layers[:-1] for _, p in layer.parameters if p.requires_grad]
    if not learning:
        why = "they require no gradient already" if frozen else "they have no parameters"
        raise CostError(
            f"nothing before the last layer ({layers[-1].name!r}) can freeze: {why}. Freezing "
            "saves nothing here. Cut the model otherwise (layers=...), or let more of it learn."
        )
