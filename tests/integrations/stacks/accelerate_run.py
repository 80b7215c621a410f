"""A small loop with Accelerate; as a script one of several processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from freezeout import FreezeOut
from tests.integrations.stacks.processes import Exchange, report

SETTINGS: dict[str, Any] = {"t0": 0.4, "spacing": "linear"}
"""Four layers that freeze at 0.4, 0.6, 0.8, and never."""


class Run:
    """Everything that a loop holds, prepared."""

    def __init__(
        self,
        batch_size: int = 8,
        accumulation: int = 1,
        total_steps: int = 40,
        scaler: torch.amp.GradScaler | None = None,
        **settings: Any,
    ) -> None:
        self.accelerator = Accelerator(
            cpu=True, gradient_accumulation_steps=accumulation, **settings
        )
        self.accelerator.scaler = scaler  # as "fp16" has it, which asks for a GPU
        torch.manual_seed(0)
        hidden = [layer for _ in range(2) for layer in (nn.ReLU(), nn.Linear(16, 16))]
        model = nn.Sequential(nn.Linear(8, 16), *hidden, nn.ReLU(), nn.Linear(16, 2))
        x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
        loader = DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=batch_size)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        self.freeze_out = FreezeOut(optimizer, model, total_steps=total_steps, **SETTINGS)
        self.model, self.optimizer, self.loader, self.scheduler = self.accelerator.prepare(
            model, optimizer, loader, self.freeze_out
        )
        self.exchange = Exchange()
        self.history: list[tuple[int, float]] = []

    def epochs(self, count: int) -> None:
        for _ in range(count):
            for x, y in self.loader:
                with self.accelerator.accumulate(self.model):
                    self.accelerator.backward(F.cross_entropy(self.model(x), y))
                    if self.accelerator.sync_gradients:
                        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
                    self.optimizer.step()
                    self.scheduler.step()
                    self.optimizer.zero_grad()
                if self.accelerator.sync_gradients:
                    self.exchange.end_step()
                    self.history.append((self.freeze_out.frozen, self.freeze_out.progress))


def main(folder: Path) -> None:
    """One of two processes, each with half of every batch: a whole run, and one that resumes it."""
    whole, resumed = Run(batch_size=4), Run(batch_size=4)
    whole.exchange.watch(whole.model)
    whole.epochs(3)
    whole.accelerator.save_state(str(folder / "saved"))
    whole.epochs(2)
    resumed.accelerator.load_state(str(folder / "saved"))
    resumed.exchange.watch(resumed.model)
    resumed.epochs(2)
    report(
        folder,
        *(run.accelerator.unwrap_model(run.model) for run in (whole, resumed)),
        history=whole.history,
        exchanged=whole.exchange.steps,
        resumed=resumed.exchange.steps,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
