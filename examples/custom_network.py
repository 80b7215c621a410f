"""FreezeOut in a custom loop: a small vision transformer with AdamW on handwritten digits.

Run it with ``python examples/custom_network.py``; it takes some seconds and needs
``freezeout[lab]`` for the data. What FreezeOut adds to an ordinary loop are the two marked lines.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import freezeout
from freezeout.lab.data import TensorLoader, load


class TinyViT(nn.Module):
    """Sixteen patches of 2x2 pixels, a class token, and a few transformer blocks."""

    def __init__(self, width: int = 48, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, kernel_size=2, stride=2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, 10) of images (batch, 1, 8, 8)."""
        x = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(self.norm(x[:, 0]))
        return logits


def main(epochs: int = 20) -> float:
    """Train and return the test accuracy in percent."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = load("digits")
    train = TensorLoader(digits.train_images, digits.train_labels, batch_size=50, device="cpu")
    model = TinyViT()
    decay: list[nn.Parameter] = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=4e-3)

    scheduler = freezeout.FreezeOut(  # one: in place of another scheduler
        optimizer,
        model,
        total_steps=epochs * len(train),
        warmup_steps=20,
        scale_cap=1.5,
        example=torch.zeros(1, 1, 8, 8),  # shows who uses cls_token and pos_embed first
    )
    print(scheduler)
    scheduler.freezer.add_listener(lambda e: print(f"step {e.step}: {e.name} froze"))

    for epoch in range(epochs):
        begun = time.perf_counter()
        for images, labels in train.epoch(epoch):
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()  # two: after every optimizer step
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {time.perf_counter() - begun:.2f} s")

    test = TensorLoader(
        digits.test_images,
        digits.test_labels,
        batch_size=360,
        device="cpu",
        shuffle=False,
        mean=train.mean,
        std=train.std,
    )
    model.eval()
    with torch.no_grad():
        correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in test.epoch(0))
    accuracy = 100.0 * correct / len(digits.test_labels)
    print(f"test accuracy {accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main()
