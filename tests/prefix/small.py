"""Small models of three layers whose containers do one difficult thing each."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import Layers, split_layers
from tests.prefix.twins import Twins

Forward = Callable[[Any, torch.Tensor], torch.Tensor]


class Small(nn.Module):
    """Two maps that freeze, one that learns, and what is done with them."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = nn.Linear(6, 6)
        self.act = nn.ReLU(inplace=True)
        self.c = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
        self.shift = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6))  # learns too
        self.scaling = nn.Linear(6, 1, bias=False)
        self.register_buffer("steps", torch.zeros(()))
        self._run = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._run(self, x)


def model(forward: Forward) -> Small:
    torch.manual_seed(0)
    return Small(forward)


def split(net: nn.Module) -> Layers:
    return split_layers(net, layers=["a", "b", ("shift", "c", "scaling")])


def small_twins(forward: Forward, source: Any = None, depth: int = 2) -> Twins:
    return Twins(lambda: model(forward), split, depth, source)


def batch(n: int, rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(n))


CASES: dict[str, Forward] = {}


def case(forward: Forward) -> Forward:
    CASES[forward.__name__] = forward
    return forward


@case
def plain(m, x):
    return m.c(m.b(m.a(x)))


@case
def in_place_between(m, x):
    h = m.act(m.a(x))
    h += x
    h.mul_(2).clamp_(min=0)
    return m.c(m.b(h))


@case
def in_place_on_the_input(m, x):
    x = x.clone()
    x.sub_(1)
    x[:, 0] = 3
    return m.c(m.b(m.a(x)))


@case
def item_assignment(m, x):
    h = m.a(x)
    h[:, 1] = h[:, 0] * 2
    h[0] = 1.5
    return m.c(m.b(h))


@case
def active_code_writes_into_what_it_gets(m, x):
    h = m.a(x)
    z = m.shift(h)
    return m.c(h + z) + m.c(m.b(h))


@case
def active_code_writes_before_frozen_code_reads(m, x):
    h = m.a(x)
    double = h * 2
    z = m.shift(h)
    return m.c(m.b(h)) + m.c(m.b(double)) + m.c(z)


@case
def views_see_writes_of_active_code(m, x):
    h = m.a(x)
    flat, part = h.view(-1), h[:, :3]
    z = m.shift(h)
    return m.c(flat.view(4, 6)) + m.c(z) + part.repeat(1, 2)[:, :3] + m.c(m.b(h))


@case
def a_view_is_written_by_active_code(m, x):
    h = m.a(x)
    row = h[1:]
    z = m.shift(row)
    return m.c(h) + m.c(z).sum() + m.c(row).sum()


@case
def a_view_is_written_between(m, x):
    h = m.a(x)
    part = h[:, :3]
    part.mul_(2)
    both = m.b(h.detach()).detach()
    q, k = both[:, :3], both[:, 3:]
    q *= 3
    return m.c(torch.cat([q, k], -1) + h)


@case
def a_view_sees_what_frozen_code_writes(m, x):
    h = m.a(x)
    part = h[:, :3]
    h.mul_(2)
    return m.c(m.b(h)) + m.c(part.repeat(1, 2))


@case
def active_values_are_added_in_place(m, x):
    h = m.b(m.a(x))
    h += m.scaling.weight[0]
    first = h[0]
    return m.c(h) + first[:3]


@case
def a_frozen_sum_is_filled_from_active_code(m, x):
    out = torch.zeros(4, 3)
    out[:, 0] = m.b(m.a(x))[:, 0]
    out[:2] = m.c(m.a(x))[:2]
    return out


@case
def the_same_expression_twice(m, x):
    one, other = torch.relu(m.a(x)), torch.relu(m.a(x))
    z = m.shift(one)
    return m.c(z) + m.c(other) + m.c(m.b(one))


@case
def the_same_expression_twice_and_one_is_changed_later(m, x):
    one, other = torch.relu(m.a(x)), torch.relu(m.a(x))
    y = m.c(one)
    z = m.shift(other.sub_(0.1))
    return y + m.c(one) + m.c(z) + m.c(other)


@case
def returns_itself(m, x):
    h = m.a(x).contiguous().to(torch.float32)
    same = F.dropout(h, 0.5, training=False)
    same.add_(1)
    return m.c(m.b(h))


@case
def numbers_from_data(m, x):
    h = m.a(x)
    if h.sum() > 0:
        h = h * 2
    h = h / float(h.abs().max().detach())
    return m.c(m.b(h))


@case
def shapes_from_data(m, x):
    h = m.a(x)
    rows = torch.nonzero(h[:, 0] > 0).flatten()
    chosen = h[h[:, 1] > 0]
    out = torch.zeros_like(h).index_add(0, rows, h[rows])
    return m.c(m.b(out)) + m.c(m.b(chosen)).sum()


@case
def draws(m, x):
    h = F.dropout(m.a(x), 0.3, training=m.training)
    h = h + torch.rand(6) * torch.empty(6).bernoulli_(0.5)
    return m.c(m.b(h))


@case
def draws_elsewhere(m, x):
    h = m.a(x) * random.random() + float(np.random.rand())
    if random.random() < 0.5:
        h = m.b(h)
    return m.c(h)


