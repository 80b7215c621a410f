"""The example that trainers' callbacks take from the training data, and that it leaves no mark."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from freezeout import FrozenPrefixWarning
from freezeout.integrations.first_samples import cut_by_samples, first_samples, for_forward


class Noisy(Dataset):
    """Draws from every kind of generator, its own and the common ones, and counts."""

    def __init__(self):
        self.calls = 0
        self.transforms = [{"own": torch.Generator().manual_seed(1)}, random.Random(2)]
        self.inner = Owner()

    def __len__(self):
        return 3

    def __getitem__(self, i):
        self.calls += 1
        own, python = self.transforms[0]["own"], self.transforms[1]
        numbers = [torch.rand((), generator=own), torch.rand(()), random.random(), np.random.rand()]
        numbers += [python.random(), self.inner.new.random(), self.inner.old.rand(), self.calls]
        return torch.tensor([i, *map(float, numbers)])


class Owner:
    def __init__(self):
        self.new, self.old = np.random.default_rng(3), np.random.RandomState(4)


class Collator:
    """Makes a generator when it is first called."""

    def __init__(self):
        self.generator = None

    def __call__(self, samples):
        self.generator = self.generator or torch.Generator().manual_seed(5)
        return torch.stack(samples) + torch.rand((), generator=self.generator)


def seeded():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def test_the_first_samples_leave_data_and_random_numbers_as_they_were():
    data, collate = Noisy(), Collator()
    twin, other = copy.deepcopy(data), copy.deepcopy(collate)
    seeded()
    batch = first_samples(data, collate)
    assert batch.shape == (2, 9)
    after = collate([data[i] for i in range(3)])
    seeded()
    assert torch.equal(after, other([twin[i] for i in range(3)]))
    assert torch.equal(batch[:, 1:3] - batch[:1, :1], (after[:2, 1:3] - after[:1, :1]))


def test_a_sample_may_be_a_batch():
    assert first_samples([torch.ones(4)], lambda x: x, batches=False).shape == (4,)
    assert first_samples([torch.ones(4)], torch.stack).shape == (1, 4)


class OneInput(nn.Module):
    def forward(self, x, scale=1.0):
        return x


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


A, B, C = (torch.full((2,), float(i)) for i in range(3))


@pytest.mark.parametrize(
    ("module", "batch", "example"),
    [
        (OneInput, A, A),
        (OneInput, [A, B], (A,)),
        (TwoInputs, (A, B, C), (A, B)),
        (OneInput, {"x": A, "label": B}, {"x": A}),
        (TwoInputs, {"x": A, "y": B, "label": C}, {"x": A, "y": B}),
        (OneInput, {"image": A, "label": B}, ({"image": A, "label": B},)),
    ],
)
def test_of_a_batch_forward_gets_what_it_takes(module, batch, example):
    assert str(for_forward(module(), batch)) == str(example)


class EndFirst(nn.Module):
    """Defined from the output to the input."""

    def __init__(self):
        super().__init__()
        self.end, self.middle, self.start = nn.Linear(5, 2), nn.Linear(6, 5), nn.Linear(4, 6)

    def forward(self, x):
        return self.end(self.middle(self.start(x)))


def failing():
    raise OSError("no such file")


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.ones(4)


def streamed():
    return first_samples(Endless(), torch.stack)


def listed():
    return first_samples([torch.ones(4)] * 3, torch.stack)


def test_a_model_is_cut_by_samples_or_not_at_all():
    model = EndFirst()
    assert cut_by_samples(model, lambda: torch.ones(2, 4)).names == ("start", "middle", "end")
    assert cut_by_samples(model, listed).names == ("start", "middle", "end")
    assert cut_by_samples(model, lambda: torch.ones(2, 3)) is None
    assert cut_by_samples(EndFirst().to("meta"), streamed) is None


@pytest.mark.parametrize(("take", "error"), [(streamed, "TypeError"), (failing, "OSError")])
def test_that_no_example_could_be_taken_is_told_once(take, error):
    with pytest.warns(FrozenPrefixWarning) as told:
        assert cut_by_samples(EndFirst(), take) is None
    (only,) = [str(warning.message) for warning in told]
    assert only.startswith(f"no example could be taken from the training data ({error})")
    assert "order of their definition" in only
    assert "Pass example=" in only
