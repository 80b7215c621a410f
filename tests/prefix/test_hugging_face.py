"""Networks of transformers with masks that come and go, checkpointing, caches, dropped layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from freezeout import Layers, split_layers
from tests.prefix.dictionary import Dictionary
from tests.prefix.hugging_face import CONFIGURATIONS, Configuration
from tests.prefix.twins import Twins

pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

STEPS = (1, 2, 1, 2, 3, 1)


def twins(given: Configuration, source: Dictionary | None) -> Twins:
    def build() -> nn.Module:
        torch.manual_seed(0)
        model = given.build()
        given.prepare(model)
        return model

    def split(model: nn.Module) -> Layers:
        example = {k: v for k, v in given.batch(0).items() if k != "past_key_values"}
        return split_layers(model, example=example)

    return Twins(build, split, 0, source)


FEW = (
    *("bert, a mask in every second step", "gpt2, checkpointed", "bart, layers dropped"),
    *("llama, a mask that may hide nothing", "wav2vec2, masked and layers dropped"),
)
"""Configurations of the default run."""


@pytest.mark.parametrize("name", FEW)
def test_a_network_of_transformers_stays_exact(name: str) -> None:
    stays_exact(name, served=True)


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True], ids=["computed", "served"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_all_networks_of_transformers_stay_exact(name: str, served: bool) -> None:
    stays_exact(name, served)


def stays_exact(name: str, served: bool) -> None:
    given = CONFIGURATIONS[name]
    both = twins(given, Dictionary() if served else None)
    for share in given.depths:
        both.set_depth(int(share * (len(both.layers) - 1)) or 1)
        for seed, n in enumerate(STEPS):
            both.plain.load_state_dict(copy.deepcopy(both.captured.state_dict()))
            torch.manual_seed(seed)
            both.agree(lambda model, n=n: model(**given.batch(n)).loss)
    assert both.capture.captured == len(STEPS) * len(given.depths)
    both.close()
