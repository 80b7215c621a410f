"""Letting neighbouring layers freeze at the same moment, so that fewer moments are left."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["merge_times"]


def merge_times(times: Sequence[float], max_freezes: int) -> tuple[float, ...]:
    r"""Freeze times with at most so many different moments before the end of training.

    Neighbours are put together so that layers learn as little longer as possible in total: each
    group freezes with its last layer, and $\sum_i (t'_i - t_i)$ is the least that `max_freezes`
    groups allow. No layer freezes earlier than it would have. Found by dynamic programming over the
    ends of groups; the earliest ends win a tie.

    Args:
        times: Freeze times in (0, 1], never decreasing; 1 means never.
        max_freezes: Most different times below 1, at least 1.
    """
    early = [t for t in times if t < 1.0]
    k = len(early)
    if len(set(early)) <= max_freezes:
        return tuple(times)
    total = [0.0]  # sums of the first so many times
    for t in early:
        total.append(total[-1] + t)

    def delay(start: int, end: int) -> float:
        """Lost time if layers start to end - 1 freeze together."""
        return early[end - 1] * (end - start) - (total[end] - total[start])

    best = [delay(0, end) if end else 0.0 for end in range(k + 1)]  # with one group
    starts: list[list[int]] = []
    for groups in range(1, max_freezes):
        following, choice = [*best[: groups + 1]], [0] * (k + 1)
        for end in range(groups + 1, k + 1):
            costs = [best[start] + delay(start, end) for start in range(groups, end)]
            cost = min(costs)
            choice[end] = groups + costs.index(cost)
            following.append(cost)
        best = following
        starts.append(choice)
    merged = list(times)
    end = k
    for choice in [*reversed(starts), [0] * (k + 1)]:
        start = choice[end]
        merged[start:end] = [early[end - 1]] * (end - start)
        end = start
    return tuple(merged)
