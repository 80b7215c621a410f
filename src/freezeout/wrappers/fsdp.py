"""Keep ``fully_shard`` (FSDP2) right while layers freeze and unfreeze.

Frozen parameters leave its reduce-scatter by themselves. Two things remain: frozen groups are still
gathered in every forward pass, which can be avoided at the cost of memory, and a group that was
frozen in its first forward pass has no data type for its gradients.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import nn

from freezeout.layers import modules_in

__all__ = ["Sharded", "are_gathered_each_pass", "gathered_forms", "is_sharded", "reshard"]

# In a group's __dict__, where another freezer finds it: its settings before it was kept gathered.
_KEPT = "_freezeout_kept"


def _groups(model: nn.Module) -> list[Any]:
    """Return the modules of a model that ``fully_shard`` was applied to, outermost first."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # importing it takes half a second
    kind = getattr(fsdp, "FSDPModule", None)
    return [] if kind is None else [m for m in modules_in(model) if isinstance(m, kind)]


def is_sharded(model: nn.Module) -> bool:
    """Return whether ``fully_shard`` was applied to a model or to a part of it."""
    return bool(_groups(model))


def reshard(model: nn.Module) -> None:
    """Make the modules of a model hold their sharded parameters, which the optimizer knows.

    While a group is gathered, its modules hold other, plain parameters instead.

    Args:
        model: Any module; one that is not sharded stays as it is.
    """
    for group in _groups(model):
        group.reshard()


def gathered_forms(model: nn.Module) -> dict[int, nn.Parameter]:
    """Return the sharded parameter of each gathered one, by the gathered one's ``id``.

    A gathered parameter takes part in a forward pass and leaves the modules after it.

    Args:
        model: Any module; one that is not sharded has none.
    """
    parameters = [p for g in _groups(model) for i in _parameter_groups(g) for p in i.fsdp_params]
    gathered = [(getattr(p, "_unsharded_param", None), p.sharded_param) for p in parameters]
    return {id(full): share for full, share in gathered if full is not None}


def are_gathered_each_pass(model: nn.Module, parameters: Iterable[nn.Parameter]) -> bool:
    """Return whether a forward pass has to gather any of these parameters.

    Those of a group that is kept gathered are there already.

    Args:
        model: Any module; one that is not sharded gathers nothing.
        parameters: Parameters as the optimizer knows them, sharded ones in their sharded form.
    """
    wanted = {id(p) for p in parameters}
    return any(
        _KEPT not in group.__dict__ and any(id(p) in wanted for p in _own_parameters(group))
        for group in _groups(model)
    )


class Sharded:
    """The sharded groups of a model, and which of them stay gathered because they are frozen.

    Args:
        model: The model.

    Attributes:
        keep_unsharded: Whether groups that are frozen as a whole stay gathered: no more
            communication for them, at the price of holding all their parameters.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.keep_unsharded = False

    def __bool__(self) -> bool:
        return is_sharded(self._model)

    def ranks(self) -> tuple[int, ...]:
        """Return the processes that hold the shards, copies included."""
        found: set[int] = set()
        for module in _groups(self._model):
            for group in _parameter_groups(module):
                found.update(group.mesh_info.mesh.mesh.flatten().tolist())
        return tuple(sorted(found)) or tuple(range(dist.get_world_size()))

    def settle(self) -> None:
        """Bring every group in line with the flags of its parameters."""
        for position, group in enumerate(_groups(self._model)):
            learns = any(p.requires_grad for p in _own_parameters(group))
            if learns:
                _choose_dtypes(group)
            if position and self.keep_unsharded and not learns:
                self._keep(group)
            elif _KEPT in group.__dict__:
                _release(group)

    def _keep(self, group: Any) -> None:
        inside = _parameter_groups(group)
        if _KEPT in group.__dict__ or not all(_is_divided(inner) for inner in inside):
            return
        group.__dict__[_KEPT] = [
            (inner.post_forward_mesh_info, inner.reshard_after_backward) for inner in inside
        ]
        group.set_reshard_after_forward(False, recurse=False)
        group.set_reshard_after_backward(False, recurse=False)


def _release(group: Any) -> None:
    """Shard a group again that was kept gathered, with its former settings."""
    before = group.__dict__.pop(_KEPT)
    for inner, (after_forward, after_backward) in zip(
        _parameter_groups(group), before, strict=True
    ):
        inner.post_forward_mesh_info = after_forward
        inner.reshard_after_backward = after_backward
    group.reshard()


def _is_divided(inner: Any) -> bool:
    """Return whether each process holds only a part; with ``replicate`` nothing is gathered."""
    return hasattr(inner.mesh_info, "shard_mesh_size")


def _parameter_groups(module: Any) -> list[Any]:
    """Return the private groups of parameters in which a sharded module is gathered."""
    state = module._get_fsdp_state()
    groups = getattr(state, "_fsdp_param_groups", None)
    if groups is None:  # before PyTorch 2.12 there is at most one
        only = getattr(state, "_fsdp_param_group", None)
        groups = [] if only is None else [only]
    return list(groups)


def _own_parameters(module: Any) -> list[nn.Parameter]:
    return [p.sharded_param for group in _parameter_groups(module) for p in group.fsdp_params]


def _choose_dtypes(module: Any) -> None:
    """Choose the gradients' data types again if the group was frozen in the first forward pass.

    PyTorch chooses them once, from what is trainable then (pytorch#186998); without them an
    unfrozen group fails in the backward pass.
    """
    for group in _parameter_groups(module):
        if not hasattr(group, "_orig_dtype") or group._orig_dtype is not None:
            continue
        choose = getattr(group, "_init_mp_dtypes", None)
        if choose is None:
            warnings.warn(
                "parameters that were frozen in the first forward pass learn again, and this "
                "PyTorch's fully_shard cannot choose data types for their gradients again. Run one "
                "forward pass before anything is frozen.",
                UserWarning,
                stacklevel=2,
            )
        elif _ran(module):
            choose()


def _ran(module: Any) -> bool:
    """Return whether a first forward pass has run; before it, PyTorch chooses by itself."""
    return module._get_fsdp_state()._is_root is not None
