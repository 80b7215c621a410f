r"""What each layer costs in a training step, measured on the real step.

`measure_costs` runs a few dozen training steps of your model on your batch, with more and fewer
layers really frozen, and fits costs of single layers to what the whole step took. So the step with
the first $d$ layers frozen takes, in seconds,

$$T(d) = h + \sum_{i<d} g_i + \sum_{i \ge d} (f_i + b_i + o_i)$$

with $f_i$ the forward pass of layer $i$ while it learns and $g_i$ once it is frozen, $b_i$ its part
of the backward pass, $o_i$ its part of the optimizer's step, and $h$ what belongs to no layer. At
the depths that were measured $T(d)$ is the measurement itself; layers in between share the
difference in the proportion in which they took time in a step that was watched layer by layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from freezeout.costs.bench import Measurement, measure
from freezeout.costs.checks import check_arguments, check_model
from freezeout.costs.costs import Costs
from freezeout.costs.fit import fit
from freezeout.costs.layer_cost import LayerCost
from freezeout.costs.threads import harm_of_threads
from freezeout.layers import Layers, LayerSpec, split_layers
from freezeout.tensors import tensor_bytes

__all__ = ["measure_costs"]


def measure_costs(
    model: nn.Module,
    example: Any,
    *,
    loss: Callable[[Any], torch.Tensor] | None = None,
    optimizer: Optimizer | None = None,
    layers: Layers | Sequence[LayerSpec] | None = None,
    autocast: torch.dtype | None = None,
    rounds: int = 6,
    progress: Callable[[int, int], None] | None = None,
) -> Costs:
    """Measure what each layer costs in a training step, by running a few dozen of them.

    Steps with no layer frozen and with more and more layers frozen alternate in random order, so
    that a machine that speeds up or slows down meanwhile changes all alike. About
    ``7 * rounds + 11`` steps are run, most of them shortened by frozen layers; fewer for models of
    up to five layers. Their peak of memory on the device is that of a training step. From 6 rounds
    on they are repeated while they are spoilt (see `Costs.trouble`), for up to twice their time.

    Afterwards everything is as it was, also where something fails: weights, buffers, modes, flags,
    gradients, optimizer and random state, and attributes of modules one level deep. Meanwhile
    values are kept in host memory, those of tensors on the CPU in temporary files.

    Args:
        model: The model that will be trained, on its device. One in evaluation mode is measured in
            training mode.
        example: A batch as in training: one tensor, a tuple of positional or a dict of keyword
            arguments. Costs hold for this batch size.
        loss: Turns the model's output into a scalar loss. By default the output's own ``loss``
            where it has one (as in Hugging Face models given labels), else the mean of the output,
            which lacks the cost of a real loss.
        optimizer: The one that will train the model; it takes no step itself. By default SGD with
            momentum.
        layers: How to cut the model (see `split_layers`), or its result. By default it is cut as
            `FreezeOut` would without an example.
        autocast: Precision of the forward pass under ``torch.autocast``, such as
            ``torch.bfloat16``.
        rounds: Measurements of each depth, at least 1; more of them are more certain.
        progress: Called with the steps done and those to do; the latter grow where rounds are
            repeated.

    Returns:
        The costs.

    Raises:
        CostError: If the model rejects the batch, memory runs out, or nothing in it could freeze;
            the message says what to do. The model is as it was.
        SplitError: If the model cannot be cut into layers.
        TypeError: If an argument has the wrong type.
        ValueError: If there is no example, or an argument is out of range.

    Warns:
        FrozenPrefixWarning: If something keeps the backward pass alive through frozen layers; what
            is measured has it in it.
        UserWarning: If a step on the CPU is much faster with half of torch's threads. The number
            of threads is left as it is.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
        >>> costs = measure_costs(net, torch.randn(32, 64))
        >>> costs.layers[0].forward_flops == 2 * 32 * 64 * 256
        True
        >>> costs.step_seconds(1) > 0
        True
    """
    check_arguments(model, example, loss, optimizer, autocast, rounds, progress)
    cut = layers if isinstance(layers, Layers) else split_layers(model, layers=layers)
    check_model(cut, model, optimizer)
    found = measure(
        model,
        cut,
        example,
        loss=loss,
        optimizer=optimizer,
        autocast=autocast,
        rounds=int(rounds),
        progress=progress,
        spoilt=lambda found: bool(_costs(cut, found).trouble),
    )
    costs = _costs(cut, found)
    if found.fewer_threads is not None:
        text = harm_of_threads(costs.threads, costs.step_seconds(), *found.fewer_threads)
        if text:
            warnings.warn(text, UserWarning, stacklevel=2)
    return costs


def _costs(layers: Layers, found: Measurement) -> Costs:
    fitted = fit(found)
    return Costs(
        layers=tuple(
            LayerCost(
                name=layer.name,
                forward=fitted.forward[i],
                frozen_forward=fitted.frozen_forward[i],
                backward=fitted.backward[i],
                optimizer=fitted.optimizer[i],
                forward_flops=found.forward_flops[i],
                backward_flops=fitted.backward_flops[i],
                saved_bytes=found.saved_bytes[i],
                parameter_bytes=sum(tensor_bytes(p) for _, p in layer.parameters),
                gradient_bytes=found.gradient_bytes[i],
                state_bytes=found.state_bytes[i],
            )
            for i, layer in enumerate(layers)
        ),
        overhead=fitted.overhead,
        depths=fitted.depths,
        rounds=fitted.rounds,
        batch_size=found.batch_size,
        device=found.device,
        threads=torch.get_num_threads(),
        precision=found.precision,
        optimizer=found.optimizer,
        torch_version=str(torch.__version__),
    )
