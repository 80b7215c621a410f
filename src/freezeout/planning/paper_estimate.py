r"""The paper's own estimate of the saving: FLOPs alone, backward as cheap as forward.

Kept for comparison with the measured one, not to be relied on. With cost $c_i$ of layer $i$ of $L$,

$$1 - \frac{\sum_i (1 + t_i)\, c_i}{\sum_i 2\, c_i}, \qquad
t_i = \left(t_0 + (1 - t_0)\, i / L\right)^p ,$$

times 1.3 for the linear schedule. Note $i/L$: the schedule itself has $i/(L-1)$, so that the last
layer never freezes. The 1.3 is not explained anywhere; it is close to what follows if the backward
pass costs twice the forward pass. The paper gives the formula in its section on computational cost;
the factor, $i/L$ and the costs of a DenseNet are those of its released code.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from freezeout.schedule import POWERS, Schedule, Spacing

__all__ = ["densenet_costs", "paper_saving"]


def paper_saving(costs: Sequence[float], t0: float, *, spacing: Spacing = "cubic") -> float:
    """Return the saving that the paper's formula gives.

    Args:
        costs: Cost of each layer's forward pass, in any unit; input first.
        t0: Freeze time of the first layer before spacing, in (0, 1].
        spacing: How freeze times grow from the first layer to the last.

    Returns:
        A fraction.

    Raises:
        TypeError: If `t0` is not a number.
        ValueError: If there are no costs, they add up to nothing, or another argument is outside
            its range.

    Example:
        >>> round(100 * paper_saving(densenet_costs(76, 12), 0.8), 1)
        17.8

    Reference:
        Brock et al., "FreezeOut", 2017, section 2; code ajbrock/FreezeOut.
    """
    Schedule(t0=t0, spacing=spacing)  # checks both
    total = fsum(costs)
    if not total > 0:
        raise ValueError(f"costs must add up to more than 0, got {total}. Give forward FLOPs.")
    size, power = len(costs), POWERS[spacing]
    times = [(t0 + (1.0 - t0) * i / size) ** power for i in range(size)]
    saved = fsum((1.0 - t) * c for t, c in zip(times, costs, strict=True)) / (2.0 * total)
    return 1.3 * saved if spacing == "linear" else saved


def densenet_costs(depth: int, growth: int, *, image_size: int = 32) -> tuple[int, ...]:
    """Return the multiply-adds of each layer of a DenseNet-BC, as the released code counts them.

    The stem and the dense layers; transitions, norms and the head are left out. Channels count in
    whole units of `growth`, so halving an odd number of them in a transition loses half a unit.

    Args:
        depth: Depth of the network, 6n + 4 for n of at least 1.
        growth: Channels that each dense layer adds.
        image_size: Height and width of the images in pixels.

    Returns:
        One number per layer, for one image.

    Raises:
        ValueError: If there is no DenseNet-BC of that depth.
    """
    if depth < 10 or depth % 6 != 4:
        raise ValueError(
            f"depth must be 6n + 4 for a whole n of at least 1, got {depth}. The paper's is 76."
        )
    per_block = (depth - 4) // 6
    units = 2
    costs = [3 * 9 * units * growth * image_size**2]
    for stage in range(3):
        pixels = (image_size // 2**stage) ** 2
        for _ in range(per_block):
            bottleneck = 4 * growth
            costs.append((units * growth * bottleneck + 9 * bottleneck * growth) * pixels)
            units += 1
        units //= 2
    return tuple(costs)
