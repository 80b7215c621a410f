"""What a module holds is read as PyTorch reads it, whatever the module's class answers."""

import pytest
import torch
from torch import nn

from freezeout import FreezeOut, unfreeze
from freezeout.layers import modules_in, named_modules, named_parameters, parameters_in


def tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4, bias=False)), nn.ReLU())
    net[1][0].weight = net[0].weight
    net.append(net[0])
    net.register_module("nothing", None)
    return net


@pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning")
@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize(
    "make", [tied, lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))]
)
def test_members_are_those_of_torch(make, again):
    net = make()
    options = {"prefix": "net", "remove_duplicate": again}
    theirs = [(name, module) for name, module in net.named_modules(**options)]
    assert list(named_modules(net, **options)) == theirs
    ours, theirs = named_parameters(net, **options), net.named_parameters(**options)
    assert [(n, p.data_ptr()) for n, p in ours] == [(n, p.data_ptr()) for n, p in theirs]
    assert list(modules_in(net)) == list(net.modules())
    assert [p.data_ptr() for p in parameters_in(net)] == [p.data_ptr() for p in net.parameters()]


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)])

    def forward(self, x):
        return self.net(x)


class OnlyLearningParameters(Body):
    def named_parameters(self, *args, **kwargs):
        return ((n, p) for n, p in super().named_parameters(*args, **kwargs) if p.requires_grad)


class OnlyLearningModules(Body):
    def named_modules(self, *args, **kwargs):
        return ((n, m) for n, m in super().named_modules(*args, **kwargs) if learns_inside(m))


class InsideOfAnother(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Linear(4, 4), OnlyLearningModules()

    def forward(self, x):
        return self.body(self.stem(x))


def learns_inside(module):
    return any(
        p.requires_grad
        for _, m in named_modules(module)
        for p in m._parameters.values()
        if p is not None
    )


@pytest.mark.parametrize(
    "make", [OnlyLearningParameters, OnlyLearningModules, InsideOfAnother, Body]
)
def test_a_model_that_names_only_what_learns_freezes_and_thaws_as_a_whole(make):
    torch.manual_seed(0)
    model = make()
    everything = list(parameters_in(model))
    optimizer = torch.optim.SGD(everything, lr=0.1, momentum=0.9)
    scheduler = FreezeOut(optimizer, model, total_steps=20, t0=0.2, spacing="linear", strict=True)
    while not scheduler.frozen:
        step(model, optimizer, scheduler)
    frozen = [p for p in everything if not p.requires_grad]
    sizes = [layer.num_parameters for layer in scheduler.layers]
    before = [p.detach().clone() for p in everything]
    step(model, optimizer, scheduler)
    assert 0 < len(frozen) < len(everything)
    scheduler.layers.refresh()
    assert [layer.num_parameters for layer in scheduler.layers] == sizes
    account = scheduler.freezer.account()
    assert len(account.names("frozen")) == sum(not p.requires_grad for p in everything)
    for p, then in zip(everything, before, strict=True):
        assert torch.equal(p, then) is any(p is one for one in frozen)
    unfreeze(model)
    assert all(p.requires_grad for p in everything)


def step(model, optimizer, scheduler):
    optimizer.zero_grad()
    model(torch.randn(8, 4)).square().sum().backward()
    torch.nn.utils.clip_grad_norm_(list(parameters_in(model)), 0.1)
    optimizer.step()
    scheduler.step()