@case
def draws_from_a_generator(m, x):
    own = torch.Generator().manual_seed(int(m.steps))
    m.steps += 1
    return m.c(m.b(m.a(x) + torch.rand(6, generator=own)))


@case
def counts(m, x):
    m.steps += 1
    return m.c(m.b(m.a(x) * m.steps))


@case
def keeps_something(m, x):
    m.kept = m.b(m.a(x))
    m.parts = [m.kept[0], m.kept * 2]
    return m.c(m.kept)


@case
def keeps_gradients_going(m, x):
    h = m.a(x)
    h.requires_grad_()
    g = m.a(x).requires_grad_(True)
    return m.c(m.b(h)) + m.c(g * 2)


@case
def data_and_detach(m, x):
    h = m.a(x)
    h.data.mul_(2)
    free = h.detach()
    free.add_(1)
    return m.c(m.b(h))


@case
def memory_by_hand(m, x):
    h = m.a(x)
    diagonal = torch.as_strided(h, (4,), (7,))
    grown = h[1:].as_strided((2, 6), (6, 1), 6)
    return m.c(m.b(h) + diagonal.sum()) + m.c(grown).sum()


@case
def other_shapes_in_place(m, x):
    h = m.a(x)
    h.unsqueeze_(0)
    h = h.squeeze_(0).t_().t_()
    return m.c(m.b(h))


@case
def out_arguments(m, x):
    h, out = m.a(x), torch.empty(4, 6)
    torch.mul(h, 2, out=out)
    return m.c(m.b(out))


@case
def without_gradients_inside(m, x):
    with torch.no_grad():
        h = m.b(m.a(x))
    return m.c(h) + m.c(m.b(h))


@case
def signs_and_types_of_numbers(m, x):
    h = m.a(x)
    one, other = h * 0.0, h * -0.0
    whole, broken, truth = torch.full((6,), 1), torch.full((6,), 1.0), torch.full((6,), True)
    ones, kinds = torch.ones(6), [t.dtype for t in (whole, broken, truth)]
    assert kinds == [torch.int64, torch.float32, torch.bool]
    signs = torch.copysign(ones, one) - 2 * torch.copysign(ones, other)
    return m.c(m.b(h + whole + broken + truth)) + m.c(signs)


@case
def many_results(m, x):
    h = m.a(x)
    top = h.max(1)
    values, places = torch.sort(h, dim=1)
    mean, std = torch.std_mean(h, 1)
    return m.c(m.b(values) + top.values[:, None] + places + mean[:, None] * std[:, None])


@case
def questions(m, x):
    h = m.a(x)
    assert not h.requires_grad
    assert h.is_leaf
    assert (h.ndim, h.dim(), len(h), h.numel(), h.shape[1]) == (2, 2, 4, 24, 6)
    assert h.stride() == (6, 1)
    assert h.is_contiguous()
    assert h.size() == torch.Size([4, 6])
    assert h.size(-1) == 6
    assert isinstance(h, torch.Tensor)
    assert torch.is_tensor(h)
    assert h.is_floating_point()
    assert h.element_size() == 4
    assert h.grad is None
    assert h.tolist() is not None
    assert "tensor" in str(h.sum().item()) or True
    return m.c(m.b(h))


@case
def into_numpy_and_back(m, x):
    h = m.a(x)
    return m.c(m.b(torch.from_numpy(h.numpy() * 2)) + torch.tensor([float(v) for v in h[0]]))


class Doubled(torch.autograd.Function):
    """Gives its first argument a gradient by way of its second."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return None, (g * x).sum(0)


@case
def custom_functions(m, x):
    return m.c(Doubled.apply(m.b(m.a(x)), m.scaling.weight[0]))


@case
def custom_functions_of_frozen_values(m, x):
    h = Doubled.apply(m.a(x), x)
    return m.c(m.b(h))


@case
def objects_hold_tensors(m, x):
    class Holder:
        def __init__(self, t):
            self.t = t

    held = Holder(m.a(x))
    held.t = held.t + 1
    return m.c(m.b(held.t))


@case
def nothing_but_frozen_at_the_end(m, x):
    h = m.b(m.a(x))
    return m.c(h) + h[:, :3].sigmoid() + (h.mean() if m.training else 0)


@case
def of_operators(m, x):
    h = torch.ops.aten.add(m.a(x), 1)
    torch.ops.aten.mul_(h, 2)
    return m.c(m.b(h))


@case
def modules_called_by_forward(m, x):
    return m.c.forward(m.b.forward(m.a(x)))


@case
def scalars_and_empties(m, x):
    h = m.a(x)
    nothing = h[:0]
    total = h.sum()
    return m.c(m.b(torch.cat([h, nothing]) + total)) + nothing.sum()


@case
def expanded(m, x):
    h = m.a(x)[:1].expand(4, -1)
    return m.c(h) + m.c(m.b(h))


@case
def transposed(m, x):
    h = m.a(x).t().contiguous().t()
    return m.c(F.dropout(h, 0.5)) + m.c(F.dropout(m.b(h), 0.5))
