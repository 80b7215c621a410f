r"""Which freeze times lose the least learning time for a saving.

Write $x_i = 1 - t_i$ for the learning time that layer $i$ loses, $c_i$ for the fraction of a step
that is saved while it is frozen, and $w_i$ for what its learning time is worth.

*Budget.* Minimise $\sum w_i x_i^2$ over $1 - t_{\min} \ge x_0 \ge x_1 \ge \dots \ge 0$ with
$\sum c_i x_i = s$. (Without the square it would be a linear program, whose answer is to take all
learning time away from a few layers.) For a multiplier $\mu$ this is the isotonic regression of
$\mu c_i / w_i$ with weights $w_i$. That is homogeneous in $\mu$, and bounds only clip it:

$$x_i = \min(\mu\, m_i,\ 1 - t_{\min}), \qquad m = \text{pooled } c_i / w_i .$$

Pooling averages neighbours, $\sum c / \sum w$, until $m$ never rises. So $m$ is found once, and
$\mu$ follows from $s$.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["budget_times", "default_weights", "pooled"]


def default_weights(num_layers: int) -> tuple[float, ...]:
    """Return one over the number of layers behind, for all layers but the last.

    The last never freezes. The more layers behind one still learn, the better they can make up for
    it. With equal costs these weights give the paper's linear freeze times.
    """
    return tuple(1.0 / (num_layers - 1 - i) for i in range(num_layers - 1))


def pooled(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the never rising sequence nearest to ``values / weights``, in weighted squares.

    This is the pool-adjacent-violators algorithm.

    Args:
        values: $c_i$.
        weights: $w_i$, each above 0.
    """
    blocks: list[tuple[float, float, int]] = []  # sum of values, sum of weights, size
    for value, weight in zip(values, weights, strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] / blocks[-1][1] < block[0] / block[1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    return [value / weight for value, weight, size in blocks for _ in range(size)]


def budget_times(slopes: Sequence[float], multiplier: float, least: float) -> tuple[float, ...]:
    r"""Return the freeze times of the layers before the last, and 1 for the last.

    Args:
        slopes: $m_i$ from `pooled`.
        multiplier: $\mu$, at least 0. The saving rises with it.
        least: $t_{\min}$, the earliest freeze time, in (0, 1].
    """
    return (*(min(max(1.0 - multiplier * slope, least), 1.0) for slope in slopes), 1.0)
