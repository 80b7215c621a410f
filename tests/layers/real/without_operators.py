"""torchvision beside a torch that its compiled part was not made for (a build without CUDA).

Its operators do not load then, and it does not import unless their names are known. Networks need
none of them, except detectors that sort boxes.
"""

from __future__ import annotations

import importlib.util
import sys

import torch

__all__ = ["available"]

_KEPT: list[torch.library.Library] = []  # a library that is dropped takes its names along


def available() -> str | None:
    """Return why timm and torchvision cannot be tried; ``None`` if they can."""
    missing = [name for name in ("timm", "torchvision") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: make test-networks does that"
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        importlib.import_module("torchvision")
    return None
