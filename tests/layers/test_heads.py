"""Heads side by side are one last layer, whichever runs or is defined last."""

import warnings
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freezeout import Freezer, FrozenPrefixWarning, split_layers

INPUT = torch.randn(4, 8)


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class Trunk(nn.Module):
    """Two blocks and a norm, then heads that a subclass adds."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.norm = Body(), Body(), nn.LayerNorm(8)

    def trunk(self, x):
        return self.norm(torch.relu(self.body(torch.relu(self.stem(x)))))


class Distilled(Trunk):
    def __init__(self):
        super().__init__()
        self.head, self.head_dist = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x):
        x = self.trunk(x)
        return (self.head(x) + self.head_dist(x)) / 2


class Detector(Trunk):
    """Classes by a map, boxes by an MLP."""

    def __init__(self):
        super().__init__()
        self.classes = nn.Linear(8, 5)
        self.boxes = MLP()

    def forward(self, x):
        x = self.trunk(x)
        return {"logits": self.classes(x), "boxes": self.boxes(x).sigmoid()}


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class Tasks(Trunk):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({"one": nn.Linear(8, 3), "two": nn.Linear(8, 6)})

    def forward(self, x):
        x = self.trunk(x)
        return [head(x) for head in self.heads.values()]


class Auxiliary(Trunk):
    """A head in the middle, defined and run before the end."""

    def __init__(self):
        super().__init__()
        self.auxiliary, self.end = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        early = self.auxiliary(x)
        return self.end(self.norm(self.body(x))), early


class LossAlone(Trunk):
    """The last head's output goes nowhere without labels."""

    def __init__(self):
        super().__init__()
        self.classifier, self.auxiliary = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x, labels=None):
        x = self.trunk(x)
        out, other = self.classifier(x), self.auxiliary(x)
        return out if labels is None else F.cross_entropy(out + 0.4 * other, labels)


class Scaled(Trunk):
    """A learned scale, on the model itself, comes after both."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(8, 5), nn.Linear(8, 5)
        self.logit_scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = self.trunk(x)
        return self.logit_scale.exp() * (self.left(x) @ self.right(x).T)


HEADS = {
    Distilled: ("head", "head_dist"),
    Detector: ("classes", "boxes"),
    Tasks: ("heads.one", "heads.two"),
    Auxiliary: ("auxiliary", "end"),
    LossAlone: ("classifier", "auxiliary"),
    Scaled: ("left", "right"),
}


def terms(given):
    given = given.values() if isinstance(given, dict) else given
    return [given] if isinstance(given, torch.Tensor) else list(given)


@pytest.mark.parametrize("kind", HEADS, ids=lambda kind: kind.__name__)
def test_with_an_example_heads_are_one_last_layer(kind):
    model = kind()
    layers = split_layers(model, example=INPUT)
    assert layers.names[:2] == ("stem", "body")
    assert len(layers) == 3
    for name in HEADS[kind]:
        for parameter in model.get_submodule(name).parameters():
            assert layers.index_of(parameter) == 2


class RadianceField(nn.Module):
    """As in NeRF: a map to the density leaves the trunk, the colour goes on through more maps."""

    def __init__(self):
        super().__init__()
        self.points = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.views, self.feature = nn.Linear(11, 4), nn.Linear(8, 8)
        self.density, self.colour = nn.Linear(8, 1), nn.Linear(4, 3)

    def forward(self, x):
        for layer in self.points:
            x = layer(x).relu()
        density, x = self.density(x), torch.cat([self.feature(x), x[:, :3]], -1)
        return torch.cat([self.colour(self.views(x).relu()), density], -1)


def test_a_head_in_mid_model_is_known_by_an_example_alone():
    model = RadianceField()
    trunk = ("points.0", "points.1")
    assert split_layers(model).names == (*trunk, "views", "feature", "density", "colour")
    layers = split_layers(model, example=INPUT)
    assert layers.names == (*trunk, "feature", "views", "colour")
    assert layers.index_of(model.density.weight) == layers.index_of(model.colour.weight) == 4


@pytest.mark.parametrize("kind", [k for k in HEADS if k is not LossAlone], ids=lambda k: k.__name__)
def test_every_head_learns_to_the_end_and_backward_stops_before(kind):
    model = kind()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    freezer = Freezer(split_layers(model, example=INPUT), optimizer)
    freezer.set_depth(2)
    sum(term.square().sum() for term in terms(model(INPUT))).backward()
    assert freezer.verified
    for name in HEADS[kind]:
        assert all(p.grad is not None for p in model.get_submodule(name).parameters())
    assert model.stem.fc1.weight.grad is None
    assert model.body.fc1.weight.grad is None


class InTurn(Trunk):
    """What looks like heads, but one feeds the other."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 5), nn.Linear(5, 8)

    def forward(self, x):
        first = self.first(self.trunk(x))
        return first, self.second(first)


