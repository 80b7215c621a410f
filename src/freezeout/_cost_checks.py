"""What `cost` demands of its arguments, and how it says so."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from freezeout.errors import CostError
from freezeout.layers import Layers, unwrap
from freezeout.tensors import tensors_in

__all__ = ["check_arguments", "check_model"]


def check_arguments(
    model: object, example: object, loss: object, optimizer: object, rounds: object
) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}. "
            "Pass the model that will be trained."
        )
    if any(isinstance(m, nn.parallel.DistributedDataParallel) for m in model.modules()):
        raise CostError(
            "costs of a model in DistributedDataParallel cannot be measured. Measure the model "
            "inside, before it is wrapped: the exchange of gradients is not in the costs."
        )
    if next(tensors_in(example), None) is None:
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
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise ValueError(f"rounds must be a whole number of at least 1, got {rounds!r}. Try 6.")


def check_model(layers: Layers, model: nn.Module, optimizer: Optimizer | None) -> None:
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
    frozen = [layer for layer in layers[:-1] for _, p in layer.parameters if not p.requires_grad]
    learning = [layer for layer in layers[:-1] for _, p in layer.parameters if p.requires_grad]
    if not learning:
        why = "they require no gradient already" if frozen else "they have no parameters"
        raise CostError(
            f"nothing before the last layer ({layers[-1].name!r}) can freeze: {why}. Freezing "
            "saves nothing here. Cut the model otherwise (layers=...), or let more of it learn."
        )
