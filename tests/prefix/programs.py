"""Random programs between frozen layers: views, writes in place, active and frozen code mixed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from tests.prefix.small import Forward

Step = Callable[[Any, list[torch.Tensor]], None]

ROWS, WIDTH = 4, 6


def program(seed: int, length: int = 9) -> Forward:
    """A model's forward pass of so many random steps; the same for the same seed."""
    rng = random.Random(seed)
    steps = [rng.choice(STEPS)(rng) for _ in range(length)]

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        pool = [x, m.a(x), m.b(x)]
        for step in steps:
            step(m, pool)
        wide = [t for t in pool if t.shape[-1:] == (WIDTH,)]
        ends = torch.stack([(t.float() * (i + 1)).mean() for i, t in enumerate(pool)])
        return m.c(wide[-1].reshape(-1, WIDTH)).mean() + ends.sum()

    return forward


def _pick(rng: random.Random) -> Callable[[list[torch.Tensor]], torch.Tensor]:
    share = rng.random()
    return lambda pool: pool[int(share * len(pool))]


def _wide(pool: list[torch.Tensor], share: float) -> torch.Tensor:
    wide = [t for t in pool if t.shape[-1:] == (WIDTH,)]
    return wide[int(share * len(wide))]


def frozen_module(rng: random.Random) -> Step:
    name, share = rng.choice("ab"), rng.random()
    return lambda m, pool: pool.append(getattr(m, name)(_wide(pool, share)))


def active_module(rng: random.Random) -> Step:
    share = rng.random()
    return lambda m, pool: pool.append(m.c(_wide(pool, share)))


def active_module_that_writes(rng: random.Random) -> Step:
    share = rng.random()
    return lambda m, pool: pool.append(m.shift(_wide(pool, share)))


def view(rng: random.Random) -> Step:
    take = _pick(rng)
    make = rng.choice(
        [
            lambda t: t[1:] if t.ndim and len(t) > 1 else t,
            lambda t: t[..., ::2],
            lambda t: t.reshape(-1),
            lambda t: t.mT if t.ndim > 1 else t,
            lambda t: t.unsqueeze(0).expand(2, *t.shape),
            lambda t: t.detach(),
            lambda t: t.contiguous(),
            lambda t: t.chunk(2)[0],
            lambda t: F.dropout(t, 0.5, training=False),
        ]
    )
    return lambda m, pool: pool.append(make(take(pool)))


def function(rng: random.Random) -> Step:
    take, number = _pick(rng), rng.choice([2, 0.5, -1])
    make = rng.choice(
        [
            lambda t: t * number,
            lambda t: torch.relu(t) + number,
            lambda t: torch.cat([t, t], 0),
            lambda t: t.clone(),
            lambda t: t.softmax(-1),
            lambda t: F.dropout(t, 0.3, training=True),
            lambda t: torch.zeros_like(t),
            lambda t: t * float(t.detach().abs().max()),
        ]
    )
    return lambda m, pool: pool.append(make(take(pool)))


def written_in_place(rng: random.Random) -> Step:
    take, number = _pick(rng), rng.choice([2, 0.5, -1])
    write = rng.choice(
        [
            lambda t: t.mul_(number),
            lambda t: t.add_(number),
            lambda t: F.relu(t, inplace=True),
            lambda t: t.__setitem__((..., 0), number),
            lambda t: t[..., :2].add_(number),
            lambda t: t.copy_(t.flip(-1)),
        ]
    )

    def step(m: Any, pool: list[torch.Tensor]) -> None:
        write(take(pool))

    return step


def written_from_another(rng: random.Random) -> Step:
    take, other = _pick(rng), _pick(rng)

    def step(m: Any, pool: list[torch.Tensor]) -> None:
        one, two = take(pool), other(pool)
        if one.shape == two.shape and one is not two:
            one += two
        elif one.numel() and two.numel():
            one[..., 0] = two.mean()

    return step


def scaled_by_what_learns(rng: random.Random) -> Step:
    share = rng.random()

    def step(m: Any, pool: list[torch.Tensor]) -> None:
        target = _wide(pool, share)
        target.mul_(m.scaling.weight[0])

    return step


def forgotten(rng: random.Random) -> Step:
    share = rng.random()

    def step(m: Any, pool: list[torch.Tensor]) -> None:
        if len(pool) > 4:
            del pool[3 + int(share * (len(pool) - 3))]

    return step


STEPS = [
    *(frozen_module, frozen_module, active_module, active_module_that_writes, view, view, view),
    *(function, function, written_in_place, written_in_place, written_from_another),
    *(scaled_by_what_learns, forgotten),
]