class Custom(torch.autograd.Function):
    """A function that torch shows to nobody."""

    @staticmethod
    def forward(ctx, x):
        return torch.as_tensor(x.detach().numpy() * 2)

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


class Doubled(nn.Module):
    def forward(self, x):
        return Custom.apply(x)


class Hidden(InTurn):
    def __init__(self):
        super().__init__()
        self.twice = Doubled()

    def forward(self, x):
        first = self.first(self.trunk(x))
        return first, self.second(self.twice(first))


class Written(InTurn):
    """The first writes into a buffer, through a view, which the second reads."""

    def forward(self, x):
        first = self.first(self.trunk(x))
        room = torch.zeros(4, 2, 5)
        room[:, 0] = first
        room[:, 1].add_(first)
        return first, self.second(room.sum(1))


class Computed(InTurn):
    """The weights are made from parameters before they are used."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Identity()

    def forward(self, x):
        x = F.linear(self.trunk(x), F.normalize(self.first.weight))
        return x, F.linear(x, self.second.weight * 2)


class Through(InTurn):
    """A scale on the model itself stands between the two."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        first = self.first(self.trunk(x))
        return first, self.second(first * self.scale)


class Merged(nn.Module):
    """A map of which a part is the product of two."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 8))
        self.a, self.b = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(5, 2))

    def forward(self, x):
        return F.linear(x, self.weight + self.b @ self.a)


class LowRank(InTurn):
    def __init__(self):
        super().__init__()
        self.body, self.first, self.second = nn.Linear(8, 8), Merged(), Merged()
        self.back = nn.Linear(5, 8)
        self.norm = nn.Identity()

    def forward(self, x):
        first = self.first(self.body(self.stem(x)))
        return first, self.second(self.back(first))


class WeightNormed(InTurn):
    def __init__(self):
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(self.first)
        self.second = nn.utils.parametrizations.spectral_norm(self.second)


@pytest.mark.parametrize(
    "kind",
    [InTurn, Hidden, Written, Computed, Through, WeightNormed],
    ids=lambda kind: kind.__name__,
)
def test_what_feeds_another_is_no_head_beside_it(kind):
    layers = split_layers(kind(), example=INPUT)
    assert layers.names == ("stem", "body", "first", "second")


def test_a_map_that_is_made_of_products_feeds_what_comes_next():
    layers = split_layers(LowRank(), example=INPUT)
    assert layers.names == ("stem", "body", "first", "back", "second")


def test_of_two_heads_the_one_that_does_not_learn_counts_not():
    model = Distilled()
    model.head_dist.requires_grad_(False)
    layers = split_layers(model, example=INPUT)
    assert layers.names == ("stem", "body", "head")


def test_a_head_that_is_tied_to_the_embedding_is_one_too():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body = nn.Embedding(11, 8), nn.Linear(8, 8)
            self.lm_head, self.other = nn.Linear(8, 11, bias=False), nn.Linear(8, 3)
            self.lm_head.weight = self.embed.weight

        def forward(self, ids):
            x = torch.relu(self.body(self.embed(ids)))
            return self.lm_head(x), self.other(x)

    model = Tied()
    layers = split_layers(model, example=torch.zeros(2, 3, dtype=torch.long))
    assert layers.names == ("body", "lm_head")
    assert layers.index_of(model.other.weight) == layers.index_of(model.lm_head.weight) == 1


# --- Without an example ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Distilled, Tasks], ids=lambda kind: kind.__name__)
def test_bare_heads_are_told_by_their_widths(kind):
    model = kind()
    layers = split_layers(model)
    assert len(layers) == 3
    assert all(
        layers.index_of(p) == 2
        for name in HEADS[kind]
        for p in model.get_submodule(name).parameters()
    )


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (InTurn(), ("stem", "body", "first", "second")),
        (Chain(), ("a", "b", "c")),
        (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 16), nn.GLU(), nn.Linear(8, 3)), None),
    ],
)
def test_maps_that_may_follow_one_another_stay_apart(model, names):
    assert split_layers(model).names == (names or ("0", "1", "3"))


class Deep(Trunk):
    """An auxiliary head with parts of its own."""

    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5))
        self.more, self.end = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.trunk(x)
        return self.end(self.more(x)), self.auxiliary(x)


def test_other_heads_are_named_in_a_warning():
    with pytest.warns(FrozenPrefixWarning) as caught:
        split_layers(Deep())
    assert [str(warning.message) for warning in caught] == [
        "'auxiliary.2' looks like a head beside 'end', and only the last layer never freezes. Give "
        "example=, which shows what it is, or if it is a head name both as the last layer: "
        "layers=[..., ('auxiliary.2', 'end')]."
    ]
    assert caught[0].filename == __file__
    with pytest.warns(FrozenPrefixWarning, match=r"'classes' looks like a head beside 'boxes'"):
        split_layers(Detector())


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.fc2(torch.relu(self.fc1(self.norm(x))))


class HeadFirst(nn.Module):
    """As some of transformers' models: what runs last is defined first."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(8, 3)
        self.embed, self.blocks = nn.Embedding(11, 8), nn.Sequential(Block(), Block())

    def forward(self, ids):
        return self.classifier(self.blocks(self.embed(ids)))


