"""Cut a trainer's model by its own first samples, without a mark on data, model or random state."""

from __future__ import annotations

import copy
import inspect
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from freezeout.errors import FrozenPrefixWarning
from freezeout.layers import Layers, split_layers

__all__ = ["cut_by_samples", "first_samples", "for_forward"]

_MOST_OBJECTS = 1000  # of a data set that are looked through for generators


def cut_by_samples(model: nn.Module, take: Callable[[], Any]) -> Layers | None:
    """Cut a model with an example from its training data.

    Args:
        model: The model, with all of its parameters here.
        take: Returns the example, on any device.

    Returns:
        The layers; ``None`` if there is no example, or the model does not run on it.
    """
    parameters = list(model.parameters())
    if any(p.is_meta or not p.numel() or type(p.data) is not torch.Tensor for p in parameters):
        return None  # sharded, or not there yet
    device = parameters[0].device if parameters else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the trainer comes by all of this again
            example = _moved(take(), device)
    except Exception as error:
        warnings.warn(
            f"no example could be taken from the training data ({type(error).__name__}), as from a "
            "stream, so layers are in the order of their definition. Pass example=, an input, or "
            "layers= if the model runs in another order.",
            FrozenPrefixWarning,
            stacklevel=4,
        )
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return split_layers(model, example=example)
    except Exception:  # data, collation and forward are the user's: anything may be raised
        return None


def first_samples(dataset: Any, collate: Callable[[Any], Any], *, batches: bool = True) -> Any:
    """Return a batch of the first two samples of a data set.

    No sampler and no worker is asked, and every random number generator is put back, so training
    sees what it would have seen.

    Args:
        dataset: A data set with numbered samples.
        collate: Makes a batch of a list of samples.
        batches: Whether to collate; else a sample is a batch already.

    Raises:
        Exception: Whatever a data set raises that has no numbered samples.
    """
    with _generators_kept(dataset, collate):
        dataset, collate = copy.copy(dataset), copy.copy(collate)
        if not batches:
            return collate(dataset[0])
        return collate([dataset[i] for i in range(min(2, len(dataset)))])


def for_forward(module: nn.Module, batch: Any) -> Any:
    """Return the part of a batch that a module's ``forward`` takes, as an example of its input.

    Args:
        module: The module.
        batch: A batch of training: inputs with targets after them, or a mapping.
    """
    taken = inspect.signature(module.forward).parameters.values()
    named = [p.name for p in taken if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p for p in taken if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if isinstance(batch, Mapping):
        known = {name: batch[name] for name in named if name in batch}
        return known or (batch,)
    if isinstance(batch, (tuple, list)):
        return tuple(batch[: max(1, len(required))])
    return batch


def _moved(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_moved(item, device) for item in value)
    return value


@contextmanager
def _generators_kept(*owners: Any) -> Iterator[None]:
    """Put back the state of every generator, the common ones and those that data sets hold."""
    numpy = sys.modules.get("numpy")
    python, arrays = random.getstate(), numpy and numpy.random.get_state()
    held = [(generator, _state(generator)) for generator in _generators(owners)]
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(arrays)
            for generator, state in held:
                _restore(generator, state)


def _generators(owners: Any) -> list[Any]:
    """Return the generators among the attributes and items of some objects, and of theirs."""
    found: list[Any] = []
    seen: set[int] = set()
    waiting = list(owners)
    while waiting and len(seen) < _MOST_OBJECTS:
        thing = waiting.pop(0)
        if id(thing) in seen or isinstance(thing, (str, bytes, type, torch.Tensor, nn.Module)):
            continue
        seen.add(id(thing))
        if _kind(thing) is not None:
            found.append(thing)
        elif isinstance(thing, Mapping):
            waiting += list(thing.values())[:100]
        elif isinstance(thing, (tuple, list)):
            waiting += list(thing)[:100]
        else:
            owner = getattr(thing, "__self__", None)
            waiting += [*getattr(thing, "__dict__", {}).values(), owner]
    return found


def _kind(thing: Any) -> str | None:
    if isinstance(thing, torch.Generator):
        return "torch"
    if isinstance(thing, random.Random):
        return "python"
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(thing, numpy.random.Generator):
        return "numpy"
    return "older numpy" if numpy and isinstance(thing, numpy.random.RandomState) else None


def _state(generator: Any) -> Any:
    kind = _kind(generator)
    if kind == "numpy":
        return copy.deepcopy(generator.bit_generator.state)
    return generator.getstate() if kind == "python" else generator.get_state()


def _restore(generator: Any, state: Any) -> None:
    kind = _kind(generator)
    if kind == "numpy":
        generator.bit_generator.state = state
    elif kind == "python":
        generator.setstate(state)
    else:
        generator.set_state(state)
