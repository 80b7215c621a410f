"""The printed table of layers."""

import pytest

from freezeout import Schedule, split_layers
from tests.layers.convolutional import ResNet
from tests.layers.examples import mlp


def test_table():
    layers = split_layers(ResNet())
    assert str(layers) == layers.table()
    assert layers.table() == (
        "layer  name      parameters\n"
        "    0  conv1            116\n"
        "    1  layer1.0         304\n"
        "    2  layer1.1         304\n"
        "    3  layer2.0         944\n"
        "    4  layer2.1       1,184\n"
        "    5  fc                18"
    )


def test_table_with_freeze_times():
    layers = split_layers(ResNet())
    assert layers.table(Schedule().freeze_times(6)) == (
        "layer  name      parameters  freezes at\n"
        "    0  conv1            116      0.5120\n"
        "    1  layer1.0         304      0.5927\n"
        "    2  layer1.1         304      0.6815\n"
        "    3  layer2.0         944      0.7787\n"
        "    4  layer2.1       1,184      0.8847\n"
        "    5  fc                18       never"
    )


def test_table_refuses_times_of_another_number_of_layers():
    with pytest.raises(ValueError, match="times must hold") as caught:
        split_layers(mlp()).table((0.5, 1.0))
    assert str(caught.value) == (
        "times must hold one freeze time for each of the 3 layers, got 2. "
        "Take them from Schedule.freeze_times(3)."
    )
