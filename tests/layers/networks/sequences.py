"""Toy networks on sequences: recurrent ones, a mixture of experts, two inputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.layers.networks.attention import Attention, Block
from tests.layers.networks.convolutions import BasicBlock

VOCABULARY = 12


class StackedLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(VOCABULARY, 6)
        self.drop = nn.Dropout(0.1)
        self.rnn = nn.LSTM(6, 8, num_layers=2, dropout=0.1, batch_first=True)
        self.decoder = nn.Linear(8, VOCABULARY)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out, _ = self.rnn(self.drop(self.encoder(ids)))
        return self.decoder(self.drop(out)).mean(1)


class LoopOverCells(nn.Module):
    """Two cells in a loop over time: each runs many times, in turn with the other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 6)
        self.cells = nn.ModuleList([nn.GRUCell(6, 8), nn.GRUCell(8, 8)])
        self.head = nn.Linear(8, VOCABULARY)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states = [torch.zeros(len(ids), 8) for _ in self.cells]
        for t in range(ids.shape[1]):
            x = self.embed(ids[:, t])
            for i, cell in enumerate(self.cells):
                x = states[i] = cell(x, states[i])
        return self.head(x)


class Expert(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, 2 * dim)
        self.w2 = nn.Linear(2 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(F.silu(self.w1(x)))


class SparseMoE(nn.Module):
    """Each token goes to one expert; one that no token chose does not run."""

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, experts, bias=False)
        self.experts = nn.ModuleList(Expert(dim) for _ in range(experts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(0, 1)
        weight, choice = self.gate(flat).softmax(-1).max(-1)
        out = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            (taken,) = torch.where(choice == i)
            if len(taken):
                out = out.index_add(0, taken, expert(flat[taken]) * weight[taken, None])
        return out.view_as(x)


class MoEBlock(nn.Module):
    def __init__(self, dim: int, experts: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.moe = SparseMoE(dim, experts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.moe(self.norm2(x))


class MixtureOfExperts(nn.Module):
    def __init__(self, dim: int = 8, experts: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, dim)
        self.layers = nn.ModuleList(MoEBlock(dim, experts) for _ in range(2))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, VOCABULARY)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)).mean(1)


class CrossBlock(nn.Module):
    """Attends to its input and then to what the encoder gave. Its parts are a list, as in T5."""

    def __init__(self, dim: int, *, first: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Block(dim), Block(dim)])
        if first:  # one table of positions for all blocks, as in T5
            self.layer[0].attn.position_bias = nn.Embedding(16, dim)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        table = getattr(self.layer[0].attn, "position_bias", None)
        if table is not None:
            x = x + table(torch.arange(x.shape[1]))
        x = self.layer[0](x)
        return self.layer[1](x + memory.mean(1, keepdim=True))


class Coder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, dim)
        self.block = nn.ModuleList(CrossBlock(dim, first=i == 0) for i in range(2))
        self.final_norm = nn.LayerNorm(dim)

    def forward(self, ids: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        x = self.embed_tokens(ids)
        for block in self.block:
            x = block(x, x if memory is None else memory)
        return self.final_norm(x)


class EncoderDecoder(nn.Module):
    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.encoder = Coder(dim)
        self.decoder = Coder(dim)
        self.head = nn.Linear(dim, VOCABULARY)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(target, self.encoder(source))).mean(1)


class ImageTower(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.blocks = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.proj = nn.Linear(4, dim)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.proj(self.blocks(self.stem(image)).flatten(2).mT)


class TextTower(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, dim)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(2))
        self.norm = nn.LayerNorm(dim)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class TwoInputs(nn.Module):
    """A picture and a question: two towers, then a trunk over both.

    Defined trunk first and run last, so that only an example shows the order.
    """

    def __init__(self, dim: int = 8, *, trunk_first: bool = False) -> None:
        super().__init__()
        trunk = nn.Sequential(Block(dim), Block(dim))
        if trunk_first:
            self.trunk = trunk
        self.image = ImageTower(dim)
        self.text = TextTower(dim)
        if not trunk_first:
            self.trunk = trunk
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 3)

    def forward(self, image: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        joint = torch.cat([self.text(ids), self.image(image)], 1)
        return self.head(self.norm(self.trunk(joint)).mean(1))
