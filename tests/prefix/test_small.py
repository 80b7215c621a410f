"""Difficult things in the code between frozen layers: each stays bit for bit as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.prefix.dictionary import Dictionary
from tests.prefix.small import CASES, batch, small_twins


def loss(model: nn.Module, n: int) -> torch.Tensor:
    return model(batch(n)).square().mean()


@pytest.mark.parametrize(
    ("depth", "served"), [(2, False), (2, True), (1, True)], ids=["computed", "served", "first"]
)
@pytest.mark.parametrize("name", CASES)
def test_what_containers_do_stays_exact(name: str, served: bool, depth: int) -> None:
    source = Dictionary() if served else None
    both = small_twins(CASES[name], source, depth)
    for seed, n in enumerate((1, 2, 1, 3, 1)):
        torch.manual_seed(seed)
        both.agree(lambda model, n=n: loss(model, n))
    assert both.capture.captured == 5
    for one, other in zip(kept(both.plain), kept(both.captured), strict=True):
        assert type(other) is torch.Tensor
        assert torch.equal(one, other)
    both.close()


def kept(model: nn.Module) -> list[torch.Tensor]:
    return [model.kept, *model.parts] if hasattr(model, "kept") else []
