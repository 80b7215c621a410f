"""The advice that follows what keeps the backward pass alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from freezeout import Freezer, FrozenPrefixWarning, split_layers
from tests.freezing.surgery import linear_net


def said(model: Any, freezer: Freezer, x: torch.Tensor, run: Callable[..., Any]) -> str:
    with pytest.warns(FrozenPrefixWarning) as caught:
        run(x)
    assert not freezer.verified
    (message,) = [str(warning.message) for warning in caught]
    assert "(layer None)" not in message
    assert message.count("\n") == 0
    return message


def frozen(depth: int = 1) -> tuple[Any, Freezer]:
    model = linear_net()
    freezer = Freezer(split_layers(model))
    freezer.set_depth(depth)
    return model, freezer


def test_parameters_that_are_made_to_learn_again() -> None:
    """As at the end of an adapter library's context without adapters."""
    model, freezer = frozen()
    model[0].requires_grad_(True)
    message = said(model, freezer, torch.randn(4, 8), model)
    assert "made to require a gradient again: '0." in message
    assert message.count("(layer 0)") == 2
    assert "freezer.settle() does at once" in message
    assert "Name the layers" not in message
    freezer.settle()
    assert not model[0].weight.requires_grad
    assert model[2].weight.requires_grad


def test_parts_that_were_put_in_between_passes_over_parts() -> None:
    model, freezer = frozen(2)
    model[0].weight = nn.Parameter(torch.randn(16, 8))
    message = said(model, freezer, torch.randn(4, 8), lambda x: model[2](model[0](x)))
    assert "parameters that were put into frozen layers: '0.weight' (layer 0)." in message
    assert "call it after a change of the model" in message
    freezer.settle()
    assert not model[0].weight.requires_grad
    assert model[4].weight.requires_grad


def test_an_input_that_requires_a_gradient() -> None:
    model, freezer = frozen()
    message = said(model, freezer, torch.randn(4, 8, requires_grad=True), model)
    assert "an input of shape (4, 8) that itself requires a gradient" in message
    assert "detach() it, unless its gradient is wanted" in message
    assert "Name the layers" not in message


def test_an_output_that_is_marked() -> None:
    model, freezer = frozen(0)
    model[0].register_forward_hook(lambda module, args, output: output.requires_grad_())
    freezer.set_depth(1)
    message = said(model, freezer, torch.randn(4, 8), model)
    assert "disable_input_require_grads()" in message
    assert "Name the layers" not in message


def test_active_parameters_that_feed_it() -> None:
    model, freezer = frozen()
    message = said(model, freezer, torch.randn(4, 16), lambda x: model[0](model[2](x)[:, :8]))
    assert "active parameters that feed it: '2." in message
    assert "Name the layers" in message


def test_a_weight_that_is_tied_once_the_layers_are_cut() -> None:
    model = linear_net()
    model[4] = nn.Linear(16, 16)
    freezer = Freezer(split_layers(model))
    model[2].weight = model[4].weight = nn.Parameter(torch.randn(16, 16))
    freezer.set_depth(2)
    message = said(model, freezer, torch.randn(4, 8), model)
    assert "active parameters that feed it: '2.weight' (layer 2)." in message
    assert "untie it to save more" in message
    assert "Name the layers" not in message
