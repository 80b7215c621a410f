"""Build networks of transformers from their configurations; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from tests.layers.real.network import Network, generator

__all__ = ["ids", "row"]


def row(name: str, settings: dict[str, Any], batch: Callable[[], Any]) -> Network:
    return Network(f"transformers/{name}", partial(_build, name, settings), batch)


def ids(length: int) -> torch.Tensor:
    return torch.randint(5, 90, (2, length), generator=generator())


def _build(name: str, settings: dict[str, Any]) -> nn.Module:
    import transformers

    kind = getattr(transformers, name)
    settings = {key: dict(v) if isinstance(v, dict) else v for key, v in settings.items()}
    model: nn.Module = kind(kind.config_class(**settings))
    return model
