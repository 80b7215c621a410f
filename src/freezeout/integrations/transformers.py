"""FreezeOut as a callback of the `Trainer` of Hugging Face transformers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from typing_extensions import Unpack

from freezeout.errors import FreezeOutError
from freezeout.integrations.common import metrics, same_rates, without_state
from freezeout.integrations.first_samples import cut_by_samples, first_samples
from freezeout.layers import Layers, LayerSpec
from freezeout.schedule import Schedule, ScheduleSettings, make_schedule
from freezeout.scheduler import FreezeOut

__all__ = ["FreezeOutCallback"]


class FreezeOutCallback(TrainerCallback):
    """Train with `freezeout.FreezeOut` in a `Trainer`: ``Trainer(..., callbacks=[callback])``.

    The trainer builds its optimizer as always. Where it would build its learning-rate scheduler, it
    gets a `FreezeOut` instead, as long as the training, with the warm-up of `TrainingArguments`.
    So the trainer itself steps it, saves it in ``scheduler.pt`` and loads it on resume, and the
    ``learning_rate`` that it logs is that of the first layer. Each log gains ``freezeout/frozen``
    (layers), ``freezeout/frozen_fraction`` (of parameters), ``freezeout/learning_rate`` (the
    highest) and ``freezeout/progress``.

    With ``anneal=None`` the trainer's own scheduler stays and sets the rates, and layers only
    freeze.

    Args:
        schedule: The settings as one object, in place of giving them one by one.
        layers: How to cut the model (see `freezeout.split_layers`), or the result.
        example: An example input of the model, to find the order of execution; a dict of keyword
            arguments, such as ``{"input_ids": ids}``. By default, and without `layers`, the first
            two samples of the training data, if they are numbered; no sampler is asked for them,
            and random number generators are put back.
        strict: Raise, rather than warn, if a frozen layer's output still needs a gradient.
        witness: Watch the bits of what is frozen and of what should learn (see `FreezeOut`).
        **settings: The settings of a `freezeout.Schedule`, one by one, such as ``t0=0.5``;
            ``warmup_steps=0`` stands for the warm-up of the `TrainingArguments`.

    Attributes:
        schedule: The settings.
        scheduler: The `freezeout.FreezeOut` at work; ``None`` before ``train``.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Example:
        >>> callback = FreezeOutCallback(t0=0.5, scale_cap=2.0)
        >>> trainer = Trainer(model, args, callbacks=[callback])  # doctest: +SKIP
        >>> trainer.train(resume_from_checkpoint=True)  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        schedule: Schedule | None = None,
        layers: Layers | Sequence[LayerSpec] | None = None,
        example: Any = None,
        strict: bool = False,
        witness: bool = True,
        **settings: Unpack[ScheduleSettings],
    ) -> None:
        self.schedule = make_schedule(schedule, settings, type(self))
        self.scheduler: FreezeOut | None = None
        self._freezeout = partial(FreezeOut, strict=strict, witness=witness)
        self._cut: dict[str, Any] = {"layers": layers, "example": example}
        self._trainer: Trainer | None = None

    def bind(self, trainer: Trainer) -> None:
        """Tie the callback to a trainer. One that is given to ``Trainer(callbacks=...)`` is tied.

        Only a callback that is added later, with ``trainer.add_callback``, needs this.

        Args:
            trainer: The trainer; its ``create_scheduler`` is replaced.

        Raises:
            FreezeOutError: If the callback is tied to another trainer.

        Warns:
            UserWarning: If the trainer's class has a custom ``create_scheduler``, which is not
                called because FreezeOut sets the rates.
        """
        if self._trainer is trainer:
            return
        if self._trainer is not None:
            raise FreezeOutError(
                "the FreezeOutCallback is already tied to another Trainer. Make one for each."
            )
        if any(
            isinstance(other, FreezeOutCallback) and other is not self and other._trainer is trainer
            for other in trainer.callback_handler.callbacks
        ):
            raise FreezeOutError(
                "the Trainer has two FreezeOutCallbacks, and both would freeze its layers. Give "
                "it one."
            )
        self._trainer = trainer
        kind = type(trainer)
        if (
            self.schedule.anneal is not None
            and kind.create_scheduler is not Trainer.create_scheduler
        ):
            warnings.warn(
                f"{kind.__name__}.create_scheduler is not called, because FreezeOut sets the rates "
                f"with anneal={self.schedule.anneal!r}. Take it out, or keep it and give "
                "FreezeOutCallback(anneal=None), which only freezes.",
                UserWarning,
                stacklevel=2,
            )
        host: Any = trainer  # it declares a narrower type for its scheduler than it takes
        original = trainer.create_scheduler

        def create_scheduler(num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
            if self not in trainer.callback_handler.callbacks:  # it was taken out again
                return original(num_training_steps, optimizer)
            if self.schedule.anneal is None:
                theirs = original(num_training_steps, optimizer)
                host.lr_scheduler = _Beside(theirs, self._make(host, num_training_steps, optimizer))
                host._created_lr_scheduler = True
            elif host.lr_scheduler is None:
                host.lr_scheduler = self._make(host, num_training_steps, optimizer)
                host._created_lr_scheduler = True
            else:
                raise same_rates(
                    f"the Trainer was given {type(host.lr_scheduler).__name__}",
                    "Give optimizers=(optimizer, None)",
                )
            return host.lr_scheduler

        host.create_scheduler = create_scheduler

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tie the callback to the trainer that is being made.

        Args:
            args: The trainer's settings.
            state: Its state.
            control: Not used.
            **kwargs: Not used.
        """
        trainer = _trainer_of(self)
        if trainer is not None:
            self.bind(trainer)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the scheduler is at work, and that it goes on where the trainer does.

        Args:
            args: The trainer's settings.
            state: Its state.
            control: Not used.
            **kwargs: Not used.

        Raises:
            CheckpointError: If the trainer resumes, but did not load the state of the scheduler.
            FreezeOutError: If the callback is not tied to the trainer.
        """
        if self._trainer is None or self.scheduler is None:
            raise FreezeOutError(
                "FreezeOutCallback was added after the Trainer was made, so nothing would freeze. "
                "Give it as Trainer(callbacks=[callback]), or call callback.bind(trainer) before "
                "trainer.train()."
            )
        if state.global_step and not self.scheduler._loaded:
            raise without_state(
                f"the Trainer resumes at step {state.global_step}, but its checkpoint has no state "
                "of optimizer and scheduler (save_only_model=True leaves them out)",
                "Load it as a model and begin a new training.",
            )
        # A logger is a callback, too; what is to reach them all must come before them.
        callbacks = self._trainer.callback_handler.callbacks
        callbacks.remove(self)
        callbacks.insert(0, self)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add ``freezeout/frozen`` and the like to what is logged while it trains.

        Args:
            args: The trainer's settings.
            state: Its state, whose history gains them as well.
            control: Not used.
            **kwargs: Holds ``logs``.
        """
        logs = kwargs.get("logs")
        if self.scheduler is not None and logs is not None and "loss" in logs:
            found = metrics(self.scheduler)
            logs.update(found)
            if state.log_history:
                state.log_history[-1].update(found)

    def _make(self, trainer: Any, total_steps: int, optimizer: Optimizer | None) -> FreezeOut:
        _make_room_in_checkpointing(trainer)
        self.scheduler = self._freezeout(
            trainer.optimizer if optimizer is None else optimizer,
            trainer.model,
            total_steps,
            schedule=_with_warmup(self.schedule, trainer.args, total_steps),
            **self._how_to_cut(trainer),
        )
        return self.scheduler

    def _how_to_cut(self, trainer: Any) -> dict[str, Any]:
        if any(given is not None for given in self._cut.values()):
            return self._cut
        return {"layers": cut_by_samples(trainer.model, partial(_example, trainer))}


def _example(trainer: Any) -> Any:
    """Return a batch as the trainer would give it to the model."""
    collate = trainer._get_collator_with_removed_columns(trainer.data_collator, "training")
    return first_samples(trainer.train_dataset, collate)


class _Beside:
    """The trainer's own scheduler, which sets the rates, and a `FreezeOut` that only freezes."""

    def __init__(self, theirs: Any, ours: FreezeOut) -> None:
        if isinstance(theirs, ReduceLROnPlateau) or type(theirs).__name__ == "GreedyLR":
            raise FreezeOutError(
                f"FreezeOutCallback(anneal=None) cannot stand beside {type(theirs).__name__}, "
                "which the Trainer steps after evaluations alone. Choose another "
                "lr_scheduler_type."
            )
        self.theirs = theirs
        self.ours = ours
        self.optimizer = theirs.optimizer

    def step(self) -> None:
        self.theirs.step()
        self.ours.step()

    def get_last_lr(self) -> list[Any]:
        rates: list[Any] = self.theirs.get_last_lr()
        return rates

    def state_dict(self) -> dict[str, Any]:
        return {"trainer": self.theirs.state_dict(), "freezeout": self.ours.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.keys() != {"trainer", "freezeout"}:
            raise without_state(
                "scheduler.pt was not saved by a Trainer with FreezeOutCallback(anneal=None)",
                "Resume with the settings that saved it.",
            )
        self.theirs.load_state_dict(state_dict["trainer"])
        self.ours.load_state_dict(state_dict["freezeout"])


def _trainer_of(callback: TrainerCallback) -> Trainer | None:
    """Return the trainer that is being made.

    `on_init_end` is told the model and the settings, but not the trainer, and no later event comes
    before a checkpoint is loaded. So it is looked for among the callers.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Trainer) and callback in caller.callback_handler.callbacks:
            return caller
        frame = frame.f_back
    return None


def _with_warmup(schedule: Schedule, args: TrainingArguments, total_steps: int) -> Schedule:
    """Return the schedule with the warm-up that the trainer was told to do."""
    if schedule.anneal is None:
        return schedule  # the trainer's own scheduler warms up
    asked = int(args.get_warmup_steps(total_steps))
    if asked and schedule.warmup_steps and asked != schedule.warmup_steps:
        raise ValueError(
            f"TrainingArguments ask for {asked} warm-up steps, but FreezeOutCallback for "
            f"{schedule.warmup_steps}. Give the warm-up in one of the two."
        )
    kind = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    if kind not in ("linear", schedule.anneal):  # "linear" is what it is if not given
        warnings.warn(
            f"lr_scheduler_type={kind!r} has no effect, because FreezeOut sets the rates with "
            f"anneal={schedule.anneal!r}. Leave it out, or keep it and give "
            "FreezeOutCallback(anneal=None), which only freezes.",
            UserWarning,
            stacklevel=2,
        )
    return replace(schedule, warmup_steps=asked) if asked else schedule


def _make_room_in_checkpointing(trainer: Any) -> None:
    """Let the backward pass stop at frozen layers also under activation checkpointing.

    transformers makes the output of the embeddings require a gradient then. Only adapters and the
    reentrant kind need that, and it would take the backward pass through all frozen layers.
    """
    for name in ("activation_checkpointing", "gradient_checkpointing"):  # the second is older
        if not getattr(trainer.args, name, None):
            continue
        chosen = getattr(trainer.args, f"{name}_kwargs", None) or {}
        if chosen.get("use_reentrant", False):
            raise FreezeOutError(
                f"{name}_kwargs has use_reentrant=True, which drops the gradients of live layers "
                f"behind frozen ones. Give {name}_kwargs={{'use_reentrant': False}}."
            )
        if not getattr(trainer.model, "_hf_peft_config_loaded", False):
            getattr(trainer.model, "disable_input_require_grads", _nothing)()


def _nothing() -> None:
    pass
