"""What keeps a frozen module in inference mode, and which modules keep their own flag."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from freezeout import FreezeOut, Freezer, reference, split_layers


def test_a_model_saved_whole_under_the_former_name_is_still_loaded():
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    Freezer(split_layers(net)).set_depth(1)
    saved = pickle.dumps(net, protocol=0)  # names stand in it as lines
    former = saved.replace(
        b"freezeout.freezing.eval_mode\nStayInEval\n", b"freezeout.freezing\n_StayInEval\n"
    )
    assert former != saved
    loaded = pickle.loads(former).train()
    assert not loaded[0].training
    assert loaded[1].training


class Encoder(nn.TransformerEncoderLayer):
    """A subclass that adds nothing."""


class Masked(nn.Module):
    """A text model whose encoder takes a padding mask."""

    def __init__(self, kind: type[nn.TransformerEncoderLayer]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 16)
        self.encoder = nn.TransformerEncoder(kind(16, 2, 32, batch_first=True), 3)
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=x == 0).mean(1))


@pytest.mark.parametrize("kind", [nn.TransformerEncoderLayer, Encoder])
def test_encoder_layers_freeze_one_by_one_behind_a_padding_mask(
    kind: type[nn.TransformerEncoderLayer],
) -> None:
    model = Masked(kind)
    freezer = Freezer(split_layers(model), strict=True)
    x = torch.randint(1, 20, (4, 6))
    x[:2, 4:] = 0
    for depth in range(1, len(freezer.layers)):
        freezer.set_depth(depth)
        model.zero_grad()
        model.train()(x).sum().backward()
        assert freezer.verified
        frozen = [p.grad is None for p in model.encoder.parameters()]
        assert sum(frozen) == len(frozen) * (depth - 1) // 3
    assert not any(m.training for m in model.modules() if isinstance(m, nn.Dropout))
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recurrent_networks_keep_their_flag_and_drop_nothing(
    kind: type[nn.RNNBase], dropout: float
) -> None:
    """Backward through one in evaluation mode is refused by cuDNN."""
    torch.manual_seed(0)
    rnn = kind(4, 4, num_layers=2, dropout=dropout)
    twin = copy.deepcopy(rnn).eval()
    model = nn.ModuleList([rnn, nn.Linear(4, 4), nn.Linear(4, 2)])
    freezer = Freezer(split_layers(model, layers=["0", "1", "2"]))
    freezer.set_depth(1)
    model.train()
    x = torch.randn(3, 2, 4)
    assert torch.equal(rnn(x)[0], twin(x)[0])
    assert rnn.training
    model.eval()
    assert not rnn.training
    freezer.unfreeze()
    model.train()
    assert rnn.dropout == dropout
    torch.manual_seed(1)
    assert torch.equal(rnn(x)[0], twin(x)[0]) == (dropout == 0)


class Stacked(nn.Module):
    """A masked encoder, a recurrent network and a last layer."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.text = Masked(Encoder)
        self.rnn = nn.GRU(2, 4, 2, dropout=dropout)
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.rnn(self.text(x).unsqueeze(0))[0])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_oracle_keeps_the_same_flags(dropout: float) -> None:
    """A run with `FreezeOut` ends in the weights of one in which nothing is frozen.

    Not to the bit: attention that needs no gradient runs in another kernel.
    """
    weights = []
    for kind in (FreezeOut, reference.RateOnly):
        model = Stacked(dropout).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(1)
        names = ["text.embed", "text.encoder.layers.*", "text.head", "rnn", "last"]
        scheduler: Any = kind(optimizer, model, 12, t0=0.2, spacing="linear", layers=names)
        for _ in range(12):
            x = torch.randint(1, 20, (4, 6))
            x[:2, 4:] = 0
            model.train()(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        weights.append(dict(model.named_parameters()))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=1e-12)
