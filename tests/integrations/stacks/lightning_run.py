"""A small run in Lightning's trainer; as a script one of several processes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from freezeout import FreezeOut
from freezeout.integrations.lightning import FreezeOutCallback
from tests.integrations.stacks.processes import Exchange, report

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

SETTINGS: dict[str, Any] = {"t0": 0.4, "spacing": "linear"}
"""Four layers that freeze at 0.4, 0.6, 0.8, and never."""


class Module(pl.LightningModule):
    """Freezes by itself (``own=True``), or is trained with the callback."""

    def __init__(self, *, own: bool = False, manual: bool = False, norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.own = own
        self.automatic_optimization = not manual
        self.net = nn.Sequential(
            nn.Linear(8, 16),
            nn.BatchNorm1d(16) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Linear(16, 16),
            nn.ReLU(),
            nn.Linear(16, 16),
            nn.ReLU(),
            nn.Linear(16, 2),
        )
        self.loss = nn.CrossEntropyLoss()
        self.modes: list[list[bool]] = []

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        self.modes.append([self.net[1].training, self.net[7].training])
        loss: torch.Tensor = self.loss(self.net(batch[0]), batch[1])
        if not self.automatic_optimization:
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        assert not self.net[7].training
        self.log("val_loss", self.loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        if not self.own:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = FreezeOut(optimizer, self, steps, **SETTINGS)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def loader(batch_size: int = 8, *, distributed: bool = False) -> DataLoader[Any]:
    """Sixty-four samples in a fixed order."""
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    samples = TensorDataset(x, (x.sum(1) > 0).long())
    chosen = DistributedSampler(samples, shuffle=False) if distributed else None
    return DataLoader(samples, batch_size=batch_size, sampler=chosen)


def trainer(**changes: Any) -> pl.Trainer:
    """A quiet trainer on the CPU."""
    settings: dict[str, Any] = {
        "max_epochs": 5,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(**{**settings, **changes})


class Watch(pl.Callback):
    """Counts what is exchanged."""

    def __init__(self) -> None:
        self.exchange = Exchange()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.exchange.watch(trainer.strategy.model)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.exchange.end_step()


class Halves(pl.LightningDataModule):
    """Half of every batch for each process; loaders are made once these have found each other."""

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(4, distributed=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return loader(32)


def watched(folder: Path, resume: bool = False) -> tuple[Module, FreezeOut, list[int]]:
    """Trains with half of every batch; returns what was exchanged as well."""
    callback, watch = FreezeOutCallback(**SETTINGS), Watch()
    keep = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    module = Module(norm=False)
    run = trainer(
        strategy="ddp",
        devices=2,
        callbacks=[callback, watch, keep],
        enable_checkpointing=True,
        use_distributed_sampler=False,  # it would shuffle
    )
    saved = folder / "epoch=2.ckpt" if resume else None
    run.fit(module, datamodule=Halves(), ckpt_path=saved)
    return module, callback.scheduler, watch.exchange.steps


def main(folder: Path) -> None:
    """One of two processes: a whole run, and one that resumes it."""
    module, scheduler, exchanged = watched(folder)
    again, resumed, rest = watched(folder, resume=True)
    report(
        folder,
        module,
        again,
        frozen=[scheduler.frozen, resumed.frozen],
        exchanged=exchanged,
        resumed=rest,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
