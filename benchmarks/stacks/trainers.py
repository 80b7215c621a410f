"""Training loops of others, taken one step at a time, so that two of them can take turns.

A trainer does not give up control between steps. So each runs in a thread of its own, whose next
batch is kept back until its turn comes; a step lasts from there to the request for the batch after.
What handing over costs is the same for all.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import IterableDataset

from benchmarks.step.loops import TOTAL_STEPS, Settings, sgd
from freezeout import FreezeOut

__all__ = ["LOOPS", "Batches", "Stepped"]


class Batches(IterableDataset[Any]):
    """A few samples without end, held back at every batch until there is leave to go on.

    Args:
        samples: Given again and again; a sample may be a batch.
        per_step: Samples that make a step.
    """

    def __init__(self, samples: list[Any], per_step: int = 1) -> None:
        self.samples = samples
        self.per_step = per_step
        self.leave = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self.over = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        for number, sample in enumerate(itertools.cycle(self.samples)):
            if number % self.per_step == 0:
                if self.over.is_set():
                    return
                self.asked.release()
                self.leave.acquire()
                if self.over.is_set():
                    return
            yield sample


class Stepped:
    """A training loop that runs in the background and waits before every step.

    Args:
        train: Trains on the batches until they end.
        batches: What it is given.
    """

    def __init__(self, train: Callable[[], object], batches: Batches) -> None:
        self._batches = batches
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(train,), daemon=True)
        self._threads = torch.get_num_threads()
        self._thread.start()
        self._wait()

    def step(self) -> None:
        """Take one step."""
        self._batches.leave.release()
        self._wait()

    def close(self) -> None:
        """Let the loop come to its end."""
        self._batches.over.set()
        self._batches.leave.release()
        self._thread.join(timeout=60)

    def _wait(self) -> None:
        self._batches.asked.acquire()
        if self._error is not None:
            raise self._error

    def _run(self, train: Callable[[], object]) -> None:
        torch.set_num_threads(self._threads)  # each thread has a number of its own
        try:
            train()
        except BaseException as error:
            self._error = error
        finally:
            self._batches.asked.release()


def lightning_loop(settings: Settings, attached: bool) -> tuple[Stepped, Callable[[], Any]]:
    """Make Lightning's trainer, with or without the callback."""
    import lightning.pytorch as pl

    from freezeout.integrations.lightning import FreezeOutCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = settings.network()

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return settings.loss(self.net, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return sgd([list(self.parameters())])

    callback = FreezeOutCallback(t0=1.0)
    trainer = pl.Trainer(
        max_epochs=1,
        max_steps=TOTAL_STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback] if attached else [],
    )
    batches = Batches(settings.batches())
    module = Module()
    return Stepped(lambda: trainer.fit(module, batches), batches), lambda: callback.scheduler


def transformers_loop(settings: Settings, attached: bool) -> tuple[Stepped, Callable[[], Any]]:
    """Make the trainer of transformers on a small GPT-2, with or without the callback."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    from freezeout.integrations.transformers import FreezeOutCallback

    torch.manual_seed(settings.seed)
    length = 2 * settings.image_size
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=256,
            n_positions=length,
            n_embd=4 * settings.image_size,
            n_layer=6,
            n_head=4,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    rows = torch.randint(256, (4 * settings.batch_size, length))
    batches = Batches([{"input_ids": row, "labels": row} for row in rows], settings.batch_size)
    callback = FreezeOutCallback(t0=1.0)
    folder = tempfile.mkdtemp()
    trainer = Trainer(
        model,
        TrainingArguments(
            folder,
            max_steps=TOTAL_STEPS,
            per_device_train_batch_size=settings.batch_size,
            logging_steps=TOTAL_STEPS,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        ),
        train_dataset=batches,
        callbacks=[callback] if attached else [],
    )
    return Stepped(trainer.train, batches), lambda: callback.scheduler


def accelerate_loop(settings: Settings, attached: bool) -> tuple[Stepped, Callable[[], Any]]:
    """Make a loop with Accelerate; its scheduler is FreezeOut or torch's cosine."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    network = settings.network()
    bare = sgd([list(network.parameters())])
    made: Any = (
        FreezeOut(bare, network, TOTAL_STEPS, t0=1.0)
        if attached
        else torch.optim.lr_scheduler.CosineAnnealingLR(bare, TOTAL_STEPS)
    )
    model, optimizer, scheduler = accelerator.prepare(network, bare, made)
    batches = Batches(settings.batches())

    def train() -> None:
        for images, labels in batches:
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model(images), labels))
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()

    return Stepped(train, batches), lambda: made


LOOPS = {
    "lightning": lightning_loop,
    "transformers": transformers_loop,
    "accelerate": accelerate_loop,
}
"""By the name of the framework: makes a loop, and says which scheduler is attached to it."""
