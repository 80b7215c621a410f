"""Numbers and names as the displays and tables write them."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

__all__ = ["error_text", "loss_text", "shortened"]


def error_text(error: float | None) -> str:
    """Write a percentage of errors; a dash where there is none."""
    return "-" if error is None else f"{error:.2f} %"


def loss_text(value: float) -> str:
    """Write a loss in at most six characters for the sizes that occur."""
    size = abs(value)
    return f"{value:.4f}" if size < 9.9999 else f"{value:.3f}" if size < 99.999 else f"{value:.4g}"


def shortened(name: str, room: int, *, ascii_only: bool) -> str:
    """Leave out the middle of a name that takes more columns of a terminal than there is room."""
    if cell_len(name) <= room:
        return name
    mark = "..." if ascii_only else "…"
    for kept in range(len(name) - 1, 1, -1):
        text = name[: kept // 2] + mark + name[len(name) - (kept + 1) // 2 :]
        if cell_len(text) <= room:
            return text
    return set_cell_size(name, room)
