"""Networks of timm, torchvision and transformers: cut as reviewed, and frozen without a mistake.

The cuts are in ``real/cuts.txt``; ``real/table.py`` says how to write that file again. timm and
torchvision are not among the packages of the other tests, because torchvision beside a torch
without CUDA takes transformers and Lightning down with it: ``make test-networks`` sees to that.
"""

from __future__ import annotations

import importlib.util

import pytest

from tests.layers.real.check import cut, freezes_right
from tests.layers.real.network import Network
from tests.layers.real.table import networks, read, short
from tests.layers.real.without_operators import available

NETWORKS = networks()
EXPECTED = read()


def is_missing(network: Network) -> str | None:
    if not network.name.startswith("transformers/"):
        return available()
    if importlib.util.find_spec("torchvision") is not None:
        return available()  # transformers imports it
    missing = importlib.util.find_spec("transformers") is None
    return "transformers is not installed" if missing else None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of these packages; those about prefixes are looked at
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_real_network(network: Network) -> None:
    reason = is_missing(network)
    if reason is not None:
        pytest.skip(reason)
    model, layers = cut(network)
    expected = EXPECTED[network.name]
    assert short(layers.names) == expected.layers
    held = [id(p) for layer in layers for _, p in layer.parameters]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    stops = freezes_right(network, model, layers)
    assert stops == (not expected.reason), "where backward does not stop, cuts.txt has the reason"


def test_every_network_has_its_line_and_enough_of_them() -> None:
    assert [network.name for network in NETWORKS] == list(EXPECTED)
    assert "why?" not in {expected.reason for expected in EXPECTED.values()}
    found = [name.partition("/")[0] for name in EXPECTED]
    assert found.count("timm") + found.count("torchvision") >= 60
    assert found.count("transformers") >= 40
