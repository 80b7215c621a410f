"""Notice buffers of frozen layers that change in a forward pass, whatever changes them."""

from __future__ import annotations

import torch

from freezeout.layers import Layers

__all__ = ["Buffers"]


class Buffers:
    """The buffers of the frozen layers, and whether a forward pass leaves them as they are.

    PyTorch counts the changes of a tensor, so nothing is copied.

    Args:
        layers: The layers of the model.
        depth: Number of frozen layers.
    """

    def __init__(self, layers: Layers, depth: int) -> None:
        self._layers = layers
        self._depth = depth
        self._before: dict[str, tuple[torch.Tensor, int]] = {}

    def note(self) -> None:
        """Note the buffers before a forward pass."""
        self._before = {name: (b, _version(b)) for name, b in self._now().items()}

    def moved(self) -> str | None:
        """Return a sentence about those that have changed since; ``None`` if none has."""
        now = self._now()
        names = [
            repr(name)
            for name, (buffer, version) in self._before.items()
            if name in now and (now[name] is not buffer or _version(buffer) != version)
        ]
        if not names:
            return None
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return (
            f"buffers of frozen layers change in the forward pass, also in evaluation mode: "
            f"{', '.join(names[:3])}{more}. So the output of frozen layers goes on changing. Let "
            "the module change them only where self.training is true."
        )

    def _now(self) -> dict[str, torch.Tensor]:
        frozen = {id(m) for layer in self._layers[: self._depth] for m in layer.modules}
        return {
            f"{path}.{name}": buffer
            for path, module in self._layers.model.named_modules()
            if id(module) in frozen
            for name, buffer in module._buffers.items()
            if buffer is not None
        }


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else int(tensor._version)
