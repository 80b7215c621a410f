"""Keep ``DistributedDataParallel`` right while layers freeze and unfreeze, and its exchange small.

Its reducer is made for the parameters that required a gradient at construction. When these change,
the next step would apply gradients that were never averaged, and the one after it would fail. So
the reducer is made again inside the live wrapper or, if that is impossible, the wrapper is.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from freezeout.errors import DistributedError

__all__ = [
    "broadcasts_buffers",
    "exchanged",
    "ignore_buffers",
    "is_retired",
    "obstacle",
    "rebuild",
    "reduced_elements",
    "rewrap",
    "rewrap_obstacle",
    "silence",
]

_PRIVATE = (
    "_build_params_for_reducer",
    "_build_debug_param_to_name_mapping",
    "_ddp_init_helper",
    "_set_static_graph",
    "_comm_hooks",
    "_assign_modules_buffers",
    "parameters_to_ignore",
)
_MEBIBYTE = 1024 * 1024
# In a wrapper's __dict__: what its reducer was made for, and which names we made it leave out.
_BUILT_FOR = "_freezeout_reduces"
_IGNORED = "_freezeout_ignores"
_RETIRED = "_freezeout_retired"
_SILENT = "_freezeout_silent"

_READ_WHEN_MADE = "_ddp_params_and_buffers_to_ignore"  # in the module's, by PyTorch
_HELPER_TAKES = ("parameters", "expect_sparse_gradient", "param_to_name_mapping", "static_graph")


def obstacle(wrapper: DistributedDataParallel) -> str | None:
    """Say why the reducer cannot be made again inside a wrapper; ``None`` if it can.

    It takes private parts of PyTorch, so their presence is checked, not assumed.
    """
    for name in _PRIVATE:
        if not hasattr(wrapper, name):
            return f"this PyTorch's DistributedDataParallel has no {name}"
    takes = tuple(inspect.signature(wrapper._ddp_init_helper).parameters)
    if takes != _HELPER_TAKES:
        return "this PyTorch's DistributedDataParallel makes its reducer in another way"
    if not hasattr(wrapper.reducer, "_remove_autograd_hooks"):
        return "this PyTorch's reducer cannot be taken off the parameters"
    return _second_set_of_hooks(wrapper)


def _second_set_of_hooks(wrapper: DistributedDataParallel) -> str | None:
    """Name an option that makes the wrapper add further hooks beside those of the reducer."""
    if getattr(wrapper, "mixed_precision", None) is not None:
        return "it was made with mixed_precision=... (use torch.autocast instead)"
    if getattr(wrapper, "_use_python_reducer", False):
        return "torch._dynamo.config.optimize_ddp is 'python_reducer'"
    if getattr(wrapper, "_delay_all_reduce_params", None):
        return "it was made with delay_all_reduce_named_params=..."
    if any(hasattr(p, "_in_backward_optimizers") for p in wrapper.module.parameters()):
        return "its optimizer runs in the backward pass"
    return None


def exchanged(wrapper: DistributedDataParallel) -> list[nn.Parameter]:
    """Return the parameters whose gradients a wrapper should exchange now, each once."""
    ignored = wrapper.parameters_to_ignore
    return [p for n, p in wrapper.module.named_parameters() if p.requires_grad and n not in ignored]


def reduced_elements(wrapper: DistributedDataParallel) -> int:
    """Return the number of gradient elements that a wrapper exchanges in every step.

    Args:
        wrapper: A `torch.nn.parallel.DistributedDataParallel`.
    """
    return sum(p.numel() for p in exchanged(wrapper))


def broadcasts_buffers(wrapper: DistributedDataParallel) -> bool:
    """Return whether a wrapper broadcasts buffers by itself, without a custom hook."""
    return bool(getattr(wrapper, _broadcast_option(), False)) and not hasattr(
        wrapper, "buffer_hook"
    )


def ignore_buffers(
    wrapper: DistributedDataParallel, own: Iterable[nn.Module], frozen: Iterable[nn.Module]
) -> None:
    """Take the buffers of frozen modules out of a wrapper's broadcasts, and put others back in.

    A buffer that an active module holds as well is still broadcast.

    Args:
        wrapper: The wrapper.
        own: Every module of the model whose layers freeze; other models in the wrapper keep theirs.
        frozen: Those of them that are frozen.
    """
    if not broadcasts_buffers(wrapper):
        return
    mine, cold = {id(module) for module in own}, {id(module) for module in frozen}
    ours: set[str] = wrapper.__dict__.get(_IGNORED, set())
    theirs = set(wrapper.parameters_to_ignore) - ours
    live: set[int] = set()
    found: dict[str, int] = {}
    for path, module in wrapper.module.named_modules():
        for name, buffer in module._buffers.items():
            full = f"{path}.{name}" if path else name
            if buffer is None:
                continue
            if id(module) in cold or (id(module) not in mine and full in ours):
                found[full] = id(buffer)
            else:
                live.add(id(buffer))
    names = {name for name, buffer in found.items() if buffer not in live}
    wrapper.parameters_to_ignore = theirs | names
    wrapper.__dict__[_IGNORED] = names - theirs


def rebuild(wrapper: DistributedDataParallel) -> None:
    """Make the reducer of a live wrapper again, for the parameters that need a gradient now.

    Call it between an optimizer step and the next forward pass, on every rank. Communication hooks,
    a static graph and all options stay. State that a hook keeps per bucket is dropped (PowerSGD
    sends two steps uncompressed, as at the start, until buckets have settled).

    Args:
        wrapper: The wrapper; `obstacle` says whether this can work.
    """
    wanted = {id(p) for p in exchanged(wrapper)}
    if wrapper.__dict__.get(_BUILT_FOR) == wanted:
        wrapper._assign_modules_buffers()
        return
    wrapper.reducer._remove_autograd_hooks()
    wrapper.__dict__[_BUILT_FOR] = wanted
    if not wanted:
        silence(wrapper)
        wrapper._assign_modules_buffers()
        return
    if _SILENT in wrapper.__dict__:
        wrapper.require_backward_grad_sync = wrapper.__dict__.pop(_SILENT)
    parameters, sparse = wrapper._build_params_for_reducer()
    names = wrapper._build_debug_param_to_name_mapping(parameters)
    static = wrapper.static_graph
    wrapper._ddp_init_helper(parameters, sparse, names, static)
    if static:
        wrapper.static_graph = False  # or setting it would be taken for a repetition
        wrapper._set_static_graph()
        _SyncFirst(wrapper)
    register: Any = vars(dist)["_register_comm_hook"]  # private, and not among its types
    for hook, state in wrapper._comm_hooks:
        _forget_buckets(state)
        register(wrapper.reducer, state, hook)


def silence(wrapper: DistributedDataParallel) -> None:
    """Stop the exchange of a wrapper around layers that are all frozen.

    In a ``Join``, ranks that have run out of data would otherwise exchange for it.
    """
    wrapper.__dict__[_SILENT] = wrapper.require_backward_grad_sync
    wrapper.require_backward_grad_sync = False


class _SyncFirst:
    """Let the first pass after a rebuild exchange gradients, also within ``no_sync``.

    A static graph learns what to expect from that pass, and fails without an exchange. Gradients
    that are averaged early stay right when later ones are added and averaged.
    """

    def __init__(self, wrapper: DistributedDataParallel) -> None:
        self._within_no_sync = False
        self._handles = [
            wrapper.register_forward_pre_hook(self._begin),
            wrapper.register_forward_hook(self._end),
        ]

    def _begin(self, wrapper: nn.Module, args: Any) -> None:
        self._within_no_sync = torch.is_grad_enabled() and not wrapper.require_backward_grad_sync
        if self._within_no_sync:
            vars(wrapper)["require_backward_grad_sync"] = True

    def _end(self, wrapper: nn.Module, args: Any, output: Any) -> None:
        if self._within_no_sync:
            vars(wrapper)["require_backward_grad_sync"] = False
        if torch.is_grad_enabled():
            for handle in self._handles:
                handle.remove()


def rewrap(wrapper: DistributedDataParallel) -> DistributedDataParallel:
    """Make a new wrapper around the same module, with the options and hooks of the old one.

    Use the new one from now on. Nothing is broadcast, because the processes agree already. This is
    how to follow a freeze if the reducer cannot be made again inside the old wrapper.

    Args:
        wrapper: A `torch.nn.parallel.DistributedDataParallel`.

    Raises:
        TypeError: If it is something else.
        DistributedError: If it has hooks on the model that a second wrapper would add to, or is
            of a custom class whose constructor takes other arguments.
    """
    if not isinstance(wrapper, DistributedDataParallel):
        raise TypeError(
            f"rewrap takes a DistributedDataParallel, got {type(wrapper).__name__}. "
            "Other wrappers need no new one after a freeze."
        )
    never = rewrap_obstacle(wrapper)
    if never is not None:
        raise DistributedError(never)
    module = wrapper.module
    hooks = list(getattr(wrapper, "_comm_hooks", ()))
    remove = getattr(wrapper.reducer, "_remove_autograd_hooks", None)
    if remove is not None:
        remove()
    with _leaving_out(module, set(wrapper.parameters_to_ignore)), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of an option's name that changes
        new = type(wrapper)(module, **_options(wrapper))
    wrapper.__dict__[_RETIRED] = True
    new.__dict__[_IGNORED] = set(wrapper.__dict__.get(_IGNORED, ()))
    new.training = wrapper.training
    for hook, state in hooks:
        _forget_buckets(state)
        hook_of_new: Callable[..., Any] = hook
        new.register_comm_hook(state, hook_of_new)
    return new


def rewrap_obstacle(wrapper: DistributedDataParallel) -> str | None:
    """Say why `rewrap` cannot work, as a whole message; ``None`` if it can."""
    reason = _second_set_of_hooks(wrapper)
    if reason is not None:
        return f"DistributedDataParallel cannot follow a freeze: {reason}. Make it without that."
    kind = type(wrapper)
    signature = inspect.signature(kind)
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {name for name, p in signature.parameters.items() if p.kind not in open_ended}
    try:
        signature.bind(wrapper.module, **_options(wrapper))
    except TypeError as error:
        other = str(error)
    else:
        unknown = sorted(named - _takes().keys())
        if not unknown:
            return None
        other = f"it has {', '.join(unknown)}"
    return (
        f"a new {kind.__name__} cannot be made with the arguments of DistributedDataParallel: "
        f"{other}. Make new wrappers yourself, or wrap the model in DistributedDataParallel."
    )


def is_retired(wrapper: DistributedDataParallel) -> bool:
    """Return whether `rewrap` has replaced this wrapper."""
    return bool(wrapper.__dict__.get(_RETIRED, False))


def _broadcast_option() -> str:
    """Return the name of the option that says whether buffers are broadcast; it changed in 2.13."""
    return "forward_sync_buffers" if "forward_sync_buffers" in _takes() else "broadcast_buffers"


def _takes() -> Mapping[str, inspect.Parameter]:
    return inspect.signature(DistributedDataParallel.__init__).parameters


def _options(wrapper: DistributedDataParallel) -> dict[str, Any]:
    """Return the arguments a wrapper was made with, as far as this PyTorch has them."""
    options: dict[str, Any] = {
        "device_ids": wrapper.device_ids,
        "output_device": wrapper.output_device,
        "dim": wrapper.dim,
        "process_group": wrapper.process_group,
        "init_sync": False,
        "find_unused_parameters": wrapper.find_unused_parameters,
        "gradient_as_bucket_view": wrapper.gradient_as_bucket_view,
        "static_graph": wrapper.static_graph,
    }
    for name in ("skip_all_reduce_unused_params", "batched_grad_copy"):
        if getattr(wrapper, name, False):
            options[name] = True
    broadcast = _broadcast_option()
    options[broadcast] = getattr(wrapper, broadcast)
    caps = getattr(wrapper, "bucket_bytes_cap_list", None)
    if caps:
        options["bucket_cap_mb_list"] = [cap / _MEBIBYTE for cap in caps]
    elif not getattr(wrapper, "bucket_bytes_cap_default", False):
        options["bucket_cap_mb"] = wrapper.bucket_bytes_cap / _MEBIBYTE
    takes = _takes()  # without init_sync (2.6) it broadcasts once what is equal already
    return {name: value for name, value in options.items() if name in takes}


@contextmanager
def _leaving_out(module: nn.Module, names: set[str]) -> Iterator[None]:
    """Let a new DistributedDataParallel leave out what the old one left out."""
    before = module.__dict__.get(_READ_WHEN_MADE)
    module.__dict__[_READ_WHEN_MADE] = names
    try:
        yield
    finally:
        if before is None:
            del module.__dict__[_READ_WHEN_MADE]
        else:
            module.__dict__[_READ_WHEN_MADE] = before


def _forget_buckets(state: Any) -> None:
    """Drop what a communication hook's state keeps for buckets that no longer exist."""
    for name in ("error_dict", "p_memory_dict", "q_memory_dict"):  # PowerSGD
        kept = getattr(state, name, None)
        if isinstance(kept, dict):
            kept.clear()
    start = getattr(state, "start_powerSGD_iter", None)
    if isinstance(start, int) and isinstance(getattr(state, "iter", None), int):
        state.iter = min(state.iter, max(0, start - 2))
