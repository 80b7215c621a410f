"""What a module is, told by what it holds and never by the name of its class."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from freezeout.layers.members import parameters_in

__all__ = ["CONTAINERS", "children", "is_block", "is_companion", "is_map", "is_norm", "size"]

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Modules that only hold others; nothing is lost by opening them."""

_MAPS = (nn.Linear, _ConvNd, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.Embedding)
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_STATISTICS = ("running_mean", "running_var")


def children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return name and module of each child, shared ones every time, without parametrizations."""
    return [
        (name, child)
        for name, child in module._modules.items()
        if child is not None and not (name == "parametrizations" and is_parametrized(module))
    ]


def size(module: nn.Module) -> int:
    """Return the number of scalars in its parameters."""
    return sum(p.numel() for p in parameters_in(module))


def is_map(module: nn.Module) -> bool:
    """Return whether it is a bare linear map or convolution."""
    return isinstance(module, (nn.Linear, _ConvNd)) and not children(module)


def is_norm(module: nn.Module) -> bool:
    """Return whether it is one of torch's norms, with anything in it, or a PReLU."""
    return isinstance(module, (*_NORMS, nn.PReLU)) and any(True for _ in _state(module))


def is_companion(module: nn.Module) -> bool:
    """Return whether a module only adjusts, channel by channel, what another one gives.

    Such are norms (also with their activation inside), a scale for each channel, a PReLU: what they
    learn are vectors. A module without parameters is one if it keeps the statistics of a norm. One
    that has a matrix is a map, whatever it is called.
    """
    if isinstance(module, (*CONTAINERS, *_MAPS)):
        return False  # also where a wrapper keeps the matrix of a linear map as a flat vector
    if isinstance(module, _NORMS):
        return is_norm(module)
    parameters = list(parameters_in(module))
    if parameters:
        return all(_is_vector(p) for p in parameters)
    return any(name.rpartition(".")[2] in _STATISTICS for name, _ in module.named_buffers())


def is_block(module: nn.Module) -> bool:
    """Return whether a module is more than one convolution or linear map with its norm."""
    if not children(module):
        return False
    inside = list(_with_parameters(module))
    weights = [m for m in inside if not is_companion(m)]
    starts_with_norm = bool(inside) and is_companion(inside[0])
    return len(weights) > 1 or (len(weights) == 1 and starts_with_norm)


def _with_parameters(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules inside that have parameters of their own; a norm is not looked into."""
    if is_parametrized(module) or any(p is not None for p in module._parameters.values()):
        yield module
    for _, child in children(module):
        if is_companion(child):
            yield child
        else:
            yield from _with_parameters(child)


def _is_vector(parameter: nn.Parameter) -> bool:
    """Return whether it has one number for each channel; a map to one channel has two sizes."""
    shape = parameter.shape
    return len(shape) <= 1 or (len(shape) > 2 and parameter.numel() == max(shape))


def _state(module: nn.Module) -> Iterator[object]:
    yield from parameters_in(module)
    yield from module.buffers()