def test_a_head_that_is_defined_first_is_named_in_a_warning():
    with pytest.warns(FrozenPrefixWarning, match="'classifier' is defined first but looks like"):
        assert split_layers(HeadFirst()).names[0] == "classifier"
    layers = split_layers(HeadFirst(), example=torch.zeros(2, 3, dtype=torch.long))
    assert layers.names == ("embed", "blocks.0", "blocks.1", "classifier")


class Generator(nn.Module):
    """A map first, that is reshaped: no head."""

    def __init__(self):
        super().__init__()
        self.start, self.a, self.b = nn.Linear(8, 64), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        return self.b(self.a(self.start(x).view(-1, 4, 4, 4)))


class Joined(nn.Module):
    """A map for numbers beside an embedding, joined by what comes next."""

    def __init__(self):
        super().__init__()
        self.numbers, self.kinds = nn.Linear(5, 6), nn.Embedding(4, 2)
        self.body, self.end = nn.Linear(8, 8), nn.Linear(8, 3)


@pytest.mark.parametrize("kind", [Generator, Joined, Trunk])
def test_other_networks_bring_no_warning(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split_layers(kind())


def stack(*widths: int) -> nn.Sequential:
    return nn.Sequential(
        *(part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.Tanh()))
    )


def of_parts(**parts: nn.Module) -> nn.Module:
    model = nn.Module()
    for name, part in parts.items():
        model.add_module(name, part)
    return model


@pytest.mark.parametrize("critic_first", [False, True])
@pytest.mark.parametrize("trunk", [False, True])
def test_a_stack_beside_another_is_told_without_an_example(critic_first, trunk):
    one, other = stack(8, 64, 64, 4), stack(8, 64, 64, 1)
    parts = {"critic": other, "actor": one} if critic_first else {"actor": one, "critic": other}
    model = of_parts(**({"trunk": stack(5, 32, 8)} if trunk else {}), **parts)
    first, second = parts
    with pytest.warns(
        FrozenPrefixWarning, match=f"'{first}' looks like it stands beside .{second}"
    ):
        split_layers(model)


@pytest.mark.parametrize(
    "model",
    [
        of_parts(encoder=stack(8, 64, 4), decoder=stack(4, 64, 8)),
        of_parts(one=stack(8, 16, 8), two=stack(8, 16, 8), head=nn.Linear(8, 3)),
        of_parts(value=stack(8, 16, 6), gate=stack(8, 16, 6), out=stack(6, 16, 3)),
    ],
    ids=["autoencoder", "one after the other", "gated"],
)
def test_stacks_that_are_taken_are_no_heads(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split_layers(model)
