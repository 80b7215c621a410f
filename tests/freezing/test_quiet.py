"""Modules that change in their forward pass, also in evaluation mode, while they are frozen."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from freezeout import Freezer, split_layers, unfreeze
from tests.contracts import differing, snapshot


class Words(nn.Module):
    """An embedding and a head; or one that averages by itself."""

    def __init__(self, bag: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        kind = nn.EmbeddingBag if bag else nn.Embedding
        self.embed = kind(20, 8, max_norm=1.0)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        found = self.embed(tokens)
        return self.head(self.body(found if found.ndim == 2 else found.mean(1)))


@pytest.mark.parametrize("bag", [False, True])
def test_embeddings_that_renormalise_stand_still_while_frozen(bag: bool) -> None:
    model = Words(bag)
    plain = copy.deepcopy(model)
    freezer = Freezer(split_layers(model), strict=True)
    freezer.set_depth(1)
    before = snapshot(model)
    tokens = torch.arange(20).reshape(10, 2)
    with torch.no_grad():
        expected = plain.train()(tokens)
    model.train()
    output = model(tokens)
    output.sum().backward()
    assert torch.equal(output, expected)
    assert differing(before, snapshot(model)) == []
    assert model.body.weight.grad is not None
    assert freezer.verified
    freezer.unfreeze()
    assert model.embed.max_norm == 1.0
    with torch.no_grad():
        model.embed.weight.mul_(9)
    before = snapshot(model)
    model(tokens)
    assert differing(before, snapshot(model)) == ["embed.weight"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_what_was_stopped_goes_on_in_a_copy_that_is_unfrozen(duplicate: Any) -> None:
    model = nn.Sequential(
        nn.Embedding(9, 4, max_norm=2.0), nn.LSTM(4, 4, 2, dropout=0.5), nn.Linear(4, 2)
    )
    Freezer(split_layers(model, layers=["0", "1", "2"])).set_depth(2)
    twin = duplicate(model)
    unfreeze(twin)
    assert (twin[0].max_norm, twin[1].dropout) == (2.0, 0.5)
    assert (model[0].max_norm, model[1].dropout) == (None, 0.0)
    assert not [key for m in twin.modules() for key in vars(m) if "freezeout" in key]


def quantizable() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()),
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()),
        nn.Linear(8, 2),
    )


def prepare(model: nn.Module, *, fused: bool) -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    if fused:
        model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    else:
        kind = quantization.FakeQuantize.with_args(
            observer=quantization.MovingAverageMinMaxObserver, quant_min=0, quant_max=255
        )
        weights = quantization.default_weight_fake_quant
        model.qconfig = quantization.QConfig(activation=kind, weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it moves to another package
        quantization.prepare_qat(model.train(), inplace=True)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("prepared_first", [True, False])
def test_quantization_aware_training(prepared_first: bool, fused: bool) -> None:
    model = quantizable()
    if prepared_first:
        prepare(model, fused=fused)
    freezer = Freezer(split_layers(model, layers=["0", "1", "2"]), strict=True)
    if not prepared_first:
        prepare(model, fused=fused)
    model.train()(torch.randn(8, 8))
    freezer.set_depth(1)
    before = snapshot(model)
    for _ in range(3):
        model.train()(9 * torch.randn(8, 8)).sum().backward()
    changed = differing(before, snapshot(model))
    assert not [name for name in changed if name.startswith("0.")]
    assert [name for name in changed if "activation_post_process" in name]
    assert freezer.verified
    assert model[0][0].weight.grad is None
    freezer.unfreeze()
    before = snapshot(model)
    model.train()(99 * torch.randn(8, 8)).sum().backward()
    changed = differing(before, snapshot(model))
    assert [name for name in changed if name.startswith("0.") and "activation_post" in name]
    assert model[0][0].weight.grad is not None


def test_observers_by_themselves() -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    model = quantizable()
    for i in (0, 1):
        model[i].append(quantization.MinMaxObserver())
    freezer = Freezer(split_layers(model, layers=["0", "1", "2"]), strict=True)
    freezer.set_depth(1)
    before = snapshot(model)
    model.train()(torch.randn(8, 8)).sum().backward()
    changed = differing(before, snapshot(model))
    assert "1.3.min_val" in changed
    assert "0.3.min_val" not in changed
    freezer.unfreeze()
    model(torch.randn(8, 8))
    assert "0.3.min_val" in differing(before, snapshot(model))
