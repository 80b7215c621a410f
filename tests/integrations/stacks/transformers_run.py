"""A small run in the trainer of transformers; as a script one of several processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    logging,
)

from freezeout import FreezeOut
from freezeout.integrations.transformers import FreezeOutCallback
from tests.integrations.stacks.processes import Exchange, report

SETTINGS: dict[str, Any] = {"t0": 0.4, "spacing": "linear"}
"""Five layers: embeddings, two blocks, pooler, classifier; they freeze at 0.4, 0.55, 0.7, 0.85."""

logging.set_verbosity_error()
logging.disable_progress_bar()


def network(dropout: float = 0.1) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=32,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=8,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    )


def data() -> list[dict[str, torch.Tensor]]:
    """Sixty-four sequences, labelled by their first word."""
    ids = torch.randint(0, 32, (64, 6), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row[0] % 2} for row in ids]


class Stream(IterableDataset[dict[str, torch.Tensor]]):
    """The same, three times over, without numbers and without a length.

    The trainer resumes a stream right only within its first pass.
    """

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        yield from 3 * data()


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 20,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "logging_steps": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "average_tokens_across_devices": False,  # this model's loss is a mean already
    }
    return TrainingArguments(**{**settings, **changes})


class CustomOptimizer(Trainer):
    """A trainer whose user makes the optimizer."""

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        return self.optimizer


def trainer(
    folder: Path,
    *callbacks: TrainerCallback,
    kind: type[Trainer] = Trainer,
    dropout: float = 0.1,
    dataset: Any = None,
    **changes: Any,
) -> Trainer:
    made = kind(
        network(dropout),
        arguments(folder, **changes),
        train_dataset=data() if dataset is None else dataset,
        eval_dataset=data()[:16],
        callbacks=list(callbacks),
    )
    made.pop_callback(made.callback_handler.callbacks[-1])  # prints
    return made


class Watch(TrainerCallback):
    """Counts what is exchanged."""

    def __init__(self) -> None:
        self.exchange = Exchange()
        self.trainer: Trainer | None = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        assert self.trainer is not None
        self.exchange.watch(self.trainer.model_wrapped)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.exchange.end_step()


def watched(folder: Path, resume: bool = False) -> tuple[Trainer, FreezeOut, list[int]]:
    """Trains with half of every batch; returns what was exchanged as well."""
    callback, watch = FreezeOutCallback(**SETTINGS), Watch()
    run = watch.trainer = trainer(
        folder,
        callback,
        watch,
        kind=CustomOptimizer,
        dropout=0.0,
        per_device_train_batch_size=4,
        train_sampling_strategy="sequential",
        save_strategy="steps",
        save_steps=12,
    )
    run.train(resume_from_checkpoint=str(folder / "checkpoint-12") if resume else None)
    return run, callback.scheduler, watch.exchange.steps


def main(folder: Path) -> None:
    """One of two processes: a whole run, and one that resumes it."""
    whole, scheduler, exchanged = watched(folder)
    resumed, again, rest = watched(folder, resume=True)
    report(
        folder,
        whole.model,
        resumed.model,
        frozen=[scheduler.frozen, again.frozen],
        exchanged=exchanged,
        resumed=rest,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
