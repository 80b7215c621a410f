"""Networks whose costs are measured, and how."""

import itertools
import random

import numpy as np
import torch
from torch import nn

from freezeout import measure_costs
from tests.costs.costly import CostlySGD, network


def mlp(sizes=(8, 16, 12, 16, 4)):
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Noisy(nn.Module):
    """BatchNorm, dropout, randomness of three kinds, a counter, and a part kept in evaluation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
        self.drop = nn.Dropout(0.5)
        self.body = nn.Linear(8, 8)
        self.still = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        scale = random.random() + np.random.random()
        return self.head(self.still(self.body(self.drop(self.stem(x * scale)))))


def measured(clock, prices, *, seconds=0.0, **options):
    CostlySGD.seconds = seconds
    net = network(clock, prices)
    optimizer = CostlySGD(net.parameters(), lr=0.1)
    return measure_costs(net, torch.ones(2, 4), optimizer=optimizer, **options)
