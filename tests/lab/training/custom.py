"""A custom network, custom data, and what a run of them says."""

import re

import pytest

from freezeout.errors import RunError
from freezeout.lab.training import RunFolder, start

NETS = """
    class Net(nn.Module):
        def __init__(self, num_classes, in_channels, width=4):
            super().__init__()
            self.head = nn.Linear(width, num_classes)  # defined first, runs last
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, width, 3), nn.BatchNorm2d(width), nn.ReLU()
            )
            self.body = nn.Sequential(nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.ReLU())

        def forward(self, images):
            return self.head(self.body(self.stem(images)).mean((2, 3)))

    def make(num_classes, in_channels):
        return Net(num_classes, in_channels)
"""

DATA = """
    def load():
        drawn = torch.Generator().manual_seed(1)
        labels = torch.randint(0, 3, (64,), generator=drawn)
        images = torch.randint(0, 80, (64, 2, 6, 8), generator=drawn)
        images[:, 0] += 80 * labels.view(-1, 1, 1)  # something to learn
        images = images.to(torch.uint8)
        return images[:48], labels[:48], images[48:], labels[48:]
"""

CUSTOM = {
    "model": "nets:make",
    "data": "my_data:load",
    "batch_size": 16,
    "epochs": 4,
    "t0": 0.5,
    "device": "cpu",
    "threads": 1,
}
"""Twelve steps; three layers, of which two freeze, at steps 2 and 6."""

WORDS = [w for name, value in CUSTOM.items() for w in (f"--{name.replace('_', '-')}", str(value))]


def trained(folder, settings):
    run = RunFolder(folder)
    start(settings, run)
    return run


def refused(call, words):
    """The complaint, which is one line with these words in it."""
    with pytest.raises(RunError) as caught:
        call()
    message = str(caught.value)
    assert re.search(words, message), message
    assert "\n" not in message
    return message
