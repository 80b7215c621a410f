"""Parts that return another size in evaluation mode, when they freeze."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import FreezeOut, Freezer, PrefixError, split_layers
from tests.contracts import differing, snapshot


class Up(nn.Module):
    """Gives images of twice the size when it does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.norm(self.conv(x))
        return x if self.training else F.interpolate(x, scale_factor=2)


class Crop(Up):
    """Drops rows at random while it trains, always as many."""

    def forward(self, x: torch.Tensor) -> Any:
        x = self.norm(self.conv(x))
        return x[:, :, torch.randperm(x.shape[2])[:5].sort()[0]] if self.training else x


class Listed(Up):
    """Gives a list, of another length too."""

    def forward(self, x: torch.Tensor) -> Any:
        x = self.norm(self.conv(x))
        return [x] if self.training else [F.avg_pool2d(x, 2)] * 2


class Net(nn.Module):
    """Notes the size that what learns gets to see."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.part = nn.Conv2d(1, 4, 3), kind()
        self.conv, self.head = nn.Conv2d(4, 4, 3), nn.Linear(4, 2)
        self.sizes: set[tuple[int, ...]] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.part(self.stem(x))
        x = found[0] if isinstance(found, list) else found
        self.sizes.add(tuple(x.shape[2:]))
        return self.head(self.conv(x).mean((2, 3)))


NAMES = ["stem", "part", "conv", "head"]


@pytest.mark.parametrize("kind", [Up, Crop, Listed])
def test_what_learns_goes_on_at_the_size_of_training(kind: type[nn.Module]) -> None:
    model = Net(kind).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings: dict[str, Any] = {"t0": 0.25, "spacing": "linear", "strict": True}
    scheduler = FreezeOut(optimizer, model, 12, layers=NAMES, **settings)
    for _ in range(12):
        before, frozen = snapshot(model), scheduler.frozen
        model(torch.randn(4, 1, 12, 12)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        changed = differing(before, snapshot(model))
        assert not [name for name in changed if name.startswith(("-", *NAMES[:frozen]))]
        assert [name for name in changed if name.startswith(NAMES[frozen])]
        scheduler.step()
    assert scheduler.frozen == 3
    assert len(model.sizes) == 1
    assert model.part.training
    assert not model.part.norm.training
    model.eval()(torch.randn(4, 1, 12, 12))
    assert len(model.sizes) == 2


class Chance(Up):
    """Returns a size by chance, in both modes; its class reads the mode."""

    def forward(self, x: torch.Tensor) -> Any:
        x = F.dropout(self.norm(self.conv(x)), 0.5, self.training)
        return x[:, :, : 4 + int(torch.randint(6, ()))]


class Grows(Up):
    """Returns what it has seen so far, in both modes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> Any:
        x = F.dropout(self.norm(self.conv(x)), 0.5, self.training)
        self.seen.append(x.detach())
        return torch.cat(self.seen, 2)


@pytest.mark.parametrize("kind", [Chance, Grows])
def test_sizes_that_the_mode_does_not_choose_decide_nothing(kind: type[nn.Module]) -> None:
    model = Net(kind).train()
    freezer = Freezer(split_layers(model, layers=NAMES), strict=True)
    freezer.look_ahead()
    for _ in range(2):
        model(torch.randn(4, 1, 12, 12))
    freezer.set_depth(2)
    for _ in range(4):
        model(torch.randn(4, 1, 12, 12)).sum().backward()
    assert not model.part.training
    assert kind is Chance or len(model.part.seen) == 6


class Inner(nn.Conv2d):
    """Has a mode that the part around it reads."""


class ByInner(Up):
    """Chooses the size by the mode of a part that is not PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Inner(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.norm(self.conv(x))
        return x if self.conv.training else F.interpolate(x, scale_factor=2)


def test_a_size_that_the_mode_of_what_is_inside_chooses_is_refused() -> None:
    model = Net(ByInner).train()
    freezer = Freezer(split_layers(model, layers=NAMES), strict=True)
    freezer.set_depth(2)
    with pytest.raises(PrefixError, match=r"ByInner is frozen, .* the mode of what is inside it"):
        model(torch.randn(4, 1, 12, 12))


def test_hooks_of_others_inside_see_no_pass_on_the_side() -> None:
    model = Net(Chance).train()
    freezer = Freezer(split_layers(model, layers=NAMES), strict=True)
    freezer.look_ahead()
    model(torch.randn(4, 1, 12, 12))
    seen: list[bool] = []
    model.part.norm.register_forward_hook(lambda module, args, out: seen.append(module.training))
    freezer.set_depth(2)
    for _ in range(2):
        model(torch.randn(4, 1, 12, 12))
    assert seen == [False, False]
