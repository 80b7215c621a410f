"""What PyTorch's compiler keeps for a function: count its graphs, drop them.

Some of this is private to PyTorch, so its presence is checked, not assumed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from types import CodeType
from typing import Any

import torch

__all__ = [
    "can_forget",
    "compiled_codes",
    "continuations",
    "forget",
    "graphs",
    "how_to_allow",
    "is_used",
    "limit",
    "notices_flags",
]


def is_used() -> bool:
    """Return whether anything can have been compiled in this process."""
    return "torch._dynamo" in sys.modules


def graphs(code: CodeType) -> int:
    """Return how many graphs PyTorch holds for a function now; 0 if it does not tell."""
    if not is_used():
        return 0
    try:
        from torch._dynamo.eval_frame import _debug_get_cache_entry_list

        return len(_debug_get_cache_entry_list(code))
    except (ImportError, TypeError):
        return 0


def compiled_codes() -> list[CodeType]:
    """Return the code of every function compiled in this process, as far as PyTorch tells."""
    convert = sys.modules.get("torch._dynamo.convert_frame")
    seen = getattr(getattr(convert, "input_codes", None), "seen", ())
    return [code for ref in seen if (code := ref()) is not None]


def continuations(codes: Iterable[CodeType]) -> list[CodeType]:
    """Return what PyTorch made of the rest of functions that it could not compile in one piece.

    Each is compiled by itself, and begins on a line of the function it continues.
    """
    lines = {(code.co_filename, n) for code in codes for _, _, n in code.co_lines()}
    return [
        code
        for code in compiled_codes()
        if "torch_dynamo_resume_in" in code.co_name
        and (code.co_filename, code.co_firstlineno) in lines
    ]


def can_forget() -> bool:
    """Return whether this PyTorch lets the graphs of one function be dropped."""
    return callable(_reset_code())


def forget(code: CodeType) -> None:
    """Drop the graphs of a function, which is compiled again when it is called next."""
    reset = _reset_code()
    if reset is not None:
        reset(code)


def _reset_code() -> Any:
    return getattr(sys.modules.get("torch._dynamo.eval_frame"), "reset_code", None)


def notices_flags() -> bool:
    """Return whether PyTorch stops using a graph once a parameter in it is frozen.

    An older one (2.6) goes on with it and computes gradients that nobody needs.
    """
    return tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)


def limit() -> int:
    """Return how many graphs of a function PyTorch keeps before it gives up."""
    from torch._dynamo import config

    return int(getattr(config, _name_of_limit()))


def how_to_allow(number: int) -> str:
    """Return what to write for another limit, in this version of PyTorch."""
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        return f"torch.compile(..., recompile_limit={number})"
    return f"torch._dynamo.config.{_name_of_limit()} = {number}"


def _name_of_limit() -> str:
    from torch._dynamo import config

    return "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # 2.6
