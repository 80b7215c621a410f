"""What a module holds, read where PyTorch keeps it, whatever its class answers.

A class may pass on attributes of a part as its own, or override ``named_parameters`` to give only
what learns. What freezes would then be looked up in less than the model is.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

__all__ = ["modules_in", "named_modules", "named_parameters", "parameters_in", "wrapped_in"]

_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel)


def wrapped_in(module: nn.Module) -> nn.Module | None:
    """Return what a wrapper of PyTorch is around; ``None`` if the module is no wrapper.

    Args:
        module: Perhaps ``DistributedDataParallel``, ``DataParallel`` or what ``torch.compile``
            returns.
    """
    name = "module" if isinstance(module, _WRAPPERS) else "_orig_mod"
    # Not by attribute: a model may pass on those of a compiled part. (A scripted one has no get.)
    return dict(module._modules.items()).get(name)


def named_modules(
    module: nn.Module, *, prefix: str = "", remove_duplicate: bool = True
) -> Iterator[tuple[str, nn.Module]]:
    """Yield what ``nn.Module.named_modules`` yields: a module and all that is in it.

    Args:
        module: Any module.
        prefix: Its own name.
        remove_duplicate: Whether to yield what has several names once.
    """
    return _walk(module, prefix, set() if remove_duplicate else None)


def named_parameters(
    module: nn.Module, *, prefix: str = "", remove_duplicate: bool = True
) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield what ``nn.Module.named_parameters`` yields: every parameter and its name.

    Args:
        module: Any module.
        prefix: Its own name.
        remove_duplicate: Whether to yield what has several names once.
    """
    seen: set[nn.Parameter] = set()
    for path, inner in named_modules(module, prefix=prefix, remove_duplicate=remove_duplicate):
        for name, parameter in inner._parameters.items():
            if parameter is None or parameter in seen:
                continue
            if remove_duplicate:
                seen.add(parameter)
            yield (f"{path}.{name}" if path else name), parameter


def modules_in(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a module and all that is in it, each once."""
    return (inner for _, inner in named_modules(module))


def parameters_in(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield every parameter of a module, each once."""
    return (parameter for _, parameter in named_parameters(module))


def _walk(
    module: nn.Module, name: str, seen: set[nn.Module] | None
) -> Iterator[tuple[str, nn.Module]]:
    if seen is not None:
        if module in seen:
            return
        seen.add(module)
    yield name, module
    for key, inner in module._modules.items():
        if inner is not None:
            yield from _walk(inner, f"{name}.{key}" if name else key, seen)
