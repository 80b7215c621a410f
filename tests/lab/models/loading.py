"""Loading a custom network without data."""

import re
import sys

import pytest
import torch

from freezeout.errors import RunError
from freezeout.lab.models import load_custom

CPU = torch.device("cpu")
META = torch.device("meta")  # stands in for an accelerator: everything can be moved there


def load(target, *, shape=None, batch_size=2, device=CPU, seed=1):
    return load_custom(target, shape=shape, batch_size=batch_size, device=device, seed=seed)


def refused(target, words, **options):
    """The complaint, which is one line with these words in it."""
    path = list(sys.path)
    with pytest.raises(RunError) as caught:
        load(target, **options)
    message = str(caught.value)
    assert re.search(words, message), message
    assert "\n" not in message
    assert sys.path == path
    return message


NET = "nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))"
