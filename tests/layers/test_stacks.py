"""What is opened: stacks of blocks however they are held, and what costs most of a step."""

import pytest
import torch
from torch import nn

from freezeout import Freezer, split_layers

IMAGES = torch.randn(2, 3, 8, 8)


class Block(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(torch.relu(self.conv1(x)))


class AddedStage(nn.Module):
    """As timm's RegNet: blocks that are added to a plain module."""

    def __init__(self, count):
        super().__init__()
        for i in range(count):
            self.add_module(f"b{i + 1}", Block())

    def forward(self, x):
        for block in self.children():
            x = block(x)
        return x


class Tree(nn.Module):
    """As DLA: two blocks and a map of both."""

    def __init__(self, count):
        super().__init__()
        self.tree1 = Block() if count == 1 else Tree(count - 1)
        self.tree2 = Block() if count == 1 else Tree(count - 1)
        self.root = nn.Conv2d(16, 8, 1)

    def forward(self, x):
        one = self.tree1(x)
        return self.root(torch.cat([one, self.tree2(one)], 1))


class SetStage(nn.Module):
    """Blocks that are set as attributes, with a map before them."""

    def __init__(self, count):
        super().__init__()
        self.down = nn.Conv2d(8, 8, 1)
        for i in range(count):
            setattr(self, f"block_{i}", Block())
        self.count = count

    def forward(self, x):
        x = self.down(x)
        for i in range(self.count):
            x = getattr(self, f"block_{i}")(x)
        return x


class Net(nn.Module):
    def __init__(self, s1, s2):
        super().__init__()
        self.stem, self.s1, self.s2 = nn.Conv2d(3, 8, 3, padding=1), s1, s2
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.s2(self.s1(self.stem(x))).mean((2, 3)))


def names(model, with_example):
    return " ".join(split_layers(model, example=IMAGES if with_example else None).names)


@pytest.mark.parametrize("with_example", [False, True])
@pytest.mark.parametrize(
    ("stage", "first", "second"),
    [
        (AddedStage, "s1.b1", "s2.b1 s2.b2 s2.b3"),
        (SetStage, "s1.down s1.block_0", "s2.down s2.block_0 s2.block_1 s2.block_2"),
    ],
)
def test_a_stage_that_adds_its_blocks_is_opened(stage, first, second, with_example):
    model = Net(stage(1), stage(3))
    assert names(model, with_example) == f"stem {first} {second} head"


class NamedStage(nn.Module):
    """Convolutions with their norms, added by number."""

    def __init__(self, count):
        super().__init__()
        for i in range(count):
            conv = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.add_module(f"b{i + 1}", conv)

    def forward(self, x):
        for block in self.children():
            x = block(x)
        return x


@pytest.mark.parametrize("with_example", [False, True])
def test_a_stage_that_adds_sequences_is_opened(with_example):
    """For its size alone: such sequences may be parts of a block as well."""
    expected = "stem s1 s2.b1.0 s2.b2.0 s2.b3.0 s2.b4.0 head"
    assert names(Net(NamedStage(2), NamedStage(4)), with_example) == expected
    assert names(Net(NamedStage(4), nn.Sequential(*(Block() for _ in range(5)))), True).startswith(
        "stem s1 s2.0 s2.1"
    )


class TwoSequences(NamedStage):
    """A block of two convolutions, each a sequence."""

    def __init__(self):
        super().__init__(2)

    def forward(self, x):
        return x + super().forward(x)


@pytest.mark.parametrize("with_example", [False, True])
def test_a_block_of_two_sequences_stays_whole(with_example):
    model = Net(TwoSequences(), nn.Sequential(Block(), Block()))
    assert names(model, with_example) == "stem s1 s2.0 s2.1 head"


@pytest.mark.parametrize("with_example", [False, True])
def test_trees_are_opened_to_their_blocks(with_example):
    inner = [f"s2.tree{i}.{part}" for i in (1, 2) for part in ("tree1", "tree2", "root")]
    expected = f"stem s1.tree1 s1.tree2 s1.root {' '.join(inner)} s2.root head"
    assert names(Net(Tree(1), Tree(2)), with_example) == expected


def test_what_was_opened_freezes_block_by_block():
    model = Net(AddedStage(1), AddedStage(3))
    freezer = Freezer(split_layers(model), torch.optim.SGD(model.parameters(), lr=0.1))
    freezer.set_depth(3)
    model(IMAGES).sum().backward()
    assert freezer.verified
    assert model.s2.b1.conv1.weight.grad is None
    assert model.s2.b2.conv1.weight.grad is not None


class Branches(nn.Module):
    """Alike and numbered, but side by side."""

    def __init__(self):
        super().__init__()
        self.branch1, self.branch2 = Block(), Block()

    def forward(self, x):
        return self.branch1(x) + self.branch2(x)


def test_an_example_shows_that_branches_do_not_run_in_turn():
    model = Net(Branches(), SetStage(2))
    assert names(model, True) == "stem s1 s2.down s2.block_0 s2.block_1 head"


class CrossAttention(nn.Module):
    """Two attentions of one class and number, but the rest of the block weighs as much."""

    def __init__(self):
        super().__init__()
        self.attn1, self.attn2 = Block(), Block()
        self.ff = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 8, 3, padding=1))

    def forward(self, x):
        return self.ff(self.attn2(self.attn1(x)))


@pytest.mark.parametrize("with_example", [False, True])
def test_a_block_with_two_parts_of_a_kind_is_no_stack(with_example):
    model = Net(nn.Sequential(CrossAttention()), nn.Sequential(*(Block() for _ in range(9))))
    assert names(model, with_example).startswith("stem s1.0 s2.0")


class Dense(nn.Module):
    """A block with a list of parts that are blocks themselves."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x):
        return x + sum(part(x) for part in self.parts)


class ShortStage(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Dense())

    def forward(self, x):
        return self.blocks(x)


class ShortStages(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.low, self.middle, self.high = ShortStage(), ShortStage(), ShortStage()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.high(self.middle(self.low(self.stem(x)))).mean((2, 3)))


@pytest.mark.parametrize("with_example", [False, True])
def test_the_blocks_of_short_stages_stay_whole(with_example):
    """Each is alone in its stage, so none is like another in one list."""
    expected = "stem low.blocks.0 middle.blocks.0 high.blocks.0 head"
    assert names(ShortStages(), with_example) == expected


class Two(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        return self.b(self.a(x))


class CostlyStart(nn.Module):
    """Few parameters at every position, then many for one."""

    def __init__(self):
        super().__init__()
        self.start = Two(16)
        self.middle, self.end = nn.Linear(3, 99), nn.Linear(99, 99)

    def forward(self, x):
        return self.end(self.middle(self.start(x).mean((2, 3))))


def test_an_example_opens_what_costs_most_of_a_step():
    model = CostlyStart()
    assert names(model, False) == "start middle end"
    assert names(model, True) == "start.a start.b middle end"


class Again(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 3, 1), Two(32), nn.Linear(3, 2)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(3):
            x = self.block(x)
        return self.head(x.mean((2, 3)))


def test_what_runs_several_times_stays_whole_as_the_example_shows():
    model = Again()
    assert names(model, False) == "stem block.a block.b head"
    assert names(model, True) == "stem block head"
    freezer = Freezer(
        split_layers(model, example=IMAGES), torch.optim.SGD(model.parameters(), lr=0.1)
    )
    freezer.set_depth(2)
    model(IMAGES).sum().backward()
    assert freezer.verified
