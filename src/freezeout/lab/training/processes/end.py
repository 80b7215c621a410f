"""How the program ends: with which code, and what it says."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["End"]


@dataclass(frozen=True)
class End:
    """How an attempt ended.

    Attributes:
        code: Exit code.
        line: What there is to say, on the error stream; may be empty.
        error: What was raised, if anything.
    """

    code: int
    line: str = ""
    error: BaseException | None = None
