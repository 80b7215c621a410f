"""FreezeOut in Lightning: a small convolutional network on handwritten digits.

Run it with ``python examples/lightning_digits.py``; it takes some seconds and needs
``freezeout[lightning,cli]`` (the second for the data). What FreezeOut adds is the marked part of
``configure_optimizers``; with ``--callback`` the module stays as it is and a callback does it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import freezeout
from freezeout.integrations.lightning import FreezeOutCallback
from freezeout.lab.data import load


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Make a convolution, norm and activation: one layer that freezes as a whole."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Digits(pl.LightningModule):
    """An ordinary module; ``own_scheduler`` says who makes the FreezeOut."""

    def __init__(self, own_scheduler: bool = True, t0: float = 0.5) -> None:
        super().__init__()
        self.t0 = t0
        self.own_scheduler = own_scheduler
        body = [block(1, 32), block(32, 32), block(32, 64, 2), block(64, 64), block(64, 64)]
        self.net = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        """Log the accuracy in percent."""
        images, labels = batch
        hits = (self.net(images).argmax(1) == labels).float()
        self.log("accuracy", 100.0 * hits.mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Make SGD with momentum, and FreezeOut as its scheduler."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        if not self.own_scheduler:
            return optimizer
        scheduler = freezeout.FreezeOut(  # as any other scheduler, stepped after every batch
            optimizer, self, total_steps=int(self.trainer.estimated_stepping_batches), t0=self.t0
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def main(epochs: int = 8, t0: float = 0.5, callback: bool = False) -> tuple[float, int]:
    """Train; return the test accuracy in percent and the number of frozen layers."""
    pl.seed_everything(0)
    torch.set_num_threads(1)
    digits = load("digits")
    train = TensorDataset(digits.train_images.float() / 255, digits.train_labels)
    test = TensorDataset(digits.test_images.float() / 255, digits.test_labels)
    module = Digits(not callback, t0)
    freeze_out = FreezeOutCallback(t0=t0)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[freeze_out] if callback else [],
    )
    loader = DataLoader(train, batch_size=50, shuffle=True)
    begun = time.process_time()
    trainer.fit(module, loader, DataLoader(test, batch_size=360))
    seconds = time.process_time() - begun
    scheduler = freeze_out.scheduler if callback else trainer.lr_scheduler_configs[0].scheduler
    assert isinstance(scheduler, freezeout.FreezeOut)
    print(scheduler)
    accuracy = float(trainer.callback_metrics["accuracy"])
    print(
        f"{scheduler.frozen} layers frozen, test accuracy {accuracy:.1f} %, "
        f"{seconds:.2f} s of the processor"
    )
    return accuracy, scheduler.frozen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--t0", type=float, default=0.5, help="1 freezes nothing")
    parser.add_argument("--callback", action="store_true", help="leave the module as it is")
    given = parser.parse_args()
    main(given.epochs, given.t0, given.callback)
