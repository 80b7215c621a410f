"""Small pieces of text that the displays share."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["check_start", "digits", "encodable", "loss_text", "percent", "tail"]


def percent(value: float | None, *, decimals: int = 2) -> str:
    return "-" if value is None else f"{value:.{decimals}f} %"


def loss_text(value: float) -> str:
    """Write a loss in at most six characters for the sizes that occur."""
    size = abs(value)
    return f"{value:.4f}" if size < 9.9999 else f"{value:.3f}" if size < 99.999 else f"{value:.4g}"


def digits(number: int) -> int:
    return len(f"{number:,}")


def tail(name: str, room: int, *, ascii_only: bool) -> str:
    """Shorten a name to its end, where dotted names differ."""
    mark = "..." if ascii_only else "…"
    if len(name) <= room:
        return name
    return mark + name[len(name) - max(1, room - len(mark)) :]


def encodable(text: str, stream: object) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def check_start(
    layer_names: Sequence[str], freeze_steps: Sequence[int | None], total_steps: int
) -> None:
    if not layer_names or len(layer_names) != len(freeze_steps):
        raise ValueError(
            "layer_names and freeze_steps must be equally long and not empty, got "
            f"{len(layer_names)} and {len(freeze_steps)}. Use None for a layer that never freezes."
        )
    if total_steps < 1:
        raise ValueError(f"total_steps must be at least 1, got {total_steps}. Count all epochs.")
