"""All that measuring must leave as it was, taken down and compared."""

import copy
import random

import numpy as np
import torch

from tests.costs.networks import Noisy


def everything(net, optimizer):
    """All that a measurement must leave alone, in comparable form."""
    return {
        "values": [t.detach().clone() for t in (*net.parameters(), *net.buffers())],
        "ids": [id(t) for t in (*net.parameters(), *net.buffers())],
        "gradients": [(id(p.grad), copy.deepcopy(p.grad)) for p in net.parameters()],
        "flags": [p.requires_grad for p in net.parameters()],
        "modes": [m.training for m in net.modules()],
        "attributes": [sorted(m.__dict__) for m in net.modules()],
        "hooks": [
            (list(m._forward_hooks.values()), list(m._forward_pre_hooks.values()))
            for m in net.modules()
        ],
        "calls": getattr(net, "calls", None),
        "optimizer": None if optimizer is None else copy.deepcopy(optimizer.state_dict()),
        "groups": None if optimizer is None else [id(g) for g in optimizer.param_groups],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(),
    }


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert _equal(a[key], b[key]), key


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype and _signs(a) == _signs(b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def _signs(t):
    return torch.signbit(t).tolist() if t.is_floating_point() else None


def a_net_in_the_middle_of_things():
    """Trained for two steps, with gradients, hooks, mixed modes, and a negative zero."""
    torch.manual_seed(1)
    net = Noisy()
    net.still.eval()
    net.body.bias.requires_grad_(False)
    net.head.register_forward_hook(lambda *_: None)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    x = torch.randn(6, 8)
    for _ in range(2):
        net(x).square().mean().backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        net.head.weight[0, 0] = -0.0
    return net, optimizer, x
