"""Say what keeps the backward pass alive through frozen layers, and what to do about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from freezeout.layers import Layers, named_parameters
from freezeout.wrappers import gathered_forms

__all__ = ["Leak", "find_leak"]

_NAME_THEM = (
    "Name the layers so that all that feeds a frozen layer comes before it, and what runs several "
    "times is one layer (layers=...), or pass example=... for the true order of execution."
)
_TIED = (
    "It is tied, so it learns until its last user freezes. Gradients are right; untie it to save "
    "more."
)
_AGAIN = (
    "They learn where their rate is above 0. The next freeze freezes them again, and "
    "freezer.settle() does at once. Leave requires_grad of "
    "frozen layers alone (with PEFT, set_adapter() and the end of disable_adapter() switch it on)."
)
_NEW = (
    "The next freeze takes them in, and freezer.settle() does at once: call it after a change of "
    "the model."
)
_INPUT = (
    "Give the model an input without requires_grad, or detach() it, unless its gradient is wanted: "
    "then gradients are right, and less is saved (transformers has disable_input_require_grads())."
)
_MARKED = (
    "Take that mark away where layers freeze (with transformers, enable_input_require_grads() sets "
    "it: call disable_input_require_grads())."
)


@dataclass(frozen=True)
class Leak:
    """Why an output of a frozen layer needs a gradient.

    Attributes:
        cause: What keeps the backward pass alive, in words.
        advice: What to do about it, a sentence.
    """

    cause: str
    advice: str


def find_leak(layers: Layers, depth: int, output: torch.Tensor) -> Leak | None:
    """Say what keeps the backward pass alive; ``None`` if only other modules do.

    Args:
        layers: The layers of the model.
        depth: Number of frozen layers.
        output: An output of a frozen layer that needs a gradient.
    """
    model = layers.model
    names = {id(p): name for name, p in named_parameters(model)}
    forms = gathered_forms(model)
    before = {id(p) for layer in layers for _, p in layer.parameters}
    layers.refresh(forms)
    uses = Counter(id(p) for _, p in named_parameters(model, remove_duplicate=False))
    only_ties = True
    active: list[str] = []
    again: list[str] = []
    new: list[str] = []
    others = False
    for leaf in _leaves_of_graph(output):
        known = forms.get(id(leaf), leaf)
        name = names.get(id(leaf), names.get(id(known)))
        if name is not None and isinstance(known, nn.Parameter):
            index = layers.index_of(known)
            is_active = index is None or index >= depth
            found = active if is_active else again if id(known) in before else new
            found.append(f"{name!r} (layer {index})")
            only_ties = only_ties and max(uses[id(leaf)], uses[id(known)]) > 1
        elif isinstance(leaf, nn.Parameter):
            others = True
        elif leaf is not output:  # or made by requires_grad_() on what a frozen module gave
            shape = tuple(leaf.shape)
            return Leak(f"an input of shape {shape} that itself requires a gradient", _INPUT)
    if active:
        advice = _TIED if only_ties else _NAME_THEM
        return Leak(f"active parameters that feed it: {_some(active)}", advice)
    if again:
        made = f"frozen parameters that were made to require a gradient again: {_some(again)}"
        return Leak(made, _AGAIN)
    if new:
        return Leak(f"parameters that were put into frozen layers: {_some(new)}", _NEW)
    if others:
        return None
    return Leak("an output that was marked as requiring a gradient", _MARKED)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _leaves_of_graph(output: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors at which the backward pass from `output` would end."""
    if output.grad_fn is None:
        return [output]
    leaves, seen, stack = [], {output.grad_fn}, [output.grad_fn]
    while stack:
        node = stack.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.append(variable)
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return leaves
