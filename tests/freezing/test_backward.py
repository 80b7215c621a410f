"""The backward pass stops at the frozen prefix, whatever else the model uses."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from freezeout import Freezer, split_layers
from tests.contracts import bits, hooks, make_batch, make_net, modes
from tests.freezing.steps import backward, make

# The backward pass stops


class Packed:
    """Counts bytes saved for backward, apart for what happens before a module has run."""

    def __init__(self, boundary: nn.Module) -> None:
        self.before = self.after = 0
        self._passed = False
        self._handle = boundary.register_forward_hook(self._pass)
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda t: t)

    def _pass(self, *args: Any) -> None:
        self._passed = True

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._passed:
            self.after += tensor.nbytes
        else:
            self.before += tensor.nbytes
        return tensor

    def __enter__(self) -> Packed:
        self._hooks.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        self._hooks.__exit__(*args)
        self._handle.remove()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_prefix_saves_nothing_for_backward(depth: int) -> None:
    model, freezer = make()
    x, _ = make_batch("conv", 0)
    boundary = model.blocks[depth - 1]
    with Packed(boundary) as free:
        model(x)
    freezer.set_depth(depth)
    with Packed(boundary) as frozen:
        model(x)
    assert free.before > 0
    assert frozen.before == 0
    assert 0 < frozen.after <= free.after


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_the_graph_ends_at_active_parameters(depth: int) -> None:
    model, freezer = make(depth)
    reached: list[torch.Tensor] = []
    boundary: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, output: boundary.append(output))
    stack, seen = [model(make_batch("conv", 0)[0]).grad_fn], set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if hasattr(node, "variable"):
                reached.append(node.variable)
            stack += [parent for parent, _ in node.next_functions]
    active = [p for layer in freezer.layers[depth:] for _, p in layer.parameters]
    assert {id(p) for p in reached} == {id(p) for p in active}
    assert [t.grad_fn is None for t in boundary] == [i < depth for i in range(3)]


class Count(TorchDispatchMode):
    """Counts the operators of a backward pass by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_operators_of_the_backward_pass(depth: int) -> None:
    model, _ = make(depth)
    x, y = make_batch("conv", 0)
    loss = F.cross_entropy(model(x), y)
    with Count() as count:
        loss.backward()
    assert count.names.count("convolution_backward") == 3 - depth
    assert sum("batch_norm_backward" in name for name in count.names) == 3 - depth


# Beside other features of PyTorch


def test_activation_checkpointing_keeps_gradients() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.net.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return self.net.head(x.mean((2, 3)))

    names = ["net.blocks.0", "net.blocks.1", "net.blocks.2", "net.head"]
    model, (plain, _) = Checkpointed(), make(1)
    freezer = Freezer(split_layers(model, layers=names), strict=True)
    freezer.set_depth(1)
    for net in (model, plain):
        torch.manual_seed(5)
        backward(net)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None and q.grad is not None:
            assert torch.equal(bits(p.grad), bits(q.grad))
    assert freezer.verified
    assert hooks(model) == 0


@pytest.mark.parametrize("fullgraph", [True, False])
def test_compiled_models_keep_their_gradients_across_a_freeze(fullgraph: bool) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    plain = copy.deepcopy(model)
    freezer = Freezer(split_layers(model))
    x = torch.randn(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = torch.compile(model, backend="eager", fullgraph=fullgraph)
        for depth in (0, 1, 2, 0):
            freezer.set_depth(depth)
            for net in (compiled, plain):
                net.zero_grad()
                net(x).square().sum().backward()
            for i, (p, q) in enumerate(zip(model.parameters(), plain.parameters(), strict=True)):
                if i < 2 * depth:
                    assert p.grad is None
                else:
                    assert p.grad is not None
                    assert torch.equal(p.grad, q.grad)
    torch.compiler.reset()


def test_a_frozen_model_still_exports() -> None:
    model, _ = make(2)
    backward(model)
    model.eval()
    x, _ = make_batch("conv", 0)
    expected = model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, with another category in each version
        assert torch.equal(torch.jit.trace(model, x)(x), expected)
        assert torch.equal(torch.fx.symbolic_trace(model)(x), expected)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(10, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=x == 0))


def test_a_padded_transformer_goes_on_when_its_first_block_freezes() -> None:
    """Torch takes the mode of the first block for that of all, and would hand on nested tensors."""
    tokens = torch.randint(1, 10, (2, 5), generator=torch.Generator().manual_seed(0))
    tokens[0, 3:] = 0
    model, plain = Encoder(), Encoder()
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(2)
    for module in (plain.embed, *plain.encoder.layers[0].modules()):
        module.training = False
    for net in (model, plain):
        torch.manual_seed(1)
        net(tokens).square().sum().backward()
    assert freezer.verified
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == name.startswith(("embed", "encoder.layers.0."))
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)
    first = model.encoder.layers[0]
    assert not any(m.training for m in first.modules() if m is not first)
    model.eval()
    assert not first.training
    model.train()
    freezer.unfreeze()
    assert all(modes(model).values())
