"""FreezeOut as a callback of Lightning's `Trainer`, for modules that you do not want to edit.

Where ``configure_optimizers`` is yours to write, this is not needed: return a `freezeout.FreezeOut`
there as any other scheduler, with ``"interval": "step"``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import ReduceLROnPlateau
from typing_extensions import Unpack

from freezeout.errors import FreezeOutError
from freezeout.integrations.common import metrics, same_rates, without_state
from freezeout.integrations.first_samples import cut_by_samples, first_samples, for_forward
from freezeout.layers import Layers, LayerSpec
from freezeout.schedule import Schedule, ScheduleSettings, make_schedule
from freezeout.scheduler import FreezeOut

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import StochasticWeightAveraging
else:
    try:
        from lightning.pytorch import Callback, LightningModule, Trainer
        from lightning.pytorch.callbacks import StochasticWeightAveraging
    except ModuleNotFoundError:  # the same framework, under its older name
        from pytorch_lightning import Callback, LightningModule, Trainer
        from pytorch_lightning.callbacks import StochasticWeightAveraging

__all__ = ["FreezeOutCallback"]


class FreezeOutCallback(Callback):
    """Train a `LightningModule` with `freezeout.FreezeOut`, without any change to it.

    When ``fit`` begins it makes the scheduler from the trainer's optimizer and the length of
    training; it steps it after every batch (only updates count), keeps its state in Lightning's
    checkpoints, and logs ``freezeout/frozen`` (layers), ``freezeout/frozen_fraction`` (of
    parameters), ``freezeout/learning_rate`` (the highest) and ``freezeout/progress`` at the
    beginning and at every freeze. It sets all rates, so the module must not have a scheduler of
    its own, except with ``anneal=None``, or ``ReduceLROnPlateau``, whose cuts it follows.

    Args:
        schedule: The settings as one object, in place of giving them one by one.
        layers: How to cut the module (see `freezeout.split_layers`), or the result. Names start
            at the `LightningModule`.
        example: An example input of the module's ``forward``, to find the order of execution. By
            default, and without `layers`, the module's ``example_input_array``, or else what
            ``forward`` takes of the first two samples of the training data, if they are numbered
            and ``forward`` then uses all that learns; no sampler is asked for them, and random
            number generators are put back.
        strict: Raise, rather than warn, if a frozen layer's output still needs a gradient.
        witness: Watch the bits of what is frozen and of what should learn (see `FreezeOut`).
        total_steps: Length of training in optimizer updates; by default the trainer's
            ``estimated_stepping_batches``, less what it has done in an earlier ``fit``.
        **settings: The settings of a `freezeout.Schedule`, one by one, such as ``t0=0.5``. With
            ``anneal=None`` the callback only freezes.

    Attributes:
        schedule: The settings.
        scheduler: The `freezeout.FreezeOut` at work; ``None`` before ``fit``.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Example:
        >>> trainer = Trainer(callbacks=[FreezeOutCallback(t0=0.5)])  # doctest: +SKIP
        >>> trainer.fit(module, loader)  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        schedule: Schedule | None = None,
        layers: Layers | Sequence[LayerSpec] | None = None,
        example: Any = None,
        strict: bool = False,
        witness: bool = True,
        total_steps: int | None = None,
        **settings: Unpack[ScheduleSettings],
    ) -> None:
        self.schedule = make_schedule(schedule, settings, type(self))
        self.scheduler: FreezeOut | None = None
        self._freezeout = partial(FreezeOut, strict=strict, witness=witness)
        self._cut: dict[str, Any] = {"layers": layers, "example": example}
        self._total_steps = total_steps
        self._fitting = False
        self._resumes_at = 0
        self._saved: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run, before Lightning restores a checkpoint.

        A checkpoint that is restored to validate, test or predict has no part in freezing.

        Args:
            trainer: The trainer.
            pl_module: What it trains.
            stage: ``"fit"`` or another.
        """
        self._fitting = stage == "fit"
        if self._fitting:
            self.scheduler = None
            self._resumes_at = 0
            self._saved = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the scheduler: after the optimizer was made, before its state is restored.

        Args:
            trainer: The trainer.
            pl_module: What it trains.

        Raises:
            CheckpointError: If the trainer resumes from a checkpoint that was saved without the
                callback, or with other settings.
            FreezeOutError: If there is not exactly one optimizer, if another scheduler sets the
                rates as well, if the length of training is not known, or if
                ``StochasticWeightAveraging`` would spoil a BatchNorm that freezes.
        """
        if self._resumes_at and self._saved is None:
            raise without_state(
                f"the checkpoint, of update {self._resumes_at}, was saved without "
                "FreezeOutCallback",
                "Resume with the callbacks that saved it, or load its weights into the module and "
                "begin a new fit.",
            )
        if len(trainer.optimizers) != 1:
            raise FreezeOutError(
                f"FreezeOutCallback drives one optimizer, but configure_optimizers made "
                f"{len(trainer.optimizers)}. Make a FreezeOut for each of them there "
                "(see its together_with) instead."
            )
        others = [config.scheduler for config in trainer.lr_scheduler_configs]
        if any(isinstance(other, FreezeOut) for other in others):
            raise FreezeOutError(
                "configure_optimizers made a FreezeOut, and FreezeOutCallback would make another. "
                "Drop one of the two."
            )
        setters = [other for other in others if not isinstance(other, ReduceLROnPlateau)]
        if setters and self.schedule.anneal is not None:
            raise same_rates(
                f"configure_optimizers made {type(setters[0]).__name__}", "Drop that scheduler"
            )
        self.scheduler = self._freezeout(
            trainer.optimizers[0],
            pl_module,
            _length(trainer) if self._total_steps is None else self._total_steps,
            schedule=self.schedule,
            **self._how_to_cut(trainer, pl_module),
        )
        _check_averaging(trainer, self.scheduler)
        if self._saved is not None:
            self.scheduler.load_state_dict(self._saved)
        self._log(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Bring rates and frozen layers up to date; a batch without an update changes nothing.

        Args:
            trainer: The trainer.
            pl_module: What it trains.
            outputs: Not used.
            batch: Not used.
            batch_idx: Not used.
        """
        scheduler = self.scheduler
        if scheduler is not None and _is_behind(scheduler):
            frozen = scheduler.frozen
            scheduler.step()
            if scheduler.frozen != frozen:
                self._log(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the scheduler, for Lightning's checkpoint."""
        return {} if self.scheduler is None else self.scheduler.state_dict()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note where ``fit`` resumes, also if the checkpoint holds no state of the callback.

        Args:
            trainer: The trainer.
            pl_module: What it trains.
            checkpoint: The whole checkpoint.
        """
        if self._fitting:
            self._resumes_at = checkpoint["global_step"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a saved state until ``fit`` begins, or apply it where it has begun.

        Outside ``fit`` nothing happens: a checkpoint to validate or test may be of any run.

        Args:
            state_dict: What `state_dict` returned.

        Raises:
            CheckpointError: If it was saved with other settings.
        """
        if not self._fitting:
            return
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state_dict)
        else:
            self._saved = state_dict or None

    def _how_to_cut(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        if any(given is not None for given in self._cut.values()):
            return self._cut
        if pl_module.example_input_array is None and trainer.train_dataloader is None:
            return {"layers": None}  # not made yet: nothing has asked for its length
        layers = cut_by_samples(pl_module, partial(_example, trainer, pl_module))
        if layers is not None and any(
            pl_module.get_parameter(n).requires_grad for n in layers.idle
        ):
            layers = None  # training_step does more than forward
        saved = (self._saved or {}).get("layers")
        if layers is not None and saved not in (None, list(layers.names)):
            layers = None  # saved when layers were still in the order of definition
        return {"layers": layers}

    def _log(self, trainer: Trainer) -> None:
        if self.scheduler is not None:
            for logger in trainer.loggers:
                logger.log_metrics(metrics(self.scheduler), step=trainer.global_step)


def _example(trainer: Trainer, pl_module: LightningModule) -> Any:
    """Return an input of ``forward``: the module's own, or from the training data."""
    if pl_module.example_input_array is not None:
        return pl_module.example_input_array
    loader: Any = trainer.train_dataloader
    batches = loader.batch_sampler is not None
    return for_forward(pl_module, first_samples(loader.dataset, loader.collate_fn, batches=batches))


def _is_behind(scheduler: FreezeOut) -> bool:
    """Return whether an update happened since the last step: not in accumulation."""
    return scheduler.progress != scheduler.last_epoch / scheduler.total_steps


def _check_averaging(trainer: Any, scheduler: FreezeOut) -> None:
    """Refuse to have the statistics of a frozen layer reset: it would not gather them again."""
    if not any(isinstance(other, StochasticWeightAveraging) for other in trainer.callbacks):
        return
    for layer, freezes in zip(scheduler.layers, scheduler.freeze_steps, strict=True):
        if freezes is not None and any(
            isinstance(module, _BatchNorm) and module.track_running_stats
            for module in layer.modules
        ):
            raise FreezeOutError(
                "StochasticWeightAveraging resets the statistics of every BatchNorm and gathers "
                f"them in another epoch, but layer {layer.index} ({layer.name}) will be frozen and "
                "gathers none. Drop one of the two callbacks, or use EMAWeightAveraging."
            )


def _length(trainer: Trainer) -> int:
    """Return the length of training in updates, from where it stands."""
    steps = trainer.estimated_stepping_batches
    if not 0 < steps < math.inf:  # Lightning says inf, or -1, where it does not know
        raise FreezeOutError(
            f"the length of training is not known (the trainer estimates {steps} updates), but "
            "freeze times are fractions of it. Give Trainer(max_steps=...), or "
            "FreezeOutCallback(total_steps=...)."
        )
    begun = trainer.global_step if getattr(trainer, "ckpt_path", None) is None else 0
    if begun:  # estimates count from the first fit() of this trainer, a new schedule from this one
        steps = _left(trainer)
    if steps < 1:
        raise FreezeOutError(
            f"this trainer has done all of its {begun} updates, so there is nothing left to train. "
            "Raise max_epochs or max_steps, or make a new Trainer."
        )
    return int(steps)


def _left(trainer: Trainer) -> float:
    """Return the updates until `max_epochs` or `max_steps`; a broken-off epoch starts again."""
    left = math.inf
    if trainer.max_steps != -1:
        left = trainer.max_steps - trainer.global_step
    if trainer.max_epochs not in (None, -1) and trainer.num_training_batches != math.inf:
        updates = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        left = min(left, updates * (trainer.max_epochs - trainer.current_epoch))
    return left
