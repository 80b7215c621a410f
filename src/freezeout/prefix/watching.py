"""Watch the functions of tensors, and pause: PyTorch's stack of function modes."""

from __future__ import annotations

from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)

__all__ = ["Pause", "take_off", "watch", "watching_now"]


def watch(mode: TorchFunctionMode) -> None:
    """Have every function of tensors come by a mode, from now on."""
    _push_mode(mode)


def watching_now() -> list[TorchFunctionMode]:
    """Return what functions of tensors come by at present."""
    return list(_get_current_function_mode_stack())


def take_off(mode: TorchFunctionMode) -> None:
    """Take a mode off the stack, wherever it is; do nothing if it is not there."""
    above = []
    while (top := _get_current_function_mode()) is not None and top is not mode:
        above.append(_pop_mode())
    if top is mode:
        _pop_mode()
    for other in reversed(above):
        _push_mode(other)


class Pause:
    """Watch nothing while the context lasts. Pauses may lie within each other.

    Attributes:
        depth: How many pauses last.

    Args:
        mode: What watches.
    """

    def __init__(self, mode: TorchFunctionMode) -> None:
        self.depth = 0
        self._mode = mode
        self._popped: list[bool] = []

    def __enter__(self) -> None:
        self.depth += 1
        on_top = _get_current_function_mode() is self._mode
        self._popped.append(on_top)
        if on_top:
            _pop_mode()

    def __exit__(self, *error: object) -> None:
        self.depth -= 1
        if self._popped.pop():
            _push_mode(self._mode)
