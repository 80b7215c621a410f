"""A custom network in a run: it takes the data's images, and gives a logit for each class."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from freezeout.errors import FreezeOutError, RunError, SplitError
from freezeout.lab.importing import error_line, kind_of
from freezeout.lab.models import move_custom
from freezeout.layers import Layers, split_layers, unwrap
from freezeout.tensors import is_out_of_memory

__all__ = ["CustomNetwork"]


@dataclass(frozen=True)
class CustomNetwork:
    """Stand between the training loop and a custom network, and word its errors.

    Attributes:
        target: Its name, ``module:function``.
        num_classes: Classes of the data.
    """

    target: str
    num_classes: int

    def move(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return the model on a device.

        Raises:
            RunError: If it cannot be moved, or has weights without a shape.
        """
        if any(nn.parameter.is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
            raise RunError(
                f"what {self.target} makes has lazy modules, whose weights have no shape yet. Run "
                "it once within the function, on torch.zeros(2, in_channels, *image_size)."
            )
        moved: nn.Module = move_custom(self.target, model, device)
        return moved

    def cut(self, model: nn.Module, example: torch.Tensor) -> Layers:
        """Return the layers in the order in which the model runs them.

        The model runs once, in evaluation mode, and is left as it was.

        Args:
            model: The model.
            example: A batch as in training.

        Raises:
            RunError: If the model does not run on it, or returns anything but logits.
            SplitError: If it cannot be cut.
        """
        if isinstance(unwrap(model), torch.jit.ScriptModule):
            raise RunError(
                f"what {self.target} makes is a scripted or traced module, in which nothing can be "
                "frozen. Return the module that was scripted."
            )
        outputs: list[Any] = []
        hook = unwrap(model).register_forward_hook(lambda module, args, out: outputs.append(out))
        try:
            layers = split_layers(model, example=example)
        except SplitError as error:
            cause = error.__cause__
            if not isinstance(cause, Exception) or is_out_of_memory(cause):
                raise
            raise self._failed(cause, example) from error
        finally:
            hook.remove()
        self._check(outputs[-1], len(example))
        return layers

    def logits(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch.

        Raises:
            RunError: If the model fails, or returns anything but logits.
        """
        try:
            output = model(images)
        except FreezeOutError:
            raise
        except Exception as error:
            raise self._failed(error, images) from error
        self._check(output, len(images))
        if torch.is_grad_enabled() and not output.requires_grad:
            raise RunError(
                f"what {self.target} makes returns logits without a gradient, so it cannot learn. "
                "Remove detach() and no_grad() from its forward, and leave requires_grad on."
            )
        logits: torch.Tensor = output
        return logits

    def _check(self, output: Any, count: int) -> None:
        wanted = (count, self.num_classes)
        if isinstance(output, torch.Tensor):
            if output.shape == wanted and output.is_floating_point():
                return
            got = f"{tuple(output.shape)} in {str(output.dtype).removeprefix('torch.')}"
        else:
            got = kind_of(output)
        raise RunError(
            f"what {self.target} makes must return a logit for each of the {self.num_classes} "
            f"classes, {wanted} for a batch of {count}, got {got}. Take num_classes as an argument "
            "of the function, and return the logits alone."
        )

    def _failed(self, error: Exception, images: torch.Tensor) -> RunError:
        size = "x".join(map(str, images.shape[1:]))
        advice = "Take in_channels and image_size as arguments of the function, or fix the model."
        if "view size is not compatible" in str(error):
            advice = "Use flatten or reshape in place of view there, or give --no-channels-last."
        return RunError(
            f"what {self.target} makes does not run on {len(images)} images of {size}: "
            f"{error_line(error)}{_place(error)}. {advice}"
        )


_FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), "<")


def _place(error: Exception) -> str:
    """Return the last line of the user's code in an error's traceback, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_FOREIGN)]
    return f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
