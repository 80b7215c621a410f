"""Every network of the tests, at every cut and depth: captured is bit for bit plain freezing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.layers.networks.contract import Cut, Network
from tests.layers.test_networks import CASES, NETWORKS
from tests.prefix.dictionary import Dictionary
from tests.prefix.twins import Twins, flops, frozen_flops

FEW = {
    *("resnet", "densenet", "unet-of-lists", "vit-timm", "gru-cells", "mixture-of-experts"),
    *("momentum-contrast", "hf-bert", "hf-t5-untied"),
}
"""Networks of the default run: each has something that the others have not."""

FILE = Path(__file__).with_name("computed.txt")
"""Depths at which a served pass still computes some of the frozen layers, and why."""


def twins(network: Network, cut: Cut, example: bool, source: Dictionary | None = None) -> Twins:
    return Twins(network.model, lambda m: network.split(cut, m, example=example), 0, source)


def needs(network: Network) -> None:
    if network.needs is not None:
        pytest.importorskip(network.needs)


def best(network: Network) -> tuple[Cut, bool]:
    """The cut that shows the true order of execution: named layers, else from an example."""
    named = [cut for cut in network.cuts if cut.layers]
    if named:
        return named[-1], False
    cut = max(network.cuts, key=lambda cut: cut.how == "example")
    return cut, cut.how != "plain"


def loss(network: Network, model: nn.Module, n: int, seed: int) -> torch.Tensor:
    """As `Network.loss`, but what is drawn differs from pass to pass, so a stored draw shows."""
    batch = network.batch(n)
    torch.manual_seed(seed)
    if isinstance(batch, dict):
        return model(**batch).loss
    out = model(*batch) if isinstance(batch, tuple) else model(batch)
    target = (torch.arange(len(out)) + n) % out.shape[1]
    return F.cross_entropy(out.flatten(2).mean(2) if out.ndim > 2 else out, target)


def captured_alike(name: str, cut: Cut, example: bool) -> int:
    network = NETWORKS[name]
    both = twins(network, cut, example)
    passes = 0
    for depth in range(1, len(both.layers)):
        both.set_depth(depth)
        for n in (1, 1, 2, 2):
            both.plain.load_state_dict(copy.deepcopy(both.captured.state_dict()))
            both.agree(lambda model, n=n: network.loss(model, n))
            passes += 1
        assert both.capture.captured == passes, both.capture.plain
    both.close()
    return len(both.layers) - 1


@pytest.mark.parametrize(
    ("name", "cut", "example"),
    [case for case in CASES if case.values[0] in ("resnet", "swin", "hf-llama") and case.values[2]],
)
def test_captured_passes_are_those_of_plain_freezing(name: str, cut: Cut, example: bool) -> None:
    needs(NETWORKS[name])
    captured_alike(name, cut, example)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cut", "example"), CASES)
def test_all_captured_passes_are_those_of_plain_freezing(
    name: str, cut: Cut, example: bool
) -> None:
    needs(NETWORKS[name])
    captured_alike(name, cut, example)


def served_alike(name: str) -> list[int]:
    """Returns the depths at which a served pass ran any of the frozen layers' FLOPs."""
    network = NETWORKS[name]
    cut, example = best(network)
    source = Dictionary()
    both = twins(network, cut, example, source)
    computed = []
    for depth in range(1, len(both.layers)):
        both.set_depth(depth)
        source.table.clear()
        for seed, n in enumerate((1, 2, 1, 2, 1)):
            both.plain.load_state_dict(copy.deepcopy(both.captured.state_dict()))
            both.agree(lambda model, n=n, seed=seed: loss(network, model, n, seed))
        plain = flops(lambda: loss(network, both.plain, 1, 9))
        served = flops(lambda: loss(network, both.captured, 1, 9))
        frozen = frozen_flops(
            both.plain, both.freezers[0].layers, depth, lambda: loss(network, both.plain, 1, 9)
        )
        if frozen and plain - served < frozen:
            computed.append(depth)
    both.close()
    return computed


def expected() -> dict[str, list[int]]:
    rows = [line.split(" | ") for line in FILE.read_text("utf-8").splitlines() if line[:1] != "#"]
    return {name: [int(depth) for depth in depths.split()] for name, depths, _, _ in rows}


@pytest.mark.parametrize("name", sorted(FEW))
def test_served_passes_are_exact_and_leave_the_frozen_layers_out(name: str) -> None:
    needs(NETWORKS[name])
    assert served_alike(name) == expected().get(name, [])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_all_served_passes_are_exact_and_leave_the_frozen_layers_out(name: str) -> None:
    needs(NETWORKS[name])
    assert served_alike(name) == expected().get(name, [])
